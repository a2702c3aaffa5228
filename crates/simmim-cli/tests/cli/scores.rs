//! Scores say what a model knows: chance where it knows nothing, and an error where its numbers are not finite.

use super::safetensors::{converted, edit};
use super::support::{
    class_folders, fashion, finetune, json, photos, pretrain, refuses, scratch, simmim, succeeds, text,
};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn on(command: &str, from: &Path, data: &Path, rest: &[&str]) -> Command {
    let mut command = simmim([command, "--from"]);
    command.arg(from).arg("--data").arg(data).args(rest);
    command
}

fn with_val(command: &str, from: &Path, data: &Path, rest: &[&str]) -> Command {
    let mut command = on(command, from, data, rest);
    command.arg("--val").arg(data);
    command
}

#[test]
fn weights_that_are_not_finite_are_refused_by_tensor_and_index() {
    let (folder, run) = scratch();
    succeeds(pretrain(&fashion(), &run, &[]));
    let (data, weights, tuned) =
        (Path::new(&fashion()).to_owned(), folder.path().join("w.safetensors"), folder.path().join("tuned"));
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        fs::copy(run.join("checkpoints/step-4/model.safetensors"), &weights).unwrap();
        edit(&weights, "encoder.norm.weight", |values| values[3] = value);
        let image = format!("{}/tools-hammer5.jpg", photos());
        let mut reconstruct = simmim(["reconstruct", "--from"]);
        reconstruct.arg(&weights).arg("--out").arg(folder.path().join("pictures")).arg(image);
        let commands = [
            with_val("knn", &weights, &data, &[]),
            with_val("probe", &weights, &data, &[]),
            finetune(&text(&weights), &fashion(), &tuned, &[]),
            simmim(["inspect", &text(&weights)]),
            reconstruct,
        ];
        for command in commands {
            let error = format!("w.safetensors`: tensor `encoder.norm.weight` is {name} at index 3");
            refuses(command, &error, "weights of an earlier step");
        }
        assert!(!tuned.exists());
    }

    succeeds(finetune("scratch", &fashion(), &tuned, &[]));
    fs::copy(tuned.join("checkpoints/step-4/model.safetensors"), &weights).unwrap();
    edit(&weights, "head.bias", |values| values[9] = f32::NEG_INFINITY);
    refuses(on("evaluate", &weights, &data, &[]), "tensor `head.bias` is -inf at index 9", "");
}

#[test]
fn a_tokenizer_that_is_not_finite_is_refused() {
    let (folder, run) = scratch();
    let mut command = simmim(["tokenizer", "--recipe", "tokenizer-cifar", "--data", &photos(), "--out", &text(&run)]);
    for value in [
        "data.image_size=16",
        "tokenizer.width=4",
        "tokenizer.vocabulary=16",
        "train.batch_size=2",
        "train.max_steps=1",
    ] {
        command.args(["--set", value]);
    }
    succeeds(command);
    let file = run.join("tokenizer.safetensors");
    edit(&file, "decoder.blocks.input.w", |values| values[1] = f32::NAN);
    let named = format!("target.tokenizer={}", text(&file));
    let edits = ["data.channels=3", "train.batch_size=2", "target.kind=tokens", &named];
    let predicting = folder.path().join("predicting");
    refuses(pretrain(&photos(), &predicting, &edits), "tensor `decoder.blocks.input.w` is NaN at index 1", "");
    assert!(!predicting.exists());
}

#[test]
fn scores_beyond_what_numbers_hold_are_refused_by_class_and_image() {
    let (folder, tuned) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["ant", "bee", "cat", "dog"], 3);
    succeeds(finetune("scratch", &text(&data), &tuned, &[]));
    let weights = folder.path().join("w.safetensors");
    fs::copy(tuned.join("checkpoints/step-4/model.safetensors"), &weights).unwrap();
    edit(&weights, "head.weight", |values| values.fill(f32::MAX));
    edit(&weights, "head.bias", |values| values.fill(f32::MAX));
    let ran = refuses(on("evaluate", &weights, &data, &[]), "the score of class `ant` is", "weights");
    assert!(ran.stderr.contains("ant/0.png"), "{}", ran.stderr);

    let pretrained = folder.path().join("pretrained");
    succeeds(pretrain(&fashion(), &pretrained, &[]));
    let model = folder.path().join("p.safetensors");
    fs::copy(pretrained.join("checkpoints/step-4/model.safetensors"), &model).unwrap();
    for tensor in ["decoder.0.weight", "decoder.0.bias", "encoder.norm.bias"] {
        edit(&model, tensor, |values| values.fill(f32::MAX));
    }
    let mut reconstruct = simmim(["reconstruct", "--from"]);
    reconstruct.arg(&model).arg("--out").arg(folder.path().join("pictures")).arg(data.join("ant/0.png"));
    refuses(reconstruct, "or of its prediction is", "weights");
    assert!(!folder.path().join("pictures").exists());

    edit(&weights, "fc_norm.weight", |values| values.fill(f32::MAX));
    edit(&weights, "fc_norm.bias", |values| values.fill(f32::MAX));
    let ran = refuses(with_val("knn", &weights, &data, &[]), "feature ", "weights");
    assert!(ran.stderr.contains("ant/0.png"), "{}", ran.stderr);
}

#[test]
fn numbers_of_other_sizes_are_read() {
    let (folder, run) = scratch();
    succeeds(pretrain(&fashion(), &run, &[]));
    let (data, at) = (Path::new(&fashion()).to_owned(), |name: &str| folder.path().join(name));
    let weights = at("f32.safetensors");
    fs::copy(run.join("checkpoints/step-4/model.safetensors"), &weights).unwrap();
    converted(&weights, &at("f64.safetensors"), "F64", |value| f64::from(value).to_le_bytes().to_vec());
    converted(&weights, &at("bf16.safetensors"), "BF16", |value| value.to_le_bytes()[2..].to_vec());
    // in half precision every weight is 1 with the sign of its own
    let one = |value: f32| if value < 0.0 { 0xbc00_u16 } else { 0x3c00 }.to_le_bytes().to_vec();
    converted(&weights, &at("f16.safetensors"), "F16", one);

    let knn = |name: &str| json(with_val("knn", &at(name), &data, &[]));
    assert_eq!(knn("f32.safetensors"), knn("f64.safetensors"));
    for (name, dtype) in [("bf16.safetensors", "BF16"), ("f16.safetensors", "F16")] {
        assert_eq!(knn(name)["images"], 1000, "{name}");
        let inspected = json(simmim(["inspect", &text(&at(name))]));
        assert_eq!(inspected["dtypes"].as_object().unwrap().keys().collect::<Vec<_>>(), [dtype]);
    }
    succeeds(finetune(&text(&at("f16.safetensors")), &fashion(), &at("tuned"), &[]));

    converted(&weights, &at("f8.safetensors"), "F8_E4M3", |_| vec![0x38]);
    let command = with_val("knn", &at("f8.safetensors"), &data, &[]);
    let ran = refuses(command, "` is F8_E4M3", "F16, BF16, F32 and F64 are read");
    assert!(ran.stderr.contains("tensor `"), "{}", ran.stderr);
}

#[test]
fn a_rate_that_diverges_is_shown_as_such_and_is_never_the_best() {
    let (folder, run) = scratch();
    succeeds(pretrain(&fashion(), &run, &[]));
    let data = folder.path().join("data");
    class_folders(&data, &["a", "b", "c"], 6);
    let probe = |rates: &str| with_val("probe", &run, &data, &["--rates", rates]);
    let (alone, beside) = (json(probe("1e-3")), json(probe("1e-3,1e38")));
    for key in ["top1", "top5", "rate"] {
        assert_eq!(alone[key], beside[key], "{key}");
    }
    assert_eq!(alone["rates"][0], beside["rates"][0], "another rate changes nothing");
    let diverged = &beside["rates"][1];
    assert_eq!(
        (&diverged["diverged"], &diverged["top1"], &diverged["top5"]),
        (&true.into(), &Value::Null, &Value::Null)
    );
    assert!(succeeds(probe("1e-3,1e38")).stdout.contains("rate 1e38: diverged"));
    refuses(probe("1e38,2e38"), "diverged at every learning rate, also at the lowest, `1e38`", "--rates");
}

#[test]
fn one_neighbor_names_one_class() {
    let (folder, run) = scratch();
    succeeds(pretrain(&fashion(), &run, &[]));
    let (data, val) = (folder.path().join("data"), folder.path().join("val"));
    let classes = ["a", "b", "c", "d", "e", "f", "g"];
    class_folders(&data, &classes, 4);
    // the same pictures, each in the folder of the next class
    for (class, next) in classes.iter().zip(classes.iter().cycle().skip(1)) {
        fs::create_dir_all(val.join(next)).unwrap();
        fs::copy(data.join(class).join("0.png"), val.join(next).join("0.png")).unwrap();
    }
    let mut command = on("knn", &run, &data, &["--k", "1"]);
    command.arg("--val").arg(&val);
    let result = json(command);
    assert_eq!((&result["top1"], &result["top5"], &result["images"]), (&0.0.into(), &0.0.into(), &7.into()));
    let result = json(with_val("knn", &run, &data, &["--k", "1"]));
    assert_eq!((&result["top1"], &result["top5"]), (&100.0.into(), &100.0.into()));
}

#[test]
fn what_knows_nothing_is_chance() {
    let (folder, tuned) = scratch();
    let data = folder.path().join("data");
    class_folders(&data, &["a", "b", "c", "d", "e", "f", "g"], 4);
    succeeds(finetune("scratch", &text(&data), &tuned, &[]));
    let weights = folder.path().join("w.safetensors");
    fs::copy(tuned.join("checkpoints/step-4/model.safetensors"), &weights).unwrap();
    #[track_caller]
    fn is_close(value: &Value, expected: f64) {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }
    // a head of zeros
    edit(&weights, "head.weight", |values| values.fill(0.0));
    edit(&weights, "head.bias", |values| values.fill(0.0));
    let result = json(on("evaluate", &weights, &data, &[]));
    is_close(&result["top1"], 100.0 / 7.0);
    is_close(&result["top5"], 500.0 / 7.0);
    is_close(&result["classes"]["a"]["top1"], 100.0 / 7.0);
    is_close(&result["classes"]["g"]["top1"], 100.0 / 7.0);
    // features that are all equal, and features that are all zero
    for bias in [0.5, 0.0] {
        edit(&weights, "fc_norm.weight", |values| values.fill(0.0));
        edit(&weights, "fc_norm.bias", |values| values.fill(bias));
        for k in ["1", "3", "20"] {
            let result = json(with_val("knn", &weights, &data, &["--k", k]));
            is_close(&result["top1"], 100.0 / 7.0);
            is_close(&result["top5"], 100.0 / 7.0 * k.parse::<f64>().unwrap().min(5.0));
        }
        assert!(json(with_val("probe", &weights, &data, &["--epochs", "2"]))["top1"].as_f64().unwrap() < 50.0);
    }
}

#[test]
fn a_class_without_images_has_no_accuracy() {
    let (folder, tuned) = scratch();
    let (data, val) = (folder.path().join("data"), folder.path().join("val"));
    class_folders(&data, &["a", "b", "c", "d"], 4);
    class_folders(&val, &["b", "d"], 3);
    let mut command = finetune("scratch", &text(&data), &tuned, &[]);
    command.arg("--val").arg(&val);
    succeeds(command);
    let page = fs::read_to_string(tuned.join("report.html")).unwrap();
    assert!(page.contains("<td>a</td><td class=\"number\">0</td><td class=\"number\">–</td>"));
    let result = json(on("evaluate", &tuned, &val, &[]));
    let of = |class: &str| (result["classes"][class]["images"].clone(), result["classes"][class]["top1"].clone());
    assert_eq!((of("a"), of("c")), ((0.into(), Value::Null), (0.into(), Value::Null)));
    assert!(of("b").1.is_number() && of("d").1.is_number());
    assert_eq!(result["classes_without_images"], serde_json::json!(["a", "c"]));
    let ran = succeeds(on("evaluate", &tuned, &val, &[]));
    assert!(ran.stdout.contains("2 of 4 classes have no images in") && ran.stdout.contains("`a`"), "{}", ran.stdout);
}
