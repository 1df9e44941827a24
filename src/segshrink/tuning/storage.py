"""Where a study is kept: a journal file, or a database; each trial under way is a lease that its worker renews."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from segshrink.errors import FileError, MissingExtraError, UsageError, first_line
from segshrink.files import resolved

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

# Seconds between two renewals of a lease, and after the last one until the trial is another worker's.
HEARTBEAT, GRACE = 15, 60
# How often a trial may lose its worker: one that takes too much memory ends every worker.
RETRIES = 3
JOURNAL = "journal.log"
_FIRST = 64  # bytes of a file that tell whether it is one
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_REMEDY = "keep the study in PostgreSQL or MySQL, --storage postgresql://USER:PASSWORD@HOST/DATABASE"
ONE_WORKER = f"SQLite loses trials when several workers write to it; leave --storage out, or {_REMEDY}"


class LeasedJournal(JournalStorage, BaseHeartbeat):
    """A journal file with the heartbeat that Optuna's own lacks (github.com/optuna/optuna/issues/6615).

    A lease is an empty file beside the journal, named after its trial; its time of change is the last heartbeat.
    """

    def __init__(self, file: Path) -> None:
        self._leases = file.with_name(f"{file.name}.leases")
        self._leases.mkdir(parents=True, exist_ok=True)
        self._retry = RetryHeartbeatStaleTrialCallback(RETRIES, inherit_intermediate_values=True)
        # Optuna's usual lock is a link, which Windows lets few users make.
        super().__init__(JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file))))

    def record_heartbeat(self, trial_id: int) -> None:
        """Renew the lease of a trial."""
        (self._leases / str(trial_id)).touch()

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        now = time.time()  # a heartbeat to come is one of before the clock was set back
        return [trial._trial_id for trial in running if abs(now - self._renewed(trial)) > GRACE]

    def _renewed(self, trial: FrozenTrial) -> float:
        try:
            return (self._leases / str(trial._trial_id)).stat().st_mtime
        except FileNotFoundError:  # its worker was ended before the first heartbeat
            return trial.datetime_start.timestamp() if trial.datetime_start else 0.0

    def get_heartbeat_interval(self) -> int:
        """Return the seconds between two renewals."""
        return HEARTBEAT

    def get_heartbeat_stale_trial_callback(self) -> Callable[[optuna.Study, FrozenTrial], None]:
        """Return what puts a trial back whose worker is gone."""
        return self._retry


def check_storage(place: str | Path, *, workers: int = 1) -> None:
    """Refuse a storage that loses trials.

    Args:
        place: A journal file, or the URL of a database.
        workers: How many processes will write to it.

    Raises:
        UsageError: SQLite with several workers (github.com/optuna/optuna/issues/815), or no URL.
        FileError: A journal on NFS (github.com/optuna/optuna/issues/5138).
    """
    if "://" in str(place):
        if _url(str(place)).get_backend_name() == "sqlite" and workers > 1:
            raise UsageError(ONE_WORKER)
        return
    file = resolved(Path(place))
    disks = [disk for disk in psutil.disk_partitions(all=True) if file.is_relative_to(disk.mountpoint)]
    disk = max(disks, key=lambda disk: len(disk.mountpoint), default=None)
    if disk is not None and disk.fstype.startswith("nfs"):
        raise FileError(
            f"{place} lies on NFS ({disk.mountpoint}), where workers overwrite each other's lines; give a file on a "
            f"local disk, --storage /tmp/FILE.log, or {_REMEDY}"
        )


@contextmanager
def open_storage(place: str | Path) -> Iterator[LeasedJournal | RDBStorage]:
    """Open the storage of a study, and close it after the block.

    In the block Optuna neither logs each trial nor warns that heartbeats and some samplers may change.

    Args:
        place: As in ``check_storage``.

    Raises:
        FileError: A database can't be reached, or a file is no journal.
        MissingExtraError: A database's driver is absent.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = _open_database(str(place)) if "://" in str(place) else _open_journal(Path(place))
            try:
                yield storage
            finally:
                if isinstance(storage, RDBStorage):
                    storage.remove_session()
                    storage.engine.dispose()
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open_journal(file: Path) -> LeasedJournal:
    """Open a journal, or begin one; a file of another kind is left as it is."""
    if file.exists() and file.stat().st_size:
        with file.open("rb") as stream:
            if not re.match(rb'\{"op_code": ?\d', stream.readline(_FIRST)):
                raise FileError(f"{file} is no journal of a study, so nothing is written to it; choose another file")
    return LeasedJournal(file)


def _open_database(place: str) -> RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(
            _url(place).render_as_string(hide_password=False),
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(RETRIES, inherit_intermediate_values=True),
        )
    except ImportError as error:
        raise MissingExtraError(f"the storage {shown(place)}", "tune") from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = first_line(error.__cause__ or error)
        raise FileError(
            f"the database {shown(place)} can't be used ({reason}); check the URL and the server"
        ) from error


def shown(place: str | Path) -> str:
    """Return a storage's name without the password in it."""
    return str(_url(str(place)).render_as_string(hide_password=True)) if "://" in str(place) else str(place)


def _url(text: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UsageError(f"--storage is no URL of a database; {_REMEDY}") from error
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
