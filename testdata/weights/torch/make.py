"""Makes the files of `torch.save` beside it, and safetensors files of the same values to compare them with.

Needs torch, numpy, yacs and safetensors; README.md in `testdata` says which versions made the committed files.
"""

import argparse
import json
import pickle
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file, save_file
from yacs.config import CfgNode

HERE = Path(__file__).parent
WIDTH, HIDDEN, PATCH = 16, 32, 4
GENERATOR = torch.Generator().manual_seed(20)


def random(*shape):
    return 0.2 * torch.randn(shape, generator=GENERATOR)


def norm(name, width):
    return {f"{name}.weight": 1 + random(width), f"{name}.bias": random(width)}


def linear(name, width_out, width_in):
    return {f"{name}.weight": random(width_out, width_in), f"{name}.bias": random(width_out)}


def branches(block, width, hidden):
    return {
        **norm(f"{block}.norm1", width),
        **linear(f"{block}.attn.proj", width, width),
        **norm(f"{block}.norm2", width),
        **linear(f"{block}.mlp.fc1", hidden, width),
        **linear(f"{block}.mlp.fc2", width, hidden),
    }


def head(stride, width):
    return {"decoder.0.weight": random(3 * stride**2, width, 1, 1), "decoder.0.bias": random(3 * stride**2)}


def patches(patch, width):
    return {
        "encoder.mask_token": random(1, 1, width),
        "encoder.patch_embed.proj.weight": random(width, 3, patch, patch),
        "encoder.patch_embed.proj.bias": random(width),
    }


def vit():
    """Names of microsoft/SimMIM, `models/vision_transformer.py`, with shared position bias, for images of 16 px."""
    state = {"encoder.cls_token": random(1, 1, WIDTH), **patches(PATCH, WIDTH)}
    bias = "encoder.rel_pos_bias"
    state[f"{bias}.relative_position_bias_table"] = random(7 * 7 + 3, 4)
    state[f"{bias}.relative_position_index"] = torch.zeros(17, 17, dtype=torch.int64)
    for i in range(2):
        block = f"encoder.blocks.{i}"
        state |= {f"{block}.{name}": random(WIDTH) for name in ["gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias"]}
        state |= {f"{block}.attn.qkv.weight": random(3 * WIDTH, WIDTH), **branches(block, WIDTH, HIDDEN)}
    return state | norm("encoder.norm", WIDTH) | head(PATCH, WIDTH)


def swin(is_v2):
    """Names of `models/swin_transformer.py` and `swin_transformer_v2.py`, for images of 16 px and windows of 4."""
    state = {**patches(2, 8), **norm("encoder.patch_embed.norm", 8)}
    for stage, (width, depth) in enumerate([(8, 2), (16, 1)]):
        heads = width // 8
        for i in range(depth):
            block = f"encoder.layers.{stage}.blocks.{i}"
            attn = f"{block}.attn"
            state |= branches(block, width, 2 * width)
            state[f"{attn}.qkv.weight"] = random(3 * width, width)
            state[f"{attn}.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
            if is_v2:
                state |= {f"{attn}.q_bias": random(width), f"{attn}.v_bias": random(width)}
                state[f"{attn}.logit_scale"] = 2 + random(heads, 1, 1)
                state[f"{attn}.relative_coords_table"] = torch.zeros(1, 7, 7, 2)
                state |= linear(f"{attn}.rpe_mlp.0", 512, 2) | {f"{attn}.rpe_mlp.2.weight": random(heads, 512)}
            else:
                state[f"{attn}.qkv.bias"] = random(3 * width)
                state[f"{attn}.relative_position_bias_table"] = random(7 * 7, heads)
    merge = "encoder.layers.0.downsample"
    state |= norm(f"{merge}.norm", 16 if is_v2 else 32) | {f"{merge}.reduction.weight": random(16, 32)}
    return state | norm("encoder.norm", 16) | head(4, 16)


def checkpoint(name, state):
    """As `save_checkpoint` of microsoft/SimMIM, `utils.py`, writes it, and its weights as safetensors."""
    parameters = [torch.nn.Parameter(value.clone()) for value in list(state.values())[:3]]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    whole = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"t_in_epochs": False, "base_values": [1e-3], "multi_steps": [700]},
        "max_accuracy": numpy.float64(1.5),
        "epoch": 99,
        "config": CfgNode({"MODEL": {"TYPE": name, "NAME": "simmim_pretrain"}, "SEED": 0}),
        "args": argparse.Namespace(local_rank=0),
    }
    torch.save(whole, HERE / f"{name}.pth")
    save_file({key.replace("rpe_mlp", "cpb_mlp"): value for key, value in state.items()}, HERE / f"{name}.safetensors")


def layouts():
    """Every type of number, and tensors that share a storage or do not lie in one piece."""
    base = torch.arange(24, dtype=torch.float32) / 4
    matrix = base.reshape(4, 6)
    state = {
        "half": torch.tensor([1.5, -2.0, 65504.0], dtype=torch.float16),
        "bf16": torch.tensor([1.5, -2.0, 3.140625], dtype=torch.bfloat16),
        "double": torch.tensor([1.1, -1e-3], dtype=torch.float64),
        "whole": matrix,
        "part": base[7:11],
        "transposed": matrix.T,
        "columns": matrix[1:, 1::2],
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "one_row": base[3:9].unsqueeze(0),
        "parameter": torch.nn.Parameter(torch.tensor([[0.5], [0.25]])),
        "num_batches_tracked": torch.tensor(7),
        "version": 3,
    }
    for name, protocol in [("layouts", 2), ("layouts-protocol-4", 4)]:
        torch.save({"state_dict": state, "epoch": 3}, HERE / f"{name}.pth", pickle_protocol=protocol)
    values = {key: value.detach().float().contiguous().clone() for key, value in state.items() if key != "version"}
    del values["num_batches_tracked"]
    save_file(values, HERE / "layouts.safetensors")


def of_transformers():
    """The weights of `../hf-vit` and `../hf-vit-sharded` in the files that transformers wrote before safetensors."""
    torch.save(load_file(HERE / "../hf-vit/model.safetensors"), HERE / "pytorch_model.bin")
    sharded = HERE / "../hf-vit-sharded"
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    renamed = {name: name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin") for name in
               set(index["weight_map"].values())}
    for name, new in renamed.items():
        torch.save(load_file(sharded / name), HERE / new)
    index["weight_map"] = {tensor: renamed[name] for tensor, name in index["weight_map"].items()}
    (HERE / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def main():
    checkpoint("simmim-vit", vit())
    checkpoint("simmim-swin", swin(False))
    checkpoint("simmim-swinv2", swin(True))
    layouts()
    of_transformers()
    tiny = {"a": torch.tensor([1.0, float("nan")])}
    torch.save(tiny, HERE / "nan.pth")
    torch.save({"a": torch.tensor([1.0, 2.0])}, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    (HERE / "plain.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=2))


main()
