"""The live display of a transfer, on a terminal. What it needs rich for is in `screen`, which is imported later."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from ..sender.outcome import InstanceReport
from ..sender.sender import Sender
from ..services.progress import TransferProgress
from ..sources.threads import run_abandonable
from .failures import FailureGroups
from .scan import Scan
from .transfer_display import TICK, Ending, TransferDisplay, failure_lines, is_news

if TYPE_CHECKING:
    from .screen import Screen

LIVE_AFTER = 0.5  # s: what is over by then is not worth the time that it takes to import rich


class LiveDisplay(TransferDisplay):
    """What was not stored, by reason, in the end; and until then, below all lines, how it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = FailureGroups()
        self.progress = self._under_way = UnderWay()
        self._screen: Screen | None = None

    def settled(self, report: InstanceReport) -> None:
        self._estimator.settled(report)
        self._under_way.drop(report.sop_instance_uid)
        if is_news(report):
            self.failures.add(report.outcome, report.status, report.reason, report.path or "-")

    def say(self, text: str) -> None:
        if self._screen is not None:
            self._screen.say(text)
        else:
            super().say(text)

    async def run(self, sender: Sender, scan: Scan) -> None:
        await trio.sleep(LIVE_AFTER)
        module = await run_abandonable(importlib.import_module, f"{__package__}.screen")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan.run)
            self._screen = screen = module.Screen(self._lines)
            try:
                with screen:
                    while True:
                        self._show(screen, sender, scan)
                        await trio.sleep(TICK)
            finally:
                self._screen = None

    def _show(self, screen: Screen, sender: Sender, scan: Scan) -> None:
        totals = sender.report
        under_way = self._under_way.latest(totals.under_way)
        size = sum(each.bytes_sent for each in under_way)
        estimate = self._estimator.estimate(totals, scan, size, trio.current_time())
        screen.show(estimate, totals, self.failures.largest_first(), under_way)

    def summarise(self, ending: Ending) -> None:
        for line in failure_lines(self.failures):
            self.say(line)
        super().summarise(ending)


class UnderWay(trio.abc.SendChannel[TransferProgress]):
    """How far the objects have come that are on their way."""

    def __init__(self) -> None:
        self._by_uid: dict[str, TransferProgress] = {}

    def send_nowait(self, value: TransferProgress) -> None:
        """What a sender tells."""
        self.drop(value.sop_instance_uid)
        if not value.is_complete:
            self._by_uid[value.sop_instance_uid] = value

    async def send(self, value: TransferProgress) -> None:
        self.send_nowait(value)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def drop(self, sop_instance_uid: str | None) -> None:
        """It is not on its way any more."""
        self._by_uid.pop(sop_instance_uid or "", None)

    def latest(self, most: int) -> Sequence[TransferProgress]:
        """Those of which something was heard last; what an attempt that failed has left behind is let go."""
        while len(self._by_uid) > most:
            del self._by_uid[next(iter(self._by_uid))]
        return tuple(self._by_uid.values())
