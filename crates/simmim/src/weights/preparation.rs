//! How other programs bring images to the size of a network: read where their files say it, kept in imported weights, and said in
//! exported ones.

use crate::error::{Error, Result};
use serde_json::{Value, json};
use simmim_data::{Augmentation, CenterCrop, Filter};
use std::path::Path;

/// The key of the preparation in the metadata of imported weights.
pub(super) const PREPARATION_KEY: &str = "preparation";

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

/// A preparation as the metadata of a file of ours; `None` if it is none of those that other programs say.
pub(super) fn to_metadata(augmentation: Augmentation) -> Option<String> {
    let says = match augmentation {
        Augmentation::CenterCrop(CenterCrop { enlargement, filter }) => {
            json!({ "resize": "shorter side", "enlargement": enlargement, "filter": filter_name(filter) })
        }
        Augmentation::Whole(filter) => json!({ "resize": "whole", "filter": filter_name(filter) }),
        Augmentation::Center | Augmentation::RandomResizedCrop(_) | Augmentation::FineTuning(_) => return None,
    };
    Some(says.to_string())
}

/// What [`to_metadata`] wrote to `path`.
///
/// # Errors
/// If it is something else.
pub(super) fn of_metadata(text: &str, path: &Path) -> Result<Augmentation> {
    let says: Value = serde_json::from_str(text).unwrap_or_default();
    let filter = match says["filter"].as_str() {
        Some("bilinear") => Some(Filter::Bilinear),
        Some("bicubic") => Some(Filter::Bicubic),
        _ => None,
    };
    let enlargement = says["enlargement"].as_f64().filter(|times| (1.0..=1e3).contains(times));
    match (says["resize"].as_str(), filter, enlargement) {
        (Some("whole"), Some(filter), _) => Ok(Augmentation::Whole(filter)),
        (Some("shorter side"), Some(filter), Some(enlargement)) => {
            Ok(Augmentation::CenterCrop(CenterCrop { enlargement, filter }))
        }
        _ => Err(Error::Damaged {
            path: path.to_owned(),
            reason: format!("its metadata has `{PREPARATION_KEY}`: `{text}`, which is no way to prepare images"),
        }),
    }
}

/// A filter as timm calls it.
pub(super) fn filter_name(filter: Filter) -> &'static str {
    match filter {
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
    }
}

/// Pillow's number of a filter, as transformers has it.
pub(super) fn filter_number(filter: Filter) -> u64 {
    match filter {
        Filter::Bilinear => BILINEAR,
        Filter::Bicubic => BICUBIC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn imported_weights_keep_how_images_are_prepared() {
        let path = Path::new("a.safetensors");
        for kept in [
            Augmentation::Whole(Filter::Bilinear),
            Augmentation::CenterCrop(CenterCrop { enlargement: 256.0 / 224.0, filter: Filter::Bicubic }),
        ] {
            assert_eq!(of_metadata(&to_metadata(kept).unwrap(), path).unwrap(), kept);
        }
        assert_eq!(to_metadata(Augmentation::Center), None);
        for wrong in ["", "{}", r#"{"resize":"shorter side","filter":"bicubic","enlargement":0.5}"#] {
            assert!(of_metadata(wrong, path).unwrap_err().to_string().contains("no way to prepare images"), "{wrong}");
        }
    }

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
