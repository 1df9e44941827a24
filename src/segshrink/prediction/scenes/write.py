"""Writing a scene's results while they come, under temporary names until all are whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import FileError
from segshrink.files import scratch_folder
from segshrink.imagery.cog import PROBABILITY_STEPS, CogWriter, open_cog, write_auxiliary
from segshrink.imagery.display import Thumbnail, overlaid
from segshrink.imagery.polygons import write_polygons
from segshrink.imagery.qgis import write_raster_style
from segshrink.imagery.video import VideoWriter
from segshrink.imagery.writing import write_index_png
from segshrink.prediction.misuse import Misuse
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import ScenePlan
from segshrink.prediction.scenes.records import Records
from segshrink.prediction.scenes.stream import Piece

# Folder of the files that become results, inside that of all temporary files.
_NAMED = "results"


@contextmanager
def open_results(plan: ScenePlan, classes: ClassMap, options: SceneOptions, records: Records) -> Iterator[Results]:
    """Write one scene's results; they get their names when the block ends well.

    Args:
        plan: What is written where.
        classes: The model's classes.
        options: What is asked for.
        records: The record of whose files stand there.

    Raises:
        FileError: Something can't be written.
    """
    home = plan.files.classes.parent
    with _scratch(home) as scratch:
        results = (
            SceneResults(plan, scratch, classes, options)
            if plan.rate is None
            else VideoResults(plan, scratch, classes, plan.rate)
        )
        with results.open_files:
            yield results
        results.finish()
        misuse = None if results.misuse is None else str(results.misuse)
        results.published = records.publish(plan, lambda: _move_all(scratch / _NAMED, home), misuse=misuse)


class VideoResults:
    """The results of a video: one with the classes over its frames. See ``SceneResults``."""

    published = False
    misuse: Misuse | None = None

    def __init__(self, plan: ScenePlan, scratch: Path, classes: ClassMap, rate: Fraction) -> None:
        self._classes, path = classes, plan.files.moved(scratch / _NAMED).classes
        self.open_files = self._video = VideoWriter(path, height=plan.grid.height, width=plan.grid.width, rate=rate)

    def write(self, piece: Piece) -> None:
        """Write a frame; they come in the order of time."""
        self._video.write(overlaid(piece.pixels, piece.classes, self._classes), piece.seconds)

    def finish(self) -> None:
        """Nothing is made from all frames."""


class SceneResults:
    """The results of a scene: maps, polygons, pictures.

    Attributes:
        open_files: Completes the files that pieces are written to when it is closed.
        misuse: What makes the scene unlike the images that the model learned from, where it is known; recorded with it.
        published: Whether the results got their names; not where another process has made the same meanwhile.
    """

    published = False
    misuse: Misuse | None = None

    def __init__(self, plan: ScenePlan, scratch: Path, classes: ClassMap, options: SceneOptions) -> None:
        self._grid, self._classes, self._options = plan.grid, classes, options
        self._files = files = plan.files.moved(scratch / _NAMED)
        self._as_picture = files.classes.suffix.lower() == ".png"
        # Polygons are made from rasters, which may be no results themselves.
        self._map_path = scratch / "classes.tif" if self._as_picture else files.classes
        self._confidence_path = files.confidence or scratch / "confidence.tif"
        self._index = np.full((plan.grid.height, plan.grid.width) if self._as_picture else 0, IGNORE_INDEX, np.uint8)
        self._thumbnail = Thumbnail(plan.grid.height, plan.grid.width, classes) if options.overlay else None
        # By what they take of a piece.
        rasters: dict[str, AbstractContextManager[CogWriter]] = {}
        open_shares = partial(open_cog, georeference=plan.grid, scale=1 / PROBABILITY_STEPS)
        if not self._as_picture or options.vectors:
            rasters["classes"] = open_cog(self._map_path, plan.grid, classes=classes)
        if files.probabilities is not None:
            names = classes.names
            rasters["probabilities"] = open_shares(files.probabilities, bands=len(names), descriptions=names)
        if options.confidence or options.vectors:
            rasters["confidence"] = open_shares(self._confidence_path, descriptions=["confidence"])
        with ExitStack() as stack:
            self._writers = {name: stack.enter_context(raster) for name, raster in rasters.items()}
            self.open_files = stack.pop_all()

    def write(self, piece: Piece) -> None:
        """Write a piece; they come in row order."""
        if self._as_picture:
            self._index[piece.window.slices] = piece.classes
        for name, writer in self._writers.items():
            writer.write(piece.window, getattr(piece, name))
        if self._thumbnail is not None:
            self._thumbnail.add(piece.window, piece.pixels, piece.classes)

    def finish(self) -> None:
        """Write what is made from all pieces, when the rasters are whole."""
        files = self._files
        if self._as_picture:
            write_index_png(files.classes, self._index, self._classes)
            if files.auxiliary is not None:
                write_auxiliary(files.classes, self._classes, self._grid)
            if files.world is not None:
                files.world.write_text(self._grid.world_file(), encoding="ascii")
        if files.style is not None:
            write_raster_style(files.style, self._classes)
        if self._thumbnail is not None and files.overlay is not None:
            self._thumbnail.write(files.overlay)
        if files.vectors is not None:
            write_polygons(
                self._map_path,
                files.vectors,
                self._classes,
                confidence=self._confidence_path,
                min_area=self._options.min_area,
                simplify=self._options.simplify,
            )


Results: TypeAlias = SceneResults | VideoResults


def _move_all(scratch: Path, home: Path) -> None:
    for made in sorted(scratch.iterdir()):
        place = home / made.name
        if place.is_symlink():
            shutil.move(made, place.resolve())  # the link stays, and may lead to another disk
        else:
            made.replace(place)


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """Give a folder inside ``home`` that is removed afterwards, with one for results; errors speak of ``home``."""
    try:
        with scratch_folder(home) as scratch:
            (scratch / _NAMED).mkdir()
            try:
                yield scratch
            except FileError as error:
                raise FileError(str(error).replace(f"{scratch / _NAMED}/", f"{home}/")) from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"can't write into {home}: {error.strerror or error}; free some space or choose another folder"
        ) from error
