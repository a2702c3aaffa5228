//! `simmim finetune`, `evaluate`, `probe` and `knn`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use super::support::{
    class_folders, fashion, finetune, json, log, pretrain, refuses, scratch, simmim, succeeds, tensors, text,
};

fn of_labeled(command: &str, from: &Path, rest: &[&str]) -> Command {
    let mut command = simmim([command, "--from"]);
    command.arg(from).args(["--data", &fashion()]).args(rest);
    command
}

#[track_caller]
fn is_percent(object: &Map<String, Value>, keys: &[&str]) {
    for key in keys {
        let value = object[*key].as_f64();
        assert!(value.is_some_and(|value| (0.0..=100.0).contains(&value)), "`{key}` in {object:?}");
    }
}

#[test]
fn an_encoder_is_fine_tuned_evaluated_and_probed() {
    let (folder, run) = scratch();
    succeeds(pretrain(&fashion(), &run, &[]));
    let tuned = folder.path().join("tuned");
    let mut command = finetune(&text(&run), &fashion(), &tuned, &[]);
    command.args(["--val", &fashion(), "--json"]);
    let ran = succeeds(command);
    let result: Map<String, Value> = serde_json::from_str(ran.stdout.trim()).unwrap();
    is_percent(&result, &["top1", "top5", "best_top1"]);
    assert_eq!((&result["images"], &result["steps"]), (&1000.into(), &4.into()));
    for part in [
        "copied encoder.rel_pos_bias.relative_position_bias_table to blocks.0.attn.relative_position_bias_table",
        "skipped decoder.0.weight",
        "left at their initial values: fc_norm.weight, fc_norm.bias, head.weight, head.bias",
    ] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    let page = fs::read_to_string(tuned.join("report.html")).unwrap();
    assert!(["Every class", "Confusion", "Held-out accuracy"].iter().all(|part| page.contains(part)));
    for name in ["recipe.toml", "resolved.toml", "log.jsonl", "best.safetensors"] {
        assert!(tuned.join(name).is_file(), "{name}");
    }

    let last = json(of_labeled("evaluate", &tuned, &[]));
    assert_eq!((&last["top1"], &last["top5"], &last["images"]), (&result["top1"], &result["top5"], &1000.into()));
    assert_eq!(last["classes"].as_object().unwrap().len(), 10);
    let best = json(of_labeled("evaluate", &tuned.join("best.safetensors"), &[]));
    assert_eq!(best["top1"], result["best_top1"]);
    assert_eq!(json(simmim(["inspect", &text(&tuned)]))["steps"], 4);

    for from in [&run, &tuned, &tuned.join("best.safetensors")] {
        is_percent(&json(of_labeled("knn", from, &["--val", &fashion()])), &["top1", "top5"]);
        let result = json(of_labeled("probe", from, &["--val", &fashion(), "--epochs=2", "--rates=1e-3,1e-2"]));
        is_percent(&result, &["top1", "top5"]);
        assert_eq!((&result["images"], result["rates"].as_array().unwrap().len()), (&1000.into(), 2));
    }
    // features are cached, and results from the cache are the same
    let kept = || fs::read_dir(run.join("features")).unwrap().count();
    assert_eq!(kept(), 1);
    let first = json(of_labeled("knn", &run, &["--val", &fashion(), "--layer=1"]));
    assert_eq!(kept(), 2);
    assert_eq!(json(of_labeled("knn", &run, &["--val", &fashion(), "--layer=1"])), first);
}

#[test]
fn neighbors_of_the_same_images_are_themselves() {
    let (folder, run) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["a", "b", "c"], 3);
    let mut command = simmim(["knn", "--from", "scratch", "--recipe", "finetune-demo", "--k=1", "--data"]);
    command.arg(&data).arg("--val").arg(&data);
    let result = json(command);
    assert_eq!((&result["top1"], &result["images"]), (&100.0.into(), &9.into()));
    assert!(!run.exists());
}

#[test]
fn classes_that_differ_in_brightness_are_learned_from_scratch() {
    let (folder, run) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["a", "b", "c", "d"], 8);
    let edits = ["train.max_steps=300", "train.base_lr=0.1", "train.validate_every_steps=300"];
    let mut command = finetune("scratch", &text(&data), &run, &edits);
    command.arg("--val").arg(&data);
    let result = json(command);
    assert!(result["top1"].as_f64().unwrap() > 90.0, "{result:?}");
}

#[test]
fn held_out_classes_may_be_fewer_and_are_matched_by_name() {
    let (folder, run) = scratch();
    let (data, val) = (folder.path().join("data"), folder.path().join("val"));
    class_folders(&data, &["a", "b", "c", "d"], 4);
    class_folders(&val, &["b", "d"], 3);
    let mut command = finetune("scratch", &text(&data), &run, &[]);
    command.arg("--val").arg(&val);
    assert_eq!(json(command)["images"], 6);
    let mut command = simmim(["evaluate", "--from"]);
    command.arg(&run).arg("--data").arg(&val);
    let classes = json(command)["classes"].clone();
    let images = |class: &str| classes[class]["images"].as_u64();
    assert_eq!((images("a"), images("b"), images("d")), (Some(0), Some(3), Some(3)));
}

#[test]
fn weights_fit_images_and_windows_of_another_size() {
    let (folder, run) = scratch();
    let swin = [
        "encoder.kind=swin",
        "encoder.depths=[2, 2]",
        "encoder.heads=[1, 2]",
        "encoder.patch_norm=true",
        "encoder.absolute_positions=true",
    ];
    // a separate recipe: that of the demo has keys of a ViT, which a Swin does not have
    let recipe = |name: &str, base: &str, size: &str, window: &str| {
        let path = folder.path().join(name);
        let printed = succeeds(simmim(["recipes", base])).stdout;
        let (start, rest) = (printed.find("[encoder]").unwrap(), printed.find("[data]").unwrap());
        let encoder: String =
            swin.iter().map(|edit| edit.replacen("encoder.", "", 1).replacen('=', " = ", 1) + "\n").collect();
        let encoder = encoder.replace("kind = swin", "kind = \"swin\"");
        let sizes =
            format!("patch_px = 2\nwidth = 8\nwindow = {window}\nmlp_ratio = 2.0\nqkv_bias = true\ndrop_path = 0.0\n");
        let text = format!("{}[encoder]\n{encoder}{sizes}\n{}", &printed[..start], &printed[rest..]);
        fs::write(&path, text.replace("image_size = 28", &format!("image_size = {size}"))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let run_args = |command: &str, recipe: &str, out: &Path| {
        let mut command = simmim([command, "--recipe", recipe, "--data", &fashion(), "--out"]);
        command.arg(out).args(["--set", "train.max_steps=2", "--set", "train.batch_size=8"]);
        command
    };
    succeeds(run_args("pretrain", &recipe("pre.toml", "demo", "[24, 12]", "3"), &run));
    let out = folder.path().join("tuned");
    let mut command = run_args("finetune", &recipe("tune.toml", "finetune-demo", "[16, 32]", "4"), &out);
    command.args(["--from", &text(&run)]);
    let ran = succeeds(command);
    for part in [
        "resized absolute_pos_embed from [1, 72, 8] to [1, 128, 8]",
        "resized layers.0.blocks.0.attn.relative_position_bias_table from [25, 1] to [49, 1]",
        "left at their initial values: head.weight, head.bias",
    ] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }

    // tables of a ViT, shared and not square
    let run = folder.path().join("vit");
    succeeds(pretrain(&fashion(), &run, &["data.image_size=[28, 20]"]));
    let ran = succeeds(finetune(&text(&run), &fashion(), &folder.path().join("square"), &[]));
    let part = "resized blocks.0.attn.relative_position_bias_table from [120, 2] to [172, 2]";
    assert!(ran.stderr.contains(part), "{}", ran.stderr);
}

#[test]
fn a_share_of_the_labels_is_the_same_of_every_class() {
    let (folder, run) = scratch();
    let share = ["labels.fraction=0.1"];
    succeeds(finetune("scratch", &fashion(), &run, &share));
    let resolved = fs::read_to_string(run.join("resolved.toml")).unwrap();
    assert!(resolved.contains("images = 100\n"), "{resolved}");
    let other = folder.path().join("other");
    succeeds(finetune("scratch", &fashion(), &other, &share));
    assert!(tensors(&run, 4) == tensors(&other, 4));
}

#[test]
fn micro_batches_and_loader_threads_do_not_change_the_result() {
    let (folder, run) = scratch();
    let edits = |parts: &'static str| ["train.batch_size=16", parts, "encoder.drop_path=0.3", "encoder.depth=2"];
    let mixed = ["augment.mix_probability=1.0", "augment.distortion=randaugment", "augment.erase_probability=0.5"];
    let with = |parts, out: &Path, workers: &str| {
        let mut command = finetune("scratch", &fashion(), out, &[edits(parts).as_slice(), &mixed].concat());
        command.args(["--workers", workers]);
        succeeds(command);
    };
    with("train.accumulation_steps=1", &run, "0");
    let other = folder.path().join("other");
    with("train.accumulation_steps=1", &other, "3");
    assert!(tensors(&run, 4) == tensors(&other, 4));
    let parts = folder.path().join("parts");
    with("train.accumulation_steps=4", &parts, "1");
    for (whole, parts) in super::support::losses(&run).iter().zip(super::support::losses(&parts)) {
        assert!((whole - parts).abs() < 1e-4 * whole, "{whole} {parts}");
    }
}

#[test]
fn many_labels_and_balanced_classes_are_options() {
    let (folder, run) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["a", "b"], 12);
    class_folders(&data, &["c"], 2);
    let edits = ["labels.per_image=many", "labels.class_weights=balanced", "train.average_decay=0.9"];
    let mut command = finetune("scratch", &text(&data), &run, &edits);
    command.arg("--val").arg(&data);
    let result = json(command);
    is_percent(&result, &["top1"]);
    assert!(run.join("checkpoints/step-4/average.safetensors").is_file());
    assert!(log(&run).iter().all(|entry| entry.get("loss").is_none_or(|loss| loss.as_f64().unwrap() < 1.0)));
}

#[test]
fn images_of_several_classes_are_learned_as_such() {
    let (folder, run) = scratch();
    class_folders(folder.path(), &["a", "b", "c"], 4);
    let shard = folder.path().join("several.tar");
    let mut tar = tar::Builder::new(fs::File::create(&shard).unwrap());
    for number in 0..12 {
        let name = ["a", "b", "c"][number % 3];
        tar.append_path_with_name(folder.path().join(format!("{name}/{}.png", number / 3)), format!("{number}.png"))
            .unwrap();
        let label = ["0", "1, 2", "2"][number % 3].as_bytes();
        let mut header = tar::Header::new_gnu();
        header.set_size(label.len() as u64);
        tar.append_data(&mut header, format!("{number}.cls"), label).unwrap();
    }
    tar.finish().unwrap();
    let edits = ["labels.per_image=many", "train.max_steps=300", "train.base_lr=0.1"];
    let mut command = finetune("scratch", &text(&shard), &run, &edits);
    command.args(["--val", &text(&shard)]);
    let trained = json(command);
    let evaluated = |from: &Path| {
        let mut command = simmim(["evaluate", "--from"]);
        command.arg(from).arg("--data").arg(&shard);
        json(command)["mean_average_precision"].as_f64().unwrap()
    };
    assert!(evaluated(&run) > 90.0, "{trained:?}");
    // the best weights are the first ones with the highest mean, whatever their top-1
    let mean_of = |entry: &Map<String, Value>| {
        Some((entry.get("step")?.as_u64()?, entry.get("mean_average_precision")?.as_f64()?))
    };
    let means: Vec<(u64, f64)> = log(&run).iter().filter_map(mean_of).collect();
    let best = means.iter().fold((0, 0.0), |best, next| if next.1 > best.1 { *next } else { best });
    assert_eq!((&trained["best_step"], &trained["best_mean_average_precision"]), (&best.0.into(), &best.1.into()));
    assert!((evaluated(&run.join("best.safetensors")) - best.1).abs() < 1e-3);
    let one = finetune("scratch", &text(&shard), &folder.path().join("one"), &[]);
    refuses(one, "is of 2 classes", "labels.per_image=many");
}

#[test]
fn images_of_a_list_are_of_any_number_of_classes() {
    let (folder, run) = scratch();
    class_folders(folder.path(), &["a", "b", "c"], 4);
    // the columns of ChestX-ray14
    let labels = ["edema|effusion", "effusion", ""];
    let rows = (0..12)
        .map(|number| format!("{}/{}.png,{},{number}\n", ["a", "b", "c"][number % 3], number / 3, labels[number % 3]));
    let list = folder.path().join("Data_Entry.csv");
    fs::write(&list, format!("Image Index,Finding Labels,Follow-up #\n{}", rows.collect::<String>())).unwrap();
    let seen = json(simmim(["inspect", &text(&list)]));
    assert_eq!(
        (&seen["classes"]["edema"], &seen["classes"]["effusion"], &seen["unlabeled"]),
        (&4.into(), &8.into(), &0.into())
    );
    let edits = ["labels.per_image=many", "train.max_steps=300", "train.base_lr=0.1", "labels.smoothing=0.0"];
    let mut command = finetune("scratch", &text(&list), &run, &edits);
    command.args(["--val", &text(&list)]);
    let trained = json(command);
    assert_eq!(trained["images"], 12);
    let evaluated = json(simmim(["evaluate", "--from", &text(&run), "--data", &text(&list)]));
    assert!(evaluated["images"] == 12 && evaluated["mean_average_precision"].as_f64().unwrap() > 90.0, "{evaluated:?}");
    assert!(evaluated["loss"].as_f64().unwrap() < 0.5, "an image of no class counts too: {evaluated:?}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for said in ["</svg>mAP</li>", "of held-out images that have a class"] {
        assert!(page.contains(said), "{said}");
    }
    let out = folder.path().join("hf");
    succeeds(simmim(["export", "--from", &text(&run), "--format", "hf", "--out", &text(&out)]));
    let config: Value = serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["problem_type"], "multi_label_classification");
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("mean average precision"), "{card}");

    let one = finetune("scratch", &text(&list), &folder.path().join("one"), &[]);
    refuses(one, "is of 2 classes", "labels.per_image=many");
    let mut probe = simmim(["probe", "--from", &text(&run), "--data", &text(&list)]);
    probe.args(["--val", &text(&list)]);
    refuses(probe, "is of 2 classes", "all else wants one");
    fs::write(&list, "path,labels\na/0.png,\na/1.png,x\nb/0.png,y\nb/1.png,x\nc/0.png,y\n").unwrap();
    let none = finetune("scratch", &text(&list), &folder.path().join("none"), &[]);
    refuses(none, "is of 0 classes", "labels.per_image=many");
}

#[test]
fn labels_that_cannot_be_learned_are_refused() {
    let (folder, run) = scratch();
    let at = |name: &str| folder.path().join(name);
    class_folders(&at("pets"), &["cat", "dog"], 8);
    class_folders(&at("more"), &["cat", "dog", "zebra"], 2);
    let with_val = |val: &Path| {
        let mut command = finetune("scratch", &text(&at("pets")), &run, &[]);
        command.arg("--val").arg(val);
        command
    };
    refuses(with_val(&at("more")), "`zebra`", "`cat`, `dog`");
    refuses(finetune("scratch", &super::support::photos(), &run, &["data.channels=1"]), "no labels", "sub-folder");
    class_folders(&at("single"), &["cat"], 9);
    refuses(finetune("scratch", &text(&at("single")), &run, &[]), "one class, `cat`", "two");
    class_folders(&at("apart"), &["a", "b", "c", "d", "e", "f", "g", "h", "i"], 1);
    refuses(finetune("scratch", &text(&at("apart")), &run, &[]), "one image only", "sub-folder");

    // a shard in which some samples have no label
    let shard = at("holes.tar");
    let mut tar = tar::Builder::new(fs::File::create(&shard).unwrap());
    for number in 0..10 {
        tar.append_path_with_name(at("pets/cat/0.png"), format!("{number:04}.png")).unwrap();
        if number % 4 != 3 {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            let label = [b"01"[number % 2]];
            tar.append_data(&mut header, format!("{number:04}.cls"), label.as_slice()).unwrap();
        }
    }
    tar.finish().unwrap();
    let ran = refuses(finetune("scratch", &text(&shard), &run, &[]), "2 of the 10 images", ".cls");
    assert!(ran.stderr.contains("0003.png"), "{}", ran.stderr);
    refuses(with_val(&shard), "2 of the 10 images", ".cls");
    // an IDX file of labels that is too short
    let bytes = [0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 28, 0, 0, 0, 28].into_iter().chain([7; 4 * 28 * 28]);
    fs::write(at("t-images-idx3-ubyte"), bytes.collect::<Vec<u8>>()).unwrap();
    fs::write(at("t-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 0]).unwrap();
    refuses(finetune("scratch", &text(&at("t-images-idx3-ubyte")), &run, &[]), "3 labels for 4 images", "");
    assert!(!run.exists());
}

#[test]
fn weights_of_another_architecture_are_refused() {
    let (folder, run) = scratch();
    succeeds(pretrain(&fashion(), &run, &[]));
    let out = folder.path().join("tuned");
    let from_run = |edits: &[&str]| finetune(&text(&run), &fashion(), &out, edits);
    let ran = refuses(from_run(&["encoder.width=24"]), "model.safetensors", "recipe");
    assert!(ran.stderr.contains("cls_token") && ran.stderr.contains("[1, 1, 24]"), "{}", ran.stderr);
    refuses(
        from_run(&["encoder.layer_scale=0.0", "data.channels=3", "data.normalization=imagenet"]),
        "for images of 1 channels, and the recipe's have 3",
        "--channels repeat",
    );
    let mut swin = simmim(["finetune", "--recipe", "finetune-swin-t-192", "--data", &fashion(), "--out"]);
    swin.arg(&out).args(["--from", &text(&run), "--set", "train.batch_size=8", "--set", "data.image_size=32"]);
    refuses(swin, "model.safetensors", "recipe");
    refuses(finetune(&text(&folder.path().join("absent")), &fashion(), &out, &[]), "absent", "run folder");
    let mut other = simmim(["finetune", "--from", "scratch", "--recipe", "demo", "--data", &fashion(), "--out"]);
    other.arg(&out);
    refuses(other, "`demo`", "kind = \"finetune\"");
    refuses(of_labeled("evaluate", &run, &[]), "no fine-tuned model", "simmim finetune");
    refuses(of_labeled("knn", &run, &["--val", &fashion(), "--layer=7"]), "block `7`", "1 to 1");
    refuses(of_labeled("knn", Path::new("scratch"), &["--val", &fashion()]), "which encoder", "--recipe");
    assert!(!out.exists());
}

#[test]
fn a_classifier_of_tiles_is_evaluated_on_tiles() {
    let (folder, run) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["a", "b"], 6); // of 28 by 28 pixels
    succeeds(finetune("scratch", &text(&data), &run, &["data.tile=14"]));
    let mut command = simmim(["evaluate", "--from"]);
    command.arg(&run).arg("--data").arg(&data);
    assert_eq!(json(command)["images"], 48);
    let mut command = simmim(["embed", "--from"]);
    command.arg(&run).arg("--data").arg(&data).arg("--out").arg(folder.path().join("f.npy"));
    let said = succeeds(command);
    assert!(said.stderr.contains("tiles of 14 px") && said.stdout.contains("of 12 images"), "{}", said.stderr);
}
