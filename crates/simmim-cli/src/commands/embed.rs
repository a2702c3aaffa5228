//! `simmim embed`.

use super::frozen::encoder;
use super::{open_data, print_result, warn_of_unreadable};
use crate::cli::{Common, EmbedArgs};
use crate::counting::Counting;
use crate::exit::Exit;
use crate::interrupt;
use serde_json::json;
use simmim::Error;
use simmim::evaluation::{Embedded, Embedding, EmbeddingEvent, FeatureKind, embed_on_ranks};
use simmim_engine::{Collective, Device};

pub(crate) fn run(
    common: &Common,
    args: &EmbedArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Exit> {
    let mut encoder = encoder(common, &args.from, args.recipe.as_deref(), args.channels.map(Into::into), device)?;
    let source = open_data(common, &args.data, encoder.decoding())?;
    simmim_data::check_readable(source.as_ref()).map_err(Error::from)?;
    encoder.measure(source.as_ref())?;
    let stop = interrupt::flag("interrupted: stopping after this batch (press Ctrl-C again to stop at once)")?;
    let kind = FeatureKind { tokens: args.features.into(), block: args.block };
    let embedding = Embedding { kind, out: &args.out, workers: args.workers.count(common), stop: &stop };
    let total = source.len();
    let mut progress = Counting::new(common.quiet, total);
    let is_first = ranks.is_first();
    let embedded = embed_on_ranks(&encoder, &source, &embedding, ranks, &mut |event| match event {
        EmbeddingEvent::Progress { done } => progress.on(done),
        EmbeddingEvent::Resumed { done } => {
            progress.begin_at(done);
            if !common.quiet {
                crate::terminal::line(&format!("going on behind {done} of {total} images"));
            }
        }
        EmbeddingEvent::BeganAnew { why } => {
            crate::terminal::line(&format!("warning: {why}; all features are computed again"));
        }
    });
    progress.finish();
    let embedded = match embedded? {
        // the first rank says what was done
        Embedded::Whole(_) if !is_first => return Ok(Exit::Done),
        Embedded::Stopped { .. } if !is_first => return Ok(Exit::Interrupted),
        Embedded::Whole(files) => files,
        Embedded::Stopped { done } => {
            crate::terminal::line(&format!("features of {done} of {total} images are kept; the same command goes on"));
            return Ok(Exit::Interrupted);
        }
    };
    let skipped = warn_of_unreadable(&embedded.unreadable);
    let json = json!({
        "images": embedded.images,
        "shape": embedded.shape,
        "files": embedded.files,
        "skipped_images": skipped,
    });
    let shape: Vec<String> = embedded.shape.iter().map(usize::to_string).collect();
    let files: String = embedded.files.iter().map(|file| format!("\nwrote {}", file.display())).collect();
    let prose = format!("{} features of {} images{files}", shape.join(" × "), embedded.images);
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
