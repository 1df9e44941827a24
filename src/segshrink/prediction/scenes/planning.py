"""What is predicted and written where, settled before anything is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from segshrink.errors import ConfigError
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.scene_sources import Source, is_remote
from segshrink.imagery.scenes import Scene, open_scene
from segshrink.prediction.backends import Backend
from segshrink.prediction.scenes.options import SceneOptions

# Pictures without a place on the ground, whose classes become a PNG.
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")
_MAPS = (".tif", ".tiff")


@dataclass(frozen=True)
class SceneFiles:
    """Paths of a scene's results; None for what isn't written."""

    classes: Path
    overlay: Path | None
    probabilities: Path | None = None
    confidence: Path | None = None
    vectors: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that are written."""
        all_of_them = (self.classes, self.overlay, self.probabilities, self.confidence, self.vectors)
        return tuple(path for path in all_of_them if path is not None)

    def moved(self, folder: Path) -> SceneFiles:
        """Return the same names in another folder."""
        moved = {field.name: folder / path.name for field in fields(self) if (path := getattr(self, field.name))}
        return replace(self, **moved)


@dataclass(frozen=True)
class ScenePlan:
    """A scene, its results' files, and the grid they have."""

    source: Source
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
            source, bands=options.bands, scale=options.scale, resolution=metres, dtype=dtype, count=backend.bands
        )

    scene = opened(resolution)
    trained_on = None if description is None else description.resolution
    if options.resolution == "model" and trained_on is not None and scene.georeference.pixel_size is not None:
        scene.close()
        scene = opened(trained_on)
    return scene


def plan_scenes(sources: Sequence[Source], out: Path, backend: Backend, options: SceneOptions) -> list[ScenePlan]:
    """Open every scene once and say what is written for it.

    Args:
        sources: Single scenes.
        out: A folder; or, for one scene, a ``.tif`` or ``.png`` file for the classes, beside which the rest goes.
        backend: The model.
        options: The options.

    Raises:
        ConfigError: Two scenes would get one name, a scene would be overwritten, or ``out`` suits nothing.
        FileError, DataError: A scene can't be read by the model.
    """
    as_file = out.suffix != "" and not out.is_dir()
    if as_file and (out.suffix.lower() not in (".png", *_MAPS) or len(sources) > 1):
        what = f"for {len(sources)} scenes" if len(sources) > 1 else "as class numbers"
        raise ConfigError(f"--out {out} can't be written {what}; give a folder, or a .tif or .png file for one scene")
    local = {Path(source).resolve() for source in sources if not is_remote(source)}
    planned: dict[Path, ScenePlan] = {}
    for source in sources:
        with open_for(source, backend, options) as scene:
            classes = out if as_file else out / f"{scene.name}{'.png' if _is_picture(scene) else '.tif'}"
            plan = ScenePlan(source, _files(classes, options), scene.georeference)
        if (taken := planned.get(classes)) is not None:
            raise ConfigError(f"{taken.source} and {source} would both become {classes}; predict them into two folders")
        if local & {path.resolve() for path in plan.files.paths}:
            raise ConfigError(f"{classes} would overwrite a scene that is predicted; choose another folder")
        planned[classes] = plan
    return list(planned.values())


def _is_picture(scene: Scene) -> bool:
    place = scene.georeference
    nowhere = place.crs is None and place.transform is None and not place.gcps
    return nowhere and not is_remote(scene.source) and Path(scene.source).suffix.lower() in _PICTURES


def _files(classes: Path, options: SceneOptions) -> SceneFiles:
    def beside(ending: str, wanted: object) -> Path | None:
        return classes.with_name(f"{classes.stem}.{ending}") if wanted else None

    return SceneFiles(
        classes,
        beside("overlay.jpg", options.overlay),
        beside("probabilities.tif", options.probabilities),
        beside("confidence.tif", options.confidence),
        beside(str(options.vectors), options.vectors),
    )
