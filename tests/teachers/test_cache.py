from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.data import Sample, SceneStore
from segshrink.errors import FileError
from segshrink.models import build_model
from segshrink.teachers import ClassMapping, TeacherCache, TorchTeacher

CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None)])


@pytest.fixture
def store(tmp_path: Path) -> SceneStore:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(str(number), path, None))
    return SceneStore(samples, CLASSES, folder=tmp_path / "cache")


def new_teacher(seed: int = 0) -> TorchTeacher:
    torch.manual_seed(seed)
    return TorchTeacher(build_model("unet", CLASSES, options={"width": 4, "depth": 2}))


class Counting(TorchTeacher):
    """Counts the images that it is asked about."""

    asked = 0

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += len(images)
        return super().logits(images)


def test_it_holds_what_the_teacher_says(store: SceneStore) -> None:
    teacher = new_teacher()
    cache = TeacherCache(teacher, [store])
    assert len(cache) == 3
    for number in range(3):
        image = torch.from_numpy(np.array(store.image(number))).permute(2, 0, 1)[None]
        expected = teacher.logits(image)[0].permute(1, 2, 0).numpy()
        assert cache.logits(number).dtype == np.float16
        # bf16 where the processor has it: 8 bits of mantissa through three convolutions
        assert np.abs(cache.logits(number) - expected).max() < 0.05 * np.abs(expected).max()


def test_answers_are_computed_once_per_teacher_and_image(store: SceneStore) -> None:
    teacher = Counting(new_teacher().module)
    TeacherCache(teacher, [store])
    assert teacher.asked == 3
    TeacherCache(teacher, [store, store])
    assert teacher.asked == 3
    other = Counting(new_teacher(seed=1).module)
    TeacherCache(other, [store])
    assert other.asked == 3
    turned = Counting(teacher.module, CLASSES, ClassMapping(((1,), (0,))))
    TeacherCache(turned, [store])
    assert turned.asked == 3


def test_a_changed_image_is_answered_anew(store: SceneStore, tmp_path: Path) -> None:
    teacher = Counting(new_teacher().module)
    before = TeacherCache(teacher, [store]).logits(1).copy()
    Image.new("RGB", (50, 41), (9, 200, 30)).save(tmp_path / "1.png")
    changed = SceneStore(store.samples, CLASSES, folder=tmp_path / "cache")
    after = TeacherCache(teacher, [changed]).logits(1)
    assert teacher.asked == 4
    assert not np.array_equal(before, after)


def test_a_damaged_answer_is_named(store: SceneStore, tmp_path: Path) -> None:
    cache = TeacherCache(new_teacher(), [store])
    for path in (tmp_path / "cache" / "teachers").rglob("*.npy"):
        path.write_bytes(b"half")
    with pytest.raises(FileError, match=r"can't be read .*delete it"):
        cache.logits(0)
