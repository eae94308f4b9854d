"""Register: where each work comes to its one end, and is counted, noted in the ledger and reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from ..errors import TrioDicomError
from .budget import Budget
from .ledger_entry import InputIdentity
from .outcome import InstanceReport, Outcome, report_of_failure
from .tally import Tally
from .work import Work

if TYPE_CHECKING:
    from .ledger import Ledger


class Register:
    """See above. Everything here is synchronous: nothing can come between an end and its report.

    `resume` is called with a work that waited for the end of another one of the same SOP Instance UID, and is to be
    sent itself after all.
    """

    def __init__(self, tally: Tally, budget: Budget, ledger: Ledger | None, resume: Callable[[Work], None]) -> None:
        self._tally = tally
        self._budget = budget
        self._ledger = ledger
        self._resume = resume
        self._first_of: dict[str, Work | InstanceReport] = {}  # by SOP Instance UID, where a second is not sent

    def give_up(self, work: Work, error: TrioDicomError) -> None:
        """`work` will not be sent, or not once more; it was not answered in a way that settles it."""
        report = work.report
        if work.delivery is not None and (report is None or work.delivery.in_doubt):
            report = report_of_failure(work.item.name, work.delivery, work.failure or error, work.particulars)
        elif report is None:
            report = report_of_failure(work.item.name, None, error, work.particulars)
        self.settle(work, report)

    def settle(self, work: Work, report: InstanceReport) -> None:
        """The one end of `work`."""
        if report.transfer_syntax_uid is None and work.kind.sop_class_uid:  # what was known before it was sent
            report = attrs.evolve(
                report,
                sop_class_uid=report.sop_class_uid or work.kind.sop_class_uid,
                sop_instance_uid=report.sop_instance_uid or work.sop_instance_uid,
                transfer_syntax_uid=report.transfer_syntax_uid or work.kind.transfer_syntax_uid,
            )
        if report.was_in_doubt and not (report.outcome.is_stored or report.outcome is Outcome.ALREADY_PRESENT):
            # A refusal of a later attempt does not take back what an earlier one may have done.
            report = attrs.evolve(report, outcome=Outcome.IN_DOUBT)
        self._end(work, report)
        self._note(work, report)
        if self._first_of.get(work.sop_instance_uid) is work:
            self._settle_followers(work, report)

    def settle_earlier(self, work: Work, report: InstanceReport) -> None:
        """An earlier run has settled it, as the ledger says."""
        self._end(work, attrs.evolve(report, path=work.item.name, number=work.number, is_earlier=True))

    def follows(self, work: Work) -> bool:
        """Whether `work` is a further input of one SOP Instance UID: then it ends as the first does."""
        first = self._first_of.setdefault(work.sop_instance_uid, work)
        if isinstance(first, InstanceReport):
            self._settle_follower(work, first)
        elif first is not work:
            work.discard_source()
            first.followers.append(work)
        return first is not work

    def _settle_followers(self, work: Work, report: InstanceReport) -> None:
        """They end as `work` does, unless its job was withdrawn before it was sent: then the next of them is sent."""
        followers = [each for each in work.followers if each in each.job.unsettled]
        wanted = [each for each in followers if not each.job.is_withdrawn]
        if wanted and work.job.is_withdrawn and not report.is_delivered:
            # Those of the job that was withdrawn come to their end with it.
            self._first_of[work.sop_instance_uid] = first = wanted[0]
            first.followers = wanted[1:]
            self._resume(first)
            return
        self._first_of[work.sop_instance_uid] = report
        for follower in followers:
            self._settle_follower(follower, report)

    def _settle_follower(self, work: Work, first: InstanceReport) -> None:
        reason = f"as input {first.number}, which has the same SOP Instance UID"
        reason += f": {first.reason}" if first.reason else ""
        report = attrs.evolve(first, path=work.item.name, number=work.number, attempts=0, bytes_sent=0, reason=reason)
        self._end(work, report)
        self._note(work, report)

    def _note(self, work: Work, report: InstanceReport) -> None:
        if self._ledger is not None:
            identity = work.identity or InputIdentity(*work.item.identity(None))
            self._ledger.settle(identity, report)

    def _end(self, work: Work, report: InstanceReport) -> None:
        work.discard_source()
        self._budget.free(work.held)
        work.held = 0
        work.delivery = work.report = work.failure = None
        self._tally.settled(report)
        work.job.settled(work, report)
