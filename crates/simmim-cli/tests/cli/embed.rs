//! `simmim embed`: the features that `knn` uses, in files that other programs read.

use super::support::{
    broken_image, class_folders, fails, fashion, fill, json, on_threads, photos, refuses, repository, scratch, simmim,
    succeeds, text, with_default_signals,
};
use npyz::NpyFile;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn vit() -> String {
    repository("testdata/weights/hf-vit")
}

fn embed(from: &str, data: &str, out: &Path, rest: &[&str]) -> Command {
    let mut command = simmim(["embed", "--from", from, "--data", data, "--out"]);
    command.arg(out).args(rest);
    command
}

/// Shape and values of an array.
fn array(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let file = NpyFile::new(bytes.as_slice()).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

/// The lines of a list, without its head.
fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn features_are_those_of_knn_bit_for_bit_on_any_number_of_threads() {
    let (folder, _) = scratch();
    let (out, cache) = (folder.path().join("f.npy"), folder.path().join("cache"));
    let result = json(embed(&vit(), &fashion(), &out, &[]));
    assert_eq!((&result["images"], &result["shape"]), (&1000.into(), &vec![16].into()));
    assert_eq!(result["files"], serde_json::json!([text(&out), text(&folder.path().join("f.npy.csv"))]));
    let (shape, values) = array(&out);
    assert_eq!(shape, [1000, 16]);

    let mut knn = simmim(["knn", "--from", &vit(), "--data", &fashion(), "--val", &fashion(), "--cache"]);
    knn.arg(&cache);
    succeeds(knn);
    let kept = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let kept = fs::read(kept).unwrap();
    let bits: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(kept.ends_with(&bits), "the last bytes of the cache are its features");

    let list = lines(&folder.path().join("f.npy.csv"));
    assert_eq!(list.len(), 1000);
    assert!(list[7].starts_with("7,") && list[7].contains("test-images"), "{}", list[7]);
    for rest in [&["--workers=0"][..], &["--workers=3"]] {
        let again = folder.path().join("again.npy");
        succeeds(on_threads(3, &embed(&vit(), &fashion(), &again, rest)));
        assert!(fs::read(&again).unwrap() == fs::read(&out).unwrap(), "{rest:?}");
    }
}

#[test]
fn rows_have_the_order_of_the_source_and_name_file_label_and_class() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["ant", "bee, or wasp"], 2);
    let out = folder.path().join("f.npy");
    succeeds(embed(&vit(), &text(&data), &out, &[]));
    let expected: Vec<String> = [("ant", 0, 0), ("ant", 1, 0), ("bee, or wasp", 0, 1), ("bee, or wasp", 1, 1)]
        .iter()
        .enumerate()
        .map(|(row, (class, number, label))| {
            let quote = if class.contains(',') { "\"" } else { "" };
            let file = text(&data.join(class).join(format!("{number}.png")));
            format!("{row},{quote}{file}{quote},{label},{quote}{class}{quote}")
        })
        .collect();
    assert_eq!(lines(&folder.path().join("f.npy.csv")), expected);

    // each row is that of its image alone
    let (_, all) = array(&out);
    let last = folder.path().join("last.npy");
    succeeds(embed(&vit(), &text(&data.join("bee, or wasp/1.png")).replace(',', "?"), &last, &[]));
    assert_eq!(array(&last), (vec![1, 16], all[3 * 16..].to_vec()));
    assert!(lines(&folder.path().join("last.npy.csv"))[0].ends_with(",,"), "a single image has no label");
}

#[test]
fn images_that_cannot_be_read_have_no_row_and_are_named() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    fill(&data, 3);
    broken_image(&data.join("good-0b.jpg"));
    let out = folder.path().join("f.npy");
    let mut command = embed(&vit(), &text(&data), &out, &[]);
    command.arg("--json");
    let ran = succeeds(command);
    assert!(ran.stderr.contains("warning: skipped") && ran.stderr.contains("good-0b.jpg"), "{}", ran.stderr);
    assert!(ran.stdout.contains("\"skipped_images\":1") && ran.stdout.contains("\"images\":3"), "{}", ran.stdout);
    let (shape, values) = array(&out);
    assert_eq!(shape, [3, 16]);
    assert!(values[..16] == values[16..32] && values[16..32] == values[32..], "three copies of a photo");
    assert_eq!(lines(&folder.path().join("f.npy.csv")).len(), 3);
    let unreadable = lines(&folder.path().join("f.npy.unreadable.csv"));
    assert!(unreadable.len() == 1 && unreadable[0].contains("good-0b.jpg"), "{unreadable:?}");

    fs::remove_file(data.join("good-0b.jpg")).unwrap();
    succeeds(embed(&vit(), &text(&data), &out, &[]));
    assert!(!folder.path().join("f.npy.unreadable.csv").exists(), "all can be read now");

    let none = folder.path().join("none");
    broken_image(&none.join("a.jpg"));
    let before = fs::read(&out).unwrap();
    refuses(embed(&vit(), &text(&none), &out, &[]), "a.jpg", "");
    assert!(fs::read(&out).unwrap() == before, "nothing is replaced");
}

#[test]
fn class_tokens_patches_and_blocks_are_features_too() {
    let (folder, _) = scratch();
    let of = |name: &str, rest: &[&str]| {
        let out = folder.path().join(name);
        succeeds(embed(&vit(), &photos(), &out, rest));
        array(&out)
    };
    let (mean, class) = (of("mean.npy", &[]), of("class.npy", &["--features=class"]));
    let (patches, block) = (of("patches.npy", &["--features=patches"]), of("block.npy", &["--block=1"]));
    assert_eq!((&mean.0, &class.0, &patches.0, &block.0), (&vec![3, 16], &vec![3, 16], &vec![3, 16, 16], &vec![3, 16]));
    assert!(mean.1 != class.1 && mean.1 != block.1);
    for (image, row) in mean.1.chunks(16).enumerate() {
        for (d, value) in row.iter().enumerate() {
            let of_patches = (0..16).map(|patch| patches.1[(image * 16 + patch) * 16 + d]).sum::<f32>() / 16.0;
            assert!((of_patches - value).abs() < 1e-5, "image {image}, feature {d}: {value}, {of_patches}");
        }
    }
    let out = folder.path().join("f.npy");
    let swin = repository("testdata/weights/hf-swin");
    refuses(embed(&swin, &photos(), &out, &["--features=class"]), "this architecture has none", "the mean");
    refuses(embed(&vit(), &photos(), &out, &["--block=3"]), "there is no block `3`", "1 to 2");
    refuses(embed(&vit(), &photos(), &folder.path().join("f.txt"), &[]), "does not say which format", "`.npy`");
    fails(embed(&vit(), &photos(), &folder.path().join("no/f.npy"), &[]), 1, "f.npy");
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn a_command_that_is_interrupted_or_killed_goes_on_and_ends_with_the_same_bytes() {
    let (folder, _) = scratch();
    let shards: Vec<String> = vec![fashion(); 8];
    for (number, from) in shards.iter().enumerate() {
        let copy = folder.path().join(format!("images-{number}-images-idx3-ubyte.gz"));
        fs::copy(from, copy).unwrap();
    }
    let data = folder.path().join("images-*-idx3-ubyte.gz");
    let out = folder.path().join("f.npy");
    let command = || embed(&vit(), &text(&data), &out, &[]);
    let manifest = folder.path().join("f.npy.partial.json");
    let rows = folder.path().join("f.npy.partial");
    for (signal, code) in [("-KILL", None), ("-INT", Some(130)), ("-KILL", None)] {
        let mut child = with_default_signals(&command()).spawn().unwrap();
        let began = Instant::now();
        // the first rows of a process are saved at once, so that it is behind the last one
        let before = fs::read(&manifest).unwrap_or_default();
        while fs::read(&manifest).unwrap_or_default() == before && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        assert!(manifest.exists() && rows.exists() && !out.exists(), "{signal}");
    }
    let ran = succeeds(command());
    assert!(ran.stderr.contains("going on behind"), "{}", ran.stderr);
    assert!(!manifest.exists() && !rows.exists());
    let whole = folder.path().join("whole.npy");
    succeeds(embed(&vit(), &text(&data), &whole, &[]));
    assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap());
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_has_the_same_rows() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, Row};

    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["ant", "bee"], 40);
    let (npy, out) = (folder.path().join("f.npy"), folder.path().join("f.parquet"));
    succeeds(embed(&vit(), &text(&data), &npy, &[]));
    let result = json(embed(&vit(), &text(&data), &out, &[]));
    assert_eq!(result["files"], serde_json::json!([text(&out)]));
    let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
    let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
    assert!(metadata.iter().any(|pair| pair.key == "simmim.shape" && pair.value.as_deref() == Some("16")));
    let rows: Vec<Row> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let (shape, values) = array(&npy);
    assert_eq!((shape, rows.len()), (vec![80, 16], 80));
    for ((row, values), line) in rows.iter().zip(values.chunks(16)).zip(lines(&folder.path().join("f.npy.csv"))) {
        let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
        let [Field::Str(file), Field::Long(label), Field::Str(class), Field::ListInternal(list)] = fields[..] else {
            panic!("{fields:?}")
        };
        assert!(line.ends_with(&format!(",{file},{label},{class}")), "{line}: {row}");
        let expected: Vec<Field> = values.iter().map(|value| Field::Float(*value)).collect();
        assert_eq!(list.elements(), expected);
    }

    // images without labels, and rows that are flat
    json(embed(&vit(), &photos(), &out, &["--features=patches"]));
    let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
    let row = reader.get_row_iter(None).unwrap().next().unwrap().unwrap();
    let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
    let [Field::Str(_), Field::Null, Field::Null, Field::ListInternal(list)] = fields[..] else { panic!("{fields:?}") };
    assert_eq!(list.len(), 256);
}
