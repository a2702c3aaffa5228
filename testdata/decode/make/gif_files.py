"""GIF files, written here with codes of constant width, so that any block, size and palette can be made."""

import struct

import numpy
from PIL import Image

from common import SIZES, picture, saved


def coded(indices, bits):
    """LZW without a dictionary: the table is cleared before it grows a code."""
    clear, out, filled, have = 1 << bits, bytearray(), 0, 0
    codes, pending = [clear], 0
    for index in indices:
        if pending == (1 << bits) - 2:
            codes.append(clear)
            pending = 0
        codes.append(int(index))
        pending += 1
    for code in codes + [clear + 1]:
        filled |= code << have
        have += bits + 1
        while have >= 8:
            out.append(filled & 255)
            filled >>= 8
            have -= 8
    out.append(filled & 255)
    blocks = b"".join(bytes([len(out[at:at + 255])]) + out[at:at + 255] for at in range(0, len(out), 255))
    return bytes([bits]) + blocks + b"\0"


def frame(indices, left=0, top=0, bits=8, colors=None, interlaced=False, transparent=None, disposal=0):
    height, width = indices.shape
    if interlaced:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
        indices = indices[order]
    flags = (0x40 if interlaced else 0) | (0x80 | (bits - 1) if colors is not None else 0)
    content = b""
    if transparent is not None or disposal:
        has = transparent is not None
        content += b"!\xf9\x04" + bytes([disposal << 2 | has, 10, 0, transparent or 0, 0])
    content += b"," + struct.pack("<HHHHB", left, top, width, height, flags)
    if colors is not None:
        content += colors.astype(numpy.uint8).tobytes()
    return content + coded(indices.reshape(-1), max(bits, 2))


def gif(width, height, frames, bits=8, colors=None, background=0, version=b"GIF89a"):
    flags = 0x80 | (bits - 1) if colors is not None else 0
    content = version + struct.pack("<HHBBB", width, height, flags | 0x70, background, 0)
    if colors is not None:
        content += colors.astype(numpy.uint8).tobytes()
    return content + b"".join(frames) + b";"


def indices(width, height, bits, seed=0):
    return picture(width, height, 1, seed) >> (8 - bits)


def palette(bits, seed=9):
    return picture(1 << bits, 1, 3, seed)[0]


def files():
    for bits in range(1, 9):
        colors = palette(bits)
        yield f"colors_{1 << bits}", gif(17, 13, [frame(indices(17, 13, bits), bits=bits)], bits, colors)
    for width, height in SIZES:
        array = indices(width, height, 8, seed=width)
        yield f"size_{width}x{height}", gif(width, height, [frame(array)], 8, palette(8))
        yield f"size_{width}x{height}_interlaced", gif(width, height, [frame(array, interlaced=True)], 8, palette(8))
    array, colors = indices(17, 13, 4), palette(4)
    clear = int(array[5, 5])
    yield "version_87", gif(17, 13, [frame(array, bits=4)], 4, colors, version=b"GIF87a")
    yield "transparent", gif(17, 13, [frame(array, bits=4, transparent=clear)], 4, colors)
    yield "transparent_interlaced", gif(17, 13, [frame(array, bits=4, transparent=clear, interlaced=True)], 4, colors)
    yield "local_palette", gif(17, 13, [frame(array, bits=4, colors=palette(4, 3))])
    yield "both_palettes", gif(17, 13, [frame(array, bits=4, colors=palette(4, 3))], 4, colors)
    yield "comment", gif(17, 13, [b"!\xfe\x05hello\0", frame(array, bits=4)], 4, colors)
    yield "trailer", gif(17, 13, [frame(array, bits=4)], 4, colors) + b"trailer"
    yield "no_end", gif(17, 13, [frame(array, bits=4)], 4, colors)[:-1]
    small = indices(9, 5, 4, 7)
    yield "small_frame", gif(17, 13, [frame(small, 4, 6, 4)], 4, colors, background=3)
    yield "small_frame_transparent", gif(17, 13, [frame(small, 4, 6, 4, transparent=2)], 4, colors, background=3)
    yield "small_frame_background_is_transparent", gif(17, 13, [frame(small, 4, 6, 4, transparent=3)], 4, colors, 3)
    yield "small_frame_local_palette", gif(17, 13, [frame(small, 4, 6, 4, palette(4, 3))], 4, colors, background=3)
    yield "wide_frame", gif(12, 10, [frame(array, bits=4)], 4, colors)
    yield "frame_beyond_screen", gif(12, 10, [frame(small, 8, 7, 4)], 4, colors)
    second = indices(17, 13, 4, 5)
    yield "animated", gif(17, 13, [frame(array, bits=4, disposal=1), frame(second, bits=4)], 4, colors)
    yield "animated_disposed", gif(17, 13, [frame(array, bits=4, disposal=2, transparent=2), frame(second, bits=4)], 4, colors)
    yield "pillow", saved(Image.fromarray(picture(33, 20)).quantize(200), "GIF")
    yield "pillow_gray", saved(picture(33, 20, 1), "GIF")
    frames = [Image.fromarray(picture(33, 20, seed=seed)).quantize(64) for seed in range(3)]
    yield "pillow_animated", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    whole = saved(picture(50, 41, 1), "GIF")
    yield "refused_half", whole[:len(whole) // 2]
    yield "refused_no_palette", gif(17, 13, [frame(array, bits=4)])
