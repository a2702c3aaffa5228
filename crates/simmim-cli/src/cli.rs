//! The command line; doc comments are the help texts.

mod collection;
mod inspect;

use crate::paths;
use clap::{Args, Parser, Subcommand, ValueEnum};
use simmim::evaluation::FeatureTokens;
use simmim::masks::PixelBox;
use simmim::precision::PrecisionChoice;
use simmim::weights::{ChannelRule, Format};
use std::path::PathBuf;

pub(crate) use collection::{CollectionArgs, MapArgs, SearchArgs};
pub(crate) use inspect::InspectArgs;

/// Self-supervised pre-training of vision transformers by masked image modeling (SimMIM).
///
/// Start with `simmim demo`, which needs no data and takes a few minutes. Then run `simmim pretrain` on a folder of
/// your own images.
///
/// In paths, `~/` is the home folder, in quotes too. Data sets are listed with commas between them; a name that has a
/// comma is given alone, or with `?` in its place. Weights at `hf://OWNER/NAME` are fetched from Hugging Face's hub, in builds
/// with the feature `hub`.
#[derive(Parser)]
#[command(name = "simmim", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command; one that a command does not use is refused.
#[derive(Args)]
pub(crate) struct Common {
    /// Device to compute on: cpu, or, in a build with the feature `libtorch`, cuda:N, mps or libtorch-cpu; auto, the
    /// default, is the first GPU that this build finds (of several ranks on a machine, each takes its own), or else cpu.
    #[arg(long, global = true, value_name = "DEVICE", help_heading = "Common options")]
    pub(crate) device: Option<String>,
    /// Precision of matrix products and attention; auto, the default, chooses the faster one on this machine and says
    /// why.
    #[arg(long, global = true, value_enum, help_heading = "Common options")]
    pub(crate) precision: Option<Precision>,
    /// Lets products of f32 on NVIDIA's GPUs round their operands to TF32, which is faster; without it, f32 is f32. With bf16 it
    /// changes little, since few products are f32 then.
    #[cfg(feature = "libtorch")]
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) tf32: bool,
    /// Records the passes of training steps once and replays them, as CUDA graphs: it changes no result, and takes work off the
    /// host where models are small.
    #[cfg(feature = "libtorch")]
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) graphs: bool,
    /// Number of compute threads, by default one per core (of several ranks, their share of them); on the device cpu it
    /// changes no result.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Common options")]
    pub(crate) threads: Option<u16>,
    /// Seed of initialization, order, augmentation and masks, by default 0.
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    pub(crate) seed: Option<u64>,
    /// Changes one value of the recipe; can be given several times. A key that the command does not use is refused.
    #[arg(long, global = true, value_name = "KEY.PATH=VALUE", value_parser = paths::edit, help_heading = "Common options")]
    pub(crate) set: Vec<String>,
    /// Prints the result as one JSON object on the last line of stdout.
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) json: bool,
    /// Seconds that ranks started by `mpirun` or `srun` wait for one that hangs before the job ends, by default 300;
    /// without ranks it changes nothing.
    #[cfg(feature = "mpi")]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000), help_heading = "Common options")]
    pub(crate) rank_timeout: Option<u64>,
    /// Whether ranks sum gradients by a thread of its own while the backward pass goes on, with the same result. By default
    /// they do where they are on several machines.
    #[cfg(feature = "mpi")]
    #[arg(long, global = true, value_enum, value_name = "WHEN", help_heading = "Common options")]
    pub(crate) overlap: Option<crate::ranks::Overlap>,
    /// Says of each sum of gradients when it was asked for, begun and done: the first rank here, the others in their files.
    #[cfg(feature = "mpi")]
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) rank_timeline: bool,
    /// Prints no progress, only warnings and the result.
    #[arg(long, short, global = true, help_heading = "Common options")]
    pub(crate) quiet: bool,
}

impl Common {
    /// The device to compute on.
    pub(crate) fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Precision of matrix products and attention.
    pub(crate) fn precision(&self) -> PrecisionChoice {
        self.precision.unwrap_or(Precision::Auto).into()
    }

    /// Seed of everything random.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Seconds that ranks wait for one that hangs.
    #[cfg(feature = "mpi")]
    pub(crate) fn rank_timeout(&self) -> u64 {
        self.rank_timeout.unwrap_or(300)
    }

    /// Number of compute threads.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Precision {
    /// The faster one on this machine.
    Auto,
    /// f32 operands and sums.
    F32,
    /// bf16 operands, f32 sums.
    Bf16,
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Auto => PrecisionChoice::Auto,
            Precision::F32 => PrecisionChoice::F32,
            Precision::Bf16 => PrecisionChoice::Bf16,
        }
    }
}

/// Threads of the loader.
#[derive(Args)]
pub(crate) struct Workers {
    /// Threads that read and decode images, by default half of --threads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..=1024))]
    workers: Option<u16>,
}

impl Workers {
    /// Number of threads.
    pub(crate) fn count(&self, common: &Common) -> usize {
        self.workers.map_or(common.threads().div_ceil(2), usize::from)
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Pre-trains a small encoder on embedded images, shows its predictions, and compares fine-tuning it on a few
    /// labels with training the same network from scratch.
    Demo(DemoArgs),
    /// Pre-trains an encoder on unlabeled images, a new one or, with --from, an already trained one; resumes if the run
    /// folder holds an unfinished run.
    Pretrain(PretrainArgs),
    /// Trains a classifier on labeled images, from a pre-trained encoder or from scratch; resumes if the run folder
    /// holds an unfinished run.
    Finetune(FinetuneArgs),
    /// Linear probing: trains a linear classifier on frozen features and reports its accuracy.
    Probe(ProbeArgs),
    /// Classifies images by the nearest neighbors of their frozen features, without training, and reports the accuracy.
    Knn(KnnArgs),
    /// Writes features of images: one row per image, as an array of NumPy or as Parquet, with file names and labels.
    Embed(EmbedArgs),
    /// Finds the images that are most like given ones, or groups of images that are nearly the same, by their features.
    Search(SearchArgs),
    /// Draws a map of a collection, in which images with similar features lie near each other.
    Map(MapArgs),
    /// Reports the accuracy of a fine-tuned model on labeled images.
    Evaluate(EvaluateArgs),
    /// Masks images and shows what a pre-trained model predicts: original, masked, prediction, pasted.
    Reconstruct(ReconstructArgs),
    /// Compares masking strategies and unit sizes: pictures of masks on a photo, and a table of AvgDist.
    Masks(MasksArgs),
    /// Computes the color palette of a data set by k-means, for the target `color-clusters`.
    Palette(PaletteArgs),
    /// Trains a discrete VAE on unlabeled images; its tokens are the target of `target.kind = "tokens"`.
    Tokenizer(TokenizerArgs),
    /// Writes weights of timm, Hugging Face's transformers or with the official names (safetensors, .pth, .bin) as a
    /// file of this program, with the recipe that their shapes and the config.json beside them give; every --from takes
    /// them directly too. Of DALL-E's encoder it makes a tokenizer for target.tokenizer.
    Import(ImportArgs),
    /// Writes a model for other programs: timm, Hugging Face's transformers, ONNX runtimes, or anything that reads
    /// safetensors, with what they need beside the weights and a model card.
    Export(ExportArgs),
    /// Describes a run, a weights file, a recipe or a data set: of this its sizes and kinds, what is there twice, what cannot
    /// be read, and a recipe that suits.
    Inspect(InspectArgs),
    /// Times the training steps of a recipe, and reports their share of the peak throughput of the machine.
    Bench(BenchArgs),
    /// Lists the built-in recipes, or prints one as a start for your own.
    Recipes(RecipesArgs),
}

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Run folder; open report.html in it.
    #[arg(long, value_name = "DIR", default_value = "simmim-demo", value_parser = paths::path())]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct PretrainArgs {
    /// A built-in recipe (see `simmim recipes`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", value_parser = paths::name)]
    pub(crate) recipe: String,
    /// Training images: a folder, a .csv, .tar, .zip, .parquet or IDX file; globs, {00..04} and a,b are expanded.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    /// Held-out images, for the held-out loss (of at most 512, evenly spaced) and pictures of predictions.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) val: Option<String>,
    /// Weights to go on from: a run folder, a checkpoint folder or a weights file (also of timm, transformers or torch);
    /// their head and mask token are kept if they fit. By default, or with `scratch`, all weights are new.
    #[arg(long, value_name = "RUN|FILE|scratch", value_parser = paths::name)]
    pub(crate) from: Option<String>,
    /// How the patch embedding of --from is adapted to images of another number of channels.
    #[arg(long, value_enum, requires = "from")]
    pub(crate) channels: Option<Channels>,
    /// Run folder: log, checkpoints, pictures, report.html.
    #[arg(long, value_name = "RUN", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

#[derive(Args)]
pub(crate) struct FinetuneArgs {
    /// Weights to start from: a run folder, a checkpoint folder, a weights file (also of timm or transformers), or
    /// `scratch` for random initialization.
    #[arg(long, value_name = "RUN|FILE|scratch", value_parser = paths::name)]
    pub(crate) from: String,
    /// How the patch embedding of --from is adapted to images of another number of channels.
    #[arg(long, value_enum)]
    pub(crate) channels: Option<Channels>,
    /// A built-in recipe (see `simmim recipes`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", value_parser = paths::name)]
    pub(crate) recipe: String,
    /// Labeled training images: class sub-folders, or a .csv, .tar, .zip, .parquet or IDX file with labels.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    /// Labeled held-out images of the same classes.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) val: Option<String>,
    /// Run folder: log, checkpoints, best.safetensors, report.html.
    #[arg(long, value_name = "RUN", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

/// Options for frozen features of labeled images.
#[derive(Args)]
pub(crate) struct FrozenArgs {
    /// A run folder, a checkpoint folder, a weights file (also of timm or transformers), or `scratch` for an untrained
    /// encoder.
    #[arg(long, value_name = "RUN|FILE|scratch", value_parser = paths::name)]
    pub(crate) from: String,
    /// Labeled training images: class sub-folders, or a .csv, .tar, .zip, .parquet or IDX file with labels.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    /// Labeled images of the same classes, to classify.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) val: String,
    /// Recipe of the encoder, if the weights do not contain it.
    #[arg(long, value_name = "NAME|FILE", value_parser = paths::name)]
    pub(crate) recipe: Option<String>,
    /// How the patch embedding of --from is adapted to images of another number of channels, which
    /// `--set data.channels=N` says.
    #[arg(long, value_enum)]
    pub(crate) channels: Option<Channels>,
    /// Block whose output is used, from 1 (8 for ViT-B in the paper); by default the output of the encoder.
    #[arg(long, visible_alias = "block", value_name = "BLOCK")]
    pub(crate) layer: Option<usize>,
    /// Folder in which features are cached, by default `features` in the run folder.
    #[arg(long, value_name = "DIR", value_parser = paths::path())]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

#[derive(Args)]
pub(crate) struct ProbeArgs {
    #[command(flatten)]
    pub(crate) frozen: FrozenArgs,
    /// Epochs of training.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epochs: u32,
    /// Learning rates to try; the result is the best one on --val.
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub(crate) rates: Vec<f64>,
    /// Does not normalize features to mean 0 and standard deviation 1.
    #[arg(long)]
    pub(crate) no_norm: bool,
}

#[derive(Args)]
pub(crate) struct KnnArgs {
    #[command(flatten)]
    pub(crate) frozen: FrozenArgs,
    /// Number of nearest neighbors.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k: u32,
    /// A vote has the weight exp(cosine / temperature).
    #[arg(long, value_name = "T", default_value_t = 0.07)]
    pub(crate) temperature: f64,
}

#[derive(Args)]
pub(crate) struct EmbedArgs {
    /// A run folder, a checkpoint folder, a weights file (also of timm, transformers or torch), a folder as
    /// transformers writes it, whose preprocessor_config.json then says how images are prepared, or `scratch` for an
    /// untrained encoder.
    #[arg(long, value_name = "RUN|FILE|scratch", value_parser = paths::name)]
    pub(crate) from: String,
    /// Images: a folder, a .csv, .tar, .zip, .parquet or IDX file; globs, {00..04} and a,b are expanded.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    /// The file to write; files and labels are listed in F.npy.csv, or are columns of F.parquet.
    #[arg(long, value_name = "F.npy|F.parquet", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    /// How the patch embedding of --from is adapted to images of another number of channels, which
    /// `--set data.channels=N` says.
    #[arg(long, value_enum)]
    pub(crate) channels: Option<Channels>,
    /// What is written of each image.
    #[arg(long, visible_alias = "tokens", value_enum, default_value_t = Features::Mean)]
    pub(crate) features: Features,
    /// Block whose output is used, from 1; by default the output of the encoder.
    #[arg(long, value_name = "BLOCK")]
    pub(crate) block: Option<usize>,
    /// Recipe of the encoder, if the weights do not contain it.
    #[arg(long, value_name = "NAME|FILE", value_parser = paths::name)]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

/// What is written of each image.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Features {
    /// The class token.
    Class,
    /// The mean of the patch tokens, as knn and probe use it.
    Mean,
    /// Every patch token.
    Patches,
}

impl From<Features> for FeatureTokens {
    fn from(features: Features) -> Self {
        match features {
            Features::Class => FeatureTokens::Class,
            Features::Mean => FeatureTokens::Mean,
            Features::Patches => FeatureTokens::Patches,
        }
    }
}

#[derive(Args)]
pub(crate) struct EvaluateArgs {
    /// A fine-tuned run (its last checkpoint), a checkpoint folder, or a file such as best.safetensors.
    #[arg(long, value_name = "RUN|FILE", value_parser = paths::path())]
    pub(crate) from: PathBuf,
    /// Labeled images of the classes of the model.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

#[derive(Args)]
pub(crate) struct ReconstructArgs {
    /// A run folder, a checkpoint folder or a weights file.
    #[arg(long, value_name = "RUN|FILE", value_parser = paths::path())]
    pub(crate) from: PathBuf,
    /// Folder for the pictures, one PNG per image.
    #[arg(long, value_name = "DIR", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    /// What to hide: a strategy, or a picture of any size in which white is hidden; by default as in training.
    #[arg(long, value_name = "random|square|blockwise|MASK.png", value_parser = paths::name)]
    pub(crate) mask: Option<String>,
    /// Hides this rectangle, in pixels of the image.
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", conflicts_with = "mask", value_parser = pixel_box)]
    pub(crate) mask_box: Option<PixelBox>,
    /// Share of the mask units of the rectangle to hide, above 0, at most 1.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "mask_box", value_parser = share)]
    pub(crate) mask_share: f64,
    /// Images to reconstruct.
    #[arg(value_name = "IMAGE", required = true, value_parser = paths::path())]
    pub(crate) images: Vec<PathBuf>,
}

/// Parses `x,y,width,height`.
fn pixel_box(text: &str) -> Result<PixelBox, String> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([x, y, width, height]) if *width > 0 && *height > 0 => {
            Ok(PixelBox { x: *x, y: *y, width: *width, height: *height })
        }
        Some(_) | None => Err("expected x,y,width,height in whole pixels, for example 40,25,120,90".into()),
    }
}

/// Parses a share above 0 and at most 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) | Err(_) => Err("expected a number above 0 and at most 1".into()),
    }
}

#[derive(Args)]
pub(crate) struct MasksArgs {
    /// Folder for masks.png, avg_dist.csv and masks.html.
    #[arg(long, value_name = "DIR", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    /// The photo to mask, by default an embedded one.
    #[arg(long, value_name = "FILE", value_parser = paths::path())]
    pub(crate) image: Option<PathBuf>,
    /// Recipe with the image size and the [mask] section.
    #[arg(long, value_name = "NAME|FILE", default_value = "pretrain-vit-photos-192", value_parser = paths::name)]
    pub(crate) recipe: String,
}

#[derive(Args)]
pub(crate) struct PaletteArgs {
    /// Images to compute the palette from: a folder, a .csv, .tar, .zip, .parquet or IDX file.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    /// The file to write, for `target.palette` of a recipe.
    #[arg(long, value_name = "FILE.safetensors", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    /// Number of colors, as `target.clusters` of the recipe.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(2..))]
    pub(crate) colors: u16,
    /// Channels to decode the images to.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) channels: u16,
}

#[derive(Args)]
pub(crate) struct TokenizerArgs {
    /// Training images: a folder, a .csv, .tar, .zip, .parquet or IDX file; globs, {00..04} and a,b are expanded.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) data: String,
    /// Images on which reconstructions are evaluated (at most 256, evenly spaced), by default training images.
    #[arg(long, value_name = "DATA", value_parser = paths::data)]
    pub(crate) val: Option<String>,
    /// Run folder: tokenizer.safetensors, log, checkpoints, pictures, report.html.
    #[arg(long, value_name = "RUN", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    /// A built-in tokenizer recipe (see `simmim recipes`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "tokenizer-photos-96", value_parser = paths::name)]
    pub(crate) recipe: String,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// A safetensors file or one of torch.save (.pth, .pt, .bin), an index of several, or a folder as transformers
    /// writes it.
    #[arg(value_name = "FILE|DIR", value_parser = paths::path())]
    pub(crate) file: PathBuf,
    /// The file to write; --set data.image_size, data.channels and encoder.heads change what it is for, or say it.
    #[arg(long, value_name = "FILE.safetensors", value_parser = paths::path())]
    pub(crate) out: PathBuf,
    /// How the patch embedding is adapted to another number of channels; the response to gray images stays.
    #[arg(long, value_enum)]
    pub(crate) channels: Option<Channels>,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// A run folder, a checkpoint folder or a weights file.
    #[arg(long, value_name = "RUN|FILE", value_parser = paths::path())]
    pub(crate) from: PathBuf,
    /// Whose names and files to write.
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// A new folder for model.safetensors or model.onnx, config.json, README.md and what else the format has.
    #[arg(long, value_name = "DIR", value_parser = paths::path())]
    pub(crate) out: PathBuf,
}

/// Whose names and files to write.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The official SimMIM names, with the recipe.
    Safetensors,
    /// timm: the encoder or classifier.
    Timm,
    /// transformers: the encoder, the whole pre-training model, or the classifier.
    Hf,
    /// A graph for ONNX runtimes: features of the encoder, or logits of the classifier, for batches of any size.
    Onnx,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Safetensors => Format::Safetensors,
            ExportFormat::Timm => Format::Timm,
            ExportFormat::Hf => Format::Transformers,
            ExportFormat::Onnx => Format::Onnx,
        }
    }
}

/// How the patch embedding is adapted to another number of channels.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Channels {
    /// The channels of the weights again and again, copies sharing their weight.
    Repeat,
    /// Their mean for every channel.
    Mean,
    /// The channels of the weights, and zeros for all others.
    Zero,
}

impl From<Channels> for ChannelRule {
    fn from(channels: Channels) -> Self {
        match channels {
            Channels::Repeat => ChannelRule::Repeat,
            Channels::Mean => ChannelRule::Mean,
            Channels::Zero => ChannelRule::Zero,
        }
    }
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// A built-in pre-training recipe (see `simmim recipes`) or a TOML file; images are synthetic.
    #[arg(long, value_name = "NAME|FILE", default_value = "pretrain-vit-cifar", value_parser = paths::name)]
    pub(crate) recipe: String,
    /// Number of timed steps; the median is reported.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub(crate) steps: usize,
    /// Measures only the peak throughput of matrix products on data in registers.
    #[arg(long, conflicts_with_all = ["recipe", "steps"])]
    pub(crate) peak: bool,
    /// Times only forward passes, without memory for gradients, so that models with billions of parameters fit.
    #[arg(long, conflicts_with_all = ["peak", "adamw"])]
    pub(crate) forward: bool,
    /// Times only AdamW on this number of parameters, and a copy that moves as many bytes.
    #[arg(long, value_name = "N", value_parser = at_least_one, num_args = 0..=1, default_missing_value = "86000000", conflicts_with_all = ["peak", "recipe", "steps"])]
    pub(crate) adamw: Option<usize>,
    /// Measures only how fast images of this data set, or their tiles, are loaded: decoded, cropped and normalized as the recipe
    /// says. --steps are seconds here.
    #[arg(long, value_name = "DATA", value_parser = paths::data, conflicts_with_all = ["peak", "forward", "adamw"])]
    pub(crate) data: Option<String>,
}

/// Parses a whole number above 0.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err("expected a whole number above 0".into()),
    }
}

#[derive(Args)]
pub(crate) struct RecipesArgs {
    /// The recipe to print.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_rectangle_is_four_numbers() {
        assert_eq!(pixel_box("1, 2,3,4"), Ok(PixelBox { x: 1, y: 2, width: 3, height: 4 }));
        for text in ["1,2,3", "1,2,3,4,5", "1,2,0,4", "a,2,3,4", "-1,2,3,4"] {
            assert!(pixel_box(text).is_err(), "{text}");
        }
    }
}
