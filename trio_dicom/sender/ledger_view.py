"""LedgerView: a ledger as its readers have it, also while a run writes it. Synchronous: every method blocks.

No transaction is open between two calls, nor between two pages of rows: a slow reader does not keep the writer's log
from being cleared.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import attrs

from ..errors import LedgerError, Retry
from .ledger_lock import LedgerLock
from .ledger_schema import REPORT_COLUMNS, connect_to_read, ledger_errors, report_of_row
from .outcome import InstanceReport, Outcome

ROWS_A_PAGE = 1000

_STORED = f"outcome IN ('{Outcome.STORED.value}', '{Outcome.STORED_WITH_WARNING.value}')"
_DELIVERED = f"({_STORED} OR (outcome = '{Outcome.ALREADY_PRESENT.value}' AND was_in_doubt))"


@attrs.frozen
class Run:
    """One run, and what stands as it left it."""

    number: int
    peer: str
    version: str  #: of trio_dicom
    started: float  #: seconds since 1970, as all times here
    ended: float | None
    last_settled: float | None
    inputs: int  #: whose last state is of this run
    stored: int  #: of these
    bytes_stored: int
    is_running: bool = False

    def seconds(self, now: float) -> float:
        """How long it took, as far as that is known: of a run that was killed, until the last end that it noted."""
        end = self.ended or (now if self.is_running else self.last_settled) or self.started
        return max(end - self.started, 0.0)


@attrs.frozen
class Tally:
    """How many inputs have something in common."""

    outcome: Outcome
    retry: Retry
    is_delivered: bool  #: see `InstanceReport.is_delivered`
    was_in_doubt: bool
    inputs: int
    bytes_sent: int
    attempts: int

    def as_report(self) -> InstanceReport:
        """One that stands for each of them."""
        return InstanceReport(path=None, outcome=self.outcome, retry=self.retry, was_in_doubt=self.was_in_doubt)


@attrs.frozen
class Entry:
    """An input as it stands: unsettled ones are in doubt if they were begun, else not sent."""

    report: InstanceReport
    run: int
    size: int | None
    mtime_ns: int | None
    begun: float | None
    settled: float | None


@attrs.frozen
class Rate:
    """What was stored in a stretch of time."""

    start: float
    seconds: float
    objects: int
    bytes: int


class LedgerView:
    """See above; a context manager. Each method raises `LedgerError`, and so does making it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(os.fsdecode(path))
        self._connection = connect_to_read(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """A block in which all is seen as it was at its beginning."""
        with ledger_errors(self.path, "read"):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def runs(self) -> list[Run]:
        """All, in their order."""
        query = f"SELECT run, max(settled), count(*), sum({_STORED}), sum(bytes * ({_STORED})) FROM report GROUP BY run"
        runs = []
        with self._reading():
            left = {number: sums for number, *sums in self._connection.execute(query)}
            rows = self._connection.execute("SELECT number, peer, version, started, ended FROM run ORDER BY number")
            for number, peer, version, started, ended in rows:
                last_settled, inputs, stored, size = left.get(number, (None, 0, 0, 0))
                runs.append(Run(number, peer, version, started, ended, last_settled, inputs, stored, size))
        if runs and runs[-1].ended is None and LedgerLock(self.path).is_held():
            runs[-1] = attrs.evolve(runs[-1], is_running=True)
        return runs

    def tallies(self) -> list[Tally]:
        """Of all inputs; one for each combination that there is."""
        query = (
            f"SELECT outcome, retry, {_DELIVERED}, was_in_doubt, count(*), sum(bytes), sum(attempts) FROM report"
            " GROUP BY 1, 2, 3, 4"
        )
        with self._reading():
            return [
                Tally(Outcome(outcome), Retry(retry), bool(is_delivered), bool(was_in_doubt), *sums)
                for outcome, retry, is_delivered, was_in_doubt, *sums in self._connection.execute(query)
            ]

    def entries(self, *, failed: bool = False) -> Iterator[Entry]:
        """All inputs, or those that the peer does not have from us, in the order in which they were first seen."""
        columns = ", ".join(REPORT_COLUMNS)
        where = f" AND NOT {_DELIVERED}" if failed else ""
        query = (
            f"SELECT {columns}, number, run, size, mtime_ns, begun, settled FROM report WHERE number > ?{where}"
            f" ORDER BY number LIMIT {ROWS_A_PAGE}"
        )
        last = -1
        while True:
            with self._reading():
                page = [self._entry(row) for row in self._connection.execute(query, (last,)).fetchall()]
            for last, entry in page:  # noqa: B007  # the last of all is where the next page begins
                yield entry
            if len(page) < ROWS_A_PAGE:
                return

    def failures(self) -> Iterator[tuple[Outcome, int | None, str, str]]:
        """Outcome, status, reason and name of each input that the peer does not have from us."""
        query = f"SELECT outcome, status, reason, name FROM report WHERE NOT {_DELIVERED} ORDER BY number"
        with self._reading():
            for outcome, status, reason, name in self._connection.execute(query):
                yield Outcome(outcome), status, reason, os.fsdecode(name)

    def rates(self, run: Run, *, most: int, shortest: float = 1.0) -> list[Rate]:
        """What was stored when, in stretches of one length: at most so many, and none shorter than `shortest` s."""
        end = max(run.ended or 0.0, run.last_settled or 0.0)
        span = end - run.started
        if span <= 0:
            return []
        count = max(1, min(most, int(span / shortest)))
        length = span / count
        query = (
            "SELECT min(CAST((settled - ?) / ? AS INTEGER), ?), count(*), sum(bytes) FROM report"
            f" WHERE run = ? AND settled >= ? AND {_STORED} GROUP BY 1"
        )
        arguments = (run.started, length, count - 1, run.number, run.started)
        with self._reading():
            found = {place: sums for place, *sums in self._connection.execute(query, arguments)}
        return [Rate(run.started + place * length, length, *found.get(place, (0, 0))) for place in range(count)]

    @staticmethod
    def _entry(row: tuple[Any, ...]) -> tuple[int, Entry]:
        *columns, number, run, size, mtime_ns, begun, settled = row
        return number, Entry(report_of_row(tuple(columns)), run, size, mtime_ns, begun, settled)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with ledger_errors(self.path, "read"):
            try:
                yield
            except (TypeError, ValueError) as error:
                raise LedgerError(self.path, "it is damaged: a row is not as trio_dicom writes them") from error
