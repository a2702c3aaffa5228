"""Checks that the PyTorch models compute what the official code does: loss and every gradient of the fixtures.

    python bench/check_models.py [FOLDER]        with PyTorch and `safetensors` from PyPI
"""

import json
import re
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from models import SimMim

FIXTURES = Path(__file__).resolve().parent.parent / "testdata" / "parity"


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURES
    for path in sorted(folder.glob("pretrain_*.safetensors")):
        for use_sdpa in (False, True):
            loss, gradient = check(path, use_sdpa)
            print(f"{path.stem:32} sdpa {use_sdpa!s:5} loss off by {loss:.1e}, gradients by {gradient:.1e}")
            if loss > 1e-5 or gradient > 1e-4:
                sys.exit(f"{path.stem}: not the same model")


def check(path, use_sdpa):
    """How far the loss and the worst gradient are off, relative to the largest magnitude of each."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    model = SimMim(recipe(config), use_sdpa)
    own = dict(model.named_parameters())
    names = {own_name(name[len("param."):], config): name[len("param."):] for name in tensors if name.startswith("param.")}
    assert set(names) == set(own), set(names) ^ set(own)
    with torch.no_grad():
        for name, official in names.items():
            own[name].copy_(tensors[f"param.{official}"])
    loss = model(tensors["input"], tensors["mask"])
    loss.backward()
    expected = tensors["loss"].item()
    worst = 0.0
    for name, official in names.items():
        true = tensors[f"grad.{official}"]
        scale = max(true.abs().max().item(), 1e-2)  # some gradients are zero but for rounding
        worst = max(worst, (own[name].grad - true).abs().max().item() / scale)
    return abs(loss.item() - expected) / expected, worst


def recipe(config):
    """The recipe of a fixture's configuration."""
    encoder = {
        "kind": config["encoder"],
        "patch_px": config["patch_size"],
        "width": config["embed_dim"],
        "mlp_ratio": config["mlp_ratio"],
        "qkv_bias": config["qkv_bias"],
        "drop_path": 0.0,
        "heads": config["num_heads"],
    }
    if config["encoder"] == "vit":
        encoder["depth"] = config["depth"]
        encoder["layer_scale"] = config["init_values"] or 0.0
        encoder["absolute_positions"] = config["use_abs_pos_emb"]
        encoder["position_bias"] = "shared" if config["use_shared_rel_pos_bias"] else "none"
    else:
        encoder["depths"], encoder["window"] = config["depths"], config["window_size"]
        encoder["patch_norm"], encoder["absolute_positions"] = config["patch_norm"], config["ape"]
    window = config.get("norm_target_patch", 0)
    target = {"kind": "normalized-pixels", "window_px": window} if window else {"kind": "pixels"}
    return {"data": {"image_size": config["img_size"], "channels": 3}, "encoder": encoder, "target": target}


def own_name(official, config):
    """The name in `models.py` of an official parameter."""
    name = official.replace("patch_embed.proj.", "patch_embed.").replace("patch_embed.norm.", "patch_norm.")
    name = name.replace("rel_pos_bias.relative_position_bias_table", "shared.table")
    name = name.replace("relative_position_bias_table", "table").replace("absolute_pos_embed", "positions")
    if "depths" not in config:
        return name

    def place(found):
        before = sum(config["depths"][: int(found[1])]) + int(found[1])  # one merging behind each stage
        inside = int(found[3]) if found[2] == "blocks" else config["depths"][int(found[1])]
        return f"layers.{before + inside}."

    return re.sub(r"layers\.(\d+)\.(blocks|downsample)\.(?:(\d+)\.)?", place, name)


if __name__ == "__main__":
    main()
