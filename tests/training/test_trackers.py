"""Each tracker, offline, read back by its own reader."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segshrink import RunFolder, load_recipe
from segshrink.config import NamedOptions, Recipe
from segshrink.data import open_dataset
from segshrink.errors import ConfigError, MissingExtraError
from segshrink.training import train
from segshrink.training.pace import measure_pace

from ..workflows.test_verbs import tiny_recipe


def trained(tmp_path: Path, tracker: Any) -> RunFolder:
    recipe = load_recipe(tiny_recipe(tmp_path), ["teacher.training.epochs=2"])
    recipe = Recipe.model_validate({**recipe.model_dump(), "trackers": [tracker]})
    train(recipe, out=tmp_path / "run", role="teacher")
    return RunFolder(tmp_path / "run")


def test_tensorboard_reads_losses_scores_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = trained(tmp_path, "tensorboard")
    events = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for name in ("train/loss", "val/loss", "val/mean_iou"):
        found = [event.value for event in events.Scalars(name)]
        assert found == pytest.approx(run.metrics()[name][1], abs=1e-6)
    pictures = [tag for tag in events.Tags()["images"] if tag.startswith("val/")]
    assert len(pictures) == 2
    assert [(picture.height, picture.width) for picture in events.Images(pictures[0])] == [(64, 3 * 64)] * 2


def test_steps_that_are_only_timed_are_not_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segshrink.training.trackers._build", lambda *_: pytest.fail("tracked"))
    recipe = load_recipe(tiny_recipe(tmp_path)).model_copy(update={"trackers": [NamedOptions(name="mlflow")]})
    assert measure_pace(recipe, role="teacher", dataset=open_dataset(recipe.data)).step > 0


@pytest.mark.filterwarnings("ignore")  # MLflow's own tables
def test_mlflow_reads_losses_scores_pictures_and_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = trained(tmp_path, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run.path / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "tiny"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["crops.size"] == "32"
    for name in ("train/loss", "val/mean_iou"):
        values = [metric.value for metric in client.get_metric_history(found.info.run_id, name)]
        assert values == pytest.approx(run.metrics()[name][1], abs=1e-6)
    assert len(client.list_artifacts(found.info.run_id, "val")) == 4


def test_wandb_keeps_losses_scores_and_pictures_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = trained(tmp_path, {"name": "wandb", "options": {"project": "mine"}})
    wandb.finish()
    (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    kept = run.metrics()["val/mean_iou"][1]
    scores: list[float] = []
    for _ in range(600):  # its own process may still be writing
        scores = [
            json.loads(item.value_json)
            for record in records(file)
            for item in record.history.item
            if "val/mean_iou" in (item.key, *item.nested_key)
        ]
        if len(scores) == len(kept):
            break
        time.sleep(0.1)
    assert scores == pytest.approx(kept, abs=1e-6)
    assert len(list((file.parent / "files" / "media").rglob("*.png"))) == 4


def records(file: Path) -> Iterator[Any]:
    """Read what is written whole so far: its own messages in LevelDB's log format, after seven bytes of a header."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if place + 7 + length > len(content):
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.mark.parametrize("options", [{"speed": 1}, {"save_dir": "/dev/null/logs"}])
def test_what_can_not_be_tracked_is_told_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("segshrink.training.run.load_data", lambda *_, **__: pytest.fail("decoded"))
        with pytest.raises(ConfigError, match="tracker 'tensorboard' can't be used: "):
            trained(tmp_path, {"name": "tensorboard", "options": options})
    assert not np.array(list((tmp_path / "run").glob("checkpoints/*"))).size
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="trackers"):
        trained(tmp_path / "other", "wandb")
