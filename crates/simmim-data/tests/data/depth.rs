//! 16 bits keep their depth from the file to the network, however they are stored.

use ::image::{ImageBuffer, Luma};
use simmim_data::{Augmentation, Loader, LoaderConfig, Normalization, RandomResizedCrop, Transform, open};
use tempfile::tempdir;

use crate::files::{encoded, tar, write, zip};

const MEAN: f32 = 0.5;
const STD: f32 = 0.25;

/// Levels of 16 bits that are the same in 8.
const LEVELS: [u16; 4] = [0x8000, 0x8001, 0x8080, 0x80ff];

fn png(level: u16) -> Vec<u8> {
    let image: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_pixel(6, 5, Luma([level]));
    encoded(image)
}

/// A TIFF of one strip.
fn tiff(level: u16) -> Vec<u8> {
    let tags =
        [(256, 6), (257, 5), (258, 16), (259, 1), (262, 1), (273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, 5), (279, 60)];
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, value) in tags {
        bytes.extend([tag, 3_u16].map(u16::to_le_bytes).concat());
        bytes.extend([1, value].map(u32::to_le_bytes).concat());
    }
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(level.to_le_bytes().repeat(30));
    bytes
}

/// What the network gets of each image in `spec`.
fn inputs(spec: &str, channels: usize) -> Vec<Vec<f32>> {
    let transform = Transform {
        height: 4,
        width: 4,
        augmentation: Augmentation::RandomResizedCrop(RandomResizedCrop::default()),
        normalization: Normalization { mean: vec![MEAN; channels], std: vec![STD; channels] },
    };
    let config = LoaderConfig { batch_size: 4, rank: 0, world: 1, seed: 3, workers: 0, shuffle: false, prefetch: 1 };
    let mut loader = Loader::new(open(spec, channels).unwrap(), transform, config, 0).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!((batch.samples.as_slice(), batch.images.len()), ([0, 1, 2, 3].as_slice(), 4 * channels * 16), "{spec}");
    batch.images.chunks(channels * 16).map(<[f32]>::to_vec).collect()
}

#[test]
fn sixteen_bits_reach_the_network_from_every_form() {
    for (extension, picture) in [("png", png as fn(u16) -> Vec<u8>), ("tif", tiff)] {
        let root = tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let members: Vec<_> = (0..4).map(|number| (format!("{number}.{extension}"), picture(LEVELS[number]))).collect();
        let members: Vec<_> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        members.iter().for_each(|(name, bytes)| write(&at("folder").join(name), bytes));
        write(&at("x.zip"), &zip(&members, ::zip::CompressionMethod::Deflated));
        write(&at("x.tar"), &tar(&members));
        let mut forms = vec!["folder", "x.zip", "x.tar"];
        if cfg!(feature = "parquet") {
            write(&at("x.parquet"), &parquet(&members));
            forms.push("x.parquet");
        }
        for form in forms {
            for channels in [1, 3] {
                let inputs = inputs(&at(form).display().to_string(), channels);
                for (input, level) in inputs.iter().zip(LEVELS) {
                    let expected = (f32::from(level) / 65535.0 - MEAN) / STD;
                    // a weighted mean of equal values in f32; the next level is 6e-5 away
                    let is_near = input.iter().all(|value| (value - expected).abs() < 1e-5);
                    assert!(is_near, "{form} of {extension}, {channels} channels: {input:?} is not {expected}");
                }
            }
        }
    }
}

#[cfg(feature = "parquet")]
fn parquet<'a>(members: &[(&'a str, &'a [u8])]) -> Vec<u8> {
    use crate::parquet::{Row, written};
    let row = |(path, bytes): &(&'a str, &'a [u8])| Row { path: Some(*path), bytes: Some(*bytes), label: None };
    written(&members.iter().map(row).collect::<Vec<_>>(), &[], 3)
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &[(&str, &[u8])]) -> Vec<u8> {
    Vec::new()
}
