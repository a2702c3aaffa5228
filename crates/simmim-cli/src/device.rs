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
        "auto" if unused::computes(&cli.command) && LibtorchDevice::gpus() > 0 => on_libtorch(cli, "cuda", ranks),
        "auto" | "cpu" => {
            refuse_options_of_gpus(cli)?;
            on(cli, &CpuDevice { threads: cli.common.threads() }, ranks)
        }
        #[cfg(feature = "libtorch")]
        other if is_of_libtorch(other) => on_libtorch(cli, other, ranks),
        other => Err(unknown(other).into()),
    })
}

/// Runs a command on a device of libtorch, whose memory may run out. `cuda` is the GPU of this rank.
#[cfg(feature = "libtorch")]
fn on_libtorch(cli: &Cli, name: &str, ranks: &mut dyn Collective) -> anyhow::Result<Exit> {
    let name = match (name, if name == "cuda" { LibtorchDevice::gpus() } else { 0 }) {
        ("cuda", gpus @ 1..) => &format!("cuda:{}", ranks::gpu_of_rank(gpus)?),
        (name, _) => name,
    };
    let (common, threads) = (&cli.common, cli.common.threads());
    let device = LibtorchDevice::new(name, threads)
        .and_then(|device| if common.tf32 { device.with_tf32() } else { Ok(device) })
        .and_then(|device| if common.graphs { device.with_graphs() } else { Ok(device) })
        .map_err(|error| Error::Input { what: error.to_string(), hint: Some(error.hint()) })?;
    if ranks.world() > 1 && ranks.is_first() && !cli.common.quiet {
        crate::terminal::line("gradients of the ranks are summed through the memory of the host, not by NCCL");
    }
    simmim_libtorch::guarded(|| on(cli, &device, ranks))
        .unwrap_or_else(|error| Err(Error::DeviceMemory { reason: error.reason }.into()))
}

/// Refuses what the CPU's backend does not have.
///
/// # Errors
/// If an option asks for it.
#[cfg(feature = "libtorch")]
fn refuse_options_of_gpus(cli: &Cli) -> simmim::Result<()> {
    let asked =
        [("--tf32", cli.common.tf32), ("--graphs", cli.common.graphs)].into_iter().find(|(_, is_asked)| *is_asked);
    match asked {
        None => Ok(()),
        Some((option, _)) => Err(Error::Input {
            what: format!("`{option}`: the device is `cpu`, which has nothing of the kind"),
            hint: Some("leave it out, or name a GPU: `--device cuda:0`".into()),
        }),
    }
}

#[cfg(not(feature = "libtorch"))]
fn refuse_options_of_gpus(_: &Cli) -> simmim::Result<()> {
    Ok(())
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
