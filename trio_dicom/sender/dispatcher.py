"""Dispatcher: between the jobs that give works and the lanes that send them.

A work is on the agenda, or in the hand of a lane, or it is settled. Whatever ends a lane, a job or the sender settles
what is left, from what is known of it: the last attempt's `StoreDelivery` tells whether it is in doubt.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from ..association.dialling import Connect
from ..errors import LedgerError, NoAcceptedContexts, StatusError, TrioDicomError
from ..peer import Peer
from ..services.storage_scu import CStoreResponse, ProgressChannel, StoreDelivery
from ..settings import AssociationSettings
from ..sources.source import Source
from . import retry
from .agenda import Agenda
from .budget import Budget
from .fleet import Fleet
from .job import Job, stopped
from .ledger_entry import InputIdentity, LedgerEntry
from .options import SameInstance, SenderOptions
from .outcome import InstanceReport, report_of_failure, report_of_response
from .pace import TokenBucket
from .register import Register
from .reports import TransferReport
from .retry import Rule
from .tally import Tally
from .throttle import Throttle
from .work import Kind, Work

if TYPE_CHECKING:
    from ..conversion.conversion import Conversion
    from ..inputs.expansion import Skip
    from .attempt import Attempt
    from .ledger import Ledger

log = logging.getLogger(__name__)

SETTLING = 3.0  # s in which what was being sent comes to its end, when its job is cancelled
MOST_OPEN_AHEAD = 192  # sources; more wait only while a lane finds none of its kinds, and are opened again


@attrs.frozen(kw_only=True)
class Destination:
    """Where to, and how associations are proposed."""

    peer: Peer
    settings: AssociationSettings
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    connect: Connect | None = None


class Dispatcher:
    """See above."""

    def __init__(
        self,
        destination: Destination,
        options: SenderOptions,
        conversion: Conversion | None,
        associations: int,
        ledger: Ledger | None,
        progress: ProgressChannel | None,
    ) -> None:
        self.destination = destination
        self.options = options
        self.conversion = conversion  # None if no object is ever changed
        self.ledger = ledger
        self.agenda = Agenda()
        self.budget = Budget(options.memory)
        self.tally = Tally()
        self.throttle = Throttle(associations, options.retry, options.random)
        self.fleet = Fleet(self.throttle, self.agenda, self.tally)
        self.register = Register(self.tally, self.budget, ledger, self.enqueue)
        self.jobs: dict[Job, None] = {}
        self.stopped_by: TrioDicomError | None = None  # why nothing further is begun
        self.is_drained = False
        self.is_closing = False  # nothing further will come
        self._refused_kinds: dict[Kind, NoAcceptedContexts] = {}
        self.store = attrs.evolve(options.store, max_retries=0)
        self.bucket = None if options.max_rate == math.inf else TokenBucket(options.max_rate)
        self.progress = progress
        self._in_hand: dict[Work, None] = {}
        self._is_quiet = trio.lowlevel.ParkingLot()  # nothing is in hand
        self._order = 0
        self._has_unread = False  # a job ended before its inputs did

    @property
    def failure(self) -> TrioDicomError | None:
        """Why the destination was given up, or nothing can be sent any more."""
        return self.throttle.failure

    def report(self) -> TransferReport:
        """All that was counted."""
        is_exhausted = not self._has_unread and all(job.is_exhausted for job in self.jobs)
        return self.tally.report(self._in_hand, is_exhausted=is_exhausted, open_associations=self.fleet.size)

    # --- for jobs: what comes in

    def skipping(self, skip: Skip | None) -> Skip | None:
        """What of a folder is no input: what `skip` says, and the ledger."""
        ledger = self.ledger
        if ledger is None or skip is None:
            return skip if ledger is None else ledger.owns
        return lambda path: ledger.owns(path) or skip(path)

    def next_order(self) -> int:
        """One more input was taken."""
        self.tally.inputs += 1
        self._order += 1
        return self._order

    def describe(self, work: Work, source: Source) -> None:
        """`source` was opened for `work`."""
        work.source = source
        work.kind = Kind(source.sop_class_uid, source.transfer_syntaxes[0])
        work.sop_instance_uid = source.sop_instance_uid
        work.held = source.memory
        self.budget.book(work.held)
        if self.ledger is not None:
            work.identity = InputIdentity(*work.item.identity(source))

    async def open(self, work: Work) -> Source:
        """The object of `work`, converted if that is wanted. Raises `InvalidObject`."""
        item, own, conversion = work.item, None, self.conversion
        if conversion is None:
            return await item.open()
        if not item.is_data_set:
            source = await item.open()
            own = source.transfer_syntaxes[0]
            if conversion.leaves(own):
                return source
            async with source:
                await item.fetch(source)
        return await conversion.convert(item.read_dataset, own) or await item.open()

    def enqueue(self, work: Work) -> None:
        """`work` is to be sent, if nothing speaks against it."""
        error = self.stopped_by or self._refused_kinds.get(work.kind)
        if error is not None:
            self.register.give_up(work, error)
        elif self.options.same_instance is SameInstance.SEND or not self.register.follows(work):
            if not self.agenda.size and not self._in_hand:
                self.throttle.rested()
            if self.agenda.size >= MOST_OPEN_AHEAD and work.item.can_reopen and not work.held:
                work.discard_source()
            self.agenda.add(work, trio.current_time())

    async def look_up(self, works: Sequence[Work]) -> list[InstanceReport | None]:
        """What an earlier run has settled of `works`."""
        nothing: list[InstanceReport | None] = [None] * len(works)
        if self.ledger is None:
            return nothing
        identities = {work: work.identity for work in works if work.identity is not None}
        try:
            found = await self.ledger.look_up(list(identities.values()))
        except LedgerError as error:
            self.stop(error)
            return nothing
        for work, identity in identities.items():
            work.was_in_doubt |= self.ledger.was_in_doubt(identity)
        return found

    # --- for lanes: how associations end

    def association_failed(self, error: TrioDicomError, started: float, *, has_done_good: bool) -> None:
        """An association asked for at `started` did not come about, or ended in an error."""
        log.info("association with %s: %s", self.destination.peer, error)
        self.fleet.failed(error, started, has_done_good=has_done_good)
        self._check_failure()

    def refuse_kinds(self, kinds: frozenset[Kind], error: NoAcceptedContexts) -> None:
        """The peer takes none of these."""
        self._refused_kinds.update(dict.fromkeys(kinds, error))
        self.throttle.opened()  # so it is there
        for work in self.agenda.withdraw(kinds=kinds):
            self.register.give_up(work, error)

    # --- for lanes: works

    async def note_begun(self, works: Sequence[Work]) -> bool:
        """Have the ledger know that these may be sent from now on. False if it cannot: then nothing may be."""
        if self.ledger is None:
            return True
        entries = [
            LedgerEntry(work.identity, work.kind.sop_class_uid, work.sop_instance_uid)
            for work in works
            if work.identity is not None
        ]
        try:
            await self.ledger.begin(entries)
        except LedgerError as error:
            self.stop(error)
            return False
        return True

    def give_back(self, work: Work) -> None:
        """A lane has taken it, and will not send it."""
        if work not in work.job.unsettled:
            return
        if self.stopped_by is not None or work.job.is_withdrawn:
            self.register.give_up(work, self.stopped_by or stopped("interrupted"))
        else:
            self.agenda.add(work, trio.current_time())

    def takes_in_hand(self, attempt: Attempt) -> None:
        """`attempt` begins."""
        work = attempt.work
        work.attempt, work.delivery, work.failure = attempt, None, None
        self._in_hand[work] = None

    def attempted(self, attempt: Attempt) -> None:
        """`attempt` has come to its end: what becomes of its work."""
        work, delivery = attempt.work, attempt.work.delivery
        has_begun = attempt.has_begun
        work.attempt = None
        del self._in_hand[work]
        if not self._in_hand:
            self._is_quiet.unpark_all()
        if delivery is not None and has_begun:
            work.report = None  # what an attempt before has come to
            work.history.begin(attempt.started)
            work.was_in_doubt |= delivery.in_doubt
            self.tally.attempted(work, delivery.bytes_sent)
        if attempt.is_interrupted:
            self.register.give_up(work, (not has_begun and self.stopped_by) or stopped("interrupted"))
        elif attempt.response is not None and delivery is not None:
            self._answered(work, delivery, attempt.response)
        elif attempt.error is not None:
            self._failed(work, attempt.error)

    def _answered(self, work: Work, delivery: StoreDelivery, response: CStoreResponse) -> None:
        rule = retry.rule_of_status(response.status)
        report = report_of_response(work.item.name, delivery, response, work.particulars)
        if rule is retry.FINAL:  # the usual case
            self.fleet.took()
            self.register.settle(work, report)
            return
        now = trio.current_time()
        error = StatusError(response, repr(response.status), response.status.retry)
        if rule.is_congestion:
            self.throttle.congested(now, error)
        elif not rule.stops:
            self.fleet.took()
        if rule.stops:
            self.throttle.stop(error)
        self._again_or_settle(work, rule, report, now)
        self._check_failure()

    def _failed(self, work: Work, error: TrioDicomError) -> None:
        delivery = work.delivery
        report = report_of_failure(work.item.name, delivery, error, work.particulars)
        rule = retry.rule_of_error(error, has_begun=delivery is not None and delivery.has_begun)
        work.is_suspect |= rule.is_strike
        work.failure = error
        self._again_or_settle(work, rule, report, trio.current_time())

    def _again_or_settle(self, work: Work, rule: Rule, report: InstanceReport, now: float) -> None:
        delay = work.history.after(rule, self.options.retry, self.options.random, now)
        if work.history.strikes >= retry.MOST_STRIKES:
            report = attrs.evolve(report, reason=f"{report.reason}; set aside: two associations ended in its middle")
        is_over = self.stopped_by is not None or self.failure is not None or work.job.is_withdrawn
        if delay is None or is_over or not work.item.can_reopen:
            self.register.settle(work, report)
        else:
            work.report = report
            self.agenda.add_later(work, now + delay) if delay else self.agenda.add(work, now)

    # --- the end of all

    def stop(self, error: TrioDicomError) -> None:
        """Nothing more is to be sent, for `error`."""
        self.throttle.stop(error)
        self._check_failure()

    def _check_failure(self) -> None:
        """If the destination was given up just now, so is all that waits."""
        if self.failure is not None and self.stopped_by is None:
            log.warning("nothing more is sent to %s: %s", self.destination.peer, self.failure)
            self._give_up_waiting(self.failure)

    def _give_up_waiting(self, error: TrioDicomError) -> None:
        self.stopped_by = error
        for work in self.agenda.withdraw():
            self.register.give_up(work, error)
        for work in list(self._in_hand):
            if work.attempt is not None and not work.attempt.has_begun:
                work.attempt.interrupt()
        self.fleet.end()

    async def drain(self, timeout: float) -> None:
        """Begin nothing further; wait until what is in hand has come to its end, at most for `timeout` seconds."""
        if not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
        self.is_drained = True
        self._give_up_waiting(stopped("the sender was drained before its turn came"))
        for job in list(self.jobs):
            job.stop_feeding()
        with trio.move_on_after(timeout) as patience:
            await self._wait_quiet()
        if patience.cancelled_caught:
            await self._cut_off()
        with trio.move_on_after(SETTLING):
            for job in list(self.jobs):
                await job.done.wait()

    async def _cut_off(self) -> None:
        """Give up what is in hand, and abort the associations over which it goes: a release would wait for answers."""
        attempts = [work.attempt for work in self._in_hand if work.attempt is not None]
        associations = {attempt.association for attempt in attempts if attempt.has_begun}
        for attempt in attempts:
            attempt.interrupt()
        async with trio.open_nursery() as nursery:
            for association in associations:
                nursery.start_soon(association.abort)
        await self._wait_quiet()

    async def _wait_quiet(self) -> None:
        while self._in_hand:
            await self._is_quiet.park()

    def withdraw(self, job: Job) -> None:
        """`job` is over: what is left of it comes to its end now, what is being sent within a moment."""
        self.jobs.pop(job, None)
        job.is_withdrawn = True
        job.stop_feeding()
        self.agenda.withdraw(job)
        for work in list(job.unsettled):
            if work.attempt is not None:
                work.attempt.interrupt()
        job.end(stopped("interrupted"))
        self._has_unread |= not job.is_exhausted

    def close(self) -> None:
        """Nothing more will be given: the lanes release their associations."""
        self.is_closing = True
        self.fleet.end()

    def end(self) -> None:
        """All lanes have ended: what a task of somebody else's had given comes to its end now."""
        self.is_closing = True
        for job in list(self.jobs):
            self.withdraw(job)
        self.tally.end = trio.current_time()
