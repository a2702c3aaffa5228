//! What lies among the data and is not read, so that the user can be told.

use std::fmt::{Display, Formatter, Result};
use std::path::PathBuf;

/// A file or folder among the data that is not read, and why.
///
/// It is shown as a sentence: the path in backticks and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The file or folder.
    pub path: PathBuf,
    /// Why it is not read.
    pub reason: PassedOverReason,
}

/// Why a file or folder among the data is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassedOverReason {
    /// The folder of a run, or a link to something in one: its pictures are results.
    Run,
    /// A link to a folder that contains the link.
    Loop,
    /// A link to a folder whose images are read already, or will be.
    Repeated,
    /// A link to nothing that does not have the name of an image. One that has counts as an unreadable image.
    Nowhere,
    /// What is neither a regular file nor a folder: `a pipe`, `a socket` or `a device`.
    NotAFile(&'static str),
}

impl Display for PassedOver {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "`{}` {}", self.path.display(), self.reason)
    }
}

impl Display for PassedOverReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Run => write!(f, "belongs to a run"),
            Self::Loop => write!(f, "leads to a folder that contains it"),
            Self::Repeated => write!(f, "leads to a folder that is read anyway"),
            Self::Nowhere => write!(f, "is a link to nothing"),
            Self::NotAFile(what) => write!(f, "is {what}"),
        }
    }
}
