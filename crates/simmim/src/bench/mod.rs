//! Benchmark of the training steps of a recipe, relative to the peak matrix-product throughput of the machine.
//!
//! A step is the one of [`pretrain`](crate::train::pretrain), on synthetic images. The peak is measured right before
//! and after the steps, because the speed of hosts with shared cores changes from second to second.

mod adamw;
mod loader;
mod memory;
mod times;

pub use adamw::{AdamWSpeed, adamw};
pub use loader::{LoaderSpeed, loader_images_per_second, loader_speed};
pub use memory::peak_rss_mb;
pub use simmim_engine::{Direction, OperationTime, ProductPeak};
pub use times::Times;

use crate::encoders::{Encode, ForwardContext, NeededFeatures, VisibleTokens, activation_bytes};
use crate::error::Result;
use crate::memory::{self as foreseen, Foreseen};
use crate::model::SimMim;
use crate::precision::{self, PrecisionChoice};
use crate::ranges::wrong;
use crate::recipe::Recipe;
use crate::targets::Colors;
use crate::train::{Learner, Phase, Pretraining, Schedule, Task, groups};
use crate::weights::{Builder, initialize};
use simmim_data::rng::{normal, rng};
use simmim_data::{Batch, Purpose};
use simmim_engine::{Alone, Backend, Device, Images, Operations, Precision};
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Learning rate of timed steps: small enough for any model to stay finite. Times do not depend on it.
const LR: f64 = 1e-5;

/// Steps before the first timed one, in which buffers are allocated.
const WARMUP_STEPS: u64 = 3;

/// Largest number of attempts if other work disturbs the measurement.
const MAX_ATTEMPTS: usize = 3;

/// Time that all attempts may take if the first one does not take more: what disturbs a long one is not over soon.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(30);

/// Options of a benchmark.
pub struct Options {
    /// The checked recipe.
    pub recipe: Recipe,
    /// Seed of images, masks and weights.
    pub seed: u64,
    /// Precision of matrix products.
    pub precision: PrecisionChoice,
    /// Number of timed steps.
    pub steps: usize,
}

/// Mean time of each phase of a step, in milliseconds.
pub type PhaseTimes = Vec<(Phase, f64)>;

/// The result of [`measure`].
#[derive(Clone, Debug)]
pub struct Measured {
    /// Number of parameters.
    pub parameters: usize,
    /// Precision in use.
    pub precision: Precision,
    /// Why this precision was chosen.
    pub precision_reason: String,
    /// Times of a step.
    pub step: Times,
    /// FLOPs of the matrix products and attention of a step, in 10⁹.
    pub gflop_per_step: f64,
    /// Phases of a step.
    pub phases: PhaseTimes,
    /// Times of the engine's operations, summed over the timed steps.
    pub operations: Vec<OperationTime>,
    /// Times of a forward pass of the encoder without a mask.
    pub forward: Times,
    /// The higher one of the peaks before and after the steps.
    pub peak: ProductPeak,
    /// Whether other work disturbed every attempt.
    pub is_disturbed: bool,
    /// Number of attempts; fewer if each takes long.
    pub attempts: usize,
    /// Peak memory of the process after the steps, in units of 2²⁰ bytes, if known.
    pub peak_rss_mb: Option<f64>,
    batch_size: usize,
}

impl Measured {
    /// Images per second of the median step.
    pub fn images_per_second(&self) -> f64 {
        self.batch_size as f64 / self.step.median() * 1e3
    }

    /// Images per second of the median forward pass.
    pub fn forward_images_per_second(&self) -> f64 {
        self.batch_size as f64 / self.forward.median() * 1e3
    }

    /// GFLOP/s of the median step.
    pub fn gflops(&self) -> f64 {
        self.gflop_per_step / self.step.median() * 1e3
    }

    /// Throughput of the median step as a share of the peak, 0 to 1.
    pub fn share_of_peak(&self) -> f64 {
        self.gflops() / self.peak.all_threads
    }
}

/// Times the steps and forward passes of a recipe; `observe` is called for each attempt that other work disturbed.
///
/// # Errors
/// If a file that the target needs cannot be used, or a number is not finite.
pub fn measure(options: &Options, device: &impl Device, observe: &mut dyn FnMut(&ProductPeak)) -> Result<Measured> {
    measure_within(ATTEMPTS_WITHIN, options, device, observe)
}

/// [`measure`] with attempts that take no more than `within` together, but for the first one.
fn measure_within(
    within: Duration,
    options: &Options,
    device: &impl Device,
    observe: &mut dyn FnMut(&ProductPeak),
) -> Result<Measured> {
    let mut bench = Bench::new(options, device, Does::Steps)?;
    let gflop_per_step = bench.flop_per_step() / 1e9;
    let mut number = 0;
    for _ in 0..WARMUP_STEPS {
        number += 1;
        bench.step(number, &mut |_| ())?;
    }
    bench.learner.backend().take_profile();
    let mut best: Option<Measured> = None;
    // threads that share a core disturb each other, which no other attempt would change
    let cores = match device.accelerator() {
        Some(_) => 1, // what it computes takes no time of the host's threads
        None => available_parallelism().map_or(device.threads(), |cores| cores.get().min(device.threads())),
    };
    let (started, mut attempts) = (Instant::now(), 0);
    while attempts < MAX_ATTEMPTS {
        attempts += 1;
        let before = bench.peak();
        let (step, phases) = bench.time_steps(&mut number, options.steps)?;
        let operations = bench.learner.backend().take_profile();
        let after = bench.peak();
        let is_disturbed = [before, after].iter().any(|peak| peak.is_disturbed(cores));
        let peak = if after.all_threads > before.all_threads { after } else { before };
        if best.as_ref().is_none_or(|best| step.median() < best.step.median() || !is_disturbed) {
            best = Some(Measured {
                parameters: bench.learner.backend().table().len(),
                precision: bench.learner.backend().precision(),
                precision_reason: bench.precision_reason.clone(),
                step,
                gflop_per_step,
                phases,
                operations,
                forward: Times::new(vec![0.0]),
                peak,
                is_disturbed,
                attempts,
                peak_rss_mb: peak_rss_mb(),
                batch_size: bench.batch.samples.len(),
            });
        }
        if !is_disturbed {
            break;
        }
        observe(if before.is_disturbed(cores) { &before } else { &after });
        let of_one = started.elapsed() / attempts as u32;
        if started.elapsed() + of_one > within {
            break;
        }
    }
    let best = best.expect("there is an attempt");
    Ok(Measured { attempts, forward: bench.time_forward(options.steps), ..best })
}

/// The result of [`measure_forward`].
#[derive(Clone, Debug)]
pub struct MeasuredForward {
    /// Number of parameters.
    pub parameters: usize,
    /// Precision in use.
    pub precision: Precision,
    /// Why this precision was chosen.
    pub precision_reason: String,
    /// Times of a forward pass of the encoder without a mask.
    pub forward: Times,
    /// Images per pass.
    pub batch_size: usize,
    /// Peak memory of the process, in units of 2²⁰ bytes, if known.
    pub peak_rss_mb: Option<f64>,
}

/// Times forward passes only, without memory for gradients and moments, so that a model with billions of parameters
/// fits.
///
/// # Errors
/// If a file that the target needs cannot be used.
pub fn measure_forward(options: &Options, device: &impl Device) -> Result<MeasuredForward> {
    let bench = Bench::new(options, device, Does::ForwardPasses)?;
    Ok(MeasuredForward {
        parameters: bench.learner.backend().table().len(),
        precision: bench.learner.backend().precision(),
        precision_reason: bench.precision_reason.clone(),
        forward: bench.time_forward(options.steps),
        batch_size: bench.batch.samples.len(),
        peak_rss_mb: peak_rss_mb(),
    })
}

/// What a benchmark times.
#[derive(Clone, Copy)]
enum Does {
    Steps,
    ForwardPasses,
}

struct Bench<D: Device> {
    learner: Learner<D::Backend, Pretraining>,
    device: D,
    precision_reason: String,
    batch: Batch,
}

impl<D: Device> Bench<D> {
    fn new(options: &Options, device: &D, does: Does) -> Result<Self> {
        let recipe = &options.recipe;
        if recipe.train.frozen_blocks > 0 {
            let expected = "steps are timed in which all blocks train".into();
            return Err(wrong("train.frozen_blocks", recipe.train.frozen_blocks, expected, Some("set it to 0".into())));
        }
        let mut builder = Builder::default();
        let colors = Colors::unknown(recipe.data.channels);
        let model = Rc::new(SimMim::new(recipe, &colors, device, &mut builder)?);
        let (table, inits) = builder.finish();
        let groups = groups::groups(&table, model.encoder(), &recipe.train);
        let (precision, precision_reason) = precision::choose(options.precision, device);
        check_memory(recipe, &model, table.len(), precision, does, device)?;
        let backend = device.open(table, precision);
        initialize(&backend, &inits, options.seed);
        let (height, width) = recipe.data.image_size.height_and_width();
        let images = recipe.train.batch_size;
        let mut noise = rng(options.seed, Purpose::Augment, 0, 0);
        let batch = Batch {
            number: 0,
            epoch: 0,
            images: (0..images * recipe.data.channels * height * width).map(|_| normal(&mut noise) as f32).collect(),
            samples: (0..images).collect(),
            labels: vec![None; images],
            skipped: Vec::new(),
        };
        let task = Pretraining::new(recipe, model, options.seed);
        let learner = Learner::new(backend, task, &recipe.train, Schedule::constant(LR), groups);
        Ok(Self { learner, device: device.clone(), precision_reason, batch })
    }

    fn peak(&self) -> ProductPeak {
        self.device.product_peak(self.learner.backend().precision())
    }

    fn flop_per_step(&mut self) -> f64 {
        let mask = self.learner.task().prepare(&mut self.batch);
        self.learner.task().model().training_flops(&mask.all())
    }

    /// Runs one step of the training loop.
    fn step(&mut self, number: u64, done: &mut dyn FnMut(Phase)) -> Result<()> {
        self.learner.step(&mut Alone, &mut self.batch, number, false, done)?;
        Ok(())
    }

    fn time_steps(&mut self, number: &mut u64, steps: usize) -> Result<(Times, PhaseTimes)> {
        let mut phases = PhaseTimes::new();
        let mut times = Vec::new();
        for _ in 0..steps.max(1) {
            *number += 1;
            let started = Instant::now();
            let mut last = started;
            self.step(*number, &mut |phase| {
                let ms = last.elapsed().as_secs_f64() * 1e3 / steps.max(1) as f64;
                last = Instant::now();
                match phases.iter_mut().find(|(known, _)| *known == phase) {
                    Some((_, sum)) => *sum += ms,
                    None => phases.push((phase, ms)),
                }
            })?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok((Times::new(times), phases))
    }

    fn time_forward(&self, steps: usize) -> Times {
        let (encoder, b) = (self.learner.task().model().encoder(), self.learner.backend());
        let spec = encoder.spec();
        let (height, width) = spec.image_px;
        let (pixels, count) = (&self.batch.images, self.batch.samples.len());
        let images = Images { pixels, count, channels: spec.channels, height, width };
        let forward = || {
            let started = Instant::now();
            b.start(false);
            let tokens = encoder.embed(b, &images);
            let features =
                encoder.encode(b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate());
            std::hint::black_box(b.read(&features));
            started.elapsed().as_secs_f64() * 1e3
        };
        (0..WARMUP_STEPS).for_each(|_| {
            forward();
        });
        Times::new((0..steps.max(1)).map(|_| forward()).collect())
    }
}

/// Checks that there is memory for a model and a batch. Steps keep the activations of all blocks of a micro-batch, forward
/// passes those of one block of all images.
fn check_memory(
    recipe: &Recipe,
    model: &SimMim,
    parameters: usize,
    precision: Precision,
    does: Does,
    device: &impl Device,
) -> Result<()> {
    let (height, width) = recipe.data.image_size.height_and_width();
    let (batch_size, train) = (recipe.train.batch_size, &recipe.train);
    let blocks = model.encoder().block_activations();
    let (per_parameter, activations) = match does {
        // itself, its gradient and two moments
        Does::Steps => {
            let micro_batch = batch_size / train.accumulation_steps;
            (4, micro_batch as u64 * activation_bytes(&blocks, precision, train.recompute_blocks) as u64)
        }
        // once as it is initialized, and once on the device
        Does::ForwardPasses => (2, batch_size as u64 * activation_bytes(&blocks[..1], precision, false) as u64),
    };
    let images = foreseen::of_values(recipe.data.channels * height * width).saturating_mul(batch_size as u64);
    let values = foreseen::of_values(parameters).saturating_mul(per_parameter);
    let what = || format!("a model of {parameters} parameters with {batch_size} images of {height} × {width} px");
    foreseen::check_on(device, what, &Foreseen { on_host: images, values, activations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve;
    use crate::testing::DEVICE;
    use simmim_engine::ParameterTable;

    #[test]
    fn training_flops_are_three_forward_passes_less_what_is_not_computed() {
        let recipe = resolve("pretrain-vit-cifar", &["train.batch_size=2".to_owned()]).unwrap();
        let options = Options { recipe, seed: 0, precision: PrecisionChoice::F32, steps: 1 };
        let mut bench = Bench::new(&options, &DEVICE, Does::Steps).unwrap();
        // by hand: 64 patches and a class token, 192 wide, MLP 768; the ratio hides 39 of 64 patches
        let (n, d) = (65.0, 192.0);
        let blocks = 12.0 * (2.0 * n * d * (4.0 * d + 2.0 * 768.0) + 4.0 * n * n * d);
        let embed = 2.0 * 64.0 * d * 48.0;
        let head = 2.0 * 39.0 * d * 48.0;
        let last_mlp = 2.0 * (n - 39.0) * d * 2.0 * 768.0; // of tokens that are not predicted
        let expected = 2.0 * (3.0 * (blocks - last_mlp) + 2.0 * embed + 3.0 * head);
        assert_eq!(bench.flop_per_step(), expected);
    }

    fn small(steps: usize) -> Options {
        let edits = ["encoder.depth=1", "train.batch_size=4", "train.accumulation_steps=2"].map(str::to_owned);
        let recipe = resolve("pretrain-vit-cifar", &edits).unwrap();
        Options { recipe, seed: 0, precision: PrecisionChoice::F32, steps }
    }

    #[test]
    fn a_step_is_split_into_its_phases() {
        let options = small(2);
        let measured = measure(&options, &DEVICE, &mut |_| ()).unwrap();
        let phases: Vec<Phase> = measured.phases.iter().map(|(phase, _)| *phase).collect();
        assert_eq!(phases, [Phase::Prepared, Phase::Forward, Phase::Backward, Phase::Stepped]);
        assert!(measured.phases.iter().all(|(_, ms)| *ms > 0.0), "{:?}", measured.phases);
        let operations: Vec<&str> = measured.operations.iter().map(|time| time.operation).collect();
        assert!(["patch embed", "mlp branch", "gradient norm"].iter().all(|name| operations.contains(name)));
        assert!(measured.share_of_peak() > 0.0 && measured.share_of_peak() < 1.0, "{measured:?}");
    }

    /// A machine with this share of the peak of a thread.
    #[derive(Clone)]
    struct Shared {
        share: f64,
        threads: usize,
    }

    impl Device for Shared {
        type Backend = crate::testing::TestBackend;

        fn name(&self) -> String {
            DEVICE.name()
        }

        fn threads(&self) -> usize {
            self.threads
        }

        fn open(&self, table: ParameterTable, precision: Precision) -> Self::Backend {
            DEVICE.open(table, precision)
        }

        fn fastest_precision(&self) -> (Precision, String) {
            DEVICE.fastest_precision()
        }

        fn precision_note(&self, precision: Precision) -> Option<String> {
            DEVICE.precision_note(precision)
        }

        fn product_peak(&self, _: Precision) -> ProductPeak {
            ProductPeak { instruction: "", one_thread: 1.0, all_threads: self.share }
        }
    }

    #[test]
    fn a_disturbed_measurement_is_repeated_for_a_while() {
        let attempts = |share: f64, threads: usize, within: Duration| {
            let mut heard = 0;
            let device = Shared { share, threads };
            let measured = measure_within(within, &small(1), &device, &mut |_| heard += 1).unwrap();
            assert_eq!(heard, if measured.is_disturbed { measured.attempts } else { 0 });
            (measured.attempts, measured.is_disturbed)
        };
        assert_eq!(attempts(1.0, 1, Duration::MAX), (1, false));
        assert_eq!(attempts(0.5, 1, Duration::MAX), (MAX_ATTEMPTS, true));
        assert_eq!(attempts(0.5, 1, Duration::ZERO), (1, true));
        // no number of attempts would give each of these threads a core
        let cores = available_parallelism().map_or(1, usize::from);
        assert_eq!(attempts(cores as f64, 100 * cores, Duration::MAX), (1, false));
    }
}
