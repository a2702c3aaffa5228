//! DICOM files among other files. What is in them is held against pydicom in `pictures.rs`.

use simmim_data::{Decoding, Result, Window, decode, open};
use tempfile::tempdir;

use crate::files::{gray, write};
use crate::matrix::Matrix;

/// One of the files of `testdata/decode`, 17 by 13 pixels of gray.
fn dicom() -> Vec<u8> {
    Matrix::of("dicom").pictures.remove("gray_16_plain.dcm").unwrap()
}

#[test]
fn files_without_an_extension_are_images_if_they_hold_dicom() {
    let root = tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for name in ["a/IM-0001", "a/1.2.840.10008.7", "a/x.dcm", "b/Y.DICOM", "a/DICOMDIR", "b/z.dat"] {
        write(&at(name), &dicom());
    }
    write(&at("b/0.png"), &gray(1));
    write(&at("b/README"), b"DICM");
    write(&at("b/1.5"), &[0; 200]);
    let source = open(&root.path().display().to_string(), 3).unwrap();
    let names: Vec<_> = (0..source.len()).map(|index| source.name(index)).collect();
    let expected = ["a/1.2.840.10008.7", "a/IM-0001", "a/x.dcm", "b/0.png", "b/Y.DICOM"];
    assert_eq!(names, expected.map(|name| at(name).display().to_string()));
    assert_eq!((source.classes().len(), source.passed_over().count()), (2, 4));
    assert_eq!(open(&at("a/IM-0001").display().to_string(), 1).unwrap().len(), 1);
    // a list may name them in any way
    write(&at("l.csv"), b"path,label\na/IM-0001,1\nb/z.dat,0\n");
    assert_eq!(open(&at("l.csv").display().to_string(), 1).unwrap().len(), 2);
}

#[cfg(feature = "dicom")]
#[test]
fn gray_becomes_color_with_its_depth() -> Result<()> {
    let (gray, color) = (decode(&dicom(), "x", 1)?, decode(&dicom(), "x", 3)?);
    let (simmim_data::Pixels::F32(gray), simmim_data::Pixels::F32(color)) = (gray.pixels, color.pixels) else {
        panic!("16 bits became bytes")
    };
    assert_eq!(color, gray.iter().flat_map(|value| [*value; 3]).collect::<Vec<_>>());
    let mut levels: Vec<u32> = gray.iter().map(|value| (value * 65535.0).round() as u32).collect();
    levels.sort_unstable();
    levels.dedup();
    assert!(levels.len() > 200 && levels.iter().any(|level| level % 257 != 0), "{levels:?}");
    Ok(())
}

/// Center and width of a window, and every seventh pixel in levels of 16 bits; `make_windowed.py` makes them.
#[cfg(feature = "dicom")]
type Windowed = ((f64, f64), Vec<u16>);

#[cfg(feature = "dicom")]
#[test]
fn a_window_of_the_user_shows_the_values_that_pydicom_shows() {
    let index = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/decode/windowed.json");
    let index: std::collections::BTreeMap<String, Windowed> =
        serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let pictures = Matrix::of("dicom").pictures;
    assert!(index.len() > 40, "{}", index.len());
    for (name, ((center, width), levels)) in &index {
        let (center, width) = (*center, *width);
        let decoding = Decoding { channels: 1, window: Some(Window { center, width }) };
        let image = decode(&pictures[name], name, decoding).unwrap();
        let simmim_data::Pixels::F32(values) = image.pixels else { panic!("{name}: a window makes floats") };
        for (value, level) in values.iter().step_by(7).zip(levels) {
            let found = value * 65535.0;
            assert!((found - f32::from(*level)).abs() <= 1.0, "{name}: {found} instead of {level}");
        }
    }
}

#[cfg(feature = "dicom")]
#[test]
fn what_has_no_values_for_a_window_is_unreadable() {
    let root = tempdir().unwrap();
    let color = Matrix::of("dicom").pictures.remove("rgb_8_plain.dcm").unwrap();
    for (name, bytes) in [("a.dcm", dicom()), ("b.dcm", color), ("c.png", gray(1))] {
        write(&root.path().join(name), &bytes);
    }
    let decoding = Decoding { channels: 3, window: Some(Window { center: 40.0, width: 400.0 }) };
    let source = open(&root.path().display().to_string(), decoding).unwrap();
    assert!(source.get(0).is_ok());
    for index in [1, 2] {
        let error = source.get(index).unwrap_err();
        assert!(error.to_string().contains("is no gray DICOM file"), "{error}");
        assert!(error.is_users_fault() && error.hint().is_some());
    }
}

#[cfg(not(feature = "dicom"))]
#[test]
fn a_build_without_dicom_says_how_to_build_with_it() -> Result<()> {
    let error = decode(&dicom(), "x.dcm", 1).unwrap_err();
    assert_eq!(error.to_string(), "`x.dcm` is of a kind that was left out of this build");
    assert_eq!(error.hint().unwrap(), "build with the feature `dicom`");
    Ok(())
}
