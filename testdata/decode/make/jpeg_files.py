"""JPEG files: cjpeg and jpegtran (libjpeg-turbo 2.1.5) write what Pillow cannot; markers are edited by hand."""

import os
import struct
import tempfile

import imagecodecs
import numpy

from common import SIZES, exif, picture, ppm, run, saved, smooth

SAMPLINGS = {
    "444": "1x1", "422": "2x1", "440": "1x2", "420": "2x2", "411": "4x1", "410": "4x2", "441": "1x4",
    "mixed_2x2_1x2_1x1": "2x2,1x2,1x1", "mixed_2x2_2x1_1x2": "2x2,2x1,1x2", "blue_full_2x1_2x1_1x1": "2x1,2x1,1x1",
    "luma_low_1x1_2x2_2x2": "1x1,2x2,2x2", "all_2x1": "2x1,2x1,2x1",
}
SCANS = {
    "separate": "0;1;2;", "separate_chroma_first": "2;1;0;", "chroma_together": "0;1,2;",
    "luma_last": "1,2;0;",
}
PROGRESSIVE_SCANS = {
    "spectral": "0,1,2:0-0,0,0;0:1-63,0,0;1:1-63,0,0;2:1-63,0,0;",
    "dc_separate": "0:0-0,0,0;2:0-0,0,0;1:0-0,0,0;2:1-63,0,0;1:1-63,0,0;0:1-5,0,2;0:6-63,0,2;0:1-63,2,1;0:1-63,1,0;",
    "dc_refined": "0,1,2:0-0,0,1;1:1-63,0,0;0,1,2:0-0,1,0;2:1-63,0,0;0:1-63,0,0;",
}


def cjpeg(array, *options, scans=None):
    if scans is None:
        return run("cjpeg", *options, stdin=ppm(array))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "scans")
        with open(path, "w") as file:
            file.write(scans)
        return run("cjpeg", *options, "-scans", path, stdin=ppm(array))


def segments(content):
    """Splits a JPEG into its markers with their content; the last one holds everything from the first scan on."""
    parts, at = [], 2
    while True:
        kind, length = content[at + 1], struct.unpack(">H", content[at + 2:at + 4])[0]
        if kind == 0xDA:
            return parts + [(kind, content[at:])]
        parts.append((kind, content[at:at + 2 + length]))
        at += 2 + length


def joined(parts):
    return b"\xff\xd8" + b"".join(content for _, content in parts)


def segment(kind, content):
    return kind, bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def without(content, *kinds):
    return joined([part for part in segments(content) if part[0] not in kinds])


def with_first(content, *added):
    return joined(list(added) + segments(content))


def adobe(transform):
    return segment(0xEE, b"Adobe\0d\0\0\0\0" + bytes([transform]))


def renamed(content, names):
    """Gives the components other numbers."""
    parts, old = [], None
    for kind, part in segments(content):
        part = bytearray(part)
        if kind in (0xC0, 0xC1, 0xC2):
            old = [part[10 + 3 * index] for index in range(part[9])]
            for index in range(part[9]):
                part[10 + 3 * index] = names[index]
        if kind == 0xDA:
            for index in range(part[4]):
                part[5 + 2 * index] = names[old.index(part[5 + 2 * index])]
        parts.append((kind, bytes(part)))
    return joined(parts)


def xmp(orientation):
    text = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>')
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + (text % orientation).encode())


def orientations(base):
    for number in range(0, 10):
        yield f"orientation_{number}", with_first(base, segment(0xE1, b"Exif\0\0" + exif(number)))
    yield "orientation_6_big_endian", with_first(base, segment(0xE1, b"Exif\0\0" + exif(6, ">")))
    yield "orientation_5_long", with_first(base, segment(0xE1, b"Exif\0\0" + exif(5, ">", 4)))
    yield "orientation_8_after_tables", joined(segments(base)[:2] + [segment(0xE1, b"Exif\0\0" + exif(8))] + segments(base)[2:])
    yield "orientation_other_tag", with_first(base, segment(0xE1, b"Exif\0\0" + exif(6, tag=0x0113)))
    yield "orientation_cut_short", with_first(base, segment(0xE1, b"Exif\0\0" + exif(6)[:12]))
    yield "orientation_of_xmp", with_first(base, xmp(6))
    yield "orientation_of_exif_before_xmp", with_first(base, xmp(6), segment(0xE1, b"Exif\0\0" + exif(3)))


def files():
    """Yields the name and the content of each file."""
    for number, (name, sample) in enumerate(SAMPLINGS.items()):
        width, height = SIZES[[0, 9, 10, 11, 6, 5][number % 6]]
        array = picture(width, height, seed=number)
        options = ["-quality", "90", "-sample", sample]
        yield f"{name}_baseline", cjpeg(array, *options)
        yield f"{name}_optimized", cjpeg(array, *options, "-optimize")
        yield f"{name}_progressive", cjpeg(array, *options, "-progressive")
        yield f"{name}_restart_rows", cjpeg(array, *options, "-restart", "1")
        yield f"{name}_restart_blocks", cjpeg(array, *options, "-restart", "2B")
        for order, scans in SCANS.items():
            yield f"{name}_{order}", cjpeg(array, *options, scans=scans)
        for order, scans in PROGRESSIVE_SCANS.items():
            yield f"{name}_progressive_{order}", cjpeg(array, *options, scans=scans)
        yield f"{name}_separate_restart", cjpeg(array, *options, "-restart", "3B", scans="1;0;2;")
        yield f"{name}_progressive_restart", cjpeg(array, *options, "-progressive", "-restart", "2B")
    for number, (width, height) in enumerate(SIZES):
        array = picture(width, height, seed=20 + number)
        size = f"{width}x{height}"
        for name in ["420", "422", "440"]:
            options = ["-quality", "85", "-sample", SAMPLINGS[name]]
            yield f"size_{size}_{name}", cjpeg(array, *options)
            yield f"size_{size}_{name}_progressive", cjpeg(array, *options, "-progressive")
            yield f"size_{size}_{name}_separate", cjpeg(array, *options, scans="0;1;2;")
        yield f"size_{size}_411", cjpeg(array, "-sample", "4x1")
        yield f"size_{size}_gray", cjpeg(array[..., 0], "-grayscale")
    for quality in [1, 5, 30, 100]:
        # tables below quality 25 have values over 255, so that the process is extended sequential
        yield f"quality_{quality}", cjpeg(picture(33, 20, seed=quality), "-quality", str(quality))
        yield f"quality_{quality}_smooth", cjpeg(smooth(50, 41, seed=quality), "-quality", str(quality))
    gray = picture(33, 20, 1, seed=3)
    yield "gray_baseline", cjpeg(gray)
    yield "gray_progressive", cjpeg(gray, "-progressive")
    yield "gray_restart", cjpeg(gray, "-restart", "1B")
    yield "gray_restart_rows_progressive", cjpeg(gray, "-restart", "1", "-progressive")
    yield "gray_sampled_2x2", cjpeg(gray, "-sample", "2x2")
    yield "gray_sampled_4x1_progressive", cjpeg(gray, "-sample", "4x1", "-progressive")
    yield "gray_sampled_1x2_restart", cjpeg(gray, "-sample", "1x2", "-restart", "1B")
    # four components
    inks = picture(33, 20, 4, seed=4)
    from PIL import Image
    cmyk = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=90)
    yield "cmyk_adobe", cmyk
    yield "cmyk_adobe_progressive", saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=90, progressive=True)
    yield "cmyk_plain", without(cmyk, 0xEE)
    for subsampling in ["444", "422", "420"]:
        ycck = imagecodecs.jpeg8_encode(inks, level=90, colorspace="CMYK", outcolorspace="YCCK", subsampling=subsampling)
        yield f"ycck_{subsampling}_adobe", ycck
        yield f"ycck_{subsampling}_adobe_says_cmyk", with_first(without(ycck, 0xEE), adobe(0))
    # what the components mean
    array = picture(33, 20, seed=5)
    rgb = cjpeg(array, "-rgb")
    yield "rgb_adobe", rgb
    yield "rgb_by_component_names", without(rgb, 0xEE)
    plain = without(cjpeg(array, "-sample", "1x1"), 0xE0)
    yield "no_marker_names_123", plain
    yield "no_marker_names_012", renamed(plain, [0, 1, 2])
    yield "no_marker_names_rgb", renamed(plain, list(b"RGB"))
    yield "no_marker_names_other", renamed(plain, [7, 40, 3])
    yield "no_marker_names_1_34_35", renamed(plain, [1, 34, 35])
    yield "no_marker_names_small_rgb", renamed(plain, list(b"rgb"))
    yield "jfif_names_rgb", renamed(cjpeg(array, "-sample", "1x1"), list(b"RGB"))
    for transform in range(3):
        yield f"adobe_{transform}", with_first(plain, adobe(transform))
        yield f"adobe_{transform}_names_rgb", with_first(renamed(plain, list(b"RGB")), adobe(transform))
        yield f"adobe_{transform}_with_jfif", with_first(cjpeg(array, "-sample", "2x2"), adobe(transform))
    # orientation
    base = without(cjpeg(picture(19, 10, seed=6), "-quality", "90", "-sample", "2x2"), 0xE0)
    yield from orientations(base)
    yield "orientation_6_gray", with_first(cjpeg(gray), segment(0xE1, b"Exif\0\0" + exif(6)))
    yield "orientation_7_progressive", with_first(cjpeg(array, "-progressive"), segment(0xE1, b"Exif\0\0" + exif(7)))
    # bytes around the picture
    array = picture(40, 24, seed=8)
    whole = cjpeg(array, "-quality", "90")
    yield "end_then_trailer", whole + b"\xff\xd8 and a trailer \xff\xd9"
    yield "no_end", whole[:-2]
    yield "no_end_zeros", whole[:-2] + bytes(40)
    yield "no_end_trailer", whole[:-2] + bytes(range(1, 200))
    yield "no_end_restart", cjpeg(array, "-restart", "1")[:-2] + b"trailer"
    yield "no_end_gray", cjpeg(picture(17, 13, 1), "-quality", "90")[:-2] + b"trailer"
    yield "no_end_411", cjpeg(array, "-sample", "4x1")[:-2] + b"\xff\xee\x00\x02 trailer"
    yield "comments", with_first(whole, segment(0xFE, b"a comment \xff\xd9 \xff\xda"), segment(0xE7, bytes(300)))
    yield "fill_bytes", joined([(kind, b"\xff\xff\xff" + part) for kind, part in segments(whole)])
    yield "profile", saved(array, "JPEG", quality=90, icc_profile=b"not applied" * 20)
    thumbnail = cjpeg(array[::4, ::4])
    yield "thumbnail", with_first(whole, segment(0xE1, b"Exif\0\0" + exif(1) + thumbnail))
    yield "several_pictures", saved(array, "MPO", save_all=True, quality=90, append_images=[Image.fromarray(array[::-1])])
    tables = segments(whole)
    yield "tables_together", joined([p for p in tables if p[0] not in (0xC4, 0xDB)][:-1] + [
        segment(0xDB, b"".join(p[4:] for k, p in tables if k == 0xDB)),
        segment(0xC4, b"".join(p[4:] for k, p in tables if k == 0xC4)), tables[-1]])
    yield "arithmetic", cjpeg(array, "-arithmetic", "-sample", "2x1")
    yield "arithmetic_progressive", cjpeg(array, "-arithmetic", "-progressive")
    yield "arithmetic_restart", cjpeg(array, "-arithmetic", "-restart", "1")
    yield "refused_lossless", imagecodecs.ljpeg_encode(picture(17, 13, 1))
    yield "refused_twelve_bits", imagecodecs.jpeg8_encode((picture(17, 13, 1, bits=12)), bitspersample=12)
    # a picture of which another one, written over it, hides the end
    yield "refused_half_before_another", whole[:len(whole) // 2] + whole
    yield "refused_half", whole[:len(whole) // 2]
    yield "refused_last_block_missing", whole[:-6]
    yield "refused_half_progressive", cjpeg(array, "-progressive")[:-200]
    yield "refused_progressive_no_end", cjpeg(array, "-progressive")[:-2]
    yield "refused_separate_no_end", cjpeg(array, scans="0;1;2;")[:-2]
