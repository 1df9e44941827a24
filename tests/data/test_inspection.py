"""Inspection finds all that was planted, and nothing in sound data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageEnhance

from segshrink.config import load_dataset
from segshrink.data import inspect_dataset
from segshrink.data.duplicates import Picture, find_duplicates
from segshrink.data.fingerprints import NEAR, fingerprint, near_matches


def kinds(inspection, severity=None):
    return sorted(p.kind for p in inspection.problems if severity in (None, p.severity))


def test_sound_data_have_no_problem(painter):
    painter.pairs("north/a", "north/b", "south/a")
    done = []
    inspection = inspect_dataset(painter.describe(), progress=lambda *counts: done.append(counts))
    assert inspection.problems == ()
    assert inspection.sound
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert inspection.sizes == {"40 × 50": 3}
    train, val = inspection.parts
    assert (train.name, train.samples, train.pixels, train.ignored) == ("train", 2, 4000, 0)
    assert (val.name, val.samples, val.pixels) == ("val", 1, 2000)
    assert train.class_shares == {"Land": 0.5, "Road": 0.5}
    assert inspection.classes == {"Land": "#8429F6", "Road": "#6EC1E4"}


def test_everything_wrong_is_found_at_once(painter):
    names = ("good", "truncated", "text", "bare", "small", "odd", "flat", "badmask")
    painter.pairs(*(f"north/{name}" for name in names), "south/a")
    north = painter.root / "north"
    truncated = north / "images/truncated.png"
    truncated.write_bytes(truncated.read_bytes()[:-500])
    (north / "images/text.png").write_text("I am no picture")
    (north / "masks/bare.png").unlink()
    painter.mask("north/masks/small.png", (20, 50))
    painter.mask("north/masks/odd.png", colors=((1, 2, 3), (0, 0, 0)))
    painter.image("north/images/flat.png", bands=1)
    (north / "masks/badmask.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    painter.mask("north/masks/lost.png")
    split = {"train": ["north", "nowhere"], "val": ["south", "north/images/good.png"]}
    inspection = inspect_dataset(painter.describe(split=split, unlabeled="nothing/*.png"))

    assert not inspection.sound
    by_kind = {}
    for problem in inspection.problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    assert {name for p in by_kind["unreadable"] for name in p.files} == {
        "north/images/truncated.png",
        "north/images/text.png",
        "north/masks/badmask.png",
    }
    assert {name for p in by_kind["unpaired"] for name in p.files} == {"north/images/bare.png", "north/masks/lost.png"}
    assert {name for p in by_kind["mismatched"] for name in p.files} == {
        "north/images/small.png",
        "north/masks/small.png",
        "north/images/flat.png",
    }
    assert len(by_kind["split"]) == 2
    assert len(by_kind["setup"]) == 1
    (undeclared,) = by_kind["undeclared"]
    assert "#010203 (1000 pixels in north/masks/odd.png)" in str(undeclared)
    (finding,) = inspection.undeclared
    assert (finding.value, finding.pixels, finding.files) == ("#010203", 1000, {"north/masks/odd.png": 1000})
    unread = {image.path for image in inspection.images if image.height is None}
    assert unread == {"north/images/truncated.png", "north/images/text.png"}


def test_class_counts_leave_out_what_is_ignored_or_undeclared(painter):
    painter.pairs("north/a", "south/a")
    painter.mask("north/masks/a.png", colors=((0, 0, 0), (0x6E, 0xC1, 0xE4)))
    painter.mask("south/masks/a.png", colors=((9, 9, 9), (0x84, 0x29, 0xF6)))
    inspection = inspect_dataset(painter.describe())
    train, val = inspection.parts
    assert (train.pixels, train.ignored, train.class_pixels) == (2000, 1000, {"Land": 0, "Road": 1000})
    assert (val.pixels, val.ignored, val.class_pixels) == (2000, 1000, {"Land": 1000, "Road": 0})
    assert train.class_shares == {"Land": 0.0, "Road": 1.0}
    told = [str(problem) for problem in inspection.problems if problem.kind == "classes"]
    assert len(told) == 2
    assert "'Land' can't be learned: no training mask has it" in told[0]
    assert "'Road' can't be judged" in told[1]


def test_undeclared_values_of_index_masks(painter):
    painter.pairs("north/a", "south/a")
    for number, folder in enumerate(("north", "south")):
        mask = np.full((40, 50), number, dtype=np.uint8)
        mask[0, : 7 + number] = 77
        Image.fromarray(mask).save(painter.root / folder / "masks/a.png")
    inspection = inspect_dataset(painter.describe(classes=[{"name": "a"}, {"name": "b"}], ignore=[255]))
    (finding,) = inspection.undeclared
    assert (finding.value, finding.pixels) == (77, 15)
    assert list(finding.files.items()) == [("south/masks/a.png", 8), ("north/masks/a.png", 7)]


def test_identical_files_across_the_split_are_an_error_and_within_a_warning(painter):
    painter.pairs("north/a", "north/b", "south/a", "extra/u")
    (painter.root / "south/images/copy.png").write_bytes((painter.root / "north/images/a.png").read_bytes())
    painter.mask("south/masks/copy.png")
    (painter.root / "north/images/b.png").write_bytes((painter.root / "north/images/a.png").read_bytes())
    (painter.root / "extra/images/u.png").write_bytes((painter.root / "south/images/a.png").read_bytes())
    inspection = inspect_dataset(painter.describe(unlabeled="extra/images/*.png"))
    assert kinds(inspection, "error") == ["duplicate"]
    crossing = {
        (pair.first, pair.first_part, pair.second, pair.second_part)
        for pair in inspection.duplicates
        if pair.first_part != pair.second_part
    }
    assert ("extra/images/u.png", "unlabeled", "south/images/a.png", "val") in crossing
    assert {pair[2] for pair in crossing if pair[1] == "train"} == {"south/images/copy.png"}
    assert all(pair.identical and pair.distance == 0 for pair in inspection.duplicates)


def test_mosaics_of_one_text_are_identical_where_their_sources_are(painter):
    band = (
        '<VRTRasterBand dataType="Byte" band="{0}"><SimpleSource><SourceFilename relativeToVRT="1">a.png'
        "</SourceFilename><SourceBand>{0}</SourceBand></SimpleSource></VRTRasterBand>"
    )
    mosaic = f'<VRTDataset rasterXSize="50" rasterYSize="40">{"".join(map(band.format, (1, 2, 3)))}</VRTDataset>'
    painter.pairs("north/a", "south/a", "east/a")
    (painter.root / "east/images/a.png").write_bytes((painter.root / "north/images/a.png").read_bytes())
    for folder in ("north", "south", "east"):
        painter.text(f"{folder}/images/a.vrt", mosaic)
    split = {"train": ["north"], "val": ["south", "east"]}
    found = inspect_dataset(painter.describe(images="*/images/a.vrt", masks="*/masks/a.png", split=split)).duplicates
    identical = [{pair.first, pair.second} for pair in found if pair.identical]
    assert identical == [{"north/images/a.vrt", "east/images/a.vrt"}]


def test_identical_files_in_one_part_are_a_warning(painter):
    painter.pairs("north/a", "north/b", "south/a")
    (painter.root / "north/images/b.png").write_bytes((painter.root / "north/images/a.png").read_bytes())
    inspection = inspect_dataset(painter.describe())
    assert inspection.sound
    assert kinds(inspection) == ["duplicate"]


def test_map_tiles_of_the_same_ground_across_the_split_are_an_error(painter):
    """As HOT's fAIr gives them: each piece of ground at three zooms."""
    painter.pairs("north/OAM-315878-264050-19", "north/OAM-315879-264050-19", "south/OAM-1263512-1056200-21")
    (problem,) = inspect_dataset(painter.describe()).problems
    assert (problem.kind, problem.severity) == ("duplicate", "error")
    assert problem.files == ("north/images/OAM-315878-264050-19.png", "south/images/OAM-1263512-1056200-21.png")
    assert "-19.png (train) and south/images/OAM-1263512-1056200-21.png (val); put each" in str(problem)


def test_unlabeled_map_tiles_of_judged_ground_are_an_error(painter):
    painter.pairs("north/315878-264050-19", "south/315879-264050-19", "more/1263516-1056200-21")
    (problem,) = inspect_dataset(painter.describe(unlabeled="more/images/*.png")).problems
    assert problem.files == ("south/images/315879-264050-19.png", "more/images/1263516-1056200-21.png")


def test_declared_overlaps_across_the_split_are_an_error(painter):
    painter.pairs("north/a", "north/b", "south/a")
    split = {"train": ["north"], "val": ["south"], "overlaps": [["north/images/b.png", "south/images/a.png"]]}
    assert kinds(inspect_dataset(painter.describe(split=split)), "error") == ["duplicate"]


def test_images_that_overlap_on_the_ground_across_the_split_are_told(painter):
    painter.pairs("north/a", "north/b", "south/a")
    for number, name in enumerate(("north/images/a", "north/images/b", "south/images/a")):
        path, scene = painter.root / f"{name}.tif", painter.image(f"{name}.png", seed=number)
        grid = {"transform": rasterio.Affine(1, 0, 500_000 + 25 * number, 0, -1, 0), "crs": "EPSG:32640"}
        with rasterio.open(path, "w", width=50, height=40, count=3, dtype="uint8", **grid) as file:
            file.write(scene.transpose(2, 0, 1))
    inspection = inspect_dataset(painter.describe(images="*/images/*.tif"))
    (problem,) = inspection.problems
    assert (problem.kind, problem.severity) == ("near-duplicate", "warning")
    assert problem.files == ("north/images/b.tif", "south/images/a.tif")
    assert "50% of the smaller" in str(problem)


def test_near_duplicates_across_the_split_are_reported_with_their_distance(painter):
    painter.pairs("north/a", "north/b", "south/a", size=(90, 120))
    with Image.open(painter.root / "north/images/b.png") as image:
        darker = ImageEnhance.Brightness(image).enhance(0.7).resize((100, 80))
    darker.save(painter.root / "south/images/again.jpg", quality=60)
    painter.mask("south/masks/again.jpg")
    Image.fromarray(painter.mask("south/masks/again.png", (80, 100))).save(painter.root / "south/masks/again.png")
    (painter.root / "south/masks/again.jpg").unlink()
    (painter.root / "south/images/again.jpg").rename(painter.root / "south/images/again.png")
    inspection = inspect_dataset(painter.describe())
    assert inspection.sound
    assert kinds(inspection) == ["near-duplicate"]
    (pair,) = inspection.duplicates
    assert (pair.first, pair.second, pair.identical) == ("north/images/b.png", "south/images/again.png", False)
    assert 0 <= pair.distance <= NEAR


def test_plain_pictures_are_no_near_duplicates():
    rng = np.random.default_rng(0)
    plain = [np.full((60, 60, 3), shade, dtype=np.uint8) for shade in (0, 130, 255)]
    noise = [rng.normal(100, 10, (60, 60, 3)).astype(np.uint8) for _ in range(3)]
    plain += [np.full((61, 67, 2), value, dtype=np.float32) for value in (0.1, 1234.567)]
    plain += [rng.normal(1000, 1e-4, (90, 90, 1)).astype(np.float32) for _ in range(2)]
    prints, others = [fingerprint(image) for image in plain], [fingerprint(image) for image in noise]
    assert near_matches(prints, prints + others) == []
    assert [(m.first, m.second) for m in near_matches(others, others)] == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_fingerprints_do_not_depend_on_type_or_linear_brightness(dtype):
    rng = np.random.default_rng(3)
    image = np.asarray(Image.fromarray(rng.integers(0, 200, (9, 9, 3), dtype=np.uint8)).resize((90, 90)))
    other = (image.astype(np.float64) * 60 + 500).astype(dtype)
    (match,) = near_matches([fingerprint(image)], [fingerprint(other)])
    assert match.distance < 0.02


def test_real_images_are_recognised_after_reencoding_and_not_confused(shared_data):
    paths = sorted((shared_data / "VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[::16]
    originals, copies = [], []
    for path in paths:
        with Image.open(path) as image:
            image.load()
            originals.append(fingerprint(np.asarray(image)))
            changed = ImageEnhance.Brightness(image).enhance(0.7).resize((image.width * 2 // 3, image.height * 2 // 3))
        stream = io.BytesIO()
        changed.save(stream, "JPEG", quality=40)
        with Image.open(stream) as copy:
            copies.append(fingerprint(np.asarray(copy)))
    found = {(match.first, match.second) for match in near_matches(originals, copies)}
    assert found == {(number, number) for number in range(len(paths))}


def test_a_leaking_split_is_noticed_and_counted_by_square(painter):
    painter.pairs("north/a", "south/a", size=(40, 70))
    inspection = inspect_dataset(painter.describe(split={"patches": 16, "share": 0.25}))
    assert inspection.leaking
    assert inspection.sound
    assert "leaking" in kinds(inspection, "warning")
    assert [(part.samples, part.pixels) for part in inspection.parts] == [(12, 12 * 256), (4, 4 * 256)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"root": "/nowhere/at/all"}, "does not exist"),
        ({"images": "*/pictures/*.png"}, "no image matches"),
        ({"masks": "masks/*.png"}, "parts"),
    ],
)
def test_what_prevents_a_look_is_a_problem_too(painter, changes, told):
    painter.pairs("north/a", "south/a")
    inspection = inspect_dataset(painter.describe(**changes))
    assert not inspection.sound
    (problem,) = inspection.problems
    assert problem.kind == "setup"
    assert told in problem.message


def test_the_result_is_json(painter):
    painter.pairs("north/a", "south/a", "spare/a")
    painter.mask("north/masks/a.png", colors=((1, 2, 3), (0, 0, 0)))
    inspection = inspect_dataset(painter.describe())
    read_back = json.loads(json.dumps(inspection.to_dict(), allow_nan=False))
    assert read_back["sound"] is False
    assert read_back["unused"] == 1
    assert read_back["undeclared"][0]["files"] == {"north/masks/a.png": 1000}
    assert read_back["parts"][1]["class_shares"] == {"Land": 0.5, "Road": 0.5}
    assert read_back["problems"][0]["kind"] == "undeclared"


def test_the_dubai_tiles_without_ignore_show_black_and_grey(shared_data):
    """The counts of the data set's own description: black stands in 9 masks of the tiles 2 to 8, 17 % of one."""
    path = shared_data / "dubai"
    configs = Path(__file__).resolve().parents[2] / "configs" / "data"
    overrides = [f"root={path}", "ignore=[]", "images='Tile 8/images/*.jpg'", "masks='Tile 8/masks/*.png'"]
    overrides.append("split={random: 0.3}")
    inspection = inspect_dataset(load_dataset(configs / "dubai.yaml", overrides))
    found = {finding.value: finding for finding in inspection.undeclared}
    assert set(found) == {"#000000", "#9B9B9B"}
    sizes = {image.path: image.height * image.width for image in inspection.images}
    part = "Tile 8/{}/image_part_003.{}"
    share = found["#000000"].files[part.format("masks", "png")] / sizes[part.format("images", "jpg")]
    assert share == pytest.approx(0.17, abs=0.005)


def test_a_film_of_one_place_gives_as_many_pairs_as_there_are_pictures() -> None:
    prints = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), 1296)
    pictures = [
        Picture(f"{number}.png", ("train", "val")[number % 2], str(number // 4), prints) for number in range(80)
    ]
    found = find_duplicates(pictures)
    identical = [pair for pair in found if pair.identical]
    assert {(pair.first_part, pair.second_part) for pair in identical} == {("train", "val")}
    assert len(identical) == 60
    assert len(found) - len(identical) <= 10 * 80
    assert {pair.second for pair in found} == {f"{number}.png" for number in range(1, 80, 2)}
