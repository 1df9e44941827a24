"""Predicting scenes: from files or URLs to maps, tables of polygons and pictures."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, DataError, FileError, SegshrinkError
from segshrink.files import is_utf8, sweep
from segshrink.folder_lock import InUseError, claimed_name
from segshrink.formatting import listed
from segshrink.imagery.image_features import ImageSample
from segshrink.imagery.polygons import require_vector_extra
from segshrink.imagery.raster_files import Source
from segshrink.imagery.scenes import expand_sources
from segshrink.prediction.misuse import Misuse, find_misuse
from segshrink.prediction.scenes.archive import Estimate, Shard, Trial
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import SceneFiles, ScenePlan, is_file_name, open_for, plan_scenes
from segshrink.prediction.scenes.records import Records, prediction_key
from segshrink.prediction.scenes.stream import Streams, predict_pieces
from segshrink.prediction.scenes.write import Results, open_results
from segshrink.prediction.tiled import choose_tiling

if TYPE_CHECKING:
    from segshrink.prediction.backends import Backend, Model

_LOGGER = logging.getLogger(__name__)
# Why GDAL opens no such file.
_ODD_NAME = "a name that isn't UTF-8"
# Bytes of a name that a lock's name may hold, and still be one that file systems take.
_LONGEST_LOCKED = 200
# Seconds between two looks at scenes that other processes have under way.
_PATIENCE = 0.5
# Called with (pixels done, pixels in all, name of the scene).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SceneResult:
    """What became of a scene.

    Attributes:
        source: The scene.
        files: Its results.
        skipped: Whether an earlier run had made them, with the same model and options.
        misuse: What makes the scene unlike the images that the model learned from; None where nothing does, where the
            model doesn't know them, and where it is skipped.
    """

    source: Source
    files: SceneFiles
    skipped: bool
    misuse: Misuse | None = None


@dataclass(frozen=True)
class LeftOut:
    """A scene that couldn't be predicted, and why, as ``predictions.sqlite`` says it, too."""

    source: Source
    reason: str


def predict_scene(
    model: Model | Sequence[Model],
    source: Source,
    out: str | Path,
    options: SceneOptions | None = None,
    *,
    progress: Progress | None = None,
) -> SceneFiles:
    """Predict one scene; as ``predict_scenes``.

    Returns:
        The files written.
    """
    return predict_scenes(model, [source], out, options, progress=progress)[0].files


def predict_scenes(
    model: Model | Sequence[Model],
    sources: Sequence[Source],
    out: str | Path,
    options: SceneOptions | None = None,
    *,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> list[SceneResult]:
    """Predict scenes of any size.

    NAME.tif is a Cloud-Optimized GeoTIFF of class indices on the scene's grid, 255 where the scene has no data; for
    pictures without a place on the ground it is NAME.png. NAME.qml is its style in QGIS. Beside it stand, where asked
    for, NAME.probabilities.tif, NAME.confidence.tif, NAME.gpkg or NAME.geojson, and NAME.overlay.jpg. A scene's results
    get their names when all of them are whole. ``predictions.sqlite`` in the folder remembers what made them: a run
    that was interrupted goes on where it stopped, and results of another model or other options are never replaced
    unasked. Several processes may predict into one folder.

    A video becomes NAME.mp4 at its frame rate, every frame with the classes over it, without its sound.

    Args:
        model: What ``open_backend`` takes; of several, or a bank, the mean of their probabilities decides.
        sources: Images, folders of images, wildcards, URLs; anything GDAL reads; and videos. A folder that holds
            folders of images becomes such folders of results.
        out: Folder for the results; or, for one scene, a ``.tif`` or ``.png`` file, for one video an ``.mp4`` file.
        options: The options; by default those that suit the model.
        shard: Predict this share of the scenes only.
        progress: Called after every piece with (pixels done, pixels in all, name of the scene).

    Returns:
        What became of each scene, in order.

    Raises:
        FileError: A scene can't be read, or a result can't be written.
        DataError: A scene's bands or numbers aren't what the model takes.
        ConfigError: Results are in the way, two scenes would get one name, or options make no sense.
        ModelError: The model can't be opened, or fails.
        MissingExtraError: Polygons are asked for or videos are named, and what writes them isn't installed.

    A scene that can't be read, or whose name isn't UTF-8, is left out and noted in ``predictions.sqlite`` (table
    ``left_out``), the others are predicted, and then FileError says so; that of a single scene is its own.
    """
    scenes = expanded(sources, Path(out), shard)
    with Archive(model, scenes, Path(out), options or SceneOptions(), named=sources) as archive:
        return archive.predict(progress)


def estimate_scenes(
    model: Model | Sequence[Model],
    sources: Sequence[Source],
    out: str | Path,
    options: SceneOptions | None = None,
    *,
    shard: Shard | None = None,
) -> Estimate:
    """Tell what ``predict_scenes`` would take, by predicting a few scenes of all sizes into a temporary folder.

    Scenes whose results are there already don't count, and those that can't be read. Nothing is written to ``out``.

    Raises:
        FileError, DataError: No scene can be read.
        ConfigError, ModelError: As ``predict_scenes``.
    """
    scenes = expanded(sources, Path(out), shard)
    with Archive(model, scenes, Path(out), options or SceneOptions(), named=sources) as archive:
        return archive.estimate()


class _SceneError(Exception):
    """A scene can't be read or predicted; the others may be."""


class Archive:
    """Some scenes, a model, and the folder of their results; a context manager.

    Args:
        model: What ``open_backend`` takes, or several.
        scenes: Single scenes, and the folder inside ``out`` that each one's results go to.
        out: Folder of the results; or, for one scene, a file.
        options: The options.
        named: What the user named; a scene that stands there is tried whatever its name.
        precision: As ``open_backend`` takes it.
        classes: As ``open_backend`` takes them.
        opened: The model, where it is opened already and one is enough.
    """

    def __init__(
        self,
        model: Model | Sequence[Model],
        scenes: Mapping[Source, Path],
        out: Path,
        options: SceneOptions,
        *,
        named: Sequence[Source] = (),
        precision: str = "auto",
        classes: ClassMap | None = None,
        opened: Backend | None = None,
    ) -> None:
        self.scenes, self.out, self.options = scenes, out, options
        self.folder = _folder_of(out)
        self._named = {str(source) for source in named}
        self.failed: dict[Source, SegshrinkError] = {}
        self._stack = ExitStack()
        with ExitStack() as stack:
            streams = Streams(
                model if opened is None else opened,
                runtime=options.runtime,
                cores=options.threads,
                precision=precision,
                classes=classes,
            )
            self.streams = stack.enter_context(streams)
            backend = streams.backend
            self.tiling = choose_tiling(
                backend.description,
                runtime=backend.runtime,
                tile=backend.own_tile if options.tile is None else options.tile,
                overlap=options.overlap,
                batch=options.batch,
            )
            key = prediction_key(model, precision=precision, classes=classes)
            self.records = stack.enter_context(Records(self.folder, key, options))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def predict(self, progress: Progress | None) -> list[SceneResult]:
        """Predict what isn't yet, scene by scene; what another process has under way is waited for."""
        plans = self._plans(self._note)
        held = [plan for plan in plans if self._held(plan)]
        _tidy(held)
        finished = {plan.files.classes for plan in held}
        misused: dict[Path, Misuse | None] = {}
        waiting = deque(plan for plan in plans if plan.files.classes not in finished)
        self.records.refuse_foreign(waiting)
        if waiting and (vectors := waiting[0].files.vectors) is not None:
            require_vector_extra(vectors)
        total, done, busy = sum(plan.pixels for plan in waiting), 0, 0
        while waiting:
            plan = waiting.popleft()
            try:
                with claimed_name(_lock_of(plan), name=str(plan.files.classes)):
                    # Another process may have come first since the plans were made.
                    results = None
                    if not self._held(plan):
                        results = self._write(plan, self.records, partial(_report, progress, done, total))
                    if results is None or not results.published:
                        finished.add(plan.files.classes)
                    else:
                        misused[plan.files.classes] = results.misuse
                        if results.misuse is not None:  # said at once: a later scene may end the run
                            _LOGGER.warning("%s: %s", plan.source, results.misuse)
            except InUseError:
                waiting.append(plan)
                busy += 1
                if busy >= len(waiting):  # others have all that is left
                    time.sleep(_PATIENCE)
                continue
            except _SceneError as error:
                self._note(plan.source, error.__cause__)
            done, busy = done + plan.pixels, 0
        self._tell_failures()
        return [
            SceneResult(plan.source, plan.files, plan.files.classes in finished, misused.get(plan.files.classes))
            for plan in plans
        ]

    def predict_alone(self, scene: Source, place: Path, progress: Progress | None) -> SceneResult | LeftOut:
        """Predict a single scene; what is wrong with it, or with its place, is noted."""
        self.scenes, self.failed = {scene: place}, {}
        reason: SegshrinkError
        try:
            return self.predict(progress)[0]
        except ConfigError as error:
            reason = error
        except (FileError, DataError) as error:
            if error is not self.failed.get(scene):  # the folder of results can't be written
                raise
            reason = error
        self.records.leave_out(scene, str(reason))
        return LeftOut(scene, str(reason))

    def estimate(self) -> Estimate:
        """Tell what predicting will take."""
        plans = [plan for plan in self._plans(self._fail) if not self._held(plan)]

        def predict(plan: ScenePlan, folder: Path) -> int | None:
            moved = replace(plan, files=plan.files.moved(folder))
            folder.mkdir()
            try:
                with Records(folder, None, self.options) as records:
                    self._write(moved, records, lambda done, name: None)
            except _SceneError as error:
                self._fail(plan.source, error.__cause__)
                return None
            return sum(path.stat().st_size for path in moved.files.all_paths)

        estimate = Trial(plans).run(predict)
        if plans and not estimate.tried:
            raise next(iter(self.failed.values()))
        return replace(estimate, unreadable=tuple(self.failed))

    def _plans(self, note: Callable[[Source, BaseException | None], None]) -> list[ScenePlan]:
        for scene in self.scenes:
            if not is_utf8(str(scene)) and str(scene) not in self._named:
                note(scene, FileError(f"{scene} has {_ODD_NAME}; rename it"))
        left = {scene: place for scene, place in self.scenes.items() if scene not in self.failed}
        plans = plan_scenes(left, self.out, self.streams.backend, self.options, failed=note)
        if self.scenes and len(self.failed) == len(self.scenes):
            self._tell_failures()
        return plans

    def _held(self, plan: ScenePlan) -> bool:
        return not self.options.overwrite and self.records.holds(plan)

    def _write(self, plan: ScenePlan, records: Records, report: Callable[[int, str], None]) -> Results:
        """Predict a scene and publish its results."""
        backend, options, done = self.streams.backend, self.options, 0
        with ExitStack() as stack:
            with _failing_alone():
                scene = open_for(plan.source, backend, options)
                stack.enter_context(scene)
            results = stack.enter_context(open_results(plan, backend.classes, options, records))
            sample = ImageSample(scene.height, scene.width)
            # No thread may read a closed scene.
            pieces = stack.enter_context(closing(predict_pieces(scene, self.streams, self.tiling, options)))
            while True:
                with _failing_alone():
                    piece = next(pieces, None)
                if piece is None:
                    break
                results.write(piece)
                if not piece.seconds:  # of a video its first frame
                    sample.add(piece.window, piece.pixels, piece.valid)
                done += piece.window.height * piece.window.width
                report(done, scene.name)
            results.misuse = find_misuse(backend.description, sample)
        return results

    def _note(self, scene: Source, error: BaseException | None) -> None:
        """Write down that a scene can't be predicted, and why."""
        self._fail(scene, error)
        if len(self.scenes) > 1:
            self.records.leave_out(scene, str(error))

    def _fail(self, scene: Source, error: BaseException | None) -> None:
        assert isinstance(error, SegshrinkError)  # noqa: S101
        self.failed[scene] = error

    def _tell_failures(self) -> None:
        if not self.failed:
            return
        error = next(iter(self.failed.values()))
        if len(self.failed) == len(self.scenes):
            raise error
        raise FileError(
            f"{len(self.failed)} of {len(self.scenes)} scenes were left out, "
            f"{listed([str(failed) for failed in self.failed])}: {error}. The others are done; mend them and start "
            "again, which predicts no other anew"
        ) from error


@contextmanager
def _failing_alone() -> Iterator[None]:
    """Tell what is wrong with a scene from what is wrong with the folder of results."""
    try:
        yield
    except (FileError, DataError) as error:
        raise _SceneError from error


def _folder_of(out: Path) -> Path:
    return out.parent if is_file_name(out) else out


def expanded(sources: Sequence[Source], out: Path, shard: Shard | None = None) -> Mapping[Source, Path]:
    """Return single scenes of a share, and the folder inside ``out`` that each one's results go to."""
    scenes = expand_sources(sources, leave_out=_folder_of(out).resolve())
    return scenes if shard is None else shard.of(scenes)


def _lock_of(plan: ScenePlan) -> Path:
    name = plan.files.classes.name
    if len(name.encode()) > _LONGEST_LOCKED:
        name = hashlib.sha256(name.encode()).hexdigest()
    return plan.files.classes.with_name(f".{name}.segshrink-lock")


def _tidy(plans: Sequence[ScenePlan]) -> None:
    """Remove what killed processes left beside results that are whole."""
    for home in {plan.files.classes.parent for plan in plans}:
        sweep(home, deep=False)
    for lock in filter(Path.exists, map(_lock_of, plans)):
        with suppress(FileError), claimed_name(lock, name=lock.name):
            pass  # nobody holds it, so it goes


def _report(progress: Progress | None, before: int, total: int, done: int, name: str) -> None:
    if progress is not None:
        progress(before + done, total, name)
