//! What lies among the data and is not read: runs, links to what is read anyway, pipes, sockets and devices.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use simmim_data::{Error, PassedOverGroup, PassedOverReason, Relabeled, Result, Source, Subset, open, scan};
use tempfile::{TempDir, tempdir};

use crate::files::{gray, idx, tar, write};

/// A folder with gray images at these paths.
fn folder(images: &[&str]) -> TempDir {
    let root = tempdir().unwrap();
    images.iter().for_each(|image| write(&root.path().join(image), &gray(1)));
    root
}

/// Writes a run with a picture as it is after its first checkpoint.
fn run(path: &Path) {
    for file in [".lock", "recipe.toml", "resolved.toml", "log.jsonl", "checkpoints/step-4/state.json"] {
        write(&path.join(file), b"");
    }
    write(&path.join("pictures/step-4.png"), &gray(9));
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Opens a source in a thread, because one that opens a pipe never ends.
fn opened(spec: String) -> Result<Arc<dyn Source>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(open(&spec, 3)));
    receiver.recv_timeout(Duration::from_secs(20)).expect("the source opens at once")
}

/// Checks which images are read and what is passed over for which reason; both by path below `root`, in order.
#[track_caller]
fn check(root: &TempDir, spec: &str, classes: &[&str], images: &[&str], passed_over: &[(&str, PassedOverReason)]) {
    let below = |path: &Path| path.strip_prefix(root.path()).unwrap().display().to_string();
    let source = opened(format!("{}/{spec}", root.path().display())).unwrap();
    let names: Vec<String> = (0..source.len()).map(|index| below(Path::new(&source.name(index)))).collect();
    assert_eq!(names, images);
    assert_eq!(source.classes(), classes);
    let named = |group: &PassedOverGroup| -> Vec<_> {
        group.first.iter().map(|path| (below(Path::new(path)), group.reason.clone())).collect()
    };
    let mut actual: Vec<_> = source.passed_over().groups().iter().flat_map(named).collect();
    actual.sort_by(|first, second| first.0.cmp(&second.0));
    let mut expected: Vec<_> = passed_over.iter().map(|(path, reason)| ((*path).to_owned(), reason.clone())).collect();
    expected.sort_by(|first, second| first.0.cmp(&second.0));
    assert_eq!(actual, expected);
    assert_eq!(source.passed_over().count(), expected.len() as u64);
}

const RUN: PassedOverReason = PassedOverReason::Run;
const LOOP: PassedOverReason = PassedOverReason::Loop;
const REPEATED: PassedOverReason = PassedOverReason::Repeated;
const PIPE: PassedOverReason = PassedOverReason::NotAFile("a pipe");

fn extension(extension: &str) -> PassedOverReason {
    PassedOverReason::Extension(extension.to_owned())
}

#[test]
fn files_that_are_no_images_are_counted_by_extension() {
    let root = folder(&["cat/a.png", "dog/b.png"]);
    for path in ["cat/x.HEIC", "dog/y.heic", "dog/README", "dog/._b.png", "classes.json", "__MACOSX/cat/a.png"] {
        write(&root.path().join(path), b"");
    }
    write(&root.path().join("dog/inner.tar"), &tar(&[("0.png", &gray(0))]));
    write(&root.path().join("more.tar"), &tar(&[("0.png", &gray(0))]));
    write(&root.path().join("x-images-idx3-ubyte"), &idx(&[1, 1, 1], &[0]));
    let passed_over = [
        ("__MACOSX", PassedOverReason::Hidden),
        ("cat/x.HEIC", extension("heic")),
        ("classes.json", extension("json")),
        ("dog/._b.png", PassedOverReason::Hidden),
        ("dog/README", PassedOverReason::NoExtension),
        ("dog/inner.tar", PassedOverReason::Beside),
        ("dog/y.heic", extension("heic")),
        ("more.tar", PassedOverReason::Beside),
        ("x-images-idx3-ubyte", PassedOverReason::Beside),
    ];
    check(&root, "", &["cat", "dog"], &["cat/a.png", "dog/b.png"], &passed_over);
    check(
        &root,
        "dog/*",
        &[],
        &["dog/b.png", "dog/inner.tar:0.png"],
        &[("dog/README", PassedOverReason::NoExtension), ("dog/y.heic", extension("heic"))],
    );
    // where there is nothing else, the hint says what there is
    let only = tempdir().unwrap();
    write(&only.path().join("photo.heic"), b"");
    for spec in ["", "*"] {
        let hint = opened(format!("{}/{spec}", only.path().display())).err().unwrap().hint().unwrap();
        assert!(hint.contains("photo.heic` has the extension `.heic`, which is not read; convert"), "{hint}");
    }
}

#[test]
fn a_run_below_the_data_is_passed_over_at_any_depth_and_through_links() {
    let (root, elsewhere) = (folder(&["a.png", "deep/b.png"]), tempdir().unwrap());
    check(&root, "", &[], &["a.png", "deep/b.png"], &[]);
    run(&root.path().join("deep/er/run"));
    run(&root.path().join("run"));
    run(elsewhere.path());
    symlink(elsewhere.path(), root.path().join("link")).unwrap();
    symlink(elsewhere.path().join("pictures"), root.path().join("deep/latest")).unwrap();
    symlink("run/pictures", root.path().join("shown")).unwrap();
    let runs = ["deep/er/run", "deep/latest", "link", "run", "shown"].map(|path| (path, RUN));
    check(&root, "", &[], &["a.png", "deep/b.png"], &runs);
}

#[test]
fn links_to_pictures_of_a_run_are_passed_over_and_other_links_are_read() {
    let (root, elsewhere) = (folder(&["a.png", "deep/b.png"]), tempdir().unwrap());
    run(&elsewhere.path().join("run"));
    write(&elsewhere.path().join("c.png"), &gray(3));
    let at = |path: &str| root.path().join(path);
    symlink(elsewhere.path().join("run/pictures/step-4.png"), at("newest.png")).unwrap();
    symlink(elsewhere.path().join("c.png"), at("c.png")).unwrap();
    symlink("../newest.png", at("deep/again.png")).unwrap();
    symlink("../c.png", at("deep/d.png")).unwrap();
    let (images, runs) =
        (["a.png", "c.png", "deep/b.png", "deep/d.png"], [("deep/again.png", RUN), ("newest.png", RUN)]);
    check(&root, "", &[], &images, &runs);
    check(&root, "*.png", &[], &images[..2], &runs[1..]);
    check(&root, "newest.png", &[], &["newest.png"], &[]);
    // who names a folder in a run means it, and what its links lead to
    symlink("step-4.png", elsewhere.path().join("run/pictures/same.png")).unwrap();
    let pictures = ["run/pictures/same.png", "run/pictures/step-4.png"];
    check(&elsewhere, "run/pictures", &[], &pictures, &[]);
    check(&elsewhere, "run/pictures/*", &[], &pictures, &[]);
}

#[test]
fn a_link_to_nothing_is_an_unreadable_image_if_it_has_the_name_of_one() {
    let root = folder(&["a.png", "deep/b.png"]);
    symlink("nowhere/x.png", root.path().join("deep/x.png")).unwrap();
    symlink("nowhere", root.path().join("more")).unwrap();
    symlink("nowhere", root.path().join("deep/more")).unwrap();
    let nowhere = [("deep/more", PassedOverReason::Nowhere), ("more", PassedOverReason::Nowhere)];
    check(&root, "", &[], &["a.png", "deep/b.png", "deep/x.png"], &nowhere);
    let scanned = scan(&opened(root.path().display().to_string()).unwrap(), 0, &mut |_| {}).unwrap();
    let unreadable: Vec<&str> = scanned.unreadable.iter().map(|image| image.name.as_str()).collect();
    assert!(unreadable.len() == 1 && unreadable[0].ends_with("deep/x.png"), "{unreadable:?}");
    let empty = tempdir().unwrap();
    symlink("nowhere", empty.path().join("photos")).unwrap();
    let hint = opened(empty.path().display().to_string()).err().unwrap().hint().unwrap();
    assert!(hint.contains("photos` is a link to nothing"), "{hint}");
}

#[test]
fn names_with_commas_and_braces_are_read_alone_and_by_a_wildcard_in_a_list() {
    let root = folder(&["a,b/1.png", "{c}/2.png", "d/3.png"]);
    check(&root, "a,b", &[], &["a,b/1.png"], &[]);
    check(&root, "{c}", &[], &["{c}/2.png"], &[]);
    let list = format!("a?b,{0}/?c?,{0}/d", root.path().display());
    check(&root, &list, &[], &["a,b/1.png", "{c}/2.png", "d/3.png"], &[]);
}

#[test]
fn a_run_is_no_class() {
    let root = folder(&["dark/a.png", "light/b.png"]);
    fs::create_dir(root.path().join("none")).unwrap();
    let (classes, images) = (["dark", "light", "none"], ["dark/a.png", "light/b.png"]);
    check(&root, "", &classes, &images, &[]);
    // locked before its images are listed, and not begun
    write(&root.path().join("new/.lock"), b"");
    check(&root, "", &classes, &images, &[("new", RUN)]);
    run(&root.path().join("dark/run"));
    run(&root.path().join("new"));
    run(&root.path().join("runs/1"));
    run(&root.path().join("runs/2"));
    check(&root, "", &classes, &images, &["dark/run", "new", "runs/1", "runs/2"].map(|path| (path, RUN)));
    fs::remove_dir(root.path().join("none")).unwrap();
    check(&root, "[!r]*", &[], &images, &["new", "dark/run"].map(|path| (path, RUN)));
}

#[test]
fn a_run_that_is_named_itself_is_read() {
    let root = tempdir().unwrap();
    run(&root.path().join("run"));
    run(&root.path().join("run/inner"));
    symlink("../pictures", root.path().join("run/checkpoints/seen")).unwrap();
    check(&root, "run/pictures", &[], &["run/pictures/step-4.png"], &[]);
    check(&root, "r?n/pictures/*", &[], &["run/pictures/step-4.png"], &[]);
    let passed_over = [
        ("run/.lock", PassedOverReason::Hidden),
        ("run/checkpoints/seen", REPEATED),
        ("run/checkpoints/step-4/state.json", extension("json")),
        ("run/inner", RUN),
        ("run/log.jsonl", extension("jsonl")),
        ("run/recipe.toml", extension("toml")),
        ("run/resolved.toml", extension("toml")),
    ];
    check(&root, "run", &["checkpoints", "pictures"], &["run/pictures/step-4.png"], &passed_over);
}

#[test]
fn where_everything_is_passed_over_the_hint_says_what() {
    let root = tempdir().unwrap();
    run(&root.path().join("run"));
    for spec in ["", "*", "r*"] {
        let error = opened(format!("{}/{spec}", root.path().display())).err().unwrap();
        assert!(matches!(error, Error::EmptyFolder { .. } | Error::NoMatch { .. }), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("/run` belongs to a run; name it itself"), "{hint}");
    }
}

#[test]
fn a_folder_with_several_ways_to_it_is_read_once() {
    let (root, pool) = (folder(&["a.png", "z/b.png"]), folder(&["c.png", "sub/d.png"]));
    symlink(".", root.path().join("self")).unwrap();
    symlink("z", root.path().join("b")).unwrap();
    symlink("..", root.path().join("z/up")).unwrap();
    symlink(pool.path(), root.path().join("p")).unwrap();
    symlink(pool.path(), root.path().join("q")).unwrap();
    symlink(pool.path().join("sub"), root.path().join("r")).unwrap();
    symlink(pool.path(), pool.path().join("sub/again")).unwrap();
    let passed_over =
        [("b", REPEATED), ("p/sub/again", LOOP), ("q", REPEATED), ("r", REPEATED), ("self", LOOP), ("z/up", LOOP)];
    check(&root, "", &[], &["a.png", "p/c.png", "p/sub/d.png", "z/b.png"], &passed_over);
}

#[test]
fn a_link_to_a_class_folder_is_no_second_class() {
    let (root, pool) = (folder(&["cat/a.png", "dog/b.png", ".kept/c.png"]), folder(&["d.png"]));
    symlink("dog", root.path().join("best")).unwrap();
    symlink(".", root.path().join("all")).unwrap();
    symlink(".kept", root.path().join("emu")).unwrap();
    symlink(pool.path(), root.path().join("fox")).unwrap();
    let images = ["cat/a.png", "dog/b.png", "emu/c.png", "fox/d.png"];
    let passed_over = [(".kept", PassedOverReason::Hidden), ("all", LOOP), ("best", REPEATED)];
    check(&root, "", &["cat", "dog", "emu", "fox"], &images, &passed_over);
}

#[test]
fn pipes_sockets_and_devices_are_passed_over_unopened() {
    let root = folder(&["dark/a.png", "light/b.png"]);
    pipe(&root.path().join("z.png"));
    pipe(&root.path().join("dark/z.jpg"));
    symlink("../z.png", root.path().join("light/link.png")).unwrap();
    symlink("/dev/null", root.path().join("light/none.png")).unwrap();
    let _socket = UnixListener::bind(root.path().join("light/s.png")).unwrap();
    let in_light = [
        ("light/link.png", PIPE),
        ("light/none.png", PassedOverReason::NotAFile("a device")),
        ("light/s.png", PassedOverReason::NotAFile("a socket")),
    ];
    let all = [&[("dark/z.jpg", PIPE)], &in_light[..], &[("z.png", PIPE)]].concat();
    check(&root, "", &["dark", "light"], &["dark/a.png", "light/b.png"], &all);
    check(&root, "light/*.png", &[], &["light/b.png"], &in_light);
    write(&root.path().join("shards/a.tar"), &tar(&[("0.png", &gray(0))]));
    pipe(&root.path().join("shards/b.tar"));
    check(&root, "shards", &[], &["shards/a.tar:0.png"], &[("shards/b.tar", PIPE)]);
    check(&root, "shards/*", &[], &["shards/a.tar:0.png"], &[("shards/b.tar", PIPE)]);
}

#[test]
fn a_pipe_that_is_named_itself_is_refused() {
    let root = tempdir().unwrap();
    let check = |pipe: &str, spec: &str| {
        let at = |path: &str| root.path().join(path).display().to_string();
        let error = opened(at(spec)).err().unwrap();
        assert_eq!(error.to_string(), format!("`{}` is a pipe, not a regular file", at(pipe)));
        assert!(error.is_users_fault() && error.hint().is_some());
    };
    for name in ["x.npy", "x.PNG", "x.tar", "x-images-idx3-ubyte", "x-images-idx3-ubyte.gz", "x"] {
        pipe(&root.path().join(name));
        check(name, name);
    }
    symlink("x.tar", root.path().join("link.tar")).unwrap();
    check("link.tar", "link.tar");
    // in the place of a file that is found beside the one that is named
    write(&root.path().join("y-images-idx3-ubyte"), &idx(&[1, 1, 1], &[0]));
    pipe(&root.path().join("y-labels-idx1-ubyte"));
    check("y-labels-idx1-ubyte", "y-images-idx3-ubyte");
    write(&root.path().join("shards/y.tar"), &tar(&[("0.png", &gray(0))]));
    pipe(&root.path().join("shards/classes.json"));
    check("shards/classes.json", "shards/y.tar");
}

#[test]
fn an_image_that_becomes_a_pipe_is_unreadable() {
    let root = folder(&["a.png"]);
    let source = opened(root.path().display().to_string()).unwrap();
    fs::remove_file(root.path().join("a.png")).unwrap();
    pipe(&root.path().join("a.png"));
    assert!(matches!(source.get(0), Err(Error::NotAFile { .. })));
}

#[test]
fn sources_of_sources_tell_what_those_pass_over() {
    let (one, two) = (folder(&["cat/a.png", "dog/b.png"]), folder(&["cat/a.png", "dog/b.png"]));
    run(&one.path().join("run"));
    pipe(&two.path().join("dog/z.png"));
    let source = opened(format!("{},{}", one.path().display(), two.path().display())).unwrap();
    let subset = Arc::new(Subset::spread(source, 1));
    let source = Relabeled::new(subset, vec![1, 0], ["dog", "cat"].map(str::to_owned).to_vec());
    let told: Vec<String> = source.passed_over().groups().iter().map(ToString::to_string).collect();
    let expected = [
        format!("`{}/run` belongs to a run", one.path().display()),
        format!("`{}/dog/z.png` is a pipe", two.path().display()),
    ];
    assert_eq!(told, expected);
    let source: Arc<dyn Source> = Arc::new(source);
    assert_eq!(&scan(&source, 0, &mut |_| {}).unwrap().passed_over, source.passed_over());
}

#[test]
fn an_image_that_keeps_class_folders_from_being_classes_is_named() {
    let check = |images: &[&str], expected: Option<&str>| {
        let root = folder(images);
        let source = opened(root.path().display().to_string()).unwrap();
        let source = Subset::spread(source, 2);
        let why = source.why_unlabeled();
        assert_eq!(why.is_some(), expected.is_some(), "{images:?}: {why:?}");
        if let (Some(why), Some(expected)) = (why, expected) {
            let root = root.path().display();
            let message = format!(
                "the images in `{root}` have no labels: `{root}/{expected}` does not lie directly in a class folder"
            );
            assert_eq!(why.to_string(), message);
            assert!(why.is_users_fault() && why.hint().unwrap().contains(&format!("sub-folder of `{root}`")));
        }
    };
    check(&["a/0.png", "b/0.png"], None);
    check(&["0.png", "1.png"], None);
    check(&["a/0.png", "b/0.png", "contact-sheet.png"], Some("contact-sheet.png"));
    check(&["a/0.png", "b/0.png", "b/deeper/1.png"], Some("b/deeper/1.png"));
    check(&["train/a/0.png", "train/b/0.png"], Some("train/a/0.png"));
}
