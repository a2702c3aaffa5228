"""Loads what `simmim export` writes into timm and transformers, with strict names, and compares what they compute.

The models are those of `testdata/parity`, whose features, logits and losses the official code computed, and small ones that
are trained here for some steps: their features are those of `simmim.load`, and the loss of the `…ForMaskedImageModeling`
classes is the held-out loss of the run, under the masks that `simmim.mask` draws.
"""

import json
import tempfile
from pathlib import Path

import numpy
import simmim
import timm
import torch
import transformers
from common import ALONE, REGISTERS, ROOT, ROTARY, SWIGLU, SWIN_PRETRAINING, VIT, Checks, logged, trained
from common import simmim as command
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

PARITY = ROOT / "testdata" / "parity"

# the epoch that the masks of held-out images are drawn for
HELD_OUT = 2**64 - 1


def transformers_model(folder):
    """The class that config.json names, with no missing and no unexpected name."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    options = {"add_pooling_layer": False} if name == "ViTModel" else {}
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, **options)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (name, key, info[key])
    return name, model.eval()


def timm_model(folder):
    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(config["architecture"], **config["model_args"])
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return config["architecture"], model.eval()


def patch_tokens(hidden, patches):
    """Tokens without the class token, where there is one."""
    hidden = hidden.flatten(1, 2) if hidden.ndim == 4 else hidden
    return hidden[:, hidden.shape[1] - patches :]


def fixture(name, folder):
    """A fixture of the official code as a file of ours, with what that code computed and its configuration."""
    path = PARITY / f"{name}.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    weights = {key.removeprefix("param."): value for key, value in tensors.items() if key.startswith("param.")}
    plain, ours = folder / "plain.safetensors", folder / "ours.safetensors"
    save_file(weights, plain)
    edits = [f"--set=data.image_size={config['img_size']}"]
    if config["encoder"] == "vit":
        edits += [f"--set=encoder.heads={config['num_heads']}"]
    else:
        edits += [f"--set=encoder.window={config['window_size']}"]
    if config.get("pretrained_window_size"):
        sides = [config["pretrained_window_size"]] * len(config["depths"])
        edits += [f"--set=encoder.pretrained_window_size={sides}"]
    command("import", plain, "--out", ours, *edits)
    return ours, tensors, config


def official(checks, name, folder):
    """A fixture of the official code: exported, loaded, compared with what that code computed."""
    ours, tensors, config = fixture(name, folder)
    pixels = tensors["input"]
    for form in ("hf", "timm"):
        out = folder / form
        command("export", "--from", ours, "--format", form, "--out", out)
        kind, model = transformers_model(out) if form == "hf" else timm_model(out)
        what = f"{name} as {form} {kind}"
        with torch.no_grad():
            if config["kind"] == "classify":
                logits = model(pixels).logits if form == "hf" else model(pixels)
                checks.near(f"{what}: logits", logits, tensors["logits"])
                continue
            if not kind.endswith("ForMaskedImageModeling"):
                continue  # the fixture's features are of masked images
            mask = tensors["mask"].flatten(1).bool()
            result = model(pixels, bool_masked_pos=mask)
            checks.near(f"{what}: predictions", result.reconstruction, tensors["reconstruction"])
            checks.near(f"{what}: loss", result.loss, tensors["loss"].reshape(()))


def of_run(checks, name, recipe, edits, folder):
    """A model trained here for some steps, against what is computed here."""
    run, images = trained(folder, recipe, edits)
    encoder = simmim.load(run, precision="f32")
    ours = encoder.embed(images)
    for form in ("hf", "timm"):
        out = folder / form
        command("export", "--from", run, "--format", form, "--out", out)
        kind, model = transformers_model(out) if form == "hf" else timm_model(out)
        text = (out / ("preprocessor_config.json" if form == "hf" else "config.json")).read_text()
        said = json.loads(text) if form == "hf" else json.loads(text)["pretrained_cfg"]
        mean, std = (said["image_mean"], said["image_std"]) if form == "hf" else (said["mean"], said["std"])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        if form == "hf":
            processor = transformers.AutoImageProcessor.from_pretrained(out)
            pictures = [Image.fromarray(image) for image in images]
            checks.near(f"{name}: its image processor", processor(pictures, return_tensors="pt")["pixel_values"], pixels)
        with torch.no_grad():
            # of DINOv3, `base_model` is the blocks alone
            core = model if kind.endswith("Model") else getattr(model, "base_model", None)
            hidden = core(pixels).last_hidden_state if form == "hf" else model.forward_features(pixels)
            hidden = hidden.flatten(1, 2) if hidden.ndim == 4 else hidden
            side = int(hidden.shape[1] ** 0.5)
            tokens = patch_tokens(hidden, side * side)
            checks.near(f"{name} as {form} {kind}: features", tokens.mean(1), ours)
            if kind.endswith("ForMaskedImageModeling"):
                patch = model.config.patch_size
                unit = 8 if "mask.unit_px=8" in edits else 4
                hidden = simmim.mask(32, unit_px=unit, patch_px=patch, ratio=0.6, count=len(images), epoch=HELD_OUT)
                result = model(pixels, bool_masked_pos=torch.from_numpy(hidden).flatten(1))
                checks.near(f"{name} as {form} {kind}: loss", result.loss, numpy.array(logged(run, "val_loss")))


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        names = ["pretrain_vit_abs_pos", "pretrain_vit_shared_rpb", "pretrain_swin", "pretrain_swinv2"]
        names += ["classify_vit_rpb_meanpool", "classify_swin", "classify_swinv2_pretrained_window"]
        for name in names:
            folder = Path(scratch) / name
            folder.mkdir()
            official(checks, name, folder)
        # SwinV2 with the pixels as target, which those classes have
        v2 = ["encoder.kind=swinv2", "encoder.extra_norm_every=0", "encoder.pretrained_window_size=[]"]
        small = [
            ("ViT with positions alone", "pretrain-vit-cifar", VIT + ["encoder.position_bias=none"]),
            ("ViT with tables", "pretrain-vit-cifar", VIT),
            ("ViT with registers", "pretrain-vit-cifar", VIT + ALONE + REGISTERS),
            ("ViT with SwiGLU", "pretrain-vit-cifar", VIT + ALONE + SWIGLU),
            ("ViT with registers and SwiGLU", "pretrain-vit-cifar", VIT + ALONE + REGISTERS + SWIGLU),
            ("ViT with rotary positions", "pretrain-vit-cifar", VIT + ROTARY + ["encoder.qkv_bias=false"]),
            ("ViT with rotary positions, registers, SwiGLU", "pretrain-vit-cifar", VIT + ROTARY + REGISTERS + SWIGLU),
            ("Swin", "pretrain-swin-t-192", SWIN_PRETRAINING),
            ("SwinV2", "pretrain-swin-t-192", SWIN_PRETRAINING + v2),
        ]
        for number, (name, recipe, edits) in enumerate(small):
            of_run(checks, name, recipe, edits, Path(scratch) / f"trained-{number}")
    print("timm", timm.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
    checks.end()


if __name__ == "__main__":
    main()
