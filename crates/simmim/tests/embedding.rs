//! Features in files: what a stopped pass leaves, and images prepared as the files beside weights say.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use simmim::evaluation::{
    Embedded, EmbeddedFiles, Embedding, EmbeddingEvent, FeatureKind, FeatureTokens, FrozenEncoder, embed,
};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_data::transform::resize;
use simmim_data::{Filter, Region};
use simmim_engine::Precision;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// Features of `data` that are stopped at some number of images, and the events that are no progress.
fn stopped_at(
    from: &Path,
    data: &Path,
    out: &Path,
    edits: &[&str],
    at: usize,
) -> simmim::Result<(Embedded, Vec<EmbeddingEvent>)> {
    let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
    let (device, from) = (CpuDevice { threads: 1 }, InitFrom::Weights { path: from.to_owned(), channels: None });
    let encoder = FrozenEncoder::load(&from, None, &edits, &device, Precision::F32, 0).unwrap();
    let source = simmim_data::open(data.to_str().unwrap(), encoder.decoding()).unwrap();
    let kind = FeatureKind { tokens: FeatureTokens::Mean, block: None };
    let (stop, mut events) = (AtomicBool::new(at == 0), Vec::new());
    let embedding = Embedding { kind, out, workers: 0, stop: &stop };
    let embedded = embed(&encoder, &source, &embedding, &mut |event| match event {
        EmbeddingEvent::Progress { done } => stop.store(done >= at, Ordering::Relaxed),
        EmbeddingEvent::Resumed { .. } | EmbeddingEvent::BeganAnew { .. } => events.push(event),
    })?;
    Ok((embedded, events))
}

fn embedded(from: &Path, data: &Path, out: &Path, edits: &[&str]) -> EmbeddedFiles {
    match stopped_at(from, data, out, edits, usize::MAX).unwrap() {
        (Embedded::Whole(files), _) => files,
        (Embedded::Stopped { done }, _) => panic!("stopped at {done}"),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// 300 pictures, of which two cannot be read, in the folder `images`.
fn collection(folder: &Path) -> PathBuf {
    let images = folder.join("images");
    fs::create_dir(&images).unwrap();
    for number in 0..300_u32 {
        let path = images.join(format!("{number:03}.png"));
        match number {
            5 | 200 => fs::write(path, "no picture").unwrap(),
            _ => {
                let pixel = |x: u32, y: u32| image::Rgb([(x * number) as u8, (y * 7 + number) as u8, (x * y) as u8]);
                image::RgbImage::from_fn(16, 16, pixel).save(path).unwrap();
            }
        }
    }
    images
}

#[test]
fn a_pass_that_is_stopped_anywhere_goes_on_and_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (vit, images) = (fixture("weights/hf-vit"), collection(folder.path()));
    let endings: &[&str] = if cfg!(feature = "parquet") { &["npy", "parquet"] } else { &["npy"] };
    for ending in endings {
        let whole = folder.path().join(format!("whole.{ending}"));
        let files = embedded(&vit, &images, &whole, &[]);
        assert_eq!((files.images, files.unreadable.len()), (298, 2));
        let out = folder.path().join(format!("out.{ending}"));
        let mut before = 0;
        for at in [1, 65, 140, 200] {
            let (found, events) = stopped_at(&vit, &images, &out, &[], at).unwrap();
            let Embedded::Stopped { done } = found else { panic!("{found:?} at {at}") };
            assert!(done >= at && done % 64 == 0 && !out.exists(), "{done} at {at}");
            let expected = (before > 0).then_some(EmbeddingEvent::Resumed { done: before });
            assert_eq!(events, Vec::from_iter(expected), "at {at}");
            before = done;
        }
        let files = embedded(&vit, &images, &out, &[]);
        assert_eq!((files.images, files.unreadable.len()), (298, 2));
        for (file, of_whole) in files.files.iter().zip(&embedded(&vit, &images, &whole, &[]).files) {
            assert!(fs::read(file).unwrap() == fs::read(of_whole).unwrap(), "{}", file.display());
        }
    }
    let left = names(folder.path());
    assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
}

#[test]
fn what_is_behind_the_manifest_is_cut_off_and_what_is_damaged_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (vit, images) = (fixture("weights/hf-vit"), collection(folder.path()));
    let whole = folder.path().join("whole.npy");
    embedded(&vit, &images, &whole, &[]);
    let out = folder.path().join("out.npy");
    let (rows, manifest) = (folder.path().join("out.npy.partial"), folder.path().join("out.npy.partial.json"));
    let check = |damage: &dyn Fn(), expected: Option<&str>| {
        let (found, _) = stopped_at(&vit, &images, &out, &[], 128).unwrap();
        assert_eq!(found, Embedded::Stopped { done: 128 });
        damage();
        let (found, events) = stopped_at(&vit, &images, &out, &[], usize::MAX).unwrap();
        assert!(matches!(found, Embedded::Whole(_)));
        match (expected, &events[..]) {
            (None, [EmbeddingEvent::Resumed { done: 128 }]) => {}
            (Some(part), [EmbeddingEvent::BeganAnew { why }]) if why.contains(part) => {}
            _ => panic!("expected {expected:?}, found {events:?}"),
        }
        assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap(), "{expected:?}");
        assert!(!rows.exists() && !manifest.exists());
        fs::remove_file(&out).unwrap();
    };
    let edited = |path: &Path, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        edit(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    check(&|| (), None);
    // killed between the rows and their manifest
    check(&|| edited(&rows, &|bytes| bytes.extend([7; 100])), None);
    check(&|| edited(&rows, &|bytes| bytes.truncate(1000)), Some("has 1000 bytes of"));
    check(&|| edited(&rows, &|bytes| bytes[4000] ^= 1), Some("has the checksum"));
    check(&|| fs::remove_file(&rows).unwrap(), Some("bytes of"));
    check(&|| edited(&manifest, &|bytes| bytes.truncate(90)), Some("cannot be read"));
    check(&|| edited(&manifest, &|bytes| bytes.clear()), Some("cannot be read"));
    let replaced = |from: &str, to: &str| {
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&manifest, text.replace(from, to)).unwrap();
    };
    check(&|| replaced("\"done\":128", "\"done\":127"), Some("contradicts itself"));
    check(&|| replaced("\"done\":128", "\"done\":12800"), Some("contradicts itself"));
    check(&|| replaced("\"images\":127", "\"images\":18446744073709551615"), Some("contradicts itself"));
}

#[test]
fn rows_of_another_model_or_collection_are_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (vit, images, out) = (fixture("weights/hf-vit"), collection(folder.path()), folder.path().join("f.npy"));
    let stop = |edits: &[&str]| stopped_at(&vit, &images, &out, edits, 64);
    stop(&[]).unwrap();
    let kept = fs::read(folder.path().join("f.npy.partial")).unwrap();
    let refused = |found: simmim::Result<(Embedded, Vec<EmbeddingEvent>)>, part: &str| {
        let error = found.unwrap_err();
        assert!(error.to_string().contains(part) && error.is_users_fault(), "{error}");
        assert!(error.hint().unwrap().contains("f.npy.partial.json"));
        assert!(fs::read(folder.path().join("f.npy.partial")).unwrap() == kept, "it is left as it was");
    };
    refused(stop(&["encoder.heads=1"]), "encoder: ");
    refused(stopped_at(&fixture("weights/hf-swin"), &images, &out, &[], 64), "encoder: ");
    fs::rename(images.join("299.png"), images.join("300.png")).unwrap();
    refused(stop(&[]), "checksum of the names and labels: ");
    fs::copy(images.join("000.png"), images.join("301.png")).unwrap();
    refused(stop(&[]), "number of images: `300` there, `301` now");
    fs::remove_file(images.join("301.png")).unwrap();
    fs::rename(images.join("300.png"), images.join("299.png")).unwrap();
    fs::copy(images.join("001.png"), images.join("000.png")).unwrap();
    refused(stop(&[]), "checksum of some of the pixels: ");
}

#[test]
fn rows_that_another_process_writes_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (vit, photos, out) = (fixture("weights/hf-vit"), fixture("images"), folder.path().join("f.npy"));
    let rows = fs::File::create(folder.path().join("f.npy.partial")).unwrap();
    rows.lock().unwrap();
    let error = stopped_at(&vit, &photos, &out, &[], usize::MAX).unwrap_err();
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    drop(rows);
    assert_eq!(embedded(&vit, &photos, &out, &[]).images, 3);
    assert_eq!(names(folder.path()), ["f.npy", "f.npy.csv"]);
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
        embedded(&vit, data, &out, &[]);
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
