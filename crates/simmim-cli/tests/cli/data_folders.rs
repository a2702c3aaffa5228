//! Folders of images: a run that is written among them, and pipes, are no data.

use std::path::Path;

use serde_json::{Value, json};

use super::support::{class_folders, fill, finetune, json as result, pretrain, scratch, simmim, succeeds, text};

/// What `simmim inspect` says of a path under `key`.
fn inspected(path: &Path, key: &str) -> Value {
    result(simmim(["inspect", &text(path)]))[key].clone()
}

#[test]
fn a_first_run_and_its_resumption_see_the_same_images() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    fill(&data, 8);
    let run = data.join("runs/first");
    succeeds(pretrain(&text(&data), &run, &[]));
    fill(&run.join("pictures"), 2);
    assert_eq!(inspected(&run, "run")["images"], json!(8));
    assert_eq!(inspected(&data, "images"), json!(8));
    succeeds(pretrain(&text(&data), &run, &[]));
    // who names the pictures of a run means them
    assert!(inspected(&run.join("pictures"), "images").as_u64() >= Some(2));
}

#[test]
fn a_run_among_class_folders_is_no_class() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["dark", "light"], 8);
    for name in ["run", "run2"] {
        let run = data.join(name);
        let mut command = finetune("scratch", &text(&data), &run, &[]);
        command.arg("--val").arg(&data);
        succeeds(command);
        assert_eq!(inspected(&run, "run")["classes"], json!(["dark", "light"]));
        fill(&run.join("pictures"), 1);
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_among_images_is_not_opened() {
    let (folder, _) = scratch();
    let data = folder.path().join("data");
    fill(&data, 3);
    let mkfifo = std::process::Command::new("mkfifo").arg(data.join("z.png")).status();
    assert!(mkfifo.unwrap().success());
    assert_eq!(inspected(&data, "images"), json!(3));
}
