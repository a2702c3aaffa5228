//! JPEG files that are decoded at a part of their size have the pixels of Pillow's `draft`, and crops of them its `resize`.

use std::collections::BTreeMap;

use simmim_data::decode::decode_reduced;
use simmim_data::rng::rng;
use simmim_data::transform::resize;
use simmim_data::{
    Augmentation, CenterCrop, Encoded, Filter, Image, Normalization, Pixels, Purpose, RandomResizedCrop, Region,
    Transform, decode,
};

use crate::matrix::Matrix;

/// Height, width and checksum of the pixels of a file at 1/2, 1/4 and 1/8 of its size; `make_reduced.py` makes them.
type Reduced = BTreeMap<String, BTreeMap<usize, (usize, usize, u32)>>;

fn summary(image: &Image) -> (usize, usize, u32) {
    let Pixels::U8(pixels) = &image.pixels else { panic!("a JPEG has bytes") };
    let mut sum = flate2::Crc::new();
    sum.update(pixels);
    (image.height, image.width, sum.sum())
}

#[test]
fn reduced_jpeg_files_have_pillows_pixels() {
    let index = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/decode/reduced.json");
    let index: Reduced = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let pictures = Matrix::of("jpeg").pictures;
    let mut faults = Vec::new();
    let mut checked = 0;
    for (name, of_file) in &index {
        for (divisor, expected) in of_file {
            let mut size = None;
            let image = decode_reduced(&pictures[name], name, 3, &mut |height, width| {
                size = Some((height, width));
                *divisor
            })
            .unwrap();
            let part_of_size = size.map(|(height, width)| (height.div_ceil(*divisor), width.div_ceil(*divisor)));
            assert_eq!(part_of_size, Some((image.height, image.width)));
            if summary(&image) != *expected {
                faults.push(format!("{name} by {divisor}: {:?} instead of {expected:?}", summary(&image)));
            }
            checked += 1;
        }
    }
    assert!(faults.is_empty(), "{} of {checked}:\n{}", faults.len(), faults.join("\n"));
    assert!(checked > 500, "{checked}");
}

/// A photograph of 247 by 320 pixels.
fn photograph() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images/others-buffetset.jpg")).unwrap()
}

fn transform(side: usize, augmentation: Augmentation) -> Transform {
    Transform { height: side, width: side, augmentation, normalization: Normalization::none(3) }
}

fn decoded(bytes: &[u8], transform: &Transform, index: u64) -> Vec<f32> {
    let mut out = vec![0.0; transform.values()];
    let encoded = Encoded::file(bytes.to_vec(), 3, "photo".to_owned());
    transform.decode(encoded, &mut rng(1, Purpose::Augment, 0, index), &mut out).unwrap();
    out
}

fn applied(image: &Image, transform: &Transform, index: u64) -> Vec<f32> {
    let mut out = vec![0.0; transform.values()];
    transform.apply(image, &mut rng(1, Purpose::Augment, 0, index), &mut out);
    out
}

/// Checks that crops of `side` pixels are cut from the photograph at a part of its size.
#[track_caller]
fn check_crops(side: usize, divisor: usize) {
    let bytes = photograph();
    let (whole, reduced) =
        (decode(&bytes, "photo", 3).unwrap(), decode_reduced(&bytes, "photo", 3, &mut |_, _| divisor).unwrap());
    // the same area and shape every time, so that all crops are read at the same part
    let crop = RandomResizedCrop { scale: (0.5, 0.5), ratio: (1.0, 1.0), hflip: 0.0 };
    let transform = transform(side, Augmentation::RandomResizedCrop(crop));
    for index in 0..10 {
        let drawn = crop.draw(whole.height, whole.width, &mut rng(1, Purpose::Augment, 0, index));
        let [top, left, height, width] = drawn.bounds();
        let row = |row: f64| (row * reduced.height as f64 / whole.height as f64).round() as usize;
        let column = |column: f64| (column * reduced.width as f64 / whole.width as f64).round() as usize;
        let (top, left, bottom, right) = (row(top), column(left), row(top + height), column(left + width));
        let cut = Region::Cut { top, left, height: bottom - top, width: right - left };
        let Pixels::U8(expected) = resize(&reduced, cut, side, side, Filter::Bilinear).pixels else { panic!("bytes") };
        let planes = (0..3).flat_map(|channel| expected.iter().skip(channel).step_by(3));
        let expected: Vec<f32> = planes.map(|value| f32::from(*value) / 255.0).collect();
        let actual = decoded(&bytes, &transform, index);
        assert_eq!(actual, expected, "crop {index} of {side} pixels");
        // and the picture is the same
        let exact = applied(&whole, &transform, index);
        let apart = exact.iter().zip(&actual).map(|(exact, actual)| f64::from((exact - actual).abs())).sum::<f64>();
        assert!(apart / (exact.len() as f64) < 0.02, "crop {index} of {side} pixels: {apart}");
    }
}

#[test]
fn crops_that_are_made_smaller_are_cut_from_a_part_of_the_size() {
    // a square of half the area of 247 by 320 pixels has a side of 199
    check_crops(100, 1);
    check_crops(99, 2);
    check_crops(50, 2);
    check_crops(49, 4);
    check_crops(24, 8);
    check_crops(5, 8);
}

#[test]
fn what_is_evaluated_is_cut_from_the_whole_picture() {
    let bytes = photograph();
    let whole = decode(&bytes, "photo", 3).unwrap();
    for augmentation in [Augmentation::Center, Augmentation::CenterCrop(CenterCrop::default())] {
        let transform = transform(16, augmentation);
        assert_eq!(decoded(&bytes, &transform, 0), applied(&whole, &transform, 0));
    }
}
