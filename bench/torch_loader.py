"""Times torchvision's ways of loading a folder of JPEG files, as `loader.py` asks for it. Prints images per second."""

import argparse
import time
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

# the pre-training transform of SimMIM (public repository, `data/data_simmim.py`)
SCALE, RATIO = (0.67, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SECONDS = 1.0


def pil(size):
    """The usual way: Pillow decodes and resizes."""
    transform = torchvision.transforms.Compose([
        torchvision.transforms.RandomResizedCrop(size, scale=SCALE, ratio=RATIO),
        torchvision.transforms.RandomHorizontalFlip(),
        torchvision.transforms.ToTensor(),
        torchvision.transforms.Normalize(MEAN, STD),
    ])
    return lambda path: transform(Image.open(path).convert("RGB"))


def tensor_transform(size):
    return v2.Compose([
        v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])


def tensor(size):
    """torchvision's own decoder (libjpeg-turbo), and transforms of tensors of bytes."""
    transform, mode = tensor_transform(size), torchvision.io.ImageReadMode.RGB
    return lambda path: transform(torchvision.io.decode_image(torchvision.io.read_file(path), mode=mode))


def turbojpeg(size):
    """libjpeg-turbo through PyTurboJPEG, and transforms of tensors of bytes."""
    from turbojpeg import TJPF_RGB, TurboJPEG

    transform, decoder = tensor_transform(size), TurboJPEG()

    def load(path):
        pixels = decoder.decode(Path(path).read_bytes(), pixel_format=TJPF_RGB)
        return transform(torch.from_numpy(pixels).permute(2, 0, 1))

    return load


class Images(Dataset):
    """JPEG files in a folder, repeated so that an epoch is long."""

    def __init__(self, folder, load, images):
        found = sorted(str(path) for path in Path(folder).rglob("*.jpg"))
        self.paths, self.load = found * -(-images // len(found)), load

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.load(self.paths[index])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = Images(options.folder, WAYS[options.way](options.size), 1_000_000)
    batches = iter(DataLoader(images, options.batch, shuffle=True, num_workers=options.workers, drop_last=True))
    next(batches)
    speeds = []
    for _ in range(options.rounds):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            count += len(next(batches))
        speeds.append(count / (time.perf_counter() - started))
    print(sorted(speeds)[len(speeds) // 2])


WAYS = {"pil": pil, "tensor": tensor, "turbojpeg": turbojpeg}

if __name__ == "__main__":
    main()
