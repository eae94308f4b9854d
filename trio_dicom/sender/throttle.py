"""Throttle: how many associations a destination bears, and when it is given up. Decisions only: the times are given.

It begins with one association; once that is there, all that are wanted may be. A destination that answers nothing but
"out of resources" gets half of them after a pause, one that lets no further association in keeps those it has; each is
paid back by objects that it takes. One that does not answer at all is tried with one association, at growing intervals.
"""

from __future__ import annotations

import math
from random import Random

from ..errors import TrioDicomError
from .retry import RetryPolicy, is_distrust, is_final

ANSWERS_FOR_ONE_MORE = 8  # objects taken on each association, before there is one more
MOST_DISTRUST = 2


class Throttle:
    """See above. `lanes` associations may be open, and nothing is to be begun before `resume_at`."""

    def __init__(self, most: int, policy: RetryPolicy, random: Random) -> None:
        self.lanes = 1
        self._most = most
        self.resume_at = -math.inf
        self.failure: TrioDicomError | None = None  # why the destination was given up
        self._policy = policy
        self._random = random
        self._was_reached = False
        self._fruitless = 0  # associations, since an object was taken
        self._distrust = 0  # the same, for the protocol's sake
        self._congested = 0  # answers, since an object was taken
        self._pauses = 0  # likewise
        self._credit = 0
        self._last_failure = -math.inf
        self._trouble_since = math.inf  # the first trouble since an object was taken

    def opened(self) -> None:
        """An association has come about."""
        if not self._was_reached:
            self._was_reached = True
            self.lanes = self._most

    def took(self) -> None:
        """The destination answered an object in a way that does not speak of trouble."""
        self._trouble_since = math.inf
        self._fruitless = self._distrust = self._congested = self._pauses = 0
        if self.lanes < self._most:
            self._credit += 1
            if self._credit >= ANSWERS_FOR_ONE_MORE * self.lanes:
                self._credit = 0
                self.lanes += 1

    def rested(self) -> None:
        """There was nothing to send for a while: that the last answers spoke of trouble is forgotten."""
        self._trouble_since = math.inf

    def congested(self, now: float, error: TrioDicomError) -> None:
        """It said of an object that it is out of resources."""
        self._congested += 1
        if not self._is_borne(now):
            self.failure = error
        elif self._congested >= self.lanes and now >= self.resume_at:
            self._pause(now, max(1, self.lanes // 2))

    def failed(self, error: TrioDicomError, *, started: float, now: float, others: int) -> None:
        """An association that was asked for at `started` failed, or ended in an error and without any good.

        `others` are open meanwhile, or asked for while one is open.
        """
        if others:  # it is alive; perhaps it wants no more of them
            self.lanes, self._credit = min(self.lanes, others), 0
            return
        if is_final(error, was_reached=self._was_reached):
            self.failure = error
        if started < self._last_failure:  # the same trouble, told twice
            return
        self._last_failure = now
        self._fruitless += 1
        self._distrust += is_distrust(error)
        if self._distrust >= MOST_DISTRUST or not self._is_worth_a_try(now):
            self.failure = error
        self._pause(now, 1)

    def distrust(self, error: TrioDicomError) -> None:
        """An association on which objects were taken ended for the protocol's sake."""
        self._distrust += 1
        if self._distrust >= MOST_DISTRUST:
            self.failure = error

    def stop(self, error: TrioDicomError) -> None:
        """It is given up, for `error`."""
        self.failure = error

    def _is_worth_a_try(self, now: float) -> bool:
        is_borne = self._is_borne(now)
        return is_borne if self._was_reached else self._fruitless < self._policy.first_contact

    def _is_borne(self, now: float) -> bool:
        """Whether there is patience left. While there was nothing to send, none of it was used up."""
        self._trouble_since = min(self._trouble_since, now)
        return now <= self._trouble_since + self._policy.patience

    def _pause(self, now: float, lanes: int) -> None:
        self.lanes, self._credit, self._congested = lanes, 0, 0
        self._pauses += 1
        self.resume_at = now + self._policy.delay(self._pauses, self._random)
