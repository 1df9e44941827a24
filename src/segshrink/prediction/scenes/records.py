"""Which results a folder holds and what made them, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segshrink.errors import FileError
from segshrink.files import content_key, read_json, write_json
from segshrink.imagery.scene_sources import Source, is_remote
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.planning import ScenePlan

RECORD_NAME = "predictions.json"


class Records:
    """The file ``predictions.json`` of a folder of results.

    It says for each class map which scene, model and options it came from.

    Args:
        folder: The folder, which needn't exist yet; None keeps no record.
        model: What ``model_key`` gave; None keeps no record.
        options: The options of this run.
    """

    def __init__(self, folder: Path | None, model: str | None, options: SceneOptions) -> None:
        self._path = None if folder is None or model is None else folder / RECORD_NAME
        self._made_by = {"model": model, "options": options.record()}

    def holds(self, plan: ScenePlan) -> bool:
        """Whether all results of a scene are there, made from the same scene by the same model and options."""
        if self._path is None or not all(path.exists() for path in plan.files.paths):
            return False
        return bool(self._read().get(plan.files.classes.name) == self._entry(plan))

    def add(self, plan: ScenePlan) -> None:
        """Note that a scene's results are written."""
        if self._path is None:
            return
        # Read anew, since another run may write into the folder, too.
        scenes = {**self._read(), plan.files.classes.name: self._entry(plan)}
        write_json(self._path, {"scenes": dict(sorted(scenes.items()))})

    def _entry(self, plan: ScenePlan) -> dict[str, Any]:
        return {**self._made_by, "scene": _identity(plan.source), "files": [path.name for path in plan.files.paths]}

    def _read(self) -> Mapping[str, Any]:
        assert self._path is not None  # noqa: S101
        try:
            scenes = read_json(self._path)["scenes"] if self._path.exists() else {}
        except (FileError, KeyError, TypeError):
            return {}  # a damaged record recognises nothing
        return scenes if isinstance(scenes, dict) else {}


def model_key(source: object) -> str | None:
    """Return a name for the content of a model file or folder; None for a model in memory."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source)
    if path.is_dir():
        path = path / "model" if (path / "model").is_dir() else path
        parts = sorted(part for part in path.iterdir() if part.suffix in (".json", ".safetensors"))
    else:
        parts = [path, *(part for part in (path.with_suffix(".bin"),) if path.suffix == ".xml" and part.exists())]
    return hashlib.sha256("".join(content_key(part) for part in parts).encode()).hexdigest()


def _identity(source: Source) -> dict[str, Any]:
    if is_remote(source):
        address = urlsplit(str(source))
        return {"url": f"{address.scheme}://{address.hostname}{address.path}"}  # without keys and signatures
    found = Path(source).stat()
    return {"name": Path(source).name, "bytes": found.st_size, "modified_ns": found.st_mtime_ns}
