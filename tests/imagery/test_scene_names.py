"""What a user may name as scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.errors import FileError
from segshrink.imagery.raster_files import is_remote
from segshrink.imagery.scenes import expand_sources, scene_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.tif",
        "a 1.TIF",
        "c.jp2",
        "b.tif.aux.xml",
        "b.tif.ovr",
        "b.tif.msk",
        "b.tfw",
        "notes.txt",
        ".hidden.tif",
        "deep/er/d.tif",
        "odd [1]*.tif",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(folder: Path, *sources: str | Path) -> list[str]:
    return [Path(found).relative_to(folder).as_posix() for found in expand_sources(list(sources))]


def test_a_folder_stands_for_its_images(folder: Path) -> None:
    assert names(folder, folder) == ["a 1.TIF", "b.tif", "c.jp2", "odd [1]*.tif"]
    assert names(folder, str(folder / "deep" / "er")) == ["deep/er/d.tif"]


def test_wildcards_match_files_but_not_what_describes_them(folder: Path) -> None:
    assert names(folder, f"{folder}/b*") == ["b.tif"]
    assert names(folder, f"{folder}/**/*.tif") == ["b.tif", "deep/er/d.tif", "odd [1]*.tif"]
    assert names(folder, f"{folder}/[ac]*") == ["a 1.TIF", "c.jp2"]


def test_an_existing_file_is_taken_as_it_is(folder: Path) -> None:
    assert names(folder, f"{folder}/odd [1]*.tif", folder / "notes.txt") == ["odd [1]*.tif", "notes.txt"]


def test_each_is_taken_once_in_the_order_named(folder: Path) -> None:
    assert names(folder, folder / "c.jp2", folder, folder / "b.tif") == ["c.jp2", "a 1.TIF", "b.tif", "odd [1]*.tif"]


def test_urls_stay_as_they_are() -> None:
    urls = ["https://example.org/a%20b/scene%201.tif?key=1", "s3://bucket/scene.tif"]

    assert list(expand_sources(urls)) == urls
    assert [scene_name(url) for url in urls] == ["scene 1", "scene"]
    assert is_remote(urls[0])
    assert not is_remote("scenes/a.tif")
    assert not is_remote("ftp://example.org/a.tif")


def test_what_is_not_there_is_told(folder: Path) -> None:
    (folder / "none").mkdir()

    with pytest.raises(FileError, match=r"gone\.tif does not exist; give an image file, a folder, a wildcard"):
        expand_sources([folder / "gone.tif"])
    with pytest.raises(FileError, match=r"no image matches .*\*\.vrt; check the wildcard"):
        expand_sources([f"{folder}/*.vrt"])
    with pytest.raises(FileError, match="none holds no image"):
        expand_sources([folder / "none"])
    with pytest.raises(FileError, match=r"~nobody-has-this-name/a\.tif can't be found: there is no user of that name"):
        expand_sources(["~nobody-has-this-name/a.tif"])
    with pytest.raises(FileError, match="no scene was named"):
        expand_sources([])
