//! What can be wrong with a store, in words that contain no secrets, and what to do about it.

use std::error::Error as _;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

/// Why a store does not deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the store has nothing there (404)")]
    Missing,
    #[error("the store denies access ({status})")]
    Denied { status: u16 },
    #[error("no credentials for S3 are in the environment")]
    NoCredentials,
    #[error("the server does not deliver parts of a file, only the whole")]
    NoRanges,
    #[error("the store answers with status {status}")]
    Refused { status: u16 },
    #[error("it changed since it was opened: {what}")]
    Changed { what: String },
    #[error("{what}")]
    Other { what: String },
    // the following may pass, and are tried again
    #[error("the store answers with status {status}")]
    Busy { status: u16 },
    #[error("{what}")]
    Connection { what: String },
    #[error("{got} of {wanted} bytes were delivered")]
    CutShort { got: u64, wanted: u64 },
    #[error("nothing was delivered for {seconds} s")]
    Silent { seconds: u64 },
    #[error("{wanted} bytes were not delivered in {seconds} s")]
    Slow { wanted: u64, seconds: u64 },
    /// One of them did not pass.
    #[error("given up after {tries} tries in {seconds} s: {last}")]
    GaveUp { tries: u32, seconds: u64, last: Box<Fault> },
}

impl Fault {
    /// Reads the answer of a store; `None` if it is a success.
    pub(super) fn of_status(status: u16) -> Option<Self> {
        match status {
            200..=299 | 304 => None,
            404 | 410 => Some(Self::Missing),
            401 | 403 => Some(Self::Denied { status }),
            // the object no longer is the one with this ETag, or no longer has these bytes
            412 => Some(Self::Changed { what: "the store says so (412)".into() }),
            416 => Some(Self::Changed { what: "it no longer has these bytes (416)".into() }),
            408 | 425 | 429 | 500..=599 => Some(Self::Busy { status }),
            _ => Some(Self::Refused { status }),
        }
    }

    /// Reads an error of the crate `object_store`. Its own text is not shown, because it contains the address with its
    /// secrets.
    pub(super) fn of(error: &object_store::Error) -> Self {
        let (mut source, mut last, mut http) = (error.source(), None, None);
        while let Some(error) = source {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return fault.clone();
            }
            http = error.downcast_ref::<HttpError>().or(http);
            last = Some(error);
            source = error.source();
        }
        let what = last.map_or_else(|| "the store fails".to_owned(), ToString::to_string);
        match (error, http.map(HttpError::kind)) {
            (object_store::Error::NotSupported { .. }, _) => Self::NoRanges,
            (_, Some(HttpErrorKind::Decode)) => Self::Other { what },
            (_, Some(_)) => Self::Connection { what },
            (_, None) => Self::Other { what },
        }
    }

    /// Whether another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Connection { .. } | Self::CutShort { .. } | Self::Silent { .. } => true,
            Self::Missing
            | Self::Denied { .. }
            | Self::NoCredentials
            | Self::NoRanges
            | Self::Refused { .. }
            | Self::Changed { .. }
            | Self::Other { .. }
            | Self::Slow { .. }
            | Self::GaveUp { .. } => false,
        }
    }

    /// Returns the fault behind an error of reading, if a store is the reason.
    pub(crate) fn behind(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Missing => "check the address, with its upper and lower case",
            Self::Denied { .. } => {
                "`s3://` takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a signed address expires"
            }
            Self::NoCredentials => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for what is public"
            }
            Self::NoRanges => {
                "use a server with range requests (`python3 -m http.server` has none), or copy the file to this machine"
            }
            Self::Refused { .. } => {
                "check the address; for `s3://`, AWS_REGION and AWS_ENDPOINT_URL must be those of the bucket"
            }
            Self::Changed { .. } => "start again when nothing writes to it any more",
            Self::Other { .. }
            | Self::Busy { .. }
            | Self::Connection { .. }
            | Self::CutShort { .. }
            | Self::Silent { .. }
            | Self::Slow { .. }
            | Self::GaveUp { .. } => "check that the store can be reached; then the same command goes on",
        }
    }

    /// Whether the store was tried for as long as it is waited for.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::GaveUp { .. })
    }

    /// Whether the address or the credentials are wrong, and not the network or the store.
    pub(crate) fn is_users(&self) -> bool {
        match self {
            Self::Missing
            | Self::Denied { .. }
            | Self::NoCredentials
            | Self::NoRanges
            | Self::Refused { .. }
            | Self::Changed { .. } => true,
            Self::Other { .. }
            | Self::Busy { .. }
            | Self::Connection { .. }
            | Self::CutShort { .. }
            | Self::Silent { .. }
            | Self::Slow { .. }
            | Self::GaveUp { .. } => false,
        }
    }
}

impl From<Fault> for io::Error {
    /// The kind is none of those that readers of formats take for a damaged file.
    fn from(fault: Fault) -> Self {
        let kind = match &fault {
            Fault::Missing => io::ErrorKind::NotFound,
            Fault::Denied { .. } | Fault::NoCredentials => io::ErrorKind::PermissionDenied,
            Fault::NoRanges => io::ErrorKind::Unsupported,
            Fault::Silent { .. } | Fault::Slow { .. } | Fault::GaveUp { .. } => io::ErrorKind::TimedOut,
            Fault::Refused { .. }
            | Fault::Changed { .. }
            | Fault::Other { .. }
            | Fault::Busy { .. }
            | Fault::Connection { .. }
            | Fault::CutShort { .. } => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, fault)
    }
}
