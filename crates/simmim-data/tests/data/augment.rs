//! Augmentations, compared with timm and Pillow on the same images (`testdata/augment/make_fixtures.py`).

use std::path::Path;

use serde_json::Value;
use simmim_data::rng::rng;
use simmim_data::transform::{OPERATIONS, Operation, resize};
use simmim_data::{
    Augmentation, CenterCrop, ColorJitter, Distortion, Filter, FineTuning, Image, Interpolation, Mixture,
    Normalization, Pixels, Purpose, RandAugment, RandomErasing, RandomResizedCrop, Region, Transform, decode,
    soft_targets,
};

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];

struct Fixtures {
    cases: Value,
    sheet: Image,
}

fn fixtures() -> Fixtures {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/augment");
    let cases = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let sheet = decode(&std::fs::read(folder.join("sheet.png")).unwrap(), "sheet.png", 3).unwrap();
    Fixtures { cases, sheet }
}

impl Fixtures {
    fn list(&self, name: &str) -> &[Value] {
        let cases = self.cases[name].as_array().unwrap();
        assert!(!cases.is_empty(), "there are cases of {name}");
        cases
    }

    /// The image that starts at a row of the sheet: `place` is `[top, height, width]`.
    fn image(&self, place: &Value, channels: usize) -> Image {
        let [top, height, width] = numbers(place)[..] else { panic!("a place is three numbers: {place}") };
        let Pixels::U8(sheet) = &self.sheet.pixels else { panic!("the sheet is of bytes") };
        let rows = sheet.chunks_exact(self.sheet.width * 3).skip(top).take(height);
        let pixels = Pixels::U8(rows.flat_map(|row| &row[..width * 3]).copied().collect());
        Image { channels: 3, height, width, pixels }.with_channels(channels, "tile").unwrap()
    }
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn filter(case: &Value) -> Filter {
    match case["filter"].as_str().unwrap() {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        other => panic!("no filter `{other}`"),
    }
}

fn bytes(image: &Image) -> &[u8] {
    match &image.pixels {
        Pixels::U8(pixels) => pixels,
        Pixels::F32(_) => panic!("bytes became floats"),
    }
}

/// The share of values that differ, and the greatest difference.
fn difference(actual: &Image, expected: &Image) -> (f64, u8) {
    assert_eq!([actual.height, actual.width, actual.channels], [expected.height, expected.width, expected.channels]);
    let differences = bytes(actual).iter().zip(bytes(expected)).map(|(actual, expected)| actual.abs_diff(*expected));
    let count = differences.clone().filter(|difference| *difference > 0).count();
    (count as f64 / bytes(actual).len() as f64, differences.max().unwrap())
}

#[test]
fn all_fifteen_operations_are_those_of_pillow_to_the_bit() {
    let fixtures = fixtures();
    let mut names = std::collections::HashSet::new();
    for case in fixtures.list("operations") {
        let name = case["name"].as_str().unwrap();
        let (_, operation) = OPERATIONS.iter().find(|(other, _)| *other == name).unwrap();
        let operation = operation(case["magnitude"].as_f64().unwrap(), case["sign"].as_f64().unwrap());
        let channels = case["channels"].as_u64().unwrap() as usize;
        let mut image = fixtures.image(&case["input"], channels);
        operation.apply(&mut image, filter(case), &MEAN[..channels]);
        let (share, greatest) = difference(&image, &fixtures.image(&case["output"], channels));
        assert_eq!(greatest, 0, "{operation:?} of {channels} channels: {share} differ");
        names.insert(name);
    }
    assert_eq!(names.len(), OPERATIONS.len());
}

/// Checks for equality up to rounding: the weights of Pillow have 22 bits, ours at most 16.
#[track_caller]
fn check_resized(actual: &Image, expected: &Image) {
    let (share, greatest) = difference(actual, expected);
    assert!(greatest <= 1 && share < 0.02, "{share} differ by up to {greatest}");
}

#[test]
fn resized_crops_are_those_of_pillow_up_to_rounding() {
    let fixtures = fixtures();
    for case in fixtures.list("crops") {
        let [top, left, height, width] = numbers(&case["box"])[..] else { panic!("a box is four numbers") };
        let expected = fixtures.image(&case["output"], 3);
        let region = Region::Cut { top, left, height, width };
        let image = fixtures.image(&case["input"], 3);
        check_resized(&resize(&image, region, expected.height, expected.width, filter(case)), &expected);
    }
}

#[test]
fn center_crops_are_those_of_torchvision_up_to_rounding() {
    let fixtures = fixtures();
    let crop = CenterCrop::default();
    for case in fixtures.list("centers") {
        let image = fixtures.image(&case["input"], 3);
        let expected = fixtures.image(&case["output"], 3);
        let region = crop.region(image.height, image.width, expected.height, expected.width);
        check_resized(&resize(&image, region, expected.height, expected.width, crop.filter), &expected);
    }
}

#[test]
fn erased_rectangles_are_those_of_timm() {
    let fixtures = fixtures();
    for case in fixtures.list("erasings") {
        let [height, width] = ["height", "width"].map(|side| case[side].as_u64().unwrap() as usize);
        let quantiles = [0, 1].map(|i: usize| case["places"][i].as_f64().unwrap());
        let expected = (!case["sides"].is_null()).then(|| numbers(&case["sides"]));
        let actual = RandomErasing::default().sides(height, width, quantiles).map(Vec::from);
        assert_eq!(actual, expected, "{case}");
    }
}

#[test]
fn batches_are_mixed_as_in_timm() {
    let fixtures = fixtures();
    let mixes = &fixtures.cases["mixes"];
    let [_, channels, height, width] = numbers(&mixes["shape"])[..] else { panic!("a shape is four numbers") };
    let (labels, classes) = (numbers(&mixes["labels"]), mixes["classes"].as_u64().unwrap() as usize);
    let cases = mixes["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let share = case["share"].as_f64().unwrap();
        let mixture = if case["middle"].is_null() {
            Mixture::Mixup { share }
        } else {
            let middle = numbers(&case["middle"]);
            Mixture::cut(height, width, share, [middle[0], middle[1]])
        };
        let mut images = floats(&mixes["images"]);
        mixture.mix_images(&mut images, [channels, height, width]);
        assert_eq!(images, floats(&case["mixed"]), "{mixture:?}");
        let mut targets = soft_targets(&labels, classes, mixes["smoothing"].as_f64().unwrap());
        mixture.mix_targets(&mut targets, classes);
        assert_eq!(targets, floats(&case["targets"]), "{mixture:?}");
    }
}

/// A photograph with `channels` channels, and a transform for it.
fn photograph(channels: usize, tuning: FineTuning) -> (Image, Transform) {
    let fixtures = fixtures();
    let color = fixtures.image(&fixtures.cases["crops"][0]["input"], 3);
    let Pixels::U8(pixels) = &color.pixels else { panic!("the sheet is of bytes") };
    let pixels = pixels.chunks_exact(3).flat_map(|color| (0..channels).map(|channel| color[channel % 3]));
    let image = Image { channels, pixels: Pixels::U8(pixels.collect()), ..color.clone() };
    let normalization = Normalization { mean: vec![0.5; channels], std: vec![0.25; channels] };
    let transform = Transform { height: 40, width: 32, augmentation: Augmentation::FineTuning(tuning), normalization };
    (image, transform)
}

fn apply(image: &Image, transform: &Transform, index: u64) -> Vec<f32> {
    let mut out = vec![f32::NAN; transform.values()];
    transform.apply(image, &mut rng(0, Purpose::Augment, 0, index), &mut out);
    out
}

const PLAIN: FineTuning = FineTuning {
    crop: RandomResizedCrop { scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0), hflip: 0.5 },
    interpolation: Interpolation::Bilinear,
    distortion: Distortion::None,
    erasing: None,
};

#[test]
fn with_everything_off_fine_tuning_crops_like_pre_training() {
    let (image, transform) = photograph(3, PLAIN);
    let plain = Transform { augmentation: Augmentation::RandomResizedCrop(PLAIN.crop), ..transform.clone() };
    for index in 0..20 {
        assert!(apply(&image, &transform, index) == apply(&image, &plain, index), "image {index}");
    }
}

#[test]
fn every_part_changes_some_images_and_all_stay_finite() {
    let jitter = Distortion::ColorJitter(ColorJitter::uniform(0.4));
    let operations = Distortion::RandAugment(RandAugment::default());
    let erasing = Some(RandomErasing::default());
    for (tuning, low, high) in [
        // of 400 images 3/4 have an operation, of which about a seventh change nothing here; all are jittered; 1/4 are
        // erased
        (FineTuning { distortion: operations, ..PLAIN }, 200, 330),
        (FineTuning { distortion: jitter, ..PLAIN }, 390, 400),
        (FineTuning { erasing, ..PLAIN }, 57, 143),
        // half of the images have the other filter, which does not change crops of one color
        (FineTuning { interpolation: Interpolation::Random, ..PLAIN }, 140, 250),
        (FineTuning { interpolation: Interpolation::Bicubic, ..PLAIN }, 380, 400),
    ] {
        for channels in [1, 3, 5] {
            let (image, plain) = photograph(channels, PLAIN);
            let (_, transform) = photograph(channels, tuning);
            let changed = (0..400).filter(|index| {
                let actual = apply(&image, &transform, *index);
                assert!(actual.iter().all(|value| value.is_finite()));
                actual != apply(&image, &plain, *index)
            });
            let changed = changed.count();
            assert!((low..=high).contains(&changed), "{changed} of 400, {channels} channels, {tuning:?}");
        }
    }
}

#[test]
fn jitter_stays_within_its_range_and_has_every_order() {
    let mut orders = std::collections::HashSet::new();
    for index in 0..400 {
        let jitter = ColorJitter { brightness: 0.4, contrast: 0.2, saturation: 1.5 };
        let operations = jitter.draw(&mut rng(0, Purpose::Augment, 0, index));
        for operation in operations {
            let is_within = matches!(operation, Operation::Brightness { factor } if (0.6..1.4).contains(&factor))
                || matches!(operation, Operation::Contrast { factor } if (0.8..1.2).contains(&factor))
                || matches!(operation, Operation::Color { factor } if (0.0..2.5).contains(&factor));
            assert!(is_within, "{operation:?}");
        }
        orders.insert(operations.map(|operation| std::mem::discriminant(&operation)));
    }
    assert_eq!(orders.len(), 6);
}
