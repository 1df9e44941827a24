"""The teacher's answers over whole scenes, computed once and memory-mapped."""

from __future__ import annotations

import hashlib
import math
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.data import SceneStore
from segshrink.data.checked_arrays import CheckedArrays, DamagedError, write_array
from segshrink.data.epochs import process_place
from segshrink.errors import FileError, ModelError
from segshrink.models.model import at_working_size
from segshrink.teachers.cache_quantization import VERSION, NotFiniteError, decode, encode
from segshrink.teachers.teacher import OVERLAP, TILE, Teacher

# Answers held open at once, so that their pages needn't be mapped anew, where the system allows so many open files.
_OPEN_ANSWERS = 128

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Answer:
    """Where the codes of a scene lie, and their shape (H, W, C + 1)."""

    path: Path
    shape: tuple[int, int, int]


class TeacherCache(Teacher):
    """The answers of a frozen teacher about every scene of some stores, one byte a class, memory-mapped and read-only.

    It stands for the teacher, which may be forgotten: a crop's answer is cut from the scene's with the crop's own plan,
    so a training step doesn't run the teacher. The teacher saw whole scenes, by overlapping tiles, without the
    student's brightness or noise; about a store at a working size its answers are those about the scenes as they are,
    whose probabilities are brought to that size as images are.

    Files are named by the teacher's identity (weights, preprocessing, classes), the tiling, the code, and the image's
    content: a stale one is never found. They get their name when they are whole; a damaged one is computed again.
    Processes that build one cache at once take scenes in different orders and use each other's; those of one training
    begin at different shares of them.

    Args:
        teacher: Computes what is missing; not kept.
        stores: The scenes; they are numbered through all stores in this order.
        folder: Where the answers lie; None: in the cache folder of the first store.
        progress: Called after every scene with (scenes done, scenes in all, "teacher's answers").

    Raises:
        FileError: The folder can't be written, or has too little room.
        ModelError: The teacher answers NaN.
        DataError: The teacher knows nothing about a scene.
    """

    whole_scenes = True

    def __init__(
        self,
        teacher: Teacher,
        stores: Sequence[SceneStore],
        *,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(teacher.classes, known=teacher.known, name=teacher.name)
        self._files = CheckedArrays()
        self._parameters = teacher.parameters
        self._identity = hashlib.sha256(f"{teacher.identity} {TILE} {OVERLAP} {VERSION}".encode()).hexdigest()
        home = (stores[0].folder / "teachers" if folder is None else Path(folder)) / self._identity[:16]
        scenes = [(store, number) for store in stores for number in range(len(store))]
        self._numbers = {store.samples[number].name: place for place, (store, number) in enumerate(scenes)}
        self._answers = [self._answer(home, store, number, named=teacher.whole_scenes) for store, number in scenes]
        missing = {
            answer: scene
            for answer, scene in zip(self._answers, scenes, strict=True)
            if self._fault(answer) is not None
        }
        if missing:
            teacher.check_scenes([store.samples[number].name for store, number in missing.values()])
            _make_room(home, list(missing))
            self._build(teacher, missing, progress)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def identity(self) -> str:
        """SHA-256 of everything that an answer depends on besides the image: the teacher, the tiling and the code."""
        return self._identity

    @property
    def parameters(self) -> int | None:
        """How many weights the teacher has that answered; None where that isn't known."""
        return self._parameters

    def codes(self, index: int) -> NDArray[np.uint8]:
        """Return the coded answer about scene ``index``, (H, W, C + 1), to be cut like pixels and then decoded.

        Raises:
            FileError: The file vanished or is damaged.
        """
        answer = self._answers[index]
        if (fault := self._fault(answer)) is not None:
            raise FileError(f"the teacher's answer {answer.path} {fault}; start again, and it is computed anew")
        return self._files.get(answer.path, most=_OPEN_ANSWERS)

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the cached logits (C, H, W) about the scene of that name; it isn't looked at.

        Raises:
            ModelError: It is none of the scenes.
        """
        if name not in self._numbers:
            raise ModelError(f"the answers of '{self.name}' are cached about other scenes than '{name}'")
        codes = torch.from_numpy(np.array(self.codes(self._numbers[name])))
        logits: NDArray[np.float32] = self.decode(codes.permute(2, 0, 1)[None])[0].numpy()
        return logits

    def decode(self, codes: Tensor) -> Tensor:
        """Return the float32 logits (N, C, H, W) of crops of codes (N, C + 1, H, W); -inf for unknown classes."""
        return self.without_unknown(decode(codes))

    def logits(self, images: Tensor) -> NoReturn:
        """Refuse: only answers about scenes are cached.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"the answers of '{self.name}' are cached about scenes, not about crops; ask the teacher itself"
        )

    def _answer(self, home: Path, store: SceneStore, number: int, *, named: bool) -> _Answer:
        """Return where an answer lies; a teacher that finds its answers by the scenes' names has one for each name."""
        sample = store.samples[number]
        key = f"{self._identity} {store.image_key(number)} {sample.window} {sample.name if named else ''}"
        name = hashlib.sha256(key.encode()).hexdigest()
        return _Answer(home / f"{name}.npy", (*store.shape(number), len(self.classes) + 1))

    def _fault(self, answer: _Answer) -> str | None:
        """Return what is wrong with the file of an answer; None: nothing, to the last byte."""
        try:
            codes = self._files.get(answer.path, most=_OPEN_ANSWERS)
        except FileNotFoundError:
            return "is missing"
        except DamagedError as error:
            return f"is damaged ({error})"
        if codes.dtype != np.uint8 or codes.shape != answer.shape:
            return f"holds {codes.dtype} of shape {codes.shape} instead of bytes of shape {answer.shape}"
        return None

    def _build(
        self, teacher: Teacher, missing: dict[_Answer, tuple[SceneStore, int]], progress: Progress | None
    ) -> None:
        order = list(missing)
        rank, processes = process_place()
        first = len(order) * rank // processes
        order = order[first:] + order[:first]
        if processes == 1:  # others that may be at it don't begin with the same scene
            random.Random(os.getpid()).shuffle(order)  # noqa: S311
        done = len(self._answers) - len(missing)
        for answer in order:
            store, number = missing[answer]
            if self._fault(answer) is not None:
                # Otherwise a power failure may leave a file of the right size and full of zeros under the final name.
                write_array(answer.path, _asked(teacher, store, number), durable=True)
            done += 1
            if progress is not None:
                progress(done, len(self._answers), "teacher's answers")


def _asked(teacher: Teacher, store: SceneStore, number: int) -> NDArray[np.uint8]:
    name = store.samples[number].name
    # A copy: the teacher looks at it for long, in which the file behind a map may be cut short.
    logits = teacher.scene_logits(np.array(store.original(number)), name)
    if store.resize is not None:
        likely = at_working_size(teacher.to_probabilities(torch.from_numpy(logits)[None]), store.resize)
        logits = teacher.from_probabilities(likely)[0].numpy()
    expected = (len(teacher.classes), *store.shape(number))
    if logits.shape != expected:
        raise ModelError(f"the teacher '{teacher.name}' answers {logits.shape} about scene '{name}', not {expected}")
    try:
        return encode(logits)
    except NotFiniteError as error:
        raise ModelError(
            f"the teacher '{teacher.name}' answers NaN or infinity about scene '{name}'; check its weights and how it "
            "takes pixels"
        ) from error


def _make_room(home: Path, missing: Sequence[_Answer]) -> None:
    """Create the folder and see that it can be written and takes what is missing.

    Raises:
        FileError: It can't, or doesn't.
    """
    needed = sum(math.prod(answer.shape) for answer in missing)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
        free = shutil.disk_usage(home)[2]
    except OSError as error:
        raise FileError(
            f"can't write the teacher's answers to {home}: {error.strerror or error}; name another folder in "
            "distillation.teacher_cache"
        ) from error
    if needed > free:
        raise FileError(
            f"the teacher's answers about {len(missing)} scenes take {needed / 1e9:.2g} GB, but {home} has room for "
            f"{free / 1e9:.2g} GB; free some space, name another folder in distillation.teacher_cache, or set it to "
            "false to ask the teacher at every step"
        )
