"""Watching a folder: images are predicted as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.errors import FileError, UsageError
from segshrink.files import expanded
from segshrink.imagery.raster_files import Source
from segshrink.imagery.scenes import images_below
from segshrink.prediction.scenes.archive import Shard
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import is_file_name
from segshrink.prediction.scenes.predict import Archive, LeftOut, Progress, SceneResult

if TYPE_CHECKING:
    from segshrink.prediction.backends import Model

# Size and time of a file's last change: while it is written, one of them changes.
_Stamp = tuple[int, int]


def watch_scenes(
    model: Model | Sequence[Model],
    folder: str | Path,
    out: str | Path,
    options: SceneOptions | None = None,
    *,
    interval: float = 2.0,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> Iterator[SceneResult | LeftOut]:
    """Predict the images in a folder and below, and those that come, until the caller stops or is interrupted.

    An image is predicted once its size and time have stood still between two looks. One that can't be read is left out
    as in ``predict_scenes``, and tried again when it has changed; the others go on. Results lie in folders like the
    images'; started again, what was predicted before is skipped. Several processes may watch one folder.

    Args:
        model: As in ``predict_scenes``.
        folder: The folder; its hidden files don't count.
        out: Folder for the results; it may lie in the watched one.
        options: As in ``predict_scenes``.
        interval: Seconds between two looks.
        shard: Predict this share of the images only.
        progress: As in ``predict_scenes``.

    Yields:
        What became of each image, as soon as that is known.

    Raises:
        UsageError: ``out`` is a file or the watched folder, or ``interval`` isn't above 0.
        FileError: There is no such folder, or a result can't be written.
        ModelError: The model can't be opened, or fails.
        MissingExtraError: Polygons are asked for, and what writes them isn't installed.
    """
    place = expanded(folder)
    if not place.is_dir():
        raise FileError(f"there is no folder {place} to watch; make it, or check the path")
    if is_file_name(Path(out)) or Path(out).resolve() == place.resolve():
        raise UsageError(f"--out {out} can't take the results of a watched folder; give another folder")
    if not interval > 0:
        raise UsageError(f"interval must be above 0 seconds, found {interval:g}")
    return _watched(Archive(model, {}, Path(out), options or SceneOptions()), place, interval, shard, progress)


def _watched(
    archive: Archive, folder: Path, interval: float, shard: Shard | None, progress: Progress | None
) -> Iterator[SceneResult | LeftOut]:
    with archive:
        arrivals = _Arrivals(folder, archive.folder.resolve())
        while True:
            ready: Mapping[Source, Path] = {path: path.parent.relative_to(folder) for path in arrivals.ready()}
            for scene, place in (ready if shard is None else shard.of(ready)).items():
                yield archive.predict_alone(scene, place, progress)
            time.sleep(interval)


class _Arrivals:
    """Images of a folder, each given when it has stood still, and again when it has changed since."""

    def __init__(self, folder: Path, leave_out: Path) -> None:
        self._folder, self._leave_out = folder, leave_out
        self._seen: dict[Path, _Stamp] = {}
        self._given: dict[Path, _Stamp] = {}

    def ready(self) -> list[Path]:
        """Look, and return what is as it was at the last look and hasn't been given so."""
        images = images_below(self._folder, leave_out=self._leave_out)
        now = {path: stamp for path in images if (stamp := _stamp(path)) is not None}
        ready = [path for path, stamp in now.items() if self._seen.get(path) == stamp != self._given.get(path)]
        given = {path: stamp for path, stamp in self._given.items() if path in now}
        self._seen, self._given = now, {**given, **{path: now[path] for path in ready}}
        return ready


def _stamp(path: Path) -> _Stamp | None:
    """Return what tells whether a file changes; None of an empty one and of one that is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None
