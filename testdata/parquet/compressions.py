"""Writes compressions/NAME.parquet: six gray pictures in each compression of pages that pyarrow has, in both layouts of pages.

pip install pyarrow==26.0.1 pillow; python compressions.py
"""

import io
import pathlib

import PIL.Image
import pyarrow
import pyarrow.parquet

ROWS = 6
FOLDER = pathlib.Path(__file__).parent / "compressions"


def tiff(number):
    """Not compressed itself, so that the page has something to compress."""
    file = io.BytesIO()
    PIL.Image.new("L", (16, 16), 20 * number).save(file, "TIFF")
    return file.getvalue()


table = pyarrow.table({
    "image": [{"bytes": tiff(number), "path": f"{number:02}.tif"} for number in range(ROWS)],
    "label": [number % 3 for number in range(ROWS)],
})
FOLDER.mkdir(exist_ok=True)
for compression in ("none", "snappy", "gzip", "brotli", "lz4", "zstd"):
    for version in ("1.0", "2.0"):
        path = FOLDER / f"{compression}-{version[0]}.parquet"
        pyarrow.parquet.write_table(table, path, compression=compression, data_page_version=version, row_group_size=4)
        column = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
        expected = "uncompressed" if compression == "none" else compression
        assert column.compression.lower() == expected, column.compression
        assert compression == "none" or column.total_compressed_size < column.total_uncompressed_size
