"""`trio-dicom send`: every input to its outcome, over as many associations as it takes, one after another."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from ..association.association import Association
from ..association.requestor import open_association
from ..errors import (
    AssociationError,
    AssociationRejected,
    ConnectFailed,
    ConnectionLost,
    InvalidObject,
    NoAcceptedContexts,
    Retry,
    TLSError,
    TrioDicomError,
)
from ..protocol.negotiation import PresentationContext
from ..sender.outcome import InstanceReport, Outcome, report_of_failure, report_of_response
from ..services.storage_scu import CStoreOptions, StoreDelivery
from ..sources.contexts import contexts_of
from .connection import Connection, usage_error
from .display import open_display
from .exit_codes import ExitCode, exit_code_of
from .inputs import STANDARD_INPUT, Input, by_contexts, expand, identify, open_ahead
from .report import ReportWriter
from .signals import cancel_on_signals

FRUITLESS_ASSOCIATIONS = 3  # one after another, before the rest is given up
PASSING = (Retry.LATER, Retry.NEW_ASSOCIATION)
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # s, before an association, or an object, is tried again


def run_send(
    connection: Connection, paths: Sequence[str], *, retries: int, report_path: Path | None, quiet: bool
) -> int:
    """Send what `paths` name, report each input, and give the exit code."""
    if paths.count(STANDARD_INPUT) > 1:
        raise usage_error("- (standard input) can be given once")
    try:
        report = ReportWriter(report_path)
    except (OSError, ValueError) as error:
        raise usage_error(f"the report cannot be written: {getattr(error, 'strerror', error)}: {report_path}") from None
    with report:
        return trio.run(_send, connection, paths, retries, report, quiet)


async def _send(connection: Connection, paths: Sequence[str], retries: int, report: ReportWriter, quiet: bool) -> int:
    transfer = Transfer(connection, retries, report, quiet=quiet)
    async with cancel_on_signals() as signals:
        await transfer.run(paths)
        return transfer.exit_code
    return signals.exit_code


class Transfer:
    """All inputs on their way to one peer. Each is reported once, on every exit path."""

    def __init__(self, connection: Connection, retries: int, report: ReportWriter, *, quiet: bool) -> None:
        self._connection = connection
        self._inputs: Sequence[Input] = ()
        self._retries = retries
        self._report = report
        self._options = CStoreOptions(timeout=connection.timeout, max_retries=retries, retry_delay=FIRST_DELAY)
        self._reports: dict[Input, InstanceReport] = {}
        self._answered = 0  # objects that got a response
        self._is_refused = False  # an association, for good
        self._display = open_display(quiet=quiet)

    @property
    def exit_code(self) -> int:
        """See `ExitCode`."""
        code = exit_code_of(list(self._reports.values()), is_peer_refusal=self._is_refused)
        return ExitCode.NOT_STORED if code is ExitCode.OK and self._report.failure is not None else code

    async def run(self, paths: Sequence[str]) -> None:
        """Find the inputs, read their heads, send, and settle whatever is left, however this ends."""
        self._inputs = [Input(path) for path in paths]  # should it end before there is more to say of them
        try:
            inputs = await trio.to_thread.run_sync(expand, paths, abandon_on_cancel=True)
            self._inputs = [each for each in inputs if not self._is_report(each.path)]
            await identify(self._inputs)
            self._display.expect(len(self._inputs), sum(each.size for each in self._inputs))
            with self._display:
                for each in self._inputs:
                    if each.invalid is not None:
                        self._settle_failure(each, each.invalid)
                for batch in by_contexts([each for each in self._inputs if each.invalid is None]):
                    await self._send_batch(batch)
        finally:
            for each in self._inputs:
                if each not in self._reports:
                    self._settle_failure(each, None)
                await each.aclose()
            self._finish()

    def _is_report(self, path: str) -> bool:
        """The report may lie in a directory that is sent; it is no input."""
        return path.endswith(self._report.name) and self._report.is_at(path)

    def _finish(self) -> None:
        if self._inputs:
            self._display.summarise(len(self._inputs))
        else:
            self._display.say("trio-dicom: nothing to send: there is no file in the directories given")
        if self._report.failure is not None:
            self._display.say(f"trio-dicom: the report is incomplete: {self._report.failure}")

    async def _send_batch(self, batch: Sequence[Input]) -> None:
        send, receive = trio.open_memory_channel[Sequence[Input]](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_ahead, batch, send)
            queue = _Queue(receive)
            await self._drain(queue, contexts_of(each.kind for each in batch), batch)
            nursery.cancel_scope.cancel()

    async def _drain(self, queue: _Queue, contexts: tuple[PresentationContext, ...], batch: Sequence[Input]) -> None:
        """Over one association after another, until nothing is left, or nothing more can be hoped for."""
        fruitless, delay = 0, FIRST_DELAY
        connection = self._connection
        while await queue.head() is not None:
            answered_before = self._answered
            try:
                opened = open_association(connection.peer, contexts, settings=connection.settings, tls=connection.tls)
                async with opened as association:
                    await self._over(association, queue)
            except (AssociationError, ConnectFailed, TLSError) as error:
                fruitless += 1
                if error.retry not in PASSING or fruitless > self._retries:
                    self._give_up(batch, error)
                    return
                await trio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            fruitless = 0 if self._answered > answered_before else fruitless + 1
            if fruitless >= FRUITLESS_ASSOCIATIONS:
                self._give_up(batch, AssociationError(f"{fruitless} associations in a row came to nothing"))
                return

    async def _over(self, association: Association, queue: _Queue) -> None:
        while association.is_open and (each := await queue.head()) is not None:
            if await self._deliver(association, each):
                queue.drop_head()

    async def _deliver(self, association: Association, each: Input) -> bool:
        """True if it is settled; False if it is to be sent once more, over another association."""
        if each.invalid is not None:
            self._settle_failure(each, each.invalid)
            return True
        item = each.source or each.path
        each.delivery = delivery = StoreDelivery(association, self._options, item, None, self._display.channel)
        each.is_under_way = True
        try:
            response = await delivery.run()
        except TrioDicomError as error:
            self._count(each, delivery)
            can_repeat = each.path != STANDARD_INPUT and each.attempts <= self._retries
            if isinstance(error, AssociationError) and can_repeat:
                each.source = None  # it was closed, and is opened anew
                each.failure = error
                return False
            self._settle_failure(each, error)
            return True
        self._count(each, delivery)
        self._answered += 1
        self._settle(each, report_of_response(each.path, delivery, response))
        return True

    def _count(self, each: Input, delivery: StoreDelivery) -> None:
        each.attempts += delivery.attempts
        each.was_in_doubt |= delivery.in_doubt
        each.is_under_way = False

    def _give_up(self, batch: Sequence[Input], error: TrioDicomError) -> None:
        is_final = isinstance(error, AssociationRejected | ConnectionLost | NoAcceptedContexts | TLSError)
        self._is_refused |= is_final and error.retry not in PASSING
        self._display.say(f"trio-dicom: {self._connection.explain(error)}")
        for each in batch:
            if each not in self._reports:
                self._settle_failure(each, each.invalid or each.failure or error, is_news=each.failure is not None)

    def _settle_failure(self, each: Input, error: TrioDicomError | None, *, is_news: bool = True) -> None:
        if each.is_under_way and each.delivery is not None:
            self._count(each, each.delivery)
        report = report_of_failure(each.path, each.delivery, error)
        report = attrs.evolve(
            report,
            sop_class_uid=report.sop_class_uid or each.sop_class_uid or None,
            sop_instance_uid=report.sop_instance_uid or each.sop_instance_uid or None,
            transfer_syntax_uid=report.transfer_syntax_uid or each.transfer_syntax_uid or None,
            reason=error.reason if isinstance(error, InvalidObject) else report.reason,  # the path is there already
        )
        if each.was_in_doubt and report.status is None:  # a later attempt does not take back what an earlier one did
            report = attrs.evolve(report, outcome=Outcome.IN_DOUBT)
        is_news &= error is not None or report.outcome is Outcome.IN_DOUBT
        self._settle(each, report, is_news=is_news)

    def _settle(self, each: Input, report: InstanceReport, *, is_news: bool = True) -> None:
        if report.attempts != each.attempts:
            report = attrs.evolve(report, attempts=each.attempts)
        each.delivery = None
        self._reports[each] = report
        self._report.write(report)
        self._display.settled(report, each.size, is_news=is_news)


class _Queue:
    """The opened inputs in their order, of which the first stays until it is settled."""

    def __init__(self, receive: trio.MemoryReceiveChannel[Sequence[Input]]) -> None:
        self._receive = receive
        self._ready: collections.deque[Input] = collections.deque()

    async def head(self) -> Input | None:
        """The first; None if there are no more."""
        if not self._ready:
            with contextlib.suppress(trio.EndOfChannel):
                self._ready.extend(await self._receive.receive())
        return self._ready[0] if self._ready else None

    def drop_head(self) -> None:
        self._ready.popleft()
