//! Values of recipes, wherever they come from: `--set`, a file, or the metadata of weights that someone edited.

use super::support::{fails, fashion, finetune, json, pretrain, refuses, scratch, simmim, succeeds, tensors, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_number_outside_its_range_is_refused_with_its_key() {
    let (_folder, out) = scratch();
    for (key, value) in [
        ("train.decay_factor", "-1.0"),
        ("train.decay_factor", "nan"),
        ("train.decay_factor", "inf"),
        ("train.decay_every_epochs", "nan"),
        ("train.decay_every_epochs", "-1.0"),
        ("train.milestones_epochs", "[2.0, 1.0]"),
        ("train.milestones_epochs", "[-1.0]"),
        ("train.milestones_epochs", "[nan]"),
        ("train.epochs", "nan"),
        ("train.base_lr", "inf"),
        ("train.batch_size", "100000000000"),
        ("data.image_size", "1000000"),
        ("data.image_size", "0"),
        ("data.channels", "1000000"),
        ("encoder.width", "2400000000"),
        ("encoder.depth", "2400000000"),
        ("encoder.heads", "0"),
        ("encoder.patch_px", "0"),
        ("mask.unit_px", "0"),
        ("mask.unit_px", "3"),
        ("mask.unit_px", "56"),
        ("mask.aspect", "[1.0, inf]"),
        ("data.crop_ratio", "[1.0, inf]"),
        ("data.image_size", "32768"),
        ("mask.ratio", "60.0"),
        ("mask.ratio", "nan"),
    ] {
        let ran = fails(pretrain(&fashion(), &out, &[&format!("{key}={value}")]), 2, key);
        assert!(ran.stderr.contains("hint: ") || ran.stderr.contains("expected"), "{key}: {}", ran.stderr);
        assert!(!out.exists(), "{key}");
    }
}

#[test]
fn a_value_of_another_type_is_refused_with_its_key() {
    let (_folder, out) = scratch();
    for (edit, parts) in [
        ("encoder.width=\"8\"", ["key `encoder.width`", "string"]),
        ("encoder.depth=1.5", ["key `encoder.depth`", "1.5"]),
        ("data.image_size=\"16x16\"", ["key `data.image_size`", "[height, width]"]),
        ("data.image_size=-32", ["key `data.image_size`", "[height, width]"]),
        ("data.image_size=[32]", ["key `data.image_size`", "[height, width]"]),
        ("train.batch_size=true", ["key `train.batch_size`", "boolean"]),
    ] {
        let ran = refuses(pretrain(&fashion(), &out, &[edit]), parts[0], "");
        assert!(ran.stderr.contains(parts[1]), "{edit}: {}", ran.stderr);
    }
}

#[test]
fn any_seed_trains_resumes_and_is_read_back() {
    let (_folder, out) = scratch();
    for seed in ["9223372036854775807", "9223372036854775808", "18446744073709551615"] {
        let run = out.join(seed);
        let train = || {
            let mut command = pretrain(&fashion(), &run, &[]);
            command.args(["--seed", seed]);
            command
        };
        succeeds(train());
        let ended = tensors(&run, 4);
        succeeds(train());
        assert!(tensors(&run, 4) == ended);
        let inspected = json(simmim(["inspect", &text(&run)]));
        let stored = &inspected["run"]["seed"];
        assert_eq!(stored.as_str().map_or(stored.to_string(), str::to_owned), seed);
    }
}

fn with_recipe(recipe: &str, out: &Path) -> Command {
    let mut command = simmim(["pretrain", "--recipe", recipe, "--data", &fashion(), "--out"]);
    command.arg(out);
    command
}

#[test]
fn extends_and_paths_are_relative_to_the_file_that_says_them() {
    let (folder, out) = scratch();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("sub")).unwrap();
    let tiny = "extends = \"demo\"\n[encoder]\nwidth = 16\ndepth = 1\nheads = 2\n[train]\nbatch_size = 8\n";
    fs::write(at("sub/base.toml"), format!("{tiny}max_steps = 3\n")).unwrap();
    fs::write(at("base.toml"), format!("{tiny}max_steps = 2\n")).unwrap();
    fs::write(at("sub/mine.toml"), "extends = \"base.toml\"\n").unwrap();
    let mut command = with_recipe("sub/mine.toml", &out);
    command.current_dir(folder.path());
    assert_eq!(json(command)["steps"], 3);

    let palette = simmim(["palette", "--data", &fashion(), "--channels", "1", "--colors", "4", "--out"]);
    let mut palette = palette;
    palette.arg(at("sub/palette.safetensors"));
    succeeds(palette);
    let target = "[target]\nkind = \"color-clusters\"\nclusters = 4\npalette = \"palette.safetensors\"\n";
    fs::write(at("sub/colors.toml"), format!("extends = \"base.toml\"\n{target}")).unwrap();
    let mut command = with_recipe("sub/colors.toml", &folder.path().join("colors"));
    command.current_dir(folder.path());
    succeeds(command);
}

#[test]
fn a_recipe_that_is_not_utf8_toml_is_refused_with_the_place() {
    let (folder, out) = scratch();
    let path = folder.path().join("mine.toml");
    fs::write(&path, b"# Gr\xfc\xdfe\nextends = \"demo\"\n").unwrap();
    refuses(with_recipe(&text(&path), &out), "is not UTF-8 at byte 4", "UTF-8");
    fs::write(&path, "extends = \"demo\"\n[train\n").unwrap();
    let ran = fails(with_recipe(&text(&path), &out), 2, "not valid TOML at line 2");
    assert!(ran.stderr.lines().count() <= 2, "{}", ran.stderr);
}

/// Writes a copy of the weights `from` to `to`, with `old` replaced by `new` in the recipe that they carry.
fn edit_metadata(from: &Path, to: &Path, old: &str, new: &str) {
    let bytes = fs::read(from).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, values) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let recipe = &mut header["__metadata__"]["simmim.resolved"];
    let text = recipe.as_str().unwrap();
    assert!(text.contains(old), "{old} in {text}");
    *recipe = text.replace(old, new).into();
    let header = header.to_string().into_bytes();
    fs::write(to, [&(header.len() as u64).to_le_bytes()[..], &header, values].concat()).unwrap();
}

#[test]
fn weights_with_an_edited_recipe_are_refused_with_the_key() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let tuned = folder.path().join("tuned");
    succeeds(finetune("scratch", &fashion(), &tuned, &[]));
    let picture = folder.path().join("image.npy");
    super::support::array(&picture, 28, 28, 1, 0);
    let weights = out.join("checkpoints/step-4/model.safetensors");
    let edited = folder.path().join("edited.safetensors");
    for (old, new, key) in [
        ("patch_px = 4", "patch_px = 0", "encoder.patch_px"),
        ("unit_px = 4", "unit_px = 0", "mask.unit_px"),
        ("unit_px = 4", "unit_px = 3", "mask.unit_px"),
        ("width = 16", "width = 2400000000", "encoder.width"),
        ("heads = 2", "heads = 0", "encoder.heads"),
        ("ratio = 0.6", "ratio = 60.0", "mask.ratio"),
        ("mean = [", "mean = [0.5, ", "run.mean"),
        ("std = [", "std = [0.0] # ", "run.std"),
    ] {
        edit_metadata(&weights, &edited, old, new);
        let mut reconstruct = simmim(["reconstruct", "--from", &text(&edited), "--out"]);
        reconstruct.arg(folder.path().join("pictures")).arg(&picture);
        refuses(reconstruct, key, "");
        let knn = simmim(["knn", "--from", &text(&edited), "--data", &fashion(), "--val", &fashion()]);
        refuses(knn, key, "");
    }
    edit_metadata(&weights, &edited, "[loss]", "[loss]\nnew_key = 1");
    let mut reconstruct = simmim(["reconstruct", "--from", &text(&edited), "--out"]);
    reconstruct.arg(folder.path().join("pictures")).arg(&picture);
    let ran = fails(reconstruct, 2, "unknown key `loss.new_key`");
    assert!(!ran.stderr.contains("delete"), "{}", ran.stderr);
    assert!(ran.stderr.contains("a later version"), "{}", ran.stderr);
}

#[test]
fn what_a_later_version_wrote_is_called_that() {
    let (folder, out) = scratch();
    let train = || pretrain(&fashion(), &out, &["train.checkpoint_every_steps=2"]);
    succeeds(train());
    let picture = folder.path().join("image.npy");
    super::support::array(&picture, 28, 28, 1, 0);
    let reconstruct = |from: &Path| {
        let mut command = simmim(["reconstruct", "--from", &text(from), "--out"]);
        command.arg(folder.path().join("pictures")).arg(&picture);
        command
    };
    let is_called_that = |command: Command| {
        let ran = fails(command, 2, "simmim 99.0.0, a later version");
        assert!(ran.stderr.contains("nothing is damaged") && !ran.stderr.contains("delete"), "{}", ran.stderr);
    };
    let version = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    let edited = |file: &Path, changes: &[(&str, &str)]| {
        let text = fs::read_to_string(file).unwrap();
        let change = |text: String, (from, to): &(&str, &str)| {
            assert!(text.contains(from), "{from} in {text}");
            text.replace(from, to)
        };
        fs::write(file, changes.iter().fold(text.clone(), change)).unwrap();
        text
    };
    // weights
    let weights = folder.path().join("edited.safetensors");
    let model = out.join("checkpoints/step-4/model.safetensors");
    edit_metadata(&model, &weights, &version, "version = \"99.0.0\"\nnew = 1");
    succeeds(reconstruct(&weights));
    edit_metadata(&model, &weights, &version, "version = \"99.0.0\"\n[loss.new]\nkey = 1\n[run.more]");
    is_called_that(reconstruct(&weights));
    // the run: a key of a recipe, a fact, and the kind
    let resolved = out.join("resolved.toml");
    for change in [("[loss]", "[loss]\nnew_key = 1"), ("precision =", "exactness ="), ("\"pretrain\"", "\"distill\"")] {
        let whole = edited(&resolved, &[(&version, "version = \"99.0.0\""), change]);
        for command in [train(), simmim(["inspect", &text(&out)])] {
            is_called_that(command);
        }
        fs::write(&resolved, whole).unwrap();
    }
    // a checkpoint: it neither gives way to the one before it nor is it replaced
    let json_version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    let manifest = out.join("checkpoints/step-4/manifest.json");
    let whole = edited(&manifest, &[(&json_version, "\"99.0.0\""), ("\"steps\"", "\"updates\"")]);
    let ended = tensors(&out, 4);
    is_called_that(train());
    is_called_that(reconstruct(&out));
    assert!(tensors(&out, 4) == ended);
    fs::write(&manifest, whole).unwrap();
    succeeds(train());
}

#[test]
fn weights_of_another_type_of_number_are_not_called_damaged() {
    let (folder, out) = scratch();
    succeeds(pretrain(&fashion(), &out, &[]));
    let (model, half) = (out.join("checkpoints/step-4/model.safetensors"), folder.path().join("half.safetensors"));
    let bytes = fs::read(model).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap().replace("\"F32\"", "\"I32\"");
    fs::write(&half, [&bytes[..8], header.as_bytes(), &bytes[8 + length..]].concat()).unwrap();
    let knn = simmim(["knn", "--from", &text(&half), "--data", &fashion(), "--val", &fashion()]);
    refuses(knn, "` is I32", "F16, BF16, F32 and F64 are read");
}
