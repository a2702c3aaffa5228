"""PNG files of every color type and depth, written here, since Pillow writes only some of them."""

import struct
import zlib

import numpy

from common import SIZES, exif, picture, saved

NAMES = {0: "gray", 2: "rgb", 3: "palette", 4: "gray_alpha", 6: "rgba"}
DEPTHS = {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed(row, depth):
    """The bytes of a row of values."""
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(numpy.uint8).tobytes()
    bits = "".join(format(value, f"0{depth}b") for value in row)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at:at + 8], 2) for at in range(0, len(bits), 8))


def filtered(rows, step, kind):
    """Applies filter `kind` to all rows, or each of the five in turn for `None`."""
    out, above = b"", bytes(len(rows[0]) if rows else 0)
    for number, row in enumerate(rows):
        which = number % 5 if kind is None else kind
        line = bytearray()
        for at, value in enumerate(row):
            left = row[at - step] if at >= step else 0
            up = above[at]
            corner = above[at - step] if at >= step else 0
            guess = left + up - corner
            distances = [abs(guess - left), abs(guess - up), abs(guess - corner)]
            paeth = [left, up, corner][distances.index(min(distances))]
            line.append((value - [0, left, up, (left + up) // 2, paeth][which]) % 256)
        out += bytes([which]) + line
        above = row
    return out


def png(values, color, depth, interlaced=False, before=(), filter=None, parts=1):
    """`values` is [H, W, C] with values of `depth` bits."""
    height, width = values.shape[:2]
    values = values.reshape(height, width, -1)
    step = max(1, CHANNELS[color] * depth // 8)
    data = b""
    for left, top, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = values[top::dy, left::dx]
        if part.size:
            data += filtered([packed(row.reshape(-1), depth) for row in part], step, filter)
    compressed = zlib.compress(data, 9)
    size = -(-len(compressed) // parts)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*extra) for extra in before)
    for at in range(0, len(compressed), size):
        content += chunk(b"IDAT", compressed[at:at + size])
    return content + chunk(b"IEND", b"")


def palette(colors):
    return b"PLTE", picture(colors, 1, 3, seed=9).tobytes()


def colors_of(array, depth):
    """Red, green and blue of 8 bits, or gray of 16."""
    height, width = array.shape[:2]
    array = array.reshape(height, width, -1)
    if depth == 16 and array.shape[2] == 1:
        return array.astype("<u2")
    array = array >> 8 if depth == 16 else array.astype(int) * 255 // ((1 << depth) - 1)
    return numpy.broadcast_to(array, (height, width, 3)).astype(numpy.uint8)


def values(width, height, color, depth, seed=0):
    array = picture(width, height, CHANNELS[color], seed, bits=max(depth, 8))
    return (array >> (8 - depth)) if depth < 8 else array


def files():
    number = 0
    for color, name in NAMES.items():
        for depth in DEPTHS[color]:
            for interlaced in [False, True]:
                number += 1
                width, height = SIZES[[0, 4, 9][number % 3]]
                array = values(width, height, color, depth, number)
                before = [palette(1 << depth)] if color == 3 else []
                kind = "_interlaced" if interlaced else ""
                yield f"{name}_{depth}{kind}", png(array, color, depth, interlaced, before)
                if color == 3:
                    alpha = (b"tRNS", bytes(range(0, 256, 37))[:1 << depth])
                    yield f"{name}_{depth}_transparent{kind}", png(array, color, depth, interlaced, before + [alpha])
                if color in (0, 2):
                    pixel = array.reshape(-1, CHANNELS[color])[3]
                    alpha = (b"tRNS", b"".join(struct.pack(">H", int(value)) for value in pixel))
                    content = png(array, color, depth, interlaced, [alpha])
                    # Pillow looks for the transparent value, which has the depth of the file, among values of 8 bits
                    known = [] if depth == 8 else [(colors_of(array, depth), 8 if color == 2 or depth < 16 else 16)]
                    yield f"{name}_{depth}_transparent{kind}", content, *known
    for width, height in SIZES[1:]:
        array = values(width, height, 2, 8, width)
        yield f"size_{width}x{height}", png(array, 2, 8)
        yield f"size_{width}x{height}_interlaced", png(array, 2, 8, True)
        yield f"size_{width}x{height}_gray_2_interlaced", png(values(width, height, 0, 2), 0, 2, True)
    array = values(17, 13, 2, 8, 40)
    for kind in range(5):
        yield f"filter_{kind}", png(array, 2, 8, filter=kind)
    yield "many_parts", png(array, 2, 8, parts=9)
    yield "palette_8_of_three_colors", png(values(17, 13, 3, 8) % 3, 3, 8, before=[palette(3)])
    yield "rgb_8_with_palette", png(array, 2, 8, before=[palette(5)])
    yield "gamma", png(array, 2, 8, before=[(b"gAMA", struct.pack(">I", 100000))])
    yield "srgb", png(array, 2, 8, before=[(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))])
    yield "profile", png(array, 2, 8, before=[(b"iCCP", b"name\0\0" + zlib.compress(b"not applied"))])
    for number in range(1, 9):
        yield f"orientation_{number}", png(array, 2, 8, before=[(b"eXIf", exif(number))])
    yield "orientation_6_gray_16", png(values(17, 13, 0, 16), 0, 16, before=[(b"eXIf", exif(6, ">"))])
    yield "trailer", png(array, 2, 8) + b"trailer"
    from PIL import Image
    frames = [Image.fromarray(values(17, 13, 6, 8, seed)) for seed in range(3)]
    yield "animated", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "animated_default_apart", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    whole = png(array, 2, 8)
    yield "refused_half", whole[:len(whole) // 2]
    yield "refused_wrong_checksum", whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]
    yield "refused_palette_missing", png(values(17, 13, 3, 8), 3, 8)
