"""Writes huggingface.parquet: twelve gray pictures of three classes, in row groups of five, as the library `datasets` does.

pip install datasets==5.2.0 pillow; python huggingface.py
"""

import io

import PIL.Image
from datasets import ClassLabel, Dataset, Features, Image

ROWS = 12


def png(number):
    file = io.BytesIO()
    PIL.Image.new("L", (6, 5), 20 * number).save(file, "PNG")
    return file.getvalue()


features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "emu"])})
columns = {
    "image": [{"bytes": png(number), "path": f"{number:02}.png"} for number in range(ROWS)],
    "label": [number % 3 for number in range(ROWS)],
}
Dataset.from_dict(columns, features=features).to_parquet("huggingface.parquet", batch_size=5)
