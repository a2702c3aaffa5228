//! Ctrl-C: the first one asks the run to save and stop, the second one stops at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The stop flag of this process.
static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag that Ctrl-C or SIGTERM sets; every call returns the same one.
///
/// # Errors
/// If the signal handler cannot be installed.
pub(crate) fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(FLAG.get_or_init(Arc::default));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(crate::exit::Exit::Interrupted as i32);
        }
        eprintln!("\ninterrupted: saving after this step (press Ctrl-C again to stop at once)");
    })?;
    Ok(flag)
}
