//! `[train]`: optimizer, schedule, and the intervals of logs, checkpoints and evaluations.

use serde::{Deserialize, Serialize};
use simmim_engine::Sharding;

/// Optimizer, schedule, and intervals of logs, checkpoints and evaluations. Durations have their unit in the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Length of the run in epochs.
    pub epochs: f64,
    /// Length of the run in steps, in place of `epochs`; the whole schedule is scaled to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Images per step, over all ranks and micro-batches.
    pub batch_size: usize,
    /// Number of micro-batches that a rank's batch is split into to save memory; gradients are those of the whole
    /// batch.
    pub accumulation_steps: usize,
    /// Whether activations within a block are recomputed in the backward pass rather than saved: a fraction of the
    /// memory for about a third more time, with the same result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompute_blocks: bool,
    /// Whether gradients are rounded to bf16 for their sum over ranks, which halves what ranks send. A rank alone sends nothing
    /// and rounds nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reduce_in_bf16: bool,
    /// What of the training state is divided over ranks, to save memory; with the same result. A rank alone keeps all.
    #[serde(default, skip_serializing_if = "Shard::is_none")]
    pub shard: Shard,
    /// Peak learning rate for a batch of 512 images; multiplied by `batch_size / 512`.
    pub base_lr: f64,
    /// Learning rate of the first step, scaled in the same way.
    pub warmup_lr: f64,
    /// Learning rate at the end of the cosine, scaled in the same way.
    pub min_lr: f64,
    /// Duration of the warm-up; capped at half of the run.
    pub warmup_epochs: f64,
    /// Shape of the learning-rate curve after the warm-up.
    pub schedule: ScheduleKind,
    /// Epochs at which `multistep` multiplies the learning rate by `decay_factor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones_epochs: Vec<f64>,
    /// Interval in epochs at which `step` multiplies the learning rate by `decay_factor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_every_epochs: Option<f64>,
    /// Factor of `step` and `multistep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_factor: Option<f64>,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// Which parameters decay.
    pub decay_groups: DecayGroups,
    /// Layer-wise learning-rate decay: the factor from each layer to the one below it; 1 turns it off.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_decay: f64,
    /// Number of the first blocks that do not train, and with them the patch embedding, positions and mask token. Neither
    /// the optimizer nor weight decay moves these parameters, and they have no backward pass.
    #[serde(default, skip_serializing_if = "is_none")]
    pub frozen_blocks: usize,
    /// Decay of the exponential moving average (EMA) of the weights, which evaluations then use; 0 for no average.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub average_decay: f64,
    /// `β₁` and `β₂` of AdamW.
    pub betas: (f64, f64),
    /// `ε` of AdamW, added to the square root of the second moment.
    pub eps: f64,
    /// Largest global norm of the gradients, to which they are clipped; 0 turns clipping off.
    pub clip_grad: f64,
    /// Steps between checkpoints; absent: one per epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_steps: Option<u64>,
    /// Number of checkpoints to keep; older ones are deleted.
    #[serde(default = "keep_checkpoints")]
    pub keep_checkpoints: usize,
    /// Steps between log entries; absent: about two hundred entries per run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_every_steps: Option<u64>,
    /// Steps between validations; absent: those between checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every_steps: Option<u64>,
}

/// What of the training state is divided over ranks (ZeRO, arXiv:1910.02054).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shard {
    /// Nothing.
    #[default]
    None,
    /// AdamW's moments, and the average of the weights.
    Optimizer,
    /// Those, and gradients once they are summed.
    Gradients,
}

impl TrainRecipe {
    /// Images that one of `world` ranks computes at a time.
    pub(crate) fn micro_batch(&self, world: usize) -> usize {
        self.batch_size / (world * self.accumulation_steps)
    }
}

impl Shard {
    fn is_none(&self) -> bool {
        *self == Shard::None
    }

    /// The same, as a backend knows it.
    pub fn sharding(self) -> Sharding {
        match self {
            Shard::None => Sharding::None,
            Shard::Optimizer => Sharding::Optimizer,
            Shard::Gradients => Sharding::Gradients,
        }
    }
}

/// Shape of the learning-rate curve after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Half a cosine over the whole run, warm-up included, down to `min_lr`; the part after the warm-up is used.
    Cosine,
    /// Half a cosine from the peak at the end of the warm-up down to `min_lr`.
    CosineAfterWarmup,
    /// Linear, down to a hundredth of the peak.
    Linear,
    /// Multiplied by `decay_factor` every `decay_every_epochs`.
    Step,
    /// Multiplied by `decay_factor` at each of `milestones_epochs`.
    Multistep,
}

/// Which parameters are exempt from weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayGroups {
    /// As in the official pre-training code. It intends to exempt relative position bias tables, but the names it looks
    /// for never match, so these tables and ViT's mask token decay.
    Official,
    /// As the official code intends: position embeddings, relative position bias tables and the mask token do not
    /// decay.
    Corrected,
}

fn keep_checkpoints() -> usize {
    2
}

fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

fn is_none(value: &usize) -> bool {
    *value == 0
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}
