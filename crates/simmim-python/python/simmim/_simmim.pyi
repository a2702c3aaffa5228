from os import PathLike
from typing import Sequence

__version__: str

def main(arguments: Sequence[str]) -> int: ...
def mask(
    name: str,
    image_px: tuple[int, int],
    unit_px: int,
    patch_px: int,
    ratio: float,
    min_block_units: int,
    aspect: tuple[float, float],
    count: int,
    seed: int,
    epoch: int,
) -> tuple[bytearray, tuple[int, int, int]]: ...

class Encoder:
    channels: int
    image_size: tuple[int, int]
    width: int
    depth: int
    mean: list[float]
    std: list[float]
    def __new__(cls, path: str | PathLike[str], threads: int | None, precision: str) -> Encoder: ...
    def embed_pictures(
        self, pictures: Sequence[object], features: str, block: int | None
    ) -> tuple[bytearray, list[int]]: ...
    def embed_data(self, data: str, features: str, block: int | None) -> tuple[bytearray, list[int]]: ...
    def embed_prepared(
        self, values: bytes, shape: Sequence[int], features: str, block: int | None
    ) -> tuple[bytearray, list[int]]: ...
