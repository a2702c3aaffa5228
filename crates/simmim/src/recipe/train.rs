//! `[train]`: optimizer, schedule, and what is written when.

use serde::{Deserialize, Serialize};

/// Optimizer, schedule, and what is written when. Durations carry their unit in the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Passes over the images.
    pub epochs: f64,
    /// Length of the run in updates instead; the whole schedule is stretched or squeezed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_updates: Option<u64>,
    /// Images per update.
    pub batch_size: usize,
    /// Parts an update's batch is computed in, to save memory; the result is that of the whole batch.
    pub accumulation_steps: usize,
    /// Whether the activations within a block are computed again in the backward pass rather than kept: a
    /// fraction of the memory for about a third more time, and the same result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompute_blocks: bool,
    /// Peak learning rate for 512 images per update; scaled in proportion to the batch.
    pub base_lr: f64,
    /// Learning rate of the first update, scaled likewise.
    pub warmup_lr: f64,
    /// Learning rate that the cosine ends at, scaled likewise.
    pub min_lr: f64,
    /// Duration of the warm-up; at most half of the run.
    pub warmup_epochs: f64,
    /// Shape of the learning rate behind the warm-up.
    pub schedule: ScheduleKind,
    /// Epochs after which `multistep` multiplies the rate by `decay_factor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones_epochs: Vec<f64>,
    /// Epochs after which `step` multiplies the rate by `decay_factor`, again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_every_epochs: Option<f64>,
    /// Factor of `step` and `multistep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_factor: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Which parameters decay.
    pub decay_groups: DecayGroups,
    /// Factor on the learning rate from each layer to the one below it; 1 for none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_decay: f64,
    /// How much of the running mean of the weights, which held-out images are then looked at with, an update
    /// keeps; 0 for no such mean.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub average_decay: f64,
    /// Decay rates of AdamW's moments.
    pub betas: (f64, f64),
    /// Added to the root of AdamW's second moment.
    pub eps: f64,
    /// Norm that all gradients together are clipped to; 0 for no clipping.
    pub clip_grad: f64,
    /// Updates between checkpoints; absent: once an epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_updates: Option<u64>,
    /// Checkpoints kept, the newest.
    #[serde(default = "keep_checkpoints")]
    pub keep_checkpoints: usize,
    /// Updates between log entries; absent: about two hundred entries a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_every_updates: Option<u64>,
    /// Updates between validations and pictures; absent: with each checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every_updates: Option<u64>,
}

/// Shape of the learning rate behind the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Half a cosine over the whole run, begun where the warm-up ends, down to `min_lr`.
    Cosine,
    /// Half a cosine from the peak, where the warm-up ends, down to `min_lr`.
    CosineAfterWarmup,
    /// A line down to a hundredth of the peak.
    Linear,
    /// Times `decay_factor` every `decay_every_epochs`.
    Step,
    /// Times `decay_factor` at each of `milestones_epochs`.
    Multistep,
}

/// Which parameters are exempt from weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayGroups {
    /// As the official pre-training code groups them: it means to exempt tables of relative positions,
    /// but its names never match, so these and ViT's mask token decay.
    Official,
    /// As the official code means it: no decay of any table of positions nor of the mask token.
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

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}
