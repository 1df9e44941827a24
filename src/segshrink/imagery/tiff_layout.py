"""The few bytes of TIFF that a Cloud-Optimised GeoTIFF is arranged with: directories of tags, and where tiles lie.

GDAL writes tags and compresses tiles; here directories are read from and put into files (TIFF 6.0; BigTIFF design of
the AWare Systems page; GDAL's COG driver documentation for the order of the parts).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

IMAGE_WIDTH, IMAGE_LENGTH = 256, 257
SUBFILE_TYPE = 254
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325

# Tags that say how pixels are stored and shown; the rest (georeference, metadata) belongs to the full image alone:
# bits, compression, photometric, samples, planes, predictor, colours, tile size, extra samples, format, no data.
_STORAGE_TAGS = (256, 257, 258, 259, 262, 277, 284, 317, 320, 322, 323, 338, 339, 42113)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LONG, _LONG8 = 4, 16
_LEADER = _TRAILER = 4
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
# Room for directories and headers of a file whose offsets fit into 32 bits.
_CLASSIC_LIMIT = (1 << 32) - (1 << 20)
# Tells GDAL how the file is arranged, which saves requests when it is read over the network; a program that edits the
# file in place turns NO into YES.
_STRUCTURE = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_STRUCTURE) + _STRUCTURE


@dataclass(frozen=True)
class Tag:
    """One entry of a directory: its TIFF type, how many values, and their bytes in little-endian order."""

    type: int
    count: int
    data: bytes

    @property
    def integers(self) -> tuple[int, ...]:
        """The values of an entry of whole numbers."""
        return struct.unpack(f"<{self.count}{_INTEGERS[self.type]}", self.data)


Directory = dict[int, Tag]


def integers(values: Sequence[int], *, wide: bool = False) -> Tag:
    """Make an entry of 32-bit whole numbers, or of 64-bit ones."""
    return Tag(_LONG8 if wide else _LONG, len(values), struct.pack(f"<{len(values)}{'Q' if wide else 'I'}", *values))


def first_directory(file: bytes | memoryview) -> Directory:
    """Read the first directory of a little-endian BigTIFF in memory."""
    view = memoryview(file)
    (start,) = struct.unpack_from("<Q", view, 8)
    (entries,) = struct.unpack_from("<Q", view, start)
    directory = {}
    for position in range(start + 8, start + 8 + 20 * entries, 20):
        tag, kind, count = struct.unpack_from("<HHQ", view, position)
        size = count * _SIZES[kind]
        place = position + 12 if size <= 8 else struct.unpack_from("<Q", view, position + 12)[0]
        directory[tag] = Tag(kind, count, bytes(view[place : place + size]))
    return directory


def overview_of(directory: Directory, height: int, width: int) -> Directory:
    """Derive the directory of a reduced image from that of the full one."""
    return {
        **{tag: entry for tag, entry in directory.items() if tag in _STORAGE_TAGS},
        SUBFILE_TYPE: integers([1]),
        IMAGE_WIDTH: integers([width]),
        IMAGE_LENGTH: integers([height]),
    }


def framed(tile: bytes | memoryview) -> bytes:
    """Put a compressed tile between its size and its last four bytes, as GDAL's note about the layout promises."""
    return b"".join((struct.pack("<I", len(tile)), tile, tile[-_TRAILER:]))


def head(directories: Sequence[Directory], tile_sizes: Sequence[Sequence[int]]) -> bytes:
    """Build everything that stands before the tiles of a Cloud-Optimised GeoTIFF.

    The tiles must follow ``framed`` and without gaps: those of the last directory first, those of the first directory
    last, each in the order of ``tile_sizes``.

    Args:
        directories: The full image's, then that of each overview from large to small; tile positions are replaced.
        tile_sizes: Bytes of every tile, unframed, by directory.

    Returns:
        Header, GDAL's note about the layout, and the directories; classic TIFF where offsets fit, else BigTIFF.
    """
    total = sum(sum(sizes) + len(sizes) * (_LEADER + _TRAILER) for sizes in tile_sizes)
    wide = total > _CLASSIC_LIMIT
    empty = [[0] * len(sizes) for sizes in tile_sizes]
    start = len(_arranged(directories, empty, tile_sizes, wide=wide))
    offsets: list[list[int]] = []
    for sizes in reversed(tile_sizes):
        positions = []
        for size in sizes:
            positions.append(start + _LEADER)
            start += _LEADER + size + _TRAILER
        offsets.insert(0, positions)
    return _arranged(directories, offsets, tile_sizes, wide=wide)


def _arranged(
    directories: Sequence[Directory],
    offsets: Sequence[Sequence[int]],
    tile_sizes: Sequence[Sequence[int]],
    *,
    wide: bool,
) -> bytes:
    pointer = "Q" if wide else "I"
    parts = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if wide else struct.pack("<2sHI", b"II", 42, 0))
    link = 8 if wide else 4
    parts += _GHOST
    for directory, places, sizes in zip(directories, offsets, tile_sizes, strict=True):
        parts += b"\0" * (len(parts) % 2)
        struct.pack_into(f"<{pointer}", parts, link, len(parts))
        entries = {**directory, TILE_OFFSETS: integers(places, wide=wide), TILE_BYTE_COUNTS: integers(sizes)}
        link = _append(parts, entries, wide=wide)
    return bytes(parts)


def _append(parts: bytearray, directory: Directory, *, wide: bool) -> int:
    """Append a directory and its values; return where the link to the next directory stands."""
    count, entry, inline = ("<Q", "<HHQ8s", 8) if wide else ("<H", "<HHI4s", 4)
    pointer = "<Q" if wide else "<I"
    table = len(parts) + struct.calcsize(count)
    link = table + struct.calcsize(entry) * len(directory)
    outside = bytearray()
    parts += struct.pack(count, len(directory))
    for number, tag in sorted(directory.items()):
        data = tag.data
        if len(data) > inline:
            place = link + inline + len(outside)
            outside += data + b"\0" * (len(data) % 2)
            data = struct.pack(pointer, place)
        parts += struct.pack(entry, number, tag.type, tag.count, data)
    parts += b"\0" * inline
    parts += outside
    return link
