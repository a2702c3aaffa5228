//! `simmim bench`.

use super::print_result;
use crate::cli::{BenchArgs, Common};
use crate::exit::Exit;
use serde_json::{Map, Value, json};
use simmim::bench::{
    AdamWSpeed, Direction, Measured, Options, ProductPeak, Times, adamw, loader_images_per_second, loader_speed,
    measure, measure_forward,
};
use simmim::precision;
use simmim::recipe;
use simmim::train::Phase;
use simmim_engine::{Accelerator, Device};

pub(crate) fn run(common: &Common, args: &BenchArgs, device: &impl Device) -> anyhow::Result<Exit> {
    let threads = common.threads();
    let (mut prose, mut json) = if args.peak {
        let (precision, _) = precision::choose(common.precision(), device);
        let peak = device.product_peak(precision);
        (describe_peak(&peak, threads), peak_json(&peak))
    } else if let Some(parameters) = args.adamw {
        describe_adamw(&adamw(parameters, device)?)
    } else if let Some(data) = &args.data {
        describe_loader(common, args, data)?
    } else if args.forward {
        describe_forward(common, args, device)?
    } else {
        describe_recipe(common, args, device)?
    };
    if args.data.is_none() {
        let accelerator = device.accelerator();
        if let Some(accelerator) = &accelerator {
            prose = format!("{}\n\n{}\n", prose.trim_end(), describe_device(&device.name(), Some(accelerator)));
        }
        json.extend(device_json(&device.name(), accelerator.as_ref()));
    }
    print_result(common.json, prose.trim_end(), &Value::Object(json))?;
    Ok(Exit::Done)
}

/// The line of a device: its name, its model and its memory, where they are known.
pub(super) fn describe_device(name: &str, accelerator: Option<&Accelerator>) -> String {
    let memory =
        |what: &str, bytes: Option<u64>| bytes.map_or(String::new(), |b| format!(", {:.0} MB {what}", in_mb(b)));
    let known = accelerator.map_or(String::new(), |accelerator| {
        format!(
            "{}{}{}",
            accelerator.model.as_ref().map_or(String::new(), |model| format!(", {model}")),
            memory("of memory", accelerator.memory_bytes),
            memory("used at most", accelerator.most_used_bytes.filter(|bytes| *bytes > 0))
        )
    });
    format!("device              {name}{known}")
}

/// The same as fields.
pub(super) fn device_json(name: &str, accelerator: Option<&Accelerator>) -> Map<String, Value> {
    let mut fields = Map::from_iter([("device".to_owned(), json!(name))]);
    if let Some(accelerator) = accelerator {
        fields.insert("device_model".into(), json!(accelerator.model));
        fields.insert("device_memory_mb".into(), json!(accelerator.memory_bytes.map(in_mb)));
        fields.insert("device_most_used_mb".into(), json!(accelerator.most_used_bytes.map(in_mb)));
    }
    fields
}

/// In units of 2²⁰ bytes.
fn in_mb(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 20) as f64
}

fn describe_loader(common: &Common, args: &BenchArgs, data: &str) -> anyhow::Result<(String, Map<String, Value>)> {
    let (recipe, threads) = (recipe::resolve(&args.recipe, &common.set)?, common.threads());
    let source = simmim_data::open(data, recipe.data.decoding()).map_err(simmim::Error::from)?;
    let source = recipe.data.tiled(source, common.seed(), threads)?;
    let (height, width) = recipe.data.image_size.height_and_width();
    let speed = loader_speed(source, &recipe, threads, args.steps)?;
    let mut prose = format!(
        "loader              {:.0} images/s of {height} × {width} px on {threads} threads, of {} images in {} s\n",
        speed.images_per_second, speed.images, args.steps
    );
    if speed.skipped > 0 {
        prose += &format!("skipped             {} that cannot be read\n", speed.skipped);
    }
    let fields = json!({
        "recipe": args.recipe,
        "data": simmim_data::without_secrets(data),
        "threads": threads,
        "loader_images_per_second": speed.images_per_second,
        "images": speed.images,
        "skipped_images": speed.skipped,
    });
    let Value::Object(json) = fields else { unreachable!("an object was written") };
    Ok((prose, json))
}

fn describe_forward(
    common: &Common,
    args: &BenchArgs,
    device: &impl Device,
) -> anyhow::Result<(String, Map<String, Value>)> {
    let (recipe, threads) = (recipe::resolve(&args.recipe, &common.set)?, common.threads());
    let options = Options { recipe, seed: common.seed(), precision: common.precision(), steps: args.steps };
    let measured = measure_forward(&options, device)?;
    let images_per_second = measured.batch_size as f64 / measured.forward.median() * 1e3;
    let mut prose = format!(
        "{}: {:.2} M parameters, batch {}, {} ({}), {threads} threads\n\n\
         forward             {}, {images_per_second:.2} images/s\n",
        args.recipe,
        measured.parameters as f64 / 1e6,
        measured.batch_size,
        precision::name(measured.precision),
        measured.precision_reason,
        describe_times(&measured.forward),
    );
    if let Some(mb) = measured.peak_rss_mb {
        prose += &format!("peak memory         {mb:.0} MB\n");
    }
    let fields = json!({
        "recipe": args.recipe,
        "batch_size": measured.batch_size,
        "threads": threads,
        "precision": precision::name(measured.precision),
        "parameters": measured.parameters,
        "forward_images_per_second": images_per_second,
        "forward_ms": measured.forward.median(),
        "forward_ms_least": measured.forward.least(),
        "forward_ms_most": measured.forward.most(),
        "peak_rss_mb": measured.peak_rss_mb,
    });
    let Value::Object(json) = fields else { unreachable!("an object was written") };
    Ok((prose, json))
}

fn describe_recipe(
    common: &Common,
    args: &BenchArgs,
    device: &impl Device,
) -> anyhow::Result<(String, Map<String, Value>)> {
    let (recipe, threads) = (recipe::resolve(&args.recipe, &common.set)?, common.threads());
    let batch_size = recipe.train.batch_size;
    let options = Options { recipe, seed: common.seed(), precision: common.precision(), steps: args.steps };
    let measured = measure(&options, device, &mut |peak| {
        if !common.quiet {
            let peak = describe_peak(peak, threads);
            crate::terminal::line(&format!("other work on this machine disturbed the measurement: {peak}"));
        }
    })?;
    // the embedded photo cannot be decoded to every number of channels
    let loaded = loader_images_per_second(&options.recipe, threads).ok();
    let mut json = peak_json(&measured.peak);
    let fields = json!({
        "recipe": args.recipe,
        "batch_size": batch_size,
        "threads": threads,
        "precision": precision::name(measured.precision),
        "parameters": measured.parameters,
        "images_per_second": measured.images_per_second(),
        "step_ms": measured.step.median(),
        "step_ms_least": measured.step.least(),
        "step_ms_most": measured.step.most(),
        "gflop_per_step": measured.gflop_per_step,
        "gflops": measured.gflops(),
        "share_of_peak": measured.share_of_peak(),
        "is_disturbed": measured.is_disturbed,
        "attempts": measured.attempts,
        "forward_images_per_second": measured.forward_images_per_second(),
        "forward_ms": measured.forward.median(),
        "forward_ms_least": measured.forward.least(),
        "forward_ms_most": measured.forward.most(),
        "phases_ms": phases(&measured).into_iter().map(|(n, ms)| (n.to_owned(), json!(ms))).collect::<Map<_, _>>(),
        "operations_ms": operations(&measured, args.steps).into_iter().map(|(n, ms)| (n, json!(ms))).collect::<Map<_, _>>(),
        "loader_images_per_second": loaded,
        "peak_rss_mb": measured.peak_rss_mb,
    });
    if let Value::Object(fields) = fields {
        json.extend(fields);
    }
    Ok((prose(args, &measured, loaded, batch_size, threads), json))
}

fn prose(args: &BenchArgs, measured: &Measured, loaded: Option<f64>, batch_size: usize, threads: usize) -> String {
    let mut prose = format!(
        "{}: {:.2} M parameters, batch {batch_size}, {} ({}), {threads} threads\n\n\
         step              {}, {:.1} images/s\n\
         forward             {}, {:.1} images/s\n\
         products, attention {:.0} GFLOP/s, {:.1} % of the peak\n\
         {}\n",
        args.recipe,
        measured.parameters as f64 / 1e6,
        precision::name(measured.precision),
        measured.precision_reason,
        describe_times(&measured.step),
        measured.images_per_second(),
        describe_times(&measured.forward),
        measured.forward_images_per_second(),
        measured.gflops(),
        measured.share_of_peak() * 100.0,
        describe_peak(&measured.peak, threads),
    );
    if measured.is_disturbed {
        prose += "                    other work on this machine disturbed every attempt\n";
    }
    if let Some(loaded) = loaded {
        prose += &format!("loader              {loaded:.0} images/s, JPEG of 250 × 170 px\n");
    }
    if let Some(mb) = measured.peak_rss_mb {
        prose += &format!("peak memory         {mb:.0} MB\n");
    }
    let row = |name: &str, ms: f64| format!("  {name:32}{ms:>9.2} ms {:>5.1} %\n", ms / measured.step.median() * 100.0);
    prose += "\nparts of a step\n";
    prose += &phases(measured).into_iter().map(|(name, ms)| row(name, ms)).collect::<String>();
    prose += "\noperations of a step\n";
    prose + &operations(measured, args.steps).into_iter().map(|(name, ms)| row(&name, ms)).collect::<String>()
}

fn describe_times(times: &Times) -> String {
    format!("{:.1} ms ({:.1} to {:.1})", times.median(), times.least(), times.most())
}

fn describe_peak(peak: &ProductPeak, threads: usize) -> String {
    format!(
        "product peak        {:.0} GFLOP/s on {threads} threads, {:.0} on one ({:.2}×), {}",
        peak.all_threads,
        peak.one_thread,
        peak.all_threads / peak.one_thread,
        peak.instruction
    )
}

fn peak_json(peak: &ProductPeak) -> Map<String, Value> {
    [
        ("peak_gflops", json!(peak.all_threads)),
        ("peak_gflops_one_thread", json!(peak.one_thread)),
        ("peak_instruction", json!(peak.instruction)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn phases(measured: &Measured) -> Vec<(&'static str, f64)> {
    let name = |phase| match phase {
        Phase::Prepared => "masks and cleared gradients",
        Phase::Forward => "forward",
        Phase::Backward => "backward",
        Phase::Stepped => "norm, clipping, AdamW",
    };
    measured.phases.iter().map(|(phase, ms)| (name(*phase), *ms)).collect()
}

/// Mean time per step of each operation of the engine, in milliseconds, longest first.
fn operations(measured: &Measured, steps: usize) -> Vec<(String, f64)> {
    let direction = |direction| match direction {
        Direction::Forward => "forward",
        Direction::Backward => "backward",
        Direction::Step => "step",
    };
    let mut operations: Vec<_> = measured
        .operations
        .iter()
        .map(|time| {
            (format!("{}, {}", time.operation, direction(time.direction)), time.seconds * 1e3 / steps.max(1) as f64)
        })
        .collect();
    operations.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    operations
}

fn describe_adamw(speed: &AdamWSpeed) -> (String, Map<String, Value>) {
    let prose = format!(
        "AdamW, {:.1} M values {}\na copy              {}, {:.2} times",
        speed.parameters as f64 / 1e6,
        describe_times(&speed.step),
        describe_times(&speed.copy),
        speed.times_a_copy()
    );
    let json = [
        ("parameters", json!(speed.parameters)),
        ("adamw_ms", json!(speed.step.median())),
        ("copy_ms", json!(speed.copy.median())),
        ("times_a_copy", json!(speed.times_a_copy())),
    ];
    (prose, json.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
