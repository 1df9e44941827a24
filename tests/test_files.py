from __future__ import annotations

import errno
import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segshrink.errors import FileError
from segshrink.files import content_key, read_json, replacing, write_json, write_text


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


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"can't write .*file/a\.txt: .*check the folder's permissions"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 250), "long")
    assert (tmp_path / ("x" * 250)).read_text() == "long"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
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
        [sys.executable, "-c", script, str(tmp_path / "big.txt")], capture_output=True, text=True, check=False
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


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe{}", b"", b"[" * 200_000])
def test_broken_json_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"run\.json is not valid JSON"):
        read_json(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_json, content_key):
        with pytest.raises(FileError, match=r"can't read .*absent: .*; check the path"):
            read(tmp_path / "absent")


def test_content_key_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert content_key(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
