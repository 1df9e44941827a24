"""A watched folder: images come late, half, broken or twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segshrink import build_model, export_onnx
from segshrink.classes import ClassMap
from segshrink.errors import FileError, UsageError
from segshrink.prediction.scenes import LeftOut, SceneOptions, SceneResult, Shard, watch, watch_scenes

PLAIN = SceneOptions(overlay=False, threads=1)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model("unet", ClassMap.build(["ground", "roof"]), options={"width": 2, "depth": 2})
    return export_onnx(model, tmp_path_factory.mktemp("model") / "m.onnx")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens while the watch sleeps, once for each time; then it is interrupted."""
    todo: list[Any] = []

    def sleep(seconds: float) -> None:
        if not todo:
            raise KeyboardInterrupt
        todo.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    return todo


def draw(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    return file


def until_interrupted(results: Iterator[SceneResult | LeftOut]) -> list[SceneResult | LeftOut]:
    found = []
    try:
        for result in results:
            found.append(result)  # noqa: PERF402 - the interruption must not lose them
    except KeyboardInterrupt:
        return found
    raise AssertionError("the watch ended by itself")


def nothing() -> None:
    """Time passes."""


def left_out(out: Path) -> list[str]:
    with closing(sqlite3.connect(out / "predictions.sqlite")) as database:
        return [source for (source,) in database.execute("SELECT source FROM left_out")]


def test_images_are_predicted_as_they_come(onnx_file: Path, inbox: Path, steps: list[Any]) -> None:
    """One was there, one comes, one grows for three looks; results lie as the images do, also inside their folder."""
    draw(inbox / "first.png")
    whole = draw(inbox.parent / "late.png", seed=1).read_bytes()
    late = inbox / "north" / "late.png"
    looks: list[list[str]] = []
    out = inbox / "maps"

    def arrive(share: float) -> None:
        late.parent.mkdir(exist_ok=True)
        late.write_bytes(whole[: int(share * len(whole))])
        looks.append(sorted(path.name for path in out.rglob("*.png")))

    steps += [lambda share=share: arrive(share) for share in (0.3, 0.6, 1.0)] + [nothing, nothing, nothing]
    found = until_interrupted(watch_scenes(onnx_file, inbox, out, PLAIN))
    assert [(result.source, result.files.classes, result.skipped) for result in found] == [
        (inbox / "first.png", out / "first.png", False),
        (late, out / "north" / "late.png", False),
    ]
    assert looks == [[], ["first.png"], ["first.png"]]
    assert not list(out.rglob(".segshrink-*"))


def test_a_restart_goes_on_where_it_stopped(onnx_file: Path, inbox: Path, steps: list[Any], tmp_path: Path) -> None:
    draw(inbox / "a.png")
    steps += [nothing]
    until_interrupted(watch_scenes(onnx_file, inbox, tmp_path / "out", PLAIN))
    made = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    draw(inbox / "b.png", seed=1)
    steps += [nothing]
    found = until_interrupted(watch_scenes(onnx_file, inbox, tmp_path / "out", PLAIN))
    assert [(result.source.name, result.skipped) for result in found] == [("a.png", True), ("b.png", False)]
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == made


def test_a_bad_file_is_noted_and_tried_again_when_it_has_changed(
    onnx_file: Path, inbox: Path, steps: list[Any], tmp_path: Path
) -> None:
    bad, out = inbox / "a.png", tmp_path / "out"
    bad.write_bytes(b"no picture")
    draw(inbox / "b.png")
    noted: list[list[str]] = []
    steps += [nothing, lambda: noted.append(left_out(out)), lambda: draw(bad), nothing]
    found = until_interrupted(watch_scenes(onnx_file, inbox, out, PLAIN))
    assert [type(result) for result in found] == [LeftOut, SceneResult, SceneResult]
    assert found[0].source == bad
    assert "a.png" in found[0].reason
    assert noted == [[str(bad)]]
    assert left_out(out) == []


def test_results_that_are_in_the_way_stop_nobody(
    onnx_file: Path, inbox: Path, steps: list[Any], tmp_path: Path
) -> None:
    """An image that was replaced would replace results of another content, which --overwrite alone may do."""
    draw(inbox / "a.png")
    steps += [nothing, lambda: draw(inbox / "a.png", seed=1), nothing, lambda: draw(inbox / "b.png"), nothing]
    found = until_interrupted(watch_scenes(onnx_file, inbox, tmp_path / "out", PLAIN))
    assert [type(result) for result in found] == [SceneResult, LeftOut, SceneResult]
    assert "--overwrite" in found[1].reason


def test_shares_of_a_folder(onnx_file: Path, inbox: Path, steps: list[Any], tmp_path: Path) -> None:
    names = {f"{number}.png" for number in range(6)}
    for name in names:
        draw(inbox / name)
    shares = []
    for number in (1, 2):
        steps += [nothing]
        found = until_interrupted(watch_scenes(onnx_file, inbox, tmp_path / "out", PLAIN, shard=Shard(number, 2)))
        shares.append({Path(result.source).name for result in found})
    assert shares[0] | shares[1] == names
    assert not shares[0] & shares[1]
    assert all(shares)


def test_what_can_not_be_watched_is_refused(onnx_file: Path, inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="absent"):
        watch_scenes(onnx_file, tmp_path / "absent", tmp_path / "out")
    for out in (inbox, inbox / ".." / "in", tmp_path / "map.png"):
        with pytest.raises(UsageError, match="watched folder"):
            watch_scenes(onnx_file, inbox, out)
    with pytest.raises(UsageError, match="interval"):
        watch_scenes(onnx_file, inbox, tmp_path / "out", interval=0)
