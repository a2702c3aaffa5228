//! `simmim pretrain --from`: pre-training goes on from the weights of any encoder.

use super::support::{fashion, json, pretrain, refuses, repository, scratch, simmim, succeeds, tensors, text};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The bytes of each tensor of a safetensors file.
fn by_name(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let range = |tensor: &Value| [0, 1].map(|end| tensor["data_offsets"][end].as_u64().unwrap() as usize);
    tensors.map(|(name, tensor)| (name, data[range(&tensor)[0]..range(&tensor)[1]].to_vec())).collect()
}

fn model(run: &Path, step: u64) -> BTreeMap<String, Vec<u8>> {
    by_name(&run.join(format!("checkpoints/step-{step}/model.safetensors")))
}

#[test]
fn a_run_goes_on_from_another_one_with_its_head_and_keeps_what_is_frozen() {
    let (folder, first) = scratch();
    let depth = ["encoder.depth=3"];
    succeeds(pretrain(&fashion(), &first, &depth));
    let second = folder.path().join("second");
    let on = |out: &Path, from: &Path, more: &[&str]| {
        let mut command = pretrain(&fashion(), out, &[&depth[..], more].concat());
        command.arg("--from").arg(from);
        command
    };
    let edits = ["train.frozen_blocks=2", "train.average_decay=0.5", "train.layer_decay=0.8"];
    let ran = succeeds(on(&second, &first, &edits));
    for part in ["55 tensors loaded unchanged\n", "frozen: 8040 of 11640 parameters\n"] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("initial values"), "{}", ran.stderr);
    let facts = fs::read_to_string(second.join("resolved.toml")).unwrap();
    assert!(facts.contains(&format!("from = \"{}\"\n", text(&first))), "{facts}");
    assert!(fs::read_to_string(second.join("report.html")).unwrap().contains("continued from"));
    let (before, after) = (model(&first, 4), model(&second, 4));
    let average = by_name(&second.join("checkpoints/step-4/average.safetensors"));
    for (name, values) in &before {
        let trains = ["encoder.blocks.2.", "encoder.norm.", "decoder."].iter().any(|part| name.starts_with(part));
        let is_kept = [&after[name], &average[name]].map(|now| now == values);
        assert_eq!(is_kept, [!trains; 2], "{name}");
    }

    // as in fine-tuning, a run that has begun has its own weights, wherever it began
    let weights = tensors(&second, 4);
    let again = succeeds(on(&second, &folder.path().join("gone"), &edits));
    let warning =
        format!("warning: the run began from the weights in `{}` and goes on; the weights in `", text(&first));
    assert!(again.stderr.contains(&warning), "{}", again.stderr);
    assert!(tensors(&second, 4) == weights);
    let same_place = first.join("..").join(first.file_name().unwrap());
    for same in [&first, &same_place] {
        assert!(!succeeds(on(&second, same, &edits)).stderr.contains("warning"));
    }
    assert_eq!(fs::read_to_string(second.join("resolved.toml")).unwrap(), facts);
    // images that are normalized otherwise, and are held out although they are trained on
    let third = folder.path().join("third");
    let mut other = on(&third, &first, &["data.normalization=\"none\""]);
    other.args(["--val", &fashion()]);
    let other = succeeds(other).stderr;
    assert!(other.contains("its images were normalized by the mean ["), "{other}");
    assert!(other.contains("of the held-out images are among the training images too, `"), "{other}");
    refuses(on(&second, &first, &edits[1..]), "`train.frozen_blocks` is 2 in that run and absent now", "--out");
    refuses(on(&folder.path().join("new"), &folder.path().join("gone"), &[]), "there is no", "run folder");
    assert!(!folder.path().join("new").exists());
}

#[test]
fn an_encoder_of_transformers_is_trained_further_on_gray_images_of_another_size() {
    let (folder, out) = scratch();
    let from = repository("testdata/weights/hf-vit");
    let sizes = [
        "encoder.width=16",
        "encoder.depth=2",
        "encoder.heads=4",
        "encoder.mlp_ratio=2.0",
        "encoder.qkv_bias=true",
        "encoder.layer_scale=0.0",
        "encoder.absolute_positions=true",
        "encoder.position_bias=none",
        "encoder.init=normal",
        "train.batch_size=8",
        "train.max_steps=2",
    ];
    let command = |from: &str, out: &Path, more: &[&str]| {
        let mut command = simmim(["pretrain", "--recipe", "demo", "--data", &fashion(), "--from", from, "--out"]);
        command.arg(out);
        for edit in sizes {
            command.args(["--set", edit]);
        }
        command.args(more);
        command
    };
    refuses(command(&from, &out, &[]), "for images of 3 channels, and the recipe's have 1", "--channels repeat");
    let ran = succeeds(command(&from, &out, &["--channels=mean"]));
    for part in [
        "recognized as Hugging Face ViT",
        "resized encoder.pos_embed from [1, 17, 16] to [1, 50, 16]",
        "resized encoder.patch_embed.proj.weight from [16, 3, 4, 4] to [16, 1, 4, 4]",
        "skipped decoder.0.weight: `decoder.0.weight` of that head has the shape [48, 16, 1, 1], \
         and of this one [16, 16, 1, 1]",
        "left at their initial values: decoder.0.weight, decoder.0.bias",
    ] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    let again = json(command(&from, &out, &["--channels=mean"]));
    assert_eq!(again["steps"], 2);

    let damaged = folder.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::copy(Path::new(&from).join("config.json"), damaged.join("config.json")).unwrap();
    let mut bytes = fs::read(Path::new(&from).join("model.safetensors")).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(damaged.join("model.safetensors"), bytes).unwrap();
    let new = folder.path().join("new");
    refuses(command(&text(&damaged), &new, &["--channels=mean"]), "NaN", "");
    assert!(!new.exists());
    let mut lonely = pretrain(&fashion(), &new, &[]);
    lonely.arg("--channels=mean");
    let ran = super::support::run(lonely);
    assert!(ran.code == Some(2) && ran.stderr.contains("required") && ran.stderr.contains("--from"), "{ran:?}");
}
