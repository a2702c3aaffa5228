//! What the user can do about each error, and whether it is theirs.

use crate::error::{Error, listed};
use crate::source::{IMAGE_EXTENSIONS, PATH_COLUMNS};

impl Error {
    /// Returns a hint on what the user can do, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingPath { nearest: Some(nearest), .. } => Some(format!("did you mean `{}`?", nearest.display())),
            Self::MissingPath { parent, .. } => {
                Some(format!("the deepest folder that exists is `{}`", parent.display()))
            }
            Self::BadSpec { .. } => {
                Some("separate paths by commas; `{00000..00004}` is a range, `{a,b}` a choice, `*` a wildcard".into())
            }
            Self::BadAddress { .. } => Some(
                "as in `https://host/train-{00000..00004}.tar` or `s3://bucket/x.zip`; or `.tar.gz`, `.parquet`".into(),
            ),
            Self::NoMatch { passed_over, .. } => {
                passed_over.hint().or_else(|| Some("quote the pattern, and check it with `ls`".into()))
            }
            Self::EmptyFolder { other: Some(other), .. } => {
                Some(format!("name the file itself, as in `{}`", other.display()))
            }
            Self::EmptyFolder { passed_over, .. } => {
                passed_over.hint().or_else(|| Some("images are found at any depth; hidden files are ignored".into()))
            }
            Self::NotInClassFolder { folder, .. } => Some(format!(
                "move it into a sub-folder of `{}`, one for each class, or leave it out",
                folder.display()
            )),
            Self::NotAFile { .. } => Some("copy what it delivers to a file".into()),
            Self::NoMemory { .. } => Some("fewer --workers read fewer images at once".into()),
            Self::TooLarge { .. } | Self::FileTooLarge { .. } => Some("make it smaller, cut it into parts, or leave it out".into()),
            Self::UnknownKind { .. } => {
                Some(
                    "give a folder of images, `.tar`, `.tar.gz`, `.zip` or `.parquet` files, a list in `.csv`, `.tsv` or `.jsonl`, or `*-images-idx3-ubyte[.gz]`"
                        .into(),
                )
            }
            Self::TruncatedTar { .. } | Self::TruncatedJpeg { .. } | Self::IdxLength { .. } => {
                Some("copy or download the file again".into())
            }
            Self::BadArchive { .. } => Some("copy or download the archive again".into()),
            Self::NoWindow { .. } => Some("leave out the window, or the files that are not gray DICOM".into()),
            Self::LeftOut { feature, .. } => Some(format!("build with the feature `{feature}`")),
            Self::BadList { .. } => Some("a row of a list is a path, and perhaps a label".into()),
            Self::NoColumn { .. } => {
                let columns: Vec<String> = PATH_COLUMNS.iter().map(|column| format!("`{column}`")).collect();
                Some(format!(
                    "a list names its paths {}; in a table, images are binary or have the fields `bytes` and `path`",
                    columns.join(", ")
                ))
            }
            Self::Splits { folder, .. } if folder.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip")) => {
                Some("unpack it, and name one of them".into())
            }
            Self::Splits { first, second, .. } => Some(format!(
                "name one of them, or both, as in `{},{}`",
                first.display(),
                second.display()
            )),
            Self::UnknownClass { .. } => Some("`classes.json` lists the name of every class, in order".into()),
            Self::BadLabel { .. } => Some("a `.cls` member holds class numbers from 0 up, as `3` or `1, 7`".into()),
            Self::SeveralLabels { .. } => {
                Some("name the column `labels`, and write `1|7` in it".into())
            }
            Self::LabelOutOfRange { .. } => Some("`classes.json` lists the name of every class, in order".into()),
            Self::TooManyClasses { .. } => Some("number the classes from 0 up".into()),
            Self::BadClassNames { .. } => Some("as in `[\"cat\", \"dog\"]`".into()),
            Self::ClassesDisagree { .. } => {
                Some("sources opened together need the same class folders or `classes.json`".into())
            }
            Self::Channels { actual, .. } => Some(format!("set `data.channels` to {actual}")),
            Self::TooFewSamples { samples, .. } => Some(format!("lower `train.batch_size` to at most {samples}")),
            Self::EmptyBatch => Some("set `train.batch_size` to at least 1".into()),
            Self::NoSamples { passed_over, .. } => passed_over.hint().or_else(|| {
                Some(format!("in a shard, members that end in {} are images; `tar -tf` lists them", listed(IMAGE_EXTENSIONS)))
            }),
            Self::BadTar { .. } => Some("`tar -tf` must list it; copy or download the file again".into()),
            Self::NotIdx { .. } => Some("give the images, as in `train-images-idx3-ubyte.gz`".into()),
            Self::LabelCount { .. } => Some("the file of labels next to the images belongs to other images".into()),
            Self::UnreadFormat { .. } => {
                Some("convert it, for example to PNG with ImageMagick's `magick`, or leave it out".into())
            }
            Self::TooManyTiles { .. } => Some("set `data.tile` or `data.tile_stride` higher".into()),
            Self::NoTiles { .. } => Some("tiles that are nearly black or white everywhere are left out; set `data.tile_content` lower".into()),
            Self::UnknownFormat { .. }
            | Self::Decode { .. }
            | Self::DecoderPanicked { .. }
            | Self::NoPixels { .. }
            | Self::BadArray { .. } => Some("convert it to JPEG or PNG again, or leave it out".into()),
            Self::ArrayShape { .. } | Self::ArrayType { .. } => {
                Some("save `[H, W, C]` as `uint8`, `uint16` or `float32` with `numpy.save`".into())
            }
            Self::NotFinite { .. } => Some("replace NaN and infinity before saving the array".into()),
            Self::NoneReadable { .. } | Self::ClassUnreadable { .. } | Self::TooManyUnreadable { .. } => {
                Some("`simmim inspect DATA` lists the unreadable files and why".into())
            }
            Self::Read { .. } => OfStore::of(self).map(|of_store| of_store.hint.into()),
            Self::WorkerPanicked { .. } | Self::NoThread { .. } => None,
        }
    }

    /// Returns whether the input causes the error; otherwise the machine does.
    #[must_use]
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::Read { .. } => OfStore::of(self).is_some_and(|of_store| of_store.is_users),
            Self::NoMemory { .. } | Self::WorkerPanicked { .. } | Self::NoThread { .. } => false,
            Self::MissingPath { .. }
            | Self::BadSpec { .. }
            | Self::BadAddress { .. }
            | Self::NoMatch { .. }
            | Self::EmptyFolder { .. }
            | Self::NoTiles { .. }
            | Self::TooManyTiles { .. }
            | Self::NotInClassFolder { .. }
            | Self::NotAFile { .. }
            | Self::TooLarge { .. }
            | Self::FileTooLarge { .. }
            | Self::UnknownKind { .. }
            | Self::NoSamples { .. }
            | Self::TruncatedTar { .. }
            | Self::BadTar { .. }
            | Self::BadArchive { .. }
            | Self::NoWindow { .. }
            | Self::LeftOut { .. }
            | Self::BadList { .. }
            | Self::NoColumn { .. }
            | Self::Splits { .. }
            | Self::UnknownClass { .. }
            | Self::BadLabel { .. }
            | Self::SeveralLabels { .. }
            | Self::LabelOutOfRange { .. }
            | Self::TooManyClasses { .. }
            | Self::BadClassNames { .. }
            | Self::ClassesDisagree { .. }
            | Self::NotIdx { .. }
            | Self::IdxLength { .. }
            | Self::LabelCount { .. }
            | Self::UnknownFormat { .. }
            | Self::UnreadFormat { .. }
            | Self::Decode { .. }
            | Self::TruncatedJpeg { .. }
            | Self::DecoderPanicked { .. }
            | Self::NoPixels { .. }
            | Self::BadArray { .. }
            | Self::ArrayShape { .. }
            | Self::ArrayType { .. }
            | Self::NotFinite { .. }
            | Self::Channels { .. }
            | Self::NoneReadable { .. }
            | Self::ClassUnreadable { .. }
            | Self::TooManyUnreadable { .. }
            | Self::TooFewSamples { .. }
            | Self::EmptyBatch => true,
        }
    }
}

/// What is said of an error of a remote store.
#[cfg_attr(not(feature = "remote"), allow(dead_code, reason = "a build without remote stores makes none"))]
pub(crate) struct OfStore {
    hint: &'static str,
    is_users: bool,
    /// Whether the store cannot be reached, so that other images in it cannot be read either.
    pub(crate) is_outage: bool,
}

impl OfStore {
    /// `None` if another thing than a store is the reason.
    #[cfg(feature = "remote")]
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let Error::Read { cause, .. } = error else { return None };
        let fault = crate::source::Fault::behind(cause)?;
        Some(Self { hint: fault.hint(), is_users: fault.is_users(), is_outage: fault.is_outage() })
    }

    #[cfg(not(feature = "remote"))]
    pub(crate) fn of(_: &Error) -> Option<Self> {
        None
    }
}
