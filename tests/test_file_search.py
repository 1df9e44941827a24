"""Wildcards, against Python's own glob where that ends."""

from __future__ import annotations

import glob
import os
import socket
from pathlib import Path

import pytest

from segshrink.file_search import find_files, find_folders, is_file

FILES = ("a.tif", "b.png", ".hidden.tif", "x/a.tif", "x/.deep/a.tif", "x/y/c.tif", "x/y/z/a.tif", "odd [1]/a.tif")
PATTERNS = (
    "*.tif", "**/*.tif", "x/**/a.tif", "*/*.tif", "x/?/c.tif", "[ab].*", "[!a].*", "**/y/**/*", "x/y/c.tif", "**",
    "x/**", ".h*", "x/.d*/*", "gone/*", "x/*", "odd [[]1]/*", "./x/../*.png",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_finds_what_glob_finds(root: Path, pattern: str) -> None:
    names = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207
    expected = {os.path.normpath(name) for name in names if (root / name).is_file()}
    assert {os.path.normpath(name) for name in find_files(pattern, root)} == expected
    absolute = glob.glob(f"{root}/{pattern}", recursive=True)  # noqa: PTH207
    found = {os.path.normpath(name) for name in find_files(f"{root}/{pattern}", Path())}
    assert found == {os.path.normpath(name) for name in absolute if Path(name).is_file()}


def test_finds_folders(root: Path) -> None:
    assert find_folders("*", root) == ["odd [1]", "x"]
    assert find_folders("x/?", root) == ["x/y"]
    assert find_folders("gone/*", root) == []


def test_links_in_a_circle_end(root: Path) -> None:
    for name in ("one", "two"):
        (root / "x" / name).symlink_to(root / "x")
    (root / "x/y/up").symlink_to(root)
    (root / "x/broken").symlink_to(root / "gone")
    (root / "x/self").symlink_to(root / "x/self")
    assert find_files("x/**/*.tif", root) == [
        "x/a.tif",
        "x/y/c.tif",
        "x/y/up/a.tif",
        "x/y/up/odd [1]/a.tif",
        "x/y/z/a.tif",
    ]


def test_a_linked_folder_is_searched_once(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "d.tif").touch()
    for name in ("x/one", "x/two"):
        (root / name).symlink_to(other)
    assert find_files("x/**/d.tif", root) == ["x/one/d.tif"]
    assert find_files("x/*/d.tif", root) == ["x/one/d.tif", "x/two/d.tif"]


def test_devices_pipes_and_sockets_are_no_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.tif")
    (root / "device.tif").symlink_to("/dev/zero")
    monkeypatch.chdir(root)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.tif")
        assert find_files("*.tif", root) == ["a.tif"]
        assert not any(map(is_file, (Path("pipe.tif"), Path("device.tif"), Path("s.tif"))))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "x/" * 3000])
def test_names_that_no_file_can_have(root: Path, name: str) -> None:
    assert not is_file(root / name)
    assert find_files(name, root) == []
    assert find_files(f"{name}/*", root) == []
