//! Everything that can go wrong between a path and a batch.

use std::any::Any;
use std::io;
use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the values that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that leads nowhere.
    #[error("there is no `{}`", path.display())]
    MissingPath {
        /// The path as given.
        path: PathBuf,
        /// What exists beside it under the most similar name.
        nearest: Option<PathBuf>,
        /// The deepest folder on the way that does exist.
        parent: PathBuf,
    },
    /// A data specification that cannot be read.
    #[error("`{spec}` is not a list of paths: {fault}")]
    BadSpec {
        /// The specification as given.
        spec: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A pattern that no usable file matches.
    #[error("no image, shard or folder matches `{pattern}`")]
    NoMatch {
        /// The pattern as given.
        pattern: String,
    },
    /// A folder without anything to read.
    #[error("no image in `{}`; looked for {}", path.display(), listed(extensions))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// The extensions that count as images.
        extensions: &'static [&'static str],
        /// A file in it that could be opened by its own name.
        other: Option<PathBuf>,
    },
    /// A file that is no known container.
    #[error("`{}` is neither an image, a `.tar` shard nor an IDX image file", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// A container without images.
    #[error("`{}` holds no image", path.display())]
    NoSamples {
        /// The container.
        path: PathBuf,
    },
    /// A shard that ends before its last member or its end marker does.
    #[error("`{}` is cut short: the file ends at byte {length}, the entry at byte {offset} does not", path.display())]
    TruncatedTar {
        /// The shard.
        path: PathBuf,
        /// Where the first entry that is not whole starts.
        offset: u64,
        /// How long the file is.
        length: u64,
    },
    /// A shard with an entry that cannot be read.
    #[error("`{}` is not a valid tar file at byte {offset}: {cause}", path.display())]
    BadTar {
        /// The shard.
        path: PathBuf,
        /// Where the bad entry starts.
        offset: u64,
        /// What the tar reader says.
        cause: io::Error,
    },
    /// A label that is no class number.
    #[error("the label `{text}` of `{member}` is not a class number")]
    BadLabel {
        /// The label's member of the shard.
        member: String,
        /// What it holds.
        text: String,
    },
    /// A class number without a class.
    #[error("the label {label} of `{member}` is not below the {classes} classes of `classes.json`")]
    LabelOutOfRange {
        /// The sample.
        member: String,
        /// Its label.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// A `classes.json` that is not a list of names.
    #[error("`{}` is not a JSON list of class names: {cause}", path.display())]
    BadClassNames {
        /// The file.
        path: PathBuf,
        /// What the JSON reader says.
        cause: serde_json::Error,
    },
    /// Sources with different classes, opened as one.
    #[error(
        "`{first}` and `{second}` have different classes: `{first_class}` and `{second_class}` at position {position}"
    )]
    ClassesDisagree {
        /// The first source.
        first: String,
        /// The source that disagrees.
        second: String,
        /// The first class number that differs.
        position: usize,
        /// Its name in the first source, or `(none)`.
        first_class: String,
        /// Its name in the second source, or `(none)`.
        second_class: String,
    },
    /// An IDX file whose header is not what its name says.
    #[error("`{name}` is not an IDX file of rank {rank}: it starts with {found:02x?}")]
    NotIdx {
        /// The file.
        name: String,
        /// How many dimensions it should have.
        rank: u8,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// An IDX file of another length than its header says.
    #[error("`{name}` holds {found} bytes of data where its header says {expected}")]
    IdxLength {
        /// The file.
        name: String,
        /// The length by its header.
        expected: u64,
        /// The length it has.
        found: u64,
    },
    /// A file of labels for another number of images.
    #[error("`{name}` holds {labels} labels for {images} images")]
    LabelCount {
        /// The file of labels.
        name: String,
        /// How many labels it holds.
        labels: usize,
        /// How many images they are for.
        images: usize,
    },
    /// Bytes that are no known image format.
    #[error("`{name}` is not a JPEG, PNG or `.npy` file: it starts with {start:02x?}")]
    UnknownFormat {
        /// The image.
        name: String,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// An image that its decoder refuses.
    #[error("cannot decode `{name}`: {cause}")]
    Decode {
        /// The image.
        name: String,
        /// What the decoder says.
        cause: ::image::ImageError,
    },
    /// A JPEG that ends before its picture does.
    #[error("cannot decode `{name}`: the picture is cut short, the file ends at byte {length} before its end marker")]
    TruncatedJpeg {
        /// The image.
        name: String,
        /// How many bytes there are.
        length: usize,
    },
    /// An image that brings its decoder down.
    #[error("cannot decode `{name}`: the decoder of {format} panicked: {message}")]
    DecoderPanicked {
        /// The image.
        name: String,
        /// Its format.
        format: &'static str,
        /// What the decoder said.
        message: String,
    },
    /// An image with a side of no pixels.
    #[error("`{name}` has {height} by {width} pixels")]
    NoPixels {
        /// The image.
        name: String,
        /// Its height.
        height: usize,
        /// Its width.
        width: usize,
    },
    /// An array that its reader refuses.
    #[error("cannot read the array `{name}`: {cause}")]
    BadArray {
        /// The array.
        name: String,
        /// What the reader says.
        cause: io::Error,
    },
    /// An array that is no image.
    #[error("the array `{name}` has shape {shape:?} where `[H, W]` or `[H, W, C]` is wanted")]
    ArrayShape {
        /// The array.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// An array of a type that is not read.
    #[error("the array `{name}` has type {dtype} where `u1`, `u2` or `f4` is wanted")]
    ArrayType {
        /// The array.
        name: String,
        /// Its type as NumPy writes it.
        dtype: String,
    },
    /// An array with a value that is no number.
    #[error("the array `{name}` holds a value that is not finite")]
    NotFinite {
        /// The array.
        name: String,
    },
    /// An image of another number of channels than is wanted.
    #[error("`{name}` has {found} channels where {wanted} are wanted")]
    Channels {
        /// The image.
        name: String,
        /// How many it has.
        found: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A source none of whose tried images can be read.
    #[error("none of {tried} images can be read; the first: {first}")]
    NoneReadable {
        /// How many were tried.
        tried: usize,
        /// Why the first failed.
        first: String,
    },
    /// A class none of whose images can be read.
    #[error("none of the {tried} images of class `{class}` can be read; the first: {first}")]
    ClassUnreadable {
        /// The class.
        class: String,
        /// How many images it has.
        tried: usize,
        /// Why the first failed.
        first: String,
    },
    /// An unreadable image that no readable one was found for.
    #[error("too many unreadable images: `{name}` and {draws} drawn in its place; it failed because: {reason}")]
    TooManyUnreadable {
        /// The image.
        name: String,
        /// How many others were drawn.
        draws: usize,
        /// Why it failed.
        reason: String,
    },
    /// A source that does not fill one batch.
    #[error("{samples} images do not fill a batch of {batch_size}")]
    TooFewSamples {
        /// How many samples there are.
        samples: usize,
        /// How many a batch takes.
        batch_size: usize,
    },
    /// A batch of no images.
    #[error("a batch of `0` images is asked for")]
    EmptyBatch,
    /// A loader thread that stopped by a panic.
    #[error("a loader thread panicked: {message}")]
    WorkerPanicked {
        /// What it said.
        message: String,
    },
    /// A loader thread that the system refuses to start.
    #[error("cannot start a loader thread: {cause}")]
    NoThread {
        /// What the system says.
        cause: io::Error,
    },
}

impl Error {
    /// Returns what the user may try next.
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
            Self::NoMatch { .. } => Some("quote the pattern, and check it with `ls`".into()),
            Self::EmptyFolder { other: Some(other), .. } => {
                Some(format!("name the file itself, as in `{}`", other.display()))
            }
            Self::EmptyFolder { .. } => Some("images are found at any depth; hidden files are ignored".into()),
            Self::UnknownKind { .. } => {
                Some("give a folder of images, `.tar` shards or `*-images-idx3-ubyte[.gz]`".into())
            }
            Self::TruncatedTar { .. } | Self::TruncatedJpeg { .. } | Self::IdxLength { .. } => {
                Some("copy or download the file again".into())
            }
            Self::BadLabel { .. } => Some("a `.cls` member holds one integer from 0 up".into()),
            Self::LabelOutOfRange { .. } => Some("`classes.json` lists the name of every class, in order".into()),
            Self::BadClassNames { .. } => Some("as in `[\"cat\", \"dog\"]`".into()),
            Self::ClassesDisagree { .. } => {
                Some("sources opened together need the same class folders or `classes.json`".into())
            }
            Self::Channels { found, .. } => Some(format!("set `data.channels` to {found}")),
            Self::TooFewSamples { samples, .. } => Some(format!("lower `train.batch_size` to at most {samples}")),
            Self::EmptyBatch => Some("set `train.batch_size` to at least 1".into()),
            Self::NoSamples { .. } => Some(
                "in a shard, members that end in `.jpg`, `.jpeg`, `.png` or `.npy` are images; `tar -tf` lists them"
                    .into(),
            ),
            Self::BadTar { .. } => Some("`tar -tf` must list it; copy or download the file again".into()),
            Self::NotIdx { .. } => Some("give the images, as in `train-images-idx3-ubyte.gz`".into()),
            Self::LabelCount { .. } => Some("the file of labels beside the images is that of other images".into()),
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
            Self::Read { .. } | Self::WorkerPanicked { .. } | Self::NoThread { .. } => None,
        }
    }

    /// Returns whether the input is at fault, not the machine it is read on.
    #[must_use]
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::Read { .. } | Self::WorkerPanicked { .. } | Self::NoThread { .. } => false,
            Self::MissingPath { .. }
            | Self::BadSpec { .. }
            | Self::NoMatch { .. }
            | Self::EmptyFolder { .. }
            | Self::UnknownKind { .. }
            | Self::NoSamples { .. }
            | Self::TruncatedTar { .. }
            | Self::BadTar { .. }
            | Self::BadLabel { .. }
            | Self::LabelOutOfRange { .. }
            | Self::BadClassNames { .. }
            | Self::ClassesDisagree { .. }
            | Self::NotIdx { .. }
            | Self::IdxLength { .. }
            | Self::LabelCount { .. }
            | Self::UnknownFormat { .. }
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

/// What a panic said, of the payload that it left.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn listed(extensions: &[&str]) -> String {
    let quoted: Vec<String> = extensions.iter().map(|extension| format!("`.{extension}`")).collect();
    quoted.join(", ")
}
