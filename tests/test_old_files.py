"""Files that version 0.1 wrote: every verb that reads such files works on them, and what was half done is gone on with.

``tests/data/version-0.1/README.md`` says how they were made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segshrink.cli import main
from segshrink.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick_runs")
OLD = Path(__file__).parent / "data" / "version-0.1"
# Where they were written; their recipes and records name it.
HOME = "/tmp/segshrink-0.1"  # noqa: S108


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old files, moved as their user would: with the paths in them."""
    copy = tmp_path / "old"
    shutil.copytree(OLD, copy)
    for path in copy.rglob("*"):
        if path.suffix in (".yaml", ".json"):
            path.write_text(path.read_text(encoding="utf-8").replace(HOME, copy.as_posix()), encoding="utf-8")
    return copy


@pytest.fixture
def segshrink(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The command line, which must succeed."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert status == 0, written.err
        return written.out

    return run


def holds(content: Any, written: Any) -> bool:
    """Whether everything written is there, whatever else is."""
    if isinstance(written, dict):
        return all(key in content and holds(content[key], value) for key, value in written.items())
    if isinstance(written, list):
        return len(content) == len(written) and all(map(holds, content, written))
    return bool(content == written)


def times(*folders: Path) -> dict[Path, int]:
    """When each file was written."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert paths
    return {path: path.stat().st_mtime_ns for path in paths}


def test_records_are_read_whole(old: Path) -> None:
    folder = RunFolder(old / "run")
    run, evaluation, profile = folder.run(), folder.evaluation(), folder.profile()
    assert (run.role, run.status, run.steps) == ("student", "finished", 4)
    assert run.teacher_identity == RunFolder(old / "run" / "teacher").run().identity
    assert evaluation.class_names == ("Ground", "Roof", "Water")
    assert sum(map(sum, evaluation.confusion)) == evaluation.pixels == 2 * 64 * 64
    assert len(evaluation.curves) == 3
    assert all(folder.pictures_of(image) for image in evaluation.per_image)
    assert profile.latency_ms is not None
    assert profile.macs
    assert folder.metrics()["val/mean_iou"][0]
    for record, name in ((run, "run"), (evaluation, "evaluation"), (profile, "profile")):
        written = json.loads((folder.path / f"{name}.json").read_text())
        assert holds(record.to_json(), written), name


def test_report(segshrink: Callable[..., str], old: Path) -> None:
    segshrink("report", old / "run", "--out", old / "page")
    models = json.loads((old / "page" / "report.json").read_text())["models"]
    assert [model["role"] for model in models] == ["teacher", "control", "student"]
    assert (old / "page" / "report.html").is_file()


def test_evaluate_gives_the_scores_of_then(segshrink: Callable[..., str], old: Path) -> None:
    before = RunFolder(old / "run").evaluation()
    segshrink("evaluate", old / "run", "--out", old / "run")
    again = RunFolder(old / "run").evaluation()
    assert again.scores.mean_iou == pytest.approx(before.scores.mean_iou, abs=1e-3)


@pytest.mark.parametrize("name", ["run", "model", "model.onnx", "model.xml"])
def test_evaluate_and_predict(segshrink: Callable[..., str], old: Path, name: str) -> None:
    if name.endswith(".xml"):
        pytest.importorskip("openvino")
    written = json.loads(segshrink("evaluate", old / name, "--data", old / "scenes" / "dataset.yaml", "--json"))
    assert written["scores"]["mean_iou"] == pytest.approx(RunFolder(old / "run").evaluation().scores.mean_iou, abs=0.01)
    image = old / "scenes" / "val" / "images" / "v0.jpg"
    segshrink("predict", old / name, image, "--out", old / "map.png")
    assert (old / "map.png").is_file()


@pytest.mark.parametrize("name", ["run", "model"])
def test_export(segshrink: Callable[..., str], old: Path, name: str) -> None:
    segshrink("export", old / name, "--out", old / "new.onnx")
    card = (old / "new.md").read_text()
    assert ("rectangles" in card) == (name == "run"), "a run knows what it was judged on"


def test_distill_resumes(segshrink: Callable[..., str], old: Path) -> None:
    run = RunFolder(old / "half-distilled")
    assert run.run().status == "stopped"
    kept = times(old / "cache", run.teacher.path)
    rows = len(run.metrics_file.read_text().splitlines())
    segshrink(
        *("distill", old / "recipe.yaml", "student.training.epochs=40", f"distillation.teacher_cache={old / 'cache'}"),
        *("--teacher", old / "teacher", "--out", run.path, "--resume"),
    )
    assert {path: when for path, when in times(old / "cache", run.teacher.path).items() if path in kept} == kept
    assert (run.run().status, run.run().steps) == ("finished", 80)
    assert run.has_evaluation
    assert 1 < rows < len(run.metrics_file.read_text().splitlines()) == 41


def test_compress_resumes(segshrink: Callable[..., str]) -> None:
    """The names of a search's folders are made from paths, so that it goes on only where it was."""
    home = Path(HOME)
    if home.exists():
        pytest.skip(f"{home} is in use")
    shutil.copytree(OLD, home)
    try:
        work = home / "half-searched" / "work"
        kept = {path.name for path in work.iterdir()}
        teacher = times(*work.glob("teacher-*"))
        segshrink(
            *("compress", home / "recipe.yaml", "student.training.epochs=40", "distillation.teacher_cache=false"),
            *("--teacher", home / "teacher", "--budget", "size<=10MB", "--out", work.parent, "--families", "student"),
            *("--candidates", 1, "--size", 64, "--threads", 1, "--resume"),
        )
        assert times(*work.glob("teacher-*")).items() >= teacher.items()
        assert {path.name for path in work.iterdir()} - kept <= {"measurements"}, "nothing was begun anew"
        assert (work.parent / "model.onnx").is_file()
    finally:
        shutil.rmtree(home)
