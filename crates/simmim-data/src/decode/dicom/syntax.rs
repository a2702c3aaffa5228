//! How a DICOM file is encoded: its transfer syntax (PS3.5, chapter 10 and annex A).

use super::data_set::Encoding;
use crate::error::{Error, Result};

/// A transfer syntax that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    pub(super) encoding: Encoding,
    /// Whether the data set is deflated as a whole.
    pub(super) is_deflated: bool,
    /// How the pixels are compressed.
    pub(super) compression: Option<Compression>,
}

/// How pixels are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    RunLengths,
    /// By cosines, with values of 8 bits.
    Jpeg,
    LosslessJpeg,
    Jpeg2000,
}

impl Syntax {
    /// Returns the syntax with this identifier (PS3.6, table A-1).
    pub(super) fn of(id: &str, name: &str) -> Result<Self> {
        let little = Encoding { names_types: true, is_big_endian: false };
        let plain = Self { encoding: little, is_deflated: false, compression: None };
        let with = |compression| Ok(Self { compression: Some(compression), ..plain });
        let unread = |format| Err(Error::UnreadFormat { name: name.to_owned(), format });
        let number = id.strip_prefix("1.2.840.10008.1.2").unwrap_or("unknown");
        match number {
            "" => Ok(Self { encoding: Encoding { names_types: false, ..little }, ..plain }),
            ".1" => Ok(plain),
            ".1.99" => Ok(Self { is_deflated: true, ..plain }),
            ".2" => Ok(Self { encoding: Encoding { is_big_endian: true, ..little }, ..plain }),
            ".5" => with(Compression::RunLengths),
            ".4.50" | ".4.51" => with(Compression::Jpeg),
            ".4.57" | ".4.70" => with(Compression::LosslessJpeg),
            ".4.90" | ".4.91" => with(Compression::Jpeg2000),
            ".4.80" | ".4.81" => unread("a DICOM image compressed by JPEG-LS"),
            ".4.92" | ".4.93" => unread("a DICOM image compressed by JPEG 2000 part 2"),
            ".4.110" | ".4.111" | ".4.112" => unread("a DICOM image compressed by JPEG XL"),
            ".4.201" | ".4.202" | ".4.203" => unread("a DICOM image compressed by High-Throughput JPEG 2000"),
            _ if number.starts_with(".4.10") => unread("a DICOM video"),
            _ => {
                let reason = format!("the transfer syntax `{id}` is not read");
                Err(Error::Decode { name: name.to_owned(), reason })
            }
        }
    }
}
