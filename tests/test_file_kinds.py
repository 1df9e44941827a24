"""Files of other programs, and what failed downloads leave, are told apart; each sentence says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segshrink.errors import FileError, ModelError
from segshrink.file_kinds import explain, explain_checkpoint, refuse_no_model
from segshrink.model_file import ModelFile


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.engine", "TensorRT, made for one GPU; give the .onnx file"),
        ("net.mlmodel", "Core ML"),
        ("net.pdparams", "paddle2onnx"),
        ("model_final.pkl", "export_model.py --format onnx"),
        ("params.msgpack", "jax2onnx"),
        ("frozen.pb", "tf2onnx.convert --graphdef"),
        ("run.zip", "an archive; unpack it"),
        ("run.tar.gz", "an archive; unpack it"),
        ("net.rknn", "converted for one runtime"),
        ("arrays.npz", "a file of arrays"),
        ("weights.pth", "not a file of weights or is damaged"),
    ],
)
def test_files_of_other_programs_say_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00" + os.urandom(60))
    sentence = explain(path)
    assert sentence is not None
    assert sentence.startswith(str(path))
    assert words in sentence
    with pytest.raises(ModelError) as caught:
        ModelFile.find(path)
    assert str(caught.value) == sentence


def test_a_folder_of_core_ml_is_explained(tmp_path: Path) -> None:
    (tmp_path / "net.mlpackage").mkdir()
    with pytest.raises(ModelError, match="Core ML"):
        ModelFile.find(tmp_path / "net.mlpackage")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n<HTML><body>404</body>", "web page"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>', "server's message"),
    ],
)
@pytest.mark.parametrize("name", ["net.onnx", "net.tflite", "net.keras", "net.xml", "net.pth"])
def test_what_a_failed_download_leaves_is_no_model(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    for opened in (refuse_no_model, ModelFile.find):
        with pytest.raises(FileError, match=words):
            opened(tmp_path / name)


def test_other_files_are_not_refused(tmp_path: Path) -> None:
    for name, content in (("net.xml", b'<?xml version="1.0"?><net name="a"/>'), ("net.onnx", b"\x08\x07")):
        (tmp_path / name).write_bytes(content)
        refuse_no_model(tmp_path / name)
        assert explain(tmp_path / name) is None
    (tmp_path / "plain.pth").write_bytes(b"\x80\x02}q\x00.")
    assert explain_checkpoint(tmp_path / "plain.pth") is None


def test_a_function_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"build_model\('my_nets:big', .*--trust"):
        ModelFile.find("my_nets:big")
