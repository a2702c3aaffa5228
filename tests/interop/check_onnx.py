"""The graphs of `simmim export --format onnx`: valid, and equal to what is computed here for batches of 1, 3 and 8.

Encoders are compared with `simmim.load`; classifiers with the official code's logits, or with the same run as transformers
loads it.
"""

import tempfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
import simmim
import torch
from check_exports import fixture, transformers_model
from common import ALONE, REGISTERS, ROTARY, SWIGLU, SWIN, SWIN_PRETRAINING, VIT, Checks, trained
from common import simmim as command

BATCHES = (1, 3, 8)


def session(source, out):
    command("export", "--from", source, "--format", "onnx", "--out", out)
    onnx.checker.check_model(out / "model.onnx", full_check=True)
    return onnxruntime.InferenceSession(out / "model.onnx")


def pixels_of(count, encoder_input):
    return numpy.random.default_rng(count).standard_normal((count, *encoder_input), dtype=numpy.float32)


def encoder_of(checks, name, source, folder):
    """A pre-trained encoder against ours."""
    graph, encoder = session(source, folder / "onnx"), simmim.load(source, precision="f32")
    for count in BATCHES:
        images = pixels_of(count, (encoder.channels, *encoder.image_size))
        features, tokens = graph.run(["features", "tokens"], {"images": images})
        checks.near(f"{name}: features of {count}", features, encoder.embed(images))
        checks.near(f"{name}: tokens of {count}", tokens, encoder.embed(images, features="patches"))


def classifier_of(checks, name, run, folder):
    """A fine-tuned classifier against transformers'."""
    graph = session(run, folder / "onnx")
    command("export", "--from", run, "--format", "hf", "--out", folder / "hf")
    kind, model = transformers_model(folder / "hf")
    for count in BATCHES:
        images = pixels_of(count, (3, 32, 32))
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).logits
        checks.near(f"{name} as {kind}: logits of {count}", graph.run(["logits"], {"images": images})[0], expected)


def main():
    checks = Checks()
    wide = ["data.image_size=[32, 48]", "mask.unit_px=8"]
    rows = [
        ("ViT with a table per block", "pretrain-vit-cifar", VIT + ["encoder.position_bias=per-block"], {}),
        ("ViT with a shared table", "pretrain-vit-cifar", VIT + ["encoder.position_bias=shared"], {}),
        ("ViT with positions alone", "pretrain-vit-cifar", VIT + ["encoder.position_bias=none"], {}),
        ("ViT without scales and biases", "pretrain-vit-cifar", VIT + ["encoder.layer_scale=0", "encoder.qkv_bias=false"], {}),
        ("ViT with registers and SwiGLU", "pretrain-vit-cifar", VIT + ALONE + REGISTERS + SWIGLU, {}),
        ("ViT with rotary positions of 32 × 48 px", "pretrain-vit-cifar", VIT + ROTARY + REGISTERS + wide, {"size": (32, 48)}),
        ("ViT of 32 × 48 px", "pretrain-vit-cifar", VIT + wide, {"size": (32, 48)}),
        ("ViT of 5 channels", "pretrain-vit-cifar", VIT + ["data.normalization=measured", "data.channels=5"], {"channels": 5}),
        ("Swin", "pretrain-swin-t-192", SWIN_PRETRAINING, {}),
        ("Swin with padded windows", "pretrain-swin-t-192", SWIN_PRETRAINING + ["encoder.window=3"], {}),
        ("Swin of 32 × 48 px", "pretrain-swin-t-192", SWIN_PRETRAINING + wide, {"size": (32, 48)}),
        (
            "Swin with other parts",
            "pretrain-swin-t-192",
            SWIN_PRETRAINING + ["encoder.absolute_positions=true", "encoder.qkv_bias=false", "encoder.patch_norm=false"],
            {},
        ),
        ("SwinV2", "pretrain-swinv2-t-192", SWIN_PRETRAINING, {}),
        ("SwinV2 with padded windows", "pretrain-swinv2-t-192", SWIN_PRETRAINING + ["encoder.window=3"], {}),
        ("SwinV2 with extra norms", "pretrain-swinv2-t-192", SWIN_PRETRAINING + ["encoder.extra_norm_every=2"], {}),
        (
            "SwinV2 of 32 × 48 px, 5 channels",
            "pretrain-swinv2-t-192",
            SWIN_PRETRAINING + wide + ["data.normalization=measured", "data.channels=5"],
            {"size": (32, 48), "channels": 5},
        ),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, recipe, edits, images) in enumerate(rows):
            folder = Path(scratch) / f"encoder-{number}"
            run, _ = trained(folder, recipe, edits, **images)
            encoder_of(checks, name, run, folder)
        tuned = [
            ("ViT, fine-tuned", "finetune-vit-cifar", VIT),
            ("Swin, fine-tuned", "finetune-swin-t-192", SWIN + ["data.image_size=32"]),
            ("SwinV2, fine-tuned", "finetune-swinv2-t-224", SWIN + ["data.image_size=32", "encoder.pretrained_window_size=[]"]),
        ]
        for number, (name, recipe, edits) in enumerate(tuned):
            folder = Path(scratch) / f"classifier-{number}"
            run, _ = trained(folder, recipe, edits, command="finetune")
            classifier_of(checks, name, run, folder)
        for name in ("classify_vit_rpb_meanpool", "classify_swin", "classify_swinv2_pretrained_window"):
            folder = Path(scratch) / name
            folder.mkdir()
            ours, tensors, _ = fixture(name, folder)
            found = session(ours, folder / "onnx").run(["logits"], {"images": tensors["input"].numpy()})[0]
            checks.near(f"{name} of the official code: logits", found, tensors["logits"])
    print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
    checks.end()


main()
