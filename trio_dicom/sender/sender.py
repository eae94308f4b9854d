"""Sender: many objects, over several associations, each to an outcome of its own; and `open_sender`, its door."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..association.dialling import Connect, check_context
from ..errors import LocalProtocolError, TrioDicomError
from ..peer import Peer
from ..plain_nursery import open_plain_nursery
from ..services.storage_scu import ProgressChannel
from ..settings import AssociationSettings
from .dispatcher import SETTLING, Destination, Dispatcher
from .job import Job
from .lane import Lane
from .options import SenderOptions
from .outcome import InstanceReport
from .reports import Reports, TransferReport

if TYPE_CHECKING:
    from ..conversion.conversion import Conversion, Transform
    from ..inputs.expansion import Skip
    from ..inputs.inputs import InputsArgument

TOTALS_EVERY = 0.1  # s

TotalsChannel = trio.abc.SendChannel[TransferReport]


@asynccontextmanager
async def open_sender(
    peer: Peer | str,
    *,
    associations: int = 4,
    window: int | None = None,
    ledger: str | os.PathLike[str] | None = None,
    options: SenderOptions | None = None,
    transform: Transform | None = None,
    transcode: str = "never",
    progress: ProgressChannel | None = None,
    totals: TotalsChannel | None = None,
    settings: AssociationSettings | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    connect: Connect | None = None,
) -> AsyncIterator[Sender]:
    """A `Sender` of many objects to `peer`, for the length of an `async with` block::

        async with open_sender("PACS@10.0.0.5:104", ledger="run.db") as sender:
            async with sender.send_tree("study/") as reports:
                async for report in reports:
                    print(report.path, report.outcome)
        print(sender.report)

    - `associations`: how many are open at once, at most; `window`: requests that wait for their responses together on
      each (by default what `settings.operations_window` says). The peer may want fewer of both.
    - `ledger`: an SQLite file that keeps what became of each input. With the same file again, only what is unsettled is
      sent; see the documentation.
    - `options`: see `SenderOptions`: deadlines, retries, rates, memory.
    - `transform`: a plain or async function that is given each object as a pydicom `Dataset` of its own, and changes it
      or returns another; `transcode`: "never", "native" or a transfer syntax UID. See the documentation.
    - `progress`: gets the `TransferProgress` of each object that is on its way; `totals` gets the `TransferReport`, ten
      times a second and once at the end. `open_progress_channel` makes channels for both.
    - `settings`, `tls`, `server_hostname`, `connect`: as for `open_association`.

    Nothing is connected before there is something to send. A peer that cannot be reached, or rejects us, is no
    exception: the objects are `NOT_SENT`, and `Sender.failure` says why.

    Left well, the block releases the associations. Left by an exception or cancelled, it aborts them, within about a
    second. Either way each input that was taken has an outcome then, and `Sender.report` is complete. The body's own
    exception leaves as it is.

    Raises `LedgerError` if the ledger cannot be used, `ValueError` and `TypeError` for wrong arguments, and what the
    iterables raise that are sent.
    """
    if isinstance(associations, bool) or not isinstance(associations, int) or associations < 1:
        raise ValueError(f"associations must be a whole number, 1 or more, not {associations!r}")
    for channel in (progress, totals):
        if channel is not None and not callable(getattr(channel, "send_nowait", None)):
            raise TypeError(f"a progress channel needs send_nowait, which {type(channel).__name__} does not have")
    check_context(tls)
    settings = settings or AssociationSettings()
    if window is not None:
        settings = _with_window(settings, window)
    destination = Destination(
        peer=Peer.parse(peer), settings=settings, tls=tls, server_hostname=server_hostname, connect=connect
    )
    conversion = _conversion(transform, transcode)
    async with AsyncExitStack() as stack:
        if conversion is not None:
            await stack.enter_async_context(conversion)
        book = None
        if ledger is not None:
            from .ledger import open_ledger  # SQLite takes its time to be imported

            book = await stack.enter_async_context(open_ledger(ledger, str(destination.peer)))
        dispatcher = Dispatcher(destination, options or SenderOptions(), conversion, associations, book, progress)
        sender = Sender(dispatcher)
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(dispatcher.agenda.run)
                if totals is not None:
                    nursery.start_soon(_tell_totals, dispatcher, totals)
                async with open_plain_nursery() as lanes:
                    for _ in range(associations):
                        lanes.start_soon(Lane(dispatcher).run)
                    yield sender
                    dispatcher.close()
                nursery.cancel_scope.cancel()
        finally:
            dispatcher.end()
            if totals is not None:
                _offer(totals, dispatcher.report())


def _conversion(transform: Transform | None, transcode: str) -> Conversion | None:
    """None if no object is ever changed; to import all that could takes a while."""
    if transform is None and transcode == "never":
        return None
    from ..conversion.conversion import Conversion

    return Conversion(transform, transcode)


def _with_window(settings: AssociationSettings, window: int) -> AssociationSettings:
    return attrs.evolve(settings, operations_window=window)


async def _tell_totals(dispatcher: Dispatcher, totals: TotalsChannel) -> None:
    while True:
        _offer(totals, dispatcher.report())
        await trio.sleep(TOTALS_EVERY)


def _offer(totals: TotalsChannel, report: TransferReport) -> None:
    try:
        totals.send_nowait(report)  # type: ignore[attr-defined]
    except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # an observer that is slow, or has gone, is no reason to fail


class Sender:
    """Sends many objects: see `open_sender`, which makes it.

    Any number of tasks may use it; what they give goes over the same associations, in the order in which it was given.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    @property
    def report(self) -> TransferReport:
        """What became of all inputs, as it stands; complete once the sender's block, or `drain`, is over."""
        return self._dispatcher.report()

    @property
    def failure(self) -> TrioDicomError | None:
        """Why the destination was given up, after which nothing more is sent; None as long as it was not."""
        ledger = self._dispatcher.ledger  # the last lines of which are written when the block is left
        return self._dispatcher.failure or (ledger.failure if ledger is not None else None)

    @asynccontextmanager
    async def send_many(self, items: InputsArgument, *, skip: Skip | None = None) -> AsyncIterator[Reports]:
        """Send all of `items`; a block around the channel of their reports, one for each input as it is settled.

        `items` is a plain or async iterable, read while the sending goes on, of paths (of DICOM files; of folders, with
        what is in the folders in them; of ZIP archives and DICOMDIR files, which stand for what is in them),
        `Dataset`s, (`Dataset`, `PixelSource`) pairs and streams; or one of these. What cannot be sent is reported as
        `INVALID`, with the reason, and stops nothing. `skip` is called, in threads, with the path of each file that is
        found in a folder; where it returns True the file is no input. The ledger's own files are none anyway.

        The sending waits when a thousand reports were not received. The block, left well, waits until all inputs have
        come to their end, also those whose reports nobody has received. Left by an exception or cancelled, it withdraws
        what is left: it is `NOT_SENT`, or `IN_DOUBT` if the peer had all of it.

        Raises what `items` raises, and `TypeError` for an item of another kind.
        """
        dispatcher = self._dispatcher
        if dispatcher.is_closing:
            raise LocalProtocolError("the sender's block is over")
        job = Job(dispatcher, items, skip)
        dispatcher.jobs[job] = None
        if dispatcher.is_drained:
            job.stop_feeding()  # before it begins: what is known of its inputs comes to its end
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(job.feed)
                yield job.reports
                job.reports.close()
                await job.done.wait()
        finally:
            dispatcher.withdraw(job)
            with trio.move_on_after(SETTLING, shield=True):
                await job.done.wait()

    def send_tree(
        self, folder: str | os.PathLike[str], *, skip: Skip | None = None
    ) -> AbstractAsyncContextManager[Reports]:
        """`send_many` for all files in `folder` and in the folders in it, in the order of their names."""
        return self.send_many((folder,), skip=skip)

    async def send(self, item: Any) -> InstanceReport:
        """Send one object, an item as for `send_many`, and return its report.

        A folder or an archive stands for many: use `send_many`. If cancelled, the object is withdrawn as there.

        Raises `ValueError` if `item` stands for no object, or for several.
        """
        async with self.send_many((item,)) as reports:
            received = [report async for report in reports]
        if len(received) != 1:
            raise ValueError(f"one object is sent by send(); this stands for {len(received)}: use send_many()")
        return received[0]

    async def drain(self, timeout: float = 30.0) -> None:
        """Begin no further object; wait until those that are being sent have come to their end.

        Those that have not after `timeout` seconds are given up, and their associations aborted, within a second or
        two. What was not begun is `NOT_SENT`. Blocks of `send_many` come to their end then, and nothing can be sent any
        more. If cancelled, what is being sent goes on, unless it was given up already.
        """
        await self._dispatcher.drain(timeout)
