//! Features and scores of images that ranks divide are those of one process.

use super::support::{VIT, end_of, last, on_ranks, one_job, pretrain, rank_pids, run, signal, succeeds};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// 1,000 images: of batches of 64, neither two nor three ranks have as many each.
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/fashion-mnist/test-images-idx3-ubyte.gz");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/weights/hf-vit");

fn texts(arguments: &[&str]) -> Vec<String> {
    arguments.iter().chain(&["--threads", "1", "--workers", "1"]).map(|text| (*text).to_owned()).collect()
}

fn embed(data: &str, out: &Path, rest: &[&str]) -> Vec<String> {
    texts(&[&["embed", "--from", ENCODER, "--data", data, "--out", out.to_str().unwrap()], rest].concat())
}

/// The one line of JSON of a job, without what is measured.
fn json(world: usize, arguments: &[String]) -> Value {
    let arguments = [arguments, &["--json".to_owned()]].concat();
    let ran = succeeds(&mut on_ranks(world, &arguments));
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| !line.is_empty()).collect();
    let [line] = lines[..] else { panic!("one rank says the result: {ran:#?}") };
    let mut json: Value = serde_json::from_str(line).unwrap();
    json.as_object_mut().unwrap().remove("images_per_second");
    json
}

#[test]
fn ranks_write_the_features_of_one_process() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    for rest in [&[][..], &["--features", "patches", "--precision", "f32"]] {
        let out = |world: usize| folder.path().join(format!("{world}.npy"));
        succeeds(&mut on_ranks(1, &embed(IMAGES, &out(1), rest)));
        for world in [2, 3] {
            let ran = succeeds(&mut on_ranks(world, &embed(IMAGES, &out(world), rest)));
            assert_eq!(ran.stdout.matches("features of 1000 images").count(), 1, "{ran:#?}");
            assert!(fs::read(out(world)).unwrap() == fs::read(out(1)).unwrap(), "{world} ranks: other bits");
            let list = |world: usize| fs::read(folder.path().join(format!("{world}.npy.csv"))).unwrap();
            assert!(list(world) == list(1));
        }
    }
}

#[test]
fn features_that_were_begun_on_some_ranks_are_ended_on_others() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..8 {
        fs::copy(IMAGES, folder.path().join(format!("images-{number}-images-idx3-ubyte.gz"))).unwrap();
    }
    let data = folder.path().join("images-*-idx3-ubyte.gz").display().to_string();
    let (out, whole) = (folder.path().join("f.npy"), folder.path().join("whole.npy"));
    let manifest = folder.path().join("f.npy.partial.json");
    for (world, name, code) in [(2, "USR1", Some(130)), (3, "KILL", None)] {
        let mut command = on_ranks(world, &embed(&data, &out, &[]));
        let job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (began, before) = (Instant::now(), fs::read(&manifest).unwrap_or_default());
        while fs::read(&manifest).unwrap_or_default() == before && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(2));
        }
        signal(name, rank_pids(&job)[1]);
        let ran = end_of(job);
        assert!(code.is_none_or(|code| ran.code == Some(code)) && ran.code != Some(0), "{ran:#?}");
        assert!(manifest.exists() && !out.exists(), "{name}: {ran:#?}");
    }
    let ran = succeeds(&mut on_ranks(4, &embed(&data, &out, &[])));
    assert!(ran.stderr.contains("going on behind"), "{ran:#?}");
    succeeds(&mut on_ranks(1, &embed(&data, &whole, &[])));
    assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn neighbors_and_scores_are_those_of_one_process() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let cache = |world: usize| folder.path().join(format!("cache-{world}")).display().to_string();
    let knn = |world: usize| {
        let cache = cache(world);
        texts(&["knn", "--from", ENCODER, "--data", IMAGES, "--val", IMAGES, "--cache", &cache])
    };
    let one = json(1, &knn(1));
    for world in [2, 3] {
        assert_eq!(json(world, &knn(world)), one, "{world} ranks");
        let kept = |world: usize| {
            let entries = fs::read_dir(cache(world)).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
        };
        assert!(kept(world) == kept(1), "the first rank keeps the features of all");
        assert_eq!(json(world, &knn(world)), one, "{world} ranks, from the cache");
    }

    let tuned = folder.path().join("tuned");
    let edits = ["train.max_steps=4", "encoder.patch_px=4"];
    let mut tune = pretrain("finetune-vit-cifar", &tuned, &[&VIT[..4], &edits].concat());
    tune[0] = "finetune".into();
    tune.extend(["--from", "scratch", "--val", IMAGES].map(str::to_owned));
    succeeds(&mut on_ranks(2, &tune));
    let from = last(&tuned, "model.safetensors").display().to_string();
    let evaluate = texts(&["evaluate", "--from", &from, "--data", IMAGES]);
    let one = json(1, &evaluate);
    assert_eq!(one["images"], 1000);
    for world in [2, 3] {
        assert_eq!(json(world, &evaluate), one, "{world} ranks");
    }
}

#[test]
fn unreadable_images_have_their_place_and_an_error_of_any_rank_is_named() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let photos = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images");
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let photo = fs::read_dir(photos).unwrap().flatten().map(|entry| entry.path());
    let photo = photo.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "jpg")).unwrap();
    for number in 0..150 {
        let bytes = if number % 50 == 20 { b"cut".to_vec() } else { fs::read(&photo).unwrap() };
        fs::write(data.join(format!("{number:03}.jpg")), bytes).unwrap();
    }
    let data = data.display().to_string();
    let out = |world: usize| folder.path().join(format!("{world}.npy"));
    for world in [1, 2, 3] {
        let ran = succeeds(&mut on_ranks(world, &embed(&data, &out(world), &[])));
        assert_eq!(ran.stderr.matches("warning: skipped").count(), 3, "{ran:#?}");
        assert!(fs::read(out(world)).unwrap() == fs::read(out(1)).unwrap(), "{world} ranks");
        let unreadable = |world: usize| fs::read(folder.path().join(format!("{world}.npy.unreadable.csv"))).unwrap();
        assert!(unreadable(world) == unreadable(1));
    }

    let mut command = on_ranks(1, &embed(IMAGES, &out(9), &[]));
    command.args([":", "-n", "1", env!("CARGO_BIN_EXE_simmim")]).args(embed(&data, &out(9), &[]));
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("rank 1: this rank has another number of images than the first rank"), "{ran:#?}");
    assert_eq!(ran.stderr.matches("error: ").count(), 1, "one rank says it: {ran:#?}");
    assert!(!out(9).exists());
}
