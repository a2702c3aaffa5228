//! Frozen features for `simmim probe` and `simmim knn`, and their encoder for `simmim embed`.

use super::{init_from, open_data, overlap_warning, warn_of_damaged, warn_of_unreadable};
use crate::cli::{Common, FrozenArgs};
use simmim::evaluation::{Extraction, Features, FrozenEncoder};
use simmim::evaluation::{checked_classes, relabeled};
use simmim::recipe::LabelsPerImage;
use simmim::run::Collection;
use simmim::weights::ChannelRule;
use simmim::{Error, precision, recipe};
use simmim_data::{Source, without_secrets};
use simmim_engine::{Collective, Device};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of images between two lines of progress.
const LINE_EVERY: usize = 6400;

/// Features of training and validation images.
pub(super) struct Frozen {
    pub(super) train: Features,
    pub(super) val: Features,
    pub(super) classes: usize,
    /// Number of images that cannot be read.
    pub(super) skipped: usize,
}

/// The encoder of `--from`; what was adapted or is missing is said.
pub(super) fn encoder<D: Device>(
    common: &Common,
    from: &str,
    recipe: Option<&str>,
    channels: Option<ChannelRule>,
    device: &D,
) -> anyhow::Result<FrozenEncoder<D>> {
    let init_from = init_from(from, channels);
    let recipe = recipe.map(|name| recipe::resolve_any(name, &common.set)).transpose()?;
    let (precision, _) = precision::choose(common.precision(), device);
    let encoder = FrozenEncoder::load(&init_from, recipe, &common.set, device, precision, common.seed())?;
    warn_of_damaged(encoder.damaged());
    if let Some(tile) = encoder.tile() {
        crate::terminal::line(&format!(
            "warning: the recipe cuts pictures into tiles of {tile} px, and features are of whole pictures here"
        ));
    }
    if let Some(transfer) = encoder.transfer().filter(|report| {
        !(common.quiet
            || report.import.is_none()
                && report.initialized.is_empty()
                && report.resized.is_empty()
                && report.notes.is_empty())
    }) {
        transfer.lines().iter().for_each(|line| crate::terminal::line(line));
    }
    Ok(encoder)
}

pub(super) fn features(
    common: &Common,
    args: &FrozenArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Frozen> {
    let mut encoder = encoder(common, &args.from, args.recipe.as_deref(), args.channels.map(Into::into), device)?;
    let open = |spec: &str| open_data(common, spec, encoder.decoding());
    let (train, val) = (open(&args.data)?, open(&args.val)?);
    let (train_name, val_name) = (without_secrets(&args.data), without_secrets(&args.val));
    let classes = checked_classes(train.as_ref(), &train_name, LabelsPerImage::One)?;
    let val = relabeled(val, &val_name, &classes, LabelsPerImage::One)?;
    for source in [&train, &val] {
        simmim_data::check_classes_readable(source.as_ref()).map_err(Error::from)?;
    }
    encoder.measure(train.as_ref())?;
    if let Some(overlap) = simmim_data::overlap(train.as_ref(), val.as_ref()) {
        crate::terminal::line(&overlap_warning([Collection::HeldOut, Collection::Training], &overlap));
    }
    let cache = args.cache.clone().or_else(|| cache_of(Path::new(&args.from)));
    let extraction = Extraction { block: args.layer, cache: cache.as_deref(), workers: args.workers.count(common) };
    let mut of = |source: Arc<dyn Source>, what: &str| -> anyhow::Result<Features> {
        let all = source.len();
        let mut progress = |done: usize| {
            if !common.quiet && done.is_multiple_of(LINE_EVERY) {
                crate::terminal::line(&format!("{what}: features of {done} of {all} images"));
            }
        };
        let features = encoder.features_on_ranks(source, &extraction, ranks, &mut progress)?;
        if let Some(reason) = &features.not_cached {
            crate::terminal::line(&format!(
                "warning: the features of `{what}` are not kept for the next time: {reason}"
            ));
        }
        Ok(features)
    };
    let (train, val) = (of(train, &train_name)?, of(val, &val_name)?);
    let skipped = warn_of_unreadable(train.skipped.iter().chain(&val.skipped));
    Ok(Frozen { train, val, classes: classes.len(), skipped })
}

/// The cache folder of a run. Weights that are not in a run folder have no default cache.
fn cache_of(from: &Path) -> Option<PathBuf> {
    from.join("resolved.toml").is_file().then(|| from.join("features"))
}
