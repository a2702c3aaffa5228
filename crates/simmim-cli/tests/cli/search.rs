//! `simmim search` and `simmim map`: what features of a collection say without labels.

use super::support::{
    broken_image, class_folders, fails, fashion, json, on_threads, photos, refuses, repository, run, scratch, simmim,
    succeeds, text, with_default_signals,
};
use serde_json::{Map, Value, json as value};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn vit() -> String {
    repository("testdata/weights/hf-vit")
}

fn search(data: &str, rest: &[&str]) -> Command {
    let mut command = simmim(["search", "--from", &vit(), "--data", data]);
    command.args(rest);
    command
}

fn map(data: &str, rest: &[&str]) -> Command {
    let mut command = simmim(["map", "--from", &vit(), "--data", data]);
    command.args(rest);
    command
}

fn embed(data: &str, out: &Path) -> Command {
    let mut command = simmim(["embed", "--from", &vit(), "--data", data, "--out"]);
    command.arg(out);
    command
}

/// The files of the neighbors of each query, and how similar they are.
fn neighbors(found: &Map<String, Value>) -> Vec<Vec<(String, f64)>> {
    let near = |near: &Value| (near["file"].as_str().unwrap().to_owned(), near["similarity"].as_f64().unwrap());
    let query = |query: &Value| query["neighbors"].as_array().unwrap().iter().map(near).collect();
    found["queries"].as_array().unwrap().iter().map(query).collect()
}

/// Rows of an array, read by another reader.
fn array(path: &Path) -> Vec<Vec<f64>> {
    let bytes = fs::read(path).unwrap();
    let file = npyz::NpyFile::new(bytes.as_slice()).unwrap();
    let width = file.shape()[1] as usize;
    let values: Vec<f32> = file.into_vec().unwrap();
    values.chunks(width).map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
}

#[test]
fn neighbors_are_those_of_all_cosines_and_the_same_from_every_form_of_features() {
    let (folder, _) = scratch();
    let npy = folder.path().join("f.npy");
    succeeds(embed(&fashion(), &npy));
    let found = json(search(&fashion(), &["--k=5"]));
    assert_eq!((&found["images"], &found["features"], &found["k"]), (&1000.into(), &16.into(), &5.into()));
    assert_eq!((&found["query_count"], found["queries"].as_array().unwrap().len()), (&1000.into(), 1000));

    let rows = array(&npy);
    let cosine = |a: &[f64], b: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    for (query, near) in neighbors(&found).iter().enumerate().step_by(37) {
        let others = (0..rows.len()).filter(|row| *row != query);
        let mut expected: Vec<f64> = others.map(|row| cosine(&rows[query], &rows[row])).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        for ((file, similarity), expected) in near.iter().zip(&expected) {
            // sums of f32
            assert!((similarity - expected).abs() < 1e-5, "{query}: {file} {similarity}, expected {expected}");
        }
    }
    assert_eq!(json(on_threads(3, &search(&fashion(), &["--k=5"]))), found, "any number of threads");

    let stored = |features: &Path, rest: &[&str]| {
        let mut command = simmim(["search", "--k=5", "--features"]);
        command.arg(features).args(rest);
        json(command)
    };
    let of_array = stored(&npy, &[]);
    assert_eq!(neighbors(&of_array), neighbors(&found));
    assert_eq!(of_array["queries"][0]["neighbors"][0]["class"], found["queries"][0]["neighbors"][0]["class"]);
    assert_eq!(neighbors(&stored(&npy, &["--data", &fashion(), "--from", &vit()])), neighbors(&found));
    if cfg!(feature = "parquet") {
        let parquet = folder.path().join("f.parquet");
        succeeds(embed(&fashion(), &parquet));
        assert_eq!(stored(&parquet, &[]), of_array);
        // one more field in its metadata: a list of two billion elements that take no bytes
        let mut bytes = fs::read(&parquet).unwrap();
        let (end, field) = (bytes.len() - 8, [0xb9, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07]);
        let length = u32::from_le_bytes(*bytes[end..].first_chunk().unwrap()) + field.len() as u32;
        bytes.splice(end - 1..end - 1, field);
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        fs::write(&parquet, bytes).unwrap();
        let mut command = simmim(["search", "--features"]);
        command.arg(&parquet);
        refuses(command, "claims more elements than there are bytes", "");
    }
}

#[test]
fn a_query_finds_its_copies_but_not_itself_and_others_go_on_when_one_is_broken() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["ant", "bee"], 5);
    let query = data.join("ant/1.png");
    fs::copy(&query, data.join("bee/copy.png")).unwrap();
    let outside = folder.path().join("1.png");
    fs::copy(&query, &outside).unwrap();
    let broken = folder.path().join("broken.jpg");
    broken_image(&broken);
    let found = json(search(&text(&data), &["--k=3", &text(&query), &text(&outside)]));
    let (near, file) = (neighbors(&found), |path: &Path| text(path));
    assert_eq!(near[0][0].0, file(&data.join("bee/copy.png")), "its copy, but not itself");
    assert!((near[0][0].1 - 1.0).abs() < 1e-6, "{near:?}");
    assert_eq!(near[1][0].0, file(&query), "the same pixels at another place");
    assert_eq!(near[1][1].0, file(&data.join("bee/copy.png")), "equally near, and behind it in the collection");
    assert_eq!((&found["queries"][0]["row"], &found["queries"][1]["row"]), (&1.into(), &Value::Null));

    let missing = folder.path().join("none.png");
    let ran = run(search(&text(&data), &["--json", &text(&broken), &text(&query), &text(&missing)]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let printed: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(printed["queries"].as_array().unwrap().len(), 1);
    assert!(printed["failed"][0]["image"].as_str().unwrap().ends_with("broken.jpg"));
    assert!(printed["failed"][1]["image"].as_str().unwrap().ends_with("none.png"));
    fails(search(&text(&data), &[&text(&broken)]), 2, "broken.jpg");

    let all = json(search(&text(&data), &["--k=5000"]));
    assert_eq!(all["k"], 11);
    assert!(neighbors(&all).iter().all(|near| near.len() == 10), "all others");
    refuses(search(&text(&query), &[]), "is the only image", "name an IMAGE");
    assert_eq!(neighbors(&json(search(&text(&query), &[&text(&outside)])))[0].len(), 1);
}

#[test]
fn nearly_equal_images_are_groups_with_their_conflicts() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    let copies = [
        ("a", "tools-plier1.jpg"),
        ("a", "others-buffetset.jpg"),
        ("b", "tools-plier1-same.png"),
        ("b", "others-buffetset-crop.jpg"),
    ];
    for (class, name) in copies {
        fs::create_dir_all(data.join(class)).unwrap();
        let from = format!("{}/{name}", repository("testdata/duplicates"));
        fs::copy(from, data.join(class).join(name)).unwrap();
    }
    let csv = folder.path().join("groups.csv");
    let found = json(search(&text(&data), &["--duplicates=0.99999", "--out", &text(&csv)]));
    // the pliers as JPEG and as PNG of its pixels
    let groups = found["groups"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["label_conflict"] == value!(true)), "{groups:?}");
    let lines = fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().next(), Some("group,file,class,similarity"));
    assert_eq!(lines.lines().count() as u64 - 1, found["images_in_groups"].as_u64().unwrap());
    assert_eq!(lines.lines().nth(1).map(|line| line.ends_with(",a,1.0000")), Some(true), "{lines}");
    let all = json(search(&text(&data), &["--duplicates=0.01"]));
    assert_eq!((&all["group_count"], &all["images_in_groups"]), (&1.into(), &4.into()));
    refuses_usage(search(&text(&data), &["--duplicates=0"]), "above 0");
    refuses_usage(search(&text(&data), &["--duplicates=0.9", &text(&data)]), "cannot be used with");
}

#[track_caller]
fn refuses_usage(command: Command, part: &str) {
    let ran = run(command);
    assert!(ran.code == Some(2) && ran.stderr.contains(part), "{ran:?}");
}

#[test]
fn pages_and_sheets_show_names_of_any_kind_and_replace_nothing_else() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["<b>Käse & Öl", "bee"], 8);
    fs::rename(data.join("bee/1.png"), data.join("bee/<script>alert(1)<.png")).unwrap();
    let out = |name: &str| folder.path().join("new folder").join(name);
    let (page, sheet, table) = (out("s.html"), out("s.png"), out("s.csv"));
    let files = ["--out", &text(&page), "--out", &text(&sheet), "--out", &text(&table)];
    let found = json(search(&text(&data), &files));
    assert_eq!(found["files"], value!([text(&page), text(&sheet), text(&table)]));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("&lt;b&gt;Käse &amp; Öl") && html.contains("&lt;script&gt;alert(1)&lt;.png"), "{html}");
    assert!(!html.contains("<script") && !html.contains("<b>K"));
    assert!(image::open(&sheet).unwrap().width() > 1000);
    let lines = fs::read_to_string(&table).unwrap();
    assert_eq!((lines.lines().next(), lines.lines().count()), (Some("query,rank,file,class,similarity"), 1 + 16 * 10));

    let (page, picture, table) = (out("m.html"), out("m.png"), out("m.csv"));
    let files = ["--out", &text(&page), "--out", &text(&picture), "--out", &text(&table)];
    let found = json(map(&text(&data), &files));
    assert_eq!((&found["method"], &found["images"], &found["classes"]), (&"tsne".into(), &16.into(), &2.into()));
    let html = fs::read_to_string(&page).unwrap();
    assert_eq!((html.matches("<script").count(), html.matches("</script>").count()), (2, 2));
    assert!(html.contains("data:image/jpeg;base64,") && html.contains("\\u003cscript>alert(1)\\u003c.png"));
    for reference in ["http:", "https:", "src=\"/", "@import", "url("] {
        assert!(!html.contains(reference), "{reference}");
    }
    image::open(&picture).unwrap();
    let lines = fs::read_to_string(&table).unwrap();
    assert_eq!((lines.lines().next(), lines.lines().count()), (Some("file,class,x,y"), 17));

    // again over its own files, but over nothing else
    succeeds(map(&text(&data), &files));
    let own = folder.path().join("own.csv");
    fs::write(&own, "file,label\na,1\n").unwrap();
    refuses(map(&text(&data), &["--out", &text(&own)]), "has other columns", "name another");
    refuses(search(&text(&data), &["--out", &text(&table)]), "has other columns", "name another");
    let note = folder.path().join("note.html");
    fs::write(&note, "dear diary").unwrap();
    refuses(map(&text(&data), &["--out", &text(&note)]), "is no page", "name another");
    let image = text(&data.join("bee/2.png"));
    let before = fs::read(&image).unwrap();
    refuses(map(&text(&data), &["--out", &image]), "is one of the images", "name another");
    refuses(search(&text(&data.join("bee/3.png")), &["--out", &image, &image]), "is one of the images", "name another");
    assert!(fs::read(&image).unwrap() == before);
    refuses(map(&text(&data), &["--out", "m.jpg"]), "does not say what to write", "`.html`");
    refuses(map(&text(&data), &["--out", "a.png", "--out", "b.png"]), "are of one kind", "one of them");
    refuses(map(&text(&data), &["--out", &text(folder.path())]), "does not say what to write", "`.html`");
}

#[test]
fn features_that_are_damaged_or_of_something_else_are_refused_by_name() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["ant", "bee"], 6);
    let npy = folder.path().join("f.npy");
    succeeds(embed(&text(&data), &npy));
    let whole = fs::read(&npy).unwrap();
    let stored = |rest: &[&str]| {
        let mut command = simmim(["search", "--features"]);
        command.arg(&npy).args(rest);
        command
    };
    succeeds(stored(&[]));
    let mut bytes = whole.clone();
    // feature 3 of row 7, which is the image `bee/1.png`
    bytes[128 + 4 * (7 * 16 + 3)..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&npy, &bytes).unwrap();
    let name = text(&data.join("bee/1.png"));
    for command in [stored(&[]), stored(&["--duplicates=0.9"])] {
        refuses(command, &format!("feature 3 is NaN for `{name}`"), "");
    }
    fs::write(&npy, &whole[..whole.len() - 4]).unwrap();
    refuses(stored(&[]), "12 rows of 16 do not lie in", "`simmim embed`");
    fs::write(&npy, b"no array").unwrap();
    refuses(stored(&[]), "f.npy", "`simmim embed`");
    fs::write(&npy, &whole).unwrap();
    // a row of zeros is like none
    bytes = whole.clone();
    bytes[128..128 + 64].fill(0);
    fs::write(&npy, &bytes).unwrap();
    let found = json(stored(&["--k=2"]));
    assert_eq!(neighbors(&found)[0].iter().map(|near| near.1).collect::<Vec<_>>(), [0.0, 0.0]);
    assert_eq!(found["queries"][0]["neighbors"][0]["row"], 1, "equal ones by index");
    fs::write(&npy, &whole).unwrap();
    let list = folder.path().join("f.npy.csv");
    let lines = fs::read_to_string(&list).unwrap();
    fs::write(&list, lines.lines().take(5).collect::<Vec<_>>().join("\n")).unwrap();
    refuses(stored(&[]), "it lists 4 rows, and the array has 12", "`simmim embed`");
    fs::write(&list, &lines).unwrap();
    refuses(stored(&["--data", &photos()]), "which is not among the images", "--data");
    refuses(stored(&[&name]), "cannot be computed without a model", "--from");
    refuses(stored(&["--out", &text(&folder.path().join("p.html"))]), "the images are not known", "--data");
    let swin = repository("testdata/weights/hf-swin");
    refuses(stored(&["--from", &swin, "--data", &text(&data)]), "features", "`simmim embed`");
    refuses(stored(&["--from", &vit(), "--data", &text(&data), "--block=1"]), "have the cosine", "--block");
    fs::remove_file(&list).unwrap();
    fails(stored(&[]), 1, "f.npy.csv");
    let patches = folder.path().join("p.npy");
    let mut command = embed(&text(&data), &patches);
    command.arg("--features=patches");
    succeeds(command);
    refuses(simmim(["search", "--features", &text(&patches)]), "their shape is (12, 16, 16)", "one row per image");
    refuses(simmim(["search", "--features", &text(&data.join("ant/1.png"))]), "is no file of features", "F.npy");
}

#[test]
fn a_map_follows_the_seed_and_few_images_have_one_too() {
    let (folder, _) = scratch();
    let csv = folder.path().join("m.csv");
    let places = |data: &str, rest: &[&str]| {
        let mut command = map(data, rest);
        command.args(["--out", &text(&csv)]);
        let ran = succeeds(on_threads(2, &command));
        (fs::read_to_string(&csv).unwrap(), ran.stderr)
    };
    let data = folder.path().join("data");
    class_folders(&data, &["ant", "bee"], 12);
    let (first, _) = places(&text(&data), &[]);
    assert_eq!(places(&text(&data), &[]).0, first);
    assert_ne!(places(&text(&data), &["--seed=1"]).0, first);
    assert_ne!(places(&text(&data), &["--perplexity=3"]).0, first);
    assert_eq!(places(&text(&data), &["--method=pca", "--seed=1"]).0, places(&text(&data), &["--method=pca"]).0);
    let (few, said) = places(&photos(), &[]);
    assert_eq!(few.lines().count(), 4);
    assert!(said.contains("3 images are too few for t-SNE"), "{said}");
    refuses_usage(map(&photos(), &["--out", "m.csv", "--perplexity=1"]), "from 2 to 200");
    refuses_usage(map(&photos(), &[]), "--out");
    refuses_usage(simmim(["map", "--out", "m.csv"]), "--from");
}

#[test]
fn a_map_speaks_of_classes_only_where_there_are_some() {
    let (folder, _) = scratch();
    let page = |data: &str| {
        let html = folder.path().join("m.html");
        succeeds(map(data, &["--out", &text(&html)]));
        fs::read_to_string(html).unwrap().contains("A class below")
    };
    let labeled = folder.path().join("labeled");
    class_folders(&labeled, &["ant", "bee"], 2);
    assert!(page(&text(&labeled)) && !page(&photos()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_is_found_before_the_images() {
    for command in [search("nowhere", &["--out=/proc/s.html"]), map("nowhere", &["--out=/proc/m.html"])] {
        fails(command, 1, "`/proc`");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_search_or_map_writes_nothing() {
    let (folder, _) = scratch();
    let npy = folder.path().join("f.npy");
    succeeds(embed(&fashion(), &npy));
    let out = text(&folder.path().join("out.csv"));
    let mut of_features = simmim(["map", "--out", &out, "--features"]);
    of_features.arg(&npy);
    for command in [of_features, search(&fashion(), &["--out", &out])] {
        let mut child = with_default_signals(&command).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150));
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let code = child.wait().unwrap().code();
        // a machine that is fast enough was done before
        assert!(code == Some(130) && !Path::new(&out).exists() || code == Some(0) || code.is_none(), "{code:?}");
        let _ = fs::remove_file(&out);
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| text(&entry.unwrap().path()));
        assert!(!left.into_iter().any(|name| name.contains(".partial")), "no temporary file is left");
    }
}
