//! Pictures that are cut into tiles.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use simmim_data::{Error, Image, Pixels, Source, Tiled, Tiling, decode, open};
use tempfile::tempdir;

use crate::matrix::Matrix;

const PLAIN: Tiling = Tiling { size: 4, stride: 4, least_content: 0.0, most_per_picture: None, seed: 0 };

fn tiled(folder: &Path, tiling: Tiling) -> Tiled {
    Tiled::new(open(folder.to_str().unwrap(), 3).unwrap(), tiling, 2).unwrap()
}

fn places(tiles: &Tiled) -> Vec<(usize, [usize; 4])> {
    (0..tiles.len()).map(|index| tiles.place(index)).map(|(picture, part)| (picture, part.unwrap())).collect()
}

/// A part of an image, by its definition.
fn part(image: &Image, [top, left, height, width]: [usize; 4]) -> Image {
    let at = |row: usize, column: usize, channel: usize| (row * image.width + column) * image.channels + channel;
    let every = (top..top + height).flat_map(|row| (left..left + width).map(move |column| (row, column)));
    let every = every.flat_map(|(row, column)| (0..image.channels).map(move |channel| at(row, column, channel)));
    let pixels = match &image.pixels {
        Pixels::U8(pixels) => Pixels::U8(every.map(|at| pixels[at]).collect()),
        Pixels::F32(pixels) => Pixels::F32(every.map(|at| pixels[at]).collect()),
    };
    Image { channels: image.channels, height, width, pixels }
}

/// A gray picture whose value at row y and column x is `value(y, x)`, as an array.
fn write_array(path: &Path, [height, width]: [usize; 2], value: impl Fn(usize, usize) -> u8) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| value(y, x)));
    fs::write(path, bytes).unwrap();
}

#[test]
fn tiles_cover_every_picture_and_smaller_ones_are_one_tile() {
    let folder = tempdir().unwrap();
    write_array(&folder.path().join("a.npy"), [4, 10], |y, x| (16 * y + x) as u8);
    write_array(&folder.path().join("b.npy"), [3, 2], |_, _| 7);
    write_array(&folder.path().join("c.npy"), [8, 8], |_, _| 7);
    let tiles = tiled(folder.path(), PLAIN);
    let expected = [
        (0, [0, 0, 4, 4]),
        (0, [0, 4, 4, 4]),
        (0, [0, 6, 4, 4]),
        (1, [0, 0, 3, 2]),
        (2, [0, 0, 4, 4]),
        (2, [0, 4, 4, 4]),
        (2, [4, 0, 4, 4]),
        (2, [4, 4, 4, 4]),
    ];
    assert_eq!(places(&tiles), expected);
    let third = tiles.get(2).unwrap();
    assert_eq!((third.image.height, third.image.width), (4, 4));
    let Pixels::U8(pixels) = third.image.pixels else { panic!("bytes became floats") };
    assert_eq!(pixels[..6], [6, 6, 6, 7, 7, 7], "the first row, from column 6, in three channels");
    assert!(third.name.ends_with("a.npy#6,0"), "{}", third.name);
    let overlapping = tiled(folder.path(), Tiling { stride: 3, ..PLAIN });
    assert_eq!(places(&overlapping)[..3], [(0, [0, 0, 4, 4]), (0, [0, 3, 4, 4]), (0, [0, 6, 4, 4])]);
}

#[test]
fn tiles_without_content_are_left_out_and_pictures_without_a_tile_are_counted() {
    let folder = tempdir().unwrap();
    // black, gray and white columns
    write_array(&folder.path().join("a.npy"), [4, 12], |_, x| [0, 128, 250][x / 4]);
    write_array(&folder.path().join("b.npy"), [4, 4], |_, _| 255);
    let content = |least_content| tiled(folder.path(), Tiling { least_content, ..PLAIN });
    assert_eq!(places(&content(0.0)).len(), 4);
    let tiles = content(0.5);
    assert_eq!(places(&tiles), [(0, [0, 4, 4, 4])]);
    let [group] = tiles.passed_over().groups() else { panic!("{:?}", tiles.passed_over()) };
    assert!(group.sentence(1).ends_with("b.npy` has no tile with enough content"), "{group}");
    // half of each of these tiles is content
    let shifted = tiled(folder.path(), Tiling { least_content: 0.5, size: 8, ..PLAIN });
    assert_eq!(places(&shifted), [(0, [0, 0, 4, 8]), (0, [0, 4, 4, 8])]);
    let source = open(folder.path().join("b.npy").to_str().unwrap(), 3).unwrap();
    let error = Tiled::new(source, Tiling { least_content: 0.1, ..PLAIN }, 1).err().unwrap();
    assert!(matches!(error, Error::NoTiles { pictures: 1, .. }), "{error}");
}

#[test]
fn some_tiles_of_each_picture_are_drawn_by_the_seed_on_any_number_of_threads() {
    let folder = tempdir().unwrap();
    for name in ["a.npy", "b.npy", "c.npy"] {
        write_array(&folder.path().join(name), [40, 40], |y, x| (y * x) as u8);
    }
    let drawn = |seed, workers| {
        let source = open(folder.path().to_str().unwrap(), 1).unwrap();
        let tiling = Tiling { most_per_picture: Some(5), seed, ..PLAIN };
        places(&Tiled::new(source, tiling, workers).unwrap())
    };
    let first = drawn(1, 1);
    assert_eq!(first.len(), 15);
    assert!(first.is_sorted(), "in the order of pictures and rows");
    assert_eq!(drawn(1, 3), first);
    assert_ne!(drawn(2, 1), first);
    let of = |picture| first.iter().filter(|tile| tile.0 == picture).map(|tile| tile.1).collect::<Vec<_>>();
    assert_ne!(of(0), of(1), "pictures of one size have tiles at other places");
}

#[test]
fn a_picture_that_cannot_be_read_stays_a_sample() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("a.png"), b"no picture").unwrap();
    write_array(&folder.path().join("b.npy"), [4, 4], |_, _| 100);
    for least_content in [0.0, 0.5] {
        let tiles = tiled(folder.path(), Tiling { least_content, ..PLAIN });
        assert_eq!(tiles.len(), 2);
        assert!(tiles.get(0).is_err() && tiles.get(1).is_ok());
        assert!(tiles.name(0).ends_with("a.png"), "{}", tiles.name(0));
    }
}

#[test]
fn tiles_of_labeled_pictures_have_their_classes() {
    let folder = tempdir().unwrap();
    for (class, width) in [("cat", 8), ("dog", 4)] {
        fs::create_dir(folder.path().join(class)).unwrap();
        write_array(&folder.path().join(class).join("a.npy"), [4, width], |_, _| 100);
    }
    let tiles: Arc<dyn Source> = Arc::new(tiled(folder.path(), PLAIN));
    assert_eq!(tiles.classes(), ["cat", "dog"]);
    assert_eq!((0..3).map(|index| tiles.label(index)).collect::<Vec<_>>(), [Some(0), Some(0), Some(1)]);
    assert_eq!(tiles.labels(2), [1]);
}

/// Checks that every tile of the pictures of a format is that part of the decoded picture, and returns how many there are.
#[track_caller]
fn check_format(format: &str, extension: &str) -> usize {
    let folder = tempdir().unwrap();
    let mut tiles_of_all = 0;
    for (name, bytes) in Matrix::of(format).pictures {
        let Ok(image) = decode(&bytes, &name, 3) else { continue };
        let path = folder.path().join(format!("a.{extension}"));
        fs::write(&path, bytes).unwrap();
        let tiles = tiled(&path, PLAIN);
        for (index, (_, place)) in places(&tiles).into_iter().enumerate() {
            assert_eq!(tiles.get(index).unwrap().image, part(&image, place), "{name} at {place:?}");
        }
        let covered = places(&tiles).into_iter().map(|(_, [top, left, height, width])| [top + height, left + width]);
        assert_eq!(covered.max(), Some([image.height, image.width]), "{name}");
        tiles_of_all += tiles.len();
    }
    tiles_of_all
}

#[test]
fn tiles_of_every_format_are_parts_of_the_picture() {
    for (format, extension) in
        [("jpeg", "jpg"), ("png", "png"), ("webp", "webp"), ("tiff", "tif"), ("gif", "gif"), ("bmp", "bmp")]
    {
        assert!(check_format(format, extension) > 100, "{format}");
    }
}

#[test]
fn a_picture_of_too_many_tiles_is_unreadable() {
    let folder = tempdir().unwrap();
    write_array(&folder.path().join("a.npy"), [2100, 2100], |_, _| 100);
    for least_content in [0.0, 0.5] {
        let tiles = tiled(folder.path(), Tiling { stride: 1, least_content, ..PLAIN });
        assert_eq!(tiles.len(), 1);
        let error = tiles.get(0).unwrap_err();
        assert!(matches!(error, Error::TooManyTiles { limit: 4_194_304, .. }), "{error}");
    }
}

#[test]
fn a_large_tiff_is_shown_small_without_reading_it_at_once() {
    let folder = tempdir().unwrap();
    let (height, width) = (2200, 3000);
    let color = |y: usize, x: usize| [y * 255 / height, x * 255 / width, 77].map(|value| value as u8);
    let every = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let pixels: Vec<u8> = every.flat_map(|(y, x)| color(y, x)).collect();
    let file = fs::File::create(folder.path().join("large.tif")).unwrap();
    let mut encoder = tiff::encoder::TiffEncoder::new(file).unwrap();
    encoder.write_image::<tiff::encoder::colortype::RGB8>(width as u32, height as u32, &pixels).unwrap();
    let tiles = tiled(folder.path(), Tiling { size: 500, stride: 500, ..PLAIN });
    let (size, overview) = tiles.overview(0, 100).unwrap();
    assert_eq!((size, overview.height, overview.width), ([height, width], 73, 100));
    let Pixels::U8(shown) = &overview.pixels else { panic!("bytes became floats") };
    for (at, found) in shown.chunks_exact(3).enumerate() {
        let middle = |at: usize, of: usize, length: usize| (2 * at + 1) * length / (2 * of);
        let expected = color(middle(at / 100, 73, height), middle(at % 100, 100, width));
        let is_near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2);
        assert!(is_near, "pixel {at}: {found:?}, expected {expected:?}");
    }
    // as if it were in memory, but for the rounding at borders of parts
    let whole = decode(&fs::read(folder.path().join("large.tif")).unwrap(), "large.tif", 3).unwrap();
    let Pixels::U8(expected) = simmim_data::thumbnail(&whole, 100).pixels else { panic!("bytes became floats") };
    assert!(shown.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 3));
}
