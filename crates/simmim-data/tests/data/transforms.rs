//! Transforms: images to normalized planes.

use simmim_data::rng::rng;
use simmim_data::{Augmentation, Image, Normalization, Pixels, Purpose, RandomResizedCrop, Transform, idx_from_bytes};

use crate::files::idx;

fn transform(height: usize, width: usize, augmentation: Augmentation, channels: usize) -> Transform {
    let normalization = Normalization { mean: vec![0.0; channels], std: vec![1.0; channels] };
    Transform { height, width, augmentation, normalization }
}

/// Applies the transform with the random numbers of image `index`, and returns values from 0 to 255.
fn apply(transform: &Transform, image: &Image, index: u64) -> Vec<f32> {
    let mut out = vec![f32::NAN; transform.values()];
    transform.apply(image, &mut rng(0, Purpose::Augment, 0, index), &mut out);
    out.iter().map(|value| value * 255.0).collect()
}

#[track_caller]
fn check_center(image: &Image, target: [usize; 2], expected: &[f32]) {
    let [height, width] = target;
    let actual = apply(&transform(height, width, Augmentation::Center, image.channels), image, 0);
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        // values are rounded to bytes after each of the two passes
        assert!((actual - expected).abs() <= 1.0, "{actual} is not {expected}");
    }
}

#[test]
fn a_center_crop_is_written_as_separate_channels() {
    // [3, 5, 2]: 50·y + 10·x, and 200 everywhere
    let pixels = (0..15).flat_map(|at| [50 * (at / 5) + 10 * (at % 5), 200]).collect();
    let image = Image { channels: 2, height: 3, width: 5, pixels: Pixels::U8(pixels) };
    let expected = [10.0, 20.0, 30.0, 60.0, 70.0, 80.0, 110.0, 120.0, 130.0];
    check_center(&image, [3, 3], &[expected.as_slice(), &[200.0; 9]].concat());
    // a target that is not square
    let expected = [10.0, 20.0, 30.0, 40.0, 60.0, 70.0, 80.0, 90.0];
    let wide = Image { height: 2, width: 6, pixels: Pixels::U8(row_by_row(2, 6)), channels: 1 };
    check_center(&wide, [2, 4], &expected);
}

fn row_by_row(height: u8, width: u8) -> Vec<u8> {
    (0..height).flat_map(|y| (0..width).map(move |x| 50 * y + 10 * x)).collect()
}

#[test]
fn values_are_normalized_channel_by_channel() {
    let image = Image { channels: 3, height: 1, width: 1, pixels: Pixels::U8(vec![0, 51, 255]) };
    let transform = Transform { normalization: Normalization::imagenet(), ..transform(1, 1, Augmentation::Center, 3) };
    let actual = apply(&transform, &image, 0);
    let expected = [(0.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1.0 - 0.406) / 0.225];
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        // values of up to about 3 after a few rounded operations
        assert!((actual / 255.0_f32 - expected).abs() < 1e-5, "{actual} is not {expected}");
    }
}

#[test]
fn half_of_the_crops_are_mirrored() {
    // values increase to the right, unless the image is mirrored
    let pixels = (0..16 * 16).map(|at| (at % 16 * 16) as u8).collect();
    let image = Image { channels: 1, height: 16, width: 16, pixels: Pixels::U8(pixels) };
    for (hflip, expected) in [(0.0, 0..=0), (1.0, 400..=400), (0.5, 150..=250)] {
        let crop = RandomResizedCrop { hflip, ..RandomResizedCrop::default() };
        let transform = transform(8, 8, Augmentation::RandomResizedCrop(crop), 1);
        let mirrored = (0..400).filter(|index| {
            let out = apply(&transform, &image, *index);
            out[0] > out[7]
        });
        let mirrored = mirrored.count();
        // with probability 1/2 the standard deviation is 10, and five of them are allowed
        assert!(expected.contains(&mirrored), "{mirrored} of 400 at {hflip}");
    }
}

#[test]
fn bytes_and_floats_are_transformed_alike() {
    let pixels: Vec<u8> = (0..40 * 30 * 6).map(|at| (at * 37 % 251) as u8).collect();
    let floats = pixels.iter().map(|value| f32::from(*value) / 255.0).collect();
    let image = Image { channels: 6, height: 40, width: 30, pixels: Pixels::U8(pixels) };
    let deep = Image { pixels: Pixels::F32(floats), ..image.clone() };
    let crop = Augmentation::RandomResizedCrop(RandomResizedCrop::default());
    for augmentation in [Augmentation::Center, crop] {
        let transform = transform(12, 20, augmentation, 6);
        for index in 0..10 {
            let pairs = apply(&transform, &image, index).into_iter().zip(apply(&transform, &deep, index));
            for (byte, float) in pairs {
                // the bytes are rounded after each of the two passes
                assert!((byte - float).abs() <= 1.01, "{byte} is not {float}");
            }
        }
    }
}

#[test]
fn any_size_of_image_is_transformed() {
    let crop = Augmentation::RandomResizedCrop(RandomResizedCrop::default());
    for (height, width) in [(1, 1), (1, 300), (300, 1), (31, 33), (2, 3)] {
        let image = Image { channels: 1, height, width, pixels: Pixels::U8(vec![100; height * width]) };
        for augmentation in [Augmentation::Center, crop] {
            let actual = apply(&transform(32, 16, augmentation, 1), &image, 1);
            assert!(actual.iter().all(|value| (value - 100.0).abs() < 1e-3), "{height} by {width}");
        }
    }
}

#[test]
fn mean_and_deviation_are_measured() {
    // two images of 1 by 2 pixels: 0 and 255, 51 and 51
    let source = idx_from_bytes(&idx(&[2, 1, 2], &[0, 255, 51, 51]), None, 3).unwrap();
    let actual = Normalization::measure(&*source, 100).unwrap();
    let mean = (0.0 + 1.0 + 0.2 + 0.2) / 4.0_f64;
    let std = ((1.0 + 0.04 + 0.04) / 4.0 - mean * mean).sqrt();
    assert_eq!(actual, Normalization { mean: vec![mean as f32; 3], std: vec![std as f32; 3] });
    // only the first image; then a source with only one gray level
    let first = Normalization::measure(&*source, 1).unwrap();
    assert_eq!(first, Normalization { mean: vec![0.5; 3], std: vec![0.5; 3] });
    let flat = idx_from_bytes(&idx(&[1, 1, 2], &[0, 0]), None, 1).unwrap();
    assert_eq!(Normalization::measure(&*flat, 9).unwrap().std, [1e-3]);
}
