//! `simmim inspect`.

use super::bench::{describe_device, device_json};
use super::inspect_data::describe_data;
use super::print_result;
use crate::cli::{Common, InspectArgs};
use crate::exit::Exit;
use crate::terminal::escaped;
use crate::unused::{ignored, refuse_edits};
use serde_json::{Map, Value, json};
use simmim::inspect;
use simmim::inspect::{HeadSummary, ModelSummary};
use simmim::precision;
use simmim::recipe::{self, AnyRecipe, BUILT_IN, Recipe, Shard};
use simmim::run::checkpoint;
use simmim::run::{located, read_any_resolved, read_log};
use simmim::weights::WeightsFile;
use simmim_engine::{Accelerator, Device, Precision};
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
    if !is_recipe && args.recipe.is_none() {
        refuse_edits(&common.set, "inspect")?;
    }
    let is_weights = ["safetensors", "pth", "pt", "bin"].into_iter().any(has_extension);
    let is_data = !is_recipe && !is_run && !is_weights && !is_checkpoint;
    if !is_data {
        refuse_data_options(args)?;
    }
    if common.device.is_some() && !is_recipe {
        return Err(ignored("--device", "inspect", "it is for recipes, whose memory a device may have".into()).into());
    }
    let (prose, json) = if is_recipe {
        describe_recipe(common, &args.what, device)?
    } else if is_run {
        describe_run(path, device)?
    } else if is_weights {
        describe_weights(path)?
    } else if is_checkpoint {
        describe_weights(&path.join(checkpoint::MODEL_FILE))?
    } else {
        describe_data(common, args)?
    };
    print_result(common.json, prose.trim_end(), &json)?;
    Ok(Exit::Done)
}

/// Refuses options that only count for a data set.
///
/// # Errors
/// If there is one.
fn refuse_data_options(args: &InspectArgs) -> simmim::Result<()> {
    let channels = args.channels.map(|channels| format!("--channels {channels}"));
    let html = args.html.as_ref().map(|path| format!("--html {}", path.display()));
    let workers = args.workers.map(|workers| format!("--workers {workers}"));
    let recipe = args.recipe.as_ref().map(|recipe| format!("--recipe {recipe}"));
    match channels.or(html).or(workers).or(recipe) {
        Some(option) => Err(ignored(&option, "inspect", "it is for data sets, whose images are decoded".into())),
        None => Ok(()),
    }
}

/// Number of classes that is assumed for a classifier if only its recipe is known: that of ImageNet-1K.
const IMAGENET_CLASSES: usize = 1000;

/// Number of ranks that the memory of a divided training state is shown for.
const RANKS: usize = 8;

fn describe_recipe(common: &Common, name: &str, device: &impl Device) -> anyhow::Result<(String, Value)> {
    let recipe = recipe::resolve_any(name, &common.set)?;
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
    let train = recipe.train();
    let state = |shard, world| inspect::state_mb(model.parameters, train, shard, world);
    let state_mb = [state(Shard::None, 1), state(Shard::Optimizer, RANKS), state(Shard::Gradients, RANKS)];
    let memory = format!(
        "{memory}\
         MB of the state     {:>12.1}  (parameters, gradients, moments{}; on each of {RANKS} ranks {:.1} with train.shard=optimizer, {:.1} with gradients)\n",
        state_mb[0],
        if train.average_decay > 0.0 { ", average" } else { "" },
        state_mb[1],
        state_mb[2]
    );
    let of_device = common.device.is_some().then(|| OfDevice::new(device, &model));
    let device_rows = of_device.as_ref().map_or(String::new(), OfDevice::rows);
    let prose = format!(
        "{name}\n\n\
         parameters          {:>12}  ({:.2} M)\n\
         of the encoder      {:>12}\n\
         GFLOP per image     {:>12.3}  (forward pass; a multiply-add counts as two)\n\
         {memory}{device_rows}\
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
    let mut json = json!({
        "parameters": model.parameters,
        "encoder_parameters": model.encoder_parameters,
        "gflops_per_image": model.gflops_per_image,
        "activation_mb_per_image": model.activation_mb_per_image.map(|[f32, bf16]| json!({ "f32": f32, "bf16": bf16 })),
        "state_mb": json!({ "alone": state_mb[0], "on_ranks": RANKS, "optimizer": state_mb[1], "gradients": state_mb[2] }),
        "heads": heads.iter().map(head_json).collect::<Vec<_>>(),
        "recipe": recipe,
    });
    if let (Value::Object(fields), Some(of_device)) = (&mut json, &of_device) {
        fields.extend(of_device.json());
    }
    Ok((prose, json))
}

/// What a device has for a model.
struct OfDevice {
    name: String,
    accelerator: Option<Accelerator>,
    precision: Precision,
    /// How many images of a training step its memory may hold at a time.
    images: Option<u64>,
}

impl OfDevice {
    fn new(device: &impl Device, model: &ModelSummary) -> Self {
        let (accelerator, (precision, _)) = (device.accelerator(), device.fastest_precision());
        let memory = accelerator.as_ref().and_then(|accelerator| accelerator.memory_bytes);
        let per_image = model.activation_mb_per_image.map(|[f32, bf16]| match precision {
            Precision::F32 => f32,
            Precision::Bf16 => bf16,
        });
        let images = memory.zip(per_image).map(|(memory, mb)| {
            // each parameter has a gradient and two moments
            let left = memory.saturating_sub(16 * model.parameters as u64);
            (left as f64 / (mb * f64::from(1 << 20))) as u64
        });
        Self { name: device.name(), accelerator, precision, images }
    }

    fn rows(&self) -> String {
        let precision = precision::name(self.precision);
        let images = self.images.map_or(String::new(), |images| {
            format!("images on it        {images:>12}  (of a training step in {precision}; an estimate)\n")
        });
        format!("{}\n{images}", describe_device(&self.name, self.accelerator.as_ref()))
    }

    fn json(&self) -> Map<String, Value> {
        let mut fields = device_json(&self.name, self.accelerator.as_ref());
        fields.insert("device_images".into(), json!(self.images));
        fields
    }
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
    let notes: String = file.notes().iter().map(|note| format!("{}\n", escaped(note))).collect();
    let prose = format!("{} tensors ({}), {values} values\n{notes}\n{rows}", shapes.len(), of_dtypes.join(", "));
    let json = json!({ "parameters": values, "dtypes": dtypes, "tensors": tensors, "notes": file.notes() });
    Ok((prose, json))
}
