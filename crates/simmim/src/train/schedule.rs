//! Learning-rate schedules: a pure function of the number of steps done.
//!
//! As in the official code (microsoft/SimMIM, `lr_scheduler.py`, with timm 0.4.12), `cosine` and `multistep` count from
//! the first step of the run, so the cosine is already below the peak when the warm-up ends. `linear` and `step` count
//! from the end of the warm-up, and so does `cosine-after-warmup` (microsoft/Swin-Transformer, `lr_scheduler.py`,
//! `WARMUP_PREFIX`). For `step` that is what timm does since it has `warmup_prefix`; 0.4.12 counted from the first step.

use crate::recipe::{ScheduleKind, TrainRecipe};

/// Final learning rate of `linear` as a share of the peak (microsoft/SimMIM, `lr_scheduler.py`).
const LINEAR_END: f64 = 0.01;

/// Largest share of a run for the warm-up, so that a recipe shortened by `--set train.epochs` still reaches its peak.
const MAX_WARMUP: f64 = 0.5;

/// A learning-rate schedule; durations in steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Peak learning rate.
    pub peak_lr: f64,
    /// Learning rate of the first step.
    pub warmup_lr: f64,
    /// Learning rate at the end of the cosine.
    pub min_lr: f64,
    /// Length of the warm-up.
    pub warmup_steps: u64,
    /// Length of the run.
    pub total_steps: u64,
    /// Steps at which `multistep` decays.
    pub milestones: Vec<u64>,
    /// Interval at which `step` decays.
    pub decay_every_steps: u64,
    /// Factor of one decay.
    pub decay_factor: f64,
}

impl Schedule {
    /// The schedule of a recipe over `total_steps`: learning rates are multiplied by `batch_size / 512`, durations are
    /// converted from epochs to steps.
    pub fn new(recipe: &TrainRecipe, total_steps: u64) -> Self {
        let scale = recipe.batch_size as f64 / 512.0;
        let steps = |epochs: f64| (epochs / recipe.epochs * total_steps as f64).round() as u64;
        Self {
            kind: recipe.schedule,
            peak_lr: recipe.base_lr * scale,
            warmup_lr: recipe.warmup_lr * scale,
            min_lr: recipe.min_lr * scale,
            warmup_steps: steps(recipe.warmup_epochs.min(recipe.epochs * MAX_WARMUP)),
            total_steps,
            milestones: recipe.milestones_epochs.iter().map(|e| steps(*e)).collect(),
            decay_every_steps: recipe.decay_every_epochs.map_or(u64::MAX, |e| steps(e).max(1)),
            decay_factor: recipe.decay_factor.unwrap_or(1.0),
        }
    }

    /// A constant learning rate.
    pub fn constant(lr: f64) -> Self {
        Self {
            kind: ScheduleKind::Step,
            peak_lr: lr,
            warmup_lr: lr,
            min_lr: lr,
            warmup_steps: 0,
            total_steps: u64::MAX,
            milestones: Vec::new(),
            decay_every_steps: u64::MAX,
            decay_factor: 1.0,
        }
    }

    /// Learning rate of step `number`, counted from 1.
    ///
    /// The official loop updates its scheduler after each step, with the index of the step just done, so the first two
    /// steps have the same learning rate.
    pub fn lr_of_step(&self, number: u64) -> f64 {
        self.lr(number.saturating_sub(2))
    }

    /// Learning rate of step `number` for a parameter group with the factor `scale`. Only the peak is scaled, not the
    /// start of the warm-up nor the end of the cosine.
    pub fn lr_of_group(&self, number: u64, scale: f64) -> f64 {
        self.curve(number.saturating_sub(2), self.peak_lr * scale)
    }

    /// The learning rate after `t` steps.
    pub fn lr(&self, t: u64) -> f64 {
        self.curve(t, self.peak_lr)
    }

    fn curve(&self, t: u64, peak_lr: f64) -> f64 {
        if t < self.warmup_steps {
            return self.warmup_lr + t as f64 * (peak_lr - self.warmup_lr) / self.warmup_steps as f64;
        }
        let of_whole = t as f64 / self.total_steps as f64;
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let after_warmup = (t - self.warmup_steps) as f64 / length as f64;
        match self.kind {
            ScheduleKind::Cosine => self.cosine(of_whole, peak_lr),
            ScheduleKind::CosineAfterWarmup => self.cosine(after_warmup, peak_lr),
            ScheduleKind::Linear => peak_lr * (1.0 - (1.0 - LINEAR_END) * after_warmup.min(1.0)),
            ScheduleKind::Step => {
                let decays = (t - self.warmup_steps) / self.decay_every_steps;
                peak_lr * self.decay_factor.powi(decays as i32)
            }
            ScheduleKind::Multistep => {
                let passed = self.milestones.iter().filter(|m| **m <= t).count();
                peak_lr * self.decay_factor.powi(passed as i32)
            }
        }
    }

    /// Half a cosine from `peak_lr` to `min_lr`, at a progress of 0 to 1.
    fn cosine(&self, progress: f64, peak_lr: f64) -> f64 {
        let angle = std::f64::consts::PI * progress.min(1.0);
        self.min_lr + 0.5 * (peak_lr - self.min_lr) * (1.0 + angle.cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{FinetuneRecipe, resolve, resolve_as};

    #[test]
    fn the_first_two_steps_share_the_warmup_rate() {
        let recipe = resolve("pretrain-vit-b16-224", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 8000);
        assert_eq!((schedule.warmup_steps, &schedule.milestones[..]), (100, &[7000][..]));
        // 5e-7 and 1e-4 at 2048 / 512
        assert_eq!(schedule.lr_of_step(1), 2e-6);
        assert_eq!(schedule.lr_of_step(2), 2e-6);
        assert!(schedule.lr_of_step(3) > 2e-6);
        assert!((schedule.lr_of_step(102) - 4e-4).abs() < 1e-12);
        assert!((schedule.lr_of_step(7002) - 4e-5).abs() < 1e-12);
    }

    #[test]
    fn a_group_has_a_peak_of_its_own_between_common_ends() {
        let recipe = resolve("pretrain-vit-cifar", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 1000);
        assert_eq!(schedule.lr_of_group(1, 0.5), schedule.warmup_lr);
        assert_eq!(schedule.lr_of_group(300, 1.0), schedule.lr_of_step(300));
        assert!((schedule.lr_of_group(1002, 0.5) - schedule.min_lr).abs() < 1e-12);
        let (whole, half) = (schedule.lr_of_step(502), schedule.lr_of_group(502, 0.5));
        assert!((whole - half - 0.25 * schedule.peak_lr).abs() < 1e-12, "{whole} {half}");
    }

    #[test]
    fn a_cosine_after_the_warmup_begins_at_the_peak() {
        let recipe: FinetuneRecipe = resolve_as("finetune-swinv2-b-224", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 1000); // 200 of them are warm-up
        let (peak, end) = (schedule.peak_lr, schedule.min_lr);
        assert!((schedule.lr(200) - peak).abs() < 1e-12);
        assert!((schedule.lr(600) - 0.5 * (peak + end)).abs() < 1e-12);
        assert!((schedule.lr(1000) - end).abs() < 1e-12);
        let whole = Schedule { kind: ScheduleKind::Cosine, ..schedule };
        assert!((whole.lr(200) - (end + 0.90451 * (peak - end))).abs() < 1e-5 * peak);
    }

    #[test]
    fn a_squeezed_run_keeps_the_shares_of_its_schedule() {
        let recipe = resolve("pretrain-vit-b16-224", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 80);
        assert_eq!((schedule.warmup_steps, &schedule.milestones[..]), (1, &[70][..]));
    }
}
