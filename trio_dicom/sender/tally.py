"""Tally: what has been counted of a sender so far."""

from __future__ import annotations

import collections
from collections.abc import Collection

import attrs
import trio

from .outcome import InstanceReport, Outcome
from .reports import TransferReport
from .work import Work


@attrs.define
class Tally:
    """See above. What is in hand is counted when it is asked for."""

    inputs: int = 0
    earlier: int = 0
    delivered: int = 0
    bytes_sent: int = 0
    bytes_stored: int = 0
    attempts: int = 0
    retries: int = 0
    associations: int = 0
    failed_associations: int = 0
    counts: collections.Counter[Outcome] = attrs.field(factory=collections.Counter)
    start: float = attrs.field(factory=trio.current_time)
    end: float | None = None

    def attempted(self, work: Work, bytes_sent: int) -> None:
        """One attempt, some of which went out, has come to its end."""
        self.attempts += 1
        self.retries += work.history.attempts > 1
        self.bytes_sent += bytes_sent

    def settled(self, report: InstanceReport) -> None:
        """One input has come to its end."""
        self.counts[report.outcome] += 1
        self.delivered += report.is_delivered
        if report.is_earlier:
            self.earlier += 1
        elif report.outcome.is_stored:
            self.bytes_stored += report.bytes_sent

    def report(self, in_hand: Collection[Work], *, is_exhausted: bool, open_associations: int) -> TransferReport:
        """All of it, as it stands."""
        now = trio.current_time() if self.end is None else self.end
        begun = sum(each.delivery.bytes_sent for each in in_hand if each.delivery is not None)
        return TransferReport(
            inputs=self.inputs,
            counts=dict(self.counts),
            pending=self.inputs - self.counts.total(),
            under_way=len(in_hand),
            earlier=self.earlier,
            delivered=self.delivered,
            is_exhausted=is_exhausted,
            bytes_sent=self.bytes_sent + begun,
            bytes_stored=self.bytes_stored,
            attempts=self.attempts,
            retries=self.retries,
            associations=self.associations,
            failed_associations=self.failed_associations,
            open_associations=open_associations,
            elapsed=now - self.start,
        )
