"""Typed access to JSON objects that others wrote: absent is None, a wrong type is one clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segshrink.errors import DataError
from segshrink.files import read_json
from segshrink.formatting import printable

T = TypeVar("T")


class Section:
    """A JSON object of ``file``; ``place`` is its path inside the file, for errors.

    Attributes:
        values: All that it holds, as it is.
    """

    def __init__(self, file: Path, values: Any, place: str = "") -> None:
        self._file = file
        self._place = place
        if not isinstance(values, Mapping):
            raise self._error("", "an object", values)
        self.values: Mapping[str, Any] = values

    @classmethod
    def open(cls, file: Path) -> Section:
        """Return the object in ``file``.

        Raises:
            FileError: There is no such file, or it isn't JSON.
            DataError: It holds no object.
        """
        return cls(file, read_json(file))

    @classmethod
    def read(cls, file: Path) -> Section | None:
        """Return the object in ``file``, or None when there is no such file."""
        return cls.open(file) if file.is_file() else None

    def text(self, key: str) -> str | None:
        """Return a string that can be shown; a number counts as its text."""
        found = self.path(key)
        return None if found is None else printable(found)

    def path(self, key: str) -> str | None:
        """Return a string as it is; a number counts as its text."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str | int | float):
            return str(value)
        raise self._error(key, "a text", value)

    def flag(self, key: str) -> bool:
        """Return a truth value; absent is False."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self._error(key, "true or false", value)

    def number(self, key: str) -> float | None:
        """Return a number; null is None."""
        return self._number(key, self.values.get(key))

    def count(self, key: str) -> int | None:
        """Return a whole number."""
        value = self.number(key)
        return None if value is None else round(value)

    def numbers(self, key: str) -> tuple[float | None, ...]:
        """Return a list of numbers; absent is empty."""
        return tuple(self._number(key, value) for value in self._list(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; absent is empty."""
        return tuple(printable(str(value)) for value in self._list(key))

    def table(self, key: str) -> list[list[float]]:
        """Return a list of equally long lists of numbers, null as 0; absent is empty."""
        rows = self._list(key)
        if any(not isinstance(row, list) for row in rows) or len({len(row) for row in rows}) > 1:
            raise self._error(key, "a list of equally long lists", rows)
        return [[self._number(key, value) or 0.0 for value in row] for row in rows]

    def section(self, key: str) -> Section | None:
        """Return an inner object."""
        value = self.values.get(key)
        return None if value is None else Section(self._file, value, self._name(key))

    def sections(self, key: str) -> list[Section]:
        """Return a list of inner objects; absent is empty."""
        return [Section(self._file, value, f"{self._name(key)}[{i}]") for i, value in enumerate(self._list(key))]

    def known_text(self, key: str) -> str:
        """Return a string that has to be there."""
        return self._known(key, self.path(key))

    def known_number(self, key: str) -> float:
        """Return a finite number that has to be there."""
        return self._known(key, self.number(key))

    def known_section(self, key: str) -> Section:
        """Return an inner object that has to be there."""
        return self._known(key, self.section(key))

    def missing(self, key: str) -> DataError:
        """Return the error for a field that has to be there."""
        return DataError(f"{self._file}: '{self._name(key)}' is missing; evaluate the model again")

    def _known(self, key: str, value: T | None) -> T:
        if value is None:
            raise self.missing(key)
        return value

    def _list(self, key: str) -> Sequence[Any]:
        value = self.values.get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        raise self._error(key, "a list", value)

    def _number(self, key: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise self._error(key, "a number", value)

    def _name(self, key: str) -> str:
        return ".".join(part for part in (self._place, key) if part)

    def _error(self, key: str, expected: str, found: Any) -> DataError:
        field = self._name(key)
        where = f"'{field}'" if field else "the file"
        return DataError(f"{self._file}: {where} must be {expected}, found {type(found).__name__}; write it again")
