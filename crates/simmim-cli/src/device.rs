//! The devices of this build. No other file of the command names one.

use crate::cli::{Cli, Command};
use crate::commands;
use crate::exit::Exit;
use crate::{ranks, unused};
use simmim::Error;
use simmim_cpu::CpuDevice;
use simmim_engine::{Collective, Device};
#[cfg(feature = "libtorch")]
use simmim_libtorch::LibtorchDevice;

/// The devices of builds with the feature `libtorch`, and the hardware or library they are for.
const OTHER_BUILDS: &[(&str, &str)] =
    &[("cuda", "NVIDIA and AMD GPUs"), ("mps", "Apple GPUs"), ("libtorch-cpu", "libtorch")];

/// Runs a command on the device that it asks for.
///
/// # Errors
/// If this build does not have the device, an option would be ignored, and those of the command.
pub(crate) fn run(cli: &mut Cli) -> anyhow::Result<Exit> {
    unused::refuse(cli)?;
    ranks::with(cli, |cli, ranks| match cli.common.device() {
        #[cfg(feature = "libtorch")]
        "auto" if LibtorchDevice::has_cuda() => on_libtorch(cli, &format!("cuda:{}", ranks::number_here()), ranks),
        "auto" | "cpu" => on(cli, &CpuDevice { threads: cli.common.threads() }, ranks),
        #[cfg(feature = "libtorch")]
        other if is_of_libtorch(other) => on_libtorch(cli, other, ranks),
        other => Err(unknown(other).into()),
    })
}

/// Runs a command on a device of libtorch, whose memory may run out.
#[cfg(feature = "libtorch")]
fn on_libtorch(cli: &Cli, name: &str, ranks: &mut dyn Collective) -> anyhow::Result<Exit> {
    let device = LibtorchDevice::new(name, cli.common.threads())
        .map_err(|error| Error::Input { what: error.to_string(), hint: Some(error.hint()) })?;
    simmim_libtorch::guarded(|| on(cli, &device, ranks))
        .unwrap_or_else(|error| Err(Error::DeviceMemory { reason: error.reason }.into()))
}

#[cfg(feature = "libtorch")]
fn is_of_libtorch(name: &str) -> bool {
    OTHER_BUILDS.iter().any(|(family, _)| *family == family_of(name))
}

fn family_of(name: &str) -> &str {
    name.split(':').next().unwrap_or_default()
}

fn on(cli: &Cli, device: &impl Device, ranks: &mut dyn Collective) -> anyhow::Result<Exit> {
    let common = &cli.common;
    match &cli.command {
        Command::Demo(args) => commands::demo::run(common, args, device),
        Command::Pretrain(args) => commands::pretrain::run(common, args, device, ranks),
        Command::Finetune(args) => commands::finetune::run(common, args, device, ranks),
        Command::Probe(args) => commands::probe::run(common, args, device),
        Command::Knn(args) => commands::knn::run(common, args, device, ranks),
        Command::Embed(args) => commands::embed::run(common, args, device, ranks),
        Command::Search(args) => commands::search::run(common, args, device),
        Command::Map(args) => commands::map::run(common, args, device),
        Command::Evaluate(args) => commands::evaluate::run(common, args, device, ranks),
        Command::Reconstruct(args) => commands::reconstruct::run(common, args, device),
        Command::Masks(args) => commands::masks::run(common, args),
        Command::Palette(args) => commands::palette::run(common, args),
        Command::Tokenizer(args) => commands::tokenizer::run(common, args, device, ranks),
        Command::Export(args) => commands::export::run(common, args),
        Command::Import(args) => commands::import::run(common, args),
        Command::Inspect(args) => commands::inspect::run(common, args, device),
        Command::Bench(args) => commands::bench::run(common, args, device),
        Command::Recipes(args) => commands::recipes::run(common, args),
    }
}

fn unknown(name: &str) -> Error {
    let (what, hint) = match OTHER_BUILDS.iter().find(|(known, _)| *known == family_of(name)) {
        Some((_, what)) => (
            format!("device `{name}`: this build does not support {what}"),
            "the devices of this build are: auto, cpu; one with `--features libtorch` has others (docs/GPU.md)",
        ),
        None if cfg!(feature = "libtorch") => (
            format!("there is no device `{name}`"),
            "the devices of this build are: auto, cpu, cuda:N, mps, libtorch-cpu",
        ),
        None => (format!("there is no device `{name}`"), "the devices of this build are: auto, cpu"),
    };
    Error::Input { what, hint: Some(hint.into()) }
}
