//! DALL-E's encoder as a tokenizer: `testdata/weights/dalle` has small ones with random weights under both names of their
//! tensors, and the tokens that code of our own and transformers compute.
//!
//! `SIMMIM_DALLE_DIR=FOLDER` compares another such folder, as `testdata/weights/make.py` makes it.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use simmim::tokenizer::Tokenizer;
use simmim::weights::{WeightsFile, adapt};
use simmim_cpu::CpuDevice;
use simmim_engine::Images;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/weights/dalle");
    std::env::var_os("SIMMIM_DALLE_DIR").map_or(own, PathBuf::from)
}

#[test]
fn both_files_give_the_tokens_of_the_public_code() {
    let scratch = tempfile::tempdir().unwrap();
    let expected = WeightsFile::read(&folder().join("expected.safetensors")).unwrap();
    let ((shape, pixels), (_, tokens)) =
        (expected.tensor("input").unwrap().unwrap(), expected.tensor("tokens").unwrap().unwrap());
    let [count, channels, height, width] = shape[..] else { panic!("images are [B, C, H, W]") };
    let images = Images { pixels: &pixels, count, channels, height, width };
    for (file, convention) in
        [("encoder.pth", "DALL-E's encoder"), ("model.safetensors", "transformers' copy of DALL-E's encoder")]
    {
        let out = scratch.path().join(file).with_extension("safetensors");
        let adapted = adapt(&folder().join(file), &[], None, &out).unwrap();
        let import = adapted.import.unwrap();
        assert_eq!((import.convention.as_str(), import.left_out.len()), (convention, 0), "{import:?}");
        let tokenizer = Tokenizer::load(&out, &CpuDevice { threads: 2 }).unwrap();
        assert_eq!(tokenizer.config().stride_px(), 8);
        let found: Vec<f32> = tokenizer.tokens(&images).iter().map(|token| *token as f32).collect();
        assert_eq!(found, tokens, "{file}");
        assert!(tokens.iter().any(|token| *token != tokens[0]), "all tokens are the same");
    }
    let set = ["data.channels=1".to_owned()];
    let error = adapt(&folder().join("encoder.pth"), &set, None, &scratch.path().join("x")).unwrap_err();
    assert!(error.to_string().contains("nothing can be changed") && error.is_users_fault(), "{error}");
}

#[test]
fn an_encoder_without_one_of_its_tensors_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = WeightsFile::read(&folder().join("model.safetensors")).unwrap();
    let mut table = simmim_engine::ParameterTable::default();
    let lost = "blocks.group_2.group.block_1.res_path.path.conv_2.bias";
    for (name, shape) in whole.shapes().into_iter().filter(|(name, _)| name != lost) {
        table.add(&name, &shape);
    }
    let path = scratch.path().join("part.safetensors");
    simmim::weights::save(&path, &table, &[("", &vec![0.0; table.len()])], Default::default()).unwrap();
    let error = adapt(&path, &[], None, &scratch.path().join("out.safetensors")).unwrap_err();
    assert!(error.to_string().contains("group_2.block_1.res_path.conv_2.b"), "{error}");
}
