"""The segmented images: which are chosen, and that every pixel shows what the files hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segshrink.errors import UsageError
from segshrink.evaluation_records import ImageRecord
from segshrink.report import collect
from segshrink.report.composite import composite
from segshrink.report.pictures import ERROR_COLORS, SIDE, choose, examples

Writer = Callable[..., Path]
SCORES = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40)


def decoded(source: str) -> np.ndarray:
    content = base64.b64decode(source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@given(SCORES)
def test_chosen_are_best_median_and_worst(scores: list[float | None]) -> None:
    images = [ImageRecord(name=f"i{place}", mean_iou=score) for place, score in enumerate(scores)]
    chosen = choose(images)
    known = sorted((score for score in scores if score is not None), reverse=True)
    assert len(chosen) == min(len(known), 10)
    assert len({image.name for _, _, image in chosen}) == len(chosen)
    assert all(image.mean_iou == known[rank - 1] for _, rank, image in chosen)
    ranks = [rank for _, rank, _ in chosen]
    assert ranks == sorted(ranks)
    groups = [group for group, _, _ in chosen]
    if len(known) >= 10:
        assert groups == ["best"] * 3 + ["median"] * 4 + ["worst"] * 3
        assert ranks[:3] == [1, 2, 3]
        assert ranks[-3:] == [len(known) - 2, len(known) - 1, len(known)]
        middle = (len(known) + 1) / 2
        assert abs(np.mean(ranks[3:7]) - middle) <= 0.5
    if len(known) > 1:
        assert groups[0] == "best"
        assert groups[-1] == "worst"


def test_images_without_pictures_are_not_chosen(tmp_path: Path, write_run: Writer) -> None:
    folder = write_run(tmp_path, "model", images=2)
    (folder / "evaluation" / "Tile_1-image_part_001.jpg").unlink()
    rows, notes = examples(collect([folder]))
    assert [row.name for row in rows] == ["Tile_1-image_part_002"]
    assert notes == []


def test_pixels_show_the_files(tmp_path: Path, write_student_run: Writer) -> None:
    folder = write_student_run(tmp_path, images=2)
    rows, notes = examples(collect([folder]))
    assert notes == []
    assert [row.group for row in rows] == ["best", "worst"]
    row = rows[0]
    assert [tile.title for tile in row.tiles] == ["Image", "Truth", "Teacher", "Control", "Student", "Errors"]
    truth = np.asarray(Image.open(folder / "evaluation" / f"{row.name}.truth.png"))
    shown = decoded(row.tiles[1].source)
    assert (shown[truth == 255] == 128).all()
    assert (shown[truth == 1] == (0x84, 0x29, 0xF6)).all()
    students = np.asarray(Image.open(folder / "evaluation" / f"{row.name}.prediction.png"))
    assert (decoded(row.tiles[4].source)[students == 3] == (0xFE, 0xDD, 0x3A)).all()


def test_error_colors_say_who_is_wrong(tmp_path: Path, write_student_run: Writer) -> None:
    folder = write_student_run(tmp_path, images=1, size=(400, 300))
    (row,), _ = examples(collect([folder]))
    assert row.compared
    maps = {
        key: np.asarray(Image.open(place / "evaluation" / f"{row.name}.{kind}.png"))
        for key, place, kind in (
            ("truth", folder, "truth"),
            ("student", folder, "prediction"),
            ("teacher", folder / "teacher", "prediction"),
        )
    }
    judged = maps["truth"] != 255
    wrong = {key: judged & (maps[key] != maps["truth"]) for key in ("student", "teacher")}
    expected = {
        "student": wrong["student"] & ~wrong["teacher"],
        "teacher": wrong["teacher"] & ~wrong["student"],
        "both": wrong["student"] & wrong["teacher"],
    }
    shown = decoded(row.tiles[-1].source)
    nearest = np.stack([np.abs(shown - np.array(color)).sum(-1) for color in (*ERROR_COLORS.values(), (180,) * 3)])
    for place, mask in enumerate(expected.values()):
        assert mask.sum() > 50
        # JPEG blurs the edges of areas.
        assert (nearest.argmin(0)[mask] == place).mean() > 0.8
    unchanged = ~(expected["student"] | expected["teacher"] | expected["both"])
    assert (nearest.argmin(0)[unchanged] == 3).mean() > 0.9
    share = f"{100 * wrong['student'].sum() / judged.sum():.0f}"
    assert row.tiles[-1].note.startswith(share)


def test_large_pictures_are_scaled_down(tmp_path: Path, write_run: Writer) -> None:
    (row,), _ = examples(collect([write_run(tmp_path, "model", images=1, size=(797, 644))]))
    assert max(row.width, row.height) == SIDE
    assert all(decoded(tile.source).shape == (row.height, row.width, 3) for tile in row.tiles)
    assert not row.compared


@pytest.mark.parametrize("spoil", ["truncate", "rgb"])
def test_unreadable_pictures_become_a_note(tmp_path: Path, write_run: Writer, spoil: str) -> None:
    folder = write_run(tmp_path, "model", images=2)
    truth = folder / "evaluation" / "Tile_1-image_part_001.truth.png"
    if spoil == "rgb":
        Image.new("RGB", (60, 45)).save(truth)
    else:
        truth.write_bytes(truth.read_bytes()[:60])
    rows, notes = examples(collect([folder]))
    assert len(rows) == 1
    assert len(notes) == 1
    assert "Tile_1-image_part_001" in notes[0]


def test_unjudged_image_is_not_ranked(tmp_path: Path, write_run: Writer) -> None:
    rows, _ = examples(collect([write_run(tmp_path, "model", images=3, blank=(1,))]))
    assert sorted(row.name[-3:] for row in rows) == ["001", "003"]


def test_images_are_shown_by_name_in_the_order_named(tmp_path: Path, write_run: Writer) -> None:
    runs = collect([write_run(tmp_path, "model", images=4)])
    ranks = {row.name: row.rank for row in examples(runs)[0]}
    names = ("Tile_1-image_part_003", "Tile_1-image_part_001")
    rows, _ = examples(runs, names)
    assert [(row.name, row.group, row.rank) for row in rows] == [(name, "chosen", ranks[name]) for name in names]
    with pytest.raises(UsageError, match="Tile_1-image_part_009"):
        examples(runs, ["Tile_1-image_part_009"])


def test_images_drawn_by_chance_are_the_same_in_every_report(tmp_path: Path, write_run: Writer) -> None:
    runs = collect([write_run(tmp_path, "model", images=14)])
    first, again = ([row.name for row in examples(runs, "random")[0]] for _ in range(2))
    assert first == again
    assert len(set(first)) == 10
    assert set(first) != {row.name for row in examples(runs)[0]}


def test_a_printable_picture_shows_every_map_in_the_classes_colors(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path, images=2)])
    (row, _), _ = examples(runs)
    classes = runs[-1].evaluation.classes
    picture = Image.open(io.BytesIO(composite(row, classes, "the student")))
    assert picture.width == 1440
    assert picture.info["Software"].startswith("segshrink")
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for tile in row.tiles:
        if tile.kind != "map":
            continue
        for count, color in tile.picture.convert("RGB").getcolors():
            share = (pixels == color).all(axis=1).sum() / len(pixels)
            # A sixth of the picture at most, and a good part of that: two rows of three, titles, legend.
            assert share > 0.3 * count / (60 * 45) / 6
