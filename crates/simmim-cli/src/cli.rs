//! What may be typed; the doc comments are the help texts.

use clap::{Args, Parser, Subcommand, ValueEnum};
use simmim::mask::PixelBox;
use simmim::precision::PrecisionChoice;
use std::path::PathBuf;

/// Self-supervised pre-training of vision transformers by masked image modelling (SimMIM).
///
/// Start with `simmim demo`: it needs nothing and takes a few minutes. Then point `simmim pretrain` at a
/// folder of your own images.
#[derive(Parser)]
#[command(name = "simmim", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args)]
pub(crate) struct Common {
    /// Where to compute.
    #[arg(long, global = true, value_enum, default_value_t = Device::Auto, help_heading = "Common options")]
    pub(crate) device: Device,
    /// Arithmetic of products and attention; auto takes what is faster here and says why.
    #[arg(long, global = true, value_enum, default_value_t = Precision::Auto, help_heading = "Common options")]
    pub(crate) precision: Precision,
    /// Worker threads; all cores if not given. Their number changes no result.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Common options")]
    pub(crate) threads: Option<u16>,
    /// Seed of everything random.
    #[arg(long, global = true, value_name = "N", default_value_t = 0, help_heading = "Common options")]
    pub(crate) seed: u64,
    /// Edits one value of the recipe; may be given again.
    #[arg(long, global = true, value_name = "KEY.PATH=VALUE", help_heading = "Common options")]
    pub(crate) set: Vec<String>,
    /// Prints the result as one JSON object on the last line of stdout.
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) json: bool,
    /// No progress, only warnings and the result.
    #[arg(long, short, global = true, help_heading = "Common options")]
    pub(crate) quiet: bool,
}

impl Common {
    /// Threads that read and decode images, if the command line does not say.
    pub(crate) fn workers(&self, given: Option<usize>) -> usize {
        given.unwrap_or(self.threads().div_ceil(2))
    }

    /// Worker threads to use.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Device {
    /// The best there is: the CPU.
    Auto,
    /// The CPU.
    Cpu,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Precision {
    /// The faster one here.
    Auto,
    /// f32 operands.
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

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Pre-trains a small encoder on images inside the binary, shows what it predicts, and fine-tunes it on few labels
    /// beside the same network from scratch.
    Demo(DemoArgs),
    /// Pre-trains an encoder on unlabelled images; goes on if the run folder holds an unfinished run.
    Pretrain(PretrainArgs),
    /// Trains a classifier on labelled images, from a pre-trained encoder or from scratch; goes on if the run folder
    /// holds an unfinished run.
    Finetune(FinetuneArgs),
    /// Linear probe: how well one linear layer tells classes from frozen features.
    Probe(ProbeArgs),
    /// How well the nearest neighbours of frozen features tell classes; nothing is learnt.
    Knn(KnnArgs),
    /// How well a fine-tuned model tells the classes of labelled images.
    Evaluate(EvaluateArgs),
    /// Pictures of what a trained model predicts: original, masked, prediction, pasted.
    Reconstruct(ReconstructArgs),
    /// Compares masks: pictures of every strategy and unit on a photograph, and a table of AvgDist.
    Masks(MasksArgs),
    /// Finds the colours that stand for all others in a data set, for the target `colour-clusters`.
    Palette(PaletteArgs),
    /// Trains a discrete VAE on unlabelled images, whose tokens `target.kind = "tokens"` predicts.
    Tokenizer(TokenizerArgs),
    /// Shows what is in a run, a weights file, a recipe or a data set.
    Inspect(InspectArgs),
    /// Times whole updates of a recipe, and says what share of the machine's product peak they reach.
    Bench(BenchArgs),
    /// Lists the built-in recipes, or prints one to start your own from.
    Recipes(RecipesArgs),
}

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Folder for the run; the page to open is report.html in it.
    #[arg(long, value_name = "DIR", default_value = "simmim-demo")]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct PretrainArgs {
    /// A built-in recipe (see `simmim recipes`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: String,
    /// Training images: a folder, .tar shards or IDX files; globs, {00..04} and a,b work.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Held-out images, whose loss and pictures show whether the model learns.
    #[arg(long, value_name = "DATA")]
    pub(crate) val: Option<String>,
    /// Run folder: log, checkpoints, pictures, report.html.
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Threads that read and decode images; half of --threads if not given.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
}

#[derive(Args)]
pub(crate) struct FinetuneArgs {
    /// What to begin with: a run folder, a checkpoint folder, a weights file, or `scratch`.
    #[arg(long, value_name = "RUN|FILE|scratch")]
    pub(crate) from: String,
    /// A built-in recipe (see `simmim recipes`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: String,
    /// Labelled training images: class sub-folders, .tar shards with .cls, or IDX files.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Labelled held-out images, of the same classes.
    #[arg(long, value_name = "DATA")]
    pub(crate) val: Option<String>,
    /// Run folder: log, checkpoints, best.safetensors, report.html.
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Threads that read and decode images; half of --threads if not given.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
}

/// Frozen features of labelled images.
#[derive(Args)]
pub(crate) struct FrozenArgs {
    /// A run folder, a checkpoint folder, a weights file, or `scratch` for an encoder that has learnt nothing.
    #[arg(long, value_name = "RUN|FILE|scratch")]
    pub(crate) from: String,
    /// Labelled images to learn from: class sub-folders, .tar shards with .cls, or IDX files.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Labelled images to guess, of the same classes.
    #[arg(long, value_name = "DATA")]
    pub(crate) val: String,
    /// The encoder's recipe, if the weights do not say.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<String>,
    /// Block whose output is taken, from 1 (the paper's probe of ViT takes 8); the encoder's own output if not given.
    #[arg(long, value_name = "BLOCK")]
    pub(crate) layer: Option<usize>,
    /// Folder to keep features in for the next time; `features` in the run folder if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Threads that read and decode images; half of --threads if not given.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
}

#[derive(Args)]
pub(crate) struct ProbeArgs {
    #[command(flatten)]
    pub(crate) frozen: FrozenArgs,
    /// Passes over the features.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epochs: u32,
    /// Learning rates to try, all in one pass; the best on --val is the result.
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub(crate) rates: Vec<f64>,
    /// Takes features as they are instead of bringing them to mean 0 and deviation 1.
    #[arg(long)]
    pub(crate) no_norm: bool,
}

#[derive(Args)]
pub(crate) struct KnnArgs {
    #[command(flatten)]
    pub(crate) frozen: FrozenArgs,
    /// Neighbours that vote.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) k: u32,
    /// A vote weighs exp(cosine / temperature).
    #[arg(long, value_name = "T", default_value_t = 0.07)]
    pub(crate) temperature: f64,
}

#[derive(Args)]
pub(crate) struct EvaluateArgs {
    /// A fine-tuned run (its last checkpoint), a checkpoint folder, or a file such as best.safetensors.
    #[arg(long, value_name = "RUN|FILE")]
    pub(crate) from: PathBuf,
    /// Labelled images of the classes that were learnt.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Threads that read and decode images; half of --threads if not given.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
}

#[derive(Args)]
pub(crate) struct ReconstructArgs {
    /// A run folder, a checkpoint folder or a weights file.
    #[arg(long, value_name = "RUN|FILE")]
    pub(crate) from: PathBuf,
    /// Folder for the pictures, one PNG per image.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What to hide: a strategy, or a picture of any size in which white is hidden; as in training
    /// if not given.
    #[arg(long, value_name = "random|square|blockwise|MASK.png")]
    pub(crate) mask: Option<String>,
    /// Hides the object in this rectangle, in pixels of the image.
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", conflicts_with = "mask", value_parser = pixel_box)]
    pub(crate) mask_box: Option<PixelBox>,
    /// Share of the rectangle's mask units to hide: most of the object instead of the whole.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "mask_box", value_parser = share)]
    pub(crate) mask_share: f64,
    /// Images to predict.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<PathBuf>,
}

/// `x,y,width,height` as a rectangle.
fn pixel_box(text: &str) -> Result<PixelBox, String> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([x, y, width, height]) if *width > 0 && *height > 0 => {
            Ok(PixelBox { x: *x, y: *y, width: *width, height: *height })
        }
        Some(_) | None => Err("expected x,y,width,height in whole pixels, for example 40,25,120,90".into()),
    }
}

/// A share above 0.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) | Err(_) => Err("expected a number above 0 and at most 1".into()),
    }
}

#[derive(Args)]
pub(crate) struct MasksArgs {
    /// Folder for masks.png, avg_dist.csv and masks.html.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The photograph to draw on; one inside the binary if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// The recipe whose image size and [mask] section count.
    #[arg(long, value_name = "NAME|FILE", default_value = "pretrain-vit-photos-192")]
    pub(crate) recipe: String,
}

#[derive(Args)]
pub(crate) struct PaletteArgs {
    /// Images whose colours count: a folder, .tar shards or IDX files.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// The file to write; a recipe names it as `target.palette`.
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) out: PathBuf,
    /// Colours to find; `target.clusters` of the recipe.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(2..))]
    pub(crate) colours: u16,
    /// Channels to decode the images to.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) channels: usize,
}

#[derive(Args)]
pub(crate) struct TokenizerArgs {
    /// Training images: a folder, .tar shards or IDX files; globs, {00..04} and a,b work.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Held-out images that reconstructions are shown and measured on; training images if not given.
    #[arg(long, value_name = "DATA")]
    pub(crate) val: Option<String>,
    /// Run folder: tokenizer.safetensors, log, checkpoints, pictures, report.html.
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// A built-in recipe of a tokenizer (see `simmim recipes`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "tokenizer-photos-96")]
    pub(crate) recipe: String,
    /// Threads that read and decode images; half of --threads if not given.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// A run folder, a weights file, a recipe or a data set.
    #[arg(value_name = "RUN|FILE|RECIPE|DATA")]
    pub(crate) what: String,
    /// Channels to decode a data set to.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) channels: usize,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// A built-in recipe for pre-training (see `simmim recipes`) or a TOML file; images are synthetic.
    #[arg(long, value_name = "NAME|FILE", default_value = "pretrain-vit-cifar")]
    pub(crate) recipe: String,
    /// Timed updates, whose median counts.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub(crate) steps: usize,
    /// Measures only the register peak.
    #[arg(long)]
    pub(crate) peak: bool,
    /// Times only forward passes, with no room for gradients: a model of billions fits.
    #[arg(long, conflicts_with_all = ["peak", "adamw"])]
    pub(crate) forward: bool,
    /// Times only AdamW over so many values, beside a copy of as many bytes.
    #[arg(long, value_name = "N", value_parser = at_least_one, num_args = 0..=1, default_missing_value = "86000000", conflicts_with = "peak")]
    pub(crate) adamw: Option<usize>,
}

/// A number of things, not 0.
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
