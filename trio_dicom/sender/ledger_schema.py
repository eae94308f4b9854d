"""What a ledger is: an SQLite file with these tables; how one is told from other files, and how a row is read."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import LedgerError, Retry
from ..protocol.status import Status
from .outcome import InstanceReport, Outcome

APPLICATION_ID = 0x54444C47  # "TDLG"
VERSION = 1

DAMAGED = "it is damaged, and is left alone: move it away, and a new one begins"

ARRIVED = frozenset({Outcome.STORED, Outcome.STORED_WITH_WARNING, Outcome.ALREADY_PRESENT})

# The comments stay in the file, for whoever asks it for its schema.
SCHEMA = f"""
CREATE TABLE run (            -- one row for each run that wrote here
    number INTEGER PRIMARY KEY,
    peer TEXT NOT NULL,       -- AET@host:port
    version TEXT NOT NULL,    -- of trio_dicom
    started REAL NOT NULL,    -- seconds since 1970, UTC, as all times here
    ended REAL                -- NULL while it runs, and for ever if it was killed
);
CREATE TABLE input (          -- one row for each input, as the last run left it that had to do with it
    number INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,         -- absolute path; "!member" follows that of an archive
    size INTEGER,                      -- bytes
    mtime_ns INTEGER,                  -- last modification, nanoseconds since 1970
    run INTEGER NOT NULL REFERENCES run,
    sop_class_uid TEXT,
    sop_instance_uid TEXT,
    transfer_syntax_uid TEXT,          -- as sent
    begun REAL,                        -- from then on the peer may have it; NULL if its turn never came in this run
    settled REAL,                      -- when its outcome was known
    outcome TEXT,                      -- NULL while unsettled
    status INTEGER,                    -- of the response
    attempts INTEGER NOT NULL DEFAULT 0,     -- in this run
    bytes INTEGER NOT NULL DEFAULT 0,        -- of the data set, in the last attempt
    reason TEXT,
    retry TEXT,                        -- when it may be tried again: never, later, new_association, after_config
    was_in_doubt INTEGER NOT NULL DEFAULT 0  -- after one attempt at least, in any run
);
CREATE VIEW report AS         -- the inputs as they are to be read: what was begun and never settled is in doubt
    SELECT number, CAST(name AS TEXT) AS path, run, sop_class_uid, sop_instance_uid, transfer_syntax_uid,
           coalesce(outcome, CASE WHEN begun IS NULL THEN 'not_sent' ELSE 'in_doubt' END) AS outcome,
           status, attempts, bytes,
           coalesce(reason, CASE WHEN outcome IS NOT NULL THEN ''
                                 WHEN begun IS NULL THEN 'its turn has not come'
                                 ELSE 'begun, and its end is not noted' END) AS reason,
           coalesce(retry, 'later') AS retry, was_in_doubt OR (outcome IS NULL AND begun IS NOT NULL) AS was_in_doubt,
           begun, settled, name, size, mtime_ns
    FROM input;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

REPORT_COLUMNS = (
    "name",
    "outcome",
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "status",
    "attempts",
    "bytes",
    "reason",
    "retry",
    "was_in_doubt",
)


def report_of_row(row: tuple[Any, ...]) -> InstanceReport:
    """The report that a row's `REPORT_COLUMNS` make. Raises `ValueError` if they are none of ours."""
    name, outcome, sop_class, sop_instance, transfer_syntax, status, attempts, size, reason, retry, was_in_doubt = row
    return InstanceReport(
        path=os.fsdecode(name),
        outcome=Outcome(outcome),
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=transfer_syntax,
        status=None if status is None else Status(status),
        attempts=attempts,
        bytes_sent=size,
        reason=reason or "",
        retry=Retry(retry),
        was_in_doubt=bool(was_in_doubt),
    )


def is_settled(report: InstanceReport) -> bool:
    """Whether the next run need not send it again: the peer has it, or the same bytes will meet the same answer."""
    return report.outcome in ARRIVED or report.retry is Retry.NEVER


def uri(path: str, mode: str) -> str:
    """Of an absolute path; `mode` is one of SQLite's."""
    return f"{Path(path).as_uri()}?mode={mode}"


@contextlib.contextmanager
def ledger_errors(path: str, what: str) -> Iterator[None]:
    """What goes wrong in the block, as a `LedgerError`: that the ledger cannot be `what`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
            error = _why_not_opened(path) or error
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LedgerError(path, f"it cannot be {what}: {why}") from error


def _why_not_opened(path: str) -> OSError | None:
    """What the system has against opening the file, which SQLite does not say.

    It is not tried: with any descriptor of the file that is closed this process would lose SQLite's locks on it.
    """
    try:
        os.stat(path)
    except OSError as error:
        return error
    may_read = os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
    return None if may_read else PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def is_new(path: str) -> bool:
    """Whether there is no file yet, or an empty one. Raises `LedgerError` for what is no file."""
    with ledger_errors(path, "used"):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return True
    if not stat.S_ISREG(status.st_mode):
        raise LedgerError(path, "it is no file")
    return status.st_size == 0


def connect_to_read(path: str) -> sqlite3.Connection:
    """A connection to a ledger that is there, which cannot change it. Raises `LedgerError`, also for another file."""
    if is_new(path):
        raise LedgerError(path, "there is no such ledger")
    try:
        return _connected(path, uri(path, "ro"))
    except LedgerError as error:
        # SQLite reads with a file of its own beside it, which it cannot make where nothing can be written. A ledger
        # without a log of changes can be read as it is.
        code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or _has_log(path):
            raise
        return _connected(path, uri(path, "ro") + "&immutable=1")


def _has_log(path: str) -> bool:
    for suffix in ("-wal", "-journal"):
        with contextlib.suppress(OSError):
            if os.stat(path + suffix).st_size > 0:
                return True
    return False


def _connected(path: str, address: str) -> sqlite3.Connection:
    with ledger_errors(path, "read"):
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            check_kind(path, connection)
        except BaseException:
            connection.close()
            raise
        return connection


def check_kind(path: str, connection: sqlite3.Connection) -> None:
    """Raises `LedgerError` unless it is a ledger, of a version that is known here."""
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_CORRUPT:
            raise LedgerError(path, DAMAGED) from error
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        application_id = None
    if application_id != APPLICATION_ID:
        raise LedgerError(path, "it is no ledger of trio_dicom, and is left alone")
    if version > VERSION:
        raise LedgerError(
            path,
            f"a later trio_dicom has written it (schema {version}; this one knows {VERSION}), and it is left alone",
        )


def check_health(path: str, connection: sqlite3.Connection) -> None:
    """Raises `LedgerError` if the file is damaged."""
    try:
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        verdict, names = str(error), set()
    if verdict != "ok" or not {"run", "input", "report"} <= names:
        raise LedgerError(path, DAMAGED)
