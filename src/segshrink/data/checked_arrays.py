"""Arrays in files that are mapped, not read, and compared with checksums before they are used.

A file is what numpy's ``save`` writes, followed by a CRC-32 of its header, one of each MiB of its numbers, and a mark.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import FileError
from segshrink.files import replacing
from segshrink.machine import most_open_files

_BLOCK = 1 << 20
_MARK = b"segsum1"
# Bytes of a header before its text: what kind of file it is, and the text's length.
_MAGIC = 10
# Share of the files that a process may have open which the arrays of one collection take.
_SHARE = 8


class DamagedError(ValueError):
    """A file doesn't hold the array that was written; says how that was noticed."""


@dataclass(frozen=True)
class ArrayHeader:
    """What a file says about its array.

    Attributes:
        shape: Its axes.
        dtype: Type of its numbers.
        note: One letter that was written along.
        start: Bytes before the numbers.
        sums: Checksums of the header and of each block.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    note: str
    start: int
    sums: tuple[int, ...]


def write_array(path: Path, array: NDArray[Any], *, note: str = "-", durable: bool = False) -> None:
    """Write an array with its checksums, whole or not at all.

    Args:
        path: The file.
        array: The array.
        note: One letter to keep beside it.
        durable: Wait until it is on the disk.

    Raises:
        FileError: The folder can't be written.
    """
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    numbers = array.reshape(-1).view(np.uint8).data
    sums = [zlib.crc32(header.getvalue())]
    sums += [zlib.crc32(numbers[start : start + _BLOCK]) for start in range(0, len(numbers), _BLOCK)]
    with replacing(path, durable=durable) as temporary, temporary.open("wb") as stream:
        stream.write(header.getvalue())
        stream.write(numbers)
        stream.write(np.array(sums, "<u4").tobytes() + _MARK + note.encode())


def array_header(path: Path) -> ArrayHeader | None:
    """Return what a file says about its array; None: there is none, or it is damaged so far as that can be seen."""
    try:
        with path.open("rb") as stream:
            return _header(stream)
    except (FileNotFoundError, DamagedError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


class CheckedArrays:
    """Arrays in files, mapped read-only; bytes are compared with their checksum when they are first asked for.

    Every request looks whether the file is still the one that was mapped: one that was cut short isn't touched, which
    would end the process. What was compared stays so, while the file stays as it is, though its map be closed.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _Mapped] = OrderedDict()
        self._compared: dict[Path, tuple[_Stamp, bytearray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": OrderedDict(), "_compared": {}}

    def get(self, path: Path, *, most: int, rows: slice | None = None) -> NDArray[Any]:
        """Return the array in a file, of which only ``rows`` (None: all) may be looked at.

        Args:
            path: The file.
            most: Files to hold open at once, where the system allows so many.
            rows: Along the first axis.

        Raises:
            FileNotFoundError: There is no such file.
            DamagedError: It isn't what was written.
            FileError: It can't be read.
        """
        try:
            status = path.stat()
        except NotADirectoryError as error:
            raise FileNotFoundError(path) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        mapped = self._open.get(path)
        if mapped is None or mapped.stamp != stamp:
            mapped = self._mapped(path, stamp, most)
        mapped.compare(rows)
        return mapped.array

    def _mapped(self, path: Path, stamp: _Stamp, most: int) -> _Mapped:
        self._open.pop(path, None)
        try:
            mapped = _map(path, stamp)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
            self._open.clear()
            mapped = _map(path, stamp)
        stamp_before, compared = self._compared.get(path, (None, bytearray()))
        if stamp_before == stamp:
            mapped.compared = compared
        self._compared[path] = (stamp, mapped.compared)
        self._open[path] = mapped
        while len(self._open) > _at_once(most):
            self._open.popitem(last=False)
        return mapped


_Stamp = tuple[int, int, int]


class _Mapped:
    """A mapped array and which of its blocks were compared."""

    def __init__(self, stamp: _Stamp, header: ArrayHeader, pages: mmap.mmap) -> None:
        count = math.prod(header.shape)
        # A plain array over the pages: slicing a memmap costs five times as much.
        self.array: NDArray[Any] = np.frombuffer(pages, header.dtype, count, header.start).reshape(header.shape)
        self.stamp = stamp
        self.compared = bytearray(len(header.sums) - 1)
        self._sums = header.sums[1:]
        self._numbers = memoryview(pages)[header.start : header.start + self.array.nbytes]

    def compare(self, rows: slice | None) -> None:
        """Compare the blocks that hold some rows with their checksums, unless that was done."""
        first, last = 0, len(self.compared)
        if rows is not None and self.array.ndim and len(self.array):
            start, stop, _ = rows.indices(len(self.array))
            row = self.array.nbytes // len(self.array)
            first, last = start * row // _BLOCK, -(-stop * row // _BLOCK)
        block = self.compared.find(0, first, last)
        while block >= 0:
            checksum = zlib.crc32(self._numbers[block * _BLOCK : (block + 1) * _BLOCK])
            if checksum != self._sums[block]:
                raise DamagedError(f"bytes {block * _BLOCK} to {(block + 1) * _BLOCK} aren't those that were written")
            self.compared[block] = 1
            block = self.compared.find(0, block, last)


def _map(path: Path, stamp: _Stamp) -> _Mapped:
    try:
        with path.open("rb") as stream:
            header = _header(stream)
            return _Mapped(stamp, header, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def _header(stream: io.BufferedReader) -> ArrayHeader:
    """Read what a file says, and see that it is as long as that takes.

    Raises:
        DamagedError: It isn't what ``write_array`` writes.
    """
    magic = stream.read(_MAGIC)
    header_bytes = magic + stream.read(int.from_bytes(magic[-2:], "little"))
    shape, fortran, dtype = _parsed(header_bytes)
    start = len(header_bytes)
    size = math.prod(shape) * dtype.itemsize
    count = 1 + -(-size // _BLOCK)
    stream.seek(start + size)
    sums, mark, rest = stream.read(4 * count), stream.read(len(_MARK) + 1), stream.read(1)
    if fortran or dtype.hasobject or len(mark) <= len(_MARK) or not mark.startswith(_MARK) or rest:
        raise DamagedError(f"it doesn't end as an array of {shape} {dtype} numbers does")
    header = ArrayHeader(shape, dtype, mark[-1:].decode("latin-1"), start, tuple(np.frombuffer(sums, "<u4").tolist()))
    if zlib.crc32(header_bytes) != header.sums[0]:
        raise DamagedError("its header isn't the one that was written")
    return header


@lru_cache(maxsize=64)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type that NumPy's header tells; images of one size have the same, and parsing is slow."""
    stream = io.BytesIO(header)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise DamagedError("it isn't an array of this program")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, EOFError, SyntaxError) as error:
        raise DamagedError(str(error)) from error
    return shape, fortran, dtype


def _at_once(most: int) -> int:
    """Return how many files to hold open: a share of what the system allows, and no more than ``most``."""
    allowed = most_open_files()
    return most if allowed is None else max(2, min(most, allowed // _SHARE))


def _unreadable(path: Path, error: OSError) -> OSError:
    """Return the error to raise; one that tells of too many open files keeps its number."""
    remedy = "check its permissions and the disk"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "let programs open more files at once (ulimit -n 1024)"
    failure = FileError(f"can't read {path}: {os.strerror(error.errno or 0)}; {remedy}")
    failure.errno = error.errno
    return failure
