"""What the checks share: running the command, comparing arrays, small images, and models trained for a few steps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NEAR = 1e-4

# small models of every architecture for images of 32 pixels, as recipe and edits
VIT = ["encoder.width=32", "encoder.depth=2", "encoder.heads=4"]
# further options of the ViT
ALONE = ["encoder.position_bias=none"]
REGISTERS = ["encoder.registers=3"]
SWIGLU = ["encoder.mlp=swiglu", "encoder.mlp_ratio=1.5"]
ROTARY = ALONE + ["encoder.absolute_positions=false", "encoder.rotary_base=100", "encoder.norm_eps=1e-5"]
SWIN = ["encoder.width=16", "encoder.depths=[2, 2]", "encoder.heads=[2, 4]", "encoder.window=4"]
SWIN_PRETRAINING = SWIN + ["data.image_size=32", "mask.unit_px=8"]


def simmim(*arguments):
    command = [sys.executable, "-m", "simmim", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"simmim {' '.join(command[3:])}\n{ran.stderr}{ran.stdout}")


class Checks:
    """Comparisons, each of which is printed; `end` ends the script."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def near(self, what, found, expected):
        found, expected = numpy.asarray(found), numpy.asarray(expected)
        assert found.shape == expected.shape, (what, found.shape, expected.shape)
        off = float(numpy.abs(found - expected).max() / numpy.abs(expected).max())
        is_near = off <= NEAR  # false for NaN
        self.count += 1
        self.failed += not is_near
        print(f"{what:78} {'equal' if is_near else 'DIFFERS'}, by {off:.1e} of the largest value", flush=True)

    def end(self):
        print(f"{self.count} comparisons, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


def small_images(folder, count=8, size=(32, 32), channels=3):
    """Random pictures of two classes, in the order in which they are read; returns their pixels, `[B, H, W, C]`."""
    generator = numpy.random.default_rng(0)
    pixels = []
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            small = generator.integers(0, 256, (4, 4, channels), dtype=numpy.uint8)
            planes = [Image.fromarray(small[:, :, c]).resize(size[::-1], Image.BILINEAR) for c in range(channels)]
            picture = numpy.stack([numpy.asarray(plane) for plane in planes], axis=2)
            if channels == 3:
                Image.fromarray(picture).save(folder / label / f"{i}.png")
            else:
                numpy.save(folder / label / f"{i}.npy", picture)
            pixels.append(picture)
    return numpy.stack(pixels)


def trained(folder, recipe, edits, command="pretrain", start=None, steps=20, **images):
    """A run of some steps on small images; returns its folder and their pixels."""
    data, run = folder / "data", folder / command
    pixels = None if data.exists() else small_images(data, **images)
    edits = edits + ["train.batch_size=8", f"train.max_steps={steps}", "train.base_lr=0.05"]
    sets = [f"--set={edit}" for edit in edits]
    start = ["--from", start or "scratch"] if command == "finetune" else []
    simmim(command, *start, "--recipe", recipe, "--data", data, "--val", data, "--out", run, "--precision=f32", "--quiet", *sets)
    return run, pixels


def logged(run, key):
    """The last value of a key in the log of a run."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry[key] for entry in entries if key in entry][-1]
