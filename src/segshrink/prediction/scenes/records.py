"""Which results a folder holds and what made them, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, FileError
from segshrink.files import read_json, scratch_folder
from segshrink.formatting import printable
from segshrink.model_file import ModelFile
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import ScenePlan
from segshrink.run_folder import RunFolder

RECORD_NAME = "predictions.sqlite"
# What earlier versions kept: read once, never written.
_EARLIER_NAME = "predictions.json"
# By what SQLite files say whose they are: "segs".
_APPLICATION = 0x73656773
# Seconds to wait while another process writes; it never takes longer than renaming a scene's files.
_PATIENCE = 120
_LEFT_OUT = "CREATE TABLE IF NOT EXISTS left_out (source TEXT PRIMARY KEY, reason TEXT, date TEXT)"
_MISUSED = "CREATE TABLE IF NOT EXISTS misused (name TEXT PRIMARY KEY, misuse TEXT)"
_TABLES = """
CREATE TABLE scenes (name TEXT PRIMARY KEY, record TEXT, publisher TEXT) WITHOUT ROWID;
CREATE TABLE files (name TEXT PRIMARY KEY, scene TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX files_of_scenes ON files (scene);
"""


class Records:
    """The database ``predictions.sqlite`` of a folder of results; a context manager that closes it.

    It says for each class map which scene, model and options it came from, and which files belong to it. While these
    get their names the record is withdrawn, so that files of two runs never pass for one result, wherever a run dies.
    Several processes may write into one folder: a scene's files are replaced inside a transaction. What is read and
    written for a scene doesn't grow with their number.

    Args:
        folder: The folder, which needn't exist yet.
        model: What ``model_key`` gave; results of None are never recognized.
        options: The options of this run.
    """

    def __init__(self, folder: Path, model: str | None, options: SceneOptions) -> None:
        self._folder = folder
        self._path = folder / RECORD_NAME
        self._model, self._options = model, options
        self._database: sqlite3.Connection | None = None
        self._on_disk = False

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()

    def holds(self, plan: ScenePlan) -> bool:
        """Whether all results of a scene are there, made from the same scene by the same model and options."""
        if not self._may_hold(plan):
            return False
        with self._transaction() as database:
            return self._holds(database, plan)

    def refuse_foreign(self, plans: Sequence[ScenePlan]) -> None:
        """Refuse results in whose place something stands.

        What a run left unfinished may be replaced; all else, whoever wrote it, with ``options.overwrite`` only, and
        results of another scene never.

        Raises:
            ConfigError: Something does.
        """
        with self._transaction() as database:
            # Another process may have made the same results since somebody looked.
            left = [plan for plan in plans if not (self._may_hold(plan) and self._holds(database, plan))]
            self._refuse_foreign(database, left)

    def leave_out(self, source: object, reason: str) -> None:
        """Write down that a scene is not predicted, and why, in the table ``left_out``.

        Raises:
            FileError: The record can't be written.
        """
        self._create()
        with self._transaction("IMMEDIATE") as database:
            database.execute(_LEFT_OUT)
            database.execute(
                "INSERT OR REPLACE INTO left_out VALUES (?, ?, datetime())", (printable(str(source)), printable(reason))
            )

    def publish(self, plan: ScenePlan, move: Callable[[], None], *, misuse: str | None = None) -> bool:
        """Replace a scene's results.

        Args:
            plan: The scene.
            move: Gives the new files their names.
            misuse: What is odd about the scene, for the table ``misused``.

        Returns:
            Whether that was done; another process may have made the same results meanwhile.

        Raises:
            ConfigError: Another process has put something else there.
            FileError: The record can't be written.
        """
        scene, publisher = self._name(plan.files.classes), uuid4().hex
        names = [self._name(path) for path in plan.files.all_paths]
        self._create()
        while True:
            with self._transaction("IMMEDIATE") as database:
                if not self._options.overwrite and self._holds(database, plan):
                    return False
                self._refuse_foreign(database, [plan])
                # From here on the record is withdrawn, and lists the files of both runs, whatever happens.
                database.execute(
                    "INSERT INTO scenes VALUES (?, NULL, ?) "
                    "ON CONFLICT (name) DO UPDATE SET publisher = excluded.publisher",
                    (scene, publisher),
                )
                database.executemany("INSERT OR IGNORE INTO files VALUES (?, ?)", [(name, scene) for name in names])
            with self._transaction("IMMEDIATE") as database:
                if database.execute("SELECT publisher FROM scenes WHERE name = ?", (scene,)).fetchone() != (publisher,):
                    continue  # another process came in between
                for (name,) in database.execute("SELECT name FROM files WHERE scene = ?", (scene,)).fetchall():
                    if name not in names:
                        if _belongs(name, scene):
                            (self._folder / name).unlink(missing_ok=True)
                        database.execute("DELETE FROM files WHERE name = ?", (name,))
                move()
                record = json.dumps(self._record(plan))
                database.execute("UPDATE scenes SET record = ?, publisher = NULL WHERE name = ?", (record, scene))
                database.execute(_LEFT_OUT)
                database.execute("DELETE FROM left_out WHERE source = ?", (printable(str(plan.source)),))
                database.execute(_MISUSED)
                database.execute("DELETE FROM misused WHERE name = ?", (scene,))
                if misuse is not None:
                    database.execute("INSERT INTO misused VALUES (?, ?)", (scene, misuse))
            return True

    def _may_hold(self, plan: ScenePlan) -> bool:
        return self._model is not None and all(path.exists() for path in plan.files.paths)

    def _holds(self, database: sqlite3.Connection, plan: ScenePlan) -> bool:
        query = "SELECT record FROM scenes WHERE name = ? AND publisher IS NULL"
        row = database.execute(query, (self._name(plan.files.classes),)).fetchone()
        try:
            return row is not None and _is_same(json.loads(row[0]), self._record(plan))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False  # damaged, or a stranger's

    def _refuse_foreign(self, database: sqlite3.Connection, plans: Sequence[ScenePlan]) -> None:
        in_the_way = []
        for plan in plans:
            for path in plan.files.all_paths:
                if not os.path.lexists(path):
                    continue
                scene, unfinished = _owner(database, self._name(path))
                if scene not in (None, self._name(plan.files.classes)):
                    raise ConfigError(f"{path} belongs to the results of {scene}; predict into another folder")
                if not unfinished:
                    in_the_way.append(path)
        if in_the_way and not self._options.overwrite:
            more = f" and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
            raise ConfigError(
                f"{in_the_way[0]}{more} exists, and wasn't made from this scene with this model and these options; "
                "add --overwrite to replace it, or choose another folder"
            )

    def _record(self, plan: ScenePlan) -> dict[str, Any]:
        return {"model": self._model, "options": self._options.record(), "scene": dict(plan.identity)}

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    @contextmanager
    def _transaction(self, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
        try:
            database = self._connection()
            with database:
                database.execute(f"BEGIN {kind}")
                yield database
        except sqlite3.Error as error:
            raise FileError(
                f"can't read or write {self._path} ({error}), which says what made the results here; free some space, "
                "check its permissions or choose another folder"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        """Return the database, or where there is none yet one in memory with what earlier versions recorded."""
        if not self._on_disk and self._path.exists():
            if self._database is not None:
                self._database.close()
            self._database, self._on_disk = _opened(self._path), True
        if self._database is None:
            self._database = _earlier_records(self._folder)
        return self._database

    def _create(self) -> None:
        if self._path.exists():
            return
        try:
            with scratch_folder(self._folder) as scratch:
                building = scratch / RECORD_NAME
                with closing(sqlite3.connect(building)) as database:
                    self._connection().backup(database)
                try:
                    os.link(building, self._path)
                except FileExistsError:
                    pass  # another process was quicker
                except OSError:  # a file system without hard links
                    building.rename(self._path)
        except (sqlite3.Error, OSError) as error:
            raise FileError(f"can't write {self._path}: {error}; free some space or choose another folder") from error


def prediction_key(source: object, *, precision: str, classes: ClassMap | None) -> str | None:
    """Return a name for what answers; that of the model's content where precision and classes are left to the model."""
    key = model_key(source)
    if key is None or (precision == "auto" and classes is None):
        return key
    settings = [key, precision, None if classes is None else classes.to_dict()]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def model_key(source: object) -> str | None:
    """Return a name for the content of a model file or folder, or of several; None for a model in memory."""
    if isinstance(source, str | Path):
        members = RunFolder(source).members
        return model_key(members) if members else ModelFile.find(source).sha256()
    if not isinstance(source, Sequence):
        return None
    keys = [model_key(each) for each in source]
    if len(keys) == 1:
        return keys[0]
    return None if None in keys else hashlib.sha256(" ".join(map(str, keys)).encode()).hexdigest()


def _earlier_records(folder: Path) -> sqlite3.Connection:
    """Return a database in memory that holds the records of an earlier version of this program."""
    try:
        scenes = read_json(folder / _EARLIER_NAME)["scenes"]
        records = {name: entry for name, entry in scenes.items() if isinstance(entry["scene"], dict)}
    except (FileError, KeyError, TypeError, AttributeError):
        records = {}  # none, or damaged: recognizes nothing
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.executescript(_TABLES)
    for name, entry in records.items():
        database.execute("INSERT INTO scenes VALUES (?, ?, NULL)", (name, json.dumps(entry)))
        files = dict.fromkeys([name, f"{name}.aux.xml", *entry.get("files", ())])
        database.executemany("INSERT OR IGNORE INTO files VALUES (?, ?)", [(file, name) for file in files])
    return database


def _opened(path: Path) -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?mode=rw"
    database = sqlite3.connect(address, uri=True, timeout=_PATIENCE, isolation_level=None)
    try:
        database.execute("PRAGMA trusted_schema = OFF")
        (application,) = database.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError:
        application = None
    if application != _APPLICATION:
        database.close()
        raise FileError(f"{path} is damaged, or isn't segshrink's; move it away or choose another folder")
    return database


def _owner(database: sqlite3.Connection, name: str) -> tuple[str | None, bool]:
    """Return the scene that a file belongs to, None where no record lists it, and whether that is unfinished."""
    query = "SELECT scene, publisher IS NOT NULL FROM files JOIN scenes ON scenes.name = scene WHERE files.name = ?"
    scene, unfinished = database.execute(query, (name,)).fetchone() or (None, False)
    return scene, bool(unfinished)


def _belongs(name: str, scene: str) -> bool:
    """Whether a file can be a scene's at all; the record may come from a stranger."""
    file, classes = PurePosixPath(name), PurePosixPath(scene)
    return ".." not in file.parts and file.parent == classes.parent and file.name.startswith(f"{classes.stem}.")


def _is_same(record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a record that was read says what another does; earlier versions told less of local scenes."""
    scene, other_scene = record["scene"], other["scene"]
    if "url" not in scene:
        other_scene = {key: value for key, value in other_scene.items() if key in scene}
    return {**record, "scene": scene, "files": None} == {**other, "scene": other_scene, "files": None}
