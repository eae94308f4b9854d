"""Reports: the receiving end of what became of each input; and TransferReport, the sum of it."""

from __future__ import annotations

import collections
from collections.abc import Mapping

import attrs
import trio

from .outcome import InstanceReport, Outcome

OTHERS_TURN = 16  # reports that are there already, before other tasks have their turn
MOST_UNRECEIVED = 1000  # reports that nobody has received yet, before no more input is read


@attrs.frozen(kw_only=True)
class TransferReport:
    """What became of all inputs of a sender so far; `pending` ones have come to no end yet.

    `counts` add up with `pending` to `inputs`, at any moment. It is complete on every exit path: once the sender's
    block is left, `pending` is 0.
    """

    inputs: int = 0  #: taken from what was given
    counts: Mapping[Outcome, int] = attrs.field(factory=dict)
    pending: int = 0
    under_way: int = 0  #: of the pending: being sent
    earlier: int = 0  #: of the counts: settled in an earlier run, as the ledger says
    delivered: int = 0  #: see `InstanceReport.is_delivered`
    is_exhausted: bool = True  #: False if what was given was not read to its end: there may be more inputs
    bytes_sent: int = 0  #: of data sets, in all attempts, taken by the transport
    bytes_stored: int = 0  #: of data sets that the peer acknowledged
    attempts: int = 0  #: C-STORE requests begun
    retries: int = 0  #: of these, second and further ones for the same object
    associations: int = 0  #: that came about
    failed_associations: int = 0  #: that did not, or that ended in an error
    open_associations: int = 0
    elapsed: float = 0.0  #: seconds

    @property
    def bytes_per_second(self) -> float:
        """The mean rate of what the peer acknowledged."""
        return self.bytes_stored / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def is_all_delivered(self) -> bool:
        """Whether the peer has each input, and no input was left unread."""
        return self.is_exhausted and self.delivered == self.inputs


class Reports(trio.abc.ReceiveChannel[InstanceReport]):
    """The reports of one call, in the order in which the inputs were settled."""

    def __init__(self) -> None:
        self._reports: collections.deque[InstanceReport] = collections.deque()
        self._receivers = trio.lowlevel.ParkingLot()
        self._waiting = 0  # of these
        self._received = 0
        self._feeders = trio.lowlevel.ParkingLot()
        self._is_finished = False
        self._is_abandoned = False

    async def receive(self) -> InstanceReport:
        """The next report. Raises `trio.EndOfChannel` after the last. Cancelled, it loses nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._received += 1
        if self._reports and not self._received % OTHERS_TURN:
            await trio.lowlevel.checkpoint()
        while not self._reports:
            if self._is_abandoned:
                raise trio.ClosedResourceError
            if self._is_finished:
                raise trio.EndOfChannel
            self._waiting += 1
            try:
                await self._receivers.park()
            finally:
                self._waiting -= 1
        if len(self._reports) == MOST_UNRECEIVED:
            self._feeders.unpark_all()
        return self._reports.popleft()

    def close(self) -> None:
        """Receive no more: further reports are dropped, and the sending goes on."""
        self._is_abandoned = True
        self._reports.clear()
        self._feeders.unpark_all()
        self._receivers.unpark_all()

    async def aclose(self) -> None:
        """`close`, with a checkpoint after it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def put(self, report: InstanceReport) -> None:
        """One more."""
        if not self._is_abandoned:
            self._reports.append(report)
            if self._waiting:
                self._receivers.unpark()

    def finish(self) -> None:
        """There will be no more."""
        self._is_finished = True
        self._receivers.unpark_all()

    async def wait_room(self) -> None:
        """Wait until so many were received that more input may be read."""
        while len(self._reports) >= MOST_UNRECEIVED:
            await self._feeders.park()
