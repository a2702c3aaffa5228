//! Where an item of a data specification lies: at a path on this machine, or at an address in a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::address::Address;
use super::kind::Kind;
use super::storage::{LocalFile, Storage};
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(super) enum Place {
    Path(PathBuf),
    Address(Address),
}

impl Place {
    /// What messages call it.
    pub(super) fn shown(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Address(address) => address.shown(),
        }
    }

    /// What lies there; of an address, its name says it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKind`] or [`Error::BadAddress`] if it cannot be read as data.
    pub(super) fn kind(&self) -> Result<Kind> {
        match self {
            Self::Path(path) => Kind::of(path).ok_or_else(|| Error::UnknownKind { path: path.clone() }),
            Self::Address(address) => match Kind::of_name(address.shown()) {
                Some(kind @ (Kind::Shard | Kind::Zip | Kind::Parquet)) => Ok(kind),
                Some(Kind::Folder | Kind::List | Kind::Image | Kind::Idx | Kind::Special(_)) | None => {
                    Err(address.bad("its name is not that of an archive"))
                }
            },
        }
    }

    /// Opens an archive.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if it cannot be read, [`Error::LeftOut`] if this build reads no addresses.
    pub(super) fn storage(&self) -> Result<Arc<dyn Storage>> {
        match self {
            Self::Path(path) => Ok(LocalFile::open(path)?),
            Self::Address(address) => remote(address),
        }
    }
}

#[cfg(feature = "remote")]
fn remote(address: &Address) -> Result<Arc<dyn Storage>> {
    Ok(super::remote::Remote::open(address)?)
}

#[cfg(not(feature = "remote"))]
fn remote(address: &Address) -> Result<Arc<dyn Storage>> {
    Err(Error::LeftOut { path: address.shown().to_owned(), feature: "remote" })
}
