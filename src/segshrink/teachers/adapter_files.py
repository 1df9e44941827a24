"""What is written about a foreign model: its adapter, and the names of its classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from segshrink.config import Adapter, TeacherSource, load_adapter
from segshrink.errors import ConfigError, FileError


def adapter_of(source: TeacherSource) -> Adapter:
    """Return how a teacher takes pixels and what it answers, from the source or the file that it names.

    Raises:
        FileError: The adapter file is missing or unreadable.
        ConfigError: The adapter file is wrong.
    """
    if isinstance(source.adapter, Path):
        return load_adapter(source.adapter)
    return source.adapter or Adapter()


def class_names(adapter: Adapter) -> tuple[str, ...] | None:
    """Return the teacher's class names in order; None where the adapter says nothing about them.

    A text file holds one name a line; spaces around it and empty lines at the end don't count.

    Raises:
        FileError: The text file is missing, unreadable or no text.
        ConfigError: There is no name, an empty one, or one that comes twice (upper and lower case are alike).
    """
    if adapter.classes is None:
        return None
    where = "the adapter's 'classes'" if isinstance(adapter.classes, list) else str(adapter.classes)
    names = adapter.classes if isinstance(adapter.classes, list) else _lines(adapter.classes)
    names = [name.strip() for name in names]
    if not names:
        raise ConfigError(f"{where} names no class; give one name for each, in order")
    if "" in names:
        raise ConfigError(f"{where} has no name for class {names.index('')} (counted from 0); give one for each")
    (first, count), *_ = Counter(name.casefold() for name in names).most_common(1)
    if count > 1:
        raise ConfigError(f"{where} names the class '{first}' {count} times; each name must be given once")
    return tuple(names)


def _lines(path: Path) -> list[str]:
    try:
        # Text files from Windows may begin with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file of class names ({error.reason}); give one name a line") from error
    except OSError as error:
        raise FileError(
            f"can't read the class names in {path}: {error.strerror or error}; the path is relative to the adapter file"
        ) from error
    return text.rstrip().splitlines()
