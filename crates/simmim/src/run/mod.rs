//! Run folders and the files in them.

pub mod checkpoint;
pub(crate) mod files;
mod folder;
pub(crate) mod held;
pub(crate) mod image_sample;
mod log;
mod resolved;
mod tensorboard;
mod unreadable;

pub use self::held::located;
pub use folder::{LockedFolder, RunFolder};
pub use log::{LogEntry, read_log};
pub(crate) use resolved::any_resolved_of_toml;
pub use resolved::{Resolved, RunInfo, read_any_resolved, read_resolved};
pub use tensorboard::TensorBoard;
pub use unreadable::{Collection, MAX_NAMED, Unreadable};
