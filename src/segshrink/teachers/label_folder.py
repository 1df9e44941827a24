"""A folder of label maps as a teacher: ``labels:FOLDER``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import ConfigError, DataError, FileError, ModelError
from segshrink.files import content_key
from segshrink.teachers.adapter_files import adapter_of, class_names
from segshrink.teachers.label_maps import SUFFIXES, hard_logits, read_array, read_hard, soft_logits
from segshrink.teachers.mapping import ClassMapping, map_classes
from segshrink.teachers.teacher import Teacher

# What an adapter may say about label maps; the rest is about pixels that go into a network.
_ABOUT_MAPS = {"output", "confidence", "classes"}


class LabelFolder(Teacher):
    """Answers about whole scenes from the file that has the scene's name, or its end after a "-".

    The names of unlabelled images begin with their folders' ("unlabeled-more-tile7"); their maps may be called as the
    images are ("tile7").

    ``NAME.png`` is a hard map; its class gets the adapter's ``confidence`` and the others share the rest.
    ``NAME.npy`` or ``NAME.npz`` is a soft map of probabilities or logits, or a hard one of whole numbers (H, W). Where
    a map says unknown, all logits are equal, and a student learns nothing from the pixel.

    Args:
        folder: The folder; what it holds in folders of its own isn't looked at.
        adapter: What is said about the maps.
        names: The maps' classes in order.
        classes: The student's classes.
        mapping: Which of the maps' classes stand for which of the student's.
        name: How messages and reports call it.

    Raises:
        FileError: The folder is missing, unreadable or holds no map.
        DataError: Two files have the same scene's name.
    """

    whole_scenes = True

    def __init__(
        self,
        folder: Path,
        adapter: Adapter,
        names: Sequence[str],
        classes: ClassMap,
        mapping: ClassMapping,
        *,
        name: str = "teacher",
    ) -> None:
        super().__init__(classes, known=mapping.known, name=name)
        self.folder = folder
        self.adapter = adapter
        self.mapping = mapping
        self._files = _find(folder)
        self._names = tuple(names)
        self._identity: str | None = None
        self._overlooked: set[int] = set()

    @property
    def identity(self) -> str:
        """SHA-256 of the maps' names, sizes and bytes when first asked, of the adapter and of the classes."""
        if self._identity is None:
            files = [(path.name, path.stat().st_size, content_key(path)) for _, path in sorted(self._files.items())]
            settings = [self.adapter.output, self.adapter.confidence, self._names, self.mapping.channels]
            parts = [files, settings, self.classes.to_dict()]
            self._identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self._identity

    @property
    def overlooked(self) -> tuple[str, ...]:
        """Names of its own classes that stand for none of the student's and were likeliest somewhere, until now."""
        return self.mapping.named(self._overlooked)

    def check_scenes(self, names: Sequence[str]) -> None:
        """Refuse to go on where a scene has no map.

        Raises:
            FileError: Maps are missing; it says how many and which is the first.
            DataError: One map would be that of several scenes.
        """
        found = {name: self._map_of(name) for name in names}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            suffixes = ", ".join(SUFFIXES[1:])
            raise FileError(
                f"{self.folder} has no label map for {len(missing)} of {len(names)} scenes; the first is "
                f"'{missing[0]}': add {missing[0]}{SUFFIXES[0]} (or {suffixes})"
            )
        users: dict[Path | None, str] = {}
        for name, path in found.items():
            if (other := users.setdefault(path, name)) != name:
                raise DataError(
                    f"{path} would be the label map of '{other}' and of '{name}'; name it after one of them"
                )

    def logits(self, images: Tensor) -> Tensor:
        """Refuse: a crop has no name.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"the teacher {self.name} knows whole scenes by their names and can't answer about crops; set "
            "'teacher_cache: true'"
        )

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a scene.

        Args:
            image: (H, W, bands); only its size is looked at.
            name: The scene's name in its data set.

        Raises:
            FileError: Its map is missing, unreadable or damaged.
            DataError: Its map has another size, or holds what is no class.
        """
        self.check_scenes([name])
        path, size = self._map_of(name), (image.shape[0], image.shape[1])
        assert path is not None  # noqa: S101  # it was checked
        answers, unknown = self._read(path, size)
        self._overlooked |= self.mapping.overlooked(answers[None])
        logits = self.mapping.apply(answers[None])[0]
        if bool(unknown.any()):
            # Summed groups of equal classes would no longer be equal.
            nothing = torch.full((len(self.classes), 1), -torch.inf)
            nothing[list(self.known)] = 0
            logits = torch.where(unknown, nothing[:, :, None], logits)
        whole: NDArray[np.float32] = logits.numpy()
        return whole

    def _map_of(self, name: str) -> Path | None:
        """Return the map of a scene; None: there is none."""
        words = name.split("-")
        endings = ("-".join(words[start:]) for start in range(len(words)))
        return next((self._files[ending] for ending in endings if ending in self._files), None)

    def _read(self, path: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the logits (K, H, W) of the maps' own classes, and where they are unknown (H, W)."""
        count, output = len(self._names), self.adapter.output
        if path.suffix.lower() == ".png":
            if output in ("logits", "probabilities"):
                raise DataError(f"{path} is a hard label map, but the adapter says 'output: {output}'; leave it out")
            index: NDArray[Any] = read_hard(path, self._own_classes())
        else:
            index = read_array(path)
            if index.ndim != 2 or index.dtype.kind not in "iu" or output in ("logits", "probabilities"):
                return soft_logits(index, size, count, output, path)
        if index.shape != size:
            raise DataError(
                f"{path} is {index.shape[0]} x {index.shape[1]} pixels (height x width) but its image is "
                f"{size[0]} x {size[1]}; a label map must have its image's size"
            )
        try:
            return hard_logits(index, count, self.adapter.confidence, path)
        except ModelError as error:
            raise DataError(str(error)) from error

    def _own_classes(self) -> ClassMap:
        """Return the maps' classes: the data set's with its colours, or names of their own, by number."""
        if self._names == self.classes.names:
            return self.classes
        return ClassMap.build([(name, None, None) for name in self._names])


def open_label_folder(source: TeacherSource, classes: ClassMap) -> Teacher:
    """Open ``labels:FOLDER`` as a teacher.

    The maps' classes are the data set's, in its order, unless the adapter names others.

    Args:
        source: Where it is, its adapter (``classes``, ``output`` and ``confidence`` of which are heeded), and which of
            the maps' classes stand for which of the student's.
        classes: The student's classes.

    Raises:
        FileError: The folder is missing, unreadable or holds no map.
        ConfigError: The source or its adapter says something that label maps don't have.
        DataError: Two files have the same scene's name.
        ModelError: No class matches.
    """
    kind, _, name = source.source.partition(":")
    if kind != "labels" or not name:
        raise ConfigError(f"teacher '{source.source}' must be labels:FOLDER")
    for key in ("weights", "options"):
        if getattr(source, key):
            raise ConfigError(
                f"the teacher {source.source} is a folder of label maps and takes no '{key}'; leave it out"
            )
    adapter = adapter_of(source)
    foreign = sorted(set(adapter.model_dump(exclude_defaults=True)) - _ABOUT_MAPS)
    if foreign:
        raise ConfigError(
            f"the teacher {source.source} takes no pixels, so its adapter's '{foreign[0]}' can't be kept; leave it out"
        )
    names = class_names(adapter) or classes.names
    try:
        mapping = map_classes(classes.names, names, source.classes)
    except ModelError as error:
        raise ModelError(f"{source.source}: {error}") from error
    return LabelFolder(Path(name).expanduser(), adapter, names, classes, mapping, name=source.source)


def _find(folder: Path) -> dict[str, Path]:
    """Return the label maps of a folder by their scenes' names."""
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileError(f"{folder} {kind}; give the folder of the label maps")
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise FileError(f"can't read {folder}: {error.strerror or error}; check its permissions") from error
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise DataError(f"{folder} has both {files[path.stem].name} and {path.name}; keep one for each scene")
        files[path.stem] = path
    if not files:
        raise FileError(f"{folder} holds no label map ({', '.join(SUFFIXES)}); its files are named after the scenes")
    return files
