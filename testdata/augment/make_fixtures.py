"""Makes sheet.png and cases.json: what timm and Pillow do to a photograph, for tests of our augmentations.

    pip install --no-deps timm==0.4.12 pillow==9.5.0 numpy==2.4.6 torch==2.15.0
    python testdata/augment/make_fixtures.py

Of timm only three files are loaded, which need no more than these packages. Every random number is forced, so
the files are the same whenever they are made.

sheet.png holds all images one below the other, at the left; cases.json says where each is, as [top, height, width],
and what was done.
"""

import importlib.util
import json
import pathlib

import numpy as np
import PIL
import torch
from PIL import Image

HERE = pathlib.Path(__file__).parent
TIMM = pathlib.Path(importlib.util.find_spec("timm").origin).parent
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
MOVING = ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]
ENHANCING = ["ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"]
STEPPING = ["PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd"]
PLAIN = ["AutoContrast", "Equalize", "Invert"]


def timm_file(name):
    spec = importlib.util.spec_from_file_location(name, TIMM / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


auto_augment, random_erasing, mixup = map(timm_file, ["auto_augment", "random_erasing", "mixup"])


class Sheet:
    """Images one below the other."""

    def __init__(self):
        self.tiles, self.top = [], 0

    def add(self, image):
        place = [self.top, image.height, image.width]
        self.tiles.append((self.top, image))
        self.top += image.height
        return place

    def save(self, path):
        sheet = Image.new("RGB", (max(image.width for _, image in self.tiles), self.top))
        for top, image in self.tiles:
            sheet.paste(image.convert("RGB"), (0, top))
        sheet.save(path, optimize=True)


class Forced:
    """Stands in for the module `random`, with numbers that are given."""

    def __init__(self, places=(), sign=1):
        self.places, self.sign, self.drawn, self.greatest = places, sign, 0, []

    def random(self):
        return 0.1 if self.sign > 0 else 0.9

    def uniform(self, low, high):
        place = self.places[self.drawn % len(self.places)]
        self.drawn += 1
        return low + (high - low) * place

    def randint(self, low, high):
        self.greatest.append(high)
        return low


def operations(sheet):
    photograph = Image.open(HERE.parent / "images" / "others-buffetset.jpg").convert("RGB")
    color = photograph.resize((48, 36), Image.BOX)
    # channels of different ranges, none of them full
    pale = color.point([40 + i // 3 for i in range(256)] + [i // 2 for i in range(256)] + [90 + i // 4 for i in range(256)])
    gray = color.convert("L")
    tiny = color.crop((20, 10, 30, 18))
    cases = []

    def case(name, image, magnitude, sign, filter_name="bicubic"):
        auto_augment.random = Forced(sign=sign)
        fill = (124, 116, 104) if image.mode == "RGB" else 124
        hparams = {"img_mean": fill, "interpolation": FILTERS[filter_name]}
        changed = auto_augment.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=hparams)(image)
        cases.append({
            "name": name, "magnitude": magnitude, "sign": sign, "filter": filter_name,
            "channels": len(image.getbands()), "input": places[id(image)], "output": sheet.add(changed),
        })

    places = {id(image): sheet.add(image) for image in [color, pale, gray, tiny]}
    for image in [color, pale, tiny]:
        for name in PLAIN:
            case(name, image, 9.0, 1)
    for name in STEPPING:
        for magnitude in [0.0, 4.3, 9.0, 9.6, 10.0]:
            case(name, color, magnitude, 1)
    for name in ENHANCING:
        for magnitude, sign in [(0.0, 1), (2.3, -1), (9.4, 1), (10.0, -1)]:
            case(name, color, magnitude, sign)
    for name in MOVING:
        for filter_name in FILTERS:
            for magnitude, sign in [(0.0, 1), (3.1, -1), (9.0, 1)]:
                case(name, color, magnitude, sign, filter_name)
    for name in PLAIN + STEPPING + ENHANCING + MOVING:
        case(name, gray, 8.7, -1)
    return cases


def resizes(sheet):
    photograph = Image.open(HERE.parent / "images" / "tools-hammer5.jpg").convert("RGB")
    image = photograph.resize((120, 72), Image.BOX)
    whole = sheet.add(image)
    crops, centers = [], []
    for filter_name, pillow_filter in FILTERS.items():
        for [top, left, height, width], [to_height, to_width] in [
            ([0, 0, 72, 120], [32, 32]), ([7, 11, 50, 61], [40, 40]), ([20, 30, 13, 17], [32, 32]), ([0, 5, 32, 90], [32, 44]),
        ]:
            crop = image.crop((left, top, left + width, top + height)).resize((to_width, to_height), pillow_filter)
            crops.append({"input": whole, "box": [top, left, height, width], "filter": filter_name, "output": sheet.add(crop)})
    # torchvision's Resize and CenterCrop
    for side in [32, 48]:
        covered = int(256 / 224 * side)
        size = (int(covered * image.width / image.height), covered)
        top, left = int(round((size[1] - side) / 2.0)), int(round((size[0] - side) / 2.0))
        middle = image.resize(size, Image.BICUBIC).crop((left, top, left + side, top + side))
        centers.append({"input": whole, "output": sheet.add(middle)})
    return crops, centers


def erasings():
    cases = []
    for height, width in [(224, 224), (32, 32), (96, 160), (7, 5)]:
        for places in [(0.0, 0.0), (0.31, 0.62), (0.5, 0.5), (0.97, 0.08), (0.999, 0.999), (0.12, 0.93), (0.77, 0.4)]:
            random_erasing.random = forced = Forced(places)
            erase = random_erasing.RandomErasing(
                probability=0.25, min_area=0.02, max_area=1 / 3, min_aspect=0.3, mode="pixel", device="cpu")
            erase(torch.zeros(3, height, width))
            sides = [height - forced.greatest[0], width - forced.greatest[1]] if forced.greatest else None
            cases.append({"height": height, "width": width, "places": places, "sides": sides})
    return cases


def mixes():
    shape, labels, classes = [4, 2, 6, 5], [2, 0, 1, 1], 3
    images = torch.from_numpy(np.random.default_rng(1).normal(size=shape).astype(np.float32).round(3))
    cases = []
    for is_cut, share, middle in [
        (False, 0.3, None), (False, 0.917, None), (False, 1.0, None),
        (True, 0.5, [3, 2]), (True, 0.2, [0, 4]), (True, 0.85, [5, 0]), (True, 0.99, [3, 3]), (True, 0.0, [2, 2]),
    ]:
        uniform, middles = iter([0.0, 0.0 if is_cut else 0.9]), iter(middle or [])
        np.random.rand = lambda: next(uniform)
        np.random.beta = lambda *_: share
        np.random.randint = lambda low, high, size=None: next(middles)
        mix = mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=classes)
        # its own target function asks for CUDA; the images and the corrected share come from it
        mixed = images.clone()
        corrected = mix._mix_batch(mixed)
        target = mixup.mixup_target(torch.tensor(labels), classes, corrected, 0.1, device="cpu")
        cases.append({
            "share": share, "middle": middle, "mixed": mixed.flatten().tolist(), "targets": target.flatten().tolist(),
        })
    return {"shape": shape, "labels": labels, "classes": classes, "smoothing": 0.1,
            "images": images.flatten().tolist(), "cases": cases}


def main():
    sheet = Sheet()
    moved = operations(sheet)
    crops, centers = resizes(sheet)
    cases = {
        "made_with": {"timm": "0.4.12", "pillow": PIL.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "operations": moved, "crops": crops, "centers": centers, "erasings": erasings(), "mixes": mixes(),
    }
    sheet.save(HERE / "sheet.png")
    rows = json.dumps(cases).replace("{\"", "\n{\"")
    (HERE / "cases.json").write_text(rows.strip() + "\n")


main()
