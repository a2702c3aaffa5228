"""BMP files of every depth, header and compression, written here."""

import struct

import numpy

from common import SIZES, exif, picture, saved


def padded(row):
    return row + bytes(-len(row) % 4)


def bmp(rows, width, height, bits, colors=None, compression=0, masks=b"", header=40, top_down=False, extra=b""):
    """`rows` are the bytes of the pixel data, bottom row first."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
        table = b"" if colors is None else colors[:, ::-1].tobytes()
    else:
        used = 0 if colors is None else len(colors)
        info = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, compression,
                           len(rows), 2835, 2835, used, 0)
        if header > 40:
            info += masks + extra
            info += bytes(header - len(info))
            masks = b""
        table = masks + (b"" if colors is None else numpy.hstack(
            [colors[:, ::-1], numpy.zeros((len(colors), 1), numpy.uint8)]).astype(numpy.uint8).tobytes())
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + table + rows


def indexed(array, bits):
    lines = []
    for row in array:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines.append(padded(bytes(int(text[at:at + 8], 2) for at in range(0, len(text), 8))))
    return lines


def sixteen(array, shifts):
    values = sum((array[..., c].astype(int) >> (8 - size)) << shift for c, (shift, size) in enumerate(shifts))
    return [padded(row.astype("<u2").tobytes()) for row in values]


def rle8(array):
    out = b""
    for row in array[::-1]:
        at = 0
        while at < len(row):
            end = at
            while end < len(row) and row[end] == row[at] and end - at < 255:
                end += 1
            if end - at >= 2 or len(row) - at < 3:
                out += bytes([end - at, int(row[at])])
                at = end
            else:
                part = row[at:at + 5]
                if len(part) < 3:
                    out += b"".join(bytes([1, int(value)]) for value in part)
                else:
                    out += bytes([0, len(part)]) + part.astype(numpy.uint8).tobytes() + bytes(len(part) % 2)
                at += len(part)
        out += b"\0\0"
    return out[:-2] + b"\0\x01"


def rle4(array):
    out = b""
    for row in array[::-1]:
        for at in range(0, len(row), 2):
            pair = [int(row[at]), int(row[at + 1]) if at + 1 < len(row) else 0]
            out += bytes([min(2, len(row) - at), pair[0] << 4 | pair[1]])
        out += b"\0\0"
    return out[:-2] + b"\0\x01"


def files():
    colors = {bits: picture(1 << bits, 1, 3, seed=bits)[0] for bits in (1, 4, 8)}
    for number, (width, height) in enumerate(SIZES):
        size = f"{width}x{height}"
        for bits in (1, 4, 8):
            lines = indexed(picture(width, height, 1, number) >> (8 - bits), bits)
            yield f"indexed_{bits}_{size}", bmp(b"".join(lines[::-1]), width, height, bits, colors[bits])
        color = picture(width, height, 3, number)
        lines = [padded(row[:, ::-1].tobytes()) for row in color]
        yield f"rgb_24_{size}", bmp(b"".join(lines[::-1]), width, height, 24)
    width, height = 17, 13
    color, alpha = picture(width, height, 3, 2), picture(width, height, 1, 3)
    lines = [padded(row[:, ::-1].tobytes()) for row in color]
    yield "rgb_24_top_down", bmp(b"".join(lines), width, height, 24, top_down=True)
    yield "rgb_24_old_header", bmp(b"".join(lines[::-1]), width, height, 24, header=12)
    yield "rgb_24_header_108", bmp(b"".join(lines[::-1]), width, height, 24, header=108)
    yield "rgb_24_header_124", bmp(b"".join(lines[::-1]), width, height, 24, header=124)
    for bits in (1, 4, 8):
        array = picture(width, height, 1, 4) >> (8 - bits)
        rows = b"".join(indexed(array, bits)[::-1])
        yield f"indexed_{bits}_old_header", bmp(rows, width, height, bits, colors[bits], header=12)
    yield "indexed_8_of_ten_colors", bmp(b"".join(indexed(array % 10, 8)[::-1]), width, height, 8, colors[8][:10])
    yield "indexed_8_top_down", bmp(b"".join(indexed(array, 8)), width, height, 8, colors[8], top_down=True)
    few = (picture(width, height, 1, 5) >> 6) << 4
    yield "rle8", bmp(rle8(few), width, height, 8, colors[8], 1)
    yield "rle8_noise", bmp(rle8(array), width, height, 8, colors[8], 1)
    yield "rle8_jump", bmp(b"\x05\x07\0\x02\x03\x02\x04\x09\0\x01", width, height, 8, colors[8], 1)
    yield "rle4", bmp(rle4(picture(width, height, 1, 4) >> 4), width, height, 4, colors[4], 2)
    fives, six = [(10, 5), (5, 5), (0, 5)], [(11, 5), (5, 6), (0, 5)]
    yield "rgb_16", bmp(b"".join(sixteen(color, fives)[::-1]), width, height, 16)
    masks = struct.pack("<III", 0x7C00, 0x3E0, 0x1F)
    yield "rgb_16_masks_555", bmp(b"".join(sixteen(color, fives)[::-1]), width, height, 16, None, 3, masks)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    yield "rgb_16_masks_565", bmp(b"".join(sixteen(color, six)[::-1]), width, height, 16, None, 3, masks)
    four = numpy.dstack([color[..., ::-1], alpha])
    rows = b"".join(row.tobytes() for row in four[::-1])
    yield "rgb_32", bmp(rows, width, height, 32)
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    yield "rgb_32_masks", bmp(rows, width, height, 32, None, 3, masks)
    yield "rgba_32_header_108", bmp(rows, width, height, 32, None, 3, masks + struct.pack("<I", 0xFF000000), header=108)
    yield "rgba_32_header_124", bmp(rows, width, height, 32, None, 3, masks + struct.pack("<I", 0xFF000000), header=124)
    swapped = numpy.dstack([color, alpha])
    masks = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
    yield "rgb_32_masks_swapped", bmp(b"".join(row.tobytes() for row in swapped[::-1]), width, height, 32, None, 3, masks)
    yield "pillow_1", saved(__import__("PIL.Image").Image.fromarray(alpha).convert("1"), "BMP")
    yield "pillow_gray", saved(alpha, "BMP")
    yield "pillow_rgba", saved(numpy.dstack([color, alpha]), "BMP")
    whole = bmp(b"".join(lines[::-1]), width, height, 24)
    yield "trailer", whole + b"trailer"
    yield "refused_half", whole[:len(whole) // 2]
