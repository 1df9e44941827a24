"""Reading recipes and descriptions: safe YAML, ``key=value`` overrides, errors that name the field and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from segshrink.config.base import Strict
from segshrink.config.dataset import DatasetDescription
from segshrink.config.recipe import Recipe
from segshrink.errors import ConfigError, FileError, nearest

Section = TypeVar("Section", bound=Strict)


def load_dataset(path: Path, overrides: Sequence[str] = ()) -> DatasetDescription:
    """Read a data set description; ``overrides`` are ``key=value`` texts (``root=/data``, ``split.held_out=a``).

    Raises:
        FileError: The file is missing or unreadable.
        ConfigError: Not YAML, an unknown key (the nearest is named), a value of the wrong kind.
    """
    return _validate(DatasetDescription, _override(_dataset_mapping(Path(path)), overrides), str(path))


def load_recipe(path: Path, overrides: Sequence[str] = (), data: Path | None = None) -> Recipe:
    """Read a recipe; its ``data`` may be the path of a description, relative to the recipe, or stand in it whole.

    Args:
        path: The YAML file.
        overrides: ``key=value`` texts, dots reach into sections (``student.training.epochs=5``).
        data: A data set description that replaces the recipe's.

    Raises:
        FileError: A file is missing or unreadable.
        ConfigError: Not YAML, an unknown key (the nearest is named), a value of the wrong kind.
    """
    path = Path(path)
    mapping = read_yaml(path)
    if data is not None:
        mapping["data"] = _dataset_mapping(Path(data))
    elif isinstance(mapping.get("data"), str):
        mapping["data"] = _dataset_mapping(path.parent / mapping["data"])
    elif isinstance(mapping.get("data"), dict):
        mapping["data"] = _anchored(mapping["data"], "root", path.parent)
    for role in ("teacher", "student"):
        learner = mapping.get(role)
        if isinstance(learner, dict) and isinstance(learner.get("model"), dict):
            mapping[role] = {**learner, "model": _anchored(learner["model"], "encoder_weights", path.parent)}
    return _validate(Recipe, _override(mapping, overrides), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"can't read {path}: {reason}; give the path of a YAML file") from error
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise ConfigError(f"{path}{line} is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines, found {type(value).__name__}")
    return value


def dump_yaml(section: Strict) -> str:
    """Write a section as YAML that ``load_recipe`` or ``load_dataset`` reads back."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _dataset_mapping(path: Path) -> dict[str, Any]:
    mapping = read_yaml(path)
    return _anchored({"root": ".", **mapping}, "root", path.parent)


def _anchored(mapping: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """Make the path at ``key`` absolute, seen from ``folder``."""
    if not isinstance(mapping.get(key), str):
        return mapping
    return {**mapping, key: str((folder / Path(mapping[key]).expanduser()).resolve())}


def _override(mapping: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"override '{text}' must look like key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"override '{text}': the value is not valid YAML") from error
        mapping = _with(mapping, key.split("."), parsed, text)
    return mapping


def _with(mapping: dict[str, Any], keys: list[str], value: Any, text: str) -> dict[str, Any]:
    head, *rest = keys
    if not rest:
        return {**mapping, head: value}
    inner = mapping.get(head)
    if inner is not None and not isinstance(inner, dict):
        raise ConfigError(f"override '{text}': '{head}' is a single value, it has no '{rest[0]}'")
    return {**mapping, head: _with(inner or {}, rest, value, text)}


def _validate(kind: type[Section], mapping: dict[str, Any], source: str) -> Section:
    try:
        return kind.model_validate(mapping)
    except ValidationError as error:
        raise ConfigError(_sentence(kind, error, source)) from error


def _sentence(kind: type[BaseModel], error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    field = ".".join(place)
    if first["type"] == "extra_forbidden":
        owner = _section_at(kind, place[:-1])
        known = owner.model_fields if owner else ()
        return f"{source}: unknown key '{field}'{nearest(place[-1], known)}"
    if first["type"] == "missing":
        return f"{source}: '{field}' is missing; add it"
    found = first["input"]
    shown = f", found {found!r}" if not isinstance(found, dict) else ""
    return f"{source}: '{field}' is wrong: {first['msg'].removeprefix('Value error, ')}{shown}"


def _section_at(kind: type[BaseModel], place: list[str]) -> type[BaseModel] | None:
    """Follow field names from ``kind`` to the section class that ``place`` reaches."""
    current: type[BaseModel] | None = kind
    for part in place:
        if current is None:
            return None
        if part.isdigit():
            continue
        field = current.model_fields.get(part)
        current = _section_in(field.annotation) if field else None
    return current


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner))), None)
