//! The devices of this build. No other file of the command names one.

use crate::cli::{Cli, Command};
use crate::commands;
use crate::exit::Exit;
use crate::unused;
use simmim::Error;
use simmim_cpu::CpuDevice;
use simmim_engine::Device;

/// Devices of other builds, and the hardware or library they are for.
const OTHER_BUILDS: &[(&str, &str)] =
    &[("cuda", "NVIDIA and AMD GPUs"), ("mps", "Apple GPUs"), ("libtorch-cpu", "libtorch")];

/// Runs a command on the device that it asks for.
///
/// # Errors
/// If this build does not have the device, an option would be ignored, and those of the command.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<Exit> {
    unused::refuse(cli)?;
    match cli.common.device() {
        "auto" | "cpu" => on(cli, &CpuDevice { threads: cli.common.threads() }),
        other => Err(unknown(other).into()),
    }
}

fn on(cli: &Cli, device: &impl Device) -> anyhow::Result<Exit> {
    let common = &cli.common;
    match &cli.command {
        Command::Demo(args) => commands::demo::run(common, args, device),
        Command::Pretrain(args) => commands::pretrain::run(common, args, device),
        Command::Finetune(args) => commands::finetune::run(common, args, device),
        Command::Probe(args) => commands::probe::run(common, args, device),
        Command::Knn(args) => commands::knn::run(common, args, device),
        Command::Embed(args) => commands::embed::run(common, args, device),
        Command::Evaluate(args) => commands::evaluate::run(common, args, device),
        Command::Reconstruct(args) => commands::reconstruct::run(common, args, device),
        Command::Masks(args) => commands::masks::run(common, args),
        Command::Palette(args) => commands::palette::run(common, args),
        Command::Tokenizer(args) => commands::tokenizer::run(common, args, device),
        Command::Export(args) => commands::export::run(common, args),
        Command::Import(args) => commands::import::run(common, args),
        Command::Inspect(args) => commands::inspect::run(common, args, device),
        Command::Bench(args) => commands::bench::run(common, args, device),
        Command::Recipes(args) => commands::recipes::run(common, args),
    }
}

fn unknown(name: &str) -> Error {
    let family = name.split(':').next().unwrap_or_default();
    let what = match OTHER_BUILDS.iter().find(|(known, _)| *known == family) {
        Some((_, what)) => format!("device `{name}`: this build does not support {what}"),
        None => format!("there is no device `{name}`"),
    };
    Error::Input { what, hint: Some("the devices of this build are: auto, cpu".into()) }
}
