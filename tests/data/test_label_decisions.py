"""Masks that were corrected, and labels that are doubted, on their way into crops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import yaml
from PIL import Image

from segshrink.config import Augmentation, Crops, DatasetDescription, load_dataset
from segshrink.data import CropModule, Dataset, SceneStore, inspect_dataset, open_dataset
from segshrink.errors import DataError
from segshrink.imagery.label_regions import write_label_regions

PLAIN = Augmentation(scale=(1, 1), flips=False, quarter_turns=False, brightness=0, contrast=0, band_gain=0, noise=0)
ACCEPTED, UNDECIDED = (2, 3, 10, 9), (12, 12, 30, 30)


def describe(root: Path, weight: float, regions: str = "doubts") -> DatasetDescription:
    for name in ("a", "b"):
        for kind in ("images", "masks"):
            (root / kind).mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(root / f"images/{name}.png")
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(root / f"masks/{name}.png")
    data = {
        "name": "d",
        "images": "images/*.png",
        "masks": "masks/*.png",
        "classes": ["ground", "house"],
        "allow_absent": ["house"],
        "split": {"train": ["a"], "val": ["b"]},
        "label_errors": {"regions": regions, "weight": weight},
    }
    (root / "data.yaml").write_text(yaml.safe_dump(data))
    description = load_dataset(root / "data.yaml")
    (root / "doubts").mkdir(exist_ok=True)
    columns = {"class": np.array(["house", "house"], object)}
    polygons = np.array([shapely.box(*ACCEPTED), shapely.box(*UNDECIDED)], object)
    path = root / "doubts/a.geojson"
    write_label_regions(path, root / "images/a.png", description.class_map(), polygons, columns)
    content = json.loads(path.read_text())
    content["features"][0]["properties"]["accepted"] = True
    path.write_text(json.dumps(content))
    return description


def described(root: Path, weight: float) -> Dataset:
    return open_dataset(describe(root, weight))


def region(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_accepted_regions_correct_the_mask_until_they_are_rejected(tmp_path: Path) -> None:
    dataset = described(tmp_path, 0.5)
    for _ in range(2):  # decoded, and read back
        store = SceneStore((*dataset.train, *dataset.val), dataset.classes, folder=tmp_path / "cache")
        np.testing.assert_array_equal(store.mask(0), region(ACCEPTED))
        doubted = store.doubted(0)
        assert doubted is not None
        np.testing.assert_array_equal(doubted, region(UNDECIDED))
        assert not store.mask(1).any()
        assert store.doubted(1) is None
    path = tmp_path / "doubts/a.geojson"
    path.write_text(path.read_text().replace('"accepted": true', '"accepted": "no"'))
    assert not SceneStore(dataset.train, dataset.classes, folder=tmp_path / "cache").mask(0).any()


@pytest.mark.parametrize(("regions", "message"), [("dobuts", "dobuts is no folder"), ("images", "has no .geojson or")])
def test_a_folder_without_regions_of_the_images_is_refused(tmp_path: Path, regions: str, message: str) -> None:
    description = describe(tmp_path, 1.0, regions)
    with pytest.raises(DataError, match=message):
        open_dataset(description)
    assert any(message in problem.message for problem in inspect_dataset(description).problems)


def test_regions_of_no_image_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description = describe(tmp_path, 1.0)
    (tmp_path / "doubts/c.geojson").write_bytes((tmp_path / "doubts/a.geojson").read_bytes())
    open_dataset(description)
    assert "c.geojson" in caplog.text
    (warning,) = (problem for problem in inspect_dataset(description).problems if "c.geojson" in problem.message)
    assert warning.severity == "warning"


def test_inspect_reads_the_regions(tmp_path: Path) -> None:
    description = describe(tmp_path, 1.0)
    train = inspect_dataset(description).parts[0]
    assert train.class_pixels["house"] == region(ACCEPTED).sum()
    path = tmp_path / "doubts/a.geojson"
    path.write_text(path.read_text().replace('"accepted": true', '"accepted": "perhaps"'))
    (damaged,) = (problem for problem in inspect_dataset(description).problems if "perhaps" in problem.message)
    assert damaged.files == ("doubts/a.geojson",)


@pytest.mark.parametrize(("weight", "low", "high"), [(1.0, 1, 1), (0.25, 0.15, 0.35), (0.0, 0, 0)])
def test_crops_keep_a_share_of_doubted_labels(tmp_path: Path, weight: float, low: float, high: float) -> None:
    data = CropModule(
        described(tmp_path, weight), crops=Crops(size=32, workers=0), augmentation=PLAIN, folder=tmp_path / "cache"
    )
    crops = data.train_crops()
    first, again, other = crops[(0, 0)]["target"], crops[(0, 0)]["target"], crops[(1, 0)]["target"]
    sure = ~region(UNDECIDED)
    np.testing.assert_array_equal(first[sure], region(ACCEPTED)[sure])
    assert low <= (first[region(UNDECIDED)] != 255).float().mean() <= high
    assert bool((first == again).all())
    assert bool((first == other).all()) == (weight in (0, 1))
