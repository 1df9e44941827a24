"""Small files that claim to be huge: one sentence, before anything is decoded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.imagery import open_scene, raster_files, read_image, read_mask, read_valid_image
from segshrink.machine import available_memory, peak_memory_mb
from segshrink.tiling import Window

Paint = Callable[..., Path]
CLASSES = ClassMap.build([("ground", None, 0), ("house", None, 1)])


def tiff(tags: dict[int, tuple[int, list[int]]], data: bytes = b"") -> bytes:
    """Write a TIFF of one directory; numbers of 16 bits are type 3, of 32 bits type 4."""
    codes = {3: "H", 4: "I"}
    table, outside = b"", b""
    place = 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{codes[kind]}", *values)
        if len(packed) > 4:
            outside, packed = outside + packed + b"\0" * (len(packed) % 2), struct.pack("<I", place + len(outside))
        table += struct.pack("<HHI4s", tag, kind, len(values), packed.ljust(4, b"\0"))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return head + table + b"\0" * 4 + outside + data


def tiled(side: int, tile: int, *, offset: int = 0, size: int = 0, bits: int = 8) -> dict[int, tuple[int, list[int]]]:
    count = (-(-side // tile)) ** 2
    return {
        256: (4, [side]), 257: (4, [side]), 258: (3, [bits]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1]),
        322: (4, [tile]), 323: (4, [tile]), 324: (4, [offset] * count), 325: (4, [size] * count),
    }  # fmt: skip


def stripped(height: int, width: int, rows: int, *, bands: int = 1) -> dict[int, tuple[int, list[int]]]:
    return {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 277: (3, [bands]),
        278: (4, [rows]), 273: (4, [8]), 279: (4, [100]),
    }  # fmt: skip


def one_block(side: int) -> bytes:
    block = zlib.compress(bytes(side * side))
    size = len(tiff(tiled(side, side)))
    return tiff(tiled(side, side, offset=size, size=len(block)), block)


def png(width: int, height: int, bits: int) -> bytes:
    pixels = zlib.compress(bytes(1 << 20))  # the rest would be as blank
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BOMBS = {
    "million.tif": lambda: tiff(tiled(10**6, 16384)),
    "sparse.tif": lambda: tiff(tiled(10**5, 512)),
    "doubles.tif": lambda: tiff(tiled(10**5, 512, bits=16)),
    "strip.tif": lambda: tiff(stripped(10**6, 10**6, 10**6)),
    "rows.tif": lambda: tiff(stripped(2**31 - 1, 64, 1)),
    "blocks.tif": lambda: tiff(tiled(10**6, 65536)),
    "block.tif": lambda: one_block(12_000),
    "bands.tif": lambda: tiff(stripped(64, 64, 64, bands=65535)),
    "gray.png": lambda: png(60_000, 60_000, 8),
    "deep.png": lambda: png(60_000, 60_000, 16),
    "bilevel.png": lambda: png(2**31 - 1, 2**31 - 1, 1),
    "a.gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
    "a.bmp": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "a.webp": lambda: b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\x00" * 2,
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_however_it_is_read(bombs: Path, name: str) -> None:
    before = peak_memory_mb()
    for read in (read_image, read_valid_image, open_scene, lambda path: read_mask(path, CLASSES)):
        with pytest.raises(FileError, match=name) as caught:
            read(bombs / name)
        assert len(str(caught.value)) < 1000
    assert peak_memory_mb() - before < 300


def test_blank_images_of_ordinary_size_are_read(paint: Paint) -> None:
    blank = np.zeros((3000, 3000), dtype=np.uint8)
    path = paint("blank.tif", blank, compress="deflate", blockysize=3000)
    assert path.stat().st_size * 500 < blank.nbytes
    assert read_image(path).shape == (3000, 3000, 1)
    assert not read_mask(path, CLASSES).any()


def test_a_sparse_scene_is_read_in_windows(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_files, "_SMALL_IMAGE", 1 << 16)
    size = {"blockxsize": 1024, "blockysize": 1024}
    path = paint("sparse.tif", np.zeros((2048, 2048), dtype=np.uint8), tiled=True, compress="deflate", **size)
    with open_scene(path) as scene:
        assert not scene.read(Window(0, 0, 64, 64))[0].any()
    with pytest.raises(FileError, match=r"sparse\.tif claims to hold 4\.19 MB of pixels in a file of"):
        read_image(path)


def test_what_is_needed_and_what_is_free_are_told(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint("large.tif", np.random.default_rng(0).integers(0, 2, (1000, 1000)).astype(np.uint8))
    monkeypatch.setattr(raster_files, "available_memory", lambda: 1_500_000)
    for read in (read_image, read_valid_image, lambda path: read_mask(path, CLASSES)):
        with pytest.raises(FileError, match=r"large\.tif takes about 2 MB of memory but 1\.5 MB are free"):
            read(path)
    with open_scene(path) as scene:  # a window at a time
        scene.read(Window(0, 0, 64, 64))
    monkeypatch.setattr(raster_files, "available_memory", lambda: None)
    assert read_image(path).shape == (1000, 1000, 1)


def test_free_memory_is_known_here() -> None:
    free = available_memory()
    assert free is None or 10e6 < free < 1e14
