"""Which scenes are predicted and where their results go, settled before anything is written."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import unicodedata
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from segshrink.errors import ConfigError, DataError, FileError, SegshrinkError, UsageError
from segshrink.imagery.cog import auxiliary_path
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.qgis import style_path
from segshrink.imagery.raster_files import Source, is_remote
from segshrink.imagery.scenes import Scene, open_scene
from segshrink.imagery.video import Video, is_video
from segshrink.prediction.average import AverageBackend
from segshrink.prediction.backends import Backend
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.version import __version__
from segshrink.working_size import depends_on_image, in_words

# Bytes at the start and at the end of a file that are looked at.
_SAMPLE = 1 << 16
# Files beside a scene that don't change its pixels; what GDAL's notes may say besides statistics is told by itself.
_HARMLESS = (".aux.xml", ".ovr")
# Keys of a query that say who may read, and until when: they change while the file stays the same, and are secret.
_SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|"
    r"(access_?)?token|api_?key|auth(orization)?|password|sig",
    re.IGNORECASE,
)
# Those of Azure's shared access signatures, which are so short that they mean it only beside "sig".
_AZURE = re.compile(r"s[vsrpte]|srt|sip|spr|sk(oid|tid|[tesv])")
_SECONDS = 20
# Pictures without a place on the ground, whose classes become a PNG.
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")
_MAPS = (".tif", ".tiff")
_VIDEO = ".mp4"
# How names of files end, of which not all can be written; other names with a dot are those of folders.
_FILES = (*_PICTURES, *_MAPS, _VIDEO, ".gpkg", ".geojson")
# Bytes of a file's name that file systems take.
_LONGEST_NAME = 255
# Beyond this a scene takes days, and what is held for a row of its tiles many gigabytes.
_MOST_PIXELS = 10**11


@dataclass(frozen=True)
class SceneFiles:
    """Paths of a scene's results; None for what isn't written. Of a video, the classes lie over its frames."""

    classes: Path
    overlay: Path | None
    probabilities: Path | None = None
    confidence: Path | None = None
    vectors: Path | None = None
    world: Path | None = None
    auxiliary: Path | None = None
    style: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that are written, without what only describes the class map."""
        return tuple(path for path in self.all_paths if path not in (self.world, self.auxiliary, self.style))

    @property
    def all_paths(self) -> tuple[Path, ...]:
        """All that are written: also class names and QGIS's style beside the class map and, of a picture, its place."""
        paths = (getattr(self, field.name) for field in fields(self))
        return tuple(path for path in paths if path is not None)

    def moved(self, folder: Path) -> SceneFiles:
        """Return the same names in another folder."""
        moved = {field.name: folder / path.name for field in fields(self) if (path := getattr(self, field.name))}
        return replace(self, **moved)


@dataclass(frozen=True)
class ScenePlan:
    """A scene and what tells its content, its results' files, and the grid they have.

    Attributes:
        source: The scene.
        identity: What tells its content.
        files: Its results.
        grid: The grid that they have.
        frames: How many frames a video has, about; else 1.
        rate: A video's frames a second; else None.
    """

    source: Source
    identity: Mapping[str, Any]
    files: SceneFiles
    grid: Georeference
    frames: int = 1
    rate: Fraction | None = None

    @property
    def pixels(self) -> int:
        """How many pixels the results have."""
        return self.grid.height * self.grid.width * self.frames


def open_for(source: Source, backend: Backend, options: SceneOptions) -> Scene | Video:
    """Open a scene or video as a model takes it.

    Raises:
        FileError: It can't be read.
        DataError: Its bands or numbers aren't the model's, its resolution isn't known, or it lies on the ground and
            the model's working size depends on the image.
        ModelError: Several models were trained at other resolutions, and none is asked for.
    """
    model = backend.description
    wanted: dict[str, Any] = {
        "bands": options.bands,
        "scale": options.scale,
        "dtype": None if model is None else model.dtype,
        "count": backend.bands,
        "names": None if model is None else model.band_names,
    }
    if is_video(source):
        return Video(Path(source), **wanted)
    scaling = None if model is None else model.scaling
    open_at = partial(open_scene, source, nodata=options.nodata, scaling=scaling, **wanted)
    scene = open_at(resolution=None if isinstance(options.resolution, str) else options.resolution)
    trained_on = None if model is None else model.resolution
    if options.resolution == "model" and trained_on is not None and scene.georeference.pixel_size is not None:
        scene.close()
        if isinstance(backend, AverageBackend):
            backend.refuse_other_resolutions()
        scene = open_at(resolution=trained_on)
    if model is not None and depends_on_image(model.resize) and scene.georeference.known:
        scene.close()
        raise DataError(
            f"{source} lies on the ground, where a pixel has one size, but the model works at "
            f"{in_words(model.resize)}; train one with a factor, such as resize: 0.5"
        )
    return scene


def plan_scenes(
    sources: Mapping[Source, Path],
    out: Path,
    backend: Backend,
    options: SceneOptions,
    *,
    failed: Callable[[Source, SegshrinkError], None] | None = None,
) -> list[ScenePlan]:
    """Open every scene once and say what is written for it.

    Args:
        sources: Single scenes, and the folder inside ``out`` that each one's results go to.
        out: A folder; or, for one scene, a ``.tif`` or ``.png`` file for the classes, beside which the rest goes; for
            a video an ``.mp4`` file.
        backend: The model.
        options: The options.
        failed: Called with a scene that can't be read by the model, and why; None raises that.

    Raises:
        UsageError: ``out`` suits nothing, or options say what a video can't have.
        ConfigError: Two scenes would get files of one name, a scene would be overwritten, or a map would be too large.
        FileError, DataError: A scene can't be read by the model.
    """
    as_file = is_file_name(out)
    kinds = (_VIDEO,) if all(map(is_video, sources)) else (".png", *_MAPS)
    if as_file and (out.suffix.lower() not in kinds or len(sources) > 1):
        what = f"for {len(sources)} scenes" if len(sources) > 1 else "as class numbers"
        raise UsageError(
            f"--out {out} can't be written {what}; give a folder, or a .tif or .png file for one scene, or an .mp4 "
            "file for one video"
        )
    local = {Path(source).resolve() for source in sources if not is_remote(source)}
    taken: dict[Path, Source] = {}
    plans = []
    for source, folder in sources.items():
        try:
            with open_for(source, backend, options) as scene:
                plan = _plan(scene, out if as_file else out / folder, options, as_file=as_file)
        except (FileError, DataError) as error:
            if failed is None:
                raise
            failed(source, error)
            continue
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
    return out.suffix.lower() in _FILES and not out.is_dir()


def _plan(scene: Scene | Video, out: Path, options: SceneOptions, *, as_file: bool) -> ScenePlan:
    if isinstance(scene, Video):
        return _plan_video(scene, out, options, as_file=as_file)
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

    def beside(ending: str, asked_for: object) -> Path | None:
        return classes.with_name(f"{classes.stem}.{ending}") if asked_for else None

    files = SceneFiles(
        classes,
        overlay=beside("overlay.jpg", options.overlay),
        probabilities=beside("probabilities.tif", options.probabilities),
        confidence=beside("confidence.tif", options.confidence),
        vectors=beside(str(options.vectors), options.vectors),
        world=beside("pgw", as_picture and place.transform is not None),
        auxiliary=auxiliary_path(classes) if place.known or not as_picture else None,
        style=style_path(classes),
    )
    longest = max((path.name for path in files.all_paths), key=lambda name: len(name.encode()))
    if len(longest.encode()) > _LONGEST_NAME:
        raise DataError(f"{scene.source} would become {longest}, a longer name than file systems take; rename it")
    if remote:
        identity = remote_identity(str(scene.source))
    else:
        notes = hashlib.sha256(json.dumps(scene.notes).encode()).hexdigest()
        identity = {**local_identity(Path(scene.source), scene.files), "notes": notes}
    return ScenePlan(scene.source, identity, files, place)


def _plan_video(video: Video, out: Path, options: SceneOptions, *, as_file: bool) -> ScenePlan:
    resolution = None if isinstance(options.resolution, str) else options.resolution
    asked_for = {name: getattr(options, name) for name in ("probabilities", "confidence", "vectors", "nodata")}
    asked_for |= {"resolution": resolution, "no-overlay": None if options.overlay else True}
    if useless := [name for name, value in asked_for.items() if value is not None and value is not False]:
        raise UsageError(f"{video.source} becomes a video with the classes over it; leave --{useless[0]} out")
    classes = out if as_file else out / f"{plain_name(video.name)}{_VIDEO}"
    identity = local_identity(video.source, ())
    files = SceneFiles(classes, overlay=None)
    return ScenePlan(video.source, identity, files, video.georeference, frames=video.frames, rate=video.rate)


def local_identity(path: Path, files: Iterable[str]) -> dict[str, Any]:
    """Tell what a local scene is.

    Args:
        path: The scene.
        files: All files that it is read from, such as a VRT's sources, masks and world files.

    Returns:
        JSON-able: name, size, time, and hashes of a sample of its bytes and of the other files' names, sizes and times.
    """
    status = path.stat()
    with path.open("rb") as stream:
        sample = stream.read(_SAMPLE)
        stream.seek(max(0, status.st_size - _SAMPLE))
        sample += stream.read(_SAMPLE)
    others = []
    for name in sorted(set(files)):
        other = Path(name)
        if other != path and not name.endswith(_HARMLESS) and other.exists():
            others.append((other.name, other.stat().st_size, other.stat().st_mtime_ns))
    return {
        "name": plain_name(path.name),
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "sample": hashlib.sha256(sample).hexdigest(),
        "others": hashlib.sha256(json.dumps(others).encode()).hexdigest(),
    }


def remote_identity(url: str) -> dict[str, Any]:
    """Tell what the scene at a URL is, without what is secret in the URL.

    Returns:
        JSON-able: the address with its port, a hash of its query but for signatures, and what its server says of the
        file's size and version (None of s3, gs and az, and of a server that doesn't).
    """
    address = urlsplit(url)
    parts = {part: unquote(part.partition("=")[0]) for part in address.query.split("&") if part}
    azure = "sig" in parts.values()
    counting = [
        part for part, key in parts.items() if not (_SIGNATURE.fullmatch(key) or (azure and _AZURE.fullmatch(key)))
    ]
    place = address.netloc.rpartition("@")[2]
    return {
        "url": f"{address.scheme}://{place}{address.path}",
        "query": hashlib.sha256("&".join(counting).encode()).hexdigest() if counting else None,
        **_version(url, address),
    }


def plain_name(name: str) -> str:
    """Return a file name that every program can read: bytes that aren't UTF-8 are taken for Latin-1, controls go."""
    if any("\udc80" <= letter <= "\udcff" for letter in name):  # as Python decodes such bytes
        with suppress(UnicodeEncodeError):
            name = name.encode(errors="surrogateescape").decode("latin-1")
    return "".join("_" if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in name)


def _version(url: str, address: SplitResult) -> dict[str, Any]:
    """Ask for one byte, which signed URLs allow more often than HEAD, and read what the server says of the file."""
    version: dict[str, Any] = {"bytes": None, "version": None}
    if address.scheme.lower() not in ("http", "https"):
        return version
    user, _, place = address.netloc.rpartition("@")
    headers = {"Range": "bytes=0-0", "User-Agent": f"segshrink/{__version__}"}
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
    try:
        request = urllib.request.Request(address._replace(netloc=place, fragment="").geturl(), headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            of_all = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get("Content-Length")
            version["bytes"] = int(of_all) if of_all and of_all.isdecimal() else None
            version["version"] = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    except (OSError, ValueError, http.client.HTTPException):
        pass  # GDAL reports what it can't read
    return version
