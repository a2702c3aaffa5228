"""WebP files, by Pillow's libwebp and the programs of Debian's `webp` (1.2.4)."""

import numpy
from PIL import Image

from common import SIZES, exif, picture, saved, smooth, through_files


def cwebp(array, *options):
    return through_files(["cwebp", *options, "{in}", "-o", "{out}"], saved(array, "PNG"), ".png", ".webp")


def files():
    for number, (width, height) in enumerate(SIZES):
        array, size = picture(width, height, seed=number), f"{width}x{height}"
        yield f"lossy_{size}", saved(array, "WEBP", quality=90)
        yield f"lossless_{size}", saved(array, "WEBP", lossless=True)
        alpha = numpy.dstack([array, picture(width, height, 1, seed=50)])
        yield f"lossy_alpha_{size}", saved(alpha, "WEBP", quality=90, exact=True)
        yield f"lossless_alpha_{size}", saved(alpha, "WEBP", lossless=True, exact=True)
    array = picture(33, 20, seed=1)
    alpha = numpy.dstack([array, smooth(33, 20, 1)])
    for quality in [0, 20, 60, 100]:
        yield f"lossy_quality_{quality}", saved(array, "WEBP", quality=quality)
        yield f"lossy_smooth_quality_{quality}", saved(smooth(50, 41, seed=2), "WEBP", quality=quality)
    for name, options in {
        "simple_filter": ["-nostrong", "-f", "60"], "strong_filter": ["-strong", "-f", "100", "-sharpness", "3"],
        "no_filter": ["-f", "0"], "four_segments": ["-segments", "4", "-sns", "100"],
        "sharp_yuv": ["-sharp_yuv"], "low_memory": ["-low_memory"], "jpeg_like": ["-jpeg_like"],
        "near_lossless": ["-near_lossless", "40"], "fast": ["-m", "0"], "slow": ["-m", "6"],
    }.items():
        yield f"cwebp_{name}", cwebp(array, "-q", "50", *options)
    for name, options in {
        "none": ["-alpha_filter", "none"], "fast": ["-alpha_filter", "fast"], "best": ["-alpha_filter", "best"],
        "raw": ["-alpha_method", "0"], "quality_20": ["-alpha_q", "20"], "kept": ["-exact"],
    }.items():
        yield f"cwebp_alpha_{name}", cwebp(alpha, "-q", "70", *options)
    few = (array // 128) * 255
    yield "lossless_eight_colors", saved(few, "WEBP", lossless=True)
    yield "lossless_two_colors", saved(numpy.repeat(few[..., :1], 3, 2), "WEBP", lossless=True)
    yield "lossless_gray", saved(Image.fromarray(picture(17, 13, 1)), "WEBP", lossless=True)
    yield "lossless_fast", saved(array, "WEBP", lossless=True, method=0, quality=0)
    yield "lossless_slow", saved(array, "WEBP", lossless=True, method=6, quality=100)
    for number in range(1, 9):
        yield f"orientation_{number}", saved(picture(17, 13), "WEBP", lossless=True, exif=exif(number))
    yield "orientation_6_lossy_alpha", saved(alpha, "WEBP", quality=80, exif=b"Exif\0\0" + exif(6, ">"))
    yield "profile", saved(array, "WEBP", lossless=True, icc_profile=b"not applied" * 9)
    frames = [Image.fromarray(picture(17, 13, 4, seed=seed)) for seed in range(3)]
    yield "animated", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    opaque = [Image.fromarray(picture(17, 13, 3, seed=seed)) for seed in range(3)]
    yield "animated_lossy", saved(opaque[0], "WEBP", save_all=True, append_images=opaque[1:], quality=80)
    yield "animated_mixed", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], allow_mixed=True)
    spot = numpy.zeros((13, 17, 4), numpy.uint8)
    spot[4:9, 6:15] = picture(9, 5, 4)
    spots = [Image.fromarray(spot), frames[0]]
    for name, background in {"": (0, 0, 0, 0), "_on_color": (200, 100, 50, 255)}.items():
        yield f"animated_small_first_frame{name}", saved(
            spots[0], "WEBP", save_all=True, append_images=spots[1:], lossless=True, background=background, minimize_size=True)
    whole = saved(array, "WEBP", quality=90)
    yield "refused_half", whole[:len(whole) // 2]
    whole = saved(array, "WEBP", lossless=True)
    yield "refused_half_lossless", whole[:len(whole) // 2]
