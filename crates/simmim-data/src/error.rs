//! Every error of this crate, with a hint for the user.

use std::any::Any;
use std::io;
use std::path::PathBuf;

use crate::source::{PassedOver, PassedOverReason};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, with the values that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that does not exist.
    #[error("there is no `{}`", path.display())]
    MissingPath {
        /// The path as given.
        path: PathBuf,
        /// What exists under the most similar name.
        nearest: Option<PathBuf>,
        /// The deepest folder on the way that exists.
        parent: PathBuf,
    },
    /// A data specification that is not a list of paths.
    #[error("`{spec}` is not a list of paths: {fault}")]
    BadSpec {
        /// The specification as given.
        spec: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A wildcard that matches nothing that can be opened.
    #[error("no image, shard or folder matches `{pattern}`")]
    NoMatch {
        /// The pattern as given.
        pattern: String,
        /// The first match that is not read.
        passed_over: Option<PassedOver>,
    },
    /// A folder without images and shards.
    #[error("no image in `{}`; looked for {}", path.display(), listed(extensions))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// The file extensions of images.
        extensions: &'static [&'static str],
        /// A file in the folder that can be opened if it is named itself.
        other: Option<PathBuf>,
        /// The first file or folder in it that is not read.
        passed_over: Option<PassedOver>,
    },
    /// A folder with sub-folders of images that cannot be classes, because an image lies elsewhere.
    #[error(
        "the images in `{}` have no labels: `{}` does not lie directly in a class folder",
        folder.display(),
        image.display()
    )]
    NotInClassFolder {
        /// The first image that lies elsewhere.
        image: PathBuf,
        /// The folder that was opened.
        folder: PathBuf,
    },
    /// A pipe, a socket or a device in the place of a file.
    #[error("`{}` is {what}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is, as part of a sentence.
        what: &'static str,
    },
    /// A file of a kind that cannot be opened.
    #[error("`{}` is neither an image, a `.tar` shard nor an IDX image file", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// A shard or IDX file without images.
    #[error("`{}` holds no image", path.display())]
    NoSamples {
        /// The file.
        path: PathBuf,
    },
    /// A shard that ends within its last member, or before its end marker.
    #[error(
        "`{}` is cut short: the file ends at byte {length}, before the end of the entry at byte {offset}",
        path.display()
    )]
    TruncatedTar {
        /// The shard.
        path: PathBuf,
        /// Where the first incomplete entry starts.
        offset: u64,
        /// The length of the file in bytes.
        length: u64,
    },
    /// A shard with an invalid entry.
    #[error("`{}` is not a valid tar file at byte {offset}: {cause}", path.display())]
    BadTar {
        /// The shard.
        path: PathBuf,
        /// Where the invalid entry starts.
        offset: u64,
        /// The error of the tar reader.
        cause: io::Error,
    },
    /// A label that is not a class number.
    #[error("the label `{text}` of `{member}` is not a class number")]
    BadLabel {
        /// The member of the shard that holds the label.
        member: String,
        /// Its content.
        text: String,
    },
    /// A class number that is too high for the list of classes.
    #[error("the label {label} of `{member}` is not below the {classes} classes of `classes.json`")]
    LabelOutOfRange {
        /// The sample with the label.
        member: String,
        /// The class number.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A label that is too high to be a class number where no list names the classes.
    #[error("the label {label} of `{member}` is not below {limit}: every number up to the highest label is a class")]
    TooManyClasses {
        /// The sample with the label.
        member: String,
        /// The label.
        label: usize,
        /// The most classes that there may be.
        limit: usize,
    },
    /// A `classes.json` that is not a list of names.
    #[error("`{}` is not a JSON list of class names: {cause}", path.display())]
    BadClassNames {
        /// The file.
        path: PathBuf,
        /// The error of the JSON reader.
        cause: serde_json::Error,
    },
    /// Sources that are opened together and have different classes.
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
        /// The name of this class in the first source, or `(none)`.
        first_class: String,
        /// The name of this class in the second source, or `(none)`.
        second_class: String,
    },
    /// A file without the header of an IDX file of bytes with the right number of dimensions.
    #[error("`{name}` is not an IDX file of rank {rank}: it starts with {start:02x?}")]
    NotIdx {
        /// The file.
        name: String,
        /// The number of dimensions that it should have.
        rank: u8,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// An IDX file that does not have the length that its header says.
    #[error("`{name}` holds {actual} bytes of data where its header says {expected}")]
    IdxLength {
        /// The file.
        name: String,
        /// The length in bytes that its header says.
        expected: u64,
        /// The length in bytes that it has.
        actual: u64,
    },
    /// A file of labels that does not have one label for every image.
    #[error("`{name}` holds {labels} labels for {images} images")]
    LabelCount {
        /// The file of labels.
        name: String,
        /// The number of labels.
        labels: usize,
        /// The number of images.
        images: usize,
    },
    /// Bytes in an unknown image format.
    #[error("`{name}` is not a JPEG, PNG, WebP, TIFF, GIF, BMP or `.npy` file: it starts with {start:02x?}")]
    UnknownFormat {
        /// The image.
        name: String,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// Bytes in a format that is known and not read.
    #[error("`{name}` is {format}, which is not read")]
    UnreadFormat {
        /// The image.
        name: String,
        /// What it is, as part of a sentence.
        format: &'static str,
    },
    /// An image that the decoder refuses.
    #[error("cannot decode `{name}`: {cause}")]
    Decode {
        /// The image.
        name: String,
        /// The error of the decoder.
        cause: ::image::ImageError,
    },
    /// A JPEG that the decoder refuses.
    #[error("cannot decode `{name}`: {reason}")]
    Jpeg {
        /// The image.
        name: String,
        /// What the decoder says.
        reason: String,
    },
    /// A GIF that the decoder refuses.
    #[error("cannot decode `{name}`: {reason}")]
    Gif {
        /// The image.
        name: String,
        /// What the decoder says.
        reason: String,
    },
    /// A TIFF that the decoder refuses.
    #[error("cannot decode `{name}`: {reason}")]
    Tiff {
        /// The image.
        name: String,
        /// What the decoder says.
        reason: String,
    },
    /// A JPEG that ends within its image data.
    #[error("cannot decode `{name}`: the picture is cut short, the file ends at byte {length} before its end marker")]
    TruncatedJpeg {
        /// The image.
        name: String,
        /// The length of the file in bytes.
        length: usize,
    },
    /// An image on which the decoder panics.
    #[error("cannot decode `{name}`: the decoder of {format} panicked: {message}")]
    DecoderPanicked {
        /// The image.
        name: String,
        /// Its format.
        format: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// An image with a height or width of 0.
    #[error("`{name}` has {height} by {width} pixels")]
    NoPixels {
        /// The image.
        name: String,
        /// Its height.
        height: usize,
        /// Its width.
        width: usize,
    },
    /// An image that would take more memory than [`MAX_BYTES`](crate::decode::MAX_BYTES).
    #[error(
        "`{name}` has {height} by {width} pixels, which take {bytes} bytes with {channels} channels, more than {limit}"
    )]
    TooLarge {
        /// The image.
        name: String,
        /// Its height.
        height: usize,
        /// Its width.
        width: usize,
        /// The number of channels of the file or after conversion, whichever is higher.
        channels: usize,
        /// The memory that it would take, in bytes.
        bytes: u64,
        /// The most that it may take, in bytes.
        limit: u64,
    },
    /// An image for which the system does not give the memory.
    #[error("cannot read `{name}`: the system does not give the {bytes} bytes that this takes")]
    NoMemory {
        /// The image.
        name: String,
        /// The memory that it takes, in bytes.
        bytes: u64,
    },
    /// An array that the reader of arrays refuses.
    #[error("cannot read the array `{name}`: {cause}")]
    BadArray {
        /// The array.
        name: String,
        /// The error of the reader.
        cause: io::Error,
    },
    /// An array that does not have the shape of an image.
    #[error("the array `{name}` has shape {shape:?} where `[H, W]` or `[H, W, C]` is wanted")]
    ArrayShape {
        /// The array.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// An array with an unsupported type of values.
    #[error("the array `{name}` has type {dtype} where `u1`, `u2` or `f4` is wanted")]
    ArrayType {
        /// The array.
        name: String,
        /// The type in NumPy's notation.
        dtype: String,
    },
    /// An array with a value that is NaN or infinite.
    #[error("the array `{name}` holds a value that is not finite")]
    NotFinite {
        /// The array.
        name: String,
    },
    /// An image whose channels cannot be converted to the wanted number of channels.
    #[error("`{name}` has {actual} channels where {wanted} are wanted")]
    Channels {
        /// The image.
        name: String,
        /// The number of channels that it has.
        actual: usize,
        /// The wanted number of channels.
        wanted: usize,
    },
    /// A file or folder that the system cannot read.
    #[error("cannot read `{}`: {cause}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// A source of which no tried image can be read.
    #[error("none of {tried} images can be read; the first: {first}")]
    NoneReadable {
        /// The number of tried images.
        tried: usize,
        /// Why the first one cannot be read.
        first: String,
    },
    /// A class of which no image can be read.
    #[error("none of the {tried} images of class `{class}` can be read; the first: {first}")]
    ClassUnreadable {
        /// The class.
        class: String,
        /// The number of images of the class.
        tried: usize,
        /// Why the first one cannot be read.
        first: String,
    },
    /// An unreadable image for which no readable replacement was drawn.
    #[error("too many unreadable images: `{name}` and {draws} drawn in its place; it failed because: {reason}")]
    TooManyUnreadable {
        /// The image.
        name: String,
        /// The number of replacements that were drawn.
        draws: usize,
        /// Why the image cannot be read.
        reason: String,
    },
    /// A source with fewer samples than one batch.
    #[error("{samples} images do not fill a batch of {batch_size}")]
    TooFewSamples {
        /// The number of samples of the source.
        samples: usize,
        /// The number of samples of a batch.
        batch_size: usize,
    },
    /// A batch size of 0.
    #[error("a batch of `0` images is asked for")]
    EmptyBatch,
    /// A loader thread that panicked.
    #[error("a loader thread panicked: {message}")]
    WorkerPanicked {
        /// The message of the panic.
        message: String,
    },
    /// A loader thread that the system does not start.
    #[error("cannot start a loader thread: {cause}")]
    NoThread {
        /// The error of the system.
        cause: io::Error,
    },
}

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
            Self::NoMatch { passed_over: Some(passed_over), .. } => Some(hint_on(passed_over)),
            Self::NoMatch { .. } => Some("quote the pattern, and check it with `ls`".into()),
            Self::EmptyFolder { other: Some(other), .. } => {
                Some(format!("name the file itself, as in `{}`", other.display()))
            }
            Self::EmptyFolder { passed_over: Some(passed_over), .. } => Some(hint_on(passed_over)),
            Self::EmptyFolder { .. } => Some("images are found at any depth; hidden files are ignored".into()),
            Self::NotInClassFolder { folder, .. } => Some(format!(
                "move it into a sub-folder of `{}`, one for each class, or leave it out",
                folder.display()
            )),
            Self::NotAFile { .. } => Some("copy what it delivers to a file".into()),
            Self::NoMemory { .. } => Some("fewer --workers read fewer images at once".into()),
            Self::TooLarge { .. } => Some("make it smaller, cut it into parts, or leave it out".into()),
            Self::UnknownKind { .. } => {
                Some("give a folder of images, `.tar` shards or `*-images-idx3-ubyte[.gz]`".into())
            }
            Self::TruncatedTar { .. } | Self::TruncatedJpeg { .. } | Self::IdxLength { .. } => {
                Some("copy or download the file again".into())
            }
            Self::BadLabel { .. } => Some("a `.cls` member holds one integer from 0 up".into()),
            Self::LabelOutOfRange { .. } => Some("`classes.json` lists the name of every class, in order".into()),
            Self::TooManyClasses { .. } => Some("number the classes from 0 up".into()),
            Self::BadClassNames { .. } => Some("as in `[\"cat\", \"dog\"]`".into()),
            Self::ClassesDisagree { .. } => {
                Some("sources opened together need the same class folders or `classes.json`".into())
            }
            Self::Channels { actual, .. } => Some(format!("set `data.channels` to {actual}")),
            Self::TooFewSamples { samples, .. } => Some(format!("lower `train.batch_size` to at most {samples}")),
            Self::EmptyBatch => Some("set `train.batch_size` to at least 1".into()),
            Self::NoSamples { .. } => Some(
                "in a shard, members that end in `.jpg`, `.png`, `.npy` and so on are images; `tar -tf` lists them"
                    .into(),
            ),
            Self::BadTar { .. } => Some("`tar -tf` must list it; copy or download the file again".into()),
            Self::NotIdx { .. } => Some("give the images, as in `train-images-idx3-ubyte.gz`".into()),
            Self::LabelCount { .. } => Some("the file of labels next to the images belongs to other images".into()),
            Self::UnreadFormat { .. } => {
                Some("convert it, for example to PNG with ImageMagick's `magick`, or leave it out".into())
            }
            Self::UnknownFormat { .. }
            | Self::Decode { .. }
            | Self::Jpeg { .. }
            | Self::Gif { .. }
            | Self::Tiff { .. }
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

    /// Returns whether the input causes the error; otherwise the machine does.
    #[must_use]
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::Read { .. } | Self::NoMemory { .. } | Self::WorkerPanicked { .. } | Self::NoThread { .. } => false,
            Self::MissingPath { .. }
            | Self::BadSpec { .. }
            | Self::NoMatch { .. }
            | Self::EmptyFolder { .. }
            | Self::NotInClassFolder { .. }
            | Self::NotAFile { .. }
            | Self::TooLarge { .. }
            | Self::UnknownKind { .. }
            | Self::NoSamples { .. }
            | Self::TruncatedTar { .. }
            | Self::BadTar { .. }
            | Self::BadLabel { .. }
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
            | Self::Jpeg { .. }
            | Self::Gif { .. }
            | Self::Tiff { .. }
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

/// A hint on a file or folder that is not read, where nothing else is.
fn hint_on(passed_over: &PassedOver) -> String {
    match passed_over.reason {
        PassedOverReason::Run => format!("{passed_over}; name it itself to read its pictures"),
        PassedOverReason::Nowhere => format!("{passed_over}; copy what it led to, or mount it"),
        PassedOverReason::Loop | PassedOverReason::Repeated | PassedOverReason::NotAFile(_) => {
            format!("{passed_over}; give regular files")
        }
    }
}

/// Returns the message of a panic from its payload.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Lists extensions for a message.
fn listed(extensions: &[&str]) -> String {
    let quoted: Vec<String> = extensions.iter().map(|extension| format!("`.{extension}`")).collect();
    quoted.join(", ")
}
