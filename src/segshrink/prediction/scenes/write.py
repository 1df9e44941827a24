"""Writing a scene's results while they come, under temporary names until all are whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import FileError
from segshrink.files import scratch_folder
from segshrink.imagery.cog import PROBABILITY_STEPS, open_cog, write_auxiliary
from segshrink.imagery.display import Thumbnail
from segshrink.imagery.polygons import write_polygons
from segshrink.imagery.writing import write_index_png
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import ScenePlan
from segshrink.prediction.scenes.records import Records
from segshrink.prediction.scenes.stream import Piece


class SceneResults:
    """Writes one scene's results; a context manager that gives them their names when the block ends well.

    Attributes:
        published: Whether they got their names; not where another process has made the same results meanwhile.

    Args:
        plan: What is written where.
        classes: The model's classes.
        options: What is asked for.
        records: What tells whose the files are that stand there.

    Raises:
        FileError: Something can't be written.
    """

    def __init__(self, plan: ScenePlan, classes: ClassMap, options: SceneOptions, records: Records) -> None:
        self._plan, self._classes, self._options, self._records = plan, classes, options, records
        self.published = False
        self._stack = ExitStack()

    def __enter__(self) -> SceneResults:
        with ExitStack() as stack:
            scratch = stack.enter_context(_scratch(self._plan.files.classes.parent))
            self._scratch = scratch
            self._files = self._plan.files.moved(scratch)
            self._writers = stack.enter_context(ExitStack())
            self._open_writers()
            self._stack = stack.pop_all()
        return self

    def write(self, piece: Piece) -> None:
        """Write a piece; they come in row order."""
        if self._class_map is not None:
            self._class_map.write(piece.window, piece.classes)
        else:
            self._index[piece.window.slices] = piece.classes
        if self._probabilities is not None and piece.probabilities is not None:
            self._probabilities.write(piece.window, piece.probabilities)
        if self._confidence is not None and piece.confidence is not None:
            self._confidence.write(piece.window, piece.confidence)
        if self._thumbnail is not None:
            self._thumbnail.add(piece.window, piece.pixels, piece.classes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._writers.close()
            self._finish()
            self.published = self._records.publish(self._plan, self._move)

    def _move(self) -> None:
        for made in sorted(self._scratch.iterdir()):
            place = self._plan.files.classes.with_name(made.name)
            if place.is_symlink():
                shutil.move(made, place.resolve())  # the link stays, and may lead to another disk
            else:
                made.replace(place)

    def _open_writers(self) -> None:
        """Start a writer for each raster; polygons need a map of classes and one of confidence."""
        grid, names, files = self._plan.grid, self._classes.names, self._files
        enter = self._writers.enter_context
        as_picture = files.classes.suffix.lower() == ".png"
        self._class_map = self._probabilities = self._confidence = self._thumbnail = None
        self._map_path = self._scratch_file("classes.tif") if as_picture else files.classes
        if as_picture:
            self._index = np.full((grid.height, grid.width), IGNORE_INDEX, np.uint8)
        if not as_picture or files.vectors is not None:
            self._class_map = enter(open_cog(self._map_path, grid, classes=self._classes))
        scale = 1 / PROBABILITY_STEPS
        if files.probabilities is not None:
            self._probabilities = enter(
                open_cog(files.probabilities, grid, bands=len(names), descriptions=names, scale=scale)
            )
        self._confidence_path = files.confidence
        if files.vectors is not None and files.confidence is None:
            self._confidence_path = self._scratch_file("confidence.tif")
        if self._confidence_path is not None:
            self._confidence = enter(open_cog(self._confidence_path, grid, descriptions=["confidence"], scale=scale))
        if files.overlay is not None:
            self._thumbnail = Thumbnail(grid.height, grid.width, self._classes)

    def _scratch_file(self, name: str) -> Path:
        folder = self._scratch / "unnamed"
        folder.mkdir(exist_ok=True)
        return folder / name

    def _finish(self) -> None:
        files = self._files
        if files.classes.suffix.lower() == ".png":
            write_index_png(files.classes, self._index, self._classes)
            if self._plan.grid.known:
                write_auxiliary(files.classes, self._classes, self._plan.grid)
            if files.world is not None:
                files.world.write_text(self._plan.grid.world_file(), encoding="ascii")
        if files.overlay is not None and self._thumbnail is not None:
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
        shutil.rmtree(self._scratch / "unnamed", ignore_errors=True)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a folder inside ``folder`` that is removed afterwards; errors speak of ``folder``."""
    try:
        with scratch_folder(folder) as scratch:
            try:
                yield scratch
            except FileError as error:
                raise FileError(str(error).replace(f"{scratch}/", f"{folder}/")) from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"can't write into {folder}: {error.strerror or error}; free some space or choose another folder"
        ) from error
