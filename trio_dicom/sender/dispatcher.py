"""Dispatcher: between the jobs that give works and the lanes that send them. Each work ends here, exactly once.

A work is on the agenda, or in the hand of a lane, or it is settled. Whatever ends a lane, a job or the sender settles
what is left, synchronously, from what is known of it: the last attempt's `StoreDelivery` tells whether it is in doubt.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Sequence

import attrs
import trio

from ..association.association import Association
from ..association.transport import Connect
from ..errors import AssociationAborted, LedgerError, NoAcceptedContexts, StatusError, TrioDicomError
from ..peer import Peer
from ..services.storage_scu import CStoreResponse, ProgressChannel, StoreDelivery
from ..settings import AssociationSettings
from ..sources.source import Source
from . import retry
from .agenda import Agenda
from .budget import Budget
from .conversion import Conversion
from .job import Job, stopped
from .ledger import InputIdentity, Ledger, LedgerEntry
from .options import SameInstance, SenderOptions
from .outcome import InstanceReport, Outcome, report_of_failure, report_of_response
from .pace import PacedSource, TokenBucket
from .reports import TransferReport
from .retry import Rule
from .tally import Tally
from .throttle import Throttle
from .work import Kind, Work

log = logging.getLogger(__name__)

MOST_OPEN_AHEAD = 128  # sources; what waits behind these is opened again when its turn comes


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
        conversion: Conversion,
        associations: int,
        ledger: Ledger | None,
        progress: ProgressChannel | None,
    ) -> None:
        self.destination = destination
        self.options = options
        self.conversion = conversion
        self.ledger = ledger
        self.agenda = Agenda()
        self.throttle = Throttle(associations, options.retry, options.random)
        self.budget = Budget(options.memory)
        self._bucket = None if options.max_rate == math.inf else TokenBucket(options.max_rate)
        self.tally = Tally()
        self.jobs: dict[Job, None] = {}
        self.refused_kinds: dict[Kind, NoAcceptedContexts] = {}
        self._open_ahead: set[Work] = set()  # works on the agenda whose sources are open
        self.stopped_by: TrioDicomError | None = None  # why nothing further is begun
        self.is_closing = False  # nothing further will come
        self._store = attrs.evolve(options.store, max_retries=0)
        self._progress = progress
        self._in_hand: dict[Work, None] = {}
        self._open: dict[Association, None] = {}
        self._openings: dict[trio.CancelScope, None] = {}  # around what asks for an association
        self.unfilled = 0  # lanes that are about to take their first work
        self._active = 0  # lanes that are opening an association, or take works for one
        self._unread = False  # a job ended before its inputs did
        self._order = 0
        self._first_of: dict[str, Work | InstanceReport] = {}  # by SOP Instance UID, where a second is not sent
        self._quiet = trio.lowlevel.ParkingLot()

    @property
    def failure(self) -> TrioDicomError | None:
        """Why the destination was given up, or nothing can be sent any more."""
        return self.throttle.failure

    def report(self) -> TransferReport:
        """All that was counted."""
        is_exhausted = not self._unread and all(job.is_exhausted for job in self.jobs)
        return self.tally.report(self._in_hand, is_exhausted=is_exhausted, open_associations=len(self._open))

    # --- for jobs: what comes in

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
        item, own = work.item, None
        if not self.conversion.is_needed:
            return await item.open()
        if not item.is_data_set:
            source = await item.open()
            own = source.transfer_syntaxes[0]
            if self.conversion.leaves(own):
                return source
            async with source:
                await item.fetch(source)
        return await self.conversion.convert(item.read_dataset, own) or await item.open()

    def enqueue(self, work: Work) -> None:
        """`work` is to be sent, if nothing speaks against it."""
        error = self.stopped_by or self.refused_kinds.get(work.kind)
        if error is not None:
            self.give_up(work, error)
        elif self.options.same_instance is SameInstance.SEND or not self._follows(work):
            if len(self._open_ahead) < MOST_OPEN_AHEAD:
                self._open_ahead.add(work)
            elif work.item.can_reopen and not work.held:
                work.discard_source()
            self.agenda.add(work, trio.current_time())

    def _follows(self, work: Work) -> bool:
        """Whether `work` is a further input of one SOP Instance UID: then it ends as the first does."""
        first = self._first_of.setdefault(work.sop_instance_uid, work)
        if isinstance(first, InstanceReport):
            self._settle_follower(work, first)
        elif first is not work:
            work.discard_source()
            first.followers.append(work)
        return first is not work

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

    # --- for lanes: associations

    @property
    def is_ending(self) -> bool:
        """Whether no lane is to take a further work."""
        return self.is_closing or self.stopped_by is not None

    def may_open(self) -> bool:
        """Whether one more lane may ask for an association now."""
        return (
            not self.is_ending and self._active < self.throttle.lanes and trio.current_time() >= self.throttle.resume_at
        )

    def is_surplus(self) -> bool:
        """Whether there are to be fewer lanes."""
        return self._active > self.throttle.lanes

    def next_opening(self) -> float:
        """When a lane that may not ask for an association now may perhaps do so."""
        return self.throttle.resume_at if self.throttle.resume_at > trio.current_time() else math.inf

    def lane_begins(self, opening: trio.CancelScope) -> None:
        """A lane is going to ask for an association, inside of `opening`."""
        self._openings[opening] = None
        self._active += 1
        self.unfilled += 1
        self.throttle.start(trio.current_time())

    def lane_ends(self, opening: trio.CancelScope) -> None:
        """It takes no further works."""
        self._openings.pop(opening, None)
        self._active -= 1

    def opened(self, association: Association, opening: trio.CancelScope) -> None:
        """An association has come about."""
        self._openings.pop(opening, None)
        self._open[association] = None
        self.tally.associations += 1
        lanes = self.throttle.lanes
        self.throttle.opened()
        self._wake_if_more(lanes)

    def left(self, association: Association) -> None:
        """Nothing more is sent over it."""
        del self._open[association]

    def association_failed(self, error: TrioDicomError, started: float, *, has_done_good: bool) -> None:
        """An association asked for at `started` did not come about, or ended in an error."""
        if isinstance(error, AssociationAborted) and not error.by_peer:
            return  # by us, for the sake of one object
        log.info("association with %s: %s", self.destination.peer, error)
        self.tally.failed_associations += 1
        if has_done_good:
            if retry.is_distrust(error):
                self.throttle.distrust(error)
        else:
            others = self._active if self._open else 0
            self.throttle.failed(error, started=started, now=trio.current_time(), others=others)
        self._check_failure()

    def refuse_kinds(self, kinds: frozenset[Kind], error: NoAcceptedContexts) -> None:
        """The peer takes none of these."""
        self.refused_kinds.update(dict.fromkeys(kinds, error))
        self.throttle.opened()
        for work in self.agenda.withdraw(kinds=kinds):
            self.give_up(work, error)

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
        if self.stopped_by is not None or work.job not in self.jobs:
            self.give_up(work, self.stopped_by or stopped("interrupted"))
        else:
            self.agenda.add(work, trio.current_time())

    async def deliver(self, work: Work, association: Association) -> bool:
        """Make one attempt to send `work`, and decide what becomes of it. True if the peer answered."""
        if work not in work.job.unsettled:  # given up while it was on its way here
            return False
        started, work.delivery, work.failure = trio.current_time(), None, None
        response: CStoreResponse | None = None
        error: TrioDicomError | None = None
        self._in_hand[work] = None
        self._open_ahead.discard(work)
        try:
            with trio.CancelScope() as work.scope:
                source, work.source = work.source, None
                if source is None:
                    source = await self.open(work)
                if self._bucket is not None:
                    source = PacedSource(source, self._bucket)
                work.delivery = StoreDelivery(association, self._store, source, None, self._progress)
                response = await work.delivery.run()
        except TrioDicomError as failure:
            error = failure
        except BaseException:
            self._out_of_hand(work, started)
            self.give_up(work, stopped("interrupted"))
            raise
        self._out_of_hand(work, started)
        if response is not None and work.delivery is not None:
            self._answered(work, work.delivery, response)
        elif error is not None:
            self._failed(work, error)
        else:
            self.give_up(work, self.stopped_by or stopped("interrupted"))
        return response is not None

    def _out_of_hand(self, work: Work, started: float) -> None:
        """The attempt has come to its end, in whatever way."""
        work.scope = None
        del self._in_hand[work]
        if not self._in_hand:
            self._quiet.unpark_all()
        delivery = work.delivery
        if delivery is not None and delivery.has_begun:
            work.report = None  # what an attempt before has come to
            work.history.begin(started)
            work.was_in_doubt |= delivery.in_doubt
            self.tally.attempted(work, delivery.bytes_sent)

    def _answered(self, work: Work, delivery: StoreDelivery, response: CStoreResponse) -> None:
        now = trio.current_time()
        rule = retry.rule_of_status(response.status)
        report = report_of_response(work.item.name, delivery, response, work.particulars)
        if rule is retry.FINAL:  # the usual case
            self._took(now)
            self.settle(work, report)
            return
        error = StatusError(response, repr(response.status), response.status.retry)
        if rule.is_congestion:
            self.throttle.congested(now, error)
        elif not rule.stops:
            self._took(now)
        if rule.stops:
            self.throttle.stop(error)
        self._again_or_settle(work, rule, report, now)
        self._check_failure()

    def _took(self, now: float) -> None:
        lanes = self.throttle.lanes
        self.throttle.took(now)
        self._wake_if_more(lanes)

    def _wake_if_more(self, lanes: int) -> None:
        """There may be more lanes now than `lanes`."""
        if self.throttle.lanes > lanes:
            self.agenda.wake()

    def _failed(self, work: Work, error: TrioDicomError) -> None:
        delivery = work.delivery
        report = report_of_failure(work.item.name, delivery, error, work.particulars)
        rule = retry.rule_of_error(error, has_begun=delivery is not None and delivery.has_begun)
        work.is_suspect |= rule.is_strike
        work.failure = error
        self._again_or_settle(work, rule, self._described(work, report), trio.current_time())

    def _again_or_settle(self, work: Work, rule: Rule, report: InstanceReport, now: float) -> None:
        delay = work.history.after(rule, self.options.retry, self.options.random, now)
        if work.history.strikes >= retry.MOST_STRIKES:
            report = attrs.evolve(report, reason=f"{report.reason}; set aside: two associations ended in its middle")
        is_over = self.stopped_by is not None or self.failure is not None or work.job not in self.jobs
        if delay is None or is_over or not work.item.can_reopen:
            self.settle(work, report)
        else:
            work.report = report
            self.agenda.add_later(work, now + delay) if delay else self.agenda.add(work, now)

    # --- the end of works

    def give_up(self, work: Work, error: TrioDicomError) -> None:
        """`work` will not be sent, or not once more; it was not answered in a way that settles it."""
        report = work.report
        if work.delivery is not None and (report is None or work.delivery.in_doubt):
            report = report_of_failure(work.item.name, work.delivery, work.failure or error, work.particulars)
        elif report is None:
            report = report_of_failure(work.item.name, None, error, work.particulars)
        self.settle(work, self._described(work, report))

    def _described(self, work: Work, report: InstanceReport) -> InstanceReport:
        """`report`, with what was known of the input before it was sent."""
        if report.sop_class_uid is not None or not work.kind.sop_class_uid:
            return report
        return attrs.evolve(
            report,
            sop_class_uid=work.kind.sop_class_uid,
            sop_instance_uid=work.sop_instance_uid,
            transfer_syntax_uid=report.transfer_syntax_uid or work.kind.transfer_syntax_uid,
        )

    def settle(self, work: Work, report: InstanceReport) -> None:
        """The one end of `work`."""
        if report.was_in_doubt and not (report.outcome.is_stored or report.outcome is Outcome.ALREADY_PRESENT):
            # A refusal of a later attempt does not take back what an earlier one may have done.
            report = attrs.evolve(report, outcome=Outcome.IN_DOUBT)
        self._settle(work, report)
        if self.ledger is not None and work.identity is not None:
            self.ledger.settle(work.identity, report)
        if self.options.same_instance is SameInstance.SKIP and self._first_of.get(work.sop_instance_uid) is work:
            self._settle_followers(work, report)

    def settle_earlier(self, work: Work, report: InstanceReport) -> None:
        """The ledger has an end of `work` already."""
        self._settle(work, attrs.evolve(report, path=work.item.name, number=work.number, is_earlier=True))

    def _settle_followers(self, work: Work, report: InstanceReport) -> None:
        """They end as `work` does, unless its job was withdrawn before it was sent: then the next of them is."""
        followers = [each for each in work.followers if each in each.job.unsettled]
        if followers and work.job not in self.jobs and not report.is_delivered and self.stopped_by is None:
            self._first_of[work.sop_instance_uid] = first = followers[0]
            first.followers = followers[1:]
            self.agenda.add(first, trio.current_time())
            return
        self._first_of[work.sop_instance_uid] = report
        for follower in followers:
            self._settle_follower(follower, report)

    def _settle_follower(self, work: Work, first: InstanceReport) -> None:
        reason = f"as input {first.number}, which has the same SOP Instance UID"
        reason += f": {first.reason}" if first.reason else ""
        report = attrs.evolve(first, path=work.item.name, number=work.number, attempts=0, bytes_sent=0, reason=reason)
        self._settle(work, report)
        if self.ledger is not None and work.identity is not None:
            self.ledger.settle(work.identity, report)

    def _settle(self, work: Work, report: InstanceReport) -> None:
        work.discard_source()
        self._open_ahead.discard(work)
        self.budget.free(work.held)
        work.held = 0
        work.delivery = work.report = work.failure = None
        self.tally.settled(report)
        work.job.settled(work, report)

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
            self.give_up(work, error)
        for work in self._in_hand:
            if work.scope is not None and (work.delivery is None or not work.delivery.has_begun):
                work.scope.cancel()
        self._end_openings()

    async def drain(self, timeout: float) -> None:
        """Begin nothing further; wait until what is in hand has come to its end, at most for `timeout` seconds."""
        self._give_up_waiting(stopped("the sender was drained before its turn came"))
        for job in list(self.jobs):
            job.stop_feeding()
        with trio.move_on_after(timeout):
            await self._wait_quiet()
        for work in self._in_hand:
            if work.scope is not None:
                work.scope.cancel()
        await self._wait_quiet()

    async def _wait_quiet(self) -> None:
        while self._in_hand:
            await self._quiet.park()

    def withdraw(self, job: Job) -> None:
        """`job` is over: what is left of it comes to its end now, what is being sent within a moment."""
        self.jobs.pop(job, None)
        self.agenda.withdraw(job)
        for work in job.unsettled:
            if work.scope is not None:
                work.scope.cancel()
        job.end(stopped("interrupted"))
        self._unread |= not job.is_exhausted

    def close(self) -> None:
        """Nothing more will be given: the lanes release their associations."""
        self.is_closing = True
        self._end_openings()

    def _end_openings(self) -> None:
        """Nobody waits for the associations that are being asked for."""
        for scope in self._openings:
            scope.cancel()
        self.agenda.wake()

    def end(self) -> None:
        """All lanes have ended: what a task of somebody else's had given comes to its end now."""
        self.is_closing = True
        for job in list(self.jobs):
            self.withdraw(job)
        self.tally.end = trio.current_time()
