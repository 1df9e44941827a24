"""A folder belongs to one process at a time, and what dead ones left is put in order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from segshrink.errors import FileError
from segshrink.files import (
    replacing,
    write_text,
)
from segshrink.folder_lock import claimed
from segshrink.machine import ProcessIdentity


def entries(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


HOLD = """
import sys, time
from pathlib import Path
from segshrink.files import replacing
from segshrink.folder_lock import claimed
with claimed(Path(sys.argv[1])), replacing(Path(sys.argv[1]) / "old") as temporary:
    temporary.mkdir()
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that claims a folder, and is writing into it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_folder_belongs_to_one_process_until_it_dies(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    with holding(out) as process:
        for place in (out, tmp_path / "link"):
            if place != out:
                place.symlink_to(out)
            with pytest.raises(FileError, match=rf"in use by process {process.pid} on .* since 2"), claimed(place):
                pytest.fail("two processes in one folder")
        assert list(out.rglob(".segshrink-*"))
        write_text(out / "a.txt", "")  # beside a living process's temporary folder
        assert list(out.rglob(".segshrink-*-*"))
        process.kill()
        process.wait()
        with claimed(out):
            assert not list(out.rglob(".segshrink-*-*"))
    assert entries(tmp_path) == {"link", "a", "a/run", "a/run/a.txt"}


def test_a_claim_leaves_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "b"), claimed(tmp_path / "a" / "b"):
        assert entries(tmp_path) == {"a", "a/b", "a/b/.segshrink-lock"}
    assert entries(tmp_path) == set()


def test_another_thread_does_not_share_a_claim(tmp_path: Path) -> None:
    def claim() -> None:
        with claimed(tmp_path):
            pytest.fail("two threads in one folder")

    with claimed(tmp_path), ThreadPoolExecutor(1) as pool, pytest.raises(FileError, match="another thread"):
        pool.submit(claim).result()


def test_a_claimed_folder_may_be_replaced(tmp_path: Path) -> None:
    with claimed(tmp_path / "out"):
        with replacing(tmp_path / "out", overwrite=False) as temporary:
            temporary.mkdir()
            (temporary / "a").touch()
        with claimed(tmp_path / "out"):
            pass
    assert entries(tmp_path) == {"out", "out/a"}


@pytest.mark.parametrize(
    ("owner", "stays"),
    [
        (lambda own, dead: dead, False),
        (lambda own, dead: own, True),
        (lambda own, dead: replace(own, start=own.start + 1), False),
        (lambda own, dead: replace(dead, node="01234567"), True),
        (lambda own, dead: "x", True),
    ],
    ids=["dead", "living", "pid used again", "another host", "unknown"],
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="when a process began is read from /proc")
def test_only_temporary_folders_of_dead_processes_are_removed(
    tmp_path: Path, owner: Callable[..., object], stays: bool
) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    own = ProcessIdentity.own()
    left = tmp_path / ".segshrink-scratch" / f".segshrink-{owner(own, replace(own, pid=done.pid))}-abc"
    (left / "half").mkdir(parents=True)
    write_text(tmp_path / "a.txt", "")
    assert left.exists() is stays
    assert left.parent.exists() is stays


def test_a_folder_that_was_being_replaced_gets_its_name_back(tmp_path: Path) -> None:
    """A process that dies between two renames leaves both folders under temporary names."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead = replace(ProcessIdentity.own(), pid=done.pid)
    aside = tmp_path / ".segshrink-scratch" / f".segshrink-{dead}-abc" / "replaced" / "model"
    aside.mkdir(parents=True)
    (aside / "weights").write_text("old")
    with claimed(tmp_path):
        assert (tmp_path / "model" / "weights").read_text() == "old"
    assert entries(tmp_path) == {"model", "model/weights"}


def test_a_lock_that_cannot_be_had_falls_back_to_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segshrink.folder_lock.lock_file", lambda stream: None)
    lock = tmp_path / ".segshrink-lock"
    other = replace(ProcessIdentity.own(), node="01234567")
    lock.write_text(json.dumps({"process": str(other), "host": "elsewhere", "since": "today"}))
    with pytest.raises(FileError, match=rf"on elsewhere since today.*delete {lock}"), claimed(tmp_path):
        pytest.fail("two processes in one folder")
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead = replace(ProcessIdentity.own(), pid=done.pid)
    lock.write_text(json.dumps({"process": str(dead), "host": "here", "since": "today"}))
    with claimed(tmp_path):
        assert ProcessIdentity.parse(json.loads(lock.read_text())["process"]) == ProcessIdentity.own()
    assert entries(tmp_path) == set()
