//! Learning rate as a pure function of the number of updates done.
//!
//! As in the official code (microsoft/SimMIM, `lr_scheduler.py`, on timm 0.4.12), cosine and multistep
//! count from the run's first update, so the cosine is not at its top when the warm-up ends; linear
//! and step count from the end of the warm-up, and so does `cosine-after-warmup` (microsoft/Swin-Transformer,
//! `lr_scheduler.py`, `WARMUP_PREFIX`).

use crate::recipe::{ScheduleKind, TrainRecipe};

/// The share of the peak that `linear` ends at (microsoft/SimMIM, `lr_scheduler.py`).
const LINEAR_END: f64 = 0.01;

/// The share of a run that warm-up takes at most: a recipe shortened by `--set train.epochs` still
/// reaches its rate.
const MOST_WARMUP: f64 = 0.5;

/// A learning-rate schedule; durations in updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Shape behind the warm-up.
    pub kind: ScheduleKind,
    /// Peak rate.
    pub peak_lr: f64,
    /// Rate of the first update.
    pub warmup_lr: f64,
    /// Rate that the cosine ends at.
    pub min_lr: f64,
    /// Length of the warm-up.
    pub warmup_updates: u64,
    /// Length of the run.
    pub total_updates: u64,
    /// When `multistep` decays.
    pub milestones: Vec<u64>,
    /// How often `step` decays.
    pub decay_every_updates: u64,
    /// Factor of one decay.
    pub decay_factor: f64,
}

impl Schedule {
    /// The schedule of a recipe over `total_updates`: rates scaled by the batch over 512, durations
    /// from epochs to updates.
    pub fn new(recipe: &TrainRecipe, total_updates: u64) -> Self {
        let scale = recipe.batch_size as f64 / 512.0;
        let updates = |epochs: f64| (epochs / recipe.epochs * total_updates as f64).round() as u64;
        Self {
            kind: recipe.schedule,
            peak_lr: recipe.base_lr * scale,
            warmup_lr: recipe.warmup_lr * scale,
            min_lr: recipe.min_lr * scale,
            warmup_updates: updates(recipe.warmup_epochs.min(recipe.epochs * MOST_WARMUP)),
            total_updates,
            milestones: recipe.milestones_epochs.iter().map(|e| updates(*e)).collect(),
            decay_every_updates: recipe.decay_every_epochs.map_or(u64::MAX, |e| updates(e).max(1)),
            decay_factor: recipe.decay_factor.unwrap_or(1.0),
        }
    }

    /// Learning rate of update `number`, counted from 1.
    ///
    /// The official loop asks its scheduler behind each update and with the index of the update just
    /// done, so the first two updates share the first rate.
    pub fn lr_of_update(&self, number: u64) -> f64 {
        self.lr(number.saturating_sub(2))
    }

    /// Learning rate of update `number` for parameters whose peak is `scale` times the schedule's: only the peak
    /// is scaled, not where the warm-up begins nor where the cosine ends.
    pub fn lr_of_group(&self, number: u64, scale: f64) -> f64 {
        self.curve(number.saturating_sub(2), self.peak_lr * scale)
    }

    /// The schedule's curve at `t` updates.
    pub fn lr(&self, t: u64) -> f64 {
        self.curve(t, self.peak_lr)
    }

    fn curve(&self, t: u64, peak_lr: f64) -> f64 {
        if t < self.warmup_updates {
            return self.warmup_lr + t as f64 * (peak_lr - self.warmup_lr) / self.warmup_updates as f64;
        }
        let of_whole = t as f64 / self.total_updates as f64;
        let length = self.total_updates.saturating_sub(self.warmup_updates).max(1);
        let behind_warmup = (t - self.warmup_updates) as f64 / length as f64;
        match self.kind {
            ScheduleKind::Cosine => self.cosine(of_whole, peak_lr),
            ScheduleKind::CosineAfterWarmup => self.cosine(behind_warmup, peak_lr),
            ScheduleKind::Linear => peak_lr * (1.0 - (1.0 - LINEAR_END) * behind_warmup.min(1.0)),
            ScheduleKind::Step => {
                let decays = (t - self.warmup_updates) / self.decay_every_updates;
                peak_lr * self.decay_factor.powi(decays as i32)
            }
            ScheduleKind::Multistep => {
                let passed = self.milestones.iter().filter(|m| **m <= t).count();
                peak_lr * self.decay_factor.powi(passed as i32)
            }
        }
    }

    /// Half a cosine, at a share of its length.
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
    fn the_first_two_updates_share_the_warmup_rate() {
        let recipe = resolve("pretrain-vit-b16-224", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 8000);
        assert_eq!((schedule.warmup_updates, &schedule.milestones[..]), (100, &[7000][..]));
        // 5e-7 and 1e-4 at 2048 / 512
        assert_eq!(schedule.lr_of_update(1), 2e-6);
        assert_eq!(schedule.lr_of_update(2), 2e-6);
        assert!(schedule.lr_of_update(3) > 2e-6);
        assert!((schedule.lr_of_update(102) - 4e-4).abs() < 1e-12);
        assert!((schedule.lr_of_update(7002) - 4e-5).abs() < 1e-12);
    }

    #[test]
    fn a_group_has_a_peak_of_its_own_between_common_ends() {
        let recipe = resolve("pretrain-vit-cifar", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 1000);
        assert_eq!(schedule.lr_of_group(1, 0.5), schedule.warmup_lr);
        assert_eq!(schedule.lr_of_group(300, 1.0), schedule.lr_of_update(300));
        assert!((schedule.lr_of_group(1002, 0.5) - schedule.min_lr).abs() < 1e-12);
        let (whole, half) = (schedule.lr_of_update(502), schedule.lr_of_group(502, 0.5));
        assert!((whole - half - 0.25 * schedule.peak_lr).abs() < 1e-12, "{whole} {half}");
    }

    #[test]
    fn a_cosine_behind_the_warmup_begins_at_the_peak() {
        let recipe: FinetuneRecipe = resolve_as("finetune-swinv2-b-224", &[]).unwrap();
        let schedule = Schedule::new(&recipe.train, 1000); // 200 of them warm up
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
        assert_eq!((schedule.warmup_updates, &schedule.milestones[..]), (1, &[70][..]));
    }
}
