"""DICOM files, by pydicom, and what pydicom reads in them: values, modality, window or table, all from 0 to 1.

pip install pydicom==3.0.2 pylibjpeg==2.1.0 pylibjpeg-libjpeg==2.5.0 pylibjpeg-openjpeg==2.6.0 pylibjpeg-rle==2.2.0
"""

import io
import struct

import imagecodecs
import numpy
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing, pixel_array
from pydicom.sequence import Sequence

from common import picture, saved, smooth

LITTLE, IMPLICIT, BIG = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian
DEFLATED, RUN_LENGTHS = uid.DeflatedExplicitVRLittleEndian, uid.RLELossless


def data_set(array, meaning="MONOCHROME2", bits=None, **elements):
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2.3.4"
    data.PatientName, data.Modality = "Nobody", "OT"
    is_color = array.ndim == 3
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, meaning) if is_color else (1, meaning)
    if is_color:
        data.PlanarConfiguration = 0
    data.Rows, data.Columns = array.shape[:2]
    data.BitsAllocated = 8 * array.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(array.dtype.kind == "i")
    for name, value in elements.items():
        setattr(data, name, value)
    return data


def written(data, syntax, frames):
    """`frames` are the bytes of the pixels, or a list of compressed frames."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    if isinstance(frames, list):
        data.PixelData = encapsulate(frames, fragments_per_frame=data.get("fragments", 1))
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    else:
        data.PixelData = frames + bytes(len(frames) % 2)
        data["PixelData"].VR = "OB" if data.BitsAllocated == 8 and syntax != BIG else "OW"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def plain(array, *arguments, syntax=LITTLE, **elements):
    data = data_set(array, *arguments, **elements)
    order = ">" if syntax == BIG else "<"
    frames = array.astype(array.dtype.newbyteorder(order)).tobytes()
    if syntax == BIG and array.dtype.itemsize == 1:  # two bytes are a word
        frames += bytes(len(frames) % 2)
        frames = numpy.frombuffer(frames, "u1").reshape(-1, 2)[:, ::-1].tobytes()
    return written(data, syntax, frames)


def planes(array, *arguments, **elements):
    data = data_set(array, *arguments, **elements)
    data.PlanarConfiguration = 1
    return written(data, LITTLE, numpy.moveaxis(array, -1, 0).tobytes())


def run_lengths(array, *arguments, **elements):
    data = data_set(array, *arguments, **elements)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = LITTLE
    data.PixelData = array.tobytes() + bytes(array.nbytes % 2)
    data["PixelData"].VR = "OW" if data.BitsAllocated == 16 else "OB"
    data.compress(RUN_LENGTHS, encoding_plugin="pydicom", generate_instance_uid=False)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def right(content):
    """The values that pydicom gives, from 0 to 1, and their depth in the answer."""
    data = dcmread(io.BytesIO(content))
    array = pixel_array(data, index=0)
    meaning, bits = data.PhotometricInterpretation, data.BitsStored
    if meaning == "PALETTE COLOR":
        is_deep = data.RedPaletteColorLookupTableDescriptor[2] == 16
        return (apply_color_lut(array, data).astype("<u2" if is_deep else "u1"), 16 if is_deep else 8)
    if data.SamplesPerPixel == 3:
        return (array, 8) if bits == 8 else ((array / (2**bits - 1) * 65535).round().astype("<u2"), 16)
    described = data
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in data.get(groups, [])[:1]:
                for element in item.get(name, [Dataset()])[0]:
                    setattr(described, element.keyword, element.value)
    values = apply_modality_lut(array, described).astype(float)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    low, high = sorted([low * slope + intercept, high * slope + intercept])
    if "ModalityLUTSequence" in data:
        low, high = 0, 2 ** data.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    if "WindowCenter" in described:
        shown = (apply_windowing(values if slope != 1 or intercept else values.astype(array.dtype), described) - low)
        shown = shown / (high - low)
    elif "VOILUTSequence" in data:
        shown = apply_voi(values.astype(int), data) / (2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1)
    else:
        shown = (values - low) / (high - low)
        if bits == 8 and not data.PixelRepresentation and slope == 1 and not intercept and "ModalityLUTSequence" not in data:
            return ((255 - array) if meaning == "MONOCHROME1" else array)[..., None], 8
    shown = 1 - shown if meaning == "MONOCHROME1" else shown
    return (shown * 65535).round().astype("<u2")[..., None], 16


def files():
    for name, content, *known in named():
        if not known and not name.startswith("refused"):
            known = [right(content)]
        yield name, content, *known


def table(values, first=0, bits=16, kind="US"):
    item = Dataset()
    item.add_new(0x00283002, kind, [len(values), first, bits])
    item.add_new(0x00283006, "OW", numpy.asarray(values, "<u2").tobytes())
    return Sequence([item])


def named():
    gray, color = picture(17, 13, 1, 1), picture(17, 13, 3, 2)
    gray12, gray16 = picture(17, 13, 1, 1, bits=12), picture(17, 13, 1, 1, bits=16)
    color16 = picture(17, 13, 3, 2, bits=16)
    signed8, signed16 = (gray.astype(int) - 128).astype("i1"), (gray16.astype(int) - 32768).astype("<i2")
    signed12 = (gray12.astype(int) - 2048).astype("<i2")
    even, even_color = smooth(18, 14, 1, 3), smooth(18, 14, 3, 3)
    arrays = {
        "gray_8": (gray, {}), "gray_12": (gray12, {"bits": 12}), "gray_16": (gray16, {}),
        "signed_8": (signed8, {}), "signed_12": (signed12, {"bits": 12}), "signed_16": (signed16, {}),
        "rgb_8": (color, {"meaning": "RGB"}), "rgb_16": (color16, {"meaning": "RGB"}),
    }
    for name, (array, options) in arrays.items():
        for syntax_name, syntax in {"plain": LITTLE, "implicit": IMPLICIT, "big_endian": BIG, "deflated": DEFLATED}.items():
            yield f"{name}_{syntax_name}", plain(array, syntax=syntax, **options)
        yield f"{name}_run_lengths", run_lengths(array, **options)
        if array.ndim == 2:
            yield f"{name}_white_is_zero", plain(array, "MONOCHROME1", **options)
        else:
            yield f"{name}_planes", planes(array, **options)

    # windows and rescaling
    scaled = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}
    for name, window in {"linear": {}, "exact": {"VOILUTFunction": "LINEAR_EXACT"}, "sigmoid": {"VOILUTFunction": "SIGMOID"}}.items():
        yield f"window_{name}_12", plain(gray12, bits=12, WindowCenter="1500", WindowWidth="1200", **window)
        yield f"window_{name}_signed_16", plain(signed16, WindowCenter="40", WindowWidth="400", **window)
        yield f"window_{name}_rescaled", plain(gray12, bits=12, WindowCenter="1000", WindowWidth="3000.5", **scaled, **window)
        yield f"window_{name}_white_is_zero", plain(gray12, "MONOCHROME1", 12, WindowCenter="1500", WindowWidth="1200", **window)
        yield f"window_{name}_8", plain(gray, WindowCenter="100", WindowWidth="51", **window)
    yield "window_1_wide", plain(gray, WindowCenter="100", WindowWidth="1")
    yield "window_first_of_two", plain(gray12, bits=12, WindowCenter=["1500", "10"], WindowWidth=["1200", "5"])
    yield "window_implicit", plain(gray12, bits=12, syntax=IMPLICIT, WindowCenter="1500", WindowWidth="1200", **scaled)
    yield "window_big_endian", plain(gray12, bits=12, syntax=BIG, WindowCenter="1500", WindowWidth="1200", **scaled)
    yield "window_run_lengths", run_lengths(signed12, bits=12, WindowCenter="40", WindowWidth="400", **scaled)
    yield "rescaled_8", plain(gray, RescaleSlope="0.5", RescaleIntercept="3")
    yield "rescaled_12", plain(gray12, bits=12, **scaled)
    yield "rescaled_downwards", plain(gray12, bits=12, RescaleSlope="-1.5", RescaleIntercept="7")
    yield "rescaled_by_one", plain(gray, RescaleSlope="1", RescaleIntercept="0")
    curve = (numpy.sqrt(numpy.arange(4000) / 3999) * 65535).astype(int)
    yield "table_of_interest", plain(gray12, bits=12, VOILUTSequence=table(curve, 50))
    yield "table_of_interest_below_zero", plain(signed12, bits=12, VOILUTSequence=table(curve[::2], -1500, kind="SS"))
    yield "table_of_modality", plain(gray12, bits=12, ModalityLUTSequence=table(curve, 9))
    yield "table_of_modality_and_window", plain(gray12, bits=12, ModalityLUTSequence=table(curve, 9),
                                                WindowCenter="30000", WindowWidth="20000")

    # several frames, of which the first counts
    for name, array, options in (("gray", gray, {}), ("rgb", color, {"meaning": "RGB"})):
        both = numpy.stack([array, array[::-1]])
        data = data_set(array, NumberOfFrames=2, **options)
        yield f"frames_{name}", written(data, LITTLE, both.tobytes())
        data = data_set(array, NumberOfFrames=2, **options)
        yield f"frames_{name}_lossless", written(data, uid.JPEGLosslessSV1, [lossless(frame) for frame in both])
    for fragments in (1, 2, 3):
        for frames in (1, 2):
            data = data_set(even, NumberOfFrames=frames)
            data.fragments = fragments
            parts = [saved(frame, "JPEG", quality=95) for frame in (even, even[::-1])[:frames]]
            yield f"frames_{frames}_jpeg_in_{fragments}_fragments", written(data, uid.JPEGBaseline8Bit, parts)
    no_starts = written(data_set(even, NumberOfFrames=2), uid.JPEGBaseline8Bit, parts)
    yield "frames_jpeg_without_starts", without_starts(no_starts)
    for number, of_frames in enumerate([("SharedFunctionalGroupsSequence",), ("PerFrameFunctionalGroupsSequence",),
                                        ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")]):
        for syntax in (LITTLE, IMPLICIT):
            yield f"enhanced_{number}_{'implicit' if syntax == IMPLICIT else 'plain'}", enhanced(gray12, of_frames, syntax)

    # compressed
    syntax = uid.JPEGBaseline8Bit
    yield "gray_jpeg", written(data_set(even), syntax, [saved(even, "JPEG", quality=90)])
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        frame = saved(even_color, "JPEG", quality=95, subsampling=subsampling)
        # pydicom rounds brightness and differences before it makes colors of them
        by_pillow = numpy.asarray(Image.open(io.BytesIO(frame)).convert("RGB"))
        yield f"ybr_jpeg_{name}", written(data_set(even_color, "YBR_FULL_422"), syntax, [frame]), (by_pillow, 8)
    frame = imagecodecs.jpeg8_encode(even_color, level=95, colorspace="rgb", outcolorspace="rgb")
    yield "rgb_jpeg", written(data_set(even_color, "RGB"), syntax, [frame])
    yield "rgb_jpeg_without_sign", written(data_set(even_color, "RGB"), syntax, [without_sign(frame)])
    yield "extended_jpeg_8", written(data_set(even), uid.JPEGExtended12Bit, [saved(even, "JPEG", quality=90)])
    yield "refused_extended_jpeg_12", written(data_set(gray12, bits=12), uid.JPEGExtended12Bit,
                                              [imagecodecs.jpeg_encode(gray12, bitspersample=12)])
    for name, (array, options) in arrays.items():
        bits = options.get("bits")
        if name != "rgb_16":
            unsigned = array.view(f"u{array.dtype.itemsize}") & ((1 << (bits or 8 * array.dtype.itemsize)) - 1)
            for number, (name_of, kind) in enumerate({"lossless": uid.JPEGLossless, "lossless_first": uid.JPEGLosslessSV1}.items()):
                frame = lossless(unsigned.astype(f"u{array.dtype.itemsize}"), 1 if number else 4, bits)
                yield f"{name}_{name_of}", written(data_set(array, **options), kind, [frame])
        meaning = options.get("meaning", "MONOCHROME2")
        frame = imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="j2k", bitspersample=bits, mct=False)
        yield f"{name}_wavelets", written(data_set(array, **options), uid.JPEG2000Lossless, [frame])
        if meaning == "RGB":
            frame = imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="j2k", mct=True)
            yield f"{name}_wavelets_transformed", written(data_set(array, "YBR_RCT"), uid.JPEG2000Lossless, [frame])
    frame = imagecodecs.jpeg2k_encode(even_color, level=40, reversible=False, codecformat="j2k", mct=True)
    yield "rgb_jpeg_2000_lossy", written(data_set(even_color, "YBR_ICT"), uid.JPEG2000, [frame])
    frame = imagecodecs.jpeg2k_encode(even, level=40, reversible=False, codecformat="j2k")
    yield "gray_jpeg_2000_lossy", written(data_set(even), uid.JPEG2000, [frame])
    yield "refused_jpeg_ls", written(data_set(gray), uid.JPEGLSLossless, [imagecodecs.jpegls_encode(gray)])

    # colors
    colors = picture(256, 1, 3, 6)[0].astype(numpy.uint16)
    for bits in (8, 16):
        values = colors * (257 if bits == 16 else 1)
        yield f"palette_{bits}", palette(gray, values, bits)
        yield f"palette_{bits}_from_3", palette(gray, values[:200], bits, 3)
        yield f"palette_{bits}_implicit", palette(gray, values, bits, syntax=IMPLICIT)
    yield "palette_bytes", palette(gray, colors, 8, in_bytes=True)
    yield "palette_of_16_bits", palette((gray16 // 300).astype("<u2"), colors * 257, 16)
    yield "refused_palette_missing", plain(gray, "PALETTE COLOR")
    luma_chroma = picture(18, 13, 3, 4)
    yield "ybr_plain", plain(luma_chroma, "YBR_FULL")
    yield "ybr_planes", planes(luma_chroma, "YBR_FULL")
    yield "ybr_run_lengths", run_lengths(luma_chroma, "YBR_FULL")
    pairs = luma_chroma.reshape(13, 9, 2, 3)
    shared = numpy.stack([pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], -1)
    yield "ybr_shared", written(data_set(luma_chroma, "YBR_FULL_422"), LITTLE, shared.tobytes())

    # sequences of any kind before the picture
    yield "nested", nested(gray, LITTLE)
    yield "nested_implicit", nested(gray, IMPLICIT)
    yield "nested_of_unknown_type", unknown_sequence(plain(gray))
    yield "one_pixel", plain(gray[:1, :1])
    yield "padded", plain(gray12, bits=12) + struct.pack("<HH2sHI", 0xfffc, 0xfffc, b"OB", 0, 4) + bytes(4)

    # what is not to be read
    yield "refused_cut_short", plain(gray16)[:-20]
    yield "refused_cut_fragments", run_lengths(gray16)[:-40]
    yield "refused_no_pixels", plain(gray)[:-13 * 17 - 1 - 12]
    yield "refused_window_0_wide", plain(gray, WindowCenter="100", WindowWidth="0")
    yield "refused_window_of_other_function", plain(gray, WindowCenter="100", WindowWidth="9", VOILUTFunction="OTHER")
    yield "refused_rescaled_by_0", plain(gray, RescaleSlope="0", RescaleIntercept="3")
    yield "refused_shifted_12", plain(gray12, bits=12, HighBit=15)
    yield "refused_32", plain(gray.astype("<u4"))
    yield "refused_1_bit", plain(gray, bits=1, BitsAllocated=1)
    yield "refused_other_meaning", plain(color, "HSV")
    yield "refused_other_syntax", plain(gray).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0")
    yield "refused_video", plain(gray).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.100\0"[:20])


def lossless(array, predictor=1, bits=None):
    bits = bits or 8 * array.dtype.itemsize
    frame = imagecodecs.jpeg_encode(array, lossless=True, predictor=predictor, bitspersample=bits)
    assert (imagecodecs.jpeg_decode(frame) == array).all(), bits
    return frame


def without_sign(frame):
    """A JPEG without the segments that say what its colors are, and with numbers for the names of these."""
    at = frame.index(b"\xff\xee")
    frame = frame[:at] + frame[at + 16:]
    assert b"JFIF" not in frame
    return frame.replace(b"R\x11", b"\x01\x11").replace(b"G\x11", b"\x02\x11").replace(b"B\x11", b"\x03\x11") \
        .replace(b"\x03R\x00G\x11B\x11", b"\x03\x01\x00\x02\x11\x03\x11").replace(b"\x03R\x00G\x00B\x00", b"\x03\x01\x00\x02\x00\x03\x00")


def without_starts(content):
    """Empties the table of where frames start."""
    at = content.index(struct.pack("<HHI", 0xfffe, 0xe000, 8), content.index(struct.pack("<HH", 0x7fe0, 0x10)))
    return content[:at] + struct.pack("<HHI", 0xfffe, 0xe000, 0) + content[at + 16:]


def enhanced(array, of_frames, syntax):
    both = numpy.stack([array, array[::-1]])
    data = data_set(array, bits=12, NumberOfFrames=2)
    for number, groups in enumerate(of_frames):
        scale, window, item = Dataset(), Dataset(), Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = str(number + 2), "-1000", "US"
        window.WindowCenter, window.WindowWidth = str(900 + number), "2500"
        item.PixelValueTransformationSequence, item.FrameVOILUTSequence = Sequence([scale]), Sequence([window])
        setattr(data, groups, Sequence([item] if groups.startswith("Shared") else [item, Dataset()]))
        if number:  # the item with a length, the sequence without
            data[groups].is_undefined_length = True
            item.is_undefined_length_sequence_item = True
    return written(data, syntax, both.tobytes())


def palette(array, colors, bits, first=0, in_bytes=False, syntax=LITTLE):
    data = data_set(array, "PALETTE COLOR")
    for number, name in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [len(colors), first, bits])
        values = colors[:, number].astype("u1" if in_bytes else "<u2").tobytes()
        setattr(data, f"{name}PaletteColorLookupTableData", values)
    return written(data, syntax, array.tobytes())


def nested(array, syntax):
    """Sequences in sequences, with and without lengths, with a picture of their own."""
    data = data_set(array)
    inner = data_set(array[:3, :3], "MONOCHROME1", Rows=3, WindowCenter="1", WindowWidth="2")
    for depth in range(6):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner, inner])
        outer["ReferencedImageSequence"].is_undefined_length = depth % 2 == 0
        inner.is_undefined_length_sequence_item = depth % 3 == 0
        inner = outer
    data.ReferencedImageSequence = inner.ReferencedImageSequence
    data["ReferencedImageSequence"].is_undefined_length = True
    return written(data, syntax, array.tobytes())


def unknown_sequence(content):
    """Puts a sequence of unknown type without a length before the picture, which is implicit, with another one in it."""
    at = content.index(struct.pack("<HH", 0x28, 2))
    item, end_item, end = (struct.pack("<HHI", 0xfffe, element, length)
                           for element, length in ((0xe000, 0xffffffff), (0xe00d, 0), (0xe0dd, 0)))
    inner = struct.pack("<HHI", 0x8, 0x1140, 0xffffffff) + item + struct.pack("<HHI", 8, 0x60, 2) + b"OT" + end_item + end
    unknown = struct.pack("<HH2sHI", 0x11, 0x1001, b"UN", 0, 0xffffffff) + item + inner + end_item + end
    return content[:at] + unknown + content[at:]
