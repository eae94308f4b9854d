"""Lane: one association at a time with the destination, and the tasks that send over it.

A lane asks for an association when works wait that nobody serves, begins one object after another over it (the next is
made ready while answers are awaited), and releases it when there was nothing to send for a while, when other kinds of
works need it, or when there are to be fewer lanes.
"""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING

import trio

from ..association.association import Association
from ..association.requestor import open_association
from ..errors import AssociationError, ConnectFailed, InternalError, NoAcceptedContexts, TLSError
from .agenda import PATIENCE, Assignment
from .attempt import Attempt
from .work import Work

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

LEDGER_AHEAD = 32  # works of a lane that the ledger is told of at once, before the first of them is sent


class Lane:
    """See above."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def run(self) -> None:
        """Over one association after another, until the sender has no more use for it."""
        dispatcher = self._dispatcher
        agenda, fleet = dispatcher.agenda, dispatcher.fleet
        while not dispatcher.is_closing:
            assignment = None
            if fleet.may_open() and agenda.wants_another(fleet.unfilled):
                assignment = agenda.assign()
            if assignment is not None:
                await Run(dispatcher, assignment).run()
            else:  # until something has changed, or the destination may be tried again
                with trio.CancelScope(deadline=fleet.next_opening()):
                    await agenda.wait_news()


class Run:
    """One association of a lane, from its request to its end."""

    def __init__(self, dispatcher: Dispatcher, assignment: Assignment) -> None:
        self._dispatcher = dispatcher
        self._agenda = dispatcher.agenda
        self._fleet = dispatcher.fleet
        self._assignment = assignment
        self._opening = trio.CancelScope()
        self._is_over = False  # it takes no further works
        self._is_unfilled = True  # it has taken none yet
        self._attempts: dict[Attempt, None] = {}
        self._beginning = trio.CancelScope()  # around all of them that are not yet with the association
        self._quiet = trio.lowlevel.ParkingLot()  # who waits until there are none
        self._has_begun = False  # some of a work has gone out
        self._answered = 0
        self._idle_since = 0.0
        self._stock: collections.deque[Work] = collections.deque()  # the ledger was told of them
        self._is_noting = False  # the ledger is being told of some

    async def run(self) -> None:
        """Ask for the association, send over it, release it."""
        dispatcher = self._dispatcher
        started = trio.current_time()
        self._fleet.begins(self._opening)
        is_excused = False
        failure: AssociationError | InternalError | ConnectFailed | TLSError | None = None
        try:
            destination = dispatcher.destination
            with self._opening:  # which is cancelled only before there is an association
                async with open_association(
                    destination.peer,
                    self._assignment.contexts,
                    settings=destination.settings,
                    tls=destination.tls,
                    server_hostname=destination.server_hostname,
                    connect=destination.connect,
                ) as association:
                    self._fleet.opened(association, self._opening)
                    try:
                        await self._send_over(association)
                    finally:
                        self._fleet.left(association)
                        is_excused = self._assignment.is_for_suspects and self._has_begun  # they may have ended it
                    failure = association.failure
        except NoAcceptedContexts as error:
            dispatcher.refuse_kinds(self._assignment.kinds, error)
        except (AssociationError, ConnectFailed, TLSError) as error:
            failure = error
        finally:
            self._finish()
            self._agenda.resign(self._assignment)
        if failure is not None:
            dispatcher.association_failed(failure, started, has_done_good=is_excused or self._answered > 0)

    async def _send_over(self, association: Association) -> None:
        self._idle_since = trio.current_time()
        async with trio.open_nursery() as nursery:
            watching = trio.CancelScope()
            nursery.start_soon(self._watch, association, watching)
            try:
                while not self._is_over and association.is_open:
                    with trio.CancelScope() as self._beginning:
                        await self._send(association)
                await self._wait_quiet()
            finally:
                for attempt in list(self._attempts):
                    attempt.interrupt()
            watching.cancel()

    async def _send(self, association: Association) -> None:
        """Begin one object after another."""
        while (work := await self._next(association)) is not None:
            if work not in work.job.unsettled:  # given up while it was on its way here
                continue
            attempt = Attempt(
                self._dispatcher, work, association, ended=self._ended, interrupt_begin=self._beginning.cancel
            )
            self._attempts[attempt] = None
            await attempt.begin()

    def _ended(self, attempt: Attempt) -> None:
        del self._attempts[attempt]
        self._answered += attempt.response is not None
        self._has_begun |= attempt.has_begun
        if not self._attempts:
            self._idle_since = trio.current_time()
            self._quiet.unpark_all()
            self._assignment.news.unpark_all()

    async def _wait_quiet(self) -> None:
        """Until nothing is in hand."""
        while self._attempts:
            await self._quiet.park()

    async def _next(self, association: Association) -> Work | None:
        """What is to be sent next; None once this association is to take no more."""
        dispatcher = self._dispatcher
        while association.is_open and not self._is_over:
            resume_at = dispatcher.throttle.resume_at
            if self._fleet.is_ending or self._fleet.has_surplus():
                self._finish()
            elif self._attempts and self._assignment.is_for_suspects:
                await self._wait_quiet()
            elif resume_at > -math.inf and trio.current_time() < resume_at:
                with trio.CancelScope(deadline=resume_at):
                    await self._agenda.wait_news(self._assignment)
            elif (work := await self._take()) is not None:
                self._fill()
                return work
            elif self._is_wanted_elsewhere():
                self._finish()
            elif self._is_unfilled:  # others were faster: another lane may be wanted
                self._fill()
                self._agenda.wake()
            elif not self._is_over:  # which it may be since the ledger was told
                await self._agenda.wait_news(self._assignment)
        return None

    async def _take(self) -> Work | None:
        if self._dispatcher.ledger is None:
            return self._agenda.take(self._assignment)
        if not self._stock:
            await self._fill_stock()
        return self._stock.popleft() if self._stock else None

    async def _fill_stock(self) -> None:
        """Take some works and have the ledger note that they may be sent from now on."""
        works: list[Work] = []
        is_noted = False
        most = min(LEDGER_AHEAD, max(1, self._agenda.size // self._fleet.throttle.lanes))  # the others have a share
        try:
            while len(works) < most and (work := self._agenda.take(self._assignment)) is not None:
                works.append(work)
            self._is_noting = bool(works)
            is_noted = bool(works) and await self._dispatcher.note_begun(works)
        finally:
            if self._is_noting:
                self._is_noting, self._idle_since = False, trio.current_time()
            if is_noted and not self._is_over:
                self._stock.extend(works)
            else:
                for work in works:
                    self._dispatcher.give_back(work)

    def _finish(self) -> None:
        """Take no further works, and let all see it."""
        if not self._is_over:
            self._is_over = True
            self._fill()
            while self._stock:
                self._dispatcher.give_back(self._stock.popleft())
            self._fleet.ends(self._opening)

    def _fill(self) -> None:
        if self._is_unfilled:
            self._is_unfilled = False
            self._fleet.filled()

    @property
    def _is_idle(self) -> bool:
        return not self._attempts and not self._is_noting

    def _is_wanted_elsewhere(self) -> bool:
        """Whether works wait of kinds that nobody serves, and no lane without an association can take them."""
        if self._assignment.is_for_suspects:
            return not self._attempts  # it sends one at a time: for no longer than it must
        patience = PATIENCE if self._attempts else 0.0
        return not self._fleet.may_open() and self._agenda.has_unserved(trio.current_time(), patience)

    async def _watch(self, association: Association, scope: trio.CancelScope) -> None:
        """See that the tasks end with the association, and that it ends when it is not needed, or others are more."""
        linger = self._dispatcher.options.linger
        with scope:
            while not self._is_over:
                until = trio.current_time() + PATIENCE
                if self._is_idle:
                    until = min(until, self._idle_since + linger)
                with trio.move_on_at(until) as waiting:
                    await association.wait_closed()
                is_idle = self._is_idle and trio.current_time() >= self._idle_since + linger
                if not waiting.cancelled_caught or is_idle or self._is_wanted_elsewhere():
                    self._finish()
