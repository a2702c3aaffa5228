//! Reconstruction of an image by a pre-trained model: pictures of the original, the masked image and the prediction.

use super::{Picture, Sheet};
use crate::error::{Error, Result};
use crate::evaluation::mean_color_error;
use crate::masks::{Drawn, Grid, Mask, MaskStrategy, PixelBox, Rectangle, strategy};
use crate::model::SimMim;
use crate::precision;
use crate::recipe::{AnyRecipe, MaskRecipe, MaskStrategyName, edit};
use crate::run::{Resolved, located};
use crate::targets::PictureKind;
use crate::weights::{Builder, Import, LoadedWeights};
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Image, Normalization, Purpose};
use simmim_engine::{Backend, Device, Images, ParameterTable, Precision};
use std::path::Path;

/// A pre-trained model, ready to predict hidden pixels.
pub struct PretrainedModel<B> {
    model: SimMim,
    backend: B,
    resolved: Resolved,
    damaged: Vec<Error>,
    import: Option<Import>,
}

/// What is hidden of an image.
#[derive(Clone, Debug)]
pub enum MaskSource {
    /// A mask as in training, by the recipe.
    AsTrained,
    /// A mask by another strategy, with the ratio of the recipe.
    Strategy(MaskStrategyName),
    /// The white area of a grayscale drawing.
    Drawing(Image),
    /// A share of the units that overlap a rectangle of the image.
    Rectangle {
        /// The rectangle in pixels of the image.
        around: PixelBox,
        /// Share of the overlapping units to hide, above 0, at most 1.
        share: f64,
    },
}

/// Errors of the reconstruction of one image.
pub struct Reconstruction {
    /// Mean absolute error of the picture over the hidden pixels, in normalized units; `None` if the picture does not
    /// show pixels.
    pub masked_l1: Option<f64>,
    /// What the picture shows.
    pub measures: PictureKind,
    /// The same error for the baseline that predicts the mean of the visible pixels.
    pub mean_color_l1: f64,
}

impl<B: Backend> PretrainedModel<B> {
    /// Loads a run folder (its newest intact checkpoint), a checkpoint folder or a weights file, with `key.path=value`
    /// edits of its recipe, such as of its masks.
    ///
    /// # Errors
    /// If the path does not exist, is not a pre-trained model, the weights do not fit their recipe, or an edit does not
    /// fit.
    pub fn load<D: Device<Backend = B>>(
        from: &Path,
        edits: &[String],
        device: &D,
        precision: Precision,
    ) -> Result<Self> {
        let mut weights = LoadedWeights::at(from)?;
        let name = weights.file.path().display().to_string();
        let refuse =
            |what: String| Error::Input { what, hint: Some("give the output of `simmim pretrain --out`".into()) };
        let resolved = match weights.resolved.take() {
            Some((AnyRecipe::Pretrain(recipe), run)) => Resolved { recipe: edit(&name, recipe, edits)?, run },
            Some((AnyRecipe::Finetune(_), _)) => {
                let what = "is a fine-tuned model, which predicts classes, not pixels";
                return Err(refuse(format!("`{}` {what}", from.display())));
            }
            Some((AnyRecipe::Tokenizer(_), _)) => {
                let what = "is a tokenizer; its pictures are in the folder of its run";
                return Err(refuse(format!("`{}` {what}", from.display())));
            }
            None => {
                return Err(Error::Input {
                    what: format!("`{}` has no recipe in its metadata", weights.file.path().display()),
                    hint: Some("give weights that `simmim pretrain` wrote: they contain it".into()),
                });
            }
        };
        let mut builder = Builder::default();
        let located = located(weights.file.path(), AnyRecipe::Pretrain(resolved.recipe.clone()), &resolved.run)?;
        let AnyRecipe::Pretrain(located) = located else { unreachable!("a recipe keeps its kind") };
        let model = SimMim::new(&located, &resolved.run.colors(), device, &mut builder)?;
        let backend = weights.open(device, builder.finish().0, precision)?;
        Ok(Self { model, backend, resolved, damaged: weights.damaged, import: weights.import })
    }

    /// Recipe and facts of the training run.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What was taken over from the file of another program.
    pub fn import(&self) -> Option<&Import> {
        self.import.as_ref()
    }

    /// Errors of damaged checkpoints that are newer than the one that was loaded.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// The parameter table.
    pub fn table(&self) -> &ParameterTable {
        self.backend.table()
    }

    /// Masks and reconstructs one image file, and writes its four pictures to the PNG file `picture`.
    ///
    /// # Errors
    /// If the image cannot be read, the mask hides nothing, the prediction is not finite, or the picture cannot be
    /// written.
    pub fn reconstruct(
        &self,
        image: &Path,
        mask_source: &MaskSource,
        picture: &Path,
        seed: u64,
    ) -> Result<Reconstruction> {
        let (recipe, normalization) = (&self.resolved.recipe, self.resolved.run.normalization());
        let input = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        let bytes = std::fs::read(image).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                input(format!("there is no image `{}`", image.display()), "give pictures or `.npy` files")
            }
            std::io::ErrorKind::IsADirectory => {
                input(format!("`{}` is a folder", image.display()), "give the images in it, as in `FOLDER/*.jpg`")
            }
            _ => Error::io(image)(e),
        })?;
        let decoded = simmim_data::decode(&bytes, &image.display().to_string(), recipe.data.decoding())?;
        let (height, width) = recipe.data.image_size.height_and_width();
        let transform = recipe.data.transform(Augmentation::Center, normalization.clone());
        let mut pixels = vec![0.0; transform.values()];
        transform.apply(&decoded, &mut rng(seed, Purpose::Augment, 0, 0), &mut pixels);
        let images = recipe.data.images(&pixels);

        let grid = Grid { rows: height / recipe.mask.unit_px, columns: width / recipe.mask.unit_px };
        let strategy = self.strategy(mask_source, (decoded.height, decoded.width));
        let mask = strategy.sample(&mut rng(seed, Purpose::Mask, 0, 0), grid);
        if mask.count() == 0 {
            return Err(Error::Input {
                what: format!("the mask hides nothing of `{}`", image.display()),
                hint: Some("in a drawing, white is hidden; parts outside of the center crop do not count".into()),
            });
        }
        let mut sheet = prediction_sheet();
        let prediction = push_pictures(&mut sheet, "", &self.backend, &self.model, &images, &mask, &normalization);
        if let Some(value) = pixels.iter().chain(&prediction).find(|value| !value.is_finite()) {
            return Err(input(
                format!("a pixel of `{}` or of its prediction is {value}", image.display()),
                "the image or the weights have values that are too large to compute with",
            ));
        }

        if let Some(folder) = picture.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        sheet.save_png(picture)?;
        let hidden = self.model.hidden_pixels(&mask);
        let (sum, count) = mean_color_error(&images, &hidden);
        let plane = height * width;
        let is_hidden = |i: usize| hidden[i % plane];
        let error = |i: usize| (pixels[i] as f64 - prediction[i] as f64).abs();
        let masked: f64 = (0..pixels.len()).filter(|i| is_hidden(*i)).map(error).sum();
        let per_value = |sum: f64| sum / count.max(1) as f64;
        Ok(Reconstruction {
            masked_l1: (self.model.picture_kind() != PictureKind::Drawing).then(|| per_value(masked)),
            measures: self.model.picture_kind(),
            mean_color_l1: per_value(sum),
        })
    }

    /// The masking strategy for an image of `image_px`, `(height, width)`.
    fn strategy(&self, mask_source: &MaskSource, image_px: (usize, usize)) -> Box<dyn MaskStrategy> {
        let recipe = &self.resolved.recipe;
        let input_px = recipe.data.image_size.height_and_width();
        match mask_source {
            MaskSource::AsTrained => strategy(&recipe.mask),
            MaskSource::Strategy(name) => strategy(&MaskRecipe { strategy: *name, ..recipe.mask }),
            MaskSource::Drawing(drawing) => Box::new(Drawn::new(drawing, input_px)),
            MaskSource::Rectangle { around, share } => Box::new(Rectangle::new(*around, image_px, input_px, *share)),
        }
    }
}

/// An empty sheet with the columns of [`push_pictures`].
pub(crate) fn prediction_sheet() -> Sheet {
    Sheet::new(["original", "masked", "prediction", "pasted"])
}

/// Adds the pictures of one image to a sheet; returns the normalized prediction, `[C, H, W]`.
pub(crate) fn push_pictures<B: Backend>(
    sheet: &mut Sheet,
    caption: &str,
    b: &B,
    model: &SimMim,
    image: &Images,
    mask: &Mask,
    normalization: &Normalization,
) -> Vec<f32> {
    b.start(false);
    let batch_mask = model.batch_mask(std::slice::from_ref(mask));
    let prediction = model.reconstruct(b, image, batch_mask.all().patches);
    let hidden = model.hidden_pixels(mask);
    let show = |pixels: &[f32]| {
        Picture::denormalized(
            pixels,
            image.channels,
            image.height,
            image.width,
            &normalization.mean,
            &normalization.std,
        )
    };
    let (original, predicted) = (show(image.pixels), show(&prediction));
    let masked = original.hide(&hidden);
    let pasted = original.paste(&predicted, &hidden);
    sheet.push_row(caption, &[original, masked, predicted, pasted]);
    prediction
}

/// A one-line description of a trained model.
pub fn describe<B: Backend>(trained: &PretrainedModel<B>) -> String {
    let run = &trained.resolved.run;
    format!(
        "{} parameters, trained on `{}` in {}; predicting in {}",
        trained.table().len(),
        run.data,
        run.precision,
        precision::name(trained.backend.precision())
    )
}
