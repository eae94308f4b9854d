"""Every call of the ledger, to SQLite and to the system, fails once, for all k.

Whatever it was: nothing was sent that the ledger does not know of, nothing is taken for stored that is not, the error
is a `LedgerError`, and the next run sends what is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.test_kth_call_sending import UIDS, Sending, within
from support.failing_calls import FailingCalls, each_call, os_error
from trio_dicom import LedgerError, Outcome
from trio_dicom.testing import make_instance_file

SYSTEM = ("open", "close", "unlink", "replace", "stat", "lstat", "fstat")
SQLITE = ("execute", "executemany", "executescript", "commit", "close")
TOLD = {Outcome.STORED.value, Outcome.IN_DOUBT.value}


def patch_sqlite(calls: FailingCalls, patch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    class Connection(sqlite3.Connection):
        pass

    for name in SQLITE:
        setattr(Connection, name, calls.counted(name, getattr(sqlite3.Connection, name)))
    patch.setattr(sqlite3, "connect", calls.counted("connect", lambda *a, **o: connect(*a, factory=Connection, **o)))


def sqlite_error(error: sqlite3.Error, code: int) -> sqlite3.Error:
    error.sqlite_errorcode = code
    return error


def patch_system(calls: FailingCalls, patch: pytest.MonkeyPatch) -> None:
    calls.patch(patch, os, *SYSTEM)
    calls.patch(patch, fcntl, "flock")


def rows(ledger: Path) -> dict[str, str]:
    """The outcomes by SOP Instance UID, as any program could read them; what was begun and has no end is in doubt."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT sop_instance_uid, outcome FROM report WHERE sop_instance_uid NOT NULL")
        return dict(found.fetchall())


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "again"])
@pytest.mark.parametrize(
    ("patch_calls", "error"),
    [
        (patch_sqlite, lambda _: sqlite_error(sqlite3.OperationalError("disk I/O error"), sqlite3.SQLITE_IOERR)),
        (patch_sqlite, lambda _: sqlite_error(sqlite3.DatabaseError("malformed"), sqlite3.SQLITE_CORRUPT)),
        (patch_system, os_error(errno.EIO)),
        (patch_system, os_error(errno.ENOSPC)),
    ],
    ids=["sqlite-io", "sqlite-malformed", "system-EIO", "system-ENOSPC"],
)
def test_the_ledger(tmp_path: Path, patch_calls: Callable[..., None], error: Any, is_there: bool) -> None:
    files = {UIDS[number]: make_instance_file(64, number=number) for number in (1, 2, 3)}
    paths = [tmp_path / f"{number}.dcm" for number in (1, 2, 3)]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    seen = set()
    for number, calls in enumerate(each_call(error, only=about(tmp_path, patch_calls))):
        ledger = tmp_path / f"ledgers/{number}/run.db"
        ledger.parent.mkdir(parents=True)
        first = Sending()
        if is_there:
            first.run(paths[:1], ledger=ledger)
        sending = Sending()
        with pytest.MonkeyPatch.context() as patch:
            patch_calls(calls, patch)
            try:
                sending.run(paths, ledger=ledger)
            except LedgerError:
                seen.add("not begun")
            else:
                seen.add("stopped" if sending.failure else "went on")
                assert sending.failure is None or isinstance(sending.failure, LedgerError)
        sending.check(files, calls.failed)
        arrived = first.archive.stored.keys() | sending.archive.stored.keys()
        if ledger.exists():
            told = rows(ledger)
            assert {uid for uid, outcome in told.items() if outcome in TOLD} >= arrived, calls.failed
            assert {uid for uid, outcome in told.items() if outcome == Outcome.STORED.value} <= arrived, calls.failed
        last = Sending()
        last.run(paths, ledger=ledger)
        assert last.report.counts == {Outcome.STORED: 3}, calls.failed
        assert arrived | last.archive.stored.keys() == files.keys()
        assert os.listdir(ledger.parent) == ["run.db"], calls.failed
        assert set(rows(ledger).values()) == {Outcome.STORED.value}
    assert seen >= {"not begun", "went on"}
    assert "stopped" in seen or patch_calls is patch_system


def about(folder: Path, patch_calls: Callable[..., None]) -> Callable[..., bool]:
    if patch_calls is patch_sqlite:
        return lambda *_: True
    return within(folder / "ledgers")
