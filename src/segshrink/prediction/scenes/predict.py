"""Predicting scenes: from files or URLs to maps, tables of polygons and pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.errors import FileError
from segshrink.files import is_utf8
from segshrink.formatting import listed
from segshrink.imagery.polygons import require_vector_extra
from segshrink.imagery.raster_files import Source
from segshrink.imagery.scenes import expand_sources
from segshrink.prediction.backends import Backend
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import SceneFiles, ScenePlan, is_file_name, open_for, plan_scenes
from segshrink.prediction.scenes.records import Records, model_key
from segshrink.prediction.scenes.stream import Streams, predict_pieces
from segshrink.prediction.scenes.write import open_results
from segshrink.prediction.tiled import choose_tiling

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel

# Why GDAL opens no such file.
_ODD_NAME = "a name that isn't UTF-8"
# Called with (pixels done, pixels in all, name of the scene).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SceneResult:
    """What became of a scene.

    Attributes:
        source: The scene.
        files: Its results.
        skipped: Whether an earlier run had made them, with the same model and options.
    """

    source: Source
    files: SceneFiles
    skipped: bool


def predict_scene(
    model: str | Path | SegmentationModel | Backend,
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
    model: str | Path | SegmentationModel | Backend,
    sources: Sequence[Source],
    out: str | Path,
    options: SceneOptions | None = None,
    *,
    progress: Progress | None = None,
) -> list[SceneResult]:
    """Predict scenes of any size.

    NAME.tif is a Cloud-Optimized GeoTIFF of class indices on the scene's grid, 255 where the scene has no data; for
    pictures without a place on the ground it is NAME.png. Beside it stand, where asked for, NAME.probabilities.tif,
    NAME.confidence.tif, NAME.gpkg or NAME.geojson, and NAME.overlay.jpg. A scene's results get their names when all of
    them are whole. ``predictions.sqlite`` in the folder remembers what made them: a run that was interrupted goes on
    where it stopped, and results of another model or other options are never replaced unasked. Several processes may
    predict into one folder.

    Args:
        model: What ``open_backend`` takes.
        sources: Images, folders of images, wildcards, URLs; anything GDAL reads. A folder that holds folders of images
            becomes such folders of results.
        out: Folder for the results; or, for one scene, a ``.tif`` or ``.png`` file.
        options: The options; by default those that suit the model.
        progress: Called after every piece with (pixels done, pixels in all, name of the scene).

    Returns:
        What became of each scene, in order.

    Raises:
        FileError: A scene can't be read, or a result can't be written.
        DataError: A scene's bands or numbers aren't what the model takes.
        ConfigError: Results are in the way, two scenes would get one name, or options make no sense.
        ModelError: The model can't be opened, or fails.
        MissingExtraError: Polygons are asked for, and what writes them isn't installed.

    Scenes of a folder or wildcard whose name isn't UTF-8 can't be opened: they are left out and noted in
    ``predictions.sqlite``, the others are predicted, and then FileError says so.
    """
    options = options or SceneOptions()
    out = Path(out)
    folder = out.parent if is_file_name(out) else out
    with (
        Streams(model, runtime=options.runtime, cores=options.threads) as streams,
        Records(folder, model_key(model), options) as records,
    ):
        scenes = expand_sources(sources, leave_out=folder.resolve())
        left_out = _left_out(scenes, sources, records)
        plans = plan_scenes(
            {scene: place for scene, place in scenes.items() if scene not in left_out}, out, streams.backend, options
        )
        finished = {plan.files.classes for plan in plans if not options.overwrite and records.holds(plan)}
        open_plans = [plan for plan in plans if plan.files.classes not in finished]
        records.refuse_foreign(open_plans)
        if open_plans and (vectors := open_plans[0].files.vectors) is not None:
            require_vector_extra(vectors)
        total = sum(plan.pixels for plan in open_plans)
        done = 0
        for plan in open_plans:
            report = partial(_report, progress, done, total)
            # Another process may have come first since the plans were made.
            held = not options.overwrite and records.holds(plan)
            if held or not _predict_one(plan, streams, options, records, report):
                finished.add(plan.files.classes)
            done += plan.pixels
    if left_out:
        raise FileError(
            f"{len(left_out)} of {len(scenes)} scenes were left out, {listed([str(scene) for scene in left_out])}: "
            f"{_ODD_NAME}; rename them and start again, which predicts no other anew"
        )
    return [SceneResult(plan.source, plan.files, plan.files.classes in finished) for plan in plans]


def _left_out(scenes: Collection[Source], sources: Sequence[Source], records: Records) -> list[Source]:
    """Return the scenes that can't be opened by their name, noting them; one that the user named is refused instead."""
    named = {str(source) for source in sources}
    left_out = [scene for scene in scenes if not is_utf8(str(scene)) and str(scene) not in named]
    for scene in left_out:
        records.leave_out(scene, _ODD_NAME)
    return left_out


def _predict_one(
    plan: ScenePlan, streams: Streams, options: SceneOptions, records: Records, report: Callable[[int, str], None]
) -> bool:
    """Predict a scene and publish its results; False where another process has published the same meanwhile."""
    backend = streams.backend
    tiling = choose_tiling(
        backend.description, runtime=backend.runtime, tile=options.tile, overlap=options.overlap, batch=options.batch
    )
    done = 0
    with (
        open_for(plan.source, backend, options) as scene,
        open_results(plan, backend.classes, options, records) as results,
        closing(predict_pieces(scene, streams, tiling, options)) as pieces,  # no thread may read a closed scene
    ):
        for piece in pieces:
            results.write(piece)
            done += piece.window.height * piece.window.width
            report(done, scene.name)
    return results.published


def _report(progress: Progress | None, before: int, total: int, done: int, name: str) -> None:
    if progress is not None:
        progress(before + done, total, name)
