"""Makes picture files of every kind and, with Pillow, their right pixels.

    pip install pillow==13.0.0 numpy imagecodecs tifffile     (DICOM: see make/dicom_files.py)
    apt-get install libjpeg-turbo-progs webp         (2.1.5 and 1.2.4 of Debian 12)
    python3 make.py [FORMAT...]

`make/FORMAT_files.py` says what the files of a format are, and how those are made that Pillow cannot write. They become the
members of `FORMAT.tar.gz`, `NAME.EXTENSION` each, with their pixels in `NAME.pixels`, row by row, words little endian.
The member `index.json` says what is right, by name:

- `height`, `width`, `channels`: of the pixels that Pillow gives after `ImageOps.exif_transpose` and `convert("RGB")`, or
  `convert("RGBA")` where the file has transparency;
- `depth`: 8, or 16 for gray of 16 bits, of which `convert` would keep the upper half, or 32 for floats, which it would cut;
- `tolerance`: how far a value may be off, 3 for lossy formats, 1 for colors of 5 bits and 16-bit values that are computed,
  and 0 for others;

Where Pillow is known to be wrong, the pixels are those that the file was made of, and its maker says so.

- `refused`: instead of all that, if the file is not to be read: by whom it is refused.
"""

import gzip
import importlib
import io
import json
import pathlib
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).parent / "make"))

import numpy
import PIL
from PIL import Image, ImageOps

FORMATS = {"jpeg": "jpg", "png": "png", "webp": "webp", "tiff": "tif", "gif": "gif", "bmp": "bmp", "dicom": "dcm"}
HERE = pathlib.Path(__file__).parent


def is_lossy(format, name, content):
    if format == "webp":
        return b"VP8 " in content
    return format == "jpeg" or "jpeg" in name


def pixels(content):
    """The right pixels as an array, and their depth."""
    image = Image.open(io.BytesIO(content))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return numpy.asarray(image).astype("<u2")[..., None], 16
    if image.mode == "F":
        return numpy.asarray(image).astype("<f4")[..., None], 32
    is_transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return numpy.asarray(image.convert("RGBA" if is_transparent else "RGB")), 8


def expected(format, name, content, known):
    if name.startswith("refused"):
        return {"refused": "by us"}, None
    try:
        array, depth = pixels(content) if known is None else known
    except Exception as error:
        return {"refused": f"by Pillow: {error}"}, None
    height, width, channels = array.shape
    right = {"height": height, "width": width, "channels": channels, "depth": depth}
    # 5 bits become 8 by rounding with us and by cutting with Pillow; what a window shows is rounded to 16 bits here
    is_rounded = format == "bmp" and name.startswith("rgb_16") or format == "dicom" and depth == 16
    tolerance = 3 if is_lossy(format, name, content) else 1 if is_rounded else 0
    return right | {"tolerance": tolerance}, array.tobytes()


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def make(format, extension):
    index, members = {}, []
    for name, content, *known in importlib.import_module(f"{format}_files").files():
        name = f"{name}.{extension}"
        assert name not in index, name
        index[name], right = expected(format, name, content, known[0] if known else None)
        members.append((name, content))
        if right is not None:
            members.append((f"{name.removesuffix('.' + extension)}.pixels", right))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        text = ",\n".join(f"{json.dumps(name)}: {json.dumps(right)}" for name, right in index.items())
        add(archive, "index.json", f"{{\n{text}\n}}\n".encode())
        for member in members:
            add(archive, *member)
    path = HERE / f"{format}.tar.gz"
    path.write_bytes(gzip.compress(buffer.getvalue(), 9, mtime=0))
    refused = [f"{name} ({right['refused']})" for name, right in index.items() if "refused" in right]
    print(f"{path.name}: {len(index)} files, {path.stat().st_size} bytes; not read: {', '.join(refused)}")


if __name__ == "__main__":
    assert PIL.__version__ == "13.0.0", PIL.__version__
    for format in sys.argv[1:] or FORMATS:
        make(format, FORMATS[format])
