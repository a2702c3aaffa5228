"""The models that `simmim bench` times, in plain PyTorch: ViT, Swin and SwinV2 with the head and the loss of SimMIM.

They compute what the official code computes (microsoft/SimMIM, microsoft/Swin-Transformer) and have as many parameters,
and are built from a recipe as `simmim inspect RECIPE --json` prints it. Attention is written out, or left to PyTorch's
`scaled_dot_product_attention` with the bias as its mask.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def attend(q, k, v, bias, scale, use_sdpa):
    """Softmax attention of `[B, A, N, E]` with an additive bias that broadcasts to `[B, A, N, N]`."""
    if use_sdpa:
        if bias is not None:
            bias = bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    scores = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v


class DropPath(nn.Module):
    """Drops a branch per image and rescales what stays."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if self.rate == 0.0 or not self.training:
            return x
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


def rates(rate, depth):
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


# ---------------------------------------------------------------- ViT


def vit_position_index(h, w):
    """Row of the bias table for each pair of tokens, class token first; its three rows come last."""
    rows = (2 * h - 1) * (2 * w - 1) + 3
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    y, x = y.flatten(), x.flatten()
    index = torch.empty(h * w + 1, h * w + 1, dtype=torch.long)
    index[1:, 1:] = (y[:, None] - y[None, :] + h - 1) * (2 * w - 1) + x[:, None] - x[None, :] + w - 1
    index[0, :] = rows - 3
    index[:, 0] = rows - 2
    index[0, 0] = rows - 1
    return index


class VitAttention(nn.Module):
    def __init__(self, config, own_table, grid, use_sdpa):
        super().__init__()
        width = config["width"]
        self.heads, self.use_sdpa = config["heads"], use_sdpa
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if config["qkv_bias"] else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if config["qkv_bias"] else None
        self.bias = VitPositionBias(grid, self.heads) if own_table else None
        self.proj = nn.Linear(width, width)

    def forward(self, x, shared_bias):
        b, n, d = x.shape
        bias = None
        if self.q_bias is not None:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        positions = shared_bias if self.bias is None else self.bias()
        out = attend(qkv[0], qkv[1], qkv[2], positions, (d // self.heads) ** -0.5, self.use_sdpa)
        return self.proj(out.transpose(1, 2).reshape(b, n, d))


class VitPositionBias(nn.Module):
    def __init__(self, grid, heads):
        super().__init__()
        index = vit_position_index(*grid)
        self.tokens = index.shape[0]
        self.table = nn.Parameter(torch.zeros(int(index.max()) + 1, heads))
        self.register_buffer("index", index.flatten(), persistent=False)

    def forward(self):
        bias = self.table[self.index].view(self.tokens, self.tokens, -1)
        return bias.permute(2, 0, 1).contiguous().unsqueeze(0)  # [1, A, N, N]


class VitBlock(nn.Module):
    def __init__(self, config, grid, drop, use_sdpa):
        super().__init__()
        width, scale = config["width"], config["layer_scale"]
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = VitAttention(config, config["position_bias"] == "per-block", grid, use_sdpa)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * config["mlp_ratio"]))
        self.gamma_1 = nn.Parameter(scale * torch.ones(width)) if scale > 0 else None
        self.gamma_2 = nn.Parameter(scale * torch.ones(width)) if scale > 0 else None
        self.drop_path = DropPath(drop)

    def forward(self, x, shared_bias):
        y = self.attn(self.norm1(x), shared_bias)
        x = x + self.drop_path(y if self.gamma_1 is None else self.gamma_1 * y)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path(y if self.gamma_2 is None else self.gamma_2 * y)


class Vit(nn.Module):
    def __init__(self, config, image, channels, use_sdpa):
        super().__init__()
        width, patch = config["width"], config["patch_px"]
        self.grid = (image[0] // patch, image[1] // patch)
        self.patch_px, self.stride, self.out_width = patch, patch, width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        tokens = self.grid[0] * self.grid[1] + 1
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width)) if config["absolute_positions"] else None
        self.patch_embed = nn.Conv2d(channels, width, patch, patch)
        self.shared = VitPositionBias(self.grid, config["heads"]) if config["position_bias"] == "shared" else None
        drops = rates(config["drop_path"], config["depth"])
        self.blocks = nn.ModuleList(VitBlock(config, self.grid, drop, use_sdpa) for drop in drops)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images, mask):
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        if mask is not None:
            hidden = mask.flatten(1).unsqueeze(-1).type_as(x)
            x = x * (1 - hidden) + self.mask_token * hidden
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).type_as(x), x), dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        bias = None if self.shared is None else self.shared()
        for block in self.blocks:
            x = block(x, bias)
        x = self.norm(x)[:, 1:]
        return x.transpose(1, 2).reshape(x.shape[0], -1, *self.grid)


# ---------------------------------------------------------------- Swin and SwinV2


def to_windows(x, m):
    """`[B, H, W, D]` to `[B·windows, M·M, D]`."""
    b, h, w, d = x.shape
    return x.view(b, h // m, m, w // m, m, d).transpose(2, 3).reshape(-1, m * m, d)


def from_windows(windows, m, h, w):
    """`[B·windows, M·M, D]` to `[B, H, W, D]`."""
    d = windows.shape[-1]
    return windows.view(-1, h // m, w // m, m, m, d).transpose(2, 3).reshape(-1, h, w, d)


def window_position_index(m):
    y, x = torch.meshgrid(torch.arange(m), torch.arange(m), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y[None, :] + m - 1) * (2 * m - 1) + x[:, None] - x[None, :] + m - 1


def shift_mask(h, w, m, shift):
    """−100 between tokens of a shifted window that are no neighbors in the image, `[windows, M², M²]`."""
    region = torch.zeros(1, h, w, 1)
    cuts = (slice(0, -m), slice(-m, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
        region[:, rows, columns] = number
    ids = to_windows(region, m).squeeze(-1)
    return (ids[:, None, :] != ids[:, :, None]).float() * -100.0


class WindowAttention(nn.Module):
    """Attention within windows, with a bias per offset: learned (Swin), or computed, and cosines (SwinV2)."""

    def __init__(self, width, heads, window, qkv_bias, version, pretrained_window, use_sdpa):
        super().__init__()
        self.heads, self.version, self.use_sdpa, self.window = heads, version, use_sdpa, window
        self.register_buffer("index", window_position_index(window).flatten(), persistent=False)
        self.proj = nn.Linear(width, width)
        if version == 1:
            self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
            self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
            return
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        axis = torch.arange(-(window - 1), window, dtype=torch.float32)
        axis = axis / max((pretrained_window or window) - 1, 1) * 8
        axis = torch.sign(axis) * torch.log2(axis.abs() + 1.0) / math.log2(8)
        offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).view(-1, 2)
        self.register_buffer("offsets", offsets, persistent=False)

    def position_bias(self):
        table = self.table if self.version == 1 else 16 * torch.sigmoid(self.cpb_mlp(self.offsets))
        tokens = self.window**2
        return table[self.index].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()  # [A, M, M]

    def forward(self, x, mask):
        b, n, d = x.shape
        if self.version == 1:
            qkv = self.qkv(x)
        else:
            bias = None
            if self.q_bias is not None:
                bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
            qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scale = (d // self.heads) ** -0.5
        if self.version == 2:
            factor = self.logit_scale.clamp(max=math.log(100.0)).exp()
            q, k, scale = F.normalize(q, dim=-1) * factor, F.normalize(k, dim=-1), 1.0
            q, k = q.to(v.dtype), k.to(v.dtype)
        positions = self.position_bias().unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            positions = positions + mask.unsqueeze(1)  # [windows, A, M, M]
            positions = positions.expand(b // count, -1, -1, -1, -1).reshape(b, self.heads, n, n)
        out = attend(q, k, v, positions, scale, self.use_sdpa)
        return self.proj(out.transpose(1, 2).reshape(b, n, d))


class SwinBlock(nn.Module):
    def __init__(self, config, stage, block, grid, drop, use_sdpa):
        super().__init__()
        width, version = config["width"] << stage, 2 if config["kind"] == "swinv2" else 1
        self.grid, self.version, self.window = grid, version, config["window"]
        self.shift = self.window // 2 if block % 2 else 0
        if min(grid) <= self.window:
            self.window, self.shift = min(grid), 0
        pretrained = (config.get("pretrained_window_size") or [0] * 8)[stage]
        heads = config["heads"][stage]
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, self.window, config["qkv_bias"], version, pretrained, use_sdpa)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * config["mlp_ratio"]))
        self.drop_path = DropPath(drop)
        mask = shift_mask(*grid, self.window, self.shift) if self.shift else None
        self.register_buffer("mask", mask, persistent=False)
        every = config.get("extra_norm_every", 0)
        self.norm3 = nn.LayerNorm(width) if every and (block + 1) % every == 0 else None

    def attention(self, x):
        (h, w), (b, n, d) = self.grid, x.shape
        x = x.view(b, h, w, d)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = from_windows(self.attn(to_windows(x, self.window), self.mask), self.window, h, w)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x.reshape(b, n, d)

    def forward(self, x):
        if self.version == 1:
            x = x + self.drop_path(self.attention(self.norm1(x)))
            return x + self.drop_path(self.mlp(self.norm2(x)))
        x = x + self.drop_path(self.norm1(self.attention(x)))
        x = x + self.drop_path(self.norm2(self.mlp(x)))
        return x if self.norm3 is None else self.norm3(x)


class PatchMerging(nn.Module):
    def __init__(self, grid, width, version):
        super().__init__()
        self.grid, self.version = grid, version
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width if version == 1 else 2 * width)

    def forward(self, x):
        (h, w), (b, _, d) = self.grid, x.shape
        x = x.view(b, h, w, d)
        corners = [x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        x = torch.cat(corners, dim=-1).view(b, -1, 4 * d)
        return self.reduction(self.norm(x)) if self.version == 1 else self.norm(self.reduction(x))


class Swin(nn.Module):
    def __init__(self, config, image, channels, use_sdpa):
        super().__init__()
        width, patch, depths = config["width"], config["patch_px"], config["depths"]
        version = 2 if config["kind"] == "swinv2" else 1
        grid = (image[0] // patch, image[1] // patch)
        self.patch_px, self.stride = patch, patch << (len(depths) - 1)
        self.out_width = width << (len(depths) - 1)
        self.out_grid = (image[0] // self.stride, image[1] // self.stride)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = nn.Conv2d(channels, width, patch, patch)
        self.patch_norm = nn.LayerNorm(width) if config["patch_norm"] else nn.Identity()
        tokens = grid[0] * grid[1]
        self.positions = nn.Parameter(torch.zeros(1, tokens, width)) if config["absolute_positions"] else None
        drops, layers = rates(config["drop_path"], sum(depths)), []
        for stage, depth in enumerate(depths):
            size = (grid[0] >> stage, grid[1] >> stage)
            layers += [SwinBlock(config, stage, i, size, drops.pop(0), use_sdpa) for i in range(depth)]
            if stage + 1 < len(depths):
                layers.append(PatchMerging(size, width << stage, version))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(self.out_width)

    def forward(self, images, mask):
        x = self.patch_norm(self.patch_embed(images).flatten(2).transpose(1, 2))
        if mask is not None:
            hidden = mask.flatten(1).unsqueeze(-1).type_as(x)
            x = x * (1 - hidden) + self.mask_token * hidden
        if self.positions is not None:
            x = x + self.positions
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return x.transpose(1, 2).reshape(x.shape[0], -1, *self.out_grid)


# ---------------------------------------------------------------- SimMIM


def window_means(x, side):
    """The mean of the window around each value, clipped at the borders: of rows, then of columns."""
    rows = F.avg_pool2d(x, (side, 1), stride=1, padding=(side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, side // 2), count_include_pad=False)


def inside_windows(image, side):
    """How many pixels of the image lie in the window around each."""
    along = [
        torch.tensor([min(i + side // 2, n - 1) - max(i - side // 2, 0) + 1 for i in range(n)], dtype=torch.float32)
        for n in image
    ]
    return along[0][:, None] * along[1][None, :]


def normalized_over_windows(x, side, inside):
    """Each value less the mean of the window around it, over the window's deviation."""
    mean = window_means(x, side)
    variance = (window_means(x * x, side) - mean * mean) * inside / (inside - 1)
    return (x - mean) / (variance.clamp(min=0) + 1e-6).sqrt()


class SimMim(nn.Module):
    """Encoder, one linear layer, pixel shuffle, masked L1."""

    def __init__(self, recipe, use_sdpa):
        super().__init__()
        data, config = recipe["data"], recipe["encoder"]
        size = data["image_size"]
        image = tuple(size) if isinstance(size, list) else (size, size)
        self.channels = data["channels"]
        self.encoder = (Vit if config["kind"] == "vit" else Swin)(config, image, self.channels, use_sdpa)
        outputs = self.encoder.stride**2 * self.channels
        self.decoder = nn.Sequential(nn.Conv2d(self.encoder.out_width, outputs, 1), nn.PixelShuffle(self.encoder.stride))
        self.window = recipe["target"].get("window_px") if recipe["target"]["kind"] == "normalized-pixels" else None
        inside = inside_windows(image, self.window) if self.window else None
        self.register_buffer("inside", inside, persistent=False)
        self.reset()

    def reset(self):
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.encoder.mask_token, std=0.02)

    def features(self, images):
        return self.encoder(images, None)

    def forward(self, images, mask):
        predicted = self.decoder(self.encoder(images, mask))
        if self.window is not None:
            images = normalized_over_windows(images, self.window, self.inside)
        patch = self.encoder.patch_px
        mask = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2).unsqueeze(1).to(images.dtype)
        loss = F.l1_loss(images, predicted, reduction="none")
        return (loss * mask).sum() / (mask.sum() + 1e-5) / self.channels
