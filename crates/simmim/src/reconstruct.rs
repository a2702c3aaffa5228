//! Pictures of what a model predicts: original, masked, prediction, and both together.

use crate::build::Builder;
use crate::error::{Error, Result};
use crate::found::Found;
use crate::mask::{Drawn, Grid, MaskStrategy, PixelBox, Rectangle, strategy};
use crate::model::{Hidden, SimMim};
use crate::picture::{Picture, Sheet};
use crate::precision;
use crate::recipe::{AnyRecipe, MaskRecipe, MaskStrategyName};
use crate::run::Resolved;
use crate::target::Shows;
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Image, Normalisation, Purpose, Transform};
use simmim_engine::{Backend, Cpu, Images, ParameterTable, Precision, Slot};
use std::path::Path;

/// A trained model, ready to predict.
pub struct Trained {
    model: SimMim,
    backend: Cpu,
    resolved: Resolved,
    damaged: Vec<Error>,
}

/// What to hide of an image.
#[derive(Clone, Debug)]
pub enum Hide {
    /// What the recipe hides in training.
    AsTrained,
    /// Units chosen by another strategy, as many as the recipe says.
    Strategy(MaskStrategyName),
    /// What is white in a grey drawing.
    Drawing(Image),
    /// A share of the units that a rectangle of the image touches; 1 hides the whole object.
    Rectangle {
        /// The rectangle in pixels of the image.
        around: PixelBox,
        /// Share of its units.
        share: f64,
    },
}

/// One image's pictures.
pub struct Reconstruction {
    /// Mean absolute error of the picture over the hidden pixels, in normalised units; none if it is not
    /// one of pixels.
    pub masked_l1: Option<f64>,
    /// What that error measures.
    pub measures: Shows,
    /// The same when every hidden pixel is the mean of the visible ones.
    pub mean_colour_l1: f64,
}

impl Trained {
    /// Loads a run folder (its newest sound checkpoint), a checkpoint folder or a weights file.
    ///
    /// # Errors
    /// If there is no such thing, or the weights do not fit their recipe.
    pub fn load(from: &Path, precision: Precision, threads: usize) -> Result<Self> {
        let Found { file: weights, known, damaged } = Found::at(from)?;
        let resolved = match known {
            Some((AnyRecipe::Pretrain(recipe), run)) => Resolved { recipe, run },
            Some((AnyRecipe::Finetune(_), _)) => {
                return Err(Error::Input {
                    what: format!("`{}` is a fine-tuned model, which predicts classes, not pixels", from.display()),
                    hint: Some("give what `simmim pretrain --out` wrote".into()),
                });
            }
            Some((AnyRecipe::Tokenizer(_), _)) => {
                return Err(Error::Input {
                    what: format!("`{}` is a tokenizer; its pictures are in the folder of its run", from.display()),
                    hint: Some("give what `simmim pretrain --out` wrote".into()),
                });
            }
            None => {
                return Err(Error::Input {
                    what: format!("`{}` does not say which recipe it belongs to", weights.path().display()),
                    hint: Some("weights written by `simmim pretrain` carry it in their metadata".into()),
                });
            }
        };
        let mut builder = Builder::default();
        let mut model = SimMim::new(&resolved.recipe, &resolved.run.colours(), &mut builder)?;
        model.use_threads(threads);
        let (table, _) = builder.finish();
        let values = weights.flat(&table, "")?;
        let backend = Cpu::new(table, precision, threads);
        backend.write_slot(Slot::Values, &values);
        Ok(Self { model, backend, resolved, damaged })
    }

    /// Recipe and circumstances of the training run.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What was wrong with checkpoints newer than the one that was loaded.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Names, shapes and ranges of the parameters.
    pub fn table(&self) -> &ParameterTable {
        self.backend.table()
    }

    /// Predicts one image file with a part hidden and writes the four pictures to the PNG file `picture`.
    ///
    /// # Errors
    /// If the image cannot be read, nothing of it would be hidden, or the picture cannot be written.
    pub fn reconstruct(&self, image: &Path, hide: &Hide, picture: &Path, seed: u64) -> Result<Reconstruction> {
        let (recipe, normalisation) = (&self.resolved.recipe, self.resolved.run.normalisation());
        let input = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        let bytes = std::fs::read(image).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                input(format!("there is no image `{}`", image.display()), "give JPEG, PNG or `.npy` files")
            }
            std::io::ErrorKind::IsADirectory => {
                input(format!("`{}` is a folder", image.display()), "give the images in it, as in `FOLDER/*.jpg`")
            }
            _ => Error::io(image)(e),
        })?;
        let decoded = simmim_data::decode(&bytes, &image.display().to_string(), recipe.data.channels)?;
        let (height, width) = recipe.data.image_size.height_and_width();
        let transform =
            Transform { height, width, augmentation: Augmentation::Centre, normalisation: normalisation.clone() };
        let mut pixels = vec![0.0; transform.values()];
        transform.apply(&decoded, &mut rng(seed, Purpose::Augment, 0, 0), &mut pixels);
        let images = Images { pixels: &pixels, count: 1, channels: recipe.data.channels, height, width };

        let grid = Grid { rows: height / recipe.mask.unit_px, columns: width / recipe.mask.unit_px };
        let strategy = self.strategy(hide, (decoded.height, decoded.width));
        let mask = strategy.sample(&mut rng(seed, Purpose::Mask, 0, 0), grid);
        if mask.count() == 0 {
            return Err(Error::Input {
                what: format!("the mask hides nothing of `{}`", image.display()),
                hint: Some("white is hidden in a drawing; what a crop to the middle leaves out does not count".into()),
            });
        }
        let hidden = self.model.hidden(&[mask]);
        let mut sheet = sheet();
        let prediction = push_pictures(&mut sheet, "", &self.backend, &self.model, &images, &hidden, &normalisation);

        if let Some(folder) = picture.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        sheet.save_png(picture)?;
        let (sum, count) = crate::baseline::mean_colour_error(&images, &hidden.pixels);
        let plane = height * width;
        let is_hidden = |i: usize| hidden.pixels[i % plane];
        let error = |i: usize| (pixels[i] as f64 - prediction[i] as f64).abs();
        let masked: f64 = (0..pixels.len()).filter(|i| is_hidden(*i)).map(error).sum();
        let per_value = |sum: f64| sum / count.max(1) as f64;
        Ok(Reconstruction {
            masked_l1: (self.model.shows() != Shows::Drawing).then(|| per_value(masked)),
            measures: self.model.shows(),
            mean_colour_l1: per_value(sum),
        })
    }
}

impl Trained {
    /// How an image of `image_px`, height and width, is masked.
    fn strategy(&self, hide: &Hide, image_px: (usize, usize)) -> Box<dyn MaskStrategy> {
        let recipe = &self.resolved.recipe;
        let input_px = recipe.data.image_size.height_and_width();
        match hide {
            Hide::AsTrained => strategy(&recipe.mask),
            Hide::Strategy(name) => strategy(&MaskRecipe { strategy: *name, ..recipe.mask }),
            Hide::Drawing(drawing) => Box::new(Drawn::new(drawing, input_px)),
            Hide::Rectangle { around, share } => Box::new(Rectangle::new(*around, image_px, input_px, *share)),
        }
    }
}

/// An empty sheet with the columns of [`push_pictures`].
pub(crate) fn sheet() -> Sheet {
    Sheet::new(["original", "masked", "prediction", "pasted"])
}

/// Adds one image's pictures to a sheet; returns the normalised prediction, `[C, H, W]`.
pub(crate) fn push_pictures<B: Backend>(
    sheet: &mut Sheet,
    caption: &str,
    b: &B,
    model: &SimMim,
    image: &Images,
    hidden: &Hidden,
    normalisation: &Normalisation,
) -> Vec<f32> {
    b.start(false);
    let prediction = model.reconstruct(b, image, hidden);
    let show = |pixels: &[f32]| {
        Picture::denormalised(
            pixels,
            image.channels,
            image.height,
            image.width,
            &normalisation.mean,
            &normalisation.std,
        )
    };
    let (original, predicted) = (show(image.pixels), show(&prediction));
    let masked = original.hide(&hidden.pixels);
    let pasted = original.paste(&predicted, &hidden.pixels);
    sheet.push_row(caption, &[original, masked, predicted, pasted]);
    prediction
}

/// Describes a trained model in a line.
pub fn describe(trained: &Trained) -> String {
    let run = &trained.resolved.run;
    format!(
        "{} parameters, trained on `{}` in {}; predicting in {}",
        trained.table().len(),
        run.data,
        run.precision,
        precision::name(trained.backend.precision())
    )
}
