"""The report as a file: whole, self-contained, escaped, and right for any subset of runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segshrink.errors import FileError
from segshrink.report import report as write_report

Writer = Callable[..., Path]


class Elements(HTMLParser):
    """All start tags of a page with their attributes, and its visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_numbers_are_those_of_the_evaluation(hostile_report: Path) -> None:
    folder = hostile_report.parent
    report = json.loads((folder / "report.json").read_text())
    rows = {row["key"]: row["values"] for row in report["rows"]}
    places = [folder / "teacher", folder / "control", folder]
    written = [json.loads((place / "evaluation.json").read_text()) for place in places]
    assert rows["mean_iou"] == [one["scores"]["mean_iou"] for one in written]
    assert [model["mean_iou_interval"] for model in report["models"]] == [
        one["interval"]["mean_iou"] for one in written
    ]
    assert [model["leaking"] for model in report["models"]] == [True] * 3
    page = Elements(hostile_report.read_text())
    assert all(f"{value:.3f}" in page.text for value in rows["mean_iou"])


def test_page_is_of_moderate_size(hostile_report: Path) -> None:
    assert hostile_report.stat().st_size < 6e6, "ten images of noise, the worst that JPEG can meet"


def test_figures_lie_beside_the_page(hostile_report: Path) -> None:
    names = {path.name for path in (hostile_report.parent / "figures").iterdir()}
    for kind in ("png", "svg"):
        figures = {Path(name).stem for name in names if name.endswith(kind)}
        assert {"loss", "mean_iou", "reliability", "confusion_3_student"} <= figures
        assert sum(name.startswith("precision_recall_") for name in figures) == 4, "three classes, and all pooled"


def test_nothing_is_named_that_would_be_fetched(hostile_report: Path) -> None:
    text = hostile_report.read_text()
    page = Elements(text)
    sources = [value or "" for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "srcset")]
    assert len(sources) > 60
    assert all(source.startswith("data:image/") for source in sources)
    links = [attrs.get("href") or "" for tag, attrs in page.tags if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\((?!data:)|@import|https?://", re.sub(r"data:[^\"')\s]+", "data:", text))


def test_strangers_names_are_text(hostile_report: Path) -> None:
    page = Elements(hostile_report.read_text())
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "</script><script>document.title='gone'</script>" in page.text


def test_only_its_own_script_may_run(hostile_report: Path) -> None:
    text = hostile_report.read_text()
    script = text.partition("<script>")[2].rpartition("</script>")[0]
    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in Elements(text).tags if "http-equiv" in attrs) or ""
    assert f"script-src 'sha256-{expected}'" in policy
    assert "default-src 'none'" in policy


def test_leaking_is_said_wherever_scores_stand(hostile_report: Path) -> None:
    text = hostile_report.read_text()
    for section in ("comparison", "images", "curves", "confusion", "calibration"):
        part = text.partition(f'<section id="{section}"')[2].partition("</section>")[0]
        assert "leaking split" in part.partition("</h2>")[0], section
    head = text.partition("<header>")[2].partition("</header>")[0]
    assert 'class="notice loud"' in head
    assert "too good" in head


@pytest.mark.usefixtures("quick_figures")
def test_clean_run_says_nothing_of_leaking(tmp_path: Path, write_run: Writer) -> None:
    page = write_report([write_run(tmp_path, "teacher", images=2, leave_out=("profile.json",))])
    assert "leak" not in Elements(page.read_text().partition("<body>")[2]).text
    assert "Teacher: no profile.json in the run folder" in page.read_text()


def test_every_picture_is_described(hostile_report: Path) -> None:
    images = [attrs for tag, attrs in Elements(hostile_report.read_text()).tags if tag == "img"]
    assert all(len(attrs.get("alt") or "") > 5 for attrs in images)


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("leave_out", [("evaluation.json",), ("evaluation.json", "metrics.csv", "profile.json")])
def test_parts_without_files_are_left_out_with_a_note(
    tmp_path: Path, write_run: Writer, leave_out: tuple[str, ...]
) -> None:
    text = write_report([write_run(tmp_path, "student", leave_out=leave_out)]).read_text()
    for name in leave_out:
        assert f"no {name} in the run folder" in text
    assert "No run here has been evaluated yet" in text


@pytest.mark.usefixtures("quick_figures")
def test_out_is_a_folder_or_a_page(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path / "run", "model", leave_out=("evaluation.json", "metrics.csv"))
    assert write_report([run], tmp_path / "elsewhere") == tmp_path / "elsewhere" / "report.html"
    assert write_report([run], tmp_path / "other" / "mine.html") == tmp_path / "other" / "mine.html"
    assert (tmp_path / "other" / "mine.json").is_file()
    assert not (run / "report.html").exists()


@pytest.mark.usefixtures("quick_figures")
def test_a_page_for_browsers_is_linked_to(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path / "my run", "student", images=2, leave_out=("metrics.csv",))
    assert 'class="try"' not in write_report([run]).read_text()
    (run / "map.html").write_text("page")
    links = {}
    for out in (run, tmp_path / "elsewhere"):
        tags = Elements(write_report([run], out).read_text()).tags
        links[out] = next(attrs["href"] for tag, attrs in tags if tag == "a" and attrs.get("class") == "try")
    assert links == {
        run: "map.html",
        tmp_path / "elsewhere": f"../{run.relative_to(tmp_path)}/map.html".replace(" ", "%20"),
    }


def test_nothing_is_left_when_writing_fails(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path / "run", "model", leave_out=("evaluation.json", "metrics.csv"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="file"):
        write_report([run], tmp_path / "file" / "report.html")


def test_report_needs_no_torch(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path, "model", leave_out=("evaluation.json", "metrics.csv"))
    code = (
        "import sys; from pathlib import Path; from segshrink.report import report as write_report\n"
        "write_report([Path(sys.argv[1])]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)], check=False).returncode == 0


@pytest.mark.usefixtures("quick_figures")
def test_a_speed_from_a_busy_machine_is_never_told_alone(tmp_path: Path, write_student_run: Writer) -> None:
    page = write_report([write_student_run(tmp_path, load=0.63)])
    text = page.read_text(encoding="utf-8")
    assert "faster than the teacher, on a busy machine" in text
    assert text.count("load 63\N{NO-BREAK SPACE}%") == 3
    numbers = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert [(one["load"], one["busy"]) for one in numbers["models"]] == [(0.63, True)] * 3


@pytest.mark.usefixtures("quick_figures")
def test_the_student_is_the_first_column_and_equal_names_are_left_out(
    tmp_path: Path, write_student_run: Writer
) -> None:
    text = write_report([write_student_run(tmp_path, name="demo")]).read_text(encoding="utf-8")
    head = text[text.index("<thead>") : text.index("</thead>")]
    assert re.findall(r"<span>(\w+)</span>", head) == ["Student", "Teacher", "Control"]
    assert "demo" not in head
    body = text[text.index("<tbody>") :]
    assert re.search(r"<td( class=.focus.)?>", body)[1], "its cells as well"  # type: ignore[index]


@pytest.mark.parametrize("name", ["$\\badmacro$", "cost $^$", "$\\frac{", "$x$ and $", "half \ud800 a letter"])
def test_names_are_never_taken_for_formulas(name: str, tmp_path: Path, write_run: Writer) -> None:
    classes = ((name, "#3C1098"), ("Land", "#8429F6"))
    page = write_report([write_run(tmp_path, classes=classes, name=name, data=name, size=(24, 16), images=2)])
    assert any((page.parent / "figures").iterdir())
    assert name.partition(" ")[0] in page.read_text(encoding="utf-8")
