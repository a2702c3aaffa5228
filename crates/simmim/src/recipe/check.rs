//! Checks that types cannot express: sizes that must divide each other, and numbers that must be in a range.

use super::{
    DataRecipe, HeadKind, ImageSize, MaskRecipe, NormalizationKind, Recipe, ScheduleKind, TrainRecipe, check_target,
};
use crate::error::Result;
use crate::ranges::{at_least_one, in_order, positive, share_above_zero, size, within, wrong};

/// Largest number of features of an image: attention over them, and tables of all their pairs, grow with its square.
const MAX_FEATURES: usize = 1 << 14;

/// Largest side of an image in pixels.
const MAX_IMAGE_PX: usize = 1 << 14;

/// Largest number of channels.
const MAX_CHANNELS: usize = 1 << 10;

/// Largest width of the last stage of an inverse Swin.
const MAX_HEAD_WIDTH: usize = 1 << 12;

/// Largest number of images per step.
const MAX_BATCH: usize = 1 << 16;

/// Larger tiles of three channels would not be read ([`simmim_data::decode::MAX_BYTES`]).
const MAX_TILE_PX: usize = 13_000;

/// Checks that the values of a pre-training recipe fit together.
///
/// # Errors
/// If a value does not fit; the error names the first such key and what would fit.
pub(super) fn check(recipe: &Recipe) -> Result<()> {
    let Recipe { encoder, data, mask, head, loss, .. } = recipe;
    encoder.check()?;
    mask.check(data.image_size, encoder.patch_px())?;
    common(data, &recipe.train, encoder.stride_px(), "encoder's stride")?;
    frozen_blocks(&recipe.train, encoder.depth())?;
    check_target::check(recipe)?;
    match (head.kind, head.width) {
        (HeadKind::InverseSwinT | HeadKind::InverseSwinB, width) => {
            size("head.width", width.unwrap_or(1), MAX_HEAD_WIDTH)?;
        }
        (HeadKind::Linear | HeadKind::Mlp, Some(width)) => {
            let expected = "only the `inverse-swin-*` heads have a width".into();
            return Err(wrong("head.width", width, expected, Some("leave it out".into())));
        }
        (HeadKind::Linear | HeadKind::Mlp, None) => {}
    }
    if let Some(monitor) = &recipe.monitor {
        monitor.check()?;
    }
    if let Some(weight) = loss.visible_weight {
        within("loss.visible_weight", weight as f64, 0.0, 1.0)?;
    }
    Ok(())
}

/// Checks which values are shown.
fn window(data: &DataRecipe) -> Result<()> {
    let Some((center, width)) = data.window else { return Ok(()) };
    match center.is_finite() && width.is_finite() && width > 0.0 {
        true => Ok(()),
        false => {
            let hint = Some("`[40, 400]` shows the values from -160 to 240".into());
            let expected = "expected a center and a width above 0".into();
            Err(wrong("data.window", format!("[{center}, {width}]"), expected, hint))
        }
    }
}

impl MaskRecipe {
    /// Checks that the values fit together, for images of a size and patches of a side.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key and what would fit.
    pub fn check(&self, image_size: ImageSize, patch_px: usize) -> Result<()> {
        let unit = self.unit_px;
        let (height, width) = image_size.height_and_width();
        if unit > height.min(width) && height.min(width) >= patch_px {
            let expected = format!("expected at most the shorter side of `data.image_size`, {}", height.min(width));
            return Err(wrong("mask.unit_px", unit, expected, None));
        }
        if unit == 0 || !unit.is_multiple_of(patch_px) {
            let expected = format!("expected a multiple of the patch side of {patch_px} px");
            let hint = format!("{patch_px} and {} px would fit", patch_px * (unit / patch_px + 1).max(2));
            return Err(wrong("mask.unit_px", unit, expected, Some(hint)));
        }
        image_is_multiple_of(image_size, unit, "mask unit")?;
        within("mask.ratio", self.ratio, 0.0, 1.0)?;
        if self.ratio == 0.0 {
            return Err(wrong(
                "mask.ratio",
                self.ratio,
                "nothing would be hidden, so nothing would be learned".into(),
                None,
            ));
        }
        at_least_one("mask.min_block_units", self.min_block_units)?;
        in_order("mask.aspect", self.aspect, f64::INFINITY)
    }
}

/// Checks how pictures are cut into tiles.
fn tiles(data: &DataRecipe) -> Result<()> {
    size("data.tile", data.tile.unwrap_or(1), MAX_TILE_PX)?;
    size("data.tile_stride", data.tile_stride.unwrap_or(1), MAX_TILE_PX)?;
    within("data.tile_content", data.tile_content.unwrap_or(0.0), 0.0, 1.0)?;
    at_least_one("data.tiles_per_picture", data.tiles_per_picture.unwrap_or(1))?;
    for (key, value) in [
        ("data.tile_stride", data.tile_stride.map(|stride| stride.to_string())),
        ("data.tile_content", data.tile_content.map(|share| share.to_string())),
        ("data.tiles_per_picture", data.tiles_per_picture.map(|count| count.to_string())),
    ] {
        if let (Some(value), None) = (value, data.tile) {
            let hint = Some("`data.tile` is the side of a tile in pixels".into());
            return Err(wrong(key, value, "there are no tiles without `data.tile`".into(), hint));
        }
    }
    Ok(())
}

/// Checks the sections that all recipes share. The image size must be a multiple of `step_px`; `what` names that length
/// in errors.
///
/// # Errors
/// If a value does not fit; the error names the first such key and what would fit.
pub(super) fn common(data: &DataRecipe, train: &TrainRecipe, step_px: usize, what: &str) -> Result<()> {
    image_is_multiple_of(data.image_size, step_px, what)?;
    let (height, width) = data.image_size.height_and_width();
    let features = (height / step_px).saturating_mul(width / step_px);
    if features > MAX_FEATURES {
        let expected = format!("{features} features of {step_px} px, expected at most {MAX_FEATURES}");
        return Err(wrong("data.image_size", format!("[{height}, {width}]"), expected, None));
    }
    size("data.channels", data.channels, MAX_CHANNELS)?;
    if data.normalization == NormalizationKind::Imagenet && data.channels != 3 {
        let expected = format!("ImageNet's statistics have three channels, `data.channels` is {}", data.channels);
        return Err(wrong("data.normalization", "imagenet", expected, Some("set it to \"measured\"".into())));
    }
    in_order("data.crop_scale", data.crop_scale, 1.0)?;
    in_order("data.crop_ratio", data.crop_ratio, f64::INFINITY)?;
    within("data.flip", data.flip, 0.0, 1.0)?;
    within("data.max_skipped", data.max_skipped, 0.0, 1.0)?;
    window(data)?;
    tiles(data)?;
    within("train.layer_decay", train.layer_decay, 1e-6, 1.0)?;
    within("train.average_decay", train.average_decay, 0.0, 0.999_999_9)?;

    size("train.batch_size", train.batch_size, MAX_BATCH)?;
    at_least_one("train.accumulation_steps", train.accumulation_steps)?;
    if !train.batch_size.is_multiple_of(train.accumulation_steps) {
        let expected = format!("expected a divisor of `train.batch_size`, {}", train.batch_size);
        return Err(wrong("train.accumulation_steps", train.accumulation_steps, expected, None));
    }
    at_least_one("train.keep_checkpoints", train.keep_checkpoints)?;
    for (key, value) in [
        ("train.max_steps", train.max_steps),
        ("train.checkpoint_every_steps", train.checkpoint_every_steps),
        ("train.log_every_steps", train.log_every_steps),
        ("train.validate_every_steps", train.validate_every_steps),
    ] {
        at_least_one(key, value.unwrap_or(1) as usize)?;
    }
    for (key, value) in [
        ("train.base_lr", train.base_lr),
        ("train.warmup_lr", train.warmup_lr),
        ("train.min_lr", train.min_lr),
        ("train.weight_decay", train.weight_decay),
        ("train.clip_grad", train.clip_grad),
    ] {
        within(key, value, 0.0, f64::MAX)?;
    }
    positive("train.eps", f64::from(train.eps as f32))?;
    within("train.betas", train.betas.0, 0.0, 0.999_999_9)?;
    within("train.betas", train.betas.1, 0.0, 0.999_999_9)?;
    positive("train.epochs", train.epochs)?;
    if let Some(factor) = train.decay_factor {
        share_above_zero("train.decay_factor", factor)?;
    }
    if let Some(epochs) = train.decay_every_epochs {
        positive("train.decay_every_epochs", epochs)?;
    }
    let milestones = &train.milestones_epochs;
    let is_valid = |epoch: &f64| *epoch >= 0.0 && epoch.is_finite();
    if !milestones.iter().all(is_valid) || !milestones.is_sorted_by(|a, b| a < b) {
        let expected = "expected epochs in ascending order, each at least 0".into();
        return Err(wrong("train.milestones_epochs", format!("{milestones:?}"), expected, None));
    }
    within("train.warmup_epochs", train.warmup_epochs, 0.0, f64::MAX)?;
    let needs = |key: &str, schedule: &str| {
        Err(wrong(
            "train.schedule",
            schedule,
            format!("the schedule needs `{key}`"),
            Some(format!("add {key} to [train]")),
        ))
    };
    match train.schedule {
        ScheduleKind::Cosine | ScheduleKind::CosineAfterWarmup | ScheduleKind::Linear => Ok(()),
        ScheduleKind::Step if train.decay_every_epochs.is_none() => needs("decay_every_epochs", "step"),
        ScheduleKind::Multistep if train.milestones_epochs.is_empty() => needs("milestones_epochs", "multistep"),
        ScheduleKind::Step if train.decay_factor.is_none() => needs("decay_factor", "step"),
        ScheduleKind::Multistep if train.decay_factor.is_none() => needs("decay_factor", "multistep"),
        ScheduleKind::Step | ScheduleKind::Multistep => Ok(()),
    }
}

/// Checks the number of frozen blocks of an encoder of `depth` blocks; 0 for a model that has none.
///
/// # Errors
/// If there are fewer blocks.
pub(super) fn frozen_blocks(train: &TrainRecipe, depth: usize) -> Result<()> {
    if train.frozen_blocks > depth {
        let expected = match depth {
            0 => "this model has no encoder of blocks".to_owned(),
            _ => format!("the encoder has {depth} blocks"),
        };
        return Err(wrong("train.frozen_blocks", train.frozen_blocks, expected, Some("leave it out".into())));
    }
    Ok(())
}

fn image_is_multiple_of(size: ImageSize, step_px: usize, what: &str) -> Result<()> {
    let (height, width) = size.height_and_width();
    let is_multiple = height > 0 && width > 0 && height % step_px == 0 && width % step_px == 0;
    if is_multiple && height.max(width) <= MAX_IMAGE_PX {
        return Ok(());
    }
    if height.max(width) > MAX_IMAGE_PX {
        let expected = format!("expected at most {MAX_IMAGE_PX} px");
        return Err(wrong("data.image_size", format!("[{height}, {width}]"), expected, None));
    }
    let near = |px: usize| format!("{} or {}", (px / step_px).max(1) * step_px, (px / step_px + 1) * step_px);
    let (value, hint) = match height == width {
        true => (height.to_string(), format!("{} px would fit", near(height))),
        false => (
            format!("[{height}, {width}]"),
            format!("heights of {} and widths of {} px would fit", near(height), near(width)),
        ),
    };
    Err(wrong("data.image_size", value, format!("expected a multiple of the {what} of {step_px} px"), Some(hint)))
}
