//! How fast a recipe's updates are here, and what share of the machine's product peak they reach.
//!
//! An update is the one that [`pretrain`](crate::train::pretrain) runs, on synthetic images. The peak is measured right
//! before and behind it, because hosts that share their cores change from second to second.

mod adamw;
mod loader;
mod memory;

pub use adamw::{AdamWSpeed, adamw};
pub use loader::loader_images_per_second;
pub use memory::peak_rss_mb;
pub use simmim_engine::{Pass as Direction, ProductPeak, Spent};

use crate::build::{Builder, initialise};
use crate::encoder::{Encode, Pass};
use crate::error::Result;
use crate::model::SimMim;
use crate::precision::{self, PrecisionChoice};
use crate::recipe::Recipe;
use crate::target::Colours;
use crate::train::groups;
use crate::train::step::{Masked, Phase, apply};
use simmim_data::rng::{normal, rng};
use simmim_data::{Batch, Purpose};
use simmim_engine::{Backend, Cpu, Images, Operations, Precision, Slot, StepSize};
use std::time::Instant;

/// Updates before the first one that is timed: buffers are allocated in them.
const WARMUP_STEPS: u64 = 3;

/// How often an update is measured in all if the machine is disturbed.
const MOST_ATTEMPTS: usize = 3;

/// What to measure.
pub struct Options {
    /// The checked recipe.
    pub recipe: Recipe,
    /// Seed of images, masks and weights.
    pub seed: u64,
    /// Arithmetic.
    pub precision: PrecisionChoice,
    /// Worker threads.
    pub threads: usize,
    /// Timed updates.
    pub steps: usize,
}

/// Times of one thing, done several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Milliseconds of each, sorted.
    sorted_ms: Vec<f64>,
}

impl Times {
    /// Times in any order.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(mut ms: Vec<f64>) -> Self {
        assert!(!ms.is_empty(), "a time is of something");
        ms.sort_by(f64::total_cmp);
        Self { sorted_ms: ms }
    }

    /// The middle one, the mean of two if their number is even.
    pub fn median(&self) -> f64 {
        let n = self.sorted_ms.len();
        (self.sorted_ms[(n - 1) / 2] + self.sorted_ms[n / 2]) / 2.0
    }

    /// The shortest.
    pub fn least(&self) -> f64 {
        self.sorted_ms[0]
    }

    /// The longest.
    pub fn most(&self) -> f64 {
        self.sorted_ms[self.sorted_ms.len() - 1]
    }
}

/// Milliseconds of an update's phases, on average.
pub type PhaseTimes = Vec<(Phase, f64)>;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Parameter values.
    pub parameters: usize,
    /// Arithmetic.
    pub precision: Precision,
    /// Why.
    pub precision_reason: &'static str,
    /// Times of an update.
    pub step: Times,
    /// Operations of an update in products and attention, in 10⁹.
    pub gflop_per_step: f64,
    /// Parts of an update, seen from outside.
    pub phases: PhaseTimes,
    /// What the engine's operations took, in the timed updates together.
    pub operations: Vec<Spent>,
    /// Times of a forward pass to the features, nothing hidden.
    pub forward: Times,
    /// The higher one of the peaks before and behind the updates.
    pub peak: ProductPeak,
    /// Whether the machine was disturbed in every attempt.
    pub is_disturbed: bool,
    /// Attempts made.
    pub attempts: usize,
    /// The most memory the process ever held, after the updates; where the system tells.
    pub peak_rss_mb: Option<f64>,
    batch_size: usize,
}

impl Measured {
    /// Images per second of the median update.
    pub fn images_per_second(&self) -> f64 {
        self.batch_size as f64 / self.step.median() * 1e3
    }

    /// Images per second of the median forward pass.
    pub fn forward_images_per_second(&self) -> f64 {
        self.batch_size as f64 / self.forward.median() * 1e3
    }

    /// 10⁹ operations per second of the median update.
    pub fn gflops(&self) -> f64 {
        self.gflop_per_step / self.step.median() * 1e3
    }

    /// What the median update reaches of the peak, 0 to 1.
    pub fn share_of_peak(&self) -> f64 {
        self.gflops() / self.peak.all_threads
    }
}

/// Times a recipe's updates and forward passes; tells `observe` of each attempt that other work on the machine spoilt.
///
/// # Errors
/// If a file that the target needs cannot be used, or a number is not finite.
pub fn measure(options: &Options, observe: &mut dyn FnMut(&ProductPeak)) -> Result<Measured> {
    let bench = Bench::new(options)?;
    let mut number = 0;
    for _ in 0..WARMUP_STEPS {
        number += 1;
        bench.step(number, &mut |_| ())?;
    }
    bench.backend.take_profile();
    let mut best: Option<Measured> = None;
    for attempt in 1..=MOST_ATTEMPTS {
        let before = bench.peak();
        let (step, phases) = bench.time_steps(&mut number, options.steps)?;
        let operations = bench.backend.take_profile();
        let after = bench.peak();
        let is_disturbed = [before, after].iter().any(|peak| peak.is_disturbed(options.threads));
        let peak = if after.all_threads > before.all_threads { after } else { before };
        if best.as_ref().is_none_or(|best| step.median() < best.step.median() || !is_disturbed) {
            best = Some(Measured {
                parameters: bench.backend.table().len(),
                precision: bench.backend.precision(),
                precision_reason: bench.precision_reason,
                step,
                gflop_per_step: bench.masked.model().training_flops(&bench.hidden()) / 1e9,
                phases,
                operations,
                forward: Times::new(vec![0.0]),
                peak,
                is_disturbed,
                attempts: attempt,
                peak_rss_mb: peak_rss_mb(),
                batch_size: bench.batch.samples.len(),
            });
        }
        if !is_disturbed {
            break;
        }
        observe(if before.is_disturbed(options.threads) { &before } else { &after });
    }
    let best = best.expect("there is an attempt");
    Ok(Measured { forward: bench.time_forward(options.steps), ..best })
}

/// What was measured of forward passes alone.
#[derive(Clone, Debug)]
pub struct MeasuredForward {
    /// Parameter values.
    pub parameters: usize,
    /// Arithmetic.
    pub precision: Precision,
    /// Why.
    pub precision_reason: &'static str,
    /// Times of a forward pass to the features, nothing hidden.
    pub forward: Times,
    /// Images of a pass.
    pub batch_size: usize,
    /// The most memory the process ever held; where the system tells.
    pub peak_rss_mb: Option<f64>,
}

/// Times forward passes alone: no gradients, no optimizer, so that a model of billions fits.
///
/// # Errors
/// If a file that the target needs cannot be used.
pub fn measure_forward(options: &Options) -> Result<MeasuredForward> {
    let bench = Bench::new(options)?;
    Ok(MeasuredForward {
        parameters: bench.backend.table().len(),
        precision: bench.backend.precision(),
        precision_reason: bench.precision_reason,
        forward: bench.time_forward(options.steps),
        batch_size: bench.batch.samples.len(),
        peak_rss_mb: peak_rss_mb(),
    })
}

struct Bench {
    masked: Masked,
    recipe: Recipe,
    backend: Cpu,
    precision_reason: &'static str,
    steps: Vec<StepSize>,
    batch: Batch,
}

impl Bench {
    fn new(options: &Options) -> Result<Self> {
        let recipe = &options.recipe;
        let mut builder = Builder::default();
        let mut model = SimMim::new(recipe, &Colours::unknown(recipe.data.channels), &mut builder)?;
        model.use_threads(options.threads);
        let (table, inits) = builder.finish();
        // small enough for any model; the time of an update does not depend on it
        let step =
            |decays| StepSize { lr: 1e-5, weight_decay: if decays { recipe.train.weight_decay as f32 } else { 0.0 } };
        let steps = groups::decays(&table, model.encoder(), recipe.train.decay_groups).into_iter().map(step).collect();
        let (precision, precision_reason) = precision::choose(options.precision);
        let backend = Cpu::new(table, precision, options.threads);
        backend.edit_slot(Slot::Values, &mut |values| initialise(backend.table(), &inits, options.seed, values));
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
        let masked = Masked::new(recipe, model, options.seed);
        Ok(Self { masked, recipe: recipe.clone(), backend, precision_reason, steps, batch })
    }

    fn peak(&self) -> ProductPeak {
        ProductPeak::measure(self.backend.precision(), self.backend.threads())
    }

    fn hidden(&self) -> crate::model::Hidden {
        self.masked.model().hidden(&self.masked.masks(&self.batch))
    }

    /// The update of the training loop.
    fn step(&self, number: u64, done: &mut dyn FnMut(Phase)) -> Result<()> {
        self.backend.clear_gradients();
        let loss = self.masked.gradients(&self.backend, &self.batch, done);
        apply(&self.backend, &self.recipe.train, number, loss, &self.steps, done)?;
        Ok(())
    }

    fn time_steps(&self, number: &mut u64, steps: usize) -> Result<(Times, PhaseTimes)> {
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
        let encoder = self.masked.model().encoder();
        let spec = encoder.spec();
        let (height, width) = spec.image_px;
        let (pixels, count) = (&self.batch.images, self.batch.samples.len());
        let images = Images { pixels, count, channels: spec.channels, height, width };
        let forward = || {
            let started = Instant::now();
            self.backend.start(false);
            let tokens = encoder.embed(&self.backend, &images);
            let features = encoder.encode(&self.backend, tokens, &mut Pass::evaluate());
            std::hint::black_box(self.backend.read(&features));
            started.elapsed().as_secs_f64() * 1e3
        };
        (0..WARMUP_STEPS).for_each(|_| {
            forward();
        });
        Times::new((0..steps.max(1)).map(|_| forward()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve;

    #[test]
    fn medians_are_in_the_middle() {
        let of = |ms: &[f64]| Times::new(ms.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]).median(), 2.0);
        let four = of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((four.least(), four.median(), four.most()), (1.0, 2.5, 4.0));
    }

    #[test]
    fn operations_are_those_of_the_forward_pass_thrice_without_what_is_not_computed() {
        let recipe = resolve("pretrain-vit-cifar", &["train.batch_size=2".to_owned()]).unwrap();
        let options = Options { recipe, seed: 0, precision: PrecisionChoice::F32, threads: 1, steps: 1 };
        let bench = Bench::new(&options).unwrap();
        // by hand: 64 patches and a class token, 192 wide, MLP 768; the ratio hides 39 of 64 patches
        let (n, d) = (65.0, 192.0);
        let blocks = 12.0 * (2.0 * n * d * (4.0 * d + 2.0 * 768.0) + 4.0 * n * n * d);
        let embed = 2.0 * 64.0 * d * 48.0;
        let head = 2.0 * 39.0 * d * 48.0;
        let expected = 2.0 * (3.0 * blocks + 2.0 * embed + 3.0 * head);
        assert_eq!(bench.masked.model().training_flops(&bench.hidden()), expected);
    }

    #[test]
    fn an_update_is_split_into_its_phases() {
        let edits = ["encoder.depth=1", "train.batch_size=4", "train.accumulation_steps=2"].map(str::to_owned);
        let recipe = resolve("pretrain-vit-cifar", &edits).unwrap();
        let options = Options { recipe, seed: 0, precision: PrecisionChoice::F32, threads: 1, steps: 2 };
        let measured = measure(&options, &mut |_| ()).unwrap();
        let phases: Vec<Phase> = measured.phases.iter().map(|(phase, _)| *phase).collect();
        assert_eq!(phases, [Phase::Prepared, Phase::Forward, Phase::Backward, Phase::Norm, Phase::Updated]);
        let sum: f64 = measured.phases.iter().map(|(_, ms)| ms).sum();
        let mean = (measured.step.least() + measured.step.most()) / 2.0; // of two
        assert!(sum <= mean && sum > 0.9 * mean, "{sum} of {mean}");
        assert!(measured.share_of_peak() > 0.0 && measured.share_of_peak() < 1.0, "{measured:?}");
    }
}
