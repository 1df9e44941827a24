"""The table: values as in the files, differences and ratios only where they are fair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segshrink import formatting
from segshrink.report import collect
from segshrink.report.comparison import Row, as_json, table
from segshrink.run_folder import RunFolder

Writer = Callable[..., Path]


def rows_of(folders: list[Path]) -> dict[str, Row]:
    return {row.measure.key: row for group in table(collect(folders)).values() for row in group}


def test_ratios_are_against_the_teacher(tmp_path: Path, write_student_run: Writer) -> None:
    rows = rows_of([write_student_run(tmp_path, images=3)])
    teacher, control, student = rows["parameters"].cells
    assert (teacher.to_teacher, teacher.ratio) == ("", None)
    assert student.ratio == pytest.approx(481_200 / 6_628_000)
    assert student.to_teacher == control.to_teacher == "13.8× fewer"
    assert rows["latency_ms"].cells[2].to_teacher == "13.8× faster"
    scores = [cell.value for cell in rows["mean_iou"].cells]
    assert rows["mean_iou"].cells[2].to_teacher == formatting.points(scores[2] - scores[0])
    assert rows["mean_iou"].cells[2].note == f"{scores[2] - 0.04:.3f}–{scores[2] + 0.04:.3f}"


def test_every_promised_row_is_there(tmp_path: Path, write_student_run: Writer) -> None:
    promised = "mean_iou accuracy parameters macs file_bytes latency_ms peak_memory_mb agreement calibration_error"
    training = "labeled unlabeled steps seconds iou/Building iou/Water"
    assert set(f"{promised} {training}".split()) <= set(rows_of([write_student_run(tmp_path, images=2)]))


def test_what_a_training_took_is_shown_where_it_was_recorded(tmp_path: Path, write_run: Writer) -> None:
    folder = RunFolder(write_run(tmp_path, "student", images=1))
    keys = ("processor_seconds", "training_memory_mb", "training_memory_beyond_mb", "training_gpu_memory_mb")
    assert not set(keys) & set(rows_of([tmp_path]))
    took = {"processor_seconds": 1000.0, "peak_memory_mb": 900.0, "memory_beyond_libraries_mb": 250.0}
    folder.write_run(folder.run().model_copy(update={**took, "gpu_peak_memory_mb": 2000.0}))
    rows = rows_of([tmp_path])
    assert [rows[key].cells[0].text for key in keys] == ["16 min 40 s", "900 MB", "250 MB", "2,000 MB"]


def test_no_differences_across_data_sets(tmp_path: Path, write_run: Writer) -> None:
    folders = [
        write_run(tmp_path / "a", "teacher", data="here", images=2),
        write_run(tmp_path / "b", "student", data="there", images=2),
    ]
    rows = rows_of(folders)
    assert all(cell.to_teacher == "" for key in ("mean_iou", "iou/Land") for cell in rows[key].cells)
    assert rows["parameters"].cells[1].to_teacher == "13.8× fewer"


def test_no_speed_ratio_across_machines(tmp_path: Path, write_run: Writer) -> None:
    folders = [
        write_run(tmp_path / "a", "teacher", cpu="Slow CPU", images=2),
        write_run(tmp_path / "b", "student", cpu="Fast CPU", images=2),
    ]
    rows = rows_of(folders)
    assert all(rows[key].cells[1].ratio is None for key in ("latency_ms", "latency_p95_ms", "peak_memory_mb"))
    assert rows["file_bytes"].cells[1].ratio is not None


def test_absent_class_and_unmeasured_rows(tmp_path: Path, write_run: Writer) -> None:
    rows = rows_of([write_run(tmp_path, "model", absent=(4,), images=2, leave_out=("profile.json",))])
    assert "latency_ms" not in rows
    assert "iou/Water" not in rows, "a row without any value is left out"
    assert rows["parameters"].cells[0].value == 1_000_000, "the evaluation tells it too"


def test_labels_are_unique(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path / name, images=1) for name in "ab"])
    assert [run.label for run in runs] == [
        "Teacher",
        "Control mobile-alone (1)",
        "Control mobile-alone (2)",
        "Student mobile (1)",
        "Student mobile (2)",
    ]


def test_json_has_one_value_for_each_model(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path, images=2)])
    found = as_json(runs, table(runs))
    assert [model["role"] for model in found["models"]] == ["teacher", "control", "student"]
    assert all(len(row["values"]) == len(row["ratio_to_teacher"]) == 3 for row in found["rows"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.points(0.0321), "+3.2 points"),
        (formatting.points(-0.0004), "±0.0 points"),
        (formatting.points(-0.079), "−7.9 points"),
        (formatting.ratio(50, 100, ("less", "more")), "2× less"),
        (formatting.ratio(130, 100, ("less", "more")), "30\N{NO-BREAK SPACE}% more"),
        (formatting.ratio(100, 113, ("less", "more")), "12\N{NO-BREAK SPACE}% less"),
        (formatting.ratio(100, 113, ("faster", "slower")), "1.13× faster"),
        (formatting.ratio(1, 1234, ("less", "more")), "1,234× less"),
        (formatting.ratio(100, 100.2, ("less", "more")), "the same"),
        (formatting.ratio(0, 100, ("less", "more")), ""),
        (formatting.scaled(3_211_000_000), "3.21 G"),
        (formatting.scaled(999), "999"),
        (formatting.scaled(999_600), "1 M"),
        (formatting.scaled(999_400), "999 k"),
        (formatting.size(999_960), "1.0 MB"),
        (formatting.size(999_940), "999.9 kB"),
        (formatting.milliseconds(99.96), "100 ms"),
        (formatting.milliseconds(9.996), "10.0 ms"),
        (formatting.percent(12.5), "1,250\N{NO-BREAK SPACE}%"),
        (formatting.percent(0.0123), "1.23\N{NO-BREAK SPACE}%"),
        (formatting.percent(0.5), "50\N{NO-BREAK SPACE}%"),
        (formatting.size(1_934_000), "1.9 MB"),
        (formatting.size(85_200), "85.2 kB"),
        (formatting.milliseconds(221.4), "221 ms"),
        (formatting.milliseconds(3.14159), "3.14 ms"),
        (formatting.duration(612.3), "10 min 12 s"),
        (formatting.duration(7260), "2 h 01 min"),
        (formatting.duration(59.4), "59 s"),
        (formatting.score(None), "–"),
        (formatting.day("2025-11-20T14:30:00+00:00"), "2025-11-20 14:30"),
        (formatting.listing(["a", "b", "c"]), "a, b and c"),
        (formatting.listing([]), ""),
    ],
)
def test_wording(text: str, expected: str) -> None:
    assert text == expected
