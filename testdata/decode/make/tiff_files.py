"""TIFF files, by tifffile with imagecodecs, and by Pillow's libtiff for the codings of fax machines."""

import io
import struct

import imagecodecs
import numpy
import tifffile
from PIL import Image

from common import picture, saved, smooth

CODECS = {"plain": None, "lzw": "lzw", "deflate": "adobe_deflate", "packbits": "packbits"}


def tiff(array, **options):
    buffer = io.BytesIO()
    order = options.pop("order", "<")
    big = options.pop("big", False)
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        writer.write(array, metadata=None, software=False, **options)
    return buffer.getvalue()


def files():
    gray, color, four = picture(17, 13, 1, 1), picture(17, 13, 3, 2), picture(17, 13, 4, 3)
    gray16, color16 = picture(17, 13, 1, 1, bits=16), picture(17, 13, 3, 2, bits=16)
    four16 = picture(17, 13, 4, 3, bits=16)
    wide, wide16 = picture(40, 33, 3, 4), picture(40, 33, 1, 4, bits=16)
    arrays = {
        "gray_8": (gray, {"photometric": "minisblack"}), "gray_16": (gray16, {"photometric": "minisblack"}),
        "rgb_8": (color, {"photometric": "rgb"}), "rgb_16": (color16, {"photometric": "rgb"}),
        "rgba_8": (four, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "rgba_16": (four16, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    }
    for name, (array, options) in arrays.items():
        for codec, compression in CODECS.items():
            yield f"{name}_{codec}", tiff(array, compression=compression, rowsperstrip=5, **options)
            if codec in ("lzw", "deflate"):
                yield f"{name}_{codec}_predictor", tiff(array, compression=compression, predictor=True, **options)
        yield f"{name}_big_endian", tiff(array, order=">", **options)
        yield f"{name}_big_endian_lzw_predictor", tiff(array, order=">", compression="lzw", predictor=True, **options)
        yield f"{name}_tiles", tiff(array, tile=(16, 16), **options)
        yield f"{name}_tiles_lzw", tiff(array, tile=(16, 32), compression="lzw", predictor=True, **options)
        yield f"{name}_large_file_format", tiff(array, big=True, **options)
        if array.ndim == 3:
            planes = numpy.ascontiguousarray(numpy.moveaxis(array, -1, 0))
            content = tiff(planes, planarconfig="separate", rowsperstrip=4, **options)
            # Pillow takes the bytes of 16-bit planes apart in a wrong way
            known = [((array >> 8).astype(numpy.uint8), 8)] if name.endswith("16") else []
            yield f"{name}_planes", content, *known
            yield f"{name}_planes_lzw", tiff(planes, planarconfig="separate", compression="lzw", **options)
            yield f"refused_{name}_planes_tiles", tiff(planes, planarconfig="separate", tile=(16, 16), **options)
    yield "rgb_8_many_tiles", tiff(wide, photometric="rgb", tile=(16, 16), compression="adobe_deflate", predictor=True)
    yield "gray_16_many_tiles", tiff(wide16, photometric="minisblack", tile=(16, 16), compression="lzw")
    yield "gray_8_white_is_zero", tiff(gray, photometric="miniswhite")
    # Pillow does not invert 16 bits
    yield "gray_16_white_is_zero", tiff(gray16, photometric="miniswhite"), ((65535 - gray16).astype("<u2")[..., None], 16)
    yield "rgba_8_premultiplied", tiff(four, photometric="rgb", extrasamples=["assocalpha"])
    yield "rgb_8_unnamed_extra", tiff(four, photometric="rgb", extrasamples=["unspecified"])
    yield "gray_alpha_8", tiff(picture(17, 13, 2, 5), photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig")
    colors = (picture(256, 1, 3, 6)[0].T.astype(numpy.uint16) * 257)
    yield "palette_8", tiff(gray, photometric="palette", colormap=colors)
    yield "palette_8_lzw", tiff(gray, photometric="palette", colormap=colors, compression="lzw")
    yield "palette_8_tiles", tiff(gray, photometric="palette", colormap=colors, tile=(16, 16))
    yield "cmyk_8", tiff(four, photometric="separated")
    yield "cmyk_8_lzw", tiff(four, photometric="separated", compression="lzw")
    yield "gray_float_32", tiff((gray / 255).astype(numpy.float32), photometric="minisblack")
    yield "gray_float_32_deflate_predictor", tiff((gray / 255).astype(numpy.float32), photometric="minisblack",
                                                  compression="adobe_deflate", predictor=3)
    yield "refused_gray_32", tiff(gray.astype(numpy.uint32), photometric="minisblack")
    yield "refused_gray_32_signed", tiff(gray16.astype(numpy.int32), photometric="minisblack")
    yield "refused_gray_16_float", tiff(gray16.astype(numpy.float16), photometric="minisblack")
    yield from bands()
    yield "pages", tiff(numpy.stack([color, color[::-1]]), photometric="rgb")
    for number in range(1, 9):
        yield f"orientation_{number}", tiff(color, photometric="rgb", extratags=[(274, 3, 1, number, True)])
    for codec in ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "group3", "group4", "tiff_ccitt"]:
        bilevel = Image.fromarray(picture(50, 41, 1, 8)).convert("1")
        yield f"{'refused_' * (codec in ('group3', 'tiff_ccitt'))}pillow_1_{codec}", saved(bilevel, "TIFF", compression=codec)
    yield from jpegs()
    for codec in ["raw", "tiff_lzw", "jpeg", "zstd", "lzma", "tiff_deflate"]:
        refused = "refused_" * (codec == "lzma")
        yield f"{refused}pillow_rgb_{codec}", saved(picture(50, 41, 3, 8), "TIFF", compression=codec)
        yield f"{refused}pillow_gray_{codec}", saved(picture(50, 41, 1, 8), "TIFF", compression=codec)
    for bits in (1, 2, 4):
        yield f"gray_{bits}_by_hand", by_hand(picture(17, 13, 1, bits) >> (8 - bits), bits, 1)
        yield f"gray_{bits}_white_is_zero_by_hand", by_hand(picture(17, 13, 1, bits) >> (8 - bits), bits, 0)
        yield f"palette_{bits}_by_hand", by_hand(picture(17, 13, 1, bits) >> (8 - bits), bits, 3)
    yield "refused_gray_12_by_hand", by_hand(picture(18, 13, 1, 2, bits=12), 12, 1)
    whole = tiff(wide, photometric="rgb")
    yield "refused_half", whole[:len(whole) // 2]
    yield "refused_cut_lzw", tiff(wide, photometric="rgb", compression="lzw")[:-900]


def jpegs():
    """JPEG within TIFF. Unless said otherwise, tifffile stores brightness and differences, with JFIF's segment."""
    color, gray, four = smooth(50, 41, 3, 1), smooth(50, 41, 1, 2), smooth(50, 41, 4, 3)
    as_they_are = {"colorspace": "RGB", "outcolorspace": "RGB"}
    for name, options in {
        "strip": {}, "strips": {"rowsperstrip": 16}, "tiles": {"tile": (16, 32)}, "large_tiles": {"tile": (64, 64)},
        "big_endian": {"order": ">", "tile": (16, 16)}, "large_file_format": {"big": True, "tile": (32, 32)},
        "orientation_6": {"extratags": [(274, 3, 1, 6, True)], "rowsperstrip": 16},
    }.items():
        yield f"jpeg_{name}", tiff(color, photometric="rgb", compression="jpeg", **options)
        yield f"jpeg_gray_{name}", tiff(gray, photometric="minisblack", compression="jpeg", **options)
    for subsampling in ("444", "422", "420"):
        for quality in (50, 95):
            yield f"jpeg_{subsampling}_{quality}", tiff(
                color, photometric="rgb", compression="jpeg", compressionargs={"level": quality}, tile=(32, 32),
                subsampling={"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling])
    yield "jpeg_colors_as_they_are", tiff(color, photometric="rgb", compression="jpeg", compressionargs=as_they_are,
                                          tile=(32, 32), subsampling=(1, 1))
    # with JFIF's segment, which says otherwise than the file around it
    encoded = imagecodecs.jpeg8_encode(color, level=95, subsampling="444", colorspace="RGB", outcolorspace="RGB")
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    yield "jpeg_colors_as_they_are_jfif", tiff(
        iter([encoded[:2] + jfif + encoded[2:]]), shape=color.shape, dtype=color.dtype, photometric="rgb",
        compression="jpeg", rowsperstrip=41, compressionargs={"colorspace": "RGB", "outcolorspace": "RGB"})
    yield "jpeg_white_is_zero", tiff(gray, photometric="miniswhite", compression="jpeg", rowsperstrip=24)
    yield "jpeg_inks", tiff(four, photometric="separated", compression="jpeg", tile=(32, 32))
    whole = tiff(color, photometric="rgb", compression="jpeg", rowsperstrip=16)
    yield "refused_jpeg_cut", whole[:-300]
    yield "refused_jpeg_12_bits", tiff(smooth(50, 41).astype(numpy.uint16) * 16, photometric="minisblack", compression="jpeg",
                                       bitspersample=12, planarconfig="contig")


# What GDAL adds to a file: the size of a pixel, where a point of the picture lies, the coordinate system, and the value that
# stands for nothing, which is read as it is.
GEO_TAGS = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 4e5, 5e6, 0.0), True),
            (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1), True), (42113, 2, 6, "-9999", True)]


def bands():
    """Pictures of the earth: any number of bands in any type. Pillow reads none of them, so tifffile says what is right."""
    for count in (5, 8, 13):
        words = picture(19, 17, count, count, bits=16)
        signed = (words.astype(int) - 32768).astype("<i2")
        floats = (words / numpy.float32(1000)).astype("<f4")
        for name, array in {"8": picture(19, 17, count, count), "16": words, "signed_16": signed, "float": floats,
                            "double": floats.astype("<f8")}.items():
            predictor = 3 if array.dtype.kind == "f" else 2
            kinds = {
                "plain": {}, "tiles": {"tile": (16, 16)}, "large_file_format": {"big": True}, "big_endian": {"order": ">"},
                "geographic": {"extratags": GEO_TAGS, "tile": (16, 16), "compression": "adobe_deflate", "predictor": predictor},
                "zstd": {"compression": "zstd", "rowsperstrip": 7},
                "zstd_predictor_tiles": {"compression": "zstd", "predictor": predictor, "tile": (16, 32)},
                "lzw_predictor": {"compression": "lzw", "predictor": predictor, "rowsperstrip": 5},
                "deflate_predictor": {"compression": "adobe_deflate", "predictor": predictor, "rowsperstrip": 5},
                "deflate_planes": {"compression": "adobe_deflate", "predictor": predictor, "planarconfig": "separate"},
                "planes": {"planarconfig": "separate", "rowsperstrip": 4},
                "planes_tiles": {"planarconfig": "separate", "tile": (16, 16)},
            }
            for kind, options in kinds.items():
                if count != 5 and (name not in ("16", "float") or kind not in ("geographic", "zstd", "deflate_planes")):
                    continue
                stored = numpy.moveaxis(array, -1, 0).copy() if "planarconfig" in options else array
                options = {"planarconfig": "contig", **options}
                content = tiff(stored, photometric="minisblack", **options)
                refused = "refused_" * (kind == "planes_tiles")
                yield f"{refused}bands_{count}_{name}_{kind}", content, of_bands(content)
    four = picture(17, 13, 4, 3)
    content = tiff(four, photometric="rgb", extrasamples=["unspecified"], extratags=GEO_TAGS)
    yield "bands_rgb_and_infrared", content, (four, 8)
    six = picture(17, 13, 6, 3, bits=16)
    content = tiff(six, photometric="rgb", extrasamples=["unspecified"] * 3)
    yield "bands_rgb_and_three", content, (six.astype("<u2"), 16)


def of_bands(content):
    array = tifffile.imread(io.BytesIO(content))
    if array.shape[-1] not in (5, 8, 13):
        array = numpy.moveaxis(array, 0, -1)
    if array.dtype == numpy.int16:
        array = array / numpy.float32(32768)
    if array.dtype.kind == "f":
        return array.astype("<f4"), 32
    return (array, 8) if array.dtype == numpy.uint8 else (array.astype("<u2"), 16)


def by_hand(array, bits, photometric):
    """One strip of values of any number of bits."""
    height, width = array.shape
    data = b""
    for row in array:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        data += bytes(int(text[at:at + 8], 2) for at in range(0, len(text), 8))
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric),
            (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, len(data))]
    data += bytes(len(data) % 2)
    if photometric == 3:
        tags.append((320, 3, 3 << bits, 8 + len(data)))
        data += (picture(1 << bits, 1, 3, 6)[0].T.astype("<u2") * 257).tobytes()
    content = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    return content + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
