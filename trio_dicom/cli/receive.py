"""`trio-dicom receive`: a Storage SCP that files what it is sent, until it is told to stop.

A receiver is stopped by a signal as a matter of course, so that is no failure: the first lets nobody in any more, lets
the objects that are coming in end, for a time, and ends. An association with nothing under way does not hold it up.
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from ..association.acceptor import BACKLOG, AssociationServer
from ..association.dialling import listen
from ..association.service import Services
from ..services.instance_folder import InstanceFolder
from ..services.storage_scp import storage_sop_classes
from .arrival import Arrival, ArrivalSCP
from .arrival_display import PERIOD, log_shown, open_arrival_display
from .exit_codes import ExitCode
from .filing import Filing
from .reception import Reception
from .report import ReportWriter
from .signals import SIGNALS, ReceivedSignal

DRAIN = 5.0  # s for the objects that are coming in, after the first signal
LULL = 1.0  # s without one, after which no other is waited for: the peer may yet send its release


def run_receive(
    reception: Reception, filing: Filing, *, accept_private: bool, once: bool, report_path: Path | None, quiet: bool
) -> int:
    """Receive until told to stop, or `once`; gives the exit code.

    A receiver that cannot listen touches neither folder nor report: they may be those of the one that does.
    """

    async def receive() -> int:
        receiver = Receiver(reception, filing, report_path, accept_private=accept_private, quiet=quiet)
        try:
            return await receiver.run(once=once)
        finally:
            receiver.display.close()

    return trio.run(receive)


class Receiver:
    """What the command runs."""

    def __init__(
        self,
        reception: Reception,
        filing: Filing,
        report_path: Path | None,
        *,
        accept_private: bool,
        quiet: bool,
    ) -> None:
        self._reception = reception
        self._filing = filing
        self._report_path = report_path
        self._report = ReportWriter(None)
        self._accept_private = accept_private
        self._quiet = quiet
        self.display = open_arrival_display(filing.folder, quiet=quiet)
        self._service: ArrivalSCP  # once it listens, as the server
        self._server: AssociationServer | None = None
        self._all_is_well = True
        self._signal = ReceivedSignal()
        self._was_cut = False  # by a signal, and something was under way
        self._scope = trio.CancelScope()

    async def run(self, *, once: bool) -> int:
        """Until the end; gives the exit code."""
        shown, heard = log_shown(self.display, quiet=self._quiet), trio.open_signal_receiver(*SIGNALS)
        with shown, heard as signals, contextlib.ExitStack() as files, self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals, nursery)
                failure = await self._listen(nursery, files)
                if failure is not None:
                    nursery.cancel_scope.cancel()
                    return failure
                if once:
                    nursery.start_soon(self._end_after_one)
                if self.display.is_live:
                    nursery.start_soon(self._keep_display)
        if self._server is None:  # a signal was faster
            return self._signal.exit_code
        self.display.summarise()
        if self._report.failure is not None:
            self.display.say(f"trio-dicom: the report is incomplete: {self._report.failure}")
        if self._was_cut and self._signal.number is not None:
            return self._signal.exit_code
        is_well = self._report.failure is None and (self._all_is_well or not once)
        return ExitCode.OK if is_well else ExitCode.NOT_STORED

    async def _listen(self, nursery: trio.Nursery, files: contextlib.ExitStack) -> ExitCode | None:
        reception = self._reception
        storage_sop_classes()  # has pydicom imported: nobody who has connected is to wait for that
        try:
            listeners = await listen(reception.port, reception.host, BACKLOG)
        except OSError as error:
            text, code = reception.explain(error)
            self.display.say(f"trio-dicom: {text}")
            return code
        async with contextlib.AsyncExitStack() as sockets:
            for listener in listeners:
                await sockets.enter_async_context(listener)
            folder = await self._open_folder()
            if folder is None or not self._open_report(files):
                return ExitCode.USAGE
            self._service = ArrivalSCP(folder, self.display.begun, self._settled, accept_private=self._accept_private)
            self._server = await nursery.start(self._serve, listeners)
            sockets.pop_all()  # the server closes them
        self.display.listening(self._server.addresses, reception.admission.ae_title)
        return None

    async def _serve(
        self, listeners: list[trio.SocketListener], task_status: trio.TaskStatus[AssociationServer]
    ) -> None:
        reception = self._reception
        services = Services(self._service)
        server = AssociationServer(services, reception.settings, reception.admission, reception.tls)
        await server.run(listeners, task_status)
        self._scope.cancel()

    async def _open_folder(self) -> InstanceFolder | None:
        try:
            folder = await trio.to_thread.run_sync(self._filing.open, abandon_on_cancel=True)
        except OSError as error:
            self.display.say(f"trio-dicom: {error.strerror}: {self._filing.folder}")
            return None
        try:
            await trio.to_thread.run_sync(folder.sweep, abandon_on_cancel=True)
        except OSError as error:
            self.display.say(f"trio-dicom: what was left in the folder was not looked for: {error.strerror}")
        return folder

    def _open_report(self, files: contextlib.ExitStack) -> bool:
        try:
            self._report = files.enter_context(ReportWriter(self._report_path, append=True))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", error)
            self.display.say(f"trio-dicom: the report cannot be written: {why}: {self._report_path}")
            return False
        return True

    def _settled(self, arrival: Arrival) -> None:
        self._all_is_well &= arrival.fate.is_stored
        self.display.settled(arrival)
        now = datetime.datetime.now(datetime.UTC)
        self._report.write_fields({"time": now.isoformat(timespec="milliseconds"), **arrival.as_fields()})

    async def _keep_display(self) -> None:
        while self._server is not None:
            size = sum(request.bytes_received for request in self._service.under_way)
            self.display.update(len(self._server.associations), size)
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
            self.display.say(f"trio-dicom: stopping when {objects} come, within {DRAIN:g} s")
        with trio.move_on_after(DRAIN):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.drain, math.inf)
                await self._service.wait_lull(LULL)
                nursery.cancel_scope.cancel()
        self._cut()

    def _cut(self) -> None:
        """Now."""
        if self._server is not None:
            self._was_cut |= bool(self._service.under_way)
            self._service.is_stopping = True
        self._scope.cancel()
