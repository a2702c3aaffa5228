"""Times one way of running a training step, or a forward pass, in PyTorch; prints one JSON object.

Its own process, so that threads, caches and peak memory are those of one way alone.
"""

import argparse
import json
import math
import os
import statistics
import time

import torch

from models import SimMim

WARMUP = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True, help="JSON of a recipe, as `simmim inspect RECIPE --json` holds it")
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--way", choices=["eager", "sdpa", "compile", "compile-sdpa"], required=True)
    parser.add_argument("--what", choices=["step", "forward"], default="step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="cpu, cuda:N or mps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with open(options.recipe, encoding="utf-8") as file:
        recipe = json.load(file)
    result = measure(recipe, options)
    result["peak_rss_mb"] = peak_rss_mb()
    if options.device.startswith("cuda"):
        result["device_most_used_mb"] = torch.cuda.max_memory_allocated() / 2**20
    result["torch"] = torch.__version__
    print(json.dumps(result))


def measure(recipe, options):
    batch = recipe["train"]["batch_size"]
    device = torch.device(options.device)
    model = SimMim(recipe, use_sdpa="sdpa" in options.way).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    size = recipe["data"]["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    # they come from the host in every step, as those of a loader do
    images = torch.randn(batch, recipe["data"]["channels"], height, width)
    mask = draw_masks(recipe, batch, height, width)
    if device.type == "cuda":
        images, mask = images.pin_memory(), mask.pin_memory()
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16")
    is_compiled = options.way.startswith("compile")
    if options.what == "forward":
        model.eval()
        if is_compiled:
            # weights are constants, so that they are cast and laid out once
            from torch._inductor import config as inductor

            inductor.freezing = True
        features = torch.compile(model.features) if is_compiled else model.features

        def step():
            with torch.no_grad(), autocast:
                features(images.to(device, non_blocking=True)).flatten()[0].item()

        chosen = None
    else:
        loss_of = torch.compile(model) if is_compiled else model
        optimizer, chosen = fastest_optimizer(model, recipe["train"])
        clip = recipe["train"]["clip_grad"]

        def step():
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = loss_of(images.to(device, non_blocking=True), mask.to(device, non_blocking=True))
            loss.backward()
            if clip > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if not math.isfinite(loss.item()):
                raise SystemExit("the loss is not finite")

    for _ in range(WARMUP):
        step()
    times = []
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    median = statistics.median(times)
    return {
        "way": options.way,
        "precision": options.precision,
        "what": options.what,
        "parameters": parameters,
        "optimizer": chosen,
        "batch_size": batch,
        "ms": median,
        "ms_least": min(times),
        "ms_most": max(times),
        "images_per_second": batch / median * 1e3,
    }


def draw_masks(recipe, batch, height, width):
    """Random masks of the recipe's unit and ratio, one cell per patch, 1 = hidden."""
    unit, patch = recipe["mask"]["unit_px"], recipe["encoder"]["patch_px"]
    rows, columns = height // unit, width // unit
    count = math.ceil(rows * columns * recipe["mask"]["ratio"])
    mask = torch.zeros(batch, rows * columns, dtype=torch.long)
    for image in mask:
        image[torch.randperm(rows * columns)[:count]] = 1
    times = unit // patch
    return mask.view(batch, rows, columns).repeat_interleave(times, 1).repeat_interleave(times, 2)


def fastest_optimizer(model, train):
    """AdamW in the faster of its two implementations for this model, by three steps of each."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": train["weight_decay"]}, {"params": others, "weight_decay": 0.0}]

    def build(lr, **how):
        copies = [dict(group) for group in groups]
        return torch.optim.AdamW(copies, lr=lr, betas=tuple(train["betas"]), eps=train["eps"], **how)

    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ways = {"fused": {"fused": True}, "foreach": {"foreach": True}}
    seconds = {}
    for name, how in ways.items():
        optimizer, times = build(0.0, **how), []
        for _ in range(4):  # the first allocates
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
        seconds[name] = min(times[1:])
        del optimizer
    chosen = min(seconds, key=seconds.get)
    return build(1e-4, **ways[chosen]), chosen


def peak_rss_mb():
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        return None


if __name__ == "__main__":
    main()
