"""What follows each failure of an object: the rules, one case for each line of the policy."""

from __future__ import annotations

import math
from random import Random

import pytest

from trio_dicom.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectFailed,
    ConnectionLost,
    InvalidObject,
    InvalidResponse,
    NoPresentationContext,
    ObjectChanged,
    OperationTimeout,
    ReadError,
    Retry,
    TLSError,
    TLSVerifyError,
    UnexpectedMessageID,
)
from trio_dicom.protocol.status import Status
from trio_dicom.sender import retry
from trio_dicom.sender.retry import History, RetryPolicy

POLICY = RetryPolicy()


class Longest(Random):
    """The jitter at its most."""

    def uniform(self, a: float, b: float) -> float:
        return b


STATUSES = [
    *((code, retry.FINAL) for code in (0x0000, 0xB000, 0xB006, 0xB007)),
    *((code, retry.CONGESTION) for code in (0xA700, 0xA7FF, 0x0213)),
    (0x0110, retry.AMBIGUOUS),
    (0x0111, retry.FINAL),
    *((code, retry.FINAL) for code in (0xA900, 0xA9FF, 0xC000, 0xCFFF)),
    *((code, retry.FINAL) for code in (0x0117, 0x0105, 0x0106, 0x0115, 0x0120, 0x0121, 0x0119)),
    *((code, retry.FINAL) for code in (0x0122, 0x0112, 0x0118, 0x0211, 0x0212, 0x1234)),
    *((code, retry.FORBIDDEN) for code in (0x0124, 0x0214)),
    (0x0210, retry.CLASH),
]


@pytest.mark.parametrize(("code", "rule"), STATUSES, ids=lambda value: f"{value:04X}" if isinstance(value, int) else "")
def test_each_status_has_its_rule(code, rule):
    assert retry.rule_of_status(Status(code)) is rule


ERRORS = [
    (AssociationAborted(0, 0), False, retry.INNOCENT),
    (AssociationAborted(0, 0), True, retry.STRIKE),
    (AssociationAborted(2, 0), True, retry.STRIKE),
    *((AssociationAborted(2, reason), True, retry.DISTRUST) for reason in (1, 2, 4, 5, 6)),
    (AssociationAborted(0, 0, by_peer=False), True, retry.INNOCENT),
    (ConnectionLost(), True, retry.STRIKE),
    (ConnectionLost(), False, retry.INNOCENT),
    (OperationTimeout("writing", 30.0, 5), True, retry.STRIKE),
    (InvalidResponse("another one's", 0, 0), True, retry.DISTRUST),
    (UnexpectedMessageID("of nobody", 0, 0), True, retry.DISTRUST),
    (InvalidObject("no DICOM file"), False, retry.FINAL),
    (ObjectChanged("grew"), True, retry.FINAL),
    (NoPresentationContext("1.2", "1.2.3"), False, retry.FINAL),
    (ReadError("cannot be read"), False, retry.FINAL),
]


@pytest.mark.parametrize(("error", "has_begun", "rule"), ERRORS, ids=lambda value: getattr(value, "name", None))
def test_each_error_has_its_rule(error, has_begun, rule):
    assert retry.rule_of_error(error, has_begun=has_begun) is rule


def test_trouble_of_the_machine_is_worth_another_try():
    error = ReadError("cannot be read: too many open files")
    error.retry = Retry.LATER
    assert retry.rule_of_error(error, has_begun=False) is retry.TROUBLE


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (ConnectFailed("PACS"), False),
        (AssociationTimeout("the answer", 30.0), False),
        (AssociationRejected(2, 3, 2), False),
        (AssociationRejected(1, 1, 3), True),
        (TLSVerifyError("PACS", "expired"), True),
        (TLSError("PACS", "closed", is_cut_off=True), True),
        (AssociationAborted(2, 0), False),
    ],
    ids=str,
)
def test_what_only_a_change_of_settings_will_mend(error, is_final):
    assert retry.is_final(error, was_reached=False) is is_final
    is_cut_off = isinstance(error, TLSError) and error.is_cut_off
    assert retry.is_final(error, was_reached=True) is (is_final and not is_cut_off)


def delays_after(rule, *, policy=POLICY, random=None):
    """The delays before further attempts, each of which fails at once by the same rule."""
    history, now, found = History(), 0.0, []
    while True:
        history.begin(now)
        delay = history.after(rule, policy, random or Longest(), now)
        if delay is None:
            return found
        found.append(delay)
        now += delay


def test_congestion_is_tried_again_until_the_policy_says_so():
    assert delays_after(retry.CONGESTION) == [1, 2, 4, 8]


def test_the_delay_is_capped_and_the_age_is_bounded():
    policy = RetryPolicy(max_attempts=100, max_age=200.0)
    assert delays_after(retry.CONGESTION, policy=policy) == [1, 2, 4, 8, 16, 32, 60, 60]  # 183 s; another would be 243


def test_the_jitter_is_drawn_from_zero_on():
    drawn = [POLICY.delay(4, Random(seed)) for seed in range(200)]
    assert min(drawn) < 0.5
    assert max(drawn) > 7.5
    assert max(drawn) <= 8
    assert POLICY.delay(4, Random(1)) == POLICY.delay(4, Random(1))  # repeatable


def test_an_ambiguous_failure_is_tried_again_twice():
    assert delays_after(retry.AMBIGUOUS) == [1, 2]


def test_a_clash_is_tried_again_once_and_at_once():
    assert delays_after(retry.CLASH) == [0]


def test_an_object_in_the_middle_of_two_ended_associations_is_set_aside():
    assert delays_after(retry.STRIKE) == [0]


def test_a_peer_that_breaks_the_protocol_gets_one_more_chance():
    assert delays_after(retry.DISTRUST) == [0]


def test_what_is_final_is_not_tried_again():
    assert delays_after(retry.FINAL) == []


def test_no_rule_goes_beyond_the_most_attempts():
    assert len(delays_after(retry.INNOCENT, policy=RetryPolicy(max_attempts=3))) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_age": 0},
        {"base_delay": -1.0},
        {"max_delay": math.nan},
        {"patience": "600"},
        {"first_contact": 1.5},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)
