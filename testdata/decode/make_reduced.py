"""Writes `reduced.json`: what Pillow's `draft` makes of the files in `jpeg.tar.gz` at 1/2, 1/4 and 1/8 of their size.

    pip install pillow==13.0.0
    python3 make_reduced.py

For each file and each divisor that `draft` takes for it: height and width after `ImageOps.exif_transpose`, and the CRC-32 of
the pixels of `convert("RGB")`, row by row.
"""

import io
import json
import pathlib
import tarfile
import zlib

import PIL
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent


def reduced(content, divisor):
    image = Image.open(io.BytesIO(content))
    width, height = image.size
    if min(width, height) < divisor:
        return None
    image.draft(None, (width // divisor, height // divisor))
    if image.size != (-(-width // divisor), -(-height // divisor)):
        return None
    image = ImageOps.exif_transpose(image).convert("RGB")
    return [image.height, image.width, zlib.crc32(image.tobytes())]


def main():
    assert PIL.__version__ == "13.0.0", PIL.__version__
    index = {}
    with tarfile.open(HERE / "jpeg.tar.gz") as archive:
        right = json.load(archive.extractfile("index.json"))
        for name in right:
            if "refused" not in right[name]:
                content = archive.extractfile(name).read()
                found = {str(divisor): reduced(content, divisor) for divisor in (2, 4, 8)}
                index[name] = {divisor: pixels for divisor, pixels in found.items() if pixels}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(pixels)}" for name, pixels in index.items() if pixels)
    (HERE / "reduced.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
