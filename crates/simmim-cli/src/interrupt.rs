//! Ctrl-C: the first asks the run to save and stop, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The flag of this process.
static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag that Ctrl-C (or a polite kill) sets, the same one at every call.
///
/// # Errors
/// If the system refuses a signal handler.
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
        eprintln!("\ninterrupted: saving after this update (again to stop at once)");
    })?;
    Ok(flag)
}
