"""Reading recipes and descriptions: safe YAML, ``key=value`` overrides, errors that name the field and the remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from segshrink.config.base import Strict, is_open
from segshrink.config.dataset import DatasetDescription
from segshrink.config.messages import explain
from segshrink.config.recipe import OWN_NETWORKS, Recipe
from segshrink.config.search_space import OpenValue, close, parse_open, value_at, with_values
from segshrink.config.teachers import Adapter, TeacherSource
from segshrink.config.yaml_text import format_yaml, parse_yaml
from segshrink.errors import ConfigError, FileError, UsageError
from segshrink.files import expanded, is_utf8
from segshrink.library import ready_models
from segshrink.model_file import ModelFile, keras_path

Section = TypeVar("Section", bound=Strict)

# What an override of one of them replaces, too: they say one thing.
_OTHER_SHARE = {
    "distillation.alpha": "distillation.soft_weight",
    "distillation.soft_weight": "distillation.alpha",
}
# What may stand there instead of a path.
_NO_PATHS = {("encoder_weights", "imagenet")}
# Kinds of teachers whose name is, or may be, that of a file or folder.
_FILE_KINDS = ("hf", "keras", "labels", "onnx", "tflite")
# Characters of a YAML file.
_LARGEST = 4_000_000


def load_dataset(path: Path, overrides: Sequence[str] = ()) -> DatasetDescription:
    """Read a data set description; ``overrides`` are ``key=value`` texts (``root=/data``, ``split.held_out=a``).

    Raises:
        FileError: The file is missing or unreadable.
        ConfigError: Not YAML, an unknown key (the nearest is named), a value of the wrong kind.
    """
    stages = [(str(path), _dataset_mapping(Path(path)))]
    for text in overrides:
        keys, value = _parsed(text)
        value = value_at(_anchored(_with({}, keys, value, text), "root", Path()), ".".join(keys))
        stages.append((f"override '{text}'", _with(stages[-1][1], keys, value, text)))
    return _validate(DatasetDescription, stages)


def as_recipe(recipe: Recipe | str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe as it is, or read it from its file; ``overrides`` as in ``load_recipe``.

    Raises:
        FileError: The file is missing or unreadable.
        ConfigError: It isn't a recipe, or an override doesn't fit.
    """
    if not isinstance(recipe, Recipe):
        return load_recipe(Path(recipe), overrides)
    if not overrides:
        return recipe
    return _validate(Recipe, _overridden("the recipe", recipe.model_dump(mode="json"), overrides))


def load_recipe(path: Path, overrides: Sequence[str] = (), data: Path | None = None) -> Recipe:
    """Read a recipe; its ``data`` may be the path of a description, relative to the recipe, or stand in it whole.

    ``data: {file: PATH, key: value}`` changes keys of a description in a file.

    Args:
        path: The YAML file.
        overrides: ``key=value`` texts, dots reach into sections (``student.training.epochs=5``); paths in them are
            relative to the working folder.
        data: A data set description that replaces the recipe's.

    Raises:
        FileError: A file is missing or unreadable.
        ConfigError: Not YAML, an unknown key (the nearest is named), a value of the wrong kind.
    """
    return _validate(Recipe, _overridden(str(path), _recipe_mapping(Path(path), data), overrides))


def load_open_recipe(
    path: Path, overrides: Sequence[str] = (), data: Path | None = None
) -> tuple[Recipe, dict[str, OpenValue]]:
    """Read a recipe with open values, such as ``learning_rate: {log: [1e-4, 1e-2]}``, in it or in overrides.

    Args:
        path: As in ``load_recipe``.
        overrides: As in ``load_recipe``; one may open a value, ``crops.size='{choice: [128, 256]}'``.
        data: As in ``load_recipe``.

    Returns:
        The recipe with each open value's own value in its place, and the open values by place.

    Raises:
        FileError: As ``load_recipe``.
        ConfigError: As ``load_recipe``, or an open value is written wrongly.
    """
    mapping, space = close(_recipe_mapping(Path(path), data))
    opening = {place: value for place, value in map(_placed, overrides) if is_open(value)}
    closing = [text for text in overrides if _placed(text)[0] not in opening]
    recipe = _validate(Recipe, _overridden(str(path), mapping, closing))
    opened = {place: parse_open(value, place) for place, value in opening.items()}
    closed = {_placed(text)[0] for text in closing}
    replaced = tuple(f"{place}." for place in closed | {_OTHER_SHARE.get(place, place) for place in closed})
    kept = {place: value for place, value in space.items() if not f"{place}.".startswith(replaced)}
    defaults = {place: value.default for place, value in opened.items() if value.default is not None}
    return with_values(recipe, defaults), {**kept, **opened}


def _placed(text: str) -> tuple[str, Any]:
    """Read an override: the place of its value, and the value."""
    keys, value = _parsed(text)
    return ".".join(keys), value


def _recipe_mapping(path: Path, data: Path | None) -> dict[str, Any]:
    """Read a recipe's file with the data set description that it names or that replaces it; paths become absolute."""
    mapping = read_yaml(path)
    if data is not None:
        mapping["data"] = _dataset_mapping(Path(data))
    elif isinstance(mapping.get("data"), str):
        mapping["data"] = _dataset_mapping(path.parent / mapping["data"])
    elif isinstance(given := mapping.get("data"), dict) and isinstance(given.get("file"), str):
        changes = {key: value for key, value in given.items() if key != "file"}
        mapping["data"] = _dataset_mapping(path.parent / given["file"]) | changes
    elif isinstance(mapping.get("data"), dict):
        mapping["data"] = {"root": ".", **mapping["data"]}
    return _anchored_recipe(mapping, path.parent)


def _overridden(name: str, mapping: dict[str, Any], overrides: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return a recipe's mapping as it stands at first and after each override.

    Paths in overrides are seen from the working folder, as on any command line.
    """
    stages = [(name, mapping)]
    for text in overrides:
        keys, value = _parsed(text)
        if keys == ["data"] and isinstance(value, str):
            value = _dataset_mapping(Path(value))
        else:
            value = value_at(_anchored_recipe(_with({}, keys, value, text), Path()), ".".join(keys))
        earlier = _without_other_share(stages[-1][1], ".".join(keys))
        stages.append((f"override '{text}'", _with(earlier, keys, value, text)))
    return stages


def _without_other_share(mapping: dict[str, Any], place: str) -> dict[str, Any]:
    """Leave out what an override of ``place`` replaces beside it."""
    other, shares = _OTHER_SHARE.get(place), mapping.get("distillation")
    if other is None or not isinstance(shares, dict):
        return mapping
    return {**mapping, "distillation": {key: value for key, value in shares.items() if f"distillation.{key}" != other}}


def distillation_overrides(teacher: str | Path | Sequence[str | Path] = (), student: str | None = None) -> list[str]:
    """Return the overrides of a recipe that put these teachers and this student in the place of its own.

    Options and weights of the recipe's student belong to its network, so another network comes without them.
    """
    teachers = [teacher] if isinstance(teacher, str | Path) else list(teacher)
    overrides = [f"student.model={json.dumps({'id': str(student)})}"] if student else []
    if teachers:
        overrides.append(f"distillation.teachers={json.dumps([{'source': str(source)} for source in teachers])}")
    return overrides


def absolute_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe whose relative paths are absolute, seen from the working folder, as in one read from a file.

    Raises:
        ConfigError: A path can't be followed.
    """
    return _validate(Recipe, [("the recipe", _anchored_recipe(recipe.model_dump(mode="json"), Path()))])


def load_adapter(path: Path) -> Adapter:
    """Read how a foreign model takes pixels and what it answers; a list of classes is looked for beside the file.

    Raises:
        FileError: The file is missing or unreadable.
        ConfigError: Not YAML, an unknown key (the nearest is named), a value of the wrong kind.
    """
    path = Path(path)
    return _validate(Adapter, [(str(path), _anchored(read_yaml(path), "classes", path.parent))])


def adapter_beside(file: ModelFile) -> Adapter:
    """Read what ``FILE.yaml`` beside a file of a network says about it; nothing where there is none.

    Raises:
        ConfigError: As ``load_adapter``.
    """
    return load_adapter(file.adapter) if file.adapter.is_file() else Adapter()


def adapter_of(source: TeacherSource) -> Adapter:
    """Return how a teacher takes pixels and what it answers, from the source, the file that it names or ``FILE.yaml``.

    Raises:
        FileError: The adapter file is missing or unreadable.
        ConfigError: The adapter file is wrong.
    """
    if isinstance(source.adapter, Path):
        return load_adapter(source.adapter)
    kind, _, name = source.source.partition(":")
    path = expanded(name) if kind in ("onnx", "tflite") else keras_path(source.source)
    if source.adapter is None and path is not None:
        return adapter_beside(ModelFile(path))
    return source.adapter or Adapter()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises:
        FileError: The file is missing or unreadable.
        ConfigError: It isn't YAML or no mapping.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # not UTF-8; a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"can't read {path}: {reason}; give the path of a YAML file") from error
    if len(text) > _LARGEST:
        raise ConfigError(f"{path} is longer than {_LARGEST:,} characters; put long lists into text files")
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"{path} must hold 'key: value' lines, found {kind}")
    return value


def dump_yaml(section: Strict) -> str:
    """Write a section as YAML that ``load_recipe`` or ``load_dataset`` reads back."""
    return format_yaml(section.model_dump(mode="json"))


def _anchored_recipe(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of a recipe absolute; a data set's root too, where it stands in the recipe."""
    mapping = _anchored(dict(mapping), "start", folder)
    if isinstance(mapping.get("data"), dict):
        mapping["data"] = _anchored(mapping["data"], "root", folder)
    for role in ("teacher", "student"):
        learner = _unfolded(mapping.get(role), "model")
        if isinstance(learner, dict) and "model" in learner:
            mapping[role] = {**learner, "model": _anchored_network(learner["model"], folder)}
    if isinstance(bank := mapping.get("teacher"), dict) and isinstance(bank.get("members"), list):
        mapping["teacher"] = {**bank, "members": [_anchored_network(member, folder) for member in bank["members"]]}
    if isinstance(distillation := mapping.get("distillation"), dict):
        distillation = _anchored(distillation, "teacher_cache", folder)
        if "teachers" in distillation:
            distillation = {**distillation, "teachers": _anchored_teachers(distillation["teachers"], folder)}
        mapping["distillation"] = distillation
    return mapping


def _dataset_mapping(path: Path) -> dict[str, Any]:
    return _anchored({"root": ".", **read_yaml(path)}, "root", path.parent)


def _anchored(mapping: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """Make the path at ``key`` absolute, seen from ``folder``."""
    if not isinstance(text := mapping.get(key), str) or (key, text) in _NO_PATHS:
        return mapping
    if text in ready_models() and not _exists(folder / text):
        return mapping
    return {**mapping, key: _absolute(text, folder)}


def _unfolded(value: Any, key: str) -> Any:
    """Write out a text that stands for a section with nothing but ``key``."""
    return {key: value} if isinstance(value, str) else value


def _anchored_network(value: Any, folder: Path) -> Any:
    """Make the paths of a network's section absolute; a text alone stands for its ``id``."""
    if not isinstance(model := _unfolded(value, "id"), dict):
        return value
    anchored = _anchored(_anchored(model, "encoder_weights", folder), "start", folder)
    if "id" in model and model["id"] == model.get("start"):  # as in a recipe that was read
        return {**anchored, "id": anchored["start"]}
    return _anchored_model(anchored, folder)


def _anchored_model(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the folder that a network's id names absolute: what is written like one, or holds a model in ``folder``."""
    identity = model.get("id")
    if not isinstance(identity, str) or identity in OWN_NETWORKS:
        return model
    if identity.startswith("hf:"):
        return {**model, "id": _found(identity, folder)}
    path = _beside(identity, folder)
    written = identity.startswith((".", "~")) or ("/" in identity and ":" not in identity)
    if written or any(_exists(Path(path) / name) for name in ("config.json", "model/config.json")):
        return {**model, "id": _absolute(identity, folder)}
    return model


def _anchored_teachers(value: Any, folder: Path) -> Any:
    """Make the paths of files that teachers name absolute where there is such a file in ``folder``.

    What isn't there is left as it is: it may be the name of a function, of published weights or of a model on a hub.
    """
    if not isinstance(value, list):
        return value
    teachers = []
    for teacher in (_unfolded(entry, "source") for entry in value):
        if not isinstance(teacher, dict):
            return value
        anchored: dict[str, Any] = {
            key: _beside(text, folder) for key in ("adapter", "weights") if isinstance(text := teacher.get(key), str)
        }
        if isinstance(source := teacher.get("source"), str):
            anchored["source"] = _found(source, folder)
        if isinstance(adapter := teacher.get("adapter"), dict) and isinstance(adapter.get("classes"), str):
            anchored["adapter"] = {**adapter, "classes": _beside(adapter["classes"], folder)}
        teachers.append({**teacher, **anchored})
    return teachers


def _found(source: str, folder: Path) -> str:
    """Make the path in "FOLDER", "hf:FOLDER" or "onnx:FILE" absolute where there is such a file in ``folder``."""
    kind, _, name = source.partition(":")
    return f"{kind}:{_beside(name, folder)}" if kind in _FILE_KINDS else _beside(source, folder)


def _beside(text: str, folder: Path) -> str:
    if not text:
        return text
    path = Path(_absolute(text, folder))
    return str(path) if _exists(path) else text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than a file's name may be
        return False


def _absolute(text: str, folder: Path) -> str:
    try:
        path = (folder / Path(text).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"the path {text!r} can't be followed ({error}); correct it") from error
    if not is_utf8(path):
        raise ConfigError(f"{path} has a name that isn't UTF-8, which no recipe can hold; rename it")
    return str(path)


def _parsed(text: str) -> tuple[list[str], Any]:
    """Read an override: its keys and its value."""
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        raise UsageError(f"override '{text}' must look like key=value or section.key=value")
    try:
        parsed = parse_yaml(value, f"override '{text}'")
    except ConfigError as error:
        raise UsageError(str(error)) from error
    return keys, parsed


def _with(mapping: dict[str, Any], keys: list[str], value: Any, text: str) -> dict[str, Any]:
    head, *rest = keys
    if not rest:
        return {**mapping, head: value}
    inner = mapping.get(head)
    if isinstance(inner, list):
        raise UsageError(f"override '{text}': '{head}' is a list; give it whole, {head}=[...]")
    if inner is not None and not isinstance(inner, dict):
        raise UsageError(f"override '{text}': '{head}' is a single value, it has no '{rest[0]}'")
    return {**mapping, head: _with(inner or {}, rest, value, text)}


def _validate(kind: type[Section], stages: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    """Validate the last of several mappings; what is wrong with it is blamed on the first that has the same fault.

    Args:
        kind: The section.
        stages: A file and the overrides after it, each with the mapping as it stands then.
    """
    try:
        return kind.model_validate(stages[-1][1])
    except ValidationError as error:
        complaint = explain(kind, error)
        source = next(source for source, mapping in stages if _complaint(kind, mapping) == complaint)
        kind_of_error = ConfigError if source == stages[0][0] else UsageError
        raise kind_of_error(f"{source}: {complaint}") from error


def _complaint(kind: type[Section], mapping: dict[str, Any]) -> str | None:
    try:
        kind.model_validate(mapping)
    except ValidationError as error:
        return explain(kind, error)
    return None
