//! Draws changes of recipe values: those that fit, and any others.

use crate::rng::Rng;

/// Edits that fit every recipe of a command, each a list of edits that go together.
pub(crate) fn good_edits(command: &str) -> &'static [&'static str] {
    match command {
        "pretrain" => &[
            "mask.strategy=blockwise",
            "mask.strategy=square mask.ratio=0.3",
            "mask.ratio=1.0",
            "head.kind=mlp",
            "head.kind=inverse-swin-t head.width=8",
            "loss.kind=l2",
            "loss.scope=all loss.kind=smooth-l1",
            "loss.visible_weight=0.1",
            "encoder.drop_path=0.1",
            "train.average_decay=0.9",
            "train.accumulation_steps=2",
            "train.recompute_blocks=true",
            "train.frozen_blocks=1",
            "train.schedule=linear train.warmup_epochs=1.0",
            "train.keep_checkpoints=1",
            "train.clip_grad=0.0",
            "monitor.train=arrays monitor.val=arrays",
            "data.flip=1.0",
        ],
        "finetune" => &[
            "augment.distortion=randaugment",
            "augment.distortion=color-jitter",
            "augment.interpolation=random",
            "augment.mix_probability=1.0",
            "augment.erase_probability=1.0",
            "labels.per_image=many",
            "labels.class_weights=balanced",
            "labels.fraction=0.5",
            "evaluate.crop=0.5",
            "encoder.drop_path=0.1",
            "train.average_decay=0.9",
            "train.layer_decay=0.7",
            "train.accumulation_steps=2",
            "train.decay_groups=corrected",
        ],
        _ => &[
            "tokenizer.groups=2",
            "tokenizer.divergence_weight=0.1",
            "tokenizer.temperature=0.5",
            "train.average_decay=0.9",
            "train.accumulation_steps=2",
            "train.keep_checkpoints=1",
        ],
    }
}

/// Keys of whole numbers, of which the largest are refused or cost nothing.
const WHOLE: &[&str] = &[
    "encoder.patch_px",
    "encoder.width",
    "encoder.depth",
    "encoder.heads",
    "encoder.window",
    "encoder.depths",
    "encoder.pretrained_window_size",
    "encoder.extra_norm_every",
    "data.image_size",
    "data.channels",
    "mask.unit_px",
    "mask.min_block_units",
    "head.width",
    "target.resolution",
    "target.window_px",
    "target.bins",
    "target.clusters",
    "train.batch_size",
    "train.accumulation_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.log_every_steps",
    "train.validate_every_steps",
    "monitor.every_steps",
    "monitor.max_images",
    "augment.operations",
    "tokenizer.vocabulary",
    "tokenizer.groups",
    "tokenizer.blocks_per_group",
    "tokenizer.width",
    "tokenizer.token_width",
];

const WHOLE_VALUES: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "8",
    "16",
    "-1",
    "1000000000000",
    "9223372036854775807",
    "1.5",
    "nan",
    "x",
    "true",
    "[1]",
    "[2, 2]",
    "[8, 16]",
    "[]",
    "\"8\"",
];

const REAL: &[&str] = &[
    "encoder.mlp_ratio",
    "encoder.layer_scale",
    "encoder.drop_path",
    "data.flip",
    "data.max_skipped",
    "mask.ratio",
    "loss.visible_weight",
    "train.epochs",
    "train.base_lr",
    "train.warmup_lr",
    "train.min_lr",
    "train.warmup_epochs",
    "train.decay_every_epochs",
    "train.decay_factor",
    "train.weight_decay",
    "train.layer_decay",
    "train.average_decay",
    "train.eps",
    "train.clip_grad",
    "augment.operation_probability",
    "augment.magnitude",
    "augment.magnitude_std",
    "augment.jitter",
    "augment.erase_probability",
    "augment.mix_probability",
    "augment.mixup",
    "augment.cutmix",
    "augment.cutmix_probability",
    "labels.smoothing",
    "labels.fraction",
    "evaluate.crop",
    "tokenizer.temperature",
    "tokenizer.min_temperature",
    "tokenizer.temperature_epochs",
    "tokenizer.divergence_weight",
    "tokenizer.divergence_epochs",
];

const REAL_VALUES: &[&str] = &[
    "0.0", "5e-324", "1e-300", "1e-9", "1e-3", "0.1", "0.5", "0.99", "1.0", "1.5", "9.0", "1e9", "1e30", "1e300",
    "-1.0", "nan", "inf", "1", "x", "[0.5]",
];

const PAIRS: &[&str] = &["data.crop_scale", "data.crop_ratio", "mask.aspect", "augment.erase_area", "train.betas"];

const PAIR_VALUES: &[&str] = &[
    "[0.5, 0.9]",
    "[0.0, 1.0]",
    "[1e-300, 1e-300]",
    "[1e-300, 1.0]",
    "[1.0, 1.0]",
    "[1.0, 1e300]",
    "[1e300, 1e300]",
    "[1.0, inf]",
    "[nan, 1.0]",
    "[0.9, 0.5]",
    "[0.0, 0.0]",
    "[0.5]",
    "0.5",
    "x",
];

const NAMES: &[(&str, &[&str])] = &[
    ("encoder.kind", &["vit", "swin", "swinv2", "vti"]),
    ("encoder.position_bias", &["shared", "per-block", "none", "x"]),
    ("encoder.init", &["normal", "xavier", "x"]),
    ("encoder.qkv_bias", &["true", "false", "1"]),
    ("encoder.absolute_positions", &["true", "false"]),
    ("data.normalization", &["imagenet", "measured", "none", "x"]),
    ("mask.strategy", &["random", "square", "blockwise", "x"]),
    // an inverse Swin is for `good_edits`, which makes it narrow: those of the paper take longer than a command may
    ("head.kind", &["linear", "mlp", "x"]),
    (
        "target.kind",
        &["pixels", "normalized-pixels", "color-bins", "color-clusters", "mean-color", "hog", "tokens", "x"],
    ),
    ("target.normalize", &["window", "patch", "x"]),
    ("target.palette", &["palette.safetensors", "vit.toml", "none"]),
    ("target.tokenizer", &["tok", "tok/tokenizer.safetensors", "vit", "none"]),
    ("loss.kind", &["l1", "l2", "smooth-l1", "x"]),
    ("loss.scope", &["hidden", "all", "x"]),
    ("train.schedule", &["cosine", "cosine-after-warmup", "linear", "step", "multistep", "x"]),
    ("train.milestones_epochs", &["[0.0, 1.0]", "[1.0]", "[]", "[1e300]", "[nan]", "1.0"]),
    ("train.decay_groups", &["official", "corrected", "x"]),
    ("train.recompute_blocks", &["true", "false"]),
    ("monitor.train", &["arrays", "none"]),
    ("monitor.val", &["arrays", "none"]),
    ("augment.interpolation", &["bilinear", "bicubic", "random", "x"]),
    ("augment.distortion", &["randaugment", "color-jitter", "none", "x"]),
    ("labels.per_image", &["one", "many", "x"]),
    ("labels.class_weights", &["none", "balanced", "x"]),
    ("no_such", &["1"]),
    ("train.no_such", &["1"]),
    ("kind", &["pretrain", "finetune", "tokenizer", "x"]),
];

/// A value for any key of the recipes of a command, whether it fits or not.
pub(crate) fn any_edit(command: &str, rng: &mut Rng) -> String {
    let sections = sections(command);
    loop {
        let (key, value) = match rng.below(8) {
            0..=2 => (rng.pick(WHOLE), rng.pick(WHOLE_VALUES)),
            3..=4 => (rng.pick(REAL), rng.pick(REAL_VALUES)),
            5 => (rng.pick(PAIRS), rng.pick(PAIR_VALUES)),
            _ => {
                let (key, values) = NAMES[rng.below(NAMES.len())];
                (key, rng.pick(values))
            }
        };
        // mostly keys that the recipe has
        if sections.iter().any(|section| key.starts_with(section)) || rng.happens(3) {
            return format!("{key}={value}");
        }
    }
}

/// The sections of the recipes of a command.
fn sections(command: &str) -> &'static [&'static str] {
    match command {
        "finetune" => &["encoder.", "data.", "augment.", "labels.", "evaluate.", "train."],
        "tokenizer" => &["tokenizer.", "data.", "train."],
        _ => &["encoder.", "data.", "mask.", "head.", "target.", "loss.", "train.", "monitor."],
    }
}
