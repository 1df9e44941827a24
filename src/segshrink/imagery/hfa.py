"""ERDAS Imagine files (HFA: ``.img``, ``.aux``), which may keep pixels and overviews in other files."""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

from segshrink.errors import FileError

# Nodes of the tree in a file that name others: ``.ige`` with pixels, ``.rrd`` with overviews. GDAL looks for a node by
# its name in any case, which fills a field of 64 bytes with zeros.
_NAMING_NODES = re.compile(rb"(ExternalRasterDMS|RRDNamesList)\0", re.IGNORECASE)
# Where in a node its name stands, and the place and length of its data.
_NAME, _DATA = 24, 16
_ELSEWHERE = re.compile(rb"[\x20-\x7e\x80-\xff]*[/\\][\x20-\x7e\x80-\xff]*")
# Shorter runs of letters are numbers that look like some.
_SHORTEST = 3


def refuse_names_elsewhere(path: Path) -> None:
    """Refuse a file that names others in another folder, which GDAL would open.

    Raises:
        FileError: It does.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for node in _NAMING_NODES.finditer(content):
            place, length = struct.unpack_from("<II", content, max(0, node.start() - _NAME) + _DATA)
            for name in _ELSEWHERE.findall(content[place : place + length]):
                if len(name) >= _SHORTEST:
                    raise FileError(
                        f"{path} keeps pixels or overviews in a file of another folder ({name[:80]!r}), which isn't "
                        "read; put its files into one folder and write it again (gdal_translate)"
                    )
