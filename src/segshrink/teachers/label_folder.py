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
from segshrink.config import Adapter
from segshrink.errors import ConfigError, DataError, FileError, ModelError
from segshrink.files import content_key
from segshrink.teachers.label_maps import SUFFIXES, hard_logits, read_array, read_hard, soft_logits
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.teacher import Teacher

# What an adapter may say about label maps; the rest is about pixels that go into a network.
_ABOUT_MAPS = {"output", "confidence", "classes"}


class LabelFolder(Teacher):
    """Answers about whole scenes from the file that has the scene's name, or its end after a "-".

    The names of unlabeled images begin with their folders' ("unlabeled-more-tile7"); their maps may be called as the
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
        ConfigError: The adapter says what label maps don't have.
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
        foreign = sorted(set(adapter.model_dump(exclude_defaults=True)) - _ABOUT_MAPS)
        if foreign:
            raise ConfigError(
                f"the teacher {name} takes no pixels, so its adapter's '{foreign[0]}' can't be kept; leave it out"
            )
        super().__init__(classes, mapping=mapping, name=name)
        self.mapping: ClassMapping = mapping
        self.folder, self._adapter, self._names = folder, adapter, tuple(names)
        self._files = _find(folder)
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of the maps' names, sizes and bytes when first asked, of the adapter and of the classes."""
        if self._identity is None:
            files = [(path.name, path.stat().st_size, content_key(path)) for _, path in sorted(self._files.items())]
            settings = [self._adapter.output, self._adapter.confidence, self._names, self.mapping.identity]
            parts = [files, settings, self.classes.to_dict()]
            self._identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self._identity

    def check_scenes(self, names: Sequence[str]) -> None:
        """Refuse to go on where a scene has no map.

        Raises:
            FileError: Maps are missing; it says how many and which is the first.
            DataError: One map would be that of several scenes.
        """
        maps = {name: self._map_of(name) for name in names}
        missing = [name for name, path in maps.items() if path is None]
        if missing:
            suffixes = ", ".join(SUFFIXES[1:])
            raise FileError(
                f"{self.folder} has no label map for {len(missing)} of {len(names)} scenes; the first is "
                f"'{missing[0]}': add {missing[0]}{SUFFIXES[0]} (or {suffixes})"
            )
        users: dict[Path | None, str] = {}
        for name, path in maps.items():
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
        logits = self.mapping.apply(answers[None])
        # Summed groups of equal classes would no longer be equal.
        nothing = self.without_unknown(torch.zeros(1, len(self.classes), 1, 1))
        whole: NDArray[np.float32] = torch.where(unknown, nothing, logits)[0].numpy()
        return whole

    def _map_of(self, name: str) -> Path | None:
        """Return the map of a scene; None: there is none."""
        words = name.split("-")
        endings = ("-".join(words[start:]) for start in range(len(words)))
        return next((self._files[ending] for ending in endings if ending in self._files), None)

    def _read(self, path: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the logits (K, H, W) of the maps' own classes, and where they are unknown (H, W)."""
        soft = self._adapter.output in ("logits", "probabilities")
        if path.suffix.lower() == ".png":
            if soft:
                raise DataError(
                    f"{path} is a hard label map, but the adapter says 'output: {self._adapter.output}'; leave it out"
                )
            same = self._names == self.classes.names  # the data set's, with its colors, or names of their own
            classes = self.classes if same else ClassMap.build([(name, None, None) for name in self._names])
            index: NDArray[Any] = read_hard(path, classes)
        else:
            index = read_array(path)
            if index.ndim != 2 or index.dtype.kind not in "iu" or soft:
                return soft_logits(index, size, len(self._names), self._adapter.output, path)
        if index.shape != size:
            raise DataError(
                f"{path} is {index.shape[0]} x {index.shape[1]} pixels (height x width) but its image is "
                f"{size[0]} x {size[1]}; a label map must have its image's size"
            )
        try:
            return hard_logits(index, len(self._names), self._adapter.confidence, path)
        except ModelError as error:
            raise DataError(str(error)) from error


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
