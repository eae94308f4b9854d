"""Ledger: what became of each input, on the disk, so that the next run sends what this one did not settle.

1. An object is noted as begun, and that is committed, before the peer can have any of it. So one that was begun and has
   no end, because the process was killed, is in doubt, and none that may have arrived is ever taken for not sent.
2. All that is to be written goes to one task, which writes it in groups, in a thread: whoever comes while a group is
   written is in the next. Ends are written within GATHER seconds or so, or along with what others wait for.
3. That task is shielded, and ends when the ledger's block is left and all is written, or CLOSING seconds later.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ..errors import LedgerError
from ..plain_nursery import open_plain_nursery
from ..sources.threads import run_abandonable
from .ledger_entry import InputIdentity, LedgerEntry
from .ledger_file import Found, LedgerFile, Row
from .ledger_lock import SUFFIX
from .ledger_schema import ARRIVED, is_settled, report_of_row
from .outcome import InstanceReport, Outcome

GATHER = 0.1  # s that an end waits for others
TRY_AGAIN = 1.0  # s between attempts to write the ends that could not be written
CLOSING = 10.0  # s for what is left at the end

_LIMIT = 1 << 63


class _Group:
    """What is written at once; those who wait for it share its end."""

    def __init__(self) -> None:
        self.begun: dict[bytes, Row] = {}
        self.identities: list[Row] = []  # to be looked up
        self.found: dict[bytes, Found] = {}
        self.error: LedgerError | None = None
        self.is_done = trio.Event()

    async def wait(self) -> None:
        await self.is_done.wait()
        if self.error is not None:
            raise LedgerError(self.error.path, self.error.reason) from self.error


class Ledger:
    """See `open_ledger`, which makes it."""

    def __init__(self, file: LedgerFile, limiter: trio.CapacityLimiter) -> None:
        self.failure: LedgerError | None = None
        """The first error of writing it. Nothing can be begun after that; ends are kept, and tried again."""
        self._file = file
        self._limiter = limiter
        self._group = _Group()
        self._settled: list[Row] = []
        self._under_way: dict[bytes, list[InputIdentity]] = {}  # begun and not settled; a name may be given twice
        self._doubtful: set[bytes] = set()
        self._has_news, self._is_urgent = trio.Event(), trio.Event()
        self._is_closing = False
        self._scope = trio.CancelScope(shield=True)  # it has a deadline once it is closing

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the ledger and the files beside it, links resolved. They may lie in a folder that is sent."""
        path = self._file.path
        return path, path + "-wal", path + "-shm", path + SUFFIX

    def owns(self, path: str) -> bool:
        """Whether `path`, of a file in some folder, is one of these. Blocks."""
        paths = self.paths
        name = os.path.basename(path)
        return any(name == os.path.basename(own) for own in paths) and os.path.realpath(path) in paths

    # --- for the sender

    async def look_up(self, identities: Sequence[InputIdentity]) -> list[InstanceReport | None]:
        """Of each input what an earlier run has settled, or this one; None if it is to be sent.

        Inputs that it does not have yet are noted as such. Raises `LedgerError`.
        """
        await trio.lowlevel.checkpoint()
        self._check_writable()
        group = self._group
        group.identities += [_key(each) for each in identities]
        self._hurry()
        await group.wait()
        return [self._judge(each, group.found.get(each.name)) for each in identities]

    def was_in_doubt(self, identity: InputIdentity) -> bool:
        """Whether the peer may have this input already, by what `look_up` found, from an earlier run."""
        return identity.name in self._doubtful

    async def begin(self, entries: Sequence[LedgerEntry]) -> None:
        """Note that from now on the peer may have these. Once it returns, that is committed.

        Raises `LedgerError`; none of them may be sent then. If cancelled, they are noted or not: they may be settled,
        or begun again.
        """
        await trio.lowlevel.checkpoint()
        self._check_writable()
        group, now = self._group, time.time()
        for entry in entries:
            identity = entry.identity
            group.begun[identity.name] = (*_key(identity), entry.sop_class_uid, entry.sop_instance_uid, now)
            others = self._under_way.setdefault(identity.name, [])
            if not any(other is identity for other in others):
                others.append(identity)
        self._hurry()
        await group.wait()

    def settle(self, identity: InputIdentity, report: InstanceReport) -> None:
        """Note the end of an input, begun or not, within some tenths of a second. It never waits, and never raises.

        `identity` is the very object that was begun.
        """
        name = identity.name
        others = [other for other in self._under_way.pop(name, ()) if other is not identity]
        if others:  # the same name was given twice, and the other one may still arrive
            self._under_way[name] = others
            if report.outcome not in ARRIVED and report.outcome is not Outcome.IN_DOUBT:
                return
        else:
            self._group.begun.pop(name, None)  # it was given up before that was written
        self._doubtful.discard(name)
        self._settled.append(
            (
                *_key(identity),
                report.sop_class_uid,
                report.sop_instance_uid,
                report.transfer_syntax_uid,
                time.time(),
                report.outcome.value,
                None if report.status is None else int(report.status),
                report.attempts,
                report.bytes_sent,
                _storable(report.reason),
                report.retry.value,
                report.was_in_doubt,
            )
        )
        self._has_news.set()

    async def flush(self) -> None:
        """Wait until all that was settled is written, or could not be: see `failure`."""
        await trio.lowlevel.checkpoint()
        if not self._is_closing:
            group = self._group
            self._hurry()
            await group.is_done.wait()

    # ---

    def _check_writable(self) -> None:
        if self.failure is not None:
            raise LedgerError(self.failure.path, self.failure.reason) from self.failure
        if self._is_closing:
            raise LedgerError(self._file.path, "it is closed")

    def _hurry(self) -> None:
        self._is_urgent.set()
        self._has_news.set()

    def _judge(self, identity: InputIdentity, found: Found | None) -> InstanceReport | None:
        if found is None:
            return None
        if not found.is_settled:
            if found.was_in_doubt or (found.is_begun and not found.is_of_this_run):
                self._doubtful.add(identity.name)
            return None
        try:
            report = report_of_row(found.row)
        except (TypeError, ValueError) as error:
            raise LedgerError(self._file.path, "it is damaged: a row is not as trio_dicom writes them") from error
        if is_settled(report):
            return report
        if report.was_in_doubt or report.outcome is Outcome.IN_DOUBT:
            self._doubtful.add(identity.name)
        return None

    async def run(self) -> None:
        """Write what comes, until it is closed."""
        with self._scope:
            while not self._is_closing:
                await self._has_news.wait()
                with trio.move_on_after(GATHER if self.failure is None else TRY_AGAIN):
                    await self._is_urgent.wait()
                if not self._is_closing:
                    await self._write()
            await self._finish()
        if self._scope.cancelled_caught:
            late = LedgerError(self._file.path, f"its last lines could not be written within {CLOSING:g} s")
            self.failure = self.failure or late
            self._file.abandon()

    def close(self) -> None:
        """Have `run` write what is left, and end."""
        self._is_closing = True
        self._scope.deadline = trio.current_time() + CLOSING
        self._hurry()

    async def _write(self) -> None:
        group, settled = self._take()
        group.error = LedgerError(self._file.path, "it was not written")  # unless it is
        try:
            group.found = await run_abandonable(
                self._file.exchange, settled, list(group.begun.values()), group.identities, limiter=self._limiter
            )
            group.error = None
        except LedgerError as error:
            group.error = error
            self.failure = self.failure or error
            self._settled[:0] = settled
            if self._settled:
                self._has_news.set()
        finally:
            group.is_done.set()

    async def _finish(self) -> None:
        group, settled = self._take()
        group.error = LedgerError(self._file.path, "it is closed")
        group.is_done.set()
        try:
            await run_abandonable(self._file.finish, settled, limiter=self._limiter)
        except LedgerError as error:
            self.failure = self.failure or error

    def _take(self) -> tuple[_Group, list[Row]]:
        group, settled = self._group, self._settled
        self._group, self._settled = _Group(), []
        self._has_news, self._is_urgent = trio.Event(), trio.Event()
        return group, settled


@asynccontextmanager
async def open_ledger(path: str | os.PathLike[str], peer: str) -> AsyncIterator[Ledger]:
    """The ledger at `path` for the length of an `async with` block, which is one run; made if it is missing.

    `peer` is whom it is about. However the block is left, what was settled in it is written then, as far as it can be
    within CLOSING seconds; `Ledger.failure` says if it could not.

    Raises `LedgerError` if it cannot be used: it is another run's now, or about another peer, damaged, of a later
    version, or no ledger; such a file is left as it is.
    """
    file = LedgerFile(path, peer)
    limiter = trio.CapacityLimiter(1)
    try:
        await run_abandonable(file.open, limiter=limiter)
    except BaseException:
        file.abandon()
        raise
    ledger = Ledger(file, limiter)
    async with open_plain_nursery() as nursery:
        nursery.start_soon(ledger.run)
        try:
            yield ledger
        finally:
            ledger.close()


def _key(identity: InputIdentity) -> tuple[bytes, int | None, int | None]:
    """As it is in the ledger: SQLite's numbers have 64 bits, and some file systems know the year 2400."""
    mtime_ns = identity.mtime_ns
    if mtime_ns is not None:
        mtime_ns = (mtime_ns + _LIMIT) % (2 * _LIMIT) - _LIMIT
    return identity.name, identity.size, mtime_ns


def _storable(text: str) -> str:
    """With what is no Unicode, as in some names of files, escaped: SQLite does not take it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
