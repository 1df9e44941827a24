"""Teachers of version 0.1 are known by the same identities, so that their cached answers are found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.data import Sample, SceneStore
from segshrink.teachers import TeacherCache, TorchTeacher, open_teacher

OLD = Path(__file__).resolve().parents[1] / "data" / "version-0.1" / "teachers"
CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None)])
SOURCES = {
    "model": TeacherSource(source="model"),
    "adapted": TeacherSource(source="model", adapter=Adapter(order="bgr", size=52, fit="letterbox")),
    "net.onnx": TeacherSource(source="onnx:net.onnx", adapter=Adapter(mean=100, std=50)),
    "maps": TeacherSource(source="labels:maps"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_identities_are_what_they_were(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OLD)
    assert open_teacher(SOURCES[name], CLASSES).identity == json.loads(Path("identities.json").read_text())[name]


def test_cached_answers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(OLD / "answers", tmp_path / "answers")
    teacher = open_teacher(OLD / "model", CLASSES)
    store = SceneStore([Sample("scene", OLD / "scene.png", None)], CLASSES, folder=tmp_path / "store")
    expected = torch.from_numpy(teacher.scene_logits(np.array(store.image(0)), "scene"))
    monkeypatch.setattr(TorchTeacher, "scene_logits", None)  # it isn't asked again
    cached = TeacherCache(teacher, [store], folder=tmp_path / "answers")
    codes = torch.from_numpy(np.array(cached.codes(0))).permute(2, 0, 1)[None]
    # Steps of 1/4 in level.
    assert (cached.decode(codes)[0] - expected).abs().max() < 0.05 * expected.abs().max() + 1 / 8
