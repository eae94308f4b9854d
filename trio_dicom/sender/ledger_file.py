"""LedgerFile: the ledger as its one writer has it. Synchronous: every method but `abandon` blocks, and is for a thread.

1. A statement is a transaction, and writes many rows: SQLite works without the interpreter's lock while it carries one
   out, and has to get it back after each. With a busy event loop that takes longer than the writing itself.
2. What is known of an object is never taken back, not by an attempt to send it again either: where the peer has it,
   nothing worse is noted, and where it may have it, nothing better than "in doubt", until an answer says so. If the
   input's size or time of modification has changed, it is another object.
3. The file comes into being whole, under another name first: it is a ledger, or it is not there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

import attrs

from .._version import __version__
from ..errors import LedgerError, Retry, printable
from .ledger_lock import LedgerLock
from .ledger_schema import (
    ARRIVED,
    REPORT_COLUMNS,
    SCHEMA,
    check_health,
    check_kind,
    connect_to_read,
    is_new,
    ledger_errors,
    uri,
)
from .outcome import Outcome

Row: TypeAlias = tuple[Any, ...]

BUSY_TIMEOUT = 5.0  # s, should somebody else write to it
MOST_PARAMETERS = 999  # of a statement, in SQLite before 3.32
MOST_NAMES = 256  # looked up by one
BESIDE = ("-wal", "-shm", "-journal")  # files that SQLite has beside a database

_COLUMNS = len(REPORT_COLUMNS)
_NAMES = ", ".join(f"'{outcome.value}'" for outcome in sorted(ARRIVED, key=lambda each: each.value))
_SAME = "(size IS excluded.size AND mtime_ns IS excluded.mtime_ns)"
_HAS_ARRIVED = f"(outcome IS NOT NULL AND outcome IN ({_NAMES}))"
_ARRIVES = f"excluded.outcome IN ({_NAMES})"
_LEFT_BEGUN = "(outcome IS NULL AND begun IS NOT NULL)"
_DOUBT = (
    f"({_SAME} AND (was_in_doubt OR outcome IS '{Outcome.IN_DOUBT.value}' OR (run <> excluded.run AND {_LEFT_BEGUN})))"
)
_UNSETTLED = (
    "transfer_syntax_uid = NULL, settled = NULL, outcome = NULL, status = NULL, attempts = 0, bytes = 0,"
    " reason = NULL, retry = NULL"
)

# (columns, what is done with a row that is there). A run's number is put into the text.
_REGISTER = (
    ("name", "size", "mtime_ns"),
    f"run = excluded.run, sop_class_uid = NULL, sop_instance_uid = NULL, begun = NULL, was_in_doubt = 0, {_UNSETTLED}",
)
_BEGIN = (
    ("name", "size", "mtime_ns", "sop_class_uid", "sop_instance_uid", "begun"),
    f"was_in_doubt = {_DOUBT}, run = excluded.run, sop_class_uid = excluded.sop_class_uid,"
    f" sop_instance_uid = excluded.sop_instance_uid, begun = excluded.begun, {_UNSETTLED}"
    f" WHERE NOT ({_SAME} AND {_HAS_ARRIVED})",
)
_SETTLE = (
    (
        "name",
        "size",
        "mtime_ns",
        "sop_class_uid",
        "sop_instance_uid",
        "transfer_syntax_uid",
        "settled",
        "outcome",
        "status",
        "attempts",
        "bytes",
        "reason",
        "retry",
        "was_in_doubt",
    ),
    f"was_in_doubt = excluded.was_in_doubt OR {_DOUBT}, begun = CASE WHEN {_SAME} AND run = excluded.run THEN begun"
    " END, run = excluded.run, sop_class_uid = excluded.sop_class_uid, sop_instance_uid = excluded.sop_instance_uid,"
    " transfer_syntax_uid = excluded.transfer_syntax_uid, settled = excluded.settled,"
    f" outcome = CASE WHEN {_DOUBT} AND NOT {_ARRIVES} THEN '{Outcome.IN_DOUBT.value}' ELSE excluded.outcome END,"
    " status = excluded.status, attempts = excluded.attempts, bytes = excluded.bytes, reason = excluded.reason,"
    f" retry = excluded.retry WHERE NOT ({_SAME} AND {_HAS_ARRIVED} AND NOT {_ARRIVES})",
)


class _Upsert:
    """A statement that writes rows, for each number of rows."""

    def __init__(self, kind: tuple[Sequence[str], str], run: int) -> None:
        columns, update = kind
        self._most = MOST_PARAMETERS // len(columns)
        self._row = f"({run}, {', '.join('?' * len(columns))})"
        self._head = f"INSERT INTO input (run, {', '.join(columns)}) VALUES "
        self._tail = f" ON CONFLICT (name) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns, {update}"
        self._texts: dict[int, str] = {}

    def write(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), self._most):
            some = rows[start : start + self._most]
            connection.execute(self._text(len(some)), list(chain.from_iterable(some)))

    def _text(self, count: int) -> str:
        text = self._texts.get(count)
        if text is None:
            text = self._texts[count] = self._head + ", ".join([self._row] * count) + self._tail
        return text


@attrs.frozen
class Found:
    """What earlier runs, or this one, have noted of an input."""

    row: Row  #: `REPORT_COLUMNS`; of a report only if it is settled
    is_settled: bool
    is_begun: bool
    was_in_doubt: bool
    is_of_this_run: bool


class LedgerFile:
    """See above."""

    def __init__(self, path: str | os.PathLike[str], peer: str) -> None:
        self.path = os.path.realpath(os.fsdecode(path))  # the files beside it are where it lies, not where a link does
        self._peer = peer
        self._lock = LedgerLock(self.path)
        self._connection: sqlite3.Connection | None = None
        self._run = 0
        self._in_use = threading.Lock()
        self._is_abandoned = False

    # --- as a run has it, from its beginning to its end

    def open(self) -> None:
        """Begin a run. Raises `LedgerError`."""
        with self._used():
            is_opened = False
            with ledger_errors(self.path, "used"):
                if not is_new(self.path):  # what must be left alone is left before anything is done to it
                    with contextlib.closing(connect_to_read(self.path)) as connection:
                        check_health(self.path, connection)
                if not self._lock.acquire():
                    failure = LedgerError(self.path, "another run is writing it")
                    failure.retry = Retry.LATER
                    raise failure
                try:
                    self._open()
                    is_opened = True
                finally:
                    if not is_opened:
                        self._close()

    def exchange(self, settled: Sequence[Row], begun: Sequence[Row], names: Sequence[Row]) -> dict[bytes, Found]:
        """Write rows, in this order; then what there is of these (name, size, mtime_ns). Raises `LedgerError`."""
        with self._used(), ledger_errors(self.path, "written"):
            connection = self._open_connection
            if settled:
                self._settle.write(connection, settled)
            if begun:
                self._begin.write(connection, begun)
            found = self._find([name for name, _, _ in names])
            known = {(name, *state) for name, (state, _) in found.items()}
            unknown = [row for row in names if row not in known]
            if unknown:
                self._register.write(connection, unknown)
            return {row[0]: found[row[0]][1] for row in names if row in known}

    def finish(self, settled: Sequence[Row]) -> None:
        """Write rows, end the run, and close. Raises `LedgerError`; it is closed all the same."""
        with self._used():
            try:
                with ledger_errors(self.path, "written"):
                    if settled:
                        self._settle.write(self._open_connection, settled)
                    self._open_connection.execute("UPDATE run SET ended = ? WHERE number = ?", (time.time(), self._run))
            finally:
                self._close()

    def abandon(self) -> None:
        """It is closed as soon as no thread uses it."""
        self._is_abandoned = True
        self._close_if_abandoned()

    # ---

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        try:
            with self._in_use:
                yield
        finally:
            self._close_if_abandoned()

    def _close_if_abandoned(self) -> None:
        # Who abandons it, and who has used it, both look here: the later of them finds it free.
        if self._is_abandoned and self._in_use.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._in_use.release()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        finally:
            self._lock.release()

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerError(self.path, "it is closed")
        return self._connection

    def _open(self) -> None:
        if is_new(self.path):
            self._make()
        self._connection = connection = self._connect(self.path)
        check_kind(self.path, connection)  # once more: before it was locked it could be replaced
        _use_log(self.path, connection)
        last = connection.execute("SELECT peer FROM run ORDER BY number DESC LIMIT 1").fetchone()
        if last is not None and last[0] != self._peer:
            raise LedgerError(
                self.path,
                f"it is that of {printable(str(last[0]))}: what {printable(self._peer)} has needs a ledger of its own",
            )
        beginning = connection.execute(
            "INSERT INTO run (peer, version, started) VALUES (?, ?, ?)", (self._peer, __version__, time.time())
        )
        self._run = run = beginning.lastrowid or 0
        self._register, self._begin, self._settle = (_Upsert(kind, run) for kind in (_REGISTER, _BEGIN, _SETTLE))

    def _make(self) -> None:
        unfinished = self.path + "-new"
        for name in (unfinished, *(unfinished + suffix for suffix in BESIDE)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        os.close(os.open(unfinished, flags, 0o600))  # it names files, and files may be named after patients
        connection = self._connect(unfinished)
        try:
            _use_log(self.path, connection)
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        finally:
            connection.close()
        os.replace(unfinished, self.path)

    def _connect(self, path: str) -> sqlite3.Connection:
        return sqlite3.connect(
            uri(path, "rw"),
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def _find(self, names: Sequence[bytes]) -> dict[bytes, tuple[Row, Found]]:
        found: dict[bytes, tuple[Row, Found]] = {}
        for start in range(0, len(names), MOST_NAMES):
            some = names[start : start + MOST_NAMES]
            query = (
                f"SELECT {', '.join(REPORT_COLUMNS)}, size, mtime_ns, outcome IS NOT NULL, begun IS NOT NULL,"
                f" was_in_doubt, run = ? FROM input WHERE name IN ({', '.join('?' * len(some))})"
            )
            for row in self._open_connection.execute(query, (self._run, *some)):
                size, mtime_ns, *state = row[_COLUMNS:]
                found[row[0]] = ((size, mtime_ns), Found(row[:_COLUMNS], *map(bool, state)))
        return found


def _use_log(path: str, connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LedgerError(path, "SQLite cannot keep a write-ahead log there: it needs a disk of this machine")
    connection.execute("PRAGMA synchronous = NORMAL")
