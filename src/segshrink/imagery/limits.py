"""What reading a file would take, against what it holds and what this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rasterio.enums import Interleaving

from segshrink.errors import FileError
from segshrink.machine import available_memory

# No measuring device has so many bands; each costs time when a file is opened.
_MOST_BANDS = 4096
# Decoded sizes in bytes below which no file is suspected.
_SMALL_BLOCK, _SMALL_IMAGE = 128 << 20, 512 << 20
# Bytes for which it isn't asked how much memory is free, since that takes as long as reading them.
_TINY = 1 << 19
# Times that a block or a whole image may be larger than its file. Blank images reach 1000 in a PNG or deflated TIFF;
# scenes that are read window by window may hold little but gaps.
_BLOCK_RATIO, IMAGE_RATIO, SCENE_RATIO, UNLIMITED = 100, 500, 5000, 10**9
# Arrays of an image's size that decoding holds at once: the image, and what is made of it.
_COPIES = 2


def refuse_bomb(name: object, decoded: int, file_size: int, *, ratio: int = IMAGE_RATIO) -> None:
    """Raise FileError if a file claims to hold far more than its bytes can."""
    if decoded > _SMALL_IMAGE and decoded > ratio * file_size:
        raise FileError(
            f"{name} claims to hold {_size(decoded)} of pixels in a file of {_size(file_size)}; it is damaged, nearly "
            "empty or made to fill the memory: cut out the part that holds something"
        )


def refuse_beyond_memory(name: object, decoded: int) -> None:
    """Raise FileError if decoding a whole image takes more memory than there is."""
    free = available_memory() if decoded > _TINY else None
    if free is not None and _COPIES * decoded > free:
        raise FileError(
            f"decoding {name} takes about {_size(_COPIES * decoded)} of memory but {_size(free)} are free; cut it into "
            "tiles, or use a machine with more memory"
        )


def refuse_claims(name: object, dataset: Any, file_size: int | None, *, ratio: int) -> None:
    """Raise FileError if an open rasterio dataset has too many bands or blocks, or an image, that can't be true.

    Args:
        name: What errors call the file.
        dataset: Its header is looked at, no pixel.
        file_size: Bytes of the file, or of the files behind it; None where that isn't known.
        ratio: Times that the image may be larger.
    """
    if dataset.count > _MOST_BANDS:
        raise FileError(
            f"{name} claims to hold {dataset.count:,} bands, more than {_MOST_BANDS:,}; choose some of them"
        )
    items = [_item_size(dtype) for dtype in dataset.dtypes]
    together = sum(items) if _interleaved(dataset) else max(items)
    height, width = max(dataset.block_shapes, key=lambda shape: shape[0] * shape[1])
    block = height * width * together
    if block > _SMALL_BLOCK and (file_size is None or block > _BLOCK_RATIO * file_size):
        raise FileError(
            f"{name} stores {height:,} × {width:,} pixels in one block, {_size(block)} to decode; write it again in "
            "tiles of 512 × 512"
        )
    refuse_beyond_memory(name, block)
    if file_size is not None:
        refuse_bomb(name, decoded_size(dataset), file_size, ratio=ratio)


def decoded_size(dataset: Any) -> int:
    """Return the bytes of all pixels of a rasterio dataset."""
    return int(dataset.height * dataset.width * sum(map(_item_size, dataset.dtypes)))


def size_of(paths: list[Path]) -> int:
    """Return the bytes of some files together."""
    return sum(path.stat().st_size for path in paths)


def _item_size(dtype: str) -> int:
    digits = "".join(letter for letter in dtype if letter.isdigit())
    return int(digits) // 8 if digits else 4


def _interleaved(dataset: Any) -> bool:
    try:
        return bool(dataset.interleaving == Interleaving.pixel)
    except ValueError:  # formats that don't say
        return True


def _size(count: int) -> str:
    unit = next(exponent for exponent in (4, 3, 2, 1, 0) if count >= 1000**exponent or not exponent)
    return f"{count / 1000**unit:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
