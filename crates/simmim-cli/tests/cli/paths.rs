//! Paths as people type them: `~` in quotes, recipes from a pipe, commas in names.

use super::support::{fashion, fill, json, pretrain, refuses, run, scratch, simmim, succeeds, text};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

#[cfg(unix)]
#[test]
fn a_tilde_is_the_home_folder_also_where_the_shell_leaves_it() {
    let (folder, _) = scratch();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let at_home = |mut command: Command| {
        command.current_dir(folder.path()).env("HOME", &home);
        command
    };
    succeeds(at_home(pretrain(&fashion(), "~/run".as_ref(), &[])));
    assert!(home.join("run/resolved.toml").is_file() && !folder.path().join("~").exists());
    fs::copy(fashion(), home.join("test-images-idx3-ubyte.gz")).unwrap();
    succeeds(at_home(simmim(["inspect", "~/test-images-idx3-ubyte.gz,~/test-images-idx3-ubyte.gz"])));
    succeeds(at_home(simmim(["inspect", "~/run"])));
    let edit = "target.palette=~/palette.safetensors";
    let arguments = ["--data", "~/test-images-idx3-ubyte.gz", "--colors=4", "--channels=1"];
    let mut palette = simmim(["palette", "--out=~/palette.safetensors"]);
    palette.args(arguments);
    succeeds(at_home(palette));
    let clusters = ["target.kind=color-clusters", "target.clusters=4", edit];
    succeeds(at_home(pretrain(&fashion(), "~/colors".as_ref(), &clusters)));
    // a folder of this name
    succeeds(at_home(pretrain(&fashion(), "./~/run".as_ref(), &[])));
    assert!(folder.path().join("~/run/resolved.toml").is_file());
    // only the command line knows whose home it is
    let recipe = "extends = \"demo\"\n[target]\nkind = \"color-clusters\"\npalette = \"~/palette.safetensors\"\n";
    fs::write(folder.path().join("mine.toml"), recipe).unwrap();
    refuses(at_home(simmim(["inspect", "mine.toml"])), "`target.palette`: `~` does not stand", "in full");
}

const RECIPE: &str =
    "extends = \"demo\"\n[encoder]\nwidth = 16\ndepth = 1\nheads = 2\n[train]\nbatch_size = 8\nmax_steps = 3\n";

/// Runs a command with `RECIPE` on its stdin.
#[cfg(target_os = "linux")]
fn with_recipe_on_stdin(mut command: Command) -> super::support::Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(RECIPE.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    super::support::Ran { code: ended.status.code(), stdout: text(ended.stdout), stderr: text(ended.stderr) }
}

#[cfg(target_os = "linux")]
#[test]
fn a_recipe_may_come_from_a_pipe() {
    let (folder, out) = scratch();
    let train = || {
        let mut command = simmim(["pretrain", "--json", "--recipe=/dev/stdin", "--data", &fashion(), "--out"]);
        command.arg(&out);
        command
    };
    for _ in 0..2 {
        let ran = with_recipe_on_stdin(train());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(ran.stdout.trim()).unwrap()["steps"], 3);
    }
    assert!(fs::read_to_string(out.join("recipe.toml")).unwrap().ends_with(RECIPE));
    for command in [simmim(["inspect", "/dev/stdin"]), simmim(["recipes", "/dev/stdin"])] {
        let ran = with_recipe_on_stdin(command);
        assert!(ran.code == Some(0) && ran.stdout.contains("16"), "{ran:?}");
    }
    // paths in it start in the current folder
    let palette = folder.path().join("palette.safetensors");
    let mut made = simmim(["palette", "--colors=4", "--channels=1", "--data", &fashion(), "--out"]);
    made.arg(&palette);
    succeeds(made);
    let colors =
        format!("{RECIPE}[target]\nkind = \"color-clusters\"\nclusters = 4\npalette = \"palette.safetensors\"\n");
    fs::write(folder.path().join("colors.toml"), colors).unwrap();
    let mut shell = Command::new("bash");
    shell.arg("-c").arg("exec \"$0\" \"$@\" --recipe <(cat colors.toml)").arg(env!("CARGO_BIN_EXE_simmim"));
    shell.args(["pretrain", "--threads=1", "--out=colors", "--data", &fashion()]).current_dir(folder.path());
    succeeds(shell);
    // nothing and something endless are no recipes
    for (name, error) in [("/dev/null", "has no `kind`"), ("/dev/zero", "has more than")] {
        let mut command = simmim(["pretrain", "--recipe", name, "--data", &fashion(), "--out"]);
        command.arg(folder.path().join("none"));
        refuses(command, error, "");
    }
}

#[test]
fn names_with_commas_are_read_wherever_a_collection_is_named() {
    let (folder, out) = scratch();
    let at = |name: &str| folder.path().join(name);
    fill(&at("a,b/one"), 2);
    fill(&at("a,b/two"), 2);
    fill(&at("c/one"), 3);
    fill(&at("c/two"), 3);
    let images = |spec: &str| json(simmim(["inspect", spec]))["images"].clone();
    assert_eq!(images(&text(&at("a,b"))), 4);
    assert_eq!(images(&format!("{},{}", text(&at("a?b")), text(&at("c")))), 10);
    // in a recipe, relative to it
    let recipe = format!("{RECIPE}[data]\nchannels = 3\n[monitor]\ntrain = \"a,b\"\nval = \"c\"\nevery_steps = 1\n");
    fs::write(at("mine.toml"), recipe.replace("batch_size = 8", "batch_size = 2")).unwrap();
    let mut command = simmim(["pretrain", "--recipe", &text(&at("mine.toml")), "--data", &text(&at("a,b")), "--out"]);
    command.arg(&out);
    assert!(json(command)["monitor"].as_array().unwrap().len() > 1);
}

#[cfg(unix)]
#[test]
fn links_to_nothing_are_told() {
    let (folder, _) = scratch();
    fill(folder.path(), 3);
    for name in ["x.jpg", "more"] {
        std::os::unix::fs::symlink("nowhere", folder.path().join(name)).unwrap();
    }
    let found = json(simmim(["inspect", &text(folder.path())]));
    assert_eq!(found["images"], 4);
    assert!(found["unreadable"][0]["name"].as_str().unwrap().ends_with("x.jpg"), "{found:?}");
    assert!(found["passed_over"][0].as_str().unwrap().ends_with("more` is a link to nothing"), "{found:?}");
    assert_eq!(run(simmim(["inspect", &text(&folder.path().join("more"))])).code, Some(2));
}
