//! Features of a collection for `simmim search` and `simmim map`: computed, or as `simmim embed` wrote them.

use super::frozen::encoder;
use super::{open_data, warn_of_unreadable};
use crate::cli::{CollectionArgs, Common};
use crate::counting::Counting;
use crate::unused::ignored;
use simmim::Error;
use simmim::evaluation::{FeatureKind, FrozenEncoder};
use simmim::search::FeatureRows;
use simmim_data::{Decoding, Source, Subset};
use simmim_engine::Device;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Least cosine of an image's features with those in a file of the same model: what another precision changes is far less.
const SAME: f64 = 0.98;

/// Features, and what they are of.
pub(super) struct Collection<D: Device> {
    pub(super) rows: FeatureRows,
    /// The images, if they were given.
    pub(super) source: Option<Arc<dyn Source>>,
    /// The encoder, if it was given.
    pub(super) encoder: Option<FrozenEncoder<D>>,
    /// Number of images that cannot be read.
    pub(super) skipped: usize,
}

impl<D: Device> Collection<D> {
    /// The features that the arguments ask for; `None` if `stop` was set. `has_images` says whether features of other images
    /// are wanted.
    pub(super) fn open(
        common: &Common,
        args: &CollectionArgs,
        has_images: bool,
        device: &D,
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Self>> {
        if args.features.is_some() && args.from.is_some() && args.data.is_none() && !has_images {
            let hint =
                "with --features, it is for images of the command line, or to compare the first of --data".into();
            return Err(ignored("--from", "search` or `simmim map", hint).into());
        }
        let mut encoder = match &args.from {
            None => None,
            Some(from) => Some(encoder(common, from, args.recipe.as_deref(), None, device)?),
        };
        let decoding = encoder.as_ref().map_or(Decoding::from(3), FrozenEncoder::decoding);
        let source = args.data.as_deref().map(|data| open_data(common, data, decoding)).transpose()?;
        if let (Some(encoder), Some(source)) = (&mut encoder, &source) {
            simmim_data::check_readable(source.as_ref()).map_err(Error::from)?;
            encoder.measure(source.as_ref())?;
        }
        let (rows, skipped) = match &args.features {
            Some(path) => {
                let mut rows = FeatureRows::open(path)?;
                if let Some(source) = &source {
                    rows.find_in(source.as_ref())?;
                }
                if let (Some(encoder), Some(source)) = (&encoder, &source) {
                    check_same(&rows, encoder, source, args.kind())?;
                }
                (rows, 0)
            }
            None => {
                let (Some(encoder), Some(source)) = (&encoder, &source) else {
                    unreachable!("without --features, --from and --data are required")
                };
                let mut progress = Counting::new(common.quiet, source.len());
                let (kind, workers) = (args.kind(), args.workers.count(common));
                let collected = encoder.collect(source, kind, workers, stop, &mut |done| progress.on(done));
                progress.finish();
                let Some(collected) = collected? else { return Ok(None) };
                let skipped = warn_of_unreadable(&collected.skipped);
                (FeatureRows::of_source(collected, source.as_ref()), skipped)
            }
        };
        Ok(Some(Self { rows, source, encoder, skipped }))
    }
}

/// Checks that features in a file are those that an encoder computes, by the first of their images.
fn check_same<D: Device>(
    rows: &FeatureRows,
    encoder: &FrozenEncoder<D>,
    source: &Arc<dyn Source>,
    kind: FeatureKind,
) -> anyhow::Result<()> {
    let Some(first) = rows.sample(0) else { return Ok(()) };
    let one: Arc<dyn Source> = Arc::new(Subset::of(Arc::clone(source), vec![first]));
    let collected = encoder.collect(&one, kind, 0, &AtomicBool::new(false), &mut |_| ())?.expect("nothing stops it");
    let name = &rows.names().files[0];
    let what = if collected.width == rows.width() {
        let (here, there) = (&collected.values, rows.block(0..1)?);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = dot(here, &there) / (dot(here, here) * dot(&there, &there)).sqrt();
        if cosine >= SAME || cosine.is_nan() {
            return Ok(());
        }
        format!("the features of `{name}` in --features have the cosine {cosine:.4} with those that --from computes")
    } else {
        format!("a row of --features has {} features, and --from computes {}", rows.width(), collected.width)
    };
    let hint = Some("give the weights, --tokens, --block and images that `simmim embed` was given".into());
    Err(Error::Input { what, hint }.into())
}
