"""How many associations a destination bears, and when it is given up."""

from __future__ import annotations

from random import Random

import pytest

from trio_dicom.errors import (
    AssociationAborted,
    AssociationRejected,
    ConnectFailed,
    ConnectionLost,
    StatusError,
    TLSError,
)
from trio_dicom.sender.retry import RetryPolicy
from trio_dicom.sender.throttle import ANSWERS_FOR_ONE_MORE, Throttle

FULL = StatusError(None, "A700")
DOWN = ConnectFailed("PACS")


class Longest(Random):
    def uniform(self, a, b):
        return b


def throttle(most=8, **policy):
    return Throttle(most, RetryPolicy(**policy), Longest())


def reached(most=8, **policy):
    made = throttle(most, **policy)
    made.opened()
    return made


def test_the_first_association_comes_alone():
    it = throttle(8)
    assert it.lanes == 1
    it.opened()
    assert it.lanes == 8
    it.failed(ConnectionLost(), started=0.0, now=0.0, others=0)
    it.opened()
    assert it.lanes == 1  # the others are earned


def test_a_destination_that_cuts_handshakes_off_is_given_up_unless_it_was_reached_before():
    cut_off = TLSError("PACS", "the peer closed the connection", is_cut_off=True)
    for it, is_given_up in ((throttle(), True), (reached(), False)):
        it.failed(cut_off, started=0.0, now=0.0, others=0)
        assert (it.failure is cut_off) is is_given_up
    it.failed(TLSError("PACS", "HANDSHAKE_FAILURE"), started=2.0, now=3.0, others=0)
    assert it.failure is not None


def test_congestion_halves_the_lanes_and_pauses_and_answers_pay_back():
    it = reached(8)
    for _ in range(8):
        it.congested(10.0, FULL)
    assert it.lanes == 4
    assert it.resume_at == 11.0
    for _ in range(4):
        it.congested(12.0, FULL)
    assert it.lanes == 2
    assert it.resume_at == 14.0
    for _ in range(ANSWERS_FOR_ONE_MORE * 2):
        it.took()
    assert it.lanes == 3
    for _ in range(ANSWERS_FOR_ONE_MORE * (3 + 4 + 5 + 6 + 7)):
        it.took()
    assert it.lanes == 8


def test_congestion_between_good_answers_slows_nothing_down():
    it = reached(4)
    for now in range(100):
        it.congested(float(now), FULL)
        it.took()
    assert it.lanes == 4
    assert it.failure is None


def test_congestion_without_end_is_given_up_after_the_patience():
    it = throttle(1, patience=100.0)
    it.took()
    it.congested(149.0, FULL)
    it.congested(249.0, FULL)
    assert it.failure is None
    it.congested(250.0, FULL)
    assert it.failure is FULL


def test_the_patience_begins_with_the_trouble_and_not_with_the_time_in_which_there_was_nothing_to_send():
    it = reached(1, patience=100.0)
    it.took()
    it.congested(1000.0, FULL)
    assert it.failure is None
    it.took()
    it.failed(DOWN, started=5000.0, now=5000.0, others=0)
    assert it.failure is None


def test_a_further_association_that_is_rejected_costs_nothing_but_itself():
    it = reached(8)
    it.failed(AssociationRejected(2, 3, 2), started=1.0, now=1.0, others=3)
    assert it.lanes == 3
    assert it.resume_at < 1.0
    it.failed(AssociationRejected(1, 3, 2), started=1.0, now=1.0, others=3)  # some peers say so for good
    assert it.failure is None


def test_a_destination_that_was_never_reached_is_tried_as_often_as_the_policy_says():
    it = throttle(4, first_contact=3)
    now = 0.0
    for seconds in (1.0, 2.0):
        it.failed(DOWN, started=now, now=now, others=0)
        assert it.failure is None
        assert it.lanes == 1
        assert it.resume_at == now + seconds
        now = it.resume_at
    it.failed(DOWN, started=now, now=now, others=0)
    assert it.failure is DOWN


def test_one_trouble_that_several_associations_meet_counts_once():
    it = throttle(4, first_contact=2)
    for _ in range(4):
        it.failed(DOWN, started=0.0, now=0.5, others=0)
    assert it.failure is None


def test_a_destination_that_was_there_is_waited_for_until_the_patience_ends():
    it = throttle(4, patience=100.0, first_contact=1)
    it.opened()
    it.took()
    now, tries = 20.0, 0
    while it.failure is None:
        it.failed(DOWN, started=now, now=now, others=0)
        now, tries = it.resume_at, tries + 1
    assert now >= 110.0
    assert tries == 8  # at 20, 21, 23, 27, 35, 51, 83 and 143 s


@pytest.mark.parametrize("error", [AssociationRejected(1, 1, 3), AssociationRejected(1, 2, 1)], ids=str)
def test_a_rejection_for_good_ends_it_at_once(error):
    it = throttle(4)
    it.failed(error, started=0.0, now=0.0, others=0)
    assert it.failure is error


def test_a_peer_that_says_twice_that_we_break_the_protocol_is_given_up():
    it = throttle(4)
    it.opened()
    error = AssociationAborted(2, 6)
    it.failed(error, started=0.0, now=0.0, others=0)
    assert it.failure is None
    it.failed(error, started=5.0, now=5.0, others=0)
    assert it.failure is error


def test_a_good_answer_between_makes_it_trusted_again():
    it = throttle(4)
    for _ in range(10):
        it.distrust(AssociationAborted(2, 6))
        assert it.failure is None
        it.took()


def test_a_lost_connection_that_comes_to_nothing_pauses():
    it = throttle(4)
    it.opened()
    it.failed(ConnectionLost(), started=0.0, now=3.0, others=0)
    assert (it.lanes, it.resume_at, it.failure) == (1, 4.0, None)
