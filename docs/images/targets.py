"""Draws targets.png: what short runs with each target predict of photographs that none of them saw.

    python docs/images/targets.py simmim 'cifar10-train-00000.tar' WORK testdata/images/*.jpg

`simmim` is the binary, the second argument training images for `pretrain --data`, WORK a folder for the runs. Nine runs
of 150 steps and one of a tokenizer, minutes in all on two cores. Needs Pillow.
"""

import pathlib
import subprocess
import sys

from PIL import Image, ImageDraw

BINARY, DATA, WORK, *PHOTOS = sys.argv[1:]
SMALL = [
    "encoder.width=128", "encoder.depth=4", "encoder.heads=4",
    "train.batch_size=64", "train.base_lr=8e-3", "train.max_steps=150", "train.checkpoint_every_steps=1000",
]
TARGETS = {
    "pixels": [],
    "pixels-16": ["target.resolution=16"],
    "window-norm": ["target.kind=normalized-pixels", "target.window_px=15"],
    "patch-norm": ["target.kind=normalized-pixels", "target.normalize=patch"],
    "bins-8": ["target.kind=color-bins"],
    "clusters": ["target.kind=color-clusters", "target.resolution=16"],
    "mean-color": ["target.kind=mean-color"],
    "tokens": ["target.kind=tokens", f"target.tokenizer={WORK}/tokenizer/tokenizer.safetensors"],
    "hog": ["target.kind=hog"],
}
TOKENIZER = ["train.batch_size=32", "train.max_steps=300", "train.checkpoint_every_steps=1000"]
# where `simmim reconstruct` draws its four tiles, and how large they are here
TILE, GUTTER, TOP, SHOWN = 160, 10, 36, 96
ORIGINAL, MASKED, PREDICTION, PASTED = range(4)


def tile(sheet, column):
    left = GUTTER + column * (TILE + GUTTER)
    return sheet.crop((left, TOP, left + TILE, TOP + TILE)).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)


def edited(edits):
    return [word for edit in edits for word in ("--set", edit)]


work = pathlib.Path(WORK)
if not (work / "tokenizer" / "tokenizer.safetensors").is_file():
    tokenizer = [BINARY, "tokenizer", "--recipe", "tokenizer-cifar", "--data", DATA, "--out", work / "tokenizer"]
    subprocess.run([*tokenizer, *edited(TOKENIZER)], check=True)
for name, edits in TARGETS.items():
    run = work / name
    sets = edited(SMALL + edits)
    if not (run / "checkpoints" / "step-150").is_dir():
        subprocess.run([BINARY, "pretrain", "--recipe", "pretrain-vit-cifar", "--data", DATA, "--out", run, *sets], check=True)
    subprocess.run([BINARY, "reconstruct", "--from", run, "--out", run / "shown", "--seed", "4", *PHOTOS], check=True)

step, caption = SHOWN + 6, 16
sheet = Image.new("RGB", (step * (len(TARGETS) + 2) + 6, caption + step * len(PHOTOS) + 6), "white")
draw = ImageDraw.Draw(sheet)
for column, name in enumerate(["original", "masked", *TARGETS]):
    draw.text((6 + step * column, 2), name, fill=(48, 48, 48))
for row, photo in enumerate(PHOTOS):
    for column, name in enumerate(TARGETS):
        shown = Image.open(work / name / "shown" / (pathlib.Path(photo).stem + ".png")).convert("RGB")
        at = lambda column: (6 + step * column, caption + step * row)
        if column == 0:
            sheet.paste(tile(shown, ORIGINAL), at(0))
            sheet.paste(tile(shown, MASKED), at(1))
        # a drawing cannot be pasted among pixels
        sheet.paste(tile(shown, PREDICTION if name == "hog" else PASTED), at(column + 2))
sheet.quantize(256).save(pathlib.Path(__file__).with_name("targets.png"), optimize=True)
