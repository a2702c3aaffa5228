//! How other programs bring images to the size of a network, where their files say it.

use serde_json::Value;
use simmim_data::{Augmentation, CenterCrop, Filter};

/// Pillow's numbers of filters, as `resample` has them.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

/// How images are prepared, and what of it differs from what was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Preparation {
    /// Crop and filter; `None` if nothing is said.
    pub(super) augmentation: Option<Augmentation>,
    /// As sentences.
    pub(super) notes: Vec<String>,
}

impl Preparation {
    /// Reads transformers' `preprocessor_config.json`, or else the `pretrained_cfg` of timm's `config.json`.
    pub(super) fn of(preprocessor: &Value, pretrained: &Value) -> Self {
        match (preprocessor.as_object(), pretrained.as_object()) {
            (Some(_), _) => Self::of_transformers(preprocessor),
            (None, Some(_)) => Self::of_timm(pretrained),
            (None, None) => Self::default(),
        }
    }

    fn of_transformers(says: &Value) -> Self {
        let mut notes = Vec::new();
        let is = |key: &str, default: bool| says.get(key).and_then(Value::as_bool).unwrap_or(default);
        let filter = match says.get("resample").and_then(Value::as_u64) {
            Some(BICUBIC) => Filter::Bicubic,
            Some(BILINEAR) | None => Filter::Bilinear,
            Some(other) => {
                notes.push(format!("images are resized bilinearly, and not by the filter {other} of `resample`"));
                Filter::Bilinear
            }
        };
        let crops = is("do_center_crop", false);
        let (size, crop) = (&says["size"], &says["crop_size"]);
        let [shorter, height] = ["shortest_edge", "height"].map(|key| size.get(key).and_then(Value::as_f64));
        let cropped = crop.get("height").unwrap_or(crop).as_f64().filter(|side| crops && *side > 0.0);
        let augmentation = match (is("do_resize", true), shorter, height.or(size.as_f64())) {
            (false, ..) => {
                notes.push("images are resized to the size of the network, which `do_resize` does not say".into());
                None
            }
            (true, Some(shorter), _) => {
                let enlargement = cropped.map_or(1.0, |side| shorter / side).max(1.0);
                Some(Augmentation::CenterCrop(CenterCrop { enlargement, filter }))
            }
            (true, None, Some(_)) if !crops => Some(Augmentation::Whole(filter)),
            (true, None, Some(side)) => {
                notes.push("images keep their shape, where `size` changes it before the center is cropped".into());
                let enlargement = cropped.map_or(1.0, |cropped| side / cropped).max(1.0);
                Some(Augmentation::CenterCrop(CenterCrop { enlargement, filter }))
            }
            (true, None, None) => None,
        };
        Self { augmentation, notes }
    }

    fn of_timm(says: &Value) -> Self {
        let Some(share) = says.get("crop_pct").and_then(Value::as_f64).filter(|share| *share > 0.0) else {
            return Self::default();
        };
        let filter = match says.get("interpolation").and_then(Value::as_str) {
            Some("bilinear") => Filter::Bilinear,
            Some(_) | None => Filter::Bicubic,
        };
        let is_whole = says.get("crop_mode").and_then(Value::as_str) == Some("squash") && share >= 1.0;
        let augmentation = match is_whole {
            true => Augmentation::Whole(filter),
            false => Augmentation::CenterCrop(CenterCrop { enlargement: (1.0 / share).max(1.0), filter }),
        };
        Self { augmentation: Some(augmentation), notes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_transformers_and_timm_say_how_images_are_prepared() {
        let crop = |enlargement, filter| Some(Augmentation::CenterCrop(CenterCrop { enlargement, filter }));
        let check = |says: Value, expected: Option<Augmentation>, notes: usize| {
            let found = Preparation::of(&says, &Value::Null);
            assert_eq!((found.augmentation, found.notes.len()), (expected, notes), "{says}");
        };
        let whole = Some(Augmentation::Whole(Filter::Bilinear));
        check(json!({ "size": { "height": 224, "width": 224 }, "resample": 2 }), whole, 0); // ViTImageProcessor
        check(json!({ "size": 224 }), whole, 0); // ViTFeatureExtractor
        check(json!({ "size": 224, "resample": 1 }), whole, 1);
        check(
            json!({ "size": { "shortest_edge": 256 }, "do_center_crop": true, "crop_size": 224, "resample": 3 }),
            crop(256.0 / 224.0, Filter::Bicubic),
            0,
        );
        let sides = json!({ "height": 224, "width": 224 });
        check(
            json!({ "size": { "height": 256, "width": 256 }, "do_center_crop": true, "crop_size": sides }),
            crop(256.0 / 224.0, Filter::Bilinear),
            1,
        );
        check(json!({ "do_resize": false }), None, 1);
        check(json!({ "image_mean": [0.5] }), None, 0);
        let timm = |says: Value| Preparation::of(&Value::Null, &says).augmentation;
        assert_eq!(timm(json!({ "crop_pct": 0.875, "interpolation": "bicubic" })), crop(1.0 / 0.875, Filter::Bicubic));
        assert_eq!(timm(json!({ "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear" })), whole);
        assert_eq!(timm(json!({ "mean": [0.5] })), None);
    }
}
