//! `simmim import`, and weights of other programs in `--from`.

use super::support::{fashion, json, photos, refuses, repository, scratch, simmim, succeeds, text};
use std::fs;

#[test]
fn weights_of_transformers_are_imported_for_gray_images_of_another_size_and_classify() {
    let (folder, _) = scratch();
    let out = text(&folder.path().join("gray.safetensors"));
    let from = repository("testdata/weights/hf-vit");
    let edits = ["--set=data.image_size=28", "--set=data.channels=1"];
    let mut command = simmim(["import", &from, "--out", &out]);
    command.args(edits);
    refuses(command, "for images of 3 channels, and the recipe's have 1", "--channels repeat");
    let mut command = simmim(["import", &from, "--out", &out, "--channels=mean"]);
    command.args(edits);
    let result = json(command);
    assert_eq!(result["convention"], "Hugging Face ViT");
    let names = |key: &str| -> Vec<String> {
        let list = result[key].as_array().unwrap().iter();
        list.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("resized"), ["encoder.pos_embed", "encoder.patch_embed.proj.weight"]);
    // its head predicts three channels
    assert_eq!(names("left_out"), ["the bias of keys", "decoder.0.bias", "decoder.0.weight"]);
    assert!(result["initialized"].as_array().unwrap().is_empty());
    let knn = json(simmim(["knn", "--from", &out, "--data", &fashion(), "--val", &fashion()]));
    assert!(knn["top1"].as_f64().unwrap() > 10.0, "an image is its own neighbor: {knn:?}");
    // and directly
    let mut command = simmim(["knn", "--from", &from, "--data", &fashion(), "--val", &fashion(), "--channels=mean"]);
    command.args(edits);
    assert_eq!(json(command), knn);
    let features = text(&folder.path().join("features.npy"));
    let mut command = simmim(["embed", "--from", &from, "--data", &fashion(), "--out", &features]);
    command.args(edits);
    refuses(command, "for images of 3 channels", "--channels repeat");
    let mut command = simmim(["embed", "--from", &from, "--data", &fashion(), "--out", &features, "--channels=zero"]);
    command.args(edits);
    assert_eq!(json(command)["shape"], serde_json::json!([16]));
}

#[test]
fn weights_of_other_programs_are_used_directly_and_what_is_left_out_is_said() {
    let (folder, _) = scratch();
    let out = text(&folder.path().join("pictures"));
    let from = repository("testdata/weights/hf-swin");
    let photo = fs::read_dir(photos()).unwrap().map(|entry| entry.unwrap().path());
    let photo = photo.filter(|path| path.extension().is_some_and(|e| e == "jpg" || e == "png")).min().unwrap();
    let ran = succeeds(simmim(["reconstruct", "--from", &from, "--out", &out, &text(&photo)]));
    assert!(ran.stderr.contains("recognized as Hugging Face Swin"), "{}", ran.stderr);
    assert!(fs::read_dir(&out).unwrap().next().is_some());

    let vit = repository("testdata/weights/timm-vit");
    let out = text(&folder.path().join("vit.safetensors"));
    refuses(simmim(["import", &vit, "--out", &out]), "how many heads", "--set encoder.heads=N");
    let ran = succeeds(simmim(["import", &vit, "--out", &out, "--set", "encoder.heads=4"]));
    assert!(ran.stdout.contains("left out head.weight: it reads the class token"), "{}", ran.stdout);
    // heads change no shape: another number would quietly spoil the features
    let data = ["--data", &fashion(), "--val", &fashion(), "--set=encoder.heads=8"];
    let mut command = simmim(["knn", "--from", &out]);
    command.args(data);
    refuses(command, "has 4 attention heads, and the recipe 8", "--set encoder.heads=4");
}

#[test]
fn a_model_is_exported_with_what_the_other_program_needs() {
    let (folder, _) = scratch();
    let from = repository("testdata/weights/hf-beit");
    for (format, model, files) in [
        ("hf", "BeitForImageClassification", &["config.json", "preprocessor_config.json"][..]),
        ("timm", "beit_base_patch16_224", &["config.json"]),
        ("safetensors", "the official names", &[]),
        ("onnx", "ONNX graph, opset 17", &["preprocessor_config.json"]),
    ] {
        let weights = if format == "onnx" { "model.onnx" } else { "model.safetensors" };
        let out = folder.path().join(format);
        let result = json(simmim(["export", "--from", &from, "--format", format, "--out", &text(&out)]));
        assert_eq!(result["model"], model);
        let named = |name: &&str| result["files"].as_array().unwrap().contains(&text(&out.join(name)).into());
        assert!([weights, "README.md", "recipe.toml"].iter().chain(files).all(named), "{result:?}");
        let card = fs::read_to_string(out.join("README.md")).unwrap();
        assert!(card.contains("3 classes: ant, bee, cat") && card.contains("kind = \"finetune\""), "{card}");
        let again = simmim(["export", "--from", &from, "--format", format, "--out", &text(&out)]);
        refuses(again, "is not empty", "a new folder");
    }
}

#[test]
fn a_checkpoint_of_torch_is_imported_without_running_it_and_says_what_it_read() {
    let (folder, _) = scratch();
    let out = text(&folder.path().join("swin.safetensors"));
    let from = repository("testdata/weights/torch/simmim-swin.pth");
    let result = json(simmim(["import", &from, "--out", &out]));
    assert_eq!(result["convention"], "official SimMIM");
    let notes = result["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().starts_with("read `model`, and not `args` (argparse.Namespace)"), "{notes:?}");
    let knn = |from: &str| json(simmim(["knn", "--from", from, "--data", &fashion(), "--val", &fashion()]));
    assert_eq!(knn(&from), knn(&out));

    let described = json(simmim(["inspect", &from]));
    assert_eq!(described["notes"], result["notes"]);
    assert_eq!(described["dtypes"]["I64"], 3);

    let hostile = repository("testdata/weights/torch/hostile/system-global.pth");
    let hint = "torch.save(model.state_dict()";
    refuses(simmim(["import", &hostile, "--out", &out]), "names `posix.system`, which could be code", hint);
    refuses(simmim(["inspect", &hostile]), "names `posix.system`", hint);
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_build_without_a_hub_says_so() {
    let (_folder, out) = scratch();
    let command = simmim(["import", "hf://owner/name", "--out", &text(&out)]);
    refuses(command, "`hf://owner/name` is on a hub, which this build does not ask", "--features hub");
    assert!(!out.exists());
}
