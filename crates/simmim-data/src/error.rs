//! Every error of this crate, with a hint for the user.

use std::any::Any;
use std::io;
use std::path::PathBuf;

use crate::source::PassedOver;

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
    /// An address that cannot be used.
    #[error("cannot use the address `{address}`: {fault}")]
    BadAddress {
        /// The address, without secrets.
        address: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A wildcard that matches nothing that can be opened.
    #[error("no image, shard or folder matches `{pattern}`")]
    NoMatch {
        /// The pattern as given.
        pattern: String,
        /// The matches that are not read.
        passed_over: PassedOver,
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
        /// What lies in it and is not read.
        passed_over: PassedOver,
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
    #[error("`{}` is neither an image, an archive of images, a list of images nor an IDX image file", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// An archive, list or IDX file without images.
    #[error("`{}` holds no image", path.display())]
    NoSamples {
        /// The file.
        path: PathBuf,
        /// What it holds and is not read.
        passed_over: PassedOver,
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
    #[error("`{}` is not a valid tar file at byte {offset}: {what}", path.display())]
    BadTar {
        /// The shard.
        path: PathBuf,
        /// Where the invalid entry starts.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An archive, or a member of one, that the reader of its format refuses.
    #[error("cannot read `{name}`: {what}")]
    BadArchive {
        /// The archive, or the member.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of a kind that this build does not read.
    #[error("`{}` is of a kind that this build does not read", path.display())]
    LeftOut {
        /// The file.
        path: PathBuf,
        /// The feature of the crate that reads it.
        feature: &'static str,
    },
    /// A picture without values of a modality, of which a window was to be shown.
    #[error("`{name}` is no gray DICOM file, so it has no values for the window")]
    NoWindow {
        /// The picture.
        name: String,
    },
    /// A list with a line that cannot be read.
    #[error("`{}`, line {line}: {what}", path.display())]
    BadList {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A list without a column of paths, or a table without one of images.
    #[error("`{}` has no column of {wanted}; it has {has}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// What is missing.
        wanted: &'static str,
        /// Its columns, quoted.
        has: String,
    },
    /// Several splits of a data set that would be read as one.
    #[error("`{}` holds several splits of a data set: `{}`, `{}`", folder.display(), first.display(), second.display())]
    Splits {
        /// The folder that was opened.
        folder: PathBuf,
        /// A folder or file in it.
        first: PathBuf,
        /// One of another split.
        second: PathBuf,
    },
    /// A label that is not among the names of the classes.
    #[error("the label `{label}` of `{member}` is not in `classes.json`")]
    UnknownClass {
        /// The image with the label.
        member: String,
        /// The label.
        label: String,
    },
    /// A label that is not a class number.
    #[error("the label `{text}` of `{member}` is not a class number")]
    BadLabel {
        /// The member of the shard that holds the label.
        member: String,
        /// Its content.
        text: String,
    },
    /// Several class numbers where one is read.
    #[error("the label of `{member}` is `{labels}`, several class numbers in a column for one label")]
    SeveralLabels {
        /// The image with the label.
        member: String,
        /// The label.
        labels: String,
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
    #[error("`{name}` is not a JPEG, PNG, WebP, TIFF, GIF, BMP, DICOM or `.npy` file: it starts with {start:02x?}")]
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
    /// A picture of more tiles than can be listed.
    #[error("`{name}` has more than {limit} tiles")]
    TooManyTiles {
        /// The picture.
        name: String,
        /// The most tiles of a picture.
        limit: usize,
    },
    /// Pictures of which no tile has enough content.
    #[error("no tile of {pictures} pictures has a share of content of `{least_content}`")]
    NoTiles {
        /// The number of pictures.
        pictures: usize,
        /// The least share of content that was wanted.
        least_content: f64,
    },
    /// An image that its decoder refuses.
    #[error("cannot decode `{name}`: {reason}")]
    Decode {
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
    /// An encoded image with more bytes than [`MAX_BYTES`](crate::decode::MAX_BYTES).
    #[error("`{name}` takes {bytes} bytes before it is decoded, more than {limit}")]
    FileTooLarge {
        /// The image.
        name: String,
        /// The bytes that it takes.
        bytes: u64,
        /// The most that it may take.
        limit: u64,
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
    /// A file or folder that the system cannot read, or an archive that a store does not deliver.
    #[error("cannot read `{}`: {cause}", path.display())]
    Read {
        /// The file or folder, or the address without secrets.
        path: PathBuf,
        /// The error of the system, or of the store.
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

/// Returns the message of a panic from its payload.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Lists extensions for a message.
pub(crate) fn listed(extensions: &[&str]) -> String {
    let quoted: Vec<String> = extensions.iter().map(|extension| format!("`.{extension}`")).collect();
    quoted.join(", ")
}
