"""What the makers of files share: pictures, external programs, EXIF."""

import os
import struct
import subprocess
import tempfile

import numpy
from PIL import Image

SIZES = [(17, 13), (1, 1), (7, 5), (8, 8), (9, 9), (16, 17), (15, 33), (31, 1), (1, 31), (33, 20), (40, 24), (50, 41), (3, 9), (4, 2)]


def picture(width, height, channels=3, seed=0, bits=8):
    """Gradients, an edge and some noise; every channel differs, so that exchanged channels and shifted rows show."""
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    random = numpy.random.default_rng([seed, width, height, channels])
    planes = []
    for channel in range(channels):
        angle = 0.7 + 1.9 * channel + seed
        plane = 0.5 + 0.45 * numpy.sin(angle + (x * (1 + channel) + y * (3 - channel)) / 7)
        plane[(x + 2 * y + 3 * channel) % 19 < 5] *= 0.3
        planes.append(plane + random.normal(0, 0.03, plane.shape))
    top = (1 << bits) - 1
    array = numpy.clip(numpy.stack(planes, -1) * top, 0, top).round().astype(numpy.uint16 if bits > 8 else numpy.uint8)
    return array[..., 0] if channels == 1 else array


def smooth(width, height, channels=3, seed=0):
    """Only gradients, as the colors of photographs are."""
    y, x = numpy.mgrid[0:height, 0:width].astype(float)
    planes = [0.5 + 0.4 * numpy.sin(c + seed + (x * (1 + c) + y * (2 - c)) / 15) for c in range(channels)]
    array = (numpy.stack(planes, -1) * 255).round().astype(numpy.uint8)
    return array[..., 0] if channels == 1 else array


def run(*command, stdin=None):
    """Returns what an external program writes to its standard output."""
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout


def through_files(command, content, suffix_in, suffix_out):
    """Runs a program that wants file names; `{in}` and `{out}` in the command stand for them."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "a" + suffix_in), os.path.join(folder, "b" + suffix_out)
        with open(source, "wb") as file:
            file.write(content)
        names = {"{in}": source, "{out}": target}
        subprocess.run([names.get(word, word) for word in command], check=True, stderr=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)
        with open(target, "rb") as file:
            return file.read()


def saved(image, format, **options):
    import io
    if isinstance(image, numpy.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def ppm(array):
    height, width = array.shape[:2]
    kind = b"P5" if array.ndim == 2 else b"P6"
    return kind + b" %d %d 255\n" % (width, height) + array.tobytes()


def exif(orientation, order="<", kind=3, tag=0x0112):
    """A TIFF header with one tag; kind 3 is a short, 4 a long."""
    mark = b"II" if order == "<" else b"MM"
    value = struct.pack(order + "HH", orientation, 0) if kind == 3 else struct.pack(order + "I", orientation)
    return mark + struct.pack(order + "HIHHHI", 42, 8, 1, tag, kind, 1) + value + struct.pack(order + "I", 0)
