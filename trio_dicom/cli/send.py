"""`trio-dicom send`: every input to its outcome, over as many associations as it takes, one after another."""

from __future__ import annotations

import collections
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

from ..association.association import Association
from ..association.requestor import open_association
from ..errors import (
    AssociationError,
    AssociationRejected,
    ConnectFailed,
    InvalidObject,
    NoAcceptedContexts,
    Retry,
    TLSError,
    TrioDicomError,
)
from ..protocol.negotiation import PresentationContext
from ..sender.outcome import InstanceReport, Outcome, report_of_failure, report_of_response
from ..services.progress import TransferProgress, open_progress_channel
from ..services.storage_scu import CStoreOptions, ProgressChannel, StoreDelivery
from ..sources.contexts import contexts_of
from ..sources.file import read_head
from ..sources.open import open_source
from ..sources.part10 import Head
from ..sources.source import Source
from .connection import Connection, usage_error
from .display import Display
from .exit_codes import exit_code_of
from .report import ReportWriter
from .signals import cancel_on_signals

STANDARD_INPUT = "-"
HEADS_A_HOP = 64
MOST_CONTEXTS = 128
FRUITLESS_ASSOCIATIONS = 3  # one after another, before the rest is given up
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # s, before an association is tried again


@attrs.define(eq=False)
class Input:
    """One thing to be sent, and how it stands with it."""

    path: str
    size: int = 0
    kind: tuple[str, str] = ("", "")  # SOP class and transfer syntax UIDs
    source: Source | None = None  # standard input, opened
    invalid: InvalidObject | None = None
    attempts: int = 0
    delivery: StoreDelivery | None = None  # begun and not settled
    head: Head | None = None


def run_send(
    connection: Connection, paths: list[str], *, retries: int, report_path: Path | None, quiet: bool
) -> int:
    """Send what `paths` name, report each input, and give the exit code."""
    if paths.count(STANDARD_INPUT) > 1:
        raise usage_error("- (standard input) can be given once")
    try:
        report = ReportWriter(report_path)
    except OSError as error:
        raise usage_error(f"the report cannot be written: {error.strerror}: {report_path}") from None
    with report:
        return trio.run(_send, connection, paths, retries, report, quiet)


async def _send(
    connection: Connection, paths: list[str], retries: int, report: ReportWriter, quiet: bool
) -> int:
    async with cancel_on_signals() as signals:
        inputs = [Input(path) for path in await trio.to_thread.run_sync(lambda: list(_expand(paths)))]
        transfer = Transfer(connection, inputs, retries, report, quiet)
        await transfer.run()
        return transfer.exit_code
    return signals.exit_code


def _expand(paths: list[str]) -> Iterator[str]:
    for path in paths:
        if path == STANDARD_INPUT or not os.path.isdir(path):
            yield path
            continue
        for folder, folders, files in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(files))


class Transfer:
    """All inputs on their way to one peer. Each is reported once, on every exit path."""

    def __init__(
        self, connection: Connection, inputs: list[Input], retries: int, report: ReportWriter, quiet: bool
    ) -> None:
        self._connection = connection
        self._inputs = inputs
        self._retries = retries
        self._report = report
        self._quiet = quiet
        self._options = CStoreOptions(timeout=connection.timeout, max_retries=retries)
        self._reports: dict[Input, InstanceReport] = {}
        self._refusal: TrioDicomError | None = None  # of an association, for good
        self._display: Display | None = None

    @property
    def exit_code(self) -> int:
        """See `ExitCode`."""
        return exit_code_of(list(self._reports.values()), is_peer_refusal=self._refusal is not None)

    async def run(self) -> None:
        """Read the heads, send, and settle whatever is left, however this ends."""
        failure: BaseException = trio.TooSlowError()
        try:
            await self._read_heads()
            with Display(len(self._inputs), sum(each.size for each in self._inputs), quiet=self._quiet) as display:
                self._display = display
                for each in self._inputs:
                    if each.invalid is not None:
                        self._settle_failure(each, each.invalid)
                for batch in _by_contexts([each for each in self._inputs if each.invalid is None]):
                    await self._send_batch(batch)
        except BaseException as error:
            failure = error
            raise
        finally:
            for each in self._inputs:
                if each not in self._reports:
                    self._settle_failure(each, failure)
                if each.source is not None:
                    await each.source.aclose()
            if self._display is not None:
                self._display.summarise()
            elif not self._inputs:
                print("trio-dicom: nothing to send: no file in the folders given", file=sys.stderr)

    async def _read_heads(self) -> None:
        files = [each for each in self._inputs if each.path != STANDARD_INPUT]
        for start in range(0, len(files), HEADS_A_HOP):
            some = files[start : start + HEADS_A_HOP]
            await trio.to_thread.run_sync(lambda some=some: [_examine(each) for each in some], abandon_on_cancel=True)
        for each in self._inputs:
            if each.path == STANDARD_INPUT:
                await _open_standard_input(each)

    async def _send_batch(self, batch: list[Input]) -> None:
        """Over one association after another, until nothing is left, or nothing more can be hoped for."""
        contexts = contexts_of(each.kind for each in batch)
        left = collections.deque(batch)
        fruitless, delay = 0, FIRST_DELAY
        while left:
            before = len(self._reports)
            try:
                await self._over_one_association(contexts, left)
            except (AssociationError, ConnectFailed, TLSError) as error:
                fruitless += 1
                if error.retry is not Retry.LATER or fruitless > self._retries:
                    self._give_up(left, error)
                    return
                await trio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            fruitless = 0 if any(each.outcome.is_stored for each in list(self._reports.values())[before:]) else fruitless + 1
            if left and fruitless >= FRUITLESS_ASSOCIATIONS:
                self._give_up(left, None)

    async def _over_one_association(self, contexts: tuple[PresentationContext, ...], left: collections.deque[Input]) -> None:
        connection = self._connection
        opened = open_association(connection.peer, contexts, settings=connection.settings, tls=connection.tls)
        async with opened as association:
            while left and association.is_open:
                each = left[0]
                if await self._send_one(association, each):
                    left.popleft()

    async def _send_one(self, association: Association, each: Input) -> bool:
        """True if it is settled; False if it is to be sent once more, over another association."""
        send, receive = open_progress_channel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show, receive)
            try:
                return await self._deliver(association, each, send)
            finally:
                send.close()

    async def _deliver(self, association: Association, each: Input, progress: ProgressChannel) -> bool:
        item = each.path if each.source is None else each.source
        each.delivery = delivery = StoreDelivery(association, self._options, item, None, progress)
        try:
            response = await delivery.run()
        except TrioDicomError as error:
            each.attempts += delivery.attempts
            may_retry = isinstance(error, AssociationError) and each.attempts <= self._retries and each.source is None
            if not may_retry:
                self._settle_failure(each, error)
            return not may_retry
        each.attempts += delivery.attempts
        self._settle(each, report_of_response(each.path, delivery, response))
        return True

    async def _show(self, receive: trio.abc.ReceiveChannel[TransferProgress]) -> None:
        async for progress in receive:
            if self._display is not None:
                self._display.moved(progress.bytes_sent)

    def _give_up(self, left: collections.deque[Input], error: TrioDicomError | None) -> None:
        if isinstance(error, AssociationRejected | NoAcceptedContexts | TLSError) and error.retry is not Retry.LATER:
            self._refusal = error
        reason = error or AssociationError(f"{FRUITLESS_ASSOCIATIONS} associations in a row came to nothing")
        if self._display is not None and error is not None:
            self._display.say(f"trio-dicom: {error}")
        while left:
            self._settle_failure(left.popleft(), reason)

    def _settle_failure(self, each: Input, error: BaseException) -> None:
        reason = str(error) if isinstance(error, TrioDicomError) else "interrupted before it was sent"
        if each.delivery is not None:
            report = report_of_failure(each.path, each.delivery, reason, error)
        else:
            report = report_of_failure(each.path, None, reason, error)
        if report.sop_class_uid is None and each.head is not None:
            report = attrs.evolve(report, sop_class_uid=each.head.sop_class_uid, sop_instance_uid=each.head.sop_instance_uid)
        self._settle(each, report)

    def _settle(self, each: Input, report: InstanceReport) -> None:
        report = attrs.evolve(report, attempts=each.attempts)
        each.delivery = None
        self._reports[each] = report
        self._report.write(report)
        if self._display is not None:
            self._display.settled(report, each.size)


def _examine(each: Input) -> None:
    try:
        each.head = read_head(each.path)
        each.kind = each.head.sop_class_uid, each.head.transfer_syntax_uid
        each.size = os.stat(each.path).st_size
    except InvalidObject as error:
        each.invalid = error
    except OSError:
        pass  # gone since: opening it will say so


async def _open_standard_input(each: Input) -> None:
    try:
        each.source = await open_source(sys.stdin.buffer)
        each.kind = each.source.sop_class_uid, each.source.transfer_syntaxes[0]
    except InvalidObject as error:
        each.invalid = error


def _by_contexts(inputs: list[Input]) -> Iterator[list[Input]]:
    """The inputs in as few batches as their presentation contexts, of which an association has at most 128, allow."""
    batch: list[Input] = []
    kinds: set[tuple[str, str]] = set()
    for each in sorted(inputs, key=lambda each: each.kind):
        if each.kind not in kinds and len(contexts_of({*kinds, each.kind})) > MOST_CONTEXTS:
            yield batch
            batch, kinds = [], set()
        batch.append(each)
        kinds.add(each.kind)
    if batch:
        yield batch
