//! Features in files: what a stopped pass leaves, and images prepared as the files beside weights say.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use simmim::evaluation::{Embedded, Embedding, FeatureKind, FeatureTokens, FrozenEncoder, embed};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_data::transform::resize;
use simmim_data::{Filter, Region};
use simmim_engine::Precision;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn embedded(from: &Path, data: &Path, out: &Path, edits: &[&str], is_stopped: bool) -> Option<Embedded> {
    let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
    let (device, from) = (CpuDevice { threads: 1 }, InitFrom::Weights { path: from.to_owned(), channels: None });
    let encoder = FrozenEncoder::load(&from, None, &edits, &device, Precision::F32, 0).unwrap();
    let source = simmim_data::open(data.to_str().unwrap(), encoder.decoding()).unwrap();
    let kind = FeatureKind { tokens: FeatureTokens::Mean, block: None };
    let stop = AtomicBool::new(is_stopped);
    embed(&encoder, &source, &Embedding { kind, out, workers: 0, stop: &stop }, &mut |_| ()).unwrap()
}

#[test]
fn a_pass_that_is_stopped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (vit, photos, out) = (fixture("weights/hf-vit"), fixture("images"), folder.path().join("f.npy"));
    assert_eq!(embedded(&vit, &photos, &out, &[], true), None);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(embedded(&vit, &photos, &out, &[], false).unwrap().images, 3);
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn images_are_prepared_as_the_files_beside_the_weights_say() {
    let folder = tempfile::tempdir().unwrap();
    let vit = folder.path().join("vit");
    fs::create_dir(&vit).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("weights/hf-vit").join(name), vit.join(name)).unwrap();
    }
    let wide = image::RgbImage::from_fn(48, 20, |x, y| image::Rgb([(5 * x) as u8, (12 * y) as u8, (x * y / 4) as u8]));
    let image = folder.path().join("wide.png");
    wide.save(&image).unwrap();
    let features = |data: &Path| {
        let out = folder.path().join("f.npy");
        embedded(&vit, data, &out, &[], false).unwrap();
        fs::read(out).unwrap()[128..].to_vec()
    };
    let says = |size: &str| {
        let text = format!("{{\"image_mean\": [0.5, 0.4, 0.3], \"image_std\": [0.2, 0.3, 0.4], {size}}}");
        fs::write(vit.join("preprocessor_config.json"), text).unwrap();
    };
    says("\"do_normalize\": true");
    let cropped = features(&image);
    says("\"size\": {\"shortest_edge\": 16}, \"do_center_crop\": true, \"crop_size\": 16, \"resample\": 2");
    assert!(features(&image) == cropped, "it is what is done where nothing is said");
    says("\"size\": {\"height\": 16, \"width\": 16}, \"resample\": 3");
    let squeezed = features(&image);
    assert!(squeezed != cropped);

    // the same as of an image that was brought to 16 × 16 px before
    let whole = simmim_data::decode(&fs::read(&image).unwrap(), "wide", 3).unwrap();
    let region = Region::Cut { top: 0, left: 0, height: 20, width: 48 };
    let simmim_data::Pixels::U8(pixels) = resize(&whole, region, 16, 16, Filter::Bicubic).pixels else {
        panic!("bytes stay bytes")
    };
    let small = folder.path().join("small.png");
    image::RgbImage::from_raw(16, 16, pixels).unwrap().save(&small).unwrap();
    assert!(features(&small) == squeezed);
}
