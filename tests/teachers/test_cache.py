from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.data import Sample, SceneStore
from segshrink.errors import FileError, ModelError
from segshrink.models import build_model
from segshrink.teachers import ClassMapping, TeacherCache, TorchTeacher, cache

CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None)])
SCENES = 4


@pytest.fixture
def store(tmp_path: Path) -> SceneStore:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(SCENES):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(str(number), path, None))
    return SceneStore(samples, CLASSES, folder=tmp_path / "cache")


class Counting(TorchTeacher):
    """Counts the images that it is asked about."""

    asked = 0

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += len(images)
        return super().logits(images)


def new_teacher(seed: int = 0, mapping: ClassMapping | None = None) -> Counting:
    torch.manual_seed(seed)
    return Counting(build_model("unet", CLASSES, options={"width": 4, "depth": 2}), CLASSES, mapping)


def answer(cached: TeacherCache, index: int) -> torch.Tensor:
    """Decoded logits (C, H, W) of a whole scene."""
    codes = torch.from_numpy(np.array(cached.codes(index))).permute(2, 0, 1)
    return cached.decode(codes[None])[0]


def files(store: SceneStore) -> list[Path]:
    return sorted((store.folder / "teachers").rglob("*.npy"))


def test_it_holds_what_the_teacher_says(store: SceneStore) -> None:
    teacher = new_teacher()
    cached = TeacherCache(teacher, [store])
    assert len(cached) == SCENES
    for number in range(SCENES):
        image = torch.from_numpy(np.array(store.image(number))).permute(2, 0, 1)[None]
        expected = teacher.logits(image)[0]
        # bf16 where the processor has it: 8 bits of mantissa through three convolutions; then steps of 1/4 in level
        assert (answer(cached, number) - expected).abs().max() < 0.05 * expected.abs().max() + 1 / 8
        assert (answer(cached, number).softmax(0) - expected.softmax(0)).abs().max() < 0.02


def test_answers_are_computed_once_per_teacher_and_image(store: SceneStore) -> None:
    teacher = new_teacher()
    TeacherCache(teacher, [store])
    assert teacher.asked == SCENES
    TeacherCache(teacher, [store, store])
    assert teacher.asked == SCENES
    for other in (new_teacher(seed=1), new_teacher(mapping=ClassMapping(((1,), (0,))))):
        TeacherCache(other, [store])
        assert other.asked == SCENES


def test_another_code_or_tiling_finds_nothing_old(store: SceneStore, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = new_teacher()
    TeacherCache(teacher, [store])
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    TeacherCache(teacher, [store])
    monkeypatch.setattr(cache, "OVERLAP", cache.OVERLAP + 2)
    TeacherCache(teacher, [store])
    assert teacher.asked == 3 * SCENES
    assert len(files(store)) == 3 * SCENES


def test_a_changed_image_is_answered_anew(store: SceneStore, tmp_path: Path) -> None:
    teacher = new_teacher()
    before = TeacherCache(teacher, [store]).codes(1).copy()
    Image.new("RGB", (50, 41), (9, 200, 30)).save(tmp_path / "1.png")
    changed = SceneStore(store.samples, CLASSES, folder=tmp_path / "cache")
    after = TeacherCache(teacher, [changed]).codes(1)
    assert teacher.asked == SCENES + 1
    assert not np.array_equal(before, after)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replace_text(path: Path) -> None:
    path.write_bytes(b"half")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def other_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 3, 3), np.uint8))


def other_order(path: Path) -> None:
    np.save(path, np.asfortranarray(np.load(path)))


def other_type(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float16))


@pytest.mark.parametrize("damage", [shorten, replace_text, empty, zero, other_shape, other_order, other_type])
def test_a_damaged_answer_is_named_then_computed_again(store: SceneStore, damage: Callable[[Path], None]) -> None:
    teacher = new_teacher()
    cached = TeacherCache(teacher, [store])
    expected = [cached.codes(number).copy() for number in range(SCENES)]
    broken = next(path for path in files(store) if np.array_equal(np.load(path), expected[2]))
    cached = copy.copy(cached)  # as loading processes get it, with no file open
    damage(broken)
    with pytest.raises(FileError, match=rf"{broken.name} (is damaged|holds).*start again"):
        cached.codes(2)
    again = TeacherCache(teacher, [store])
    assert teacher.asked == SCENES + 1
    assert all(np.array_equal(again.codes(number), expected[number]) for number in range(SCENES))


def test_files_are_held_open_but_not_too_many(store: SceneStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = TeacherCache(new_teacher(), [store])
    assert cached.codes(0) is cached.codes(0)
    monkeypatch.setattr(cache, "_OPEN_ANSWERS", 2)
    first = cached.codes(0)
    assert cached.codes(1) is cached.codes(1)
    assert cached.codes(2) is cached.codes(2)
    assert cached.codes(0) is not first
    assert np.array_equal(cached.codes(0), first)


def test_a_vanished_answer_is_named(store: SceneStore) -> None:
    cached = TeacherCache(new_teacher(), [store])
    for path in files(store):
        path.unlink()
    with pytest.raises(FileError, match="is missing; start again"):
        cached.codes(0)


def test_classes_that_the_teacher_does_not_know_stay_excluded(store: SceneStore) -> None:
    cached = TeacherCache(new_teacher(mapping=ClassMapping(((), (0,)))), [store])
    assert cached.known == (1,)
    logits = answer(cached, 0)
    assert torch.isneginf(logits[0]).all()
    assert torch.isfinite(logits[1]).all()


def test_it_stands_for_the_teacher_but_knows_no_crops(store: SceneStore) -> None:
    cached = TeacherCache(new_teacher(), [store])
    assert cached.classes == CLASSES
    assert cached.module is None
    with pytest.raises(ModelError, match="not about crops"):
        cached.logits(torch.zeros(1, 3, 32, 32))


def test_a_teacher_that_answers_nonsense_is_refused(store: SceneStore) -> None:
    class Nonsense(Counting):
        def logits(self, images: torch.Tensor) -> torch.Tensor:
            return super().logits(images) * torch.nan

    with pytest.raises(ModelError, match=r"answers NaN or infinity about scene '[0-3]'"):
        TeacherCache(Nonsense(new_teacher().module), [store])
    assert files(store) == []


def test_progress_counts_what_is_there_already(store: SceneStore) -> None:
    teacher = new_teacher()
    TeacherCache(teacher, [store])
    files(store)[0].unlink()
    calls = []
    TeacherCache(teacher, [store], progress=lambda *call: calls.append(call))
    assert calls == [(SCENES, SCENES, "teacher's answers")]


def test_a_folder_of_ones_own(store: SceneStore, tmp_path: Path) -> None:
    TeacherCache(new_teacher(), [store], folder=tmp_path / "mine")
    assert len(list((tmp_path / "mine").rglob("*.npy"))) == SCENES
    assert files(store) == []


def test_a_folder_that_cannot_be_written(store: SceneStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    teacher = new_teacher()
    with pytest.raises(FileError, match=r"can't write .*file/sub.*: .*another folder in distillation\.teacher_cache"):
        TeacherCache(teacher, [store], folder=tmp_path / "file" / "sub")
    assert teacher.asked == 0


def test_too_little_room_is_seen_before_the_teacher_is_asked(
    store: SceneStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum((40 + number) * 50 * 3 for number in range(SCENES))
    teacher = new_teacher()
    for free, whole in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder, free=free: (0, 0, free))
        if whole:
            assert len(TeacherCache(teacher, [store])) == SCENES
            continue
        with pytest.raises(FileError, match=r"4 scenes take 2.5e-05 GB, but .* has room for .* free some space"):
            TeacherCache(teacher, [store])
        assert teacher.asked == 0


def test_a_disk_that_fills_up_leaves_nothing_half_written(store: SceneStore, small_files: Any) -> None:
    with small_files(4096), pytest.raises(FileError, match=r"can't write .*npy"):
        TeacherCache(new_teacher(), [store])
    assert [path for path in (store.folder / "teachers").rglob("*") if path.is_file()] == []
    assert len(TeacherCache(new_teacher(), [store])) == SCENES


def build_beside_another(store: SceneStore, start: Barrier) -> None:
    torch.set_num_threads(1)
    teacher = new_teacher()
    start.wait(timeout=600)
    TeacherCache(teacher, [store])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_two_processes_build_one_cache(store: SceneStore, tmp_path: Path) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs fork, for two processes that start at once")
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    builders = [context.Process(target=build_beside_another, args=(store, start)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(timeout=600)
    assert [builder.exitcode for builder in builders] == [0, 0]
    teacher = new_teacher()
    built = TeacherCache(teacher, [store])
    assert teacher.asked == 0
    alone = TeacherCache(teacher, [store], folder=tmp_path / "alone")
    assert all(np.array_equal(built.codes(number), alone.codes(number)) for number in range(SCENES))
    assert {path.suffix for path in (store.folder / "teachers").rglob("*") if path.is_file()} == {".npy"}


@pytest.mark.parametrize("mapping", [None, ClassMapping(((), (1,)))])
def test_answers_lie_on_the_grid_of_images_at_the_working_size(store: SceneStore, mapping: ClassMapping | None) -> None:
    teacher = new_teacher(mapping=mapping)
    small = SceneStore(store.samples, CLASSES, resize=0.5, folder=store.folder)
    cached = TeacherCache(teacher, [small])
    assert answer(cached, 0).shape == (2, 20, 25)
    whole = teacher.to_probabilities(torch.from_numpy(teacher.scene_logits(np.array(store.image(0)), "0"))[None])
    expected = whole.reshape(1, 2, 20, 2, 25, 2).mean(dim=(3, 5))
    tolerance = 0.01 if mapping is None else 0.04  # steps of 1/4 in level
    torch.testing.assert_close(teacher.to_probabilities(answer(cached, 0)[None]), expected, atol=tolerance, rtol=0)
    assert answer(TeacherCache(teacher, [store]), 0).shape == (2, 40, 50), "about the same images as they are"
