"""Records of results: what recognizes them, several processes, and deaths at the worst moment."""

from __future__ import annotations

import json
import os
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from segshrink.errors import ConfigError, FileError
from segshrink.imagery.georeference import Georeference
from segshrink.prediction.scenes import SceneFiles, SceneOptions
from segshrink.prediction.scenes.plan import ScenePlan
from segshrink.prediction.scenes.records import RECORD_NAME, Records

OVERWRITE = SceneOptions(overwrite=True)


def plan_of(folder: Path, name: str = "a", *, source: str = "one", vectors: bool = False) -> ScenePlan:
    files = SceneFiles(
        folder / f"{name}.tif",
        folder / f"{name}.overlay.jpg",
        vectors=folder / f"{name}.geojson" if vectors else None,
        auxiliary=folder / f"{name}.tif.aux.xml",
    )
    identity = {"name": f"{name}.tif", "bytes": 7, "modified_ns": 8, "sample": source, "others": ""}
    return ScenePlan(folder / "in" / f"{name}.tif", identity, files, Georeference(4, 4))


def writes(plan: ScenePlan, text: str) -> Callable[[], None]:
    """What gives a scene's results their names: each says who made it."""

    def move() -> None:
        for path in plan.files.all_paths:
            path.write_text(text)

    return move


def published(folder: Path, plan: ScenePlan, model: str, options: SceneOptions | None = None) -> bool:
    with Records(folder, model, options or SceneOptions()) as records:
        return records.publish(plan, writes(plan, model))


def held(folder: Path, plan: ScenePlan, model: str, options: SceneOptions | None = None) -> bool:
    with Records(folder, model, options or SceneOptions()) as records:
        return records.holds(plan)


def in_child(work: Callable[[], None]) -> int:
    """Run in a process that may die; returns its exit status."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_results_are_recognized_by_model_options_and_scene(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert not held(tmp_path, plan, "m")
    assert not (tmp_path / RECORD_NAME).exists()
    assert published(tmp_path, plan, "m")
    assert held(tmp_path, plan, "m")
    assert not held(tmp_path, plan, "another")
    assert not held(tmp_path, plan, "m", SceneOptions(tile=64))
    assert not held(tmp_path, plan, "m", SceneOptions(nodata=0))
    assert not held(tmp_path, plan_of(tmp_path, source="two"), "m")
    assert not published(tmp_path, plan, "m")
    (tmp_path / "a.overlay.jpg").unlink()
    assert not held(tmp_path, plan, "m")


def test_nothing_is_replaced_unasked_and_what_no_record_lists_stays(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, vectors=True)
    (tmp_path / "a.geojson").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.geojson exists.*--overwrite"):
        published(tmp_path, plan, "m")
    assert (tmp_path / "a.geojson").read_text() == "mine"
    published(tmp_path, plan_of(tmp_path), "m")
    with pytest.raises(ConfigError, match=r"a\.tif and 2 more exists.*--overwrite"):
        published(tmp_path, plan_of(tmp_path), "n")
    assert (tmp_path / "a.tif").read_text() == "m"
    published(tmp_path, plan_of(tmp_path), "n", OVERWRITE)
    assert (tmp_path / "a.geojson").read_text() == "mine"


def test_products_of_an_older_result_go_with_it(tmp_path: Path) -> None:
    published(tmp_path, plan_of(tmp_path, vectors=True), "m")
    published(tmp_path, plan_of(tmp_path), "n", OVERWRITE)
    assert {path.name: path.read_text() for path in tmp_path.glob("a.*")} == {
        "a.tif": "n", "a.overlay.jpg": "n", "a.tif.aux.xml": "n",
    }  # fmt: skip


def test_what_another_process_made_meanwhile_is_not_in_the_way(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with Records(tmp_path, "m", SceneOptions()) as records:
        assert not records.holds(plan)
        assert published(tmp_path, plan, "m")
        records.refuse_foreign([plan])
    with Records(tmp_path, "n", SceneOptions()) as records, pytest.raises(ConfigError, match="--overwrite"):
        records.refuse_foreign([plan])


def test_files_of_another_scene_are_never_replaced(tmp_path: Path) -> None:
    published(tmp_path, plan_of(tmp_path, vectors=True), "m")
    files = SceneFiles(tmp_path / "b.tif", None, vectors=tmp_path / "a.geojson")
    other = ScenePlan("b.tif", {"name": "b.tif"}, files, Georeference(4, 4))
    with pytest.raises(ConfigError, match=r"a\.geojson belongs to the results of a\.tif"):
        published(tmp_path, other, "m", OVERWRITE)
    assert held(tmp_path, plan_of(tmp_path, vectors=True), "m")


@pytest.mark.parametrize("survivors", range(5))
def test_a_death_while_replacing_leaves_no_result_that_passes_for_whole(tmp_path: Path, survivors: int) -> None:
    old, new = plan_of(tmp_path, vectors=True), plan_of(tmp_path)
    published(tmp_path, old, "m")

    def die() -> None:
        for path in new.files.all_paths[:survivors]:
            path.write_text("n")
        os._exit(9)

    def replace() -> None:
        with Records(tmp_path, "n", OVERWRITE) as records:
            records.publish(new, die)

    assert in_child(replace) == 9
    for plan in (old, new):
        assert not held(tmp_path, plan, "m")
        assert not held(tmp_path, plan, "n")
    # Either goes on without being told to overwrite, and is whole then.
    assert published(tmp_path, new, "n")
    assert {path.read_text() for path in tmp_path.glob("a.*")} == {"n"}
    assert not (tmp_path / "a.geojson").exists()
    assert held(tmp_path, new, "n")


def test_what_an_error_left_half_made_is_retaken(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def fail() -> None:
        plan.files.classes.write_text("half")
        raise OSError(5, "Input/output error")

    with Records(tmp_path, "m", SceneOptions()) as records, pytest.raises(OSError, match="Input"):
        records.publish(plan, fail)
    assert not held(tmp_path, plan, "m")
    with Records(tmp_path, "m", SceneOptions()) as records:
        records.refuse_foreign([plan])
    assert published(tmp_path, plan, "m")
    assert held(tmp_path, plan, "m")


def test_processes_that_share_a_folder_lose_no_record_and_mix_no_result(tmp_path: Path) -> None:
    """Two of each model at once; half of the scenes are asked of both models."""
    names = {"m": range(12), "n": range(6, 18)}
    plans = {number: plan_of(tmp_path, f"s{number}", vectors=number % 2 == 0) for number in range(18)}

    def work(model: str, order: int) -> None:
        with Records(tmp_path, model, OVERWRITE) as records:
            for number in list(names[model])[::order]:
                records.publish(plans[number], writes(plans[number], model))

    children = []
    for model in ("m", "n"):
        for order in (1, -1):
            if not (child := os.fork()):
                try:
                    work(model, order)
                    os._exit(0)
                except BaseException:
                    os.write(2, traceback.format_exc().encode())
                finally:
                    os._exit(1)
            children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    for plan in plans.values():
        (text,) = {path.read_text() for path in plan.files.all_paths}
        assert held(tmp_path, plan, text)


def test_another_process_that_was_quicker_wins(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    published(tmp_path, plan, "m")
    with Records(tmp_path, "m", SceneOptions()) as late:
        assert not late.publish(plan, writes(plan, "late"))
    assert plan.files.classes.read_text() == "m"


def test_folders_of_earlier_versions_are_recognized(tmp_path: Path) -> None:
    plan, options = plan_of(tmp_path, vectors=True), SceneOptions(vectors="geojson")
    writes(plan, "m")()
    scene = {key: plan.identity[key] for key in ("name", "bytes", "modified_ns")}
    entry = {"model": "m", "options": options.record(), "scene": scene, "files": [p.name for p in plan.files.paths]}
    earlier = tmp_path / "predictions.json"
    earlier.write_text(json.dumps({"scenes": {"a.tif": entry}}))
    before = earlier.read_bytes()
    assert held(tmp_path, plan, "m", options)
    published(tmp_path, plan_of(tmp_path, "b"), "m", options)
    assert held(tmp_path, plan, "m", options)
    published(tmp_path, plan_of(tmp_path), "n", OVERWRITE)
    assert not (tmp_path / "a.geojson").exists()
    assert earlier.read_bytes() == before


def test_records_of_strangers_remove_nothing_that_no_scene_has(tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    files = ["a.tif", "a.geojson", "../a.tif", "/a.tif", "b.tif", "../maps/a.png"]
    entry = {"model": "m", "options": {}, "scene": {"name": "a.tif"}, "files": files}
    (folder / "predictions.json").write_text(json.dumps({"scenes": {"a.tif": entry}}))
    mine = [tmp_path / "a.tif", folder / "b.tif", folder / "a.png"]
    for path in (*mine, folder / "a.geojson"):
        path.write_text("mine")
    published(folder, plan_of(folder), "n", OVERWRITE)
    assert [path.exists() for path in mine] == [True] * 3
    assert not (folder / "a.geojson").exists()


@pytest.mark.parametrize("content", [{}, {"scenes": 3}, {"scenes": {"a.tif": 3}}, {"scenes": {"a.tif": {}}}, []])
def test_a_damaged_record_of_an_earlier_version_recognizes_nothing(tmp_path: Path, content: object) -> None:
    plan = plan_of(tmp_path)
    writes(plan, "m")()
    (tmp_path / "predictions.json").write_text(json.dumps(content))
    assert not held(tmp_path, plan, "m")
    assert published(tmp_path, plan, "m", OVERWRITE)


@pytest.mark.parametrize("content", [b"mine", b"", "database"])
def test_somebody_elses_file_of_the_records_name_is_refused_untouched(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / RECORD_NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE scenes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(FileError, match=RECORD_NAME):
        published(tmp_path, plan_of(tmp_path), "m", OVERWRITE)
    assert path.read_bytes() == before
    assert not (tmp_path / "a.tif").exists()


def test_no_statement_reads_all_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: set[str] = set()
    connect = sqlite3.connect

    def traced(*arguments: object, **options: object) -> sqlite3.Connection:
        database = connect(*arguments, **options)  # type: ignore[call-overload]
        database.set_trace_callback(statements.add)
        return database  # type: ignore[no-any-return]

    published(tmp_path, plan_of(tmp_path), "m")
    monkeypatch.setattr(sqlite3, "connect", traced)
    published(tmp_path, plan_of(tmp_path, vectors=True), "n", OVERWRITE)
    assert held(tmp_path, plan_of(tmp_path, vectors=True), "n")
    with closing(connect(tmp_path / RECORD_NAME)) as database:
        reading = [text for text in statements if text.startswith(("SELECT", "UPDATE", "DELETE"))]
        assert len(reading) >= 4
        for text in reading:
            steps = [row[-1] for row in database.execute(f"EXPLAIN QUERY PLAN {text}")]
            assert not [step for step in steps if step.startswith("SCAN")], text
