"""LiteRT files, with an interpreter that gives the bands as logits in the real one's place."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from segshrink.classes import ClassMap
from segshrink.errors import FileError, MissingExtraError, ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction import open_backend
from segshrink.prediction.runtimes.litert import METADATA_FILE, LiteRtBackend

SIDE = 16


def detail(name, index, dtype):
    """What an interpreter says of an input or output."""
    shape = np.array([1, SIDE, SIDE, 3])
    quantization = {"scales": np.array([]), "zero_points": np.array([])}
    return {"name": name, "index": index, "shape": shape, "dtype": dtype, "quantization_parameters": quantization}


class Interpreter:
    """Takes and gives one tile, as an interpreter of LiteRT does."""

    def __init__(self, *, model_content, num_threads):
        if not model_content.startswith(b"network"):
            raise ValueError("Model provided has no header\nand more")

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [detail("images", 0, np.uint8)]

    def get_output_details(self):
        return [detail("scores", 1, np.float32)]

    def set_tensor(self, index, pixels):
        assert (index, pixels.shape, pixels.dtype) == (0, (1, SIDE, SIDE, 3), np.uint8)
        self.pixels = pixels.copy()

    def invoke(self):
        pass

    def get_tensor(self, index):
        return self.pixels.astype(np.float32)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", Interpreter)
    classes = ClassMap.build([(name, None, None) for name in "abc"])
    description = ModelDescription("bands", classes, 3, Normalization((0.0,) * 3, (1.0,) * 3), 1)
    path = tmp_path / "bands.tflite"
    path.write_bytes(b"network" * 9)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, json.dumps(description.to_dict()))
    return path


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 16, 16), (1, 5, 40), (2, 33, 18)])
def test_any_size_is_filled_up_or_cut_into_tiles(file, size):
    backend = open_backend(file, threads=1)
    assert (backend.runtime, backend.name, backend.tile, backend.description.id) == ("litert", "bands", SIDE, "bands")
    images = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_allclose(backend.run(images), images.transpose(0, 3, 1, 2), rtol=1e-5)
    np.testing.assert_array_equal(backend.classify(images), images.argmax(axis=3))


def test_wrong_files_say_so(file, tmp_path, monkeypatch):
    (tmp_path / "foreign.tflite").write_bytes(b"network")
    with pytest.raises(ModelError, match="not written by segshrink"):
        LiteRtBackend(tmp_path / "foreign.tflite")
    (tmp_path / "text.tflite").write_text("hello")
    with pytest.raises(ModelError, match=r"can't be loaded by LiteRT \(Model provided has no header\)"):
        open_backend(tmp_path / "text.tflite")
    with pytest.raises(FileError, match=r"absent\.tflite does not exist"):
        LiteRtBackend(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="litert doesn't compute in bf16"):
        open_backend(file, precision="bf16")
    with pytest.raises(ModelError, match="8-bit pixels"):
        open_backend(file).run(np.zeros((1, 4, 4, 3), np.uint16))


def test_a_missing_litert_names_the_extra(file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r"\[tflite\]"):
        open_backend(file)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(file):
    for size, words in ((5_000_000, r"bands\.tflite.*5,000,000 bytes"), (3_000_000, "damaged")):
        file.write_bytes(b"network" * 9)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(METADATA_FILE, " " * size)
        with pytest.raises(ModelError, match=words):
            open_backend(file)


def test_an_archive_that_cannot_be_unpacked_is_damaged(file):
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(METADATA_FILE).header_offset
    content[start + 30 + len(METADATA_FILE) + 5] ^= 255  # a letter of the description: its checksum differs now
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"segshrink\.json is damaged"):
        open_backend(file)


def test_a_file_of_anybody_is_run_as_what_stands_beside_it_says(file, tmp_path):
    path = tmp_path / "foreign.tflite"
    path.write_bytes(b"network")
    (tmp_path / "foreign.tflite.yaml").write_text("order: bgr\nclasses: [red, green, blue]\n")
    backend = open_backend(path, threads=1)
    assert (backend.runtime, backend.classes.names, backend.own_tile) == ("litert", ("red", "green", "blue"), SIDE)
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 40, 3), dtype=np.uint8)
    np.testing.assert_allclose(backend.run(images), images[..., ::-1].transpose(0, 3, 1, 2), rtol=1e-5)


def test_integers_come_back_as_the_logits_they_stand_for(file, monkeypatch):
    class Quantized(Interpreter):
        def get_output_details(self):
            scales = {"scales": np.array([0.5]), "zero_points": np.array([10])}
            return [{**detail("logits", 1, np.uint8), "quantization_parameters": scales}]

        def get_tensor(self, index):
            return self.pixels

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", Quantized)
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 11, 3), dtype=np.uint8)
    logits = open_backend(file, threads=1).run(images)
    np.testing.assert_allclose(logits, (images.astype(np.float32).transpose(0, 3, 1, 2) - 10) / 2)
