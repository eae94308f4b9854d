"""`trio-dicom send`: what the arguments name, through a sender; each input is reported once, however it ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO

import attrs
import trio

from ..errors import LedgerError, Retry, printable
from ..plain_nursery import open_plain_nursery
from ..sender.outcome import InstanceReport, Outcome
from ..sender.reports import Reports, TransferReport
from ..sender.retry import PASSING
from ..sender.sender import Sender, open_sender
from .arguments import STANDARD_INPUT, STREAM, inputs_of
from .connection import Connection, usage_error
from .display import print_line
from .exit_codes import ExitCode, Verdict
from .report import ReportWriter
from .scan import Scan
from .sending import Sending
from .signals import SIGNALS, ReceivedSignal
from .transfer_display import TICK, Ending, TransferDisplay, open_display
from .troubles import Troubles, heard
from .wording import plural

LETTING_GO = 0.05  # s in which what was not begun is let go


def run_send(connection: Connection, sending: Sending, paths: Sequence[str]) -> int:
    """Send what `paths` name, report each input, and give the exit code."""
    items = inputs_of(paths)
    try:
        report = ReportWriter(sending.report)
    except (OSError, ValueError) as error:
        where = f"{getattr(error, 'strerror', error)}: {sending.report}"
        raise usage_error(f"the report cannot be written: {where}") from None
    display = open_display(quiet=sending.quiet, as_json=sending.as_json)
    with report, heard(display.say) as troubles:
        transfer = Transfer(connection, sending, report, display, troubles)
        try:
            code = trio.run(transfer.run, items)
        except LedgerError as error:
            if error.retry is not Retry.LATER:
                raise usage_error(str(error)) from None
            print_line(f"trio-dicom: {error}", to_errors=True)
            code = ExitCode.TRY_AGAIN
        finally:
            failure = display.close(patiently=transfer.signal.number is None)
    if failure is None:
        return code
    print_line(f"trio-dicom: the output is incomplete: {failure.strerror}", to_errors=True)
    return ExitCode.NOT_STORED if code == ExitCode.OK else code


class Transfer:
    """All inputs on their way to one peer."""

    def __init__(
        self,
        connection: Connection,
        sending: Sending,
        report: ReportWriter,
        display: TransferDisplay,
        troubles: Troubles,
    ) -> None:
        self.signal = ReceivedSignal()
        self._connection = connection
        self._sending = sending
        self._report = report
        self._display = display
        self._troubles = troubles
        self._has_stream = False
        self._unread: list[str] = []  # folders that were not looked through to their end
        self._sender: Sender | None = None
        self._verdict = Verdict(sending.accepts_present)
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._scope = trio.CancelScope()

    async def run(self, items: Sequence[str | BinaryIO]) -> int:
        """Send, and give the exit code."""
        paths = [item for item in items if isinstance(item, str)]
        self._has_stream = len(paths) < len(items)
        reports: Reports | None = None
        self._scope.deadline = trio.current_time() + self._sending.deadline
        with self._scope:
            async with open_plain_nursery() as nursery:
                await nursery.start(self._heed_signals)
                async with self._open_sender() as sender:
                    self._sender = sender
                    nursery.start_soon(self._display.run, sender, Scan(paths, self._is_own))
                    nursery.start_soon(self._tell_troubles, sender)
                    async with sender.send_many(items, skip=self._is_report) as reports:
                        async for report in reports:
                            self._settle(report)
                            await self._display.wait_room()
                        reports = None
                nursery.cancel_scope.cancel()
        if reports is not None:  # cut off: here is what was withdrawn
            async for report in reports:
                self._settle(report)
        return self._finish()

    def _open_sender(self) -> AbstractAsyncContextManager[Sender]:
        connection, sending = self._connection, self._sending
        return open_sender(
            connection.peer,
            associations=sending.associations,
            window=sending.window,
            ledger=sending.ledger,
            options=sending.options,
            transcode=sending.transcode,
            progress=self._display.progress,
            settings=connection.settings,
            tls=connection.tls,
            server_hostname=connection.server_hostname,
        )

    # --- what is no input

    def _is_report(self, path: str) -> bool:
        """The report may lie in a folder that is sent."""
        return os.path.basename(path) == self._report.name and self._report.is_at(path)

    def _is_own(self, path: str) -> bool:
        """So may the ledger, which the sender leaves out."""
        ledger = self._sending.ledger
        if ledger is not None and os.path.basename(path).startswith(ledger.name):
            own = os.path.realpath(ledger)
            return os.path.realpath(path) in (own, own + "-wal", own + "-shm", own + "-lock")
        return self._is_report(path)

    # --- signals

    async def _heed_signals(self, task_status: trio.TaskStatus[None]) -> None:
        """The first one lets what is being sent come to its end, the second one does not."""
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                task_status.started()
                async for number in signals:
                    if self.signal.number is None and self._sender is not None:
                        nursery.start_soon(self._sender.drain, self._sending.drain)
                        nursery.start_soon(self._tell_drain, self._sender)
                    else:
                        self._scope.cancel()
                    self.signal.number = self.signal.number or number

    async def _tell_drain(self, sender: Sender) -> None:
        await trio.sleep(LETTING_GO)
        if count := sender.report.under_way:
            self._display.say(f"trio-dicom: finishing {plural(count, 'object')}; once more stops at once")

    # --- what comes of it

    async def _tell_troubles(self, sender: Sender) -> None:
        while True:
            await trio.sleep(TICK)
            self._say_troubles(sender)

    def _say_troubles(self, sender: Sender) -> None:
        for text in self._troubles.take():
            if sender.failure is None and not self._sending.quiet:  # else it is said in the end
                self._display.say(f"trio-dicom: {text}")

    def _settle(self, report: InstanceReport) -> None:
        if self._has_stream and report.path == STREAM:
            report = attrs.evolve(report, path=STANDARD_INPUT)
        if report.outcome is Outcome.NOT_SENT and report.sop_class_uid is None and os.path.isdir(report.path or ""):
            self._unread.append(report.path or "")
        self._verdict.add(report)
        self._outcomes[report.outcome] += 1
        self._report.write(report)
        self._display.settled(report)

    def _finish(self) -> int:
        totals = self._sender.report if self._sender is not None else TransferReport()
        failure = self._sender.failure if self._sender is not None else None
        explained = None if failure is None else self._connection.explain(failure)
        is_refusal = failure is not None and failure.retry not in PASSING and not isinstance(failure, LedgerError)
        code: int = self._verdict.exit_code(is_peer_refusal=is_refusal, is_complete=self._is_complete(totals))
        if self._report.failure is not None and code == ExitCode.OK:
            code = ExitCode.NOT_STORED
        if self.signal.number is not None:
            code = self.signal.exit_code
        self._tell_end(totals, explained, code)
        return code

    def _tell_end(self, totals: TransferReport, failure: str | None, code: int) -> None:
        say = self._display.say
        if self._sender is not None:
            self._say_troubles(self._sender)
        if failure is not None:
            say(f"trio-dicom: {failure}")
        if self._scope.cancelled_caught and self.signal.number is None:
            stage = "" if totals.associations else f" before there was an association with {self._connection.peer}"
            say(f"trio-dicom: the deadline of {self._sending.deadline:g} s has passed{stage}")
        for folder in self._unread:
            say(f"trio-dicom: not looked through to its end: {printable(folder, 400)}")
        if not totals.inputs:
            say("trio-dicom: nothing to send: there is no file in the folders given")
        if self._report.failure is not None:
            say(f"trio-dicom: the report is incomplete: {self._report.failure}")
        self._display.summarise(Ending(totals, self._is_complete(totals), self._outcomes, failure, code))

    def _is_complete(self, totals: TransferReport) -> bool:
        return totals.is_exhausted and not self._unread
