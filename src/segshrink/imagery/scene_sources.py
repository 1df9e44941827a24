"""Scenes as a user names them: files, folders, wildcards and URLs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from segshrink.errors import FileError
from segshrink.file_search import WILDCARD, find_files, is_file
from segshrink.imagery.opening import Source, is_remote

# Files of a folder that are taken for scenes.
SCENE_SUFFIXES = frozenset(
    (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".img", ".bmp", ".webp", ".gif", ".dat", ".bil")
)
# What stands beside scenes and describes them.
_SIDECARS = (".aux.xml", ".ovr", ".msk", ".tfw", ".jgw", ".pgw", ".wld", ".prj", ".hdr", ".txt", ".json", ".xml")


def expand_sources(sources: Sequence[Source], *, leave_out: Path | None = None) -> dict[Source, Path]:
    """Turn what a user names into single scenes, each once, in the order named, and the sub-folder each lies in.

    A folder stands for the images directly in it, or where it holds none for those in its sub-folders, a wildcard
    (``*``, ``?``, ``[...]``, ``**`` for any folders) for what it matches; an existing file is taken as it is, whatever
    its name. Hidden files and those that describe others (``.aux.xml``, ``.ovr``, ``.msk``, world files) are left out
    of folders and wildcards. URLs stay as they are.

    Args:
        sources: Files, folders, wildcards, URLs.
        leave_out: A folder that no sub-folder may be, such as that of the results.

    Returns:
        Scene → its folder relative to the folder named; "." for all others.

    Raises:
        FileError: Something named doesn't exist, or a folder or wildcard holds no image.
    """
    folders: dict[Source, Path] = {}
    for source in sources:
        for scene, folder in _expanded(source, leave_out).items():
            folders.setdefault(scene, folder)
    if not folders:
        raise FileError("no scene was named; give an image file, a folder, a wildcard in quotes or a URL")
    return folders


def scene_name(source: Source) -> str:
    """Return the file name of a source without its suffix; of a URL without query."""
    if isinstance(source, str) and is_remote(source):
        return PurePosixPath(unquote(urlsplit(source).path)).stem or "scene"
    return Path(source).stem


def _expanded(source: Source, leave_out: Path | None) -> dict[Source, Path]:
    if is_remote(source):
        return {str(source): Path()}
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:
        raise FileError(f"{source} can't be found: there is no user of that name; check the path") from error
    if is_file(path):
        return {path: Path()}
    if path.is_dir():
        return {image: image.parent.relative_to(path) for image in _in_folder(path, leave_out)}
    if not WILDCARD.search(str(path)):
        raise FileError(f"{path} does not exist; give an image file, a folder, a wildcard in quotes or a URL")
    images = [image for image in map(Path, find_files(path.as_posix(), Path())) if _is_scene(image)]
    if not images:
        raise FileError(f"no image matches {path}; check the wildcard")
    return dict.fromkeys(images, Path())


def _in_folder(folder: Path, leave_out: Path | None) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(f"can't list {folder}: {error.strerror or error}; check its permissions") from error
    images = [entry for entry in entries if _is_image(entry)]
    if not images:
        below = (folder / name for name in find_files("**/*", folder))
        images = [path for path in below if _is_image(path) and leave_out not in path.resolve().parents]
    if not images:
        raise FileError(
            f"the folder {folder} holds no image ({', '.join(sorted(SCENE_SUFFIXES))}), nor do its sub-folders; check "
            "the path"
        )
    return images


def _is_scene(path: Path) -> bool:
    name = path.name.lower()
    return is_file(path) and not name.startswith(".") and not name.endswith(_SIDECARS)


def _is_image(path: Path) -> bool:
    return _is_scene(path) and path.suffix.lower() in SCENE_SUFFIXES
