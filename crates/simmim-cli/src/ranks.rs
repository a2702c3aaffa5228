//! The ranks of a command: this process alone, or all processes that `mpirun` or `srun` started together.

use crate::cli::Cli;
#[cfg(feature = "mpi")]
use crate::cli::Command;
#[cfg(feature = "mpi")]
use crate::exit;
use crate::exit::Exit;
use simmim::Error;
use simmim_engine::{Alone, Collective};

/// Variables by which launchers tell a process how many of them there are.
const SIZES: &[&str] = &["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];

/// Variables by which they tell it its number.
const NUMBERS: &[&str] = &["OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"];

/// Runs a command on the ranks that there are. Of several, the first one speaks, and all leave together.
///
/// # Errors
/// Those of the command, and if several processes were started and cannot work together.
pub(crate) fn with(
    cli: &mut Cli,
    run: impl FnOnce(&Cli, &mut dyn Collective) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    match processes() {
        1 => run(cli, &mut Alone),
        processes => on(processes, cli, run),
    }
}

/// Number of processes that a launcher started together with this one, itself among them.
fn processes() -> usize {
    let number = |name: &str| std::env::var(name).ok()?.trim().parse::<usize>().ok();
    let of_launcher = SIZES.iter().find_map(|name| number(name));
    // what a batch script itself runs is in no step, but has the number of tasks too
    let is_in_step = ["SLURM_STEP_ID", "SLURM_STEPID"].iter().any(|name| number(name).is_some());
    let of_slurm = || if is_in_step { number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS")) } else { None };
    of_launcher.or_else(of_slurm).unwrap_or(1).max(1)
}

/// This process's number among those, as the launcher says.
fn number() -> usize {
    NUMBERS.iter().find_map(|name| std::env::var(name).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// Variables by which they tell it its number among those on the same machine.
#[cfg(feature = "libtorch")]
const NUMBERS_HERE: &[&str] =
    &["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"];

/// Variables by which launchers hide GPUs from a process.
#[cfg(feature = "libtorch")]
const VISIBLE_GPUS: &[&str] = &["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// The number of the GPU that this process takes, of those that it sees: its own number on this machine, or the only one that a
/// launcher gave it.
///
/// # Errors
/// If there are more ranks here than GPUs.
#[cfg(feature = "libtorch")]
pub(crate) fn gpu_of_rank(gpus: usize) -> simmim::Result<usize> {
    let number = NUMBERS_HERE.iter().find_map(|name| std::env::var(name).ok()?.trim().parse().ok()).unwrap_or(0);
    let is_given = VISIBLE_GPUS.iter().any(|name| std::env::var_os(name).is_some());
    own_gpu(number, gpus, is_given).ok_or_else(|| Error::Input {
        what: format!(
            "rank {number} of this machine has no GPU of its own, since there {}",
            match gpus {
                1 => "is 1".to_owned(),
                gpus => format!("are {gpus}"),
            }
        ),
        hint: Some("start as many ranks on a machine as it has GPUs, or let all share one: `--device cuda:0`".into()),
    })
}

#[cfg(feature = "libtorch")]
fn own_gpu(number: usize, gpus: usize, is_given: bool) -> Option<usize> {
    match number < gpus {
        true => Some(number),
        false if gpus == 1 && is_given => Some(0),
        false => None,
    }
}

#[cfg(not(feature = "mpi"))]
fn on(
    processes: usize,
    _: &mut Cli,
    _: impl FnOnce(&Cli, &mut dyn Collective) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    if number() > 0 {
        return Ok(Exit::Usage); // one of them says it
    }
    let what =
        format!("{processes} processes were started together, and this build of simmim cannot make one run of them");
    let hint = Some("build with `--features mpi`, or start one process".into());
    Err(Error::Input { what, hint }.into())
}

#[cfg(feature = "mpi")]
fn on(
    processes: usize,
    cli: &mut Cli,
    run: impl FnOnce(&Cli, &mut dyn Collective) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    use crate::{interrupt, terminal};
    use simmim_mpi::{Config, MpiRanks, OpenError};
    use std::time::Duration;

    if number() > 0 {
        terminal::hold(number());
    }
    let cores = cores();
    let patience = Duration::from_secs(cli.common.rank_timeout());
    let on_stall = move |stall: &simmim_mpi::watch::Stall, lines: &[String]| {
        terminal::shout(&format!("error: {stall}"));
        lines.iter().for_each(|line| terminal::shout(line));
        terminal::shout(
            "hint: the same command resumes from the last checkpoint; --rank-timeout says how long ranks wait",
        );
        std::process::exit(Exit::Failed as i32); // the launcher then ends the others
    };
    let identity = identity();
    let on_timeline: simmim_mpi::OnLine = Box::new(terminal::line);
    let opened = MpiRanks::open(Config {
        identity: &identity,
        cores: &cores,
        patience,
        on_stall: std::sync::Arc::new(on_stall),
        sums_beside: sums_beside(cli.common.overlap),
        on_timeline: cli.common.rank_timeline.then_some(on_timeline),
    });
    let mut ranks = opened.map_err(|error| match error {
        OpenError::OtherProgram { .. } => {
            Error::Input { what: error.to_string(), hint: Some("install the same build on all machines".into()) }
        }
        OpenError::NoThread(cause) => Error::Io(cause),
        OpenError::Begun => unreachable!("a process opens MPI once"),
    })?;
    interrupt::stop_all_ranks_in_order();
    if ranks.world() != processes {
        let what = format!("{processes} processes were started together, and MPI sees {}", ranks.world());
        let hint = "start them by the `mpirun` of the MPI library that simmim was built with, or by `srun --mpi=pmix`";
        return Err(Error::Input { what, hint: Some(hint.into()) }.into());
    }
    // the ranks of a machine share its cores, unless the launcher has divided them
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let share = (available / ranks.sharing_cores()).max(1);
    cli.common.threads.get_or_insert(share.try_into().unwrap_or(u16::MAX));
    if ranks.is_first() && !cli.common.quiet {
        say_ranks(&ranks, available, cli.common.threads());
    }
    let ended = refuse(&cli.command).and_then(|()| run(cli, &mut ranks));
    let failure = ended.as_ref().err().and_then(failure);
    let others = ranks.leave(failure.as_ref());
    let ended = match (ended, others) {
        (Ok(_), Some(error)) => Err(Error::Rank(error).into()),
        (ended, _) => ended,
    };
    // before MPI ends: the launcher may end all processes as soon as one of them has failed
    let exit = ended.unwrap_or_else(|error| exit::report(&error));
    let traffic = ranks.traffic();
    if traffic.sums > 0 && !(ranks.is_first() && cli.common.quiet) {
        if let Some(mb) = simmim::bench::peak_rss_mb() {
            terminal::line(&format!("this rank took {mb:.1} MB of memory at most"));
        }
        terminal::line(&format!("{} bytes sent for {} sums of gradients", traffic.sent_bytes, traffic.sums));
    }
    end_even_if_stuck(patience);
    drop(ranks);
    Ok(exit)
}

/// Ends the process after `patience` if MPI does not end, as where a link is cut meanwhile.
#[cfg(feature = "mpi")]
fn end_even_if_stuck(patience: std::time::Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        crate::terminal::shout("error: the ranks do not end together: one of them, or the network, hangs");
        std::process::exit(Exit::Failed as i32);
    });
}

/// Says how many ranks there are, and warns where the launcher leaves cores unused.
#[cfg(feature = "mpi")]
fn say_ranks(ranks: &simmim_mpi::MpiRanks, available: usize, threads: usize) {
    use crate::terminal;
    use std::collections::HashSet;
    let host = |name: &String| name.split_once('(').map(|(_, host)| host.trim_end_matches(')').to_owned());
    let machines = ranks.names().iter().filter_map(host).collect::<HashSet<_>>().len();
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    terminal::line(&format!(
        "{} on {}, {} each · {}",
        plural(ranks.names().len(), "rank"),
        plural(machines, "machine"),
        plural(threads, "thread"),
        simmim_mpi::MpiRanks::library()
    ));
    let online = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let online = online.lines().filter(|line| line.starts_with("processor")).count();
    let ranks_here = ranks.names().len().div_ceil(machines.max(1));
    if available * ranks_here < online && ranks.sharing_cores() < ranks_here {
        terminal::line(&format!(
            "warning: the launcher lets each rank use {available} of {online} cores; `mpirun --bind-to none` lets them share all"
        ));
    }
    if !ranks.hears_of_others() {
        terminal::line(
            "warning: this MPI library allows one thread only, so that a rank that hangs is noticed late and not named",
        );
    }
}

/// The version and a checksum of this program.
#[cfg(feature = "mpi")]
fn identity() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let program = std::env::current_exe().and_then(std::fs::read);
    program.unwrap_or_default().hash(&mut hasher);
    format!("simmim {}, {:016x}", env!("CARGO_PKG_VERSION"), hasher.finish())
}

/// The cores that this process may use, as the system writes them.
#[cfg(feature = "mpi")]
fn cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores.unwrap_or_default().trim().to_owned()
}

/// What the other ranks are told of an error; nothing if it came from one of them.
#[cfg(feature = "mpi")]
fn failure(error: &anyhow::Error) -> Option<simmim_engine::RankFailure> {
    let of_library = error.downcast_ref::<Error>();
    if matches!(of_library, Some(Error::Rank(_))) {
        return None;
    }
    Some(simmim_engine::RankFailure {
        message: format!("{error:#}"),
        hint: of_library.and_then(Error::hint),
        is_users_fault: of_library.is_some_and(Error::is_users_fault),
    })
}

/// Whether a command can use several processes.
#[cfg(feature = "mpi")]
pub(crate) fn uses_several(command: &Command) -> bool {
    match command {
        Command::Pretrain(_)
        | Command::Finetune(_)
        | Command::Tokenizer(_)
        | Command::Knn(_)
        | Command::Embed(_)
        | Command::Evaluate(_) => true,
        Command::Demo(_)
        | Command::Probe(_)
        | Command::Search(_)
        | Command::Map(_)
        | Command::Reconstruct(_)
        | Command::Masks(_)
        | Command::Palette(_)
        | Command::Export(_)
        | Command::Import(_)
        | Command::Inspect(_)
        | Command::Bench(_)
        | Command::Recipes(_) => false,
    }
}

/// Whether a command trains.
#[cfg(feature = "mpi")]
pub(crate) fn trains(command: &Command) -> bool {
    matches!(command, Command::Pretrain(_) | Command::Finetune(_) | Command::Tokenizer(_))
}

/// Variables by which launchers tell a process how many of them are on its machine.
#[cfg(feature = "mpi")]
const SIZES_HERE: &[&str] = &["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"];

/// When gradients are summed while the backward pass goes on.
#[cfg(feature = "mpi")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Overlap {
    /// Where ranks are on several machines.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Whether gradients are summed while the backward pass goes on. On one machine the cores do both, so that nothing is gained.
#[cfg(feature = "mpi")]
fn sums_beside(overlap: Option<Overlap>) -> bool {
    match overlap {
        Some(Overlap::On) => true,
        Some(Overlap::Off) => false,
        Some(Overlap::Auto) | None => {
            let here = SIZES_HERE.iter().find_map(|name| std::env::var(name).ok()?.trim().parse::<usize>().ok());
            here.is_some_and(|here| here < processes())
        }
    }
}

/// Refuses commands that work in one process only.
#[cfg(feature = "mpi")]
fn refuse(command: &Command) -> anyhow::Result<()> {
    if uses_several(command) {
        return Ok(());
    }
    let what = "this command works in one process, and several were started together".into();
    let hint = "start it without `mpirun`; pretrain, finetune, tokenizer, embed, evaluate and knn use several";
    Err(Error::Input { what, hint: Some(hint.into()) }.into())
}

#[cfg(all(test, feature = "libtorch"))]
mod tests {
    use super::own_gpu;

    #[test]
    fn each_rank_of_a_machine_has_a_gpu_of_its_own() {
        assert_eq!([0, 1, 2].map(|number| own_gpu(number, 2, false)), [Some(0), Some(1), None]);
        // a launcher shows each process its own one, as `srun --gpus-per-task=1` does
        assert_eq!(own_gpu(3, 1, true), Some(0));
        assert_eq!([own_gpu(3, 1, false), own_gpu(3, 2, true)], [None, None]);
    }
}
