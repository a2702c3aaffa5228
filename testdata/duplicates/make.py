"""Makes copies of two photographs of `testdata/images`, as collections have them, with Pillow.

    python3 make.py
"""

from pathlib import Path

from PIL import Image, ImageOps

HERE = Path(__file__).parent

for name in ["others-buffetset", "tools-plier1"]:
    photo = ImageOps.contain(Image.open(HERE.parent / "images" / f"{name}.jpg").convert("RGB"), (128, 128))
    photo.save(HERE / f"{name}.jpg", quality=90)
    photo = Image.open(HERE / f"{name}.jpg")
    width, height = photo.size
    # the same pixels in another format
    photo.save(HERE / f"{name}-same.png", optimize=True)
    # the same picture
    photo.save(HERE / f"{name}-recompressed.jpg", quality=30)
    photo.resize((width // 2, height // 2), Image.LANCZOS).save(HERE / f"{name}-half.jpg", quality=85)
    # other pictures
    box = (width // 5, height // 5, width, height)
    photo.crop(box).save(HERE / f"{name}-crop.jpg", quality=90)
    ImageOps.mirror(photo).save(HERE / f"{name}-mirrored.jpg", quality=90)
