from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import psutil
import pytest
from optuna import create_study
from optuna.storages import RDBStorage

from segshrink.errors import FileError, UsageError
from segshrink.tuning.storage import LeasedJournal, check_storage, open_storage, shown

Disk = namedtuple("Disk", "mountpoint fstype")


def test_a_journal_on_nfs_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = [Disk("/", "ext4"), Disk(str(tmp_path / "shared"), "nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: disks)
    (tmp_path / "shared").mkdir()
    with pytest.raises(FileError, match=r"NFS.*--storage postgresql://"):
        check_storage(tmp_path / "shared" / "journal.log")
    assert not list((tmp_path / "shared").iterdir())
    check_storage(tmp_path / "journal.log")
    with open_storage(tmp_path / "journal.log") as storage:
        assert isinstance(storage, LeasedJournal)


def test_sqlite_takes_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    with pytest.raises(UsageError, match=r"SQLite.*PostgreSQL"):
        check_storage(url, workers=2)
    check_storage(url)
    with open_storage(url) as storage:
        assert isinstance(storage, RDBStorage)


def test_a_database_that_can_not_be_reached_is_named_without_its_password() -> None:
    url = "postgresql://me:secret@127.0.0.1:1/studies"
    assert shown(url) == "postgresql+psycopg://me:***@127.0.0.1:1/studies"
    with pytest.raises(FileError, match=r"127\.0\.0\.1") as error:
        open_storage(url).__enter__()
    assert "secret" not in str(error.value)
    with pytest.raises(UsageError, match="URL"):
        check_storage("postgresql//://")


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    journal, notes = tmp_path / "study.log", tmp_path / "notes.txt"
    with open_storage(journal) as storage:
        create_study(storage=storage, study_name="mine")
    with open_storage(journal) as storage:
        assert [study.study_name for study in storage.get_all_studies()] == ["mine"]
    notes.write_text("mine\n")
    with pytest.raises(FileError, match=rf"^{notes} is no journal of a study"), open_storage(notes):
        pass
    assert notes.read_text() == "mine\n"
