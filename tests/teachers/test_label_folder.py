from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.data import Sample, SceneStore
from segshrink.errors import ConfigError, DataError, FileError, ModelError
from segshrink.imagery import write_index_png
from segshrink.teachers import TeacherCache, open_teacher
from segshrink.teachers.label_folder import LabelFolder

CLASSES = ClassMap.build(
    [("Land", "#804000", None), ("Water", "#0000FF", None), ("Road", "#808080", None)], ["#000000"]
)
NUMBERED = ClassMap.build([("Land", None, 10), ("Water", None, 20), ("Road", None, 30)])
INDEX = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)
IMAGE = np.zeros((*INDEX.shape, 3), np.uint8)
UNKNOWN = INDEX == 255


def opened(folder: Path, student: ClassMap = CLASSES, *, aliases: Any = None, **adapter: Any) -> LabelFolder:
    source = TeacherSource(source=f"labels:{folder}", adapter=Adapter(**adapter), classes=aliases or {})
    teacher = open_teacher(source, student)
    assert isinstance(teacher, LabelFolder)
    return teacher


def probabilities_of(teacher: LabelFolder, name: str = "scene") -> NDArray[np.float32]:
    logits = teacher.scene_logits(IMAGE, name)
    assert logits.dtype == np.float32
    return torch.from_numpy(logits).softmax(0).numpy()


@pytest.mark.parametrize("kind", ["gray", "palette", "colors", "numpy"])
@pytest.mark.parametrize("student", [CLASSES, NUMBERED], ids=["color masks", "number masks"])
def test_hard_maps_give_their_class_the_confidence(tmp_path: Path, kind: str, student: ClassMap) -> None:
    if kind == "gray":
        Image.fromarray(INDEX).save(tmp_path / "scene.png")
    elif kind == "palette":  # what segshrink predict writes
        write_index_png(tmp_path / "scene.png", INDEX, student)
    elif kind == "colors":
        Image.fromarray(student.colorize(INDEX)).save(tmp_path / "scene.png")
    else:
        np.save(tmp_path / "scene.npy", INDEX.astype(np.int32))
    teacher = opened(tmp_path, student)
    probabilities = probabilities_of(teacher)
    assert (probabilities.argmax(0) == INDEX)[~UNKNOWN].all()
    assert np.allclose(np.sort(probabilities[:, ~UNKNOWN], axis=0), [[0.05], [0.05], [0.9]])
    assert np.ptp(teacher.scene_logits(IMAGE, "scene")[:, UNKNOWN]) == 0
    sure = probabilities_of(opened(tmp_path, student, confidence=0.99))
    assert np.allclose(sure[:, ~UNKNOWN].max(0), 0.99)


def test_gray_files_are_colors_where_the_classes_colors_are_grays(tmp_path: Path) -> None:
    shades = ClassMap.build([("Land", "#000000", None), ("Water", "#FFFFFF", None)])
    Image.fromarray(np.array([[0, 255, 255, 0], [0, 0, 0, 0]], np.uint8)).save(tmp_path / "scene.png")
    assert probabilities_of(opened(tmp_path, shades)).argmax(0).tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_soft_maps_of_probabilities(tmp_path: Path, layout: str, dtype: str) -> None:
    expected = np.random.default_rng(0).dirichlet([1, 1, 1], INDEX.shape).transpose(2, 0, 1)
    array = (expected * 255).round() if dtype == "uint8" else expected.copy()
    array[:, UNKNOWN] = 0
    array = (array if layout == "CHW" else array.transpose(1, 2, 0)).astype(dtype)
    if dtype == "float32":
        np.savez_compressed(tmp_path / "scene.npz", array)
    else:
        np.save(tmp_path / "scene.npy", array)
    teacher = opened(tmp_path)
    found = probabilities_of(teacher)
    assert np.abs(found - expected)[:, ~UNKNOWN].max() < (0.006 if dtype == "uint8" else 1e-3)
    assert np.ptp(teacher.scene_logits(IMAGE, "scene")[:, UNKNOWN]) == 0


def test_soft_maps_of_logits(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(3, *INDEX.shape)).astype(np.float32)
    holed = logits.copy()
    holed[1, UNKNOWN] = np.nan
    np.save(tmp_path / "scene.npy", holed)
    found = opened(tmp_path).scene_logits(IMAGE, "scene")
    assert np.array_equal(found[:, ~UNKNOWN], logits[:, ~UNKNOWN])
    assert (found[:, UNKNOWN] == 0).all()


def test_two_classes_may_share_a_channel(tmp_path: Path) -> None:
    two = ClassMap.build([("Land", None, None), ("Water", None, None)])
    second = np.linspace(0.05, 0.95, 8, dtype=np.float32).reshape(2, 4)
    np.save(tmp_path / "scene.npy", second)
    assert np.allclose(probabilities_of(opened(tmp_path, two))[1], second, atol=1e-6)
    np.save(tmp_path / "scene.npy", np.log(second / (1 - second))[None])
    assert np.allclose(probabilities_of(opened(tmp_path, two))[1], second, atol=1e-6)


def test_classes_of_the_maps_own_are_mapped_and_unknown_pixels_stay_unknown(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2, 255], [3, 3, 1, 0]], np.uint8)).save(tmp_path / "scene.png")
    teacher = opened(
        tmp_path, aliases={"Land": ["lawn", "forest"]}, classes=["lawn", "forest", "water", "roof"], confidence=0.7
    )
    assert teacher.known == (0, 1)
    logits = teacher.scene_logits(IMAGE, "scene")
    assert (logits[2] == -np.inf).all()
    probabilities = torch.from_numpy(logits).softmax(0).numpy()
    assert probabilities[0, 0, 0] == pytest.approx(0.8 / 0.9)  # lawn 0.7 and forest 0.1, of what the student knows
    assert probabilities[1, 0, 2] == pytest.approx(0.7 / 0.9)
    assert logits[:2, 0, 3].tolist() == [0, 0]


def test_missing_scenes_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    Image.fromarray(INDEX).save(tmp_path / "b.png")
    teacher = opened(tmp_path)
    teacher.check_scenes(["b"])
    with pytest.raises(FileError, match=r"no label map for 2 of 3 scenes; the first is 'a': add a\.png"):
        teacher.check_scenes(["b", "a", "c"])
    with pytest.raises(FileError, match="no label map for 1 of 1 scenes"):
        teacher.scene_logits(IMAGE, "c")
    with pytest.raises(ModelError, match=r"whole scenes by their names.*teacher_cache"):
        teacher.logits(torch.zeros(1, 3, 2, 4))


def test_maps_may_be_called_as_the_images_of_scenes_are(tmp_path: Path) -> None:
    Image.fromarray(INDEX).save(tmp_path / "tile7.png")
    Image.fromarray(np.zeros_like(INDEX)).save(tmp_path / "more-tile8.png")
    teacher = opened(tmp_path)
    teacher.check_scenes(["unlabeled-more-tile7", "unlabeled-more-tile8"])
    named, other = (teacher.scene_logits(IMAGE, f"unlabeled-more-tile{number}") for number in (7, 8))
    assert np.array_equal(named, teacher.scene_logits(IMAGE, "tile7"))
    assert (other.argmax(axis=0) == 0).all()
    with pytest.raises(FileError, match="no label map for 1 of 1 scenes; the first is 'tile8'"):
        teacher.check_scenes(["tile8"])
    with pytest.raises(DataError, match=r"tile7\.png would be the label map of 'tile7' and of 'unlabeled-more-tile7'"):
        teacher.check_scenes(["tile7", "unlabeled-more-tile7"])


def test_unknown_pixels_stay_unknown_in_the_cache(tmp_path: Path) -> None:
    maps, images = tmp_path / "maps", tmp_path / "images"
    maps.mkdir()
    images.mkdir()
    for name in ("a", "b"):  # equal images with maps of their own
        Image.fromarray(IMAGE).save(images / f"{name}.png")
    Image.fromarray(INDEX).save(maps / "a.png")
    np.save(maps / "b.npy", np.full((3, *INDEX.shape), [[[1.0]], [[2.0]], [[-3.0]]], np.float32))
    samples = [Sample(name, images / f"{name}.png", None) for name in ("a", "b")]
    teacher = open_teacher(f"labels:{maps}", CLASSES)
    cache = TeacherCache(teacher, [SceneStore(samples, CLASSES, folder=tmp_path / "cache")])
    first, second = (cache.decode(torch.from_numpy(cache.codes(n).copy()).permute(2, 0, 1)[None])[0] for n in (0, 1))
    assert (first.amax(0) == first.amin(0)).numpy().tolist() == UNKNOWN.tolist()
    assert (first.argmax(0).numpy() == INDEX)[~UNKNOWN].all()
    assert torch.allclose(second, torch.tensor([1.0, 2, -3]).view(3, 1, 1), atol=0.1)


def test_identity_follows_the_files_the_adapter_and_the_classes(tmp_path: Path) -> None:
    Image.fromarray(INDEX).save(tmp_path / "a.png")
    before = opened(tmp_path).identity
    assert opened(tmp_path).identity == before
    turned = ClassMap.build([("Water", "#0000FF", None), ("Land", "#804000", None), ("Road", "#808080", None)])
    others = [opened(tmp_path, confidence=0.8).identity, opened(tmp_path, turned).identity]
    Image.fromarray(INDEX).save(tmp_path / "b.png")
    others.append(opened(tmp_path).identity)
    Image.fromarray(INDEX[::-1].copy()).save(tmp_path / "b.png")
    others.append(opened(tmp_path).identity)
    assert len({before, *others}) == 5


@pytest.mark.parametrize(
    ("array", "adapter", "message"),
    [
        (np.zeros((3, 4, 4), np.float32), {}, r"of shape \(3, 4, 4\), but its image is 2 x 4 .* \(3, 2, 4\)"),
        (np.zeros((5, 2, 4), np.float32), {}, r"there are 3 classes"),
        (np.zeros((3, 2, 4), np.int32), {}, r"holds int32 numbers; a soft label map is uint8 or float"),
        (np.full((3, 2, 4), 0.2, np.float32), {}, r"from 0 to 1 that don't add up to 1"),
        (np.full((3, 2, 4), -2, np.float32), {"output": "probabilities"}, r"should hold probabilities, found -2 to -2"),
        (np.full((3, 2, 4), np.inf, np.float32), {}, "holds infinite logits"),
        (np.zeros((3, 2, 4), np.uint8), {"output": "logits"}, r"soft label map of uint8.*'output: logits'"),
        (np.full((2, 4), 7, np.int64), {}, r"class number 7, but it has 3 classes"),
        (np.zeros((3, 4), np.uint8), {}, r"is 3 x 4 pixels \(height x width\) but its image is 2 x 4"),
    ],
)
def test_maps_that_do_not_fit_are_refused(
    tmp_path: Path, array: NDArray[Any], adapter: dict[str, Any], message: str
) -> None:
    np.save(tmp_path / "scene.npy", array)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, **adapter).scene_logits(IMAGE, "scene")


def test_pictures_that_hold_no_class_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(tmp_path / "scene.png")
    with pytest.raises(DataError, match=r"7 \(1 pixels\).*counts the data set's classes from 0 to 2, 255 is unknown"):
        opened(tmp_path).scene_logits(IMAGE, "scene")
    Image.fromarray(np.full((2, 4, 3), 9, np.uint8)).save(tmp_path / "scene.png")
    with pytest.raises(DataError, match="undeclared colors"):
        opened(tmp_path).scene_logits(IMAGE, "scene")
    with pytest.raises(DataError, match="adapter says 'output: logits'"):
        opened(tmp_path, output="logits").scene_logits(IMAGE, "scene")
    (tmp_path / "scene.png").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="JPEG file; hard label maps are PNG"):
        opened(tmp_path).scene_logits(IMAGE, "scene")


def test_damaged_and_hostile_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04half")
    np.savez(tmp_path / "several.npz", a=INDEX, b=INDEX)
    teacher = opened(tmp_path)
    for name in ("pickle", "half"):
        with pytest.raises(FileError, match=rf"{name}\.np. is damaged"):
            teacher.scene_logits(IMAGE, name)
    with pytest.raises(DataError, match="holds a, b; a label map is the only array"):
        teacher.scene_logits(IMAGE, "several")


def test_folders_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no label map"):
        opened(tmp_path)
    with pytest.raises(FileError, match="does not exist"):
        opened(tmp_path / "absent")
    Image.fromarray(INDEX).save(tmp_path / "scene.png")
    with pytest.raises(ConfigError, match=r"takes no pixels.*'mean' can't be kept"):
        opened(tmp_path, mean=5.0)
    with pytest.raises(ConfigError, match="takes no 'weights'"):
        open_teacher(TeacherSource(source=f"labels:{tmp_path}", weights=Path("w.pth")), CLASSES)
    with pytest.raises(ModelError, match="share no name"):
        opened(tmp_path, classes=["a", "b", "c"])
    np.save(tmp_path / "scene.npy", INDEX)
    with pytest.raises(DataError, match=r"has both scene\.npy and scene\.png"):
        opened(tmp_path)
