//! Ctrl-C: the first asks the run to save and stop, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that Ctrl-C (or a polite kill) sets.
///
/// # Errors
/// If the system refuses a signal handler.
pub(crate) fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(crate::exit::Exit::Interrupted as i32);
        }
        eprintln!("\ninterrupted: saving after this update (again to stop at once)");
    })?;
    Ok(flag)
}
