//! Refuses what a command would ignore: an option, or a key of `--set`, that it does not use.

use crate::cli::{Cli, Command};
use simmim::Error;

/// Commands that compute on a device.
const COMPUTING: &str =
    "demo, pretrain, finetune, probe, knn, embed, search, map, evaluate, reconstruct, tokenizer and bench";

/// Commands that compute on a device, or say what is known of it.
const KNOWING_THE_DEVICE: &str = "demo, pretrain, finetune, probe, knn, embed, search, map, evaluate, reconstruct, tokenizer, bench and `inspect RECIPE`";

/// Commands that draw something at random.
const DRAWING: &str = "demo, pretrain, finetune, probe, knn, embed, search, map, reconstruct, masks, palette, tokenizer, inspect with --html or --recipe, and bench without --peak, --adamw or --data";

/// Commands that make training steps.
#[cfg(feature = "libtorch")]
const TRAINING: &str = "demo, pretrain, finetune, tokenizer, and bench without --peak, --forward, --adamw or --data";

/// Where all keys of a recipe count.
const WHOLE_RECIPES: &str = "pretrain, finetune, tokenizer, demo, `inspect RECIPE` and `recipes NAME`";

/// What a command uses of the common options.
struct Uses {
    /// The command as it is called in errors.
    command: &'static str,
    /// `--device`.
    device: bool,
    /// `--threads`.
    threads: bool,
    precision: bool,
    seed: bool,
    keys: Keys,
}

/// The keys of `--set` that a command uses; one that ends in a dot stands for all that begin with it.
enum Keys {
    All,
    AllBut(&'static [&'static str]),
    Only(&'static [&'static str]),
}

impl Uses {
    fn of(command: &Command) -> Self {
        let training =
            |command| Self { command, device: true, threads: true, precision: true, seed: true, keys: Keys::All };
        let none = |command| Self {
            command,
            device: false,
            threads: false,
            precision: false,
            seed: false,
            keys: Keys::Only(&[]),
        };
        let frozen = |command| Self {
            keys: Keys::Only(&[
                "encoder.",
                "data.image_size",
                "data.channels",
                "data.normalization",
                "data.window",
                "evaluate.crop",
                "augment.interpolation",
            ]),
            ..training(command)
        };
        match command {
            Command::Demo(_) => training("demo"),
            Command::Pretrain(_) => training("pretrain"),
            Command::Finetune(_) => training("finetune"),
            Command::Tokenizer(_) => training("tokenizer"),
            Command::Probe(_) => frozen("probe"),
            Command::Knn(_) => frozen("knn"),
            Command::Embed(_) => frozen("embed"),
            Command::Search(_) => frozen("search"),
            Command::Map(_) => frozen("map"),
            Command::Evaluate(_) => Self {
                device: true,
                threads: true,
                precision: true,
                keys: Keys::Only(&["evaluate.", "augment.interpolation"]),
                ..none("evaluate")
            },
            Command::Reconstruct(_) => Self { keys: Keys::Only(&["mask."]), ..training("reconstruct") },
            Command::Masks(_) => Self {
                seed: true,
                // patch and stride are what the image and its mask units must fit
                keys: Keys::Only(&[
                    "data.image_size",
                    "mask.ratio",
                    "mask.unit_px",
                    "mask.min_block_units",
                    "mask.aspect",
                    "encoder.",
                ]),
                ..none("masks")
            },
            Command::Palette(_) => Self { seed: true, ..none("palette") },
            Command::Export(_) => none("export"),
            Command::Import(_) => {
                Self { keys: Keys::Only(&["encoder.", "data.image_size", "data.channels"]), ..none("import") }
            }
            Command::Inspect(args) if args.recipe.is_some() => Self {
                seed: true,
                keys: Keys::Only(&[
                    "data.channels",
                    "data.window",
                    "data.tile",
                    "data.tile_stride",
                    "data.tile_content",
                    "data.tiles_per_picture",
                ]),
                ..none("inspect --recipe")
            },
            // whether it is a recipe is known later
            Command::Inspect(args) => {
                Self { device: true, seed: args.html.is_some(), keys: Keys::All, ..none("inspect") }
            }
            Command::Bench(args) if args.peak => {
                Self { device: true, threads: true, precision: true, ..none("bench --peak") }
            }
            Command::Bench(args) if args.adamw.is_some() => {
                Self { device: true, threads: true, ..none("bench --adamw") }
            }
            Command::Bench(args) if args.data.is_some() => Self {
                threads: true,
                keys: Keys::Only(&[
                    "data.image_size",
                    "data.channels",
                    "data.crop_scale",
                    "data.crop_ratio",
                    "data.flip",
                    "data.normalization",
                    "data.window",
                    "data.tile",
                    "data.tile_stride",
                    "data.tile_content",
                    "data.tiles_per_picture",
                    "train.batch_size",
                ]),
                ..none("bench --data")
            },
            Command::Bench(_) => Self {
                keys: Keys::AllBut(&[
                    "monitor.",
                    "data.max_skipped",
                    "train.frozen_blocks",
                    "train.checkpoint_every_steps",
                    "train.keep_checkpoints",
                    "train.log_every_steps",
                    "train.validate_every_steps",
                ]),
                ..training("bench")
            },
            Command::Recipes(args) if args.name.is_some() => Self { keys: Keys::All, ..none("recipes NAME") },
            Command::Recipes(_) => none("recipes"),
        }
    }
}

/// Refuses options and edits that the command does not use.
///
/// # Errors
/// If there is one; the error says which commands use it.
pub(crate) fn refuse(cli: &Cli) -> simmim::Result<()> {
    let (common, uses) = (&cli.common, Uses::of(&cli.command));
    for (option, is_given, is_used, users) in [
        ("--device", common.device.is_some(), uses.device, KNOWING_THE_DEVICE),
        ("--threads", common.threads.is_some(), uses.threads, COMPUTING),
        ("--precision", common.precision.is_some(), uses.precision, COMPUTING),
        ("--seed", common.seed.is_some(), uses.seed, DRAWING),
    ] {
        if is_given && !is_used {
            return Err(ignored(option, uses.command, format!("it is an option of {users}")));
        }
    }
    #[cfg(feature = "libtorch")]
    for (option, is_given, is_used, users) in [
        ("--tf32", common.tf32, uses.precision, COMPUTING),
        ("--graphs", common.graphs, trains(&cli.command), TRAINING),
    ] {
        if is_given && !is_used {
            return Err(ignored(option, uses.command, format!("it is an option of {users}")));
        }
    }
    #[cfg(feature = "mpi")]
    refuse_of_ranks(cli, uses.command)?;
    for edit in &common.set {
        let key = edit.split('=').next().unwrap_or_default().trim();
        let is_among = |keys: &[&str]| keys.iter().any(|of| *of == key || (of.ends_with('.') && key.starts_with(of)));
        let hint = match uses.keys {
            Keys::All => continue,
            Keys::AllBut(keys) if !is_among(keys) => continue,
            Keys::Only(keys) if is_among(keys) => continue,
            Keys::Only([]) => "this command reads no recipe here".to_owned(),
            Keys::AllBut(keys) => format!("it uses all keys but {}", listed(keys)),
            Keys::Only(keys) => format!("it uses {}", listed(keys)),
        };
        let hint = format!("{hint}; all keys count in {WHOLE_RECIPES}");
        return Err(ignored(&format!("--set {edit}"), uses.command, hint));
    }
    Ok(())
}

/// Refuses options of ranks where a command does not use several, or does not train.
#[cfg(feature = "mpi")]
fn refuse_of_ranks(cli: &Cli, command: &str) -> simmim::Result<()> {
    let (common, training) = (&cli.common, "pretrain, finetune and tokenizer");
    let (ranks, trains) = (crate::ranks::uses_several(&cli.command), crate::ranks::trains(&cli.command));
    for (option, is_given, is_used, users) in [
        (
            "--rank-timeout",
            common.rank_timeout.is_some(),
            ranks,
            "pretrain, finetune, tokenizer, embed, evaluate and knn",
        ),
        ("--overlap", common.overlap.is_some(), trains, training),
        ("--rank-timeline", common.rank_timeline, trains, training),
    ] {
        if is_given && !is_used {
            return Err(ignored(option, command, format!("it is an option of {users}")));
        }
    }
    Ok(())
}

/// Whether a command makes training steps by a device's backend.
#[cfg(feature = "libtorch")]
fn trains(command: &Command) -> bool {
    match command {
        Command::Demo(_) | Command::Pretrain(_) | Command::Finetune(_) | Command::Tokenizer(_) => true,
        Command::Bench(args) => !args.peak && !args.forward && args.adamw.is_none() && args.data.is_none(),
        Command::Probe(_)
        | Command::Knn(_)
        | Command::Embed(_)
        | Command::Search(_)
        | Command::Map(_)
        | Command::Evaluate(_)
        | Command::Reconstruct(_)
        | Command::Masks(_)
        | Command::Palette(_)
        | Command::Export(_)
        | Command::Import(_)
        | Command::Inspect(_)
        | Command::Recipes(_) => false,
    }
}

/// Whether a command computes on a device, also if none is named.
#[cfg(feature = "libtorch")]
pub(crate) fn computes(command: &Command) -> bool {
    // to load images wants threads and no device
    Uses::of(command).threads && !matches!(command, Command::Bench(args) if args.data.is_some())
}

/// The error for an option that would change nothing.
pub(crate) fn ignored(option: &str, command: &str, hint: String) -> Error {
    Error::Input { what: format!("`{option}` changes nothing in `simmim {command}`"), hint: Some(hint) }
}

/// Refuses edits where a command finds out that it reads no recipe.
///
/// # Errors
/// If there is an edit.
pub(crate) fn refuse_edits(edits: &[String], command: &str) -> simmim::Result<()> {
    match edits.first() {
        None => Ok(()),
        Some(edit) => {
            let hint = format!("this command reads no recipe here; all keys count in {WHOLE_RECIPES}");
            Err(ignored(&format!("--set {edit}"), command, hint))
        }
    }
}

fn listed(keys: &[&str]) -> String {
    let named: Vec<String> =
        keys.iter().map(|key| if key.ends_with('.') { format!("`{key}…`") } else { format!("`{key}`") }).collect();
    named.join(", ")
}
