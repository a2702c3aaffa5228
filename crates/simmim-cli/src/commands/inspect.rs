//! `simmim inspect`.

use super::print_result;
use crate::cli::{Common, InspectArgs};
use crate::exit::Exit;
use crate::terminal::escaped;
use crate::unused::{ignored, refuse_edits};
use serde_json::{Value, json};
use simmim::inspect;
use simmim::inspect::HeadSummary;
use simmim::recipe::{self, AnyRecipe, BUILT_IN, Recipe};
use simmim::run::checkpoint;
use simmim::run::{located, read_any_resolved, read_log};
use simmim::weights::WeightsFile;
use simmim_data::{PassedOverGroup, PassedOverReason};
use simmim_engine::Device;
use std::path::Path;

pub(crate) fn run(common: &Common, args: &InspectArgs, device: &impl Device) -> anyhow::Result<Exit> {
    let path = Path::new(&args.what);
    let has_extension = |e: &str| path.extension().is_some_and(|found| found == e);
    let (is_run, is_checkpoint) = (path.join("resolved.toml").is_file(), path.join(checkpoint::MODEL_FILE).is_file());
    let is_misspelled = || !path.exists() && recipe::nearest_built_in(&args.what).is_some();
    // images are never read from a stream
    let is_stream = ["/dev", "/proc/self/fd"].iter().any(|streams| path.starts_with(streams)) && !path.is_dir();
    let is_recipe =
        BUILT_IN.iter().any(|r| r.name == args.what) || has_extension("toml") || is_stream || is_misspelled();
    if !is_recipe {
        refuse_edits(&common.set, "inspect")?;
    }
    let is_data = !is_recipe && !is_run && !has_extension("safetensors") && !is_checkpoint;
    if let Some(channels) = args.channels.filter(|_| !is_data) {
        let hint = "it is for data sets, whose images are decoded to this number of channels".into();
        return Err(ignored(&format!("--channels {channels}"), "inspect", hint).into());
    }
    let (prose, json) = if is_recipe {
        describe_recipe(&args.what, &common.set, device)?
    } else if is_run {
        describe_run(path, device)?
    } else if has_extension("safetensors") {
        describe_weights(path)?
    } else if is_checkpoint {
        describe_weights(&path.join(checkpoint::MODEL_FILE))?
    } else {
        describe_data(&args.what, args.channels.unwrap_or(CHANNELS), common.quiet)?
    };
    print_result(common.json, prose.trim_end(), &json)?;
    Ok(Exit::Done)
}

/// Channels that a data set is decoded to if nothing else is said.
const CHANNELS: usize = 3;

/// Number of classes that is assumed for a classifier if only its recipe is known: that of ImageNet-1K.
const IMAGENET_CLASSES: usize = 1000;

fn describe_recipe(name: &str, edits: &[String], device: &impl Device) -> anyhow::Result<(String, Value)> {
    let recipe = recipe::resolve_any(name, edits)?;
    let model = inspect::any_model(&recipe, IMAGENET_CLASSES, device)?;
    let (height, width) = model.spec.image_px;
    let rows = model.shapes.iter().map(|(name, shape)| format!("  {name:60} {shape:?}\n"));
    let heads = match &recipe {
        AnyRecipe::Pretrain(recipe) => inspect::heads(recipe, device)?,
        AnyRecipe::Finetune(_) | AnyRecipe::Tokenizer(_) => Vec::new(),
    };
    let memory = model.activation_mb_per_image.map_or(String::new(), |[f32, bf16]| {
        format!(
            "MB per image        {f32:>12.1}  (activations of a training step in f32; {bf16:.1} in bf16; an estimate)\n"
        )
    });
    let prose = format!(
        "{name}\n\n\
         parameters          {:>12}  ({:.2} M)\n\
         of the encoder      {:>12}\n\
         GFLOP per image     {:>12.3}  (forward pass; a multiply-add counts as two)\n\
         {memory}\
         input               {height} × {width} × {}\n{}\n{}",
        model.parameters,
        model.parameters as f64 / 1e6,
        model.encoder_parameters,
        model.gflops_per_image,
        model.spec.channels,
        match &recipe {
            AnyRecipe::Pretrain(recipe) => format!(
                "mask                {:?}, unit {} px, ratio {}\n\n{}",
                recipe.mask.strategy,
                recipe.mask.unit_px,
                recipe.mask.ratio,
                head_rows(recipe, &heads)
            ),
            AnyRecipe::Tokenizer(recipe) =>
                format!("tokens              {} of {} px\n", recipe.tokenizer.vocabulary, model.spec.stride_px),
            AnyRecipe::Finetune(_) => format!("classes             {IMAGENET_CLASSES} assumed\n"),
        },
        rows.collect::<String>()
    );
    let json = json!({
        "parameters": model.parameters,
        "encoder_parameters": model.encoder_parameters,
        "gflops_per_image": model.gflops_per_image,
        "activation_mb_per_image": model.activation_mb_per_image.map(|[f32, bf16]| json!({ "f32": f32, "bf16": bf16 })),
        "heads": heads.iter().map(head_json).collect::<Vec<_>>(),
        "recipe": recipe,
    });
    Ok((prose, json))
}

/// A table of all heads.
fn head_rows(recipe: &Recipe, heads: &[HeadSummary]) -> String {
    let row = |h: &HeadSummary| {
        let chosen = if h.kind == recipe.head.kind { "  (this one)" } else { "" };
        format!("  {:16} {:>14} {:>12.2}{chosen}\n", h.kind.name(), h.parameters, h.step_cost)
    };
    let rows: String = heads.iter().map(row).collect();
    format!("head                 parameters  FLOPs relative to a linear head\n{rows}")
}

fn head_json(head: &HeadSummary) -> Value {
    json!({ "kind": head.kind, "parameters": head.parameters, "step_cost": head.step_cost })
}

fn describe_run(path: &Path, device: &impl Device) -> anyhow::Result<(String, Value)> {
    let (recipe, run) = read_any_resolved(path)?;
    let recipe = located(path, recipe, &run)?;
    let model = inspect::any_model(&recipe, run.classes.len(), device)?;
    let log = read_log(path)?;
    let last = |key: &str| log.iter().rev().find_map(|entry| entry.get(key).cloned()).unwrap_or(Value::Null);
    let checkpoints: Vec<u64> = checkpoint::list(path)?.into_iter().map(|(steps, _)| steps).collect();
    let prose = format!(
        "run of simmim {}, {} on {}, {} threads, seed {}\n\
         data                {} ({} images)\n\
         parameters          {}\n\
         last step logged    {}\n\
         loss                {}\n\
         held-out loss       {}\n\
         checkpoints         {checkpoints:?}",
        run.version,
        run.precision,
        run.device,
        run.threads,
        run.seed,
        run.data,
        run.images,
        model.parameters,
        last("step"),
        last("loss"),
        last("val_loss"),
    );
    let json = json!({
        "parameters": model.parameters,
        "steps": last("step"),
        "loss": last("loss"),
        "val_loss": last("val_loss"),
        "checkpoints": checkpoints,
        "run": run,
    });
    Ok((prose, json))
}

fn describe_weights(path: &Path) -> anyhow::Result<(String, Value)> {
    let file = WeightsFile::read(path)?;
    file.check_finite()?;
    let (shapes, dtypes) = (file.shapes(), file.dtypes());
    let values: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let rows: String = shapes.iter().map(|(name, shape)| format!("  {name:60} {shape:?}\n")).collect();
    let tensors: serde_json::Map<String, Value> =
        shapes.iter().map(|(name, shape)| (name.clone(), json!(shape))).collect();
    let of_dtypes: Vec<String> = dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    let prose = format!("{} tensors ({}), {values} values\n\n{rows}", shapes.len(), of_dtypes.join(", "));
    Ok((prose, json!({ "parameters": values, "dtypes": dtypes, "tensors": tensors })))
}

fn describe_data(spec: &str, channels: usize, is_quiet: bool) -> anyhow::Result<(String, Value)> {
    let source = simmim_data::open(spec, channels).map_err(simmim::Error::from)?;
    let every = (source.len() / 20).max(1000);
    let progress = |done: usize| {
        if !is_quiet && done > 0 && done.is_multiple_of(every) {
            crate::terminal::line(&format!("{done} of {} images", source.len()));
        }
    };
    let scan = simmim_data::scan(source.as_ref(), &progress);
    let not_read = match scan.passed_over.count() {
        0 => String::new(),
        1 => ", 1 other not read".into(),
        count => format!(", {count} others not read"),
    };
    let mut prose = format!("{} images, {} unreadable{not_read}\n", scan.count, scan.unreadable.len());
    if let Some(s) = &scan.sizes {
        prose += &format!(
            "sizes               {}–{} × {}–{} px, read as {} channels\n",
            s.min_height, s.max_height, s.min_width, s.max_width, s.channels
        );
    }
    if !scan.classes.is_empty() {
        prose += &format!("classes             {}\n", scan.classes.len());
        prose +=
            &scan.classes.iter().map(|(name, count)| format!("  {count:>8}  {}\n", escaped(name))).collect::<String>();
    }
    prose += &scan
        .unreadable
        .iter()
        .map(|s| format!("  unreadable: {}: {}\n", escaped(&s.name), escaped(&s.reason)))
        .collect::<String>();
    let unreadable: Vec<Value> =
        scan.unreadable.iter().map(|s| json!({ "name": s.name, "reason": s.reason })).collect();
    let groups = scan.passed_over.groups();
    prose += &groups
        .iter()
        .map(|group| format!("  not read: {}\n", escaped(&group.advice(group.first.len()))))
        .collect::<String>();
    let passed_over: Vec<String> = groups.iter().flat_map(PassedOverGroup::sentences).collect();
    let by_reason: Vec<Value> = groups.iter().map(group_json).collect();
    let classes: serde_json::Map<String, Value> = scan.classes.iter().map(|(n, c)| (n.clone(), json!(c))).collect();
    Ok((
        prose,
        json!({
            "images": scan.count,
            "classes": classes,
            "unreadable": unreadable,
            "passed_over": passed_over,
            "not_read": by_reason,
        }),
    ))
}

/// What is not read for one reason; `extension` is there if that is the reason.
fn group_json(group: &PassedOverGroup) -> Value {
    let mut json = json!({
        "reason": group.reason.key(),
        "count": group.count,
        "first": group.first,
        "what": group.advice(group.first.len()),
    });
    if let PassedOverReason::Extension(extension) = &group.reason {
        json["extension"] = json!(extension);
    }
    json
}
