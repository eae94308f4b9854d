"""When an object is tried again, and when a destination is given up. Pure decisions: no I/O, no clock.

The standard has no rule for a C-STORE that failed; what is here is policy. C-STORE with the same SOP Instance UID is
safe to repeat, so an object in doubt is sent again. What the same bytes will not change is not tried again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random

import attrs

from ..errors import (
    AssociationAborted,
    AssociationError,
    ConnectFailed,
    InvalidObject,
    ProtocolViolation,
    ReadError,
    Retry,
    TLSError,
    TrioDicomError,
)
from ..protocol.status import Status

PASSING = (Retry.LATER, Retry.NEW_ASSOCIATION)


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{attribute.name} must be a whole number, 1 or more, not {value!r}")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How persistent a sender is.

    - `max_attempts`: most C-STORE requests for one object, and `max_age`: seconds after the first in which another may
      follow.
    - `base_delay`, `max_delay`: the wait before the n-th further attempt is drawn evenly from 0 to
      `base_delay` * 2**(n - 1) seconds, at most `max_delay`: many senders do not come back at the same moment.
    - `patience`: seconds after the first trouble in which a destination may accept nothing, before all that is left is
      given up.
    - `first_contact`: most attempts at a first association; a destination that has never been reached may be mistyped.
    """

    max_attempts: int = attrs.field(default=5, validator=_count)
    max_age: float = attrs.field(default=600.0, validator=_positive)
    base_delay: float = attrs.field(default=1.0, validator=_positive)
    max_delay: float = attrs.field(default=60.0, validator=_positive)
    patience: float = attrs.field(default=600.0, validator=_positive)
    first_contact: int = attrs.field(default=5, validator=_count)

    def delay(self, tries: int, random: Random) -> float:
        """Seconds to wait after so many tries, one at least, that came to nothing."""
        longest = min(self.max_delay, self.base_delay * 2.0 ** min(tries - 1, 62))
        return random.uniform(0, longest)


@attrs.frozen
class Rule:
    """What follows the failure of one attempt to send one object."""

    name: str
    again: float = 0  # how often, by this rule, the object is tried again; infinity: as often as the policy lets it
    waits: bool = True  # before it is tried again
    is_congestion: bool = False  # the destination has too much to do
    is_strike: bool = False  # the object may be what ended the association
    is_distrust: bool = False  # the peer cannot be relied on: twice running, and it is given up
    stops: bool = False  # nothing is to be sent to this destination any more


FINAL = Rule("final")
CONGESTION = Rule("congestion", again=math.inf, is_congestion=True)
AMBIGUOUS = Rule("ambiguous", again=2)  # 0110: some peers say so of a broken disk, some of a broken object
CLASH = Rule("message ID clash", again=1, waits=False)
FORBIDDEN = Rule("not authorized", stops=True)
INNOCENT = Rule("bystander", again=math.inf, waits=False)  # nothing of it had been sent
STRIKE = Rule("association ended in the middle", again=math.inf, waits=False, is_strike=True)
DISTRUST = Rule("not to be relied on", again=1, waits=False, is_distrust=True, is_strike=True)
TROUBLE = Rule("trouble with the input", again=2)  # the machine's or the file server's, not the object's

MOST_STRIKES = 2

_OF_STATUS: Mapping[int, Rule] = {
    0x0110: AMBIGUOUS,
    0x0124: FORBIDDEN,
    0x0210: CLASH,
    0x0213: CONGESTION,
    0x0214: FORBIDDEN,
}
_PROTOCOL_REASONS = frozenset({1, 2, 4, 5, 6})  # of a service provider's A-ABORT: we are said to have broken it


def rule_of_status(status: Status) -> Rule:
    """For an object that was answered with `status`."""
    return CONGESTION if status >> 8 == 0xA7 else _OF_STATUS.get(status, FINAL)


def rule_of_error(error: TrioDicomError, *, has_begun: bool) -> Rule:
    """For an object whose sending ended with `error`; `has_begun` if some of it had gone out."""
    if isinstance(error, AssociationError):
        if not has_begun or (isinstance(error, AssociationAborted) and not error.by_peer):
            return INNOCENT
        return DISTRUST if is_distrust(error) else STRIKE
    if isinstance(error, ReadError) and error.retry is Retry.LATER:
        return TROUBLE
    return FINAL


def is_distrust(error: TrioDicomError) -> bool:
    """Whether one side says that the other broke the protocol: trying again will hardly help."""
    if isinstance(error, AssociationAborted):
        return error.by_peer and error.source == 2 and error.reason in _PROTOCOL_REASONS
    return isinstance(error, ProtocolViolation)


def is_final(error: TrioDicomError, *, was_reached: bool) -> bool:
    """Whether no association will come about before somebody changes a setting; `was_reached` if there was one."""
    if was_reached and isinstance(error, TLSError) and error.is_cut_off:
        return False  # the settings were right: it has no room, or stands for another that is away
    if isinstance(error, ConnectFailed | TLSError | AssociationError):
        return error.retry not in PASSING
    return not isinstance(error, InvalidObject)


@attrs.define
class History:
    """What was tried for one object."""

    attempts: int = 0
    first_attempt: float = math.inf
    strikes: int = 0
    by_rule: dict[str, int] = attrs.field(factory=dict)

    def begin(self, now: float) -> None:
        """Another attempt, some of which goes out."""
        self.attempts += 1
        self.first_attempt = min(self.first_attempt, now)

    def after(self, rule: Rule, policy: RetryPolicy, random: Random, now: float) -> float | None:
        """Seconds until the object is to be tried again, by `rule`; None if it is not."""
        used = self.by_rule[rule.name] = self.by_rule.get(rule.name, 0) + 1
        if rule.is_strike:
            self.strikes += 1
        if used > rule.again or self.strikes >= MOST_STRIKES or self.attempts >= policy.max_attempts:
            return None
        delay = policy.delay(used, random) if rule.waits else 0.0
        return delay if now + delay < self.first_attempt + policy.max_age else None
