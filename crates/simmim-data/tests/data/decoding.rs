//! Decoding: bytes to pixels.

use ::image::{ImageBuffer, Luma, LumaA, Rgb, RgbImage, RgbaImage};
use simmim_data::rng::{Purpose, rng};
use simmim_data::{Augmentation, Error, Image, Normalization, Pixels, RandomResizedCrop, Transform, decode};

use crate::files::{encoded, gray, npy, photos};

#[track_caller]
fn check(bytes: &[u8], channels: usize, size: [usize; 3], expected: Pixels) {
    let image = decode(bytes, "test", channels).unwrap();
    let [height, width, channels] = size;
    assert_eq!(image, Image { channels, height, width, pixels: expected });
}

#[test]
fn eight_bit_pngs_stay_bytes_and_get_the_wanted_channels() {
    let color = encoded(RgbImage::from_raw(2, 1, vec![1, 2, 3, 255, 0, 0]).unwrap());
    check(&color, 3, [1, 2, 3], Pixels::U8(vec![1, 2, 3, 255, 0, 0]));
    check(&color, 1, [1, 2, 1], Pixels::U8(vec![2, 76]));
    check(&color, 4, [1, 2, 4], Pixels::U8(vec![1, 2, 3, 255, 255, 0, 0, 255]));
    let transparent = encoded(RgbaImage::from_raw(1, 1, vec![1, 2, 3, 9]).unwrap());
    check(&transparent, 3, [1, 1, 3], Pixels::U8(vec![1, 2, 3]));
    check(&transparent, 4, [1, 1, 4], Pixels::U8(vec![1, 2, 3, 9]));
    let Pixels::U8(pixels) = decode(&gray(7), "gray", 3).unwrap().pixels else { panic!("bytes became floats") };
    assert_eq!(pixels, [7; 6 * 5 * 3]);
}

#[test]
fn sixteen_bit_pngs_keep_their_depth() {
    let values = [0, 1, 256, 65535];
    let expected = values.map(|value| f32::from(value) / 65535.0).to_vec();
    let image: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(2, 2, values.to_vec()).unwrap();
    check(&encoded(image), 1, [2, 2, 1], Pixels::F32(expected.clone()));
    let image: ImageBuffer<LumaA<u16>, _> = ImageBuffer::from_raw(2, 1, values.to_vec()).unwrap();
    check(&encoded(image), 2, [1, 2, 2], Pixels::F32(expected));
    let image: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_raw(1, 1, vec![300, 300, 300_u16]).unwrap();
    let third = 300.0 / 65535.0;
    check(&encoded(image), 4, [1, 1, 4], Pixels::F32(vec![third, third, third, 1.0]));
}

#[test]
fn photographs_are_decoded_by_content() {
    let mut photographs = 0;
    for entry in std::fs::read_dir(photos()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            let image = decode(&std::fs::read(&path).unwrap(), "no-extension", 3).unwrap();
            assert!(image.height > 100 && image.width > 100, "{path:?}");
            let Pixels::U8(pixels) = image.pixels else { panic!("{path:?} became floats") };
            assert_eq!(pixels.len(), image.height * image.width * 3);
            photographs += 1;
        }
    }
    assert_eq!(photographs, 3);
}

#[test]
fn arrays_have_any_number_of_channels() {
    let bytes: Vec<u8> = (0..30).collect();
    check(&npy("|u1", false, "(2, 3, 5)", &bytes), 5, [2, 3, 5], Pixels::U8(bytes.clone()));
    check(&npy("|u1", false, "(5, 6)", &bytes), 1, [5, 6, 1], Pixels::U8(bytes));
    let words = [0, 1, 0x1234, 0xffff_u16];
    let expected = Pixels::F32(words.map(|word| f32::from(word) / 65535.0).to_vec());
    check(&npy("<u2", false, "(2, 2)", &words.map(u16::to_le_bytes).concat()), 1, [2, 2, 1], expected.clone());
    check(&npy(">u2", false, "(2, 2)", &words.map(u16::to_be_bytes).concat()), 1, [2, 2, 1], expected);
    let floats = [0.0, -1.5, 0.25, 7.0_f32];
    let data = floats.map(f32::to_le_bytes).concat();
    check(&npy("<f4", false, "(1, 2, 2)", &data), 2, [1, 2, 2], Pixels::F32(floats.to_vec()));
    check(&npy("|u1", false, "(1, 2)", &[3, 4]), 3, [1, 2, 3], Pixels::U8(vec![3, 3, 3, 4, 4, 4]));
}

#[test]
fn arrays_in_column_order_are_read_in_row_order() {
    // a [2, 3, 2] array with the value 100·y + 10·x + channel at [y, x, channel]; in `columns` y changes fastest
    let mut columns = Vec::new();
    let mut rows = vec![0; 12];
    for channel in 0..2 {
        for x in 0..3 {
            for y in 0..2 {
                let value = 100 * y + 10 * x + channel;
                columns.push(value as u8);
                rows[(y * 3 + x) * 2 + channel] = value as u8;
            }
        }
    }
    check(&npy("|u1", true, "(2, 3, 2)", &columns), 2, [2, 3, 2], Pixels::U8(rows));
}

#[track_caller]
fn check_refused(bytes: &[u8], channels: usize, expected: &str) {
    let error = decode(bytes, "some.name", channels).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`some.name`") && message.contains(expected), "{message}");
    assert!(error.is_users_fault());
}

#[test]
fn broken_and_unsupported_files_are_refused_with_a_reason() {
    check_refused(
        b"%!PS",
        3,
        "not a JPEG, PNG, WebP, TIFF, GIF, BMP, DICOM or `.npy` file: it starts with [25, 21, 50, 53]",
    );
    check_refused(b"\0\0\0\x18ftypheic", 3, "is a HEIC image, which is not read");
    check_refused(b"GIF89a", 3, "cannot decode");
    check_refused(b"", 3, "starts with []");
    check_refused(&gray(1)[..40], 3, "cannot decode");
    check_refused(b"\xff\xd8\xff\xe0", 3, "cannot decode");
    check_refused(&gray(1), 5, "has 1 channels where 5 are wanted");
    check_refused(&npy("|u1", false, "(1, 1, 5)", &[0; 5]), 3, "has 5 channels where 3 are wanted");
    // nothing says that the last one is alpha
    check_refused(&npy("|u1", false, "(1, 1, 4)", &[0; 4]), 3, "has 4 channels where 3 are wanted");
    check_refused(&npy("|u1", false, "(1, 1, 2)", &[0; 2]), 1, "has 2 channels where 1 are wanted");
    check_refused(&npy("|u1", false, "(4,)", &[0; 4]), 1, "shape [4]");
    check_refused(&npy("|u1", false, "(1, 2, 3, 4)", &[0; 24]), 1, "shape [1, 2, 3, 4]");
    check_refused(&npy("|u1", false, "(4, 4, 0)", &[]), 1, "shape [4, 4, 0]");
    check_refused(&npy("|u1", false, "(0, 4)", &[]), 1, "has 0 by 4 pixels");
    check_refused(&npy("<i4", false, "(1, 1)", &[0; 4]), 1, "'<i4'");
    check_refused(&npy("|u1", false, "(2, 2)", &[0; 3]), 1, "unexpected end of file");
    check_refused(&npy("|u1", false, "(2147483648, 2147483648)", &[0; 3]), 1, "unexpected end of file");
    // the reader of arrays overflows, which is a panic with overflow checks and an error without them
    check_refused(&npy("|u1", false, "(4294967296, 4294967296)", &[0; 3]), 1, "array");
    check_refused(&npy("<f4", false, "(1, 1)", &f32::NAN.to_le_bytes()), 1, "not finite");
    check_refused(b"\x93NUMPY\x01", 1, "cannot read the array");
}

#[test]
fn sixteen_bits_reach_the_model() {
    // two levels of 65,536 that are the same of 256
    let normalized = |level: u16| {
        let image: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_pixel(6, 5, Luma([level]));
        let mut out = vec![0.0; 3 * 4 * 4];
        let transform = Transform {
            height: 4,
            width: 4,
            augmentation: Augmentation::RandomResizedCrop(RandomResizedCrop::default()),
            normalization: Normalization { mean: vec![0.5; 3], std: vec![0.25; 3] },
        };
        let image = decode(&encoded(image), "gray", 3).unwrap();
        transform.apply(&image, &mut rng(1, Purpose::Augment, 0, 0), &mut out);
        out
    };
    for level in [0x8000_u16, 0x8001, 0x80ff] {
        let expected = (f32::from(level) / 65535.0 - 0.5) / 0.25;
        for value in normalized(level) {
            // a weighted mean of equal values in f32; the next level is 6e-5 away
            assert!((value - expected).abs() < 1e-5, "{value} is not {expected}");
        }
    }
}

#[test]
fn a_jpeg_that_is_cut_short_anywhere_is_refused() {
    let whole = std::fs::read(photos().join("tools-plier1.jpg")).unwrap();
    for length in [whole.len() - 1, whole.len() - 2, whole.len() / 2, whole.len() / 5] {
        check_refused(&whole[..length], 3, "cut short");
    }
    let expected = decode(&whole, "whole", 3).unwrap();
    assert_eq!(decode(&[&whole[..], b"something after it"].concat(), "whole", 3).unwrap(), expected);
    // the application data contains a thumbnail, which has its own end marker
    let thumbnail = [&whole[..2], &[0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xda, 0xff, 0xd9], &whole[2..]].concat();
    assert_eq!(decode(&thumbnail, "with thumbnail", 3).unwrap(), expected);
    check_refused(&thumbnail[..thumbnail.len() / 2], 3, "cut short");
    check_refused(&[&whole[..whole.len() / 2], &whole].concat(), 3, "cut short");
}

/// A PNG of which the header says that it is gray with this side and depth in bits.
fn claiming(side: u32, depth: u8) -> Vec<u8> {
    let mut png = gray(1);
    // the header chunk starts at byte 8: a length of 4 bytes, `IHDR`, width, height, depth, four other bytes, a checksum
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    png[24] = depth;
    let mut checksum = flate2::Crc::new();
    checksum.update(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    png
}

#[test]
fn an_image_is_refused_by_the_memory_that_it_will_take() {
    let check = |bytes: &[u8], channels: usize, expected: u64| {
        let error = decode(bytes, "bomb", channels).unwrap_err();
        assert!(matches!(error, Error::TooLarge { bytes, .. } if bytes == expected), "{error}");
        assert!(error.to_string().contains(&expected.to_string()) && error.is_users_fault());
        assert!(error.hint().is_some());
    };
    check(&claiming(30_000, 8), 1, 30_000 * 30_000);
    // a byte for each of 3 channels, whatever the depth in the file
    check(&claiming(20_000, 1), 3, 20_000 * 20_000 * 3);
    check(&claiming(13_378, 8), 3, 13_378 * 13_378 * 3);
    check(&claiming(11_586, 8), 4, 11_586 * 11_586 * 4);
    // floats
    check(&claiming(16_000, 16), 3, 16_000 * 16_000 * 3 * 4);
    check(&claiming(12_000, 16), 1, 12_000 * 12_000 * 4);
    let array = npy("<u2", false, "(5793, 5793)", &vec![0; 5793 * 5793 * 2]);
    check(&array, 4, 5793 * 5793 * 4 * 4);
    // one pixel less on each side is within 512 MiB: the decoder sees that there is no data
    for (side, depth, channels) in [(13_377, 8, 3), (11_585, 8, 4)] {
        check_refused(&claiming(side, depth), channels, "cannot decode");
    }
}

#[test]
fn exif_counts_wherever_it_stands_in_a_png() {
    let image = encoded(::image::GrayImage::from_fn(3, 2, |x, y| ::image::Luma([(10 * y + x) as u8])));
    // a directory with one entry: the tag 274, orientation, is a short with the value 6
    let tiff = [b"II*\0\x08\0\0\0\x01\0".as_slice(), &[18, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0], &[0; 4]].concat();
    let content = [b"eXIf", &tiff[..]].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&content);
    let chunk = [&(tiff.len() as u32).to_be_bytes(), &content[..], &sum.sum().to_be_bytes()].concat();
    let (before, behind) = (8 + 25, image.len() - 12); // the signature and `IHDR`; `IEND`
    for at in [before, behind] {
        let turned = [&image[..at], &chunk, &image[at..]].concat();
        check(&turned, 1, [3, 2, 1], Pixels::U8(vec![10, 0, 11, 1, 12, 2]));
    }
}

/// A TIFF of one strip of 6 × 2 pixels: gray, of `samples` samples of 8 bits, with another tag.
fn tiff(samples: u32, tag: (u16, u32)) -> Vec<u8> {
    let bits = if samples == 1 { 8 } else { 8 | (8 << 16) };
    let mut tags = vec![(256, 6), (257, 2), (258, bits), (259, 1), (262, 1), tag, (277, samples), (278, 2)];
    tags.extend([(279, 12 * samples), (273, 8 + 2 + 10 * 12 + 4)]);
    tags.sort_unstable();
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, value) in tags {
        let count = if tag == 258 { samples } else { 1 };
        bytes.extend([tag, if matches!(tag, 258 | 338) { 3 } else { 4 }].map(u16::to_le_bytes).concat());
        bytes.extend([count, value].map(u32::to_le_bytes).concat());
    }
    bytes.extend([0; 4]);
    bytes.extend((0..12 * samples as u8).collect::<Vec<_>>());
    bytes
}

#[test]
fn tiff_files_that_would_be_misread_are_refused() {
    check(&tiff(1, (266, 1)), 1, [2, 6, 1], Pixels::U8((0..12).collect()));
    check_refused(&tiff(1, (266, 2)), 1, "FillOrder 2");
    check(&tiff(2, (266, 1)), 2, [2, 6, 2], Pixels::U8((0..24).collect()));
    check_refused(&tiff(2, (266, 1)), 1, "has 2 channels where 1 are wanted");
    // the second sample is alpha
    check(&tiff(2, (338, 2)), 1, [2, 6, 1], Pixels::U8((0..24).step_by(2).collect()));
    // a directory behind the end
    let mut cut = tiff(1, (266, 1));
    cut[4] = 250;
    check_refused(&cut, 1, "cut short: it has 146 bytes, and its directory is at byte 250");
}
