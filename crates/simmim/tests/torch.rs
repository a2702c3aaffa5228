//! Files of `torch.save`: those that torch wrote give the values and features of safetensors files of the same weights,
//! and those in `testdata/weights/torch/hostile` are refused, each for its own reason and without the memory that it
//! claims.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use peak_alloc::PeakAlloc;
use simmim::Error;
use simmim::encoders::{Encode, Encoder, ForwardContext, NeededFeatures, Role, VisibleTokens};
use simmim::weights::{Builder, LoadedWeights, WeightsFile};
use simmim_cpu::CpuDevice;
use simmim_engine::{Backend, Images, Operations, Precision};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/weights").join(name)
}

/// The features of a pseudo-random input.
fn features(weights: &LoadedWeights) -> Vec<f32> {
    let (recipe, _) = weights.resolved.as_ref().unwrap_or_else(|| panic!("{:?}", weights.undecided));
    let mut builder = Builder::default();
    let encoder = Encoder::new(recipe.encoder().unwrap(), Role::Pretrain, (16, 16), 3, &mut builder).unwrap();
    let b = weights.open(&CpuDevice { threads: 1 }, builder.finish().0, Precision::F32).unwrap();
    let pixels: Vec<f32> = (0..2 * 3 * 16 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
    b.start(false);
    let tokens = encoder.embed(&b, &Images { pixels: &pixels, count: 2, channels: 3, height: 16, width: 16 });
    b.read(&encoder.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate()))
}

#[test]
fn official_checkpoints_give_the_features_of_the_same_weights_in_safetensors() {
    for name in ["simmim-vit", "simmim-swin", "simmim-swinv2"] {
        let of = |extension: &str| LoadedWeights::at(&path(&format!("torch/{name}.{extension}"))).unwrap();
        let (torch, safetensors) = (of("pth"), of("safetensors"));
        let (found, expected) = (features(&torch), features(&safetensors));
        assert!(expected.iter().any(|value| value.abs() > 0.1), "{name}");
        assert_eq!(found, expected, "{name}");
        let import = torch.import.unwrap();
        assert_eq!((import.convention.as_str(), import.left_out.len()), ("official SimMIM", 0), "{name}");
        assert_eq!(
            import.notes,
            [
                "read `model`, and not `args` (argparse.Namespace), `config` (yacs.config.CfgNode), \
                 `epoch` (a number), `lr_scheduler` (a dict), `max_accuracy` (a scalar of numpy), `optimizer` (a dict)",
                "passed over without making an object of it: a scalar of numpy, argparse.Namespace, bytes, \
                 numpy.dtype, set, yacs.config.CfgNode",
            ],
            "{name}"
        );
    }
}

#[test]
fn what_transformers_wrote_before_safetensors_gives_the_same_features() {
    for (folder, files) in [
        ("hf-vit", &["pytorch_model.bin"][..]),
        (
            "hf-vit-sharded",
            &[
                "pytorch_model.bin.index.json",
                "pytorch_model-00001-of-00003.bin",
                "pytorch_model-00002-of-00003.bin",
                "pytorch_model-00003-of-00003.bin",
            ],
        ),
    ] {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(path(folder).join("config.json"), copy.path().join("config.json")).unwrap();
        for file in files {
            std::fs::copy(path("torch").join(file), copy.path().join(file)).unwrap();
        }
        let weights = LoadedWeights::at(copy.path()).unwrap();
        assert_eq!(features(&weights), features(&LoadedWeights::at(&path(folder)).unwrap()), "{folder}");
        assert_eq!(weights.import.unwrap().convention, "Hugging Face ViT");
    }
}

#[test]
fn every_type_and_layout_of_tensors_has_the_values_that_torch_gives_them() {
    let expected = WeightsFile::read(&path("torch/layouts.safetensors")).unwrap();
    for name in ["layouts.pth", "layouts-protocol-4.pth"] {
        let file = WeightsFile::read(&path("torch").join(name)).unwrap();
        file.check_finite().unwrap();
        for (tensor, shape) in expected.shapes() {
            assert_eq!(file.tensor(&tensor).unwrap(), expected.tensor(&tensor).unwrap(), "{name}: {tensor} {shape:?}");
        }
        assert_eq!(file.shapes().len(), expected.shapes().len() + 1, "and `num_batches_tracked`, which is I64");
        assert!(file.tensor("num_batches_tracked").unwrap_err().to_string().contains("is I64"));
        let notes = file.notes().join("\n");
        assert!(notes.contains("read `state_dict`, and not `epoch` (a number)"), "{notes}");
        assert!(notes.contains("being no tensors: `version`"), "{notes}");
    }
}

#[test]
fn values_that_are_not_finite_and_older_formats_are_refused_with_a_hint() {
    let error = |name: &str| LoadedWeights::at(&path("torch").join(name)).err().unwrap();
    assert!(matches!(error("nan.pth"), Error::WeightNotFinite { tensor, index: 1, .. } if tensor == "a"));
    for (name, message, hint) in [
        ("legacy.pth", "the format of torch before version 1.6", "save it again with a later torch"),
        ("plain.pkl", "a plain pickle", "torch.save(model.state_dict()"),
    ] {
        let error = error(name);
        assert!(error.to_string().contains(message) && error.is_users_fault(), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
}

/// A part of the message for each hostile file.
const REFUSED: &[(&str, &str)] = &[
    ("system-global", "names `posix.system`"),
    ("system-stack-global", "names `posix.system`"),
    ("eval", "names `__builtin__.eval`"),
    ("nested-reduce", "names `builtins.getattr`"),
    ("reduce-of-a-text", "calls what is no name"),
    ("reduce-of-a-storage-class", "calls a name with other values"),
    ("ordered-dict-of-arguments", "calls a name with other values"),
    ("build-of-a-function", "gives attributes to what has none"),
    ("build-of-a-tensor", "gives attributes to what has none"),
    ("object-among-weights", "`x` among its weights is argparse.Namespace"),
    ("newobj", "names `subprocess.Popen`"),
    ("newobj-of-a-function", "makes an object of what is no class"),
    ("newobj-ex", "the instruction `NEWOBJ_EX`"),
    ("inst", "the instruction `INST`"),
    ("obj", "the instruction `OBJ`"),
    ("ext1", "the instruction `EXT1`"),
    ("ext2", "the instruction `EXT2`"),
    ("ext4", "the instruction `EXT4`"),
    ("persid", "the instruction `PERSID`"),
    ("script", "names `__torch__.models.Net`"),
    ("memo-loop", "no state dict is found in it; at the top are `list`, `model`"),
    ("memo-missing", "recalls what it has not remembered"),
    ("deep", "no state dict is found in it; at the top are `w`"),
    ("stack-underflow", "a value is missing"),
    ("below-the-mark", "a value is missing"),
    ("no-mark", "a mark is missing"),
    ("protocol-9", "its protocol is not 2, 3 or 4"),
    ("long-text", "ends early, at byte 13"),
    ("not-a-text-key", "no state dict is found in it; at the top are a dict"),
    ("nothing-but-a-list", "no state dict is found in it; at the top are a list"),
    ("storage-of-a-path", "`../../../etc/passwd` has no number for a name"),
    ("storage-not-there", "storage `7` is not in the file"),
    ("storage-by-a-text", "calls with what is no tuple"),
    ("storage-of-complex-numbers", "names `torch.ComplexFloatStorage`"),
    ("storage-too-short", "has 12 bytes, and its tensors need 16"),
    ("storage-of-negative-size", "has no number for a name or size"),
    ("storage-of-two-types", "is of two types or sizes"),
    ("claims-100-gb", "claim 100000000000 bytes"),
    ("beyond-its-storage", "tensor `w` of the shape [2, 3] reaches beyond its storage of 4 values"),
    ("offset-beyond-its-storage", "tensor `w` of the shape [2, 2] reaches beyond"),
    ("strides-of-0", "tensor `w` of the shape [10000000000] reaches beyond"),
    ("sizes-that-overflow", "reaches beyond"),
    ("strides-that-overflow", "reaches beyond"),
    ("negative-size", "made of other values than it needs"),
    ("nine-dimensions", "made of other values than it needs"),
    ("fewer-strides", "made of other values than it needs"),
    ("views-of-one-storage", "its tensors claim 2048000 bytes"),
    ("bomb-of-a-storage", "its tensors claim 4194304 bytes"),
    ("bomb-of-a-pickle", "`archive/data.pkl` is compressed"),
    ("overlapping", "its tensors claim 204800 bytes"),
    ("truncated", "not a complete archive"),
    ("truncated-pickle", "ends early"),
    ("two-pickles", "it has 2 entries `…/data.pkl`"),
    ("no-pickle", "it has 0 entries `…/data.pkl`"),
    ("other-byte-order", "byte order is not `little`"),
    ("wrong-checksum", "Invalid checksum"),
];

/// The most memory that reading any of them takes: the buffers of files of a few kilobytes, and the tables of other
/// tests.
const MOST_BYTES: usize = 16 << 20;

#[test]
fn hostile_files_are_refused_each_for_its_reason() {
    let control = WeightsFile::read(&path("torch/hostile/control.pth")).unwrap();
    assert_eq!(control.tensor("w").unwrap(), Some((vec![2, 2], vec![1.0, 2.0, 3.0, 4.0])));

    let names: BTreeSet<String> = std::fs::read_dir(path("torch/hostile"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let listed: BTreeSet<String> =
        REFUSED.iter().map(|(name, _)| *name).chain(["control"]).map(str::to_owned).collect();
    assert_eq!(names, listed);
    let is_refused = |name: &str, message: &str| {
        let error = WeightsFile::read(&path(&format!("torch/hostile/{name}.pth"))).err();
        let said = error.as_ref().map_or("it is read".into(), Error::to_string);
        let is_right = said.contains(message)
            && error.is_some_and(|error| {
                matches!(error, Error::TorchFile { .. }) && error.is_users_fault() && error.hint().is_some()
            });
        (!is_right).then_some((name.to_owned(), said))
    };
    let wrong: Vec<_> = REFUSED.iter().filter_map(|(name, message)| is_refused(name, message)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(MEMORY.peak_usage() < MOST_BYTES, "{} bytes were taken", MEMORY.peak_usage());
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(path("torch/layouts.pth")).unwrap();
    let cut = folder.path().join("cut.pth");
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&cut, &whole[..length]).unwrap();
        assert!(WeightsFile::read(&cut).is_err(), "{length} bytes are read");
    }
}
