"""Self-supervised pre-training of vision transformers by masked image modeling (SimMIM).

Training is the command `simmim`. This module uses what it trained, in Python:

    encoder = simmim.load("run")
    features = encoder.embed(["a.jpg", "b.jpg"])    # float32, [2, encoder.width]
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Literal, Union

import numpy

from . import _simmim
from ._simmim import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Encoder", "__version__", "embed", "load", "mask"]

Features = Literal["mean", "class", "patches"]
Path = Union[str, "os.PathLike[str]"]
# one array, a data specification, or paths, PIL images and arrays
Images = Union["NDArray[Any]", str, Iterable[Any]]


class Encoder:
    """An encoder with its weights, which any thread may use."""

    def __init__(self, path: Path, *, threads: int | None = None, precision: str = "auto") -> None:
        self._encoder = _simmim.Encoder(os.fspath(path), threads, precision)

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return self._encoder.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images in pixels."""
        return self._encoder.image_size

    @property
    def width(self) -> int:
        """Width of a feature vector."""
        return self._encoder.width

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self._encoder.depth

    @property
    def mean(self) -> NDArray[numpy.float32]:
        """Mean of each channel that images are normalized with, of values from 0 to 1."""
        return numpy.array(self._encoder.mean, numpy.float32)

    @property
    def std(self) -> NDArray[numpy.float32]:
        """Standard deviation of each channel that images are normalized with."""
        return numpy.array(self._encoder.std, numpy.float32)

    def embed(self, images: Images, *, features: Features = "mean", block: int | None = None) -> NDArray[numpy.float32]:
        """Features of images, one row for each, in their order.

        `images` is one of

        - a list of paths, PIL images, or arrays [H, W] or [H, W, C] of uint8 or uint16; of any sizes;
        - an array [B, H, W, C] of uint8 or uint16;
        - an array [B, C, H, W] of floats: prepared already, that is of the size of the encoder and normalized;
        - a string: a folder, list, archive or address, as `--data` of the command takes it.

        All but prepared images are brought to the size of the encoder and normalized as the command does.

        `features`: "mean" of the patch tokens, the "class" token, or all "patches"; behind the last norm, or of a `block`,
        counted from 1.

        Raises ValueError, with a hint, if an image cannot be read or used.
        """
        if isinstance(images, str):
            return _array(self._encoder.embed_data(images, features, block))
        array = images if isinstance(images, numpy.ndarray) else None
        if array is not None and array.dtype.kind == "f":
            if array.ndim != 4:
                raise ValueError(f"images are an array of shape {array.shape}\nhint: floats are [B, C, H, W], normalized")
            prepared = numpy.ascontiguousarray(array, numpy.float32)
            return _array(self._encoder.embed_prepared(prepared.tobytes(), prepared.shape, features, block))
        if array is not None and array.ndim != 4:
            raise ValueError(f"images are an array of shape {array.shape}\nhint: give [B, H, W, C], or a list of images")
        pictures = [_picture(image, index) for index, image in enumerate(images)]
        if not pictures:
            raise ValueError("there are no images\nhint: give at least one")
        return _array(self._encoder.embed_pictures(pictures, features, block))

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"simmim.Encoder({height}×{width} px, {self.channels} channels, {self.depth} blocks, width {self.width})"


def load(path: Path, *, threads: int | None = None, precision: str = "auto") -> Encoder:
    """Loads the encoder of a run, a checkpoint, a file of weights, or a folder of timm or transformers.

    `threads`: by default one per core; `precision`: "auto", "f32" or "bf16".

    Raises ValueError, with a hint, if the weights cannot be used.
    """
    return Encoder(path, threads=threads, precision=precision)


def embed(
    images: Images, encoder: Encoder | Path, *, features: Features = "mean", block: int | None = None
) -> NDArray[numpy.float32]:
    """Features of images by an encoder, or by that of a path; see `Encoder.embed`."""
    encoder = encoder if isinstance(encoder, Encoder) else load(encoder)
    return encoder.embed(images, features=features, block=block)


def mask(
    image_size: int | tuple[int, int],
    *,
    unit_px: int = 32,
    patch_px: int | None = None,
    ratio: float = 0.6,
    strategy: Literal["random", "square", "blockwise"] = "random",
    min_block_units: int = 16,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    count: int = 1,
    seed: int = 0,
    epoch: int = 0,
) -> NDArray[numpy.bool_]:
    """Draws masks for `count` images of `image_size` pixels (a side, or height and width): [count, h, w], True = hidden.

    The mask is drawn in units of `unit_px` pixels and given for patches of `patch_px` pixels, by default one per unit.
    `min_block_units` and `aspect` are for "blockwise". Image i of a data set has the mask that training with this seed draws
    for it in this epoch; images that training holds out have those of epoch 2**64 - 1.

    Raises ValueError, with a hint, if sizes do not fit.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    patch_px = unit_px if patch_px is None else patch_px
    hidden, shape = _simmim.mask(strategy, size, unit_px, patch_px, ratio, min_block_units, aspect, count, seed, epoch)
    return numpy.frombuffer(hidden, numpy.bool_).reshape(shape)


@dataclass
class _File:
    path: str


@dataclass
class _Bytes:
    pixels: bytes
    shape: tuple[int, ...]


@dataclass
class _Floats:
    floats: bytes
    shape: tuple[int, ...]


def _array(found: tuple[bytearray, list[int]]) -> NDArray[numpy.float32]:
    values, shape = found
    return numpy.frombuffer(values, numpy.float32).reshape(shape)


def _picture(image: Any, index: int) -> _File | _Bytes | _Floats:
    if isinstance(image, (str, os.PathLike)):
        return _File(os.fspath(image))
    if hasattr(image, "getexif"):
        image = _pixels_of_pil(image)
    array = numpy.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.dtype not in (numpy.uint8, numpy.uint16) or array.size == 0:
        raise ValueError(
            f"`images[{index}]` is a {type(image).__name__} of {array.dtype} with shape {array.shape}\n"
            "hint: give a path, a PIL image, or an array [H, W, C] of uint8 or uint16"
        )
    if array.dtype == numpy.uint16:
        return _Floats((array.astype(numpy.float32) / 65535).tobytes(), array.shape)
    return _Bytes(numpy.ascontiguousarray(array).tobytes(), array.shape)


def _pixels_of_pil(image: Any) -> NDArray[Any]:
    """Pixels of a PIL image as a file with them is read: upright, palettes and inks as colors."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return numpy.asarray(image).astype(numpy.uint16)
    if image.mode == "I":  # as old versions open files of 16 bits
        values = numpy.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("a PIL image of mode I has values beyond 16 bits\nhint: give an array of uint16")
        return values.astype(numpy.uint16)
    if image.mode == "F":
        raise ValueError("a PIL image of mode F does not say what is black and white\nhint: give an array of uint16")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if "transparency" in image.info else "L" if image.mode == "1" else "RGB")
    return numpy.asarray(image)
