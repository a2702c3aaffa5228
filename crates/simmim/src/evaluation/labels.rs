//! Checks of the labels of training and held-out images, and class weights.

use crate::error::{Error, Result};
use crate::recipe::{ClassWeights, LabelsPerImage};
use simmim_data::{Relabeled, Source};
use std::sync::Arc;

/// Largest number of classes that an error lists by name.
const LISTED: usize = 8;

/// The classes of training images; `description` names the images in errors.
///
/// # Errors
/// If there are no labels, an image has no label or too many, there is only one class, or no class has two images.
pub fn checked_classes(source: &dyn Source, description: &str, per_image: LabelsPerImage) -> Result<Vec<String>> {
    let classes = labeled(source, description, per_image)?;
    let sizes = class_sizes(source);
    let most = sizes.iter().max().copied().unwrap_or(0);
    let used = sizes.iter().filter(|size| **size > 0).count();
    if used < 2 {
        return Err(Error::Input {
            what: format!("all images of `{description}` are of one class, `{}`", classes[0]),
            hint: Some("at least two classes are needed: make a sub-folder of images for each".into()),
        });
    }
    if most < 2 {
        return Err(Error::Input {
            what: format!("each of the {used} classes of `{description}` has one image only"),
            hint: Some("a class is a sub-folder with all its images, not a folder around each image".into()),
        });
    }
    Ok(classes)
}

/// The same images with labels that index `classes`, the classes of training.
///
/// # Errors
/// If an image has no label, or a class that training does not know.
pub fn relabeled(
    source: Arc<dyn Source>,
    description: &str,
    classes: &[String],
    per_image: LabelsPerImage,
) -> Result<Arc<dyn Source>> {
    let own_classes = labeled(source.as_ref(), description, per_image)?;
    let used = class_sizes(source.as_ref());
    let index_of = |name: &String| classes.iter().position(|class| class == name);
    let unknown: Vec<String> = own_classes
        .iter()
        .zip(&used)
        .filter(|(name, used)| **used > 0 && index_of(name).is_none())
        .map(|(name, _)| quoted(name))
        .collect();
    if !unknown.is_empty() {
        let known = classes.iter().take(LISTED).map(quoted).collect::<Vec<_>>().join(", ");
        let more = if classes.len() > LISTED { ", …" } else { "" };
        let shown = unknown.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
        return Err(Error::Input {
            what: format!("{} of the classes of `{description}` {shown} are not known from training", unknown.len()),
            hint: Some(format!("training has {} classes: {known}{more}", classes.len())),
        });
    }
    if own_classes == classes {
        return Ok(source);
    }
    // an unknown class without images gets any number: no image uses it
    let map = own_classes.iter().map(|name| index_of(name).unwrap_or(0)).collect();
    Ok(Arc::new(Relabeled::new(source, map, classes.to_vec())))
}

fn quoted(name: &String) -> String {
    format!("`{name}`")
}

/// The classes of a source, after checking that every image has a valid number of labels.
fn labeled(source: &dyn Source, description: &str, per_image: LabelsPerImage) -> Result<Vec<String>> {
    if source.classes().is_empty() {
        if let Some(why) = source.why_unlabeled() {
            return Err(why.into());
        }
        return Err(Error::Input {
            what: format!("the images of `{description}` have no labels"),
            hint: Some(
                "put them into a sub-folder for each class, or give a list with a column `label` or `labels`, shards with `.cls` \
                 or IDX files with labels"
                    .into(),
            ),
        });
    }
    let is_one = |index: &usize| source.labels(*index).len() == 1 || !source.is_labeled(*index);
    let other = (0..source.len()).find(|index| per_image == LabelsPerImage::One && !is_one(index));
    if let Some(index) = other {
        return Err(Error::Input {
            what: format!("`{}` of `{description}` is of {} classes", source.name(index), source.labels(index).len()),
            hint: Some(
                "`finetune` learns any number of classes for each image, with --set labels.per_image=many; all else wants one"
                    .into(),
            ),
        });
    }
    let unlabeled: Vec<usize> = (0..source.len()).filter(|index| !source.is_labeled(*index)).collect();
    match unlabeled.first() {
        None => Ok(source.classes().to_vec()),
        Some(first) => Err(Error::Input {
            what: format!(
                "{} of the {} images of `{description}` have no label, the first is `{}`",
                unlabeled.len(),
                source.len(),
                source.name(*first)
            ),
            hint: Some(
                "label every image, or leave those out: in a shard, each image needs a `.cls` next to it".into(),
            ),
        }),
    }
}

/// Number of images of each class.
fn class_sizes(source: &dyn Source) -> Vec<usize> {
    let mut sizes = vec![0; source.classes().len()];
    (0..source.len()).flat_map(|index| source.labels(index)).for_each(|label| sizes[label] += 1);
    sizes
}

/// Weight of each class in the loss. The mean weight is 1: over images if each has one label, else over classes.
pub(crate) fn class_weights(source: &dyn Source, weights: ClassWeights, per_image: LabelsPerImage) -> Vec<f32> {
    let sizes = class_sizes(source);
    match weights {
        ClassWeights::None => vec![1.0; sizes.len()],
        ClassWeights::Balanced => {
            let used = sizes.iter().filter(|size| **size > 0).count();
            let rarities: Vec<f64> =
                sizes.iter().map(|size| if *size == 0 { 0.0 } else { 1.0 / *size as f64 }).collect();
            let mean = match per_image {
                LabelsPerImage::One => used as f64 / source.len() as f64,
                LabelsPerImage::Many => rarities.iter().sum::<f64>() / used as f64,
            };
            rarities.iter().map(|rarity| (rarity / mean) as f32).collect()
        }
    }
}
