"""The teacher's answers over whole scenes, computed once and memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segshrink.data import SceneStore
from segshrink.errors import FileError
from segshrink.files import replacing
from segshrink.teachers.teacher import OVERLAP, TILE, Teacher

Progress = Callable[[int, int, str], None]


class TeacherCache:
    """The logits of a frozen teacher for every scene of some stores, (H, W, C) float16, memory-mapped and read-only.

    A crop's targets are cut from them with the crop's own plan, so a training step doesn't run the teacher. The
    teacher sees whole scenes, by the tiles that deployment uses, without the student's brightness or noise. Files are
    named by the teacher's weights, description and class order, the tiling, and the image's content: a stale one is
    never found, and a half-written one never has its final name.

    Args:
        teacher: Computes what is missing; not needed afterwards.
        stores: The scenes; they are numbered through all stores in this order.
        progress: Called after every scene with (scenes done, scenes in all, "teacher's answers").

    Raises:
        FileError: The cache folder can't be written or read.
    """

    def __init__(
        self,
        teacher: Teacher,
        stores: Sequence[SceneStore],
        *,
        progress: Progress | None = None,
    ) -> None:
        self._paths: list[Path] = []
        identity = hashlib.sha256(f"{teacher.identity} {TILE} {OVERLAP}".encode()).hexdigest()
        scenes = [(store, number) for store in stores for number in range(len(store))]
        for store, number in scenes:
            window = store.samples[number].window
            key = hashlib.sha256(f"{identity} {store.image_key(number)} {window}".encode()).hexdigest()
            path = store.folder / "teachers" / identity[:16] / f"{key}.npy"
            if not path.exists():
                _write(path, teacher.scene_logits(np.asarray(store.image(number)), store.samples[number].name))
            self._paths.append(path)
            if progress is not None:
                progress(len(self._paths), len(scenes), "teacher's answers")

    def __len__(self) -> int:
        return len(self._paths)

    def logits(self, index: int) -> NDArray[np.float16]:
        """Return the teacher's logits of scene ``index``, (H, W, C) float16.

        Raises:
            FileError: The file vanished or is damaged.
        """
        path = self._paths[index]
        try:
            mapped: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise FileError(f"the teacher's cached answer {path} can't be read ({error}); delete it") from error
        return mapped.view(np.ndarray)


def _write(path: Path, logits: NDArray[np.float32]) -> None:
    # 60000 lies inside float16; a softmax can't tell logits that large from larger ones.
    values = np.clip(logits, -60000, 60000).transpose(1, 2, 0).astype(np.float16)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values, allow_pickle=False)
