"""Writes `windowed.json`: what pydicom makes of gray files in `dicom.tar.gz` by a window that is not the file's own.

    pip install pydicom==3.0.2 numpy
    python3 make_windowed.py

For each file a center and a width, and every seventh pixel, row by row, in levels of 16 bits.
"""

import io
import json
import pathlib
import tarfile

from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_windowing, pixel_array

HERE = pathlib.Path(__file__).parent


def windowed(content):
    data = dcmread(io.BytesIO(content))
    if data.SamplesPerPixel != 1 or data.PhotometricInterpretation == "PALETTE COLOR":
        return None
    if any(name in data for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")):
        return None
    if float(data.get("RescaleSlope", 1)) < 0:  # pydicom then takes the ends of the range for each other
        return None
    try:
        array = pixel_array(data, index=0)
    except Exception:  # a kind that pydicom reads with other packages
        return None
    values = apply_modality_lut(array, data).astype("float64")
    low, high = float(values.min()), float(values.max())
    # between whole numbers, so that no value lies on an edge
    center, width = round((low + high) / 2 + 0.25 * (high - low)) + 0.25, max(1.0, round((high - low) / 3))
    data.WindowCenter, data.WindowWidth, data.VOILUTFunction = center, width, "LINEAR_EXACT"
    shown = apply_windowing(values, data)
    # pydicom gives values of the whole range that the stored bits have
    bits = data.BitsStored
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    if "ModalityLUTSequence" in data:
        ends = 0, 2 ** data.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    low, high = sorted(end * slope + intercept for end in ends)
    shown = (shown - low) / (high - low)
    shown = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
    levels = (shown * 65535).round().astype(int).ravel()[::7].tolist()
    return [[center, width], levels]


def main():
    index = {}
    with tarfile.open(HERE / "dicom.tar.gz") as archive:
        right = json.load(archive.extractfile("index.json"))
        for name in right:
            if "refused" not in right[name] and (found := windowed(archive.extractfile(name).read())):
                index[name] = found
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in index.items())
    (HERE / "windowed.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(len(index), "files")


if __name__ == "__main__":
    main()
