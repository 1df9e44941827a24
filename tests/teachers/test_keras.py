"""Keras files as teachers: ``keras:FILE``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import ConfigError, ModelError
from segshrink.teachers import TorchTeacher, is_data, open_teacher

CLASSES = ClassMap.build(["Land", "Water", "Road"])


def asked(source: TeacherSource | str, images: torch.Tensor) -> torch.Tensor:
    return open_teacher(source, CLASSES).logits(images).softmax(1)


@pytest.mark.parametrize("kind", ["unet", "nested"])
def test_classes_come_in_the_students_order(keras_file, kind: str) -> None:
    path, model = keras_file(kind)
    images = torch.randint(0, 256, (2, 3, 32, 32)).byte()
    scaled = images.permute(0, 2, 3, 1).numpy() / (255.0 if kind == "unet" else 1.0)
    expected = torch.from_numpy(model.predict(scaled.astype("float32"), verbose=0)).permute(0, 3, 1, 2)
    assert torch.allclose(asked(f"keras:{path}", images), expected, rtol=0, atol=1e-4)
    names = ["Road", "Land", "Water"]
    said = TeacherSource(source=str(path), adapter=Adapter(classes=names))
    assert torch.allclose(asked(said, images), expected[:, [1, 2, 0]], rtol=0, atol=1e-4)
    Path(f"{path}.yaml").write_text(json.dumps({"classes": names}))
    assert torch.allclose(asked(f"keras:{path}", images), expected[:, [1, 2, 0]], rtol=0, atol=1e-4)
    # What the recipe says takes the place of the file.
    assert torch.allclose(
        asked(TeacherSource(source=f"keras:{path}", adapter=Adapter(classes=[*CLASSES.names])), images),
        expected,
        rtol=0,
        atol=1e-4,
    )


def test_its_identity_is_that_of_its_weights(keras_file) -> None:
    path, model = keras_file("nested")
    teacher = open_teacher(f"keras:{path}", CLASSES)
    assert isinstance(teacher, TorchTeacher)
    assert teacher.parameters == model.count_params()
    assert open_teacher(f"keras:{path}", CLASSES).identity == teacher.identity
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.save(path)
    assert open_teacher(f"keras:{path}", CLASSES).identity != teacher.identity


def test_files_are_data_unless_they_are_trusted(tmp_path: Path) -> None:
    assert is_data(TeacherSource(source="keras:net.keras"))
    assert is_data(TeacherSource(source="keras:net.keras", adapter=Adapter(module="layers")))
    assert not is_data(TeacherSource(source="keras:net.keras", trust=True))


def test_what_does_not_fit_is_refused(keras_file) -> None:
    path, _ = keras_file("unet", classes=4)
    for source, kind, words in [
        (TeacherSource(source=f"keras:{path}"), ModelError, "answers with 4 classes"),
        (TeacherSource(source="keras:"), ConfigError, "write keras:PATH"),
        (TeacherSource(source=f"keras:{path}", options={"a": 1}), ConfigError, "takes no 'options'"),
        (TeacherSource(source="onnx:net.onnx", trust=True), ConfigError, "no Keras file"),
    ]:
        with pytest.raises(kind, match=words):
            open_teacher(source, CLASSES)
    with pytest.raises(ModelError, match="takes 3 bands"):
        open_teacher(f"keras:{keras_file('unet', name='three.keras')[0]}", CLASSES, bands=4)
