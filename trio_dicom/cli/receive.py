"""`trio-dicom receive`: a Storage SCP that files what it is sent, until it is told to stop.

A receiver is stopped by a signal as a matter of course, so that is no failure: the first lets nobody in any more, lets
the objects that are coming in end, for a time, and ends. An association with nothing under way does not hold it up.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from ..association.acceptor import AssociationServer, serve_associations
from ..services.instance_folder import Duplicates, InstanceFolder
from .arrival import Arrival, ArrivalSCP
from .arrival_display import PERIOD, log_shown, open_arrival_display
from .connection import usage_error
from .exit_codes import ExitCode
from .reception import Reception
from .report import ReportWriter
from .signals import SIGNALS, ReceivedSignal

DRAIN = 5.0  # s for the objects that are coming in, after the first signal
LULL = 1.0  # s without one, after which no other is waited for: the peer may yet send its release


def open_folder(path: Path, layout: str, duplicates: str, *, sync: bool, max_object_size: int) -> InstanceFolder:
    """The folder to file in; exits with 2 if it cannot be used, or the layout cannot."""
    try:
        return InstanceFolder(
            path, layout=layout, duplicates=Duplicates(duplicates), sync=sync, max_object_size=max_object_size
        )
    except OSError as error:
        raise usage_error(f"{error.strerror}: {path}") from None
    except ValueError as error:
        raise usage_error(str(error)) from None


def run_receive(
    reception: Reception,
    folder: InstanceFolder,
    *,
    accept_private: bool,
    once: bool,
    report_path: Path | None,
    quiet: bool,
) -> int:
    """Receive into `folder` until told to stop, or `once`; gives the exit code."""
    try:
        report = ReportWriter(report_path)
    except (OSError, ValueError) as error:
        raise usage_error(f"the report cannot be written: {getattr(error, 'strerror', error)}: {report_path}") from None

    async def receive() -> int:
        return await Receiver(reception, folder, report, accept_private=accept_private, quiet=quiet).run(once=once)

    with report:
        return trio.run(receive)


class Receiver:
    """What the command runs."""

    def __init__(
        self, reception: Reception, folder: InstanceFolder, report: ReportWriter, *, accept_private: bool, quiet: bool
    ) -> None:
        self._reception = reception
        self._folder = folder
        self._report = report
        self._quiet = quiet
        self._display = open_arrival_display(folder.folder, quiet=quiet)
        self._service = ArrivalSCP(folder, self._display.begun, self._settled, accept_private=accept_private)
        self._server: AssociationServer | None = None
        self._all_is_well = True
        self._signal = ReceivedSignal()
        self._was_cut = False  # by a signal, and something was under way
        self._scope = trio.CancelScope()

    async def run(self, *, once: bool) -> int:
        """Until the end; gives the exit code."""
        shown, heard = log_shown(self._display, quiet=self._quiet), trio.open_signal_receiver(*SIGNALS)
        with shown, heard as signals, self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals, nursery)
                failure = await self._listen(nursery)
                if failure is not None:
                    nursery.cancel_scope.cancel()
                    return failure
                if once:
                    nursery.start_soon(self._end_after_one)
                if self._display.is_live:
                    nursery.start_soon(self._keep_display)
        if self._server is None:  # a signal was faster
            return self._signal.exit_code
        self._display.summarise()
        if self._report.failure is not None:
            self._display.say(f"trio-dicom: the report is incomplete: {self._report.failure}")
        if self._was_cut and self._signal.number is not None:
            return self._signal.exit_code
        is_well = self._report.failure is None and (self._all_is_well or not once)
        return ExitCode.OK if is_well else ExitCode.NOT_STORED

    async def _listen(self, nursery: trio.Nursery) -> ExitCode | None:
        await self._sweep()
        try:
            self._server = await nursery.start(self._serve)
        except OSError as error:
            text, code = self._reception.explain(error)
            self._display.say(f"trio-dicom: {text}")
            return code
        self._display.listening(self._server.addresses, self._reception.admission.ae_title)
        return None

    async def _serve(self, task_status: trio.TaskStatus[AssociationServer]) -> None:
        reception = self._reception
        await serve_associations(
            self._service,
            reception.port,
            host=reception.host,
            settings=reception.settings,
            admission=reception.admission,
            tls=reception.tls,
            task_status=task_status,
        )
        self._scope.cancel()

    async def _sweep(self) -> None:
        try:
            await trio.to_thread.run_sync(self._folder.sweep, abandon_on_cancel=True)
        except OSError as error:
            self._display.say(f"trio-dicom: what was left in the folder was not looked for: {error.strerror}")

    def _settled(self, arrival: Arrival) -> None:
        self._all_is_well &= arrival.fate.is_stored
        self._display.settled(arrival)
        now = datetime.datetime.now(datetime.UTC)
        self._report.write_fields({"time": now.isoformat(timespec="milliseconds"), **arrival.as_fields()})

    async def _keep_display(self) -> None:
        while self._server is not None:
            size = sum(request.bytes_received for request in self._service.under_way)
            self._display.update(len(self._server.associations), size)
            await trio.sleep(PERIOD)

    async def _end_after_one(self) -> None:
        if self._server is not None:
            association = await self._server.next_association()
            await association.wait_closed()
            self._all_is_well &= association.failure is None
            await self._stop(self._server)

    async def _heed(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if self._signal.number is None:
                self._signal.number = number
                if self._server is not None:
                    nursery.start_soon(self._stop, self._server)
                    continue
            self._cut()

    async def _stop(self, server: AssociationServer) -> None:
        """In order: what is coming in may come in whole."""
        if count := len(self._service.under_way):
            objects = "1 object has" if count == 1 else f"{count} objects have"
            self._display.say(f"trio-dicom: stopping when {objects} come, within {DRAIN:g} s")
        with trio.move_on_after(DRAIN):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.drain, math.inf)
                await self._service.wait_lull(LULL)
                nursery.cancel_scope.cancel()
        self._cut()

    def _cut(self) -> None:
        """Now."""
        self._was_cut |= bool(self._service.under_way)
        self._service.is_stopping = True
        self._scope.cancel()
