"""Job: one call of a sender. Its inputs become works, and each work ends in one report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import InvalidObject, Retry, TrioDicomError
from ..inputs.inputs import Inputs
from ..inputs.item import Item, open_items
from ..sources.source import Source
from .outcome import InstanceReport
from .reports import Reports
from .work import Work

if TYPE_CHECKING:
    from ..inputs.expansion import Skip
    from ..inputs.inputs import InputsArgument
    from .dispatcher import Dispatcher

READ_AT_ONCE = 32  # inputs, opened in one thread hop
CONVERTED_AT_ONCE = 4  # inputs, where each is converted


def stopped(reason: str) -> TrioDicomError:
    """Why an input was not sent, though nothing speaks against sending it."""
    error = TrioDicomError(reason)
    error.retry = Retry.LATER
    return error


class Job:
    """See above. `reports` are received by the caller; `done` is set when each input has one."""

    def __init__(self, dispatcher: Dispatcher, items: InputsArgument, skip: Skip | None = None) -> None:
        self.reports = Reports()
        self.done = trio.Event()
        self.is_exhausted = False
        self.is_withdrawn = False  # nobody wants its inputs to be sent any more
        self.unsettled: dict[Work, None] = {}
        self._dispatcher = dispatcher
        self._inputs = Inputs(items, dispatcher.skipping(skip))
        self._taken = 0
        self._taking = trio.CancelScope()
        self._is_fed = False

    async def feed(self) -> None:
        """Read the inputs to their end, as fast as they are sent."""
        dispatcher = self._dispatcher
        async with self._inputs:
            with self._taking:
                most = READ_AT_ONCE if dispatcher.conversion is None else CONVERTED_AT_ONCE
                while not self._inputs.is_exhausted:
                    await self.reports.wait_room()
                    await dispatcher.agenda.wait_room()
                    await self._prepare([self._add(item) for item in await self._inputs.take(most)])
                self.is_exhausted = True
        if self.is_exhausted:
            self._finish_feeding()
        else:  # drained
            self.end(stopped("the sender was drained before its turn came"))

    def stop_feeding(self) -> None:
        """No further input is read."""
        self._taking.cancel()

    def end(self, error: TrioDicomError) -> None:
        """Every input that is left comes to its end now; those that are being sent excepted."""
        for item in self._inputs.rest():
            self._add(item)
        self.is_exhausted = self._inputs.is_exhausted
        for work in [work for work in self.unsettled if work.attempt is None]:
            if work not in self.unsettled:  # it ended as another one did, just now
                continue
            self._dispatcher.register.give_up(work, error)
        self._finish_feeding()

    def settled(self, work: Work, report: InstanceReport) -> None:
        """An input has come to its end."""
        del self.unsettled[work]
        self.reports.put(report)
        self._check_done()

    def _finish_feeding(self) -> None:
        self._is_fed = True
        self._check_done()

    def _check_done(self) -> None:
        if self._is_fed and not self.unsettled and not self.done.is_set():
            self.done.set()
            self.reports.finish()

    def _add(self, item: Item) -> Work:
        work = Work(item, self, self._dispatcher.next_order(), self._taken)
        self._taken += 1
        self.unsettled[work] = None
        return work

    async def _prepare(self, works: list[Work]) -> None:
        """Look at the heads of these inputs, and put on the agenda what is to be sent."""
        dispatcher = self._dispatcher
        if dispatcher.stopped_by is not None:
            for work in works:
                dispatcher.register.give_up(work, dispatcher.stopped_by)
            return
        if dispatcher.conversion is not None:
            await dispatcher.budget.wait_room()
            async with trio.open_nursery() as nursery:
                for work in works:
                    nursery.start_soon(self._convert, work)
        else:
            await dispatcher.budget.wait_room()
            for work, source in zip(works, await open_items([work.item for work in works]), strict=True):
                self._opened(work, source)
        works = [work for work in works if work in self.unsettled]
        if dispatcher.ledger is not None and works:
            for work, report in zip(works, await dispatcher.look_up(works), strict=True):
                if report is not None and work in self.unsettled:
                    dispatcher.register.settle_earlier(work, report)
        for work in works:
            if work in self.unsettled:  # neither settled earlier nor given up meanwhile
                dispatcher.enqueue(work)

    async def _convert(self, work: Work) -> None:
        try:
            self._opened(work, await self._dispatcher.open(work))
        except InvalidObject as error:
            self._opened(work, error)

    def _opened(self, work: Work, source: Source | InvalidObject) -> None:
        if work not in self.unsettled:  # it was given up meanwhile
            if isinstance(source, Source):
                source.discard()
        elif isinstance(source, InvalidObject):
            self._dispatcher.register.give_up(work, source)
        else:
            self._dispatcher.describe(work, source)
