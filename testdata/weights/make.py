"""Makes the folders beside it: tiny models of timm and transformers with random weights, and what they compute.

    python testdata/weights/make.py

`tests/interop` makes them too, elsewhere and with other weights.

Needs torch, timm, transformers and safetensors; the versions that made the committed folders are in README.md.
"""

import json
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
    SwinConfig,
    SwinForImageClassification,
    SwinForMaskedImageModeling,
    Swinv2Config,
    Swinv2ForMaskedImageModeling,
    ViTConfig,
    ViTForMaskedImageModeling,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

# where the models go, and what is added to the seeds of their weights
FOLDER = Path(__file__).parent
SEED = 0
VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, image_size=16, patch_size=4)
SWIN = dict(image_size=16, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=4, mlp_ratio=2.0)
TIMM_SWIN = dict(img_size=16, patch_size=2, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, mlp_ratio=2.0)
TIMM_VIT = dict(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=4, mlp_ratio=2.0)


def randomized(model, seed):
    """Random values everywhere: zeros of biases and tables would hide what is misplaced."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_scale else 0.2 * noise)
            if "logit_scale" in name:
                parameter.add_(2.0)
    return model.eval()


def images(seed, side=16):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1000 + seed))


def write(name, expected):
    save_file({key: value.contiguous().float() for key, value in expected.items()}, FOLDER / name / "expected.safetensors")


def transformers_model(name, model, compute, seed, state=None, **options):
    model = randomized(model, SEED + seed)
    folder = FOLDER / name
    model.save_pretrained(folder, **options)
    if state is not None:  # as version 5 calls the parameters
        save_file(state(model), folder / "model.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        write(name, compute(model, images(seed)))


def timm_model(name, architecture, arguments, compute, seed, config=True):
    model = randomized(timm.create_model(architecture, **arguments), SEED + seed)
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    if config:
        text = {"architecture": architecture, "num_classes": arguments["num_classes"], "model_args": arguments}
        text["pretrained_cfg"] = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "input_size": [3, 16, 16]}
        (folder / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    with torch.no_grad():
        write(name, compute(model, images(seed)))
    return model


def masked(model, pixels):
    """Features, reconstruction and loss under a mask."""
    stride = model.config.encoder_stride
    patches = (16 // model.config.patch_size) ** 2
    hidden = torch.rand(2, patches, generator=torch.Generator().manual_seed(7)) < 0.5
    if stride > model.config.patch_size:  # whole strides are hidden
        side, times = 16 // stride, stride // model.config.patch_size
        hidden = torch.rand(2, side, side, generator=torch.Generator().manual_seed(7)) < 0.5
        hidden = hidden.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1)
    out = model(pixels, bool_masked_pos=hidden)
    features = model.base_model(pixels).last_hidden_state
    of_class = {}
    if model.config.model_type == "vit":
        of_class = {"class_token": features[:, 0]}
        features = features[:, 1:]
    return of_class | {
        "input": pixels,
        "features": features,
        "mask": hidden.float(),
        "reconstruction": out.reconstruction,
        "loss": out.loss.reshape(1),
    }


def tokens(model, pixels):
    return {"input": pixels, "features": model(pixels).last_hidden_state[:, 1:]}


def all_tokens(model, pixels):
    """Features and class token; registers are neither."""
    last = model(pixels).last_hidden_state
    first = 1 + getattr(model.config, "num_register_tokens", 0)
    return {"input": pixels, "features": last[:, first:], "class_token": last[:, 0]}


def logits(model, pixels):
    return {"input": pixels, "logits": model(pixels).logits}


def mae(model, pixels):
    order = torch.arange(16).float().expand(2, 16)
    model.vit.config.mask_ratio = 0.0
    return {"input": pixels, "features": model.vit(pixels, noise=order).last_hidden_state[:, 1:]}


def facebook_dinov3(state):
    """Tensors of timm's DINOv3 with SwiGLU under the names of facebookresearch/dinov3, which timm reads as well."""
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    names |= {"mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2", "mlp.fc2": "mlp.w3"}
    theirs = {"rope_embed.periods": torch.ones(2), "mask_token": torch.zeros(1, 16)}
    for name, tensor in state.items():
        if name.endswith("q_bias"):
            block = name.removesuffix("q_bias")
            value = state[f"{block}v_bias"]
            theirs[f"{block}qkv.bias"] = torch.cat([tensor, torch.zeros_like(value), value])
            theirs[f"{block}qkv.bias_mask"] = torch.ones(3 * len(value))
        elif not name.endswith("v_bias"):
            for ours, other in names.items():
                name = name.replace(ours, other)
            theirs[name] = tensor.clone()
    return theirs


def dalle_scores(weights, images, groups=4, blocks=2):
    """Scores of tokens by DALL-E's encoder (arXiv:2102.12092, appendix A) of images from 0 to 1."""

    def conv(x, name, padding):
        return F.conv2d(x, weights[f"{name}.w"], weights[f"{name}.b"], padding=padding)

    x = conv(0.8 * images + 0.1, "blocks.input", 3)
    for group in range(1, groups + 1):
        x = F.max_pool2d(x, 2) if group > 1 else x
        for block in range(1, blocks + 1):
            name = f"blocks.group_{group}.block_{block}"
            branch = x
            for layer in range(1, 5):
                branch = conv(F.relu(branch), f"{name}.res_path.conv_{layer}", 1 if layer < 4 else 0)
            x = conv(x, f"{name}.id_path", 0) if f"{name}.id_path.w" in weights else x
            x = x + branch / (groups * blocks) ** 2
    return conv(F.relu(x), "blocks.output.conv", 0)


def dalle(name, seed, width, vocabulary, size):
    """An encoder under both names of its tensors, and the tokens of two images."""
    model = FlavaImageCodebook(FlavaImageCodebookConfig(hidden_size=width, vocab_size=vocabulary))
    model = randomized(model, SEED + seed)
    for parameter in model.parameters():
        # so that tokens differ from place to place: small biases, and branches that count
        parameter.data.mul_(20 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1)
    model.blocks.input.weight.data -= model.blocks.input.weight.data.mean((1, 2, 3), keepdim=True)
    theirs = {}
    for key, value in model.state_dict().items():
        key = key.replace(".group.block", ".block").replace(".res_path.path.", ".res_path.")
        theirs[key.replace(".weight", ".w").replace(".bias", ".b")] = value.clone()
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1000 + seed))
    with torch.no_grad():
        scores = dalle_scores(theirs, pixels)
        assert torch.equal(scores.argmax(1), model.get_codebook_indices(0.8 * pixels + 0.1))
    best = scores.topk(2, dim=1).values
    assert (best[:, 0] - best[:, 1]).min() > 1e-4 * scores.abs().max(), "a token is decided by rounding"
    folder = FOLDER / name
    model.save_pretrained(folder)
    torch.save(theirs, folder / "encoder.pth")
    write(name, {"input": pixels, "tokens": scores.argmax(1)})


def make():
    transformers_model("hf-vit", ViTForMaskedImageModeling(ViTConfig(**VIT, encoder_stride=4)), masked, 1)
    transformers_model("hf-vit-later", ViTModel(ViTConfig(**VIT)), tokens, 2, state=lambda m: m.state_dict())
    transformers_model("hf-vit-sharded", ViTModel(ViTConfig(**VIT)), tokens, 3, max_shard_size="12KB")
    mae_sizes = dict(decoder_num_attention_heads=2, decoder_hidden_size=8, decoder_num_hidden_layers=1)
    mae_config = ViTMAEConfig(**VIT, **mae_sizes, decoder_intermediate_size=8)
    transformers_model("hf-mae", ViTMAEForPreTraining(mae_config), mae, 4)
    labels = {0: "ant", 1: "bee", 2: "cat"}
    tables = dict(use_relative_position_bias=True, use_absolute_position_embeddings=True, use_mean_pooling=True)
    beit = BeitConfig(**VIT, **tables, num_labels=3, id2label=labels)
    transformers_model("hf-beit", BeitForImageClassification(beit), logits, 5)
    shared = BeitConfig(**VIT, use_shared_relative_position_bias=True, use_mean_pooling=False)
    transformers_model("hf-beit-shared", BeitModel(shared, add_pooling_layer=False), tokens, 6)
    transformers_model("hf-swin", SwinForMaskedImageModeling(SwinConfig(**SWIN, encoder_stride=4)), masked, 7)
    swin = SwinConfig(**SWIN, num_labels=3, id2label=labels, use_absolute_embeddings=True)
    transformers_model("hf-swin-later", SwinForImageClassification(swin), logits, 8, state=lambda m: m.state_dict())
    swin_v2 = Swinv2Config(**SWIN, encoder_stride=4, pretrained_window_sizes=[3, 3])
    transformers_model("hf-swinv2", Swinv2ForMaskedImageModeling(swin_v2), masked, 9)

    # an epsilon that no other value would be near, with activations so small that it counts
    transformers_model("hf-vit-eps", ViTModel(ViTConfig(**VIT, layer_norm_eps=0.03125)), tokens, 14)
    swin_eps = SwinConfig(**SWIN, encoder_stride=4, layer_norm_eps=0.03125)
    transformers_model("hf-swin-eps", SwinForMaskedImageModeling(swin_eps), masked, 15)
    # these say a ratio in place of a width
    dino = {key: value for key, value in VIT.items() if key != "intermediate_size"} | dict(mlp_ratio=2)
    transformers_model("hf-dinov2", Dinov2Model(Dinov2Config(**dino)), all_tokens, 16)
    registers = Dinov2WithRegistersConfig(**dino, num_register_tokens=3)
    transformers_model("hf-dinov2-registers", Dinov2WithRegistersModel(registers), all_tokens, 17)

    def class_token(model, pixels):
        return {"input": pixels, "features": model.forward_features(pixels)[:, 1:]}

    def dinov2(model, pixels):
        tokens = model.forward_features(pixels)
        return {"input": pixels, "features": tokens[:, model.num_prefix_tokens :], "class_token": tokens[:, 0]}

    def of_classes(model, pixels):
        return {"input": pixels, "logits": model(pixels)}

    timm_model("timm-vit", "vit_base_patch16_224", {**TIMM_VIT, "num_classes": 3}, class_token, 10, config=False)
    mean = {**TIMM_VIT, "num_classes": 3, "init_values": 0.1, "global_pool": "avg"}
    timm_model("timm-vit-mean", "vit_base_patch16_224", mean, of_classes, 11)
    timm_model("timm-swin", "swin_tiny_patch4_window7_224", {**TIMM_SWIN, "num_classes": 3}, of_classes, 12)
    timm_model("timm-swinv2", "swinv2_tiny_window8_256", {**TIMM_SWIN, "num_classes": 3}, of_classes, 13)
    dino = {**TIMM_VIT, "num_classes": 0}
    timm_model("timm-dinov2", "vit_small_patch14_dinov2", dino, dinov2, 18)
    timm_model("timm-dinov2-registers", "vit_small_patch14_reg4_dinov2", dino, dinov2, 19)

    # MLPs with SwiGLU, in the names of files and in those of version 5
    sizes = {key: value for key, value in VIT.items() if key != "intermediate_size"} | dict(mlp_ratio=2)
    gated = Dinov2Config(**sizes, use_swiglu_ffn=True)
    transformers_model("hf-dinov2-swiglu", Dinov2Model(gated), all_tokens, 20)
    gated = Dinov2WithRegistersConfig(**sizes, use_swiglu_ffn=True, num_register_tokens=3)
    model = Dinov2WithRegistersModel(gated)
    transformers_model("hf-dinov2-swiglu-later", model, all_tokens, 21, state=lambda m: m.state_dict())
    # fc1 has twice the hidden values
    timm_model("timm-dinov2-swiglu", "vit_giant_patch14_dinov2", {**dino, "mlp_ratio": 3.0}, dinov2, 22)

    # rotary positions; heads of 8 values, so that pairs of neighbors and of halves are others
    dino = {**VIT, "num_attention_heads": 2, "layer_norm_eps": 1e-5}
    plain = DINOv3ViTConfig(**dino, num_register_tokens=2)
    transformers_model("hf-dinov3", DINOv3ViTModel(plain), all_tokens, 23)
    gated = {**dino, "intermediate_size": 24, "use_gated_mlp": True, "hidden_act": "silu", "rope_theta": 30.0}
    gated = DINOv3ViTConfig(**gated, query_bias=False, value_bias=False)
    transformers_model("hf-dinov3-swiglu-later", DINOv3ViTModel(gated), all_tokens, 24, state=lambda m: m.state_dict())
    dino = {**TIMM_VIT, "num_heads": 2, "num_classes": 0}
    timm_model("timm-dinov3", "vit_small_patch16_dinov3", dino, dinov2, 25)
    gated = {**dino, "mlp_ratio": 1.5}
    model = timm_model("timm-dinov3-swiglu", "vit_small_plus_patch16_dinov3_qkvb", gated, dinov2, 26)
    folder = FOLDER / "facebook-dinov3-swiglu"
    folder.mkdir(exist_ok=True)
    save_file(facebook_dinov3(model.state_dict()), folder / "model.safetensors")
    (folder / "expected.safetensors").write_bytes((FOLDER / "timm-dinov3-swiglu" / "expected.safetensors").read_bytes())

    dalle("dalle", 27, 4, 32, (32, 48))


if __name__ == "__main__":
    make()
