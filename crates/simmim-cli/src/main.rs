//! The `simmim` command: arguments in, library calls, one exit code out.

mod cli;
mod commands;
mod exit;
mod interrupt;
mod progress;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Demo(args) => commands::demo::run(&cli.common, args),
        Command::Pretrain(args) => commands::pretrain::run(&cli.common, args),
        Command::Finetune(args) => commands::finetune::run(&cli.common, args),
        Command::Probe(args) => commands::probe::run(&cli.common, args),
        Command::Knn(args) => commands::knn::run(&cli.common, args),
        Command::Evaluate(args) => commands::evaluate::run(&cli.common, args),
        Command::Reconstruct(args) => commands::reconstruct::run(&cli.common, args),
        Command::Masks(args) => commands::masks::run(&cli.common, args),
        Command::Palette(args) => commands::palette::run(&cli.common, args),
        Command::Tokenizer(args) => commands::tokenizer::run(&cli.common, args),
        Command::Inspect(args) => commands::inspect::run(&cli.common, args),
        Command::Bench(args) => commands::bench::run(&cli.common, args),
        Command::Recipes(args) => commands::recipes::run(&cli.common, args),
    };
    match done {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error).into(),
    }
}
