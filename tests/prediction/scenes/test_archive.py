"""Many scenes: shares, lists, failures of single ones, several workers, and what it will take."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine

from segshrink import build_model, export_onnx
from segshrink.classes import ClassMap
from segshrink.errors import FileError, UsageError
from segshrink.folder_lock import claimed_name
from segshrink.machine import ProcessIdentity
from segshrink.prediction.scenes import SceneOptions, Shard, estimate_scenes, predict_scenes, read_manifest

from ..conftest import BoxBackend

PLAIN = SceneOptions(overlay=False)


@pytest.fixture
def box() -> Any:
    return BoxBackend(reach=1)


def draw(folder: Path, names: list[str], *, size: int = 40, bands: str = "LA") -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for name in names:
        pixels = rng.integers(0, 256, (size, size, len(bands)), dtype=np.uint8)
        pixels[..., -1] |= 1
        file = folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels, bands).save(file)
        files.append(file)
    return files


def two_bands(folder: Path, names: list[str], *, size: int = 40) -> list[Path]:
    """Draw TIFFs of two bands, as the box takes them."""
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
    files = []
    for name in names:
        file = folder / f"{name}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = {"driver": "GTiff", "height": size, "width": size, "count": 2, "dtype": "uint8", **place}
        with rasterio.open(file, "w", **kind) as target:
            target.write(rng.integers(0, 256, (2, size, size), dtype=np.uint8))
        files.append(file)
    return files


def test_every_scene_has_one_share_on_every_machine() -> None:
    scenes: dict[Any, Path] = {Path(f"in/{number}.tif"): Path("sub") for number in range(200)}
    shares = [Shard(number, 7).of(scenes) for number in range(1, 8)]
    assert sorted(str(scene) for share in shares for scene in share) == sorted(map(str, scenes))
    assert all(15 < len(share) < 45 for share in shares)
    assert Shard.parse("3/7").of({Path("/other/0.tif"): Path("sub")}) == (
        {Path("/other/0.tif"): Path("sub")} if Path("in/0.tif") in shares[2] else {}
    )
    assert [number for number in range(1, 17) if Shard(number, 16).holds("a")] == [11]
    for wrong in ("0/4", "5/4", "4", "a/b", "-1/3"):
        with pytest.raises(UsageError, match="share"):
            Shard.parse(wrong)


def test_a_list_names_scenes_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "scenes.txt"
    file.write_text("# mine\n\n  a b.tif \n/data/c.tif\nhttps://host/d.tif\n")
    assert read_manifest(file) == [tmp_path / "a b.tif", Path("/data/c.tif"), "https://host/d.tif"]
    file.write_text("# nothing\n")
    with pytest.raises(FileError, match="names no scene"):
        read_manifest(file)


def test_a_scene_that_fails_is_noted_and_the_others_go_on(tmp_path: Path, box: Any) -> None:
    one, broken, three, odd = (*two_bands(tmp_path / "in", ["1", "2", "3"]), *draw(tmp_path / "in", ["4"], bands="RGB"))
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    out = tmp_path / "out"
    with pytest.raises(FileError, match=r"^2 of 4 scenes were left out, .*2\.tif.*4\.png"):
        predict_scenes(box, [tmp_path / "in"], out, PLAIN)
    assert {path.name for path in out.glob("[0-9].tif")} == {one.name, three.name}
    with closing(sqlite3.connect(out / "predictions.sqlite")) as database:
        noted = dict(database.execute("SELECT source, reason FROM left_out").fetchall())
    assert set(noted) == {str(broken), str(odd)}
    broken.write_bytes(whole)
    odd.unlink()
    assert len(predict_scenes(box, [tmp_path / "in"], out, SceneOptions(overlay=False, overwrite=True))) == 3
    with closing(sqlite3.connect(out / "predictions.sqlite")) as database:
        assert database.execute("SELECT source FROM left_out").fetchall() == [(str(odd),)]


def test_a_name_too_long_for_results_is_the_scenes_own_failure(tmp_path: Path, box: Any) -> None:
    long, longer = "b" * 236, "c" * 245
    two_bands(tmp_path / "in", ["a", long, longer, "d"])
    with pytest.raises(FileError, match=r"^1 of 4 scenes were left out, .*c\.tif.*longer name"):
        predict_scenes(box, [tmp_path / "in"], tmp_path / "out", PLAIN)
    assert {path.stem for path in (tmp_path / "out").glob("*.tif")} == {"a", long, "d"}
    assert not list((tmp_path / "out").glob(".*lock"))


@pytest.mark.parametrize("name", ["2026.11.30", "out.v2"])
def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path, box: Any, name: str) -> None:
    scenes = two_bands(tmp_path / "in", ["1", "2"])
    results = predict_scenes(box, scenes, tmp_path / name, PLAIN)
    assert [result.files.classes for result in results] == [tmp_path / name / f"{scene}.tif" for scene in "12"]
    with pytest.raises(UsageError, match=r"m\.jpg"):
        predict_scenes(box, scenes[:1], tmp_path / "m.jpg", PLAIN)


def test_an_overlap_need_only_be_less_than_the_models_tiles(tmp_path: Path, box: Any) -> None:
    scenes = two_bands(tmp_path / "in", ["1"])
    box.own_tile = 1024
    assert not predict_scenes(box, scenes, tmp_path / "out", SceneOptions(overlap=600))[0].skipped
    box.own_tile = None
    for overlap in (600, -1):
        with pytest.raises(UsageError, match=f"overlap.* {overlap}"):
            predict_scenes(box, scenes, tmp_path / "other", SceneOptions(overlap=overlap))


def test_what_can_not_be_written_ends_all(tmp_path: Path, box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    two_bands(tmp_path / "in", ["1", "2"])

    def full(*_: Any) -> None:
        raise FileError("can't write: no space left")

    monkeypatch.setattr("segshrink.prediction.scenes.write.SceneResults.write", full)
    with pytest.raises(FileError, match="no space left"):
        predict_scenes(box, [tmp_path / "in"], tmp_path / "out", PLAIN)


def test_a_scene_under_way_elsewhere_is_waited_for(tmp_path: Path, box: Any) -> None:
    first, _ = two_bands(tmp_path / "in", ["1", "2"])
    out = tmp_path / "out"
    release = threading.Event()
    child = os.fork()
    if not child:
        with claimed_name(out / ".1.tif.segshrink-lock", name="1"):
            (tmp_path / "held").touch()
            time.sleep(600)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)

    def end() -> None:
        while not (out / "2.tif").exists():
            time.sleep(0.01)
        assert not (out / "1.tif").exists()
        release.set()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    other = threading.Thread(target=end)
    other.start()
    found = predict_scenes(box, [tmp_path / "in"], out, PLAIN)
    other.join()
    assert release.is_set()
    assert [result.files.classes.name for result in found] == ["1.tif", "2.tif"]
    assert (out / "1.tif").exists()
    assert not list(out.glob(".*lock"))
    assert first.exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = ClassMap.build(["land", "water"])
    network = build_model("unet", classes, options={"width": 2, "depth": 2}).eval()
    return export_onnx(network, tmp_path_factory.mktemp("model") / "m.onnx")


def test_workers_that_are_killed_leave_every_scene_to_the_others(model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "in", [f"s{number}" for number in range(24)], bands="RGB")
    predict_scenes(model, [tmp_path / "in"], tmp_path / "alone", PLAIN)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "segshrink.cli", "predict", model, tmp_path / "in", "-o", out, "--no-overlay"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    workers = [start() for _ in range(3)]
    while not list(out.glob("*.png")) and workers[0].poll() is None:
        time.sleep(0.01)
    workers[0].kill()
    workers.append(start())
    made = [worker.communicate()[0].decode().split() for worker in workers]
    assert [worker.returncode for worker in workers[1:]] == [0, 0, 0]
    assert {path.name: path.read_bytes() for path in out.glob("s*.png")} == {
        path.name: path.read_bytes() for path in (tmp_path / "alone").glob("s*.png")
    }
    told = [name for names in made[1:] for name in names]
    assert len(told) == len(set(told))  # nobody did another's work again
    assert not list(out.glob(".*lock"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="when a process began is read from /proc")
def test_what_a_worker_left_that_was_killed_at_its_end_is_removed(model: Path, tmp_path: Path) -> None:
    scenes, out = draw(tmp_path / "in", ["a", "b"], bands="RGB"), tmp_path / "out"
    predict_scenes(model, scenes, out, PLAIN)
    made = sorted(out.iterdir())
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    scratch = out / ".segshrink-scratch" / f".segshrink-{replace(ProcessIdentity.own(), pid=killed.pid)}-x"
    scratch.mkdir(parents=True)
    (out / ".a.png.segshrink-lock").touch()
    predict_scenes(model, scenes, out, PLAIN)
    assert sorted(out.iterdir()) == made


def test_what_it_will_take_is_judged_without_scenes_that_can_not_be_read(tmp_path: Path, box: Any) -> None:
    *_, torn = two_bands(tmp_path / "in", ["1", "2", "3"])
    torn.write_bytes(torn.read_bytes()[:-200])
    wrong = tmp_path / "in" / "0.tif"
    wrong.write_bytes(b"II*\0")
    estimate = estimate_scenes(box, [tmp_path / "in"], tmp_path / "out", PLAIN)
    assert (estimate.scenes, estimate.pixels, estimate.tried) == (2, 2 * 40**2, 2)
    assert set(estimate.unreadable) == {torn, wrong}
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileError, match=r"3\.tif"):
        estimate_scenes(box, [torn], tmp_path / "out", PLAIN)


def test_what_it_will_take_is_judged_by_scenes_of_all_sizes(tmp_path: Path, box: Any) -> None:
    for size, count in ((40, 12), (200, 4)):
        two_bands(tmp_path / "in", [f"{size}-{number}" for number in range(count)], size=size)
    estimate = estimate_scenes(box, [tmp_path / "in"], tmp_path / "out", PLAIN)
    assert (estimate.scenes, estimate.pixels) == (16, 12 * 40**2 + 4 * 200**2)
    assert estimate.tried == 8
    assert estimate.seconds > 0
    assert not (tmp_path / "out").exists()
    predict_scenes(box, [tmp_path / "in"], tmp_path / "out", PLAIN)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tif*"))
    assert estimate.bytes == pytest.approx(written, rel=0.2)
    assert estimate_scenes(box, [tmp_path / "in"], tmp_path / "out", PLAIN).scenes == 16  # a box has no name to know by
