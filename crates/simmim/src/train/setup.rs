//! Set-up of a run before its first step: its folder is opened first, then everything else is derived from it.

use super::{Event, Options};
use crate::error::{Error, Result};
use crate::precision::{self, PrecisionChoice};
use crate::recipe::{RecipeKind, Shard};
use crate::run::held::{checksum, own_tokenizer};
use crate::run::{Collection, LockedFolder, Resolved, RunInfo, image_sample};
use crate::targets::Palette;
use crate::tokenizer::tokenizer_file;
use simmim_data::{Loader, Source, overlap};
use simmim_engine::{Activity, Collective, Device, Precision};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run that is set up but has not begun.
pub(super) struct Setup<R> {
    /// The locked folder, on the first rank.
    pub(super) folder: Option<LockedFolder>,
    pub(super) resolved: Resolved<R>,
    pub(super) data: Arc<dyn Source>,
    pub(super) precision: Precision,
    /// The file of the target's tokenizer, if there is one: in the folder of a run that has begun.
    pub(super) tokenizer: Option<PathBuf>,
    /// Length of the whole run in steps.
    pub(super) total: u64,
    /// Steps per epoch.
    pub(super) per_epoch: u64,
}

/// What a task adds to the [`RunInfo`] of a run.
#[derive(Default)]
pub(super) struct TaskInfo {
    /// Weights that the run starts from; none if they are initialized at random.
    pub(super) from: Option<String>,
    /// Names of the classes of a classifier.
    pub(super) classes: Vec<String>,
}

/// Opens the run folder and sets up a run of `options` on the images `data`. `palette` computes the color palette of
/// the target, if it has one; it is called only for a new run, or if the recipe names another palette than before.
///
/// # Errors
/// If the images do not fill a batch or cannot be read, or the folder cannot be used.
pub(super) fn open<R: RecipeKind>(
    options: &Options<R>,
    device: &impl Device,
    collective: &mut dyn Collective,
    data: Arc<dyn Source>,
    task_info: TaskInfo,
    palette: impl FnOnce() -> Result<Option<Palette>>,
    observe: &mut dyn FnMut(Event),
) -> Result<Setup<R>> {
    let train = options.recipe.train();
    let per_epoch = Loader::batches_per_epoch(data.len(), train.batch_size);
    check_batch(options, data.len(), per_epoch, collective.world())?;
    check_shard(train.shard, device, collective.world())?;
    // pre-training sees no labels
    let check = match task_info.classes.is_empty() {
        true => simmim_data::check_readable,
        false => simmim_data::check_classes_readable,
    };
    check(data.as_ref())?;
    options.val.as_ref().map_or(Ok(()), |val| check(val.source.as_ref()))?;
    let total = train.max_steps.unwrap_or((train.epochs * per_epoch as f64).round().max(1.0) as u64);

    // the first rank measures, and broadcasts the result to the others
    let (mut text, mut tokenizer) = (Vec::new(), Vec::new());
    let mut folder = None;
    if collective.is_first() {
        collective.announce(Activity::Alone(0)); // up to the first step, as it measures, restores and evaluates
        let locked = LockedFolder::open(&options.out)?;
        let previous = locked.previous::<R>()?;
        let (run, file) = run_info(options, device, data.as_ref(), task_info, previous.as_ref(), palette, observe)?;
        text = Resolved { recipe: options.recipe.clone(), run }.to_toml().into_bytes();
        tokenizer = file.map_or(Vec::new(), |file| file.into_os_string().into_encoded_bytes());
        folder = Some(locked);
    }
    collective.broadcast_bytes(&mut text, 0)?;
    collective.broadcast_bytes(&mut tokenizer, 0)?;
    let tokenizer = Some(String::from_utf8_lossy(&tokenizer).into_owned()).filter(|path| !path.is_empty());
    let text = String::from_utf8(text).expect("TOML is UTF-8");
    let resolved = Resolved::<R>::from_toml(&text, &options.out)?;
    let is_own_tokenizer = match (&tokenizer, &resolved.run.tokenizer) {
        (Some(file), Some(expected)) if !collective.is_first() => checksum(Path::new(file))? == *expected,
        (Some(_) | None, Some(_) | None) => true,
    };
    check_like_first_rank(options, &resolved, data.as_ref(), is_own_tokenizer, collective)?;
    let precision = precision::of_name(&resolved.run.precision).expect("a precision was written");
    Ok(Setup { folder, resolved, data, precision, tokenizer: tokenizer.map(PathBuf::from), total, per_epoch })
}

/// Checks that this rank was started with what the first rank was started with.
fn check_like_first_rank<R: RecipeKind>(
    options: &Options<R>,
    resolved: &Resolved<R>,
    data: &dyn Source,
    is_own_tokenizer: bool,
    collective: &mut dyn Collective,
) -> Result<()> {
    if collective.world() == 1 {
        return Ok(());
    }
    let own = image_sample::of_listing(data).to_le_bytes().to_vec();
    let mut listing = own.clone();
    collective.broadcast_bytes(&mut listing, 0)?;
    if collective.is_first() {
        return Ok(collective.barrier()?); // nothing is written before all ranks agree
    }
    let run = &resolved.run;
    let has_same_images = run.images == data.len() && run.data_sample.as_ref() == Some(&image_sample::of_source(data));
    let differences = [
        (resolved.recipe != options.recipe, "another recipe"),
        (run.seed != options.seed, "another seed"),
        (!is_own_tokenizer, "another tokenizer"),
        (!has_same_images, "other images"),
        (listing != own, "another listing of the images"),
    ];
    let Some((_, what)) = differences.iter().find(|(differs, _)| *differs) else {
        return Ok(collective.barrier()?);
    };
    Err(Error::Input {
        what: format!("this rank has {what} than the first rank"),
        hint: Some("start all ranks with the same command on the same data".into()),
    })
}

/// The [`RunInfo`] of a run, and the file of its target's tokenizer. A resumed run keeps what was measured and read when
/// it began.
fn run_info<R: RecipeKind>(
    options: &Options<R>,
    device: &impl Device,
    data: &dyn Source,
    task_info: TaskInfo,
    previous: Option<&Resolved<R>>,
    palette: impl FnOnce() -> Result<Option<Palette>>,
    observe: &mut dyn FnMut(Event),
) -> Result<(RunInfo, Option<PathBuf>)> {
    let normalization = match previous {
        Some(previous) => previous.run.normalization(),
        None => options.recipe.data().normalization_of(data)?,
    };
    let colors = || Ok::<_, Error>(palette()?.map_or(Vec::new(), |palette| palette.to_hex()));
    let palette = match previous {
        Some(previous) if is_named_anew(options.recipe.palette(), previous.recipe.palette()) => colors()?,
        Some(previous) => previous.run.palette.clone(),
        None => {
            options.recipe.check_files()?;
            colors()?
        }
    };
    let tokenizer = tokenizer(options, previous, observe)?;
    let previous_precision = previous.and_then(|previous| {
        Some((precision::of_name(&previous.run.precision)?, previous.run.precision_reason.clone()))
    });
    let (precision, precision_reason) = match (options.precision, previous_precision) {
        (PrecisionChoice::Auto, Some(begun)) => begun,
        (PrecisionChoice::Auto, None) | (PrecisionChoice::F32 | PrecisionChoice::Bf16, _) => {
            precision::choose(options.precision, device)
        }
    };
    if let Some(previous) = previous.filter(|previous| !is_same_place(&previous.run.from, &task_info.from)) {
        observe(Event::OtherStart { then: previous.run.from.as_deref(), now: task_info.from.as_deref() });
    }
    if let Some(overlap) = options.val.as_ref().and_then(|val| overlap(data, val.source.as_ref())) {
        observe(Event::Overlapping { collections: [Collection::HeldOut, Collection::Training], overlap: &overlap });
    }
    let val_sample = options.val.as_ref().map(|val| image_sample::of_source(val.source.as_ref()));
    let run = RunInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        device: device.name(),
        precision: precision::name(precision).into(),
        precision_reason,
        threads: device.threads(),
        seed: options.seed,
        data: options.data.description.clone(),
        images: data.len(),
        data_sample: Some(image_sample::of_source(data)),
        val: options.val.as_ref().map(|val| val.description.clone()),
        val_sample,
        from: previous.map_or(task_info.from, |previous| previous.run.from.clone()),
        classes: task_info.classes,
        mean: normalization.mean,
        std: normalization.std,
        palette,
        tokenizer: tokenizer.as_deref().map(checksum).transpose()?,
    };
    if let Some(previous) = previous {
        say_other_images(&previous.run, &run, observe);
    }
    Ok((run, tokenizer))
}

/// Whether two paths lead to the same place, or there are none.
fn is_same_place(one: &Option<String>, other: &Option<String>) -> bool {
    let real = |path: &Option<String>| Path::new(path.as_deref()?).canonicalize().ok();
    one == other || real(one).is_some_and(|place| Some(place) == real(other))
}

/// Reports the collections whose images are not those that the run began with. Where that version kept no checksum, their
/// names are compared.
fn say_other_images(then: &RunInfo, now: &RunInfo, observe: &mut dyn FnMut(Event)) {
    let mut compare = |collection, names: [&str; 2], samples: [&Option<String>; 2]| {
        let [then, now] = names;
        let differs = match samples {
            [Some(then), Some(now)] => then != now,
            [None, _] | [_, None] => then != now,
        };
        if differs {
            observe(Event::OtherImages { collection, then, now });
        }
    };
    compare(Collection::Training, [&then.data, &now.data], [&then.data_sample, &now.data_sample]);
    if let (Some(then_val), Some(now_val)) = (&then.val, &now.val) {
        compare(Collection::HeldOut, [then_val, now_val], [&then.val_sample, &now.val_sample]);
    }
}

/// Whether a recipe names another file than that of the run which it resumes, and this file is there. It then counts as
/// what was asked for, and its content is compared.
fn is_named_anew(now: Option<&str>, then: Option<&str>) -> bool {
    now != then && now.is_some_and(|path| Path::new(path).exists())
}

/// The file of the target's tokenizer, if there is one. A resumed run has its own, and goes on with it if the original is
/// gone or has changed.
fn tokenizer<R: RecipeKind>(
    options: &Options<R>,
    previous: Option<&Resolved<R>>,
    observe: &mut dyn FnMut(Event),
) -> Result<Option<PathBuf>> {
    let Some(named) = options.recipe.tokenizer() else { return Ok(None) };
    let file = tokenizer_file(Path::new(named));
    let begun = previous.and_then(|previous| Some((previous, previous.run.tokenizer.as_deref()?)));
    let Some((previous, expected)) = begun else { return Ok(Some(file)) };
    let Some(own) = own_tokenizer(&options.out, expected)? else { return Ok(Some(file)) };
    let is_another = file.is_file() && checksum(&file)? != expected;
    match is_another && is_named_anew(Some(named), previous.recipe.tokenizer()) {
        true => Ok(Some(file)),
        false => {
            if is_another {
                observe(Event::KeptTokenizer { original: named });
            }
            Ok(Some(own))
        }
    }
}

/// Checks that the device can divide the training state, if the recipe wants it.
fn check_shard(shard: Shard, device: &impl Device, world: usize) -> Result<()> {
    if shard == Shard::None || world == 1 || device.divides_state() {
        return Ok(());
    }
    Err(Error::Recipe {
        key: "train.shard".into(),
        value: format!("{shard:?}").to_lowercase(),
        expected: format!("on `{}` every rank keeps the whole training state", device.name()),
        hint: Some("--set train.shard=none".into()),
    })
}

/// Checks that the images fill a batch, and that ranks and micro-batches divide it evenly.
fn check_batch<R: RecipeKind>(options: &Options<R>, images: usize, per_epoch: u64, world: usize) -> Result<()> {
    let train = options.recipe.train();
    if per_epoch == 0 {
        return Err(Error::Recipe {
            key: "train.batch_size".into(),
            value: train.batch_size.to_string(),
            expected: format!("`{}` has only {images} images", options.data.description),
            hint: Some(format!("--set train.batch_size={} uses all of them at every step", images.max(1))),
        });
    }
    let micro_batches = world * train.accumulation_steps;
    if !train.batch_size.is_multiple_of(micro_batches) {
        return Err(Error::Recipe {
            key: "train.batch_size".into(),
            value: train.batch_size.to_string(),
            expected: format!("expected a multiple of {world} ranks × {} micro-batches", train.accumulation_steps),
            hint: Some(format!("--set train.batch_size={}", train.batch_size.next_multiple_of(micro_batches))),
        });
    }
    Ok(())
}
