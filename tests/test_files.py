from __future__ import annotations

import errno
import hashlib
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from segshrink.errors import FileError
from segshrink.files import (
    FolderKind,
    content_key,
    read_json,
    refuse_foreign,
    replacing,
    scratch_folder,
    write_json,
    write_text,
)


def entries(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_text_is_written_whole_into_new_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "note.txt", "größer")
    assert (tmp_path / "a/b/note.txt").read_bytes() == "größer".encode()
    assert entries(tmp_path) == {"a", "a/b", "a/b/note.txt"}


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "model.bin"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert entries(tmp_path) == {"model.bin"}


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with replacing(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert entries(tmp_path) == {"model", "model/second"}


def test_the_old_folder_comes_back_if_the_new_one_cannot_move_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == folder and self.name == "model":
            raise OSError(errno.EIO, "input/output error")
        return rename(self, target)

    def write() -> None:
        with replacing(folder) as temporary:
            temporary.mkdir()
            monkeypatch.setattr(Path, "rename", failing)

    with pytest.raises(FileError, match="input/output error"):
        write()
    assert entries(tmp_path) == {"model", "model/weights"}


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    with pytest.raises(FileError, match=r"can't write .*out"):
        write_text(tmp_path / "out", "text")
    assert entries(tmp_path) == {"out", "out/kept"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="can't write"), replacing(tmp_path / "a"):
        pass
    assert entries(tmp_path) == set()


def test_an_error_about_another_file_blames_that_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file/inner"), replacing(tmp_path / "a"):
        (tmp_path / "file" / "inner").mkdir()
    with pytest.raises(FileError, match=r"can't write .*a: No such file"), replacing(tmp_path / "a") as temporary:
        (temporary / "inner" / "more").mkdir()


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"can't write .*file/a\.txt: .*check the folder's permissions"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 250), "long")
    assert (tmp_path / ("x" * 250)).read_text() == "long"


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write everywhere")
def test_no_permission_is_a_file_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="Permission denied"):
        write_text(tmp_path / "a.txt", "")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from segshrink.errors import FileError
from segshrink.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "x" * 100_000)
except FileError as error:
    sys.exit(str(error))
"""
    assert hasattr(signal, "SIGXFSZ")
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(tmp_path / "big.txt")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"can't write {tmp_path}/big.txt: ")
    assert "Traceback" not in done.stderr
    assert entries(tmp_path) == set()


def test_json_round_trip_and_no_nan(tmp_path: Path) -> None:
    value = {"scores": [0.5, None], "name": "Größe"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "b.json", {"iou": math.nan})
    assert entries(tmp_path) == {"a.json"}


@pytest.mark.parametrize(
    "content",
    [b'{"a": 1', b"\xff\xfe{}", b"", b"[" * 200_000, b"[NaN]", b"-Infinity", b"[1e999]", b"[" + b"9" * 400 + b"]"],
)
def test_broken_json_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"run\.json is not valid JSON"):
        read_json(path)


def test_gigabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(FileError, match="more than 100,000,000 bytes"):
        read_json(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_json, content_key):
        with pytest.raises(FileError, match=r"can't read .*absent: .*; check the path"):
            read(tmp_path / "absent")


def test_content_key_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert content_key(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").touch()
    for name, target in (("note", "disk/note.txt"), ("folder", "disk"), ("new", "disk/not/yet.txt")):
        (tmp_path / name).symlink_to(tmp_path / target)
    write_text(tmp_path / "note", "text")
    write_text(tmp_path / "new", "text")
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "weights").touch()
    assert all((tmp_path / name).is_symlink() for name in ("note", "folder", "new"))
    assert entries(tmp_path) == {"note", "folder", "new", "disk", "disk/weights"}


def test_a_link_in_a_circle_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(FileError, match=r"can't .*a"):
        write_text(tmp_path / "a", "text")


FOREIGN = {
    "run.json": [b'{"status": "finished"}', b"[]", b"\x00", b'{"dependencies": {"segshrink": "1"}}', b'"segshrink"'],
    "card.md": [b"# segshrink is nice", b"written by segshrink, so they say"],
    "page.html": [b"<p>about segshrink</p>"],
    "recipe.yaml": [b"name: segshrink\n"],
    "model.onnx": [b"onnx", b"segshrink"],
    "model.xml": [b"<segshrink/>"],
    "model.bin": [b"\x00" * 100],
    "model.safetensors": [b"weights"],
    "picture.png": [b"\x89PNG segshrink"],
    "picture.jpg": [b"\xff\xd8"],
    "metrics.csv": [b"epoch,step\n"],
    "empty.json": [b""],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in FOREIGN for content in FOREIGN[name]])
def test_what_others_wrote_is_not_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.write_bytes(content)
    for place in (path, path.parent):
        with pytest.raises(FileError, match=rf"{name} was not written"):
            refuse_foreign(tmp_path / "absent", place)
        with pytest.raises(FileError, match="--overwrite"), replacing(place, overwrite=False):
            pytest.fail("the work must not begin")
    assert path.read_bytes() == content
    assert entries(tmp_path) == {"out", f"out/{name}"}


def test_what_this_program_wrote_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        write_json(tmp_path / "out" / "a.json", {"a": 1}, overwrite=False)
        for name in ("a.md", "a.html", "a.yaml"):
            write_text(tmp_path / "out" / name, "name: a", overwrite=False)
    with replacing(tmp_path / "out", overwrite=False) as temporary:
        temporary.mkdir()
    assert entries(tmp_path) == {"out"}


@pytest.mark.parametrize("kind", ["file", "link", "empty folder"])
def test_a_folder_with_anything_else_inside_is_not_replaced(tmp_path: Path, kind: str) -> None:
    write_json(tmp_path / "out" / "part" / "config.json", {"a": 1}, overwrite=False)
    extra = tmp_path / "out" / "part" / "extra"
    {"file": extra.touch, "link": lambda: extra.symlink_to("config.json"), "empty folder": extra.mkdir}[kind]()
    with pytest.raises(FileError, match=r"part/extra was not written"), replacing(tmp_path / "out", overwrite=False):
        pytest.fail("the work must not begin")


def test_a_result_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    write_json(tmp_path / "out" / "evaluation.json", {"a": 1}, overwrite=False)
    for overwrite in (False, True):
        with (
            suppress(FileError),
            replacing(tmp_path / "out", overwrite=overwrite, kind=FolderKind("a model", ("config.json",))) as temporary,
        ):
            assert overwrite
            temporary.mkdir()
            (temporary / "config.json").touch()
        assert (tmp_path / "out" / "evaluation.json").exists()
        assert (tmp_path / "out" / "config.json").exists() is overwrite


def test_what_appears_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def write() -> None:
        with replacing(path, overwrite=False) as temporary:
            temporary.touch()
            path.write_text("somebody's")

    with pytest.raises(FileError, match=r"a\.json was not written"):
        write()
    assert path.read_text() == "somebody's"


def test_overwriting_a_folder_keeps_files_of_other_names(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "notes" / "empty").mkdir(parents=True)
    (out / "weights").write_text("theirs")
    (out / "notes" / "a.txt").write_text("mine")
    (out / "link").symlink_to("nowhere")
    write_json(out / "old.json", {"a": 1}, overwrite=False)
    with replacing(out, overwrite=True) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("ours")
    assert entries(out) == {"weights", "link", "notes", "notes/a.txt", "notes/empty"}
    assert (out / "weights").read_text() == "ours"
    assert (out / "notes" / "a.txt").read_text() == "mine"
    assert (out / "link").is_symlink()


def test_the_sentence_names_the_final_file(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "out") as temporary:
            temporary.mkdir()
            write_text(temporary / "pictures" / "a.txt" / "b", "")
            write_text(temporary / "pictures" / "a.txt", "")

    with pytest.raises(FileError) as caught:
        write()
    assert f"{tmp_path}/out/pictures/a.txt" in str(caught.value)
    assert ".segshrink" not in str(caught.value)


def test_a_temporary_folder_is_gone_after_the_block() -> None:
    with scratch_folder() as scratch:
        (scratch / "a").touch()
    assert not scratch.exists()
