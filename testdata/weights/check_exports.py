"""Loads what `simmim export` writes into timm and transformers, with strict names, and compares what they compute.

    python testdata/weights/check_exports.py target/release/simmim

The models are those of `testdata/parity`, whose features, logits and losses the official code computed, and small ones that
are trained here for some steps, whose features `simmim knn` keeps. Needs torch, timm, transformers, safetensors and Pillow.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import timm
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
PARITY = HERE.parent / "parity"
NEAR = 1e-4


def simmim(*arguments):
    command = [sys.argv[1], *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{ran.stderr}{ran.stdout}")


def near(what, found, expected):
    off = (found - expected).abs().max().item() / expected.abs().max().item()
    verdict = "equal" if off <= NEAR else "DIFFERS"
    print(f"{what:58} {verdict}, by {off:.1e} of the largest value")
    return off <= NEAR


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


def official(name, folder):
    """A fixture of the official code: exported, loaded, compared with what that code computed."""
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
    simmim("import", plain, "--out", ours, *edits)
    pixels, good = tensors["input"], True
    for form in ("hf", "timm"):
        out = folder / form
        simmim("export", "--from", ours, "--format", form, "--out", out)
        kind, model = transformers_model(out) if form == "hf" else timm_model(out)
        what = f"{name} as {form} {kind}"
        with torch.no_grad():
            if config["kind"] == "classify":
                logits = model(pixels).logits if form == "hf" else model(pixels)
                good &= near(f"{what}: logits", logits, tensors["logits"])
                continue
            if not kind.endswith("ForMaskedImageModeling"):
                continue  # the fixture's features are of masked images
            mask = tensors["mask"].flatten(1).bool()
            result = model(pixels, bool_masked_pos=mask)
            good &= near(f"{what}: predictions", result.reconstruction, tensors["reconstruction"])
            good &= near(f"{what}: loss", result.loss, tensors["loss"].reshape(()))
    return good


def trained(recipe, edits, folder):
    """A model trained here for some steps, against the features that `simmim knn` keeps."""
    generator = numpy.random.default_rng(0)
    images = []
    for label in ("a", "b"):
        (folder / "data" / label).mkdir(parents=True)
        for i in range(8):
            small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=numpy.uint8))
            picture = small.resize((32, 32), Image.BILINEAR)
            picture.save(folder / "data" / label / f"{i}.png")
            images.append(numpy.asarray(picture))
    data, run, cache = folder / "data", folder / "run", folder / "cache"
    sets = [f"--set={edit}" for edit in edits + ["train.batch_size=8", "train.max_steps=20", "train.base_lr=0.05"]]
    simmim("pretrain", "--recipe", recipe, "--data", data, "--out", run, "--precision=f32", "--quiet", *sets)
    simmim("knn", "--from", run, "--data", data, "--val", data, "--cache", cache, "--precision=f32", "--quiet")
    ours = load_file(next(cache.glob("features-*.safetensors")))["features"]
    good = True
    for form in ("hf", "timm"):
        out = folder / form
        simmim("export", "--from", run, "--format", form, "--out", out)
        kind, model = transformers_model(out) if form == "hf" else timm_model(out)
        text = (out / ("preprocessor_config.json" if form == "hf" else "config.json")).read_text()
        said = json.loads(text) if form == "hf" else json.loads(text)["pretrained_cfg"]
        mean, std = (said["image_mean"], said["image_std"]) if form == "hf" else (said["mean"], said["std"])
        pixels = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        if form == "hf":
            processor = transformers.AutoImageProcessor.from_pretrained(out)
            pictures = [Image.fromarray(image) for image in images]
            good &= near(f"{recipe}: its image processor", processor(pictures, return_tensors="pt")["pixel_values"], pixels)
        with torch.no_grad():
            hidden = model.base_model(pixels).last_hidden_state if form == "hf" else model.forward_features(pixels)
            hidden = hidden.flatten(1, 2) if hidden.ndim == 4 else hidden
            side = int(hidden.shape[1] ** 0.5)
            tokens = patch_tokens(hidden, side * side)
        good &= near(f"{recipe} as {form} {kind}: features", tokens.mean(1), ours)
    return good


def main():
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        names = ["pretrain_vit_abs_pos", "pretrain_vit_shared_rpb", "pretrain_swin", "pretrain_swinv2"]
        names += ["classify_vit_rpb_meanpool", "classify_swin", "classify_swinv2_pretrained_window"]
        for name in names:
            folder = Path(scratch) / name
            folder.mkdir()
            good &= official(name, folder)
        vit = ["encoder.width=32", "encoder.depth=2", "encoder.heads=4"]
        absolute = vit + ["encoder.position_bias=none"]
        swin = ["encoder.width=16", "encoder.depths=[2, 2]", "encoder.heads=[2, 4]", "data.image_size=32"]
        swin += ["encoder.window=4", "mask.unit_px=8"]
        small = [("pretrain-vit-cifar", absolute), ("pretrain-vit-cifar", vit), ("pretrain-swin-t-192", swin)]
        small += [("pretrain-swinv2-t-192", swin)]
        for number, (recipe, edits) in enumerate(small):
            folder = Path(scratch) / f"trained-{number}"
            folder.mkdir()
            good &= trained(recipe, edits, folder)
    print("timm", timm.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
    sys.exit(0 if good else 1)


main()
