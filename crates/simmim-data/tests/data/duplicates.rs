//! Scans of collections in which images are there more than once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::image::{GrayImage, Luma};
use simmim_data::{Depth, Normalization, Scan, Source, Stored, idx_from_bytes, open, scan, thumbnail};
use tempfile::{TempDir, tempdir};

use crate::files::{colorful, encoded, gray, idx, npy, write};

/// Copies and relatives of two photographs, which Pillow made.
fn copies() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/duplicates"))
}

fn scanned(folder: &Path, workers: usize) -> (Arc<dyn Source>, Scan) {
    let source = open(&folder.display().to_string(), 3).unwrap();
    let scan = scan(&source, workers, &mut |_| {}).unwrap();
    (source, scan)
}

/// The file names of each group.
fn named(source: &dyn Source, groups: &[simmim_data::DuplicateGroup]) -> Vec<Vec<String>> {
    let name = |index: &usize| Path::new(&source.name(*index)).file_name().unwrap().to_string_lossy().into_owned();
    groups.iter().map(|group| group.images.iter().map(name).collect()).collect()
}

/// A folder of the given files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let root = tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| write(&root.path().join(name), bytes));
    root
}

#[test]
fn copies_are_found_in_other_formats_qualities_and_sizes_but_not_crops_and_mirror_images() {
    let (source, scan) = scanned(&copies(), 0);
    let photos = ["others-buffetset", "tools-plier1"];
    let exact = photos.map(|photo| [format!("{photo}-same.png"), format!("{photo}.jpg")]);
    assert_eq!(named(&*source, &scan.duplicates.exact), exact);
    let near =
        photos.map(|photo| ["-half.jpg", "-recompressed.jpg", "-same.png", ".jpg"].map(|end| format!("{photo}{end}")));
    assert_eq!(named(&*source, &scan.duplicates.near), near);
    assert_eq!((scan.duplicates.surplus(), scan.duplicates.plain.len()), (2, 0));
    assert!(scan.duplicates.contradictions().is_empty(), "images without classes contradict nothing");
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let root = folder(&[("broken.png", b"\x89PNG\r\n\x1a\n"), ("gray.png", &gray(3))]);
    for entry in fs::read_dir(copies()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, root.path().join(path.file_name().unwrap())).unwrap();
    }
    let (_, expected) = scanned(root.path(), 0);
    assert_eq!((expected.unreadable.len(), expected.duplicates.near.len()), (1, 2));
    for workers in [1, 3] {
        assert_eq!(scanned(root.path(), workers).1, expected, "{workers} threads");
    }
}

#[test]
fn copies_in_other_classes_contradict_each_other() {
    let [photo, half] =
        ["tools-plier1.jpg", "tools-plier1-half.jpg"].map(|name| fs::read(copies().join(name)).unwrap());
    let (source, scan) = scanned(
        folder(&[
            ("cat/a.jpg", &photo),
            ("cat/b.jpg", &photo),
            ("cat/c.png", &colorful(1)),
            ("dog/a.jpg", &half),
            ("dog/b.png", &colorful(1)),
            ("emu/a.png", &colorful(2)),
            ("emu/b.png", &colorful(2)),
        ])
        .path(),
        2,
    );
    let classes = |groups: &[simmim_data::DuplicateGroup]| -> Vec<(Vec<usize>, bool)> {
        groups.iter().map(|group| (group.classes.clone(), group.is_contradictory)).collect()
    };
    assert_eq!(classes(&scan.duplicates.exact), [(vec![0], false), (vec![0, 1], true), (vec![2], false)]);
    assert_eq!(classes(&scan.duplicates.near), [(vec![0, 1], true)]);
    let contradictions = scan.duplicates.contradictions();
    let contradictions: Vec<_> = contradictions.iter().map(|group| group.images.clone()).collect();
    assert_eq!(contradictions, [vec![0, 1, 3], vec![2, 4]], "{:?}", source.classes());
}

#[test]
fn plain_images_are_only_compared_exactly() {
    // noise of one level in other places
    let noisy = |seed: u32| {
        encoded(GrayImage::from_fn(40, 40, |x, y| Luma([200 + u8::from((x * 7 + y * 3 + seed).is_multiple_of(11))])))
    };
    let (source, scan) = scanned(
        folder(&[("a.png", &gray(7)), ("b.png", &gray(7)), ("c.png", &noisy(0)), ("d.png", &noisy(5))]).path(),
        0,
    );
    assert_eq!(named(&*source, &scan.duplicates.exact), [["a.png", "b.png"]]);
    assert_eq!(scan.duplicates.near, []);
    assert_eq!(scan.duplicates.plain, [0, 1, 2, 3]);
}

#[test]
fn images_are_counted_by_how_they_are_stored() {
    let floats: Vec<u8> = [0.0_f32, 2.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let root = folder(&[
        ("gray.png", &gray(3)),
        ("alpha.png", &encoded(::image::GrayAlphaImage::from_pixel(6, 5, ::image::LumaA([1, 2])))),
        ("color.png", &colorful(1)),
        ("deep.png", &encoded(::image::DynamicImage::new_rgb16(2, 3))),
        ("deep.npy", &npy("<u2", false, "(1, 2)", &[1, 2, 3, 4])),
        ("float.npy", &npy("<f4", false, "(1, 1, 3)", &floats)),
    ]);
    let (_, scan) = scanned(root.path(), 0);
    let stored: Vec<(String, usize)> = scan.stored.iter().map(|(stored, count)| (stored.to_string(), *count)).collect();
    let expected = [
        ("gray, 8 bit", 1),
        ("gray, 16 bit", 1),
        ("gray with alpha, 8 bit", 1),
        ("color, 8 bit", 1),
        ("color, 16 bit", 1),
        ("color, float", 1),
    ];
    assert_eq!(stored, expected.map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(scan.shapes[&[5, 6]], 2);
}

#[test]
fn a_scan_measures_what_a_run_is_normalized_with() {
    let (source, scan) = scanned(&copies(), 3);
    assert_eq!(scan.normalization, Some(Normalization::measure(&*source, 2000).unwrap()));
}

#[test]
fn scans_of_none_of_one_and_of_single_channels() {
    let images = |count: u32| {
        let values: Vec<u8> = (0..count * 6).map(|value| (value * 40) as u8).collect();
        let source: Arc<dyn Source> = idx_from_bytes(&idx(&[count, 2, 3], &values), None, 1).unwrap();
        scan(&source, 2, &mut |_| {}).unwrap()
    };
    let one = images(1);
    assert_eq!((one.count, one.duplicates.exact.len(), one.duplicates.near.len()), (1, 0, 0));
    assert_eq!(one.stored.keys().copied().collect::<Vec<_>>(), [Stored { channels: 1, depth: Depth::Bits8 }]);
    assert_eq!(one.normalization.unwrap().mean, [100.0 / 255.0]);
    let broken = folder(&[("a.png", b"no picture")]);
    let (_, none) = scanned(broken.path(), 2);
    assert_eq!((none.count, none.unreadable.len(), none.normalization, none.sizes), (1, 1, None, None));
    assert!(none.shapes.is_empty());
}

#[test]
fn thumbnails_keep_the_shape_and_never_grow() {
    use simmim_data::{Image, Pixels};
    let check = |[height, width]: [usize; 2], channels: usize, expected: [usize; 3]| {
        let image = Image { channels, height, width, pixels: Pixels::U8(vec![9; height * width * channels]) };
        let small = thumbnail(&image, 10);
        assert_eq!([small.height, small.width, small.channels], expected);
        assert_eq!(small.pixels, Pixels::U8(vec![9; expected.iter().product()]));
    };
    check([40, 20], 3, [10, 5, 3]);
    check([7, 10], 4, [7, 10, 3]);
    check([1, 900], 2, [1, 10, 1]);
    // floats beyond 0 to 1 are shown by their range
    let show = |values: [f32; 3]| {
        let image = Image { channels: 1, height: 1, width: 3, pixels: Pixels::F32(values.to_vec()) };
        thumbnail(&image, 10).pixels
    };
    assert_eq!(show([0.0, 0.2, 0.4]), Pixels::U8(vec![0, 51, 102]));
    assert_eq!(show([-1000.0, 0.0, 3000.0]), Pixels::U8(vec![0, 64, 255]));
    assert_eq!(show([7.0; 3]), Pixels::U8(vec![0; 3]));
}

#[test]
fn files_of_several_frames_are_counted() {
    // what Pillow (`n_frames`) and pydicom (`NumberOfFrames`) say; all others have one
    let expected = [
        ("tiff", vec![("pages.tif", 2)]),
        ("gif", vec![("animated.gif", 2), ("animated_disposed.gif", 2), ("pillow_animated.gif", 3)]),
        (
            "webp",
            vec![
                ("animated.webp", 3),
                ("animated_lossy.webp", 3),
                ("animated_mixed.webp", 3),
                ("animated_small_first_frame.webp", 2),
                ("animated_small_first_frame_on_color.webp", 2),
            ],
        ),
        ("png", vec![("animated.png", 3), ("animated_default_apart.png", 3)]),
        #[cfg(feature = "dicom")]
        (
            "dicom",
            [
                "enhanced_0_implicit",
                "enhanced_0_plain",
                "enhanced_1_implicit",
                "enhanced_1_plain",
                "enhanced_2_implicit",
                "enhanced_2_plain",
                "frames_2_jpeg_in_1_fragments",
                "frames_2_jpeg_in_2_fragments",
                "frames_2_jpeg_in_3_fragments",
                "frames_gray",
                "frames_gray_lossless",
                "frames_jpeg_without_starts",
                "frames_rgb",
                "frames_rgb_lossless",
            ]
            .map(|name| (name, 2))
            .to_vec(),
        ),
    ];
    for (format, expected) in expected {
        let pictures = crate::matrix::Matrix::of(format).pictures;
        let files: Vec<(&str, &[u8])> =
            pictures.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let root = folder(&files);
        let (source, scan) = scanned(root.path(), 2);
        let others: usize = expected.iter().map(|(_, frames)| frames - 1).sum();
        let ending = if format == "dicom" { ".dcm" } else { "" };
        let names: Vec<String> = expected.iter().map(|(name, _)| format!("{name}{ending}")).collect();
        let found: Vec<String> = scan
            .several_frames
            .images
            .iter()
            .map(|index| source.name(*index).rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!((found, scan.several_frames.others), (names, others), "{format}");
    }
}
