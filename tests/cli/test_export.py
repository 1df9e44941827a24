"""``segshrink export`` as its user meets it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from segshrink.errors import ConfigError
from segshrink.export.export import plan_files
from segshrink.prediction import open_backend


def test_a_stem_and_formats_give_files_that_agree(segshrink, model, tmp_path, data):
    stem = tmp_path / "new folder" / "student.v2"
    result = segshrink("export", model, "-o", stem, "--format", "onnx,openvino", "--output", "classes,logits", "--half")
    assert result.status == 0, result.err
    expected = {f"student.v2{suffix}" for suffix in (".onnx", ".xml", ".bin", ".md", ".stac.json")}
    assert {path.name for path in stem.parent.iterdir()} == expected
    assert all(name in result.out for name in expected)
    images = np.random.default_rng(0).integers(0, 256, (1, 33, 50, 3), dtype=np.uint8)
    onnx, xml, folder = (
        open_backend(source, precision="32", threads=1) for source in (f"{stem}.onnx", f"{stem}.xml", model)
    )
    np.testing.assert_allclose(onnx.run(images), folder.run(images), atol=1e-4)
    assert (onnx.classify(images) == xml.classify(images)).mean() > 0.99
    assert (onnx.classify(images) == folder.classify(images)).mean() > 0.999
    item = json.loads((stem.parent / "student.v2.stac.json").read_text())
    assert set(item["assets"]) == {"student.v2.onnx", "student.v2.xml", "student.v2.bin"}
    assert [output["name"] for output in item["properties"]["mlm:output"]] == ["logits", "classes"]
    scores = segshrink("evaluate", f"{stem}.xml", "--data", data, "--out", tmp_path / "scores")
    assert scores.status == 0, scores.err
    of_folder = segshrink("evaluate", model, "--data", data, "--out", tmp_path / "others")
    assert of_folder.status == 0
    found, wanted = (
        json.loads((tmp_path / name / "evaluation.json").read_text())["scores"]["mean_iou"]
        for name in ("scores", "others")
    )
    assert found == pytest.approx(wanted, abs=0.01)


def test_qgis_gets_probabilities_from_floats(segshrink, model, tmp_path):
    result = segshrink("export", model, "-o", tmp_path / "map.onnx", "--format", "qgis", "--no-card")
    assert result.status == 0, result.err
    assert [path.name for path in tmp_path.iterdir()] == ["map.onnx"]
    assert open_backend(tmp_path / "map.onnx", threads=1).outputs == ("probabilities",)


def test_nobodys_page_is_replaced(segshrink, model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    result = segshrink("export", model, "-o", tmp_path / "README", "--format", "onnx")
    assert "README.md was not written by segshrink" in result.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-o", "x.pt"), ".onnx"),
        (("-o", "x", "--format", "onx"), "did you mean 'onnx'"),
        (("-o", "x.onnx", "--format", "openvino"), "is a file for onnx"),
        (("-o", "x.onnx", "--output", "class"), "did you mean 'classes'"),
        (("-o", "x.onnx", "--format", "web"), "is a file for onnx"),
    ],
)
def test_wrong_wishes_are_refused_at_once(segshrink, model, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in segshrink("export", model, *arguments).sentence
    assert list(tmp_path.iterdir()) == []


def test_an_xml_alone_is_refused(segshrink, data, tmp_path):
    (tmp_path / "alone.xml").write_text("<net/>")
    image = data.parent / "val/images/v0.jpg"
    assert shutil.copy(image, tmp_path)
    assert "alone.bin is missing" in segshrink("evaluate", tmp_path / "alone.xml", "--data", data).sentence


def test_names_of_files(tmp_path):
    page = plan_files(tmp_path / "map.html", None)
    assert (page.files, page.page) == ({}, tmp_path / "map.html")
    with_page = plan_files(tmp_path / "a", ["onnx", "web"])
    assert (with_page.files, with_page.page) == ({"onnx": tmp_path / "a.onnx"}, tmp_path / "a.html")
    assert plan_files(tmp_path / "a.onnx", None).files == {"onnx": tmp_path / "a.onnx"}
    assert plan_files(tmp_path / "A.ONNX", None).items == [tmp_path / "A.stac.json"]
    assert plan_files(tmp_path / "a", None).files == {"onnx": tmp_path / "a.onnx"}
    both = plan_files(tmp_path / "a.xml", ["openvino", "onnx"])
    assert both.files == {"openvino": tmp_path / "a.xml", "onnx": tmp_path / "a.onnx"}
    assert both.card == tmp_path / "a.md"
    assert both.items == [tmp_path / "a.stac.json", tmp_path / "a.xml.stac.json"]
    assert plan_files(tmp_path / "a", ["onnx", "qgis"]).files["qgis"] == tmp_path / "a.qgis.onnx"
    with pytest.raises(ConfigError, match="unknown ''"):
        plan_files(tmp_path / "a", ["onnx", ""])
