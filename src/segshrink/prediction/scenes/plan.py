"""What is predicted and written where, settled before anything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from segshrink.errors import ConfigError
from segshrink.imagery.cog import auxiliary_path
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.opening import Source, is_remote
from segshrink.imagery.scenes import Scene, open_scene
from segshrink.prediction.backends import Backend
from segshrink.prediction.scenes.identity import local_identity, plain_name, remote_identity
from segshrink.prediction.scenes.options import SceneOptions

# Pictures without a place on the ground, whose classes become a PNG.
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")
_MAPS = (".tif", ".tiff")
# Beyond this a scene takes days, and what is held for a row of its tiles many gigabytes.
_MOST_PIXELS = 10**11


@dataclass(frozen=True)
class SceneFiles:
    """Paths of a scene's results; None for what isn't written."""

    classes: Path
    overlay: Path | None
    probabilities: Path | None = None
    confidence: Path | None = None
    vectors: Path | None = None
    world: Path | None = None
    auxiliary: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that are written."""
        all_of_them = (self.classes, self.overlay, self.probabilities, self.confidence, self.vectors)
        return tuple(path for path in all_of_them if path is not None)

    @property
    def all_paths(self) -> tuple[Path, ...]:
        """The same, and what describes the class map beside it: class names and, of a picture, its place."""
        return (*self.paths, *(path for path in (self.world, self.auxiliary) if path is not None))

    def moved(self, folder: Path) -> SceneFiles:
        """Return the same names in another folder."""
        moved = {field.name: folder / path.name for field in fields(self) if (path := getattr(self, field.name))}
        return replace(self, **moved)


@dataclass(frozen=True)
class ScenePlan:
    """A scene and what tells its content, its results' files, and the grid they have."""

    source: Source
    identity: Mapping[str, Any]
    files: SceneFiles
    grid: Georeference

    @property
    def pixels(self) -> int:
        """How many pixels the results have."""
        return self.grid.height * self.grid.width


def open_for(source: Source, backend: Backend, options: SceneOptions) -> Scene:
    """Open a scene as a model takes it.

    Raises:
        FileError: It can't be read.
        DataError: Its bands or numbers aren't the model's, or its resolution isn't known.
    """
    description = backend.description
    resolution = None if isinstance(options.resolution, str) else options.resolution

    def opened(metres: float | None) -> Scene:
        dtype = None if description is None else description.dtype
        return open_scene(
            source,
            bands=options.bands,
            scale=options.scale,
            nodata=options.nodata,
            resolution=metres,
            dtype=dtype,
            count=backend.bands,
            names=None if description is None else description.band_names,
            scaling=None if description is None else description.scaling,
        )

    scene = opened(resolution)
    trained_on = None if description is None else description.resolution
    if options.resolution == "model" and trained_on is not None and scene.georeference.pixel_size is not None:
        scene.close()
        scene = opened(trained_on)
    return scene


def plan_scenes(sources: Mapping[Source, Path], out: Path, backend: Backend, options: SceneOptions) -> list[ScenePlan]:
    """Open every scene once and say what is written for it.

    Args:
        sources: Single scenes, and the folder inside ``out`` that each one's results go to.
        out: A folder; or, for one scene, a ``.tif`` or ``.png`` file for the classes, beside which the rest goes.
        backend: The model.
        options: The options.

    Raises:
        ConfigError: Two scenes would get files of one name, a scene would be overwritten, ``out`` suits nothing, or a
            map would be too large.
        FileError, DataError: A scene can't be read by the model.
    """
    as_file = is_file_name(out)
    if as_file and (out.suffix.lower() not in (".png", *_MAPS) or len(sources) > 1):
        what = f"for {len(sources)} scenes" if len(sources) > 1 else "as class numbers"
        raise ConfigError(f"--out {out} can't be written {what}; give a folder, or a .tif or .png file for one scene")
    local = {Path(source).resolve() for source in sources if not is_remote(source)}
    taken: dict[Path, Source] = {}
    plans = []
    for source, folder in sources.items():
        with open_for(source, backend, options) as scene:
            plan = _plan(scene, out if as_file else out / folder, options, as_file=as_file)
        for path in plan.files.all_paths:
            if path in taken:
                raise ConfigError(f"{taken[path]} and {source} would both become {path}; predict them into two folders")
            if path.resolve() in local:
                raise ConfigError(f"{path} would overwrite a scene that is predicted; choose another folder")
            taken[path] = source
        plans.append(plan)
    return plans


def is_file_name(out: Path) -> bool:
    """Whether results are asked for as a file, not as a folder of them."""
    return out.suffix != "" and not out.is_dir()


def _plan(scene: Scene, out: Path, options: SceneOptions, *, as_file: bool) -> ScenePlan:
    place = scene.georeference
    if place.height * place.width >= _MOST_PIXELS:
        raise ConfigError(
            f"{scene.source} would become a map of {place.height} × {place.width} pixels, more than this program takes "
            f"({_MOST_PIXELS:.0e}); cut it into parts, or predict it at a coarser --resolution"
        )
    remote = is_remote(scene.source)
    picture = not place.known and not remote and Path(scene.source).suffix.lower() in _PICTURES
    classes = out if as_file else out / f"{plain_name(scene.name)}{'.png' if picture else '.tif'}"

    as_picture = classes.suffix.lower() == ".png"

    def beside(ending: str, wanted: object) -> Path | None:
        return classes.with_name(f"{classes.stem}.{ending}") if wanted else None

    files = SceneFiles(
        classes,
        beside("overlay.jpg", options.overlay),
        beside("probabilities.tif", options.probabilities),
        beside("confidence.tif", options.confidence),
        beside(str(options.vectors), options.vectors),
        beside("pgw", as_picture and place.transform is not None),
        auxiliary_path(classes) if place.known or not as_picture else None,
    )
    identity = remote_identity(str(scene.source)) if remote else local_identity(Path(scene.source), scene.files)
    return ScenePlan(scene.source, identity, files, place)
