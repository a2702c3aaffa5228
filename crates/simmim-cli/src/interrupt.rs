//! Ctrl-C: the first one asks the command to stop in order, the second one stops at once. SIGTERM, SIGHUP and SIGUSR1,
//! which Slurm can send before it takes a machine away, ask for the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The stop flag of this process.
static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether a second signal does not stop at once.
static IS_IN_ORDER: AtomicBool = AtomicBool::new(false);

/// Lets no second signal stop this process at once: launchers repeat signals, and all ranks must save first.
#[cfg(feature = "mpi")]
pub(crate) fn stop_all_ranks_in_order() {
    IS_IN_ORDER.store(true, Ordering::Relaxed);
}

/// What a run that saves and stops says.
pub(crate) const SAVING: &str = "interrupted: saving after this step (press Ctrl-C again to stop at once)";

/// The flag that Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 sets; every call returns the same one, and the first decides what is said
/// then.
///
/// # Errors
/// If the signal handler cannot be installed.
pub(crate) fn flag(says: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(FLAG.get_or_init(Arc::default));
    let set = Arc::clone(&flag);
    on_signal(move |may_repeat| {
        if set.swap(true, Ordering::Relaxed) {
            if may_repeat || IS_IN_ORDER.load(Ordering::Relaxed) {
                return;
            }
            std::process::exit(crate::exit::Exit::Interrupted as i32);
        }
        crate::terminal::line(""); // below the `^C` of the terminal
        crate::terminal::line(says);
    })?;
    Ok(flag)
}

/// Calls `act` in a thread of its own for each signal that asks the process to end, with whether such a signal may come
/// twice and still ask for an end in order. A signal that was ignored when the
/// process began, as by `nohup` or of a background job, stays ignored.
#[cfg(unix)]
fn on_signal(act: impl Fn(bool) + Send + 'static) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let ignored = ignored_signals();
    let handled = [SIGHUP, SIGINT, SIGTERM, SIGUSR1].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(handled.collect::<Vec<_>>())?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().for_each(|signal| act(signal == SIGUSR1)))?;
    Ok(())
}

#[cfg(not(unix))]
fn on_signal(act: impl Fn(bool) + Send + 'static) -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(move || act(false))?)
}

/// The signals that this process ignores, as bits from signal 1 on; none where the system does not tell.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
