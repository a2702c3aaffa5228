//! Makes the files that the tests read.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use ::image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

/// The folder of three small photographs in the repository.
pub(crate) fn photos() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images"))
}

pub(crate) fn encoded(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.into().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

/// A gray PNG in which all pixels are `value`, so that tests recognize the image.
pub(crate) fn gray(value: u8) -> Vec<u8> {
    encoded(GrayImage::from_pixel(6, 5, ::image::Luma([value])))
}

/// A color PNG whose size and gradient depend on `seed`.
pub(crate) fn colorful(seed: u8) -> Vec<u8> {
    let (width, height) = (20 + u32::from(seed) % 7, 18 + u32::from(seed) % 5);
    encoded(RgbImage::from_fn(width, height, |x, y| {
        let [x, y] = [x, y].map(|at| (at * 9) as u8);
        ::image::Rgb([x.wrapping_add(seed), y.wrapping_mul(seed), x ^ y ^ seed])
    }))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A tar file of `members`, with its end marker.
pub(crate) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An IDX file of bytes.
pub(crate) fn idx(sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(values);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An array file as `numpy.save` writes it.
pub(crate) fn npy(dtype: &str, is_fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if is_fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A zip file of members, stored or deflated.
pub(crate) fn zip(members: &[(&str, &[u8])], method: ::zip::CompressionMethod) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}
