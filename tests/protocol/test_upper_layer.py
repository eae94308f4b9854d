"""The machine: a real stimulus for every cell of table 9-10, release in all its orders, every violation's answer."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

from trio_dicom.errors import InvalidPDU, LocalProtocolError, ProtocolViolation, UnexpectedPDU, UnrecognisedPDU
from trio_dicom.protocol.pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
)
from trio_dicom.protocol.state import ACTIONS, TRANSITIONS, Action, Effect, Event, State
from trio_dicom.protocol.upper_layer import ConnectionClosed, Side, UpperLayer
from trio_dicom.settings import Limits

RQ = AssociateRQ("PACS", "ME", (PresentationContextRQ(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),), ())
AC = AssociateAC("PACS", "ME", (PresentationContextAC(1, 0, ("1.2.840.10008.1.2",)),), ())
RJ = AssociateRJ(1, 1, 7)
DATA = PDataTF((PDV(1, True, True, b"abcd"),))
ABORT = Abort(0, 0)

SENT: dict[Event, PDU] = {
    Event.EVT2: RQ,
    Event.EVT7: AC,
    Event.EVT8: RJ,
    Event.EVT9: DATA,
    Event.EVT11: ReleaseRQ(),
    Event.EVT14: ReleaseRP(),
    Event.EVT15: ABORT,
}
RECEIVED: dict[Event, PDU] = {
    Event.EVT3: AC,
    Event.EVT4: RJ,
    Event.EVT6: RQ,
    Event.EVT10: DATA,
    Event.EVT12: ReleaseRQ(),
    Event.EVT13: ReleaseRP(),
    Event.EVT16: ABORT,
}
INVALID = b"\x09\0\0\0\0\4abcd"


def on_the_wire(pdu: PDU) -> bytes:
    return b"".join(bytes(buffer) for buffer in pdu.encode())


def hear(machine: UpperLayer, pdu: PDU) -> PDU | ConnectionClosed | None:
    machine.receive_data(on_the_wire(pdu))
    return machine.next_event()


def replies(machine: UpperLayer) -> bytes:
    return b"".join(bytes(buffer) for buffer in machine.reply())


def established(side: Side) -> UpperLayer:
    machine = UpperLayer(side, Limits())
    machine.connected()
    if side is Side.REQUESTOR:
        machine.send(RQ)
        hear(machine, AC)
    else:
        hear(machine, RQ)
        machine.send(AC)
    return machine


def machine_in(state: State, side: Side | None = None) -> UpperLayer:
    """A machine that came to `state` by the shortest legal way, as the requestor if both sides can."""
    acceptor = state in (State.STA2, State.STA3, State.STA10, State.STA12)
    side = side or (Side.ACCEPTOR if acceptor else Side.REQUESTOR)
    if state in (State.STA1, State.STA2, State.STA3, State.STA4, State.STA5):
        machine = UpperLayer(side, Limits())
        if state is not State.STA1:
            machine.connected()
        if state is State.STA3:
            hear(machine, RQ)
        elif state is State.STA5:
            machine.send(RQ)
    else:
        machine = established(side)
        if state is State.STA8:
            hear(machine, ReleaseRQ())
        elif state is State.STA13:
            machine.send(ABORT)
        elif state is not State.STA6:
            machine.send(ReleaseRQ())
            if state is not State.STA7:
                hear(machine, ReleaseRQ())
            if state is State.STA11:
                machine.send(ReleaseRP())
            elif state is State.STA12:
                hear(machine, ReleaseRP())
    assert machine.state is state
    return machine


def sides_of(state: State) -> list[Side]:
    if state in (State.STA2, State.STA3, State.STA10, State.STA12):
        return [Side.ACCEPTOR]
    if state in (State.STA4, State.STA5, State.STA9, State.STA11):
        return [Side.REQUESTOR]
    return list(Side)


CASES = [(event, state, side) for event in Event for state in State for side in sides_of(state)]


def stimulate(machine: UpperLayer, event: Event) -> object:
    """What `event` gives: buffers, an event, None."""
    if event in SENT:
        return machine.send(SENT[event])
    if event in RECEIVED:
        return hear(machine, RECEIVED[event])
    if event is Event.EVT19:
        machine.receive_data(INVALID)
        return machine.next_event()
    if event is Event.EVT17:
        machine.receive_data(b"")
        return machine.next_event()
    if event is Event.EVT18:
        machine.artim_expired()
    else:
        machine.connected()
    return None


@pytest.mark.parametrize(("event", "state", "side"), CASES)
def test_every_cell_from_outside(event: Event, state: State, side: Side) -> None:
    machine = machine_in(state, side)
    action = TRANSITIONS.get((event, state))
    if event in (Event.EVT1, Event.EVT5):
        is_its_own = (event is Event.EVT1) == (side is Side.REQUESTOR)
        if action is None or not is_its_own:
            return  # `connected` is another event at the other side, and only for a new machine: see below
    if action is None:
        check_blank(machine, event, state)
        return
    definition = ACTIONS[action]
    if action is Action.AR_8 and side is Side.ACCEPTOR:
        assert definition.otherwise is not None
        definition = definition.otherwise
    is_violation = Effect.SEND_ABORT in definition.effects and event is not Event.EVT15
    if is_violation and state is not State.STA13:
        with pytest.raises(ProtocolViolation) as caught:
            stimulate(machine, event)
        error = caught.value
        assert replies(machine) == on_the_wire(Abort(error.abort_source, error.abort_reason))
        assert type(error) is (UnrecognisedPDU if event is Event.EVT19 else UnexpectedPDU)
        assert (error.abort_source, error.abort_reason) == ((2, 1) if event is Event.EVT19 else (2, 2))
    else:
        outcome = stimulate(machine, event)
        if event in SENT:
            sent = b"".join(bytes(buffer) for buffer in outcome)  # type: ignore[attr-defined]
            assert sent == (b"" if action is Action.AA_2 else on_the_wire(SENT[event]))
            assert replies(machine) == b""
        elif is_violation:
            assert outcome is None
            assert replies(machine)[:2] == b"\x07\0"
        elif event in RECEIVED:
            told = {Effect.INDICATE, Effect.CLOSE_TRANSPORT} & set(definition.effects)
            assert outcome == (RECEIVED[event] if told else None)
        elif event is Event.EVT17:
            assert outcome == ConnectionClosed()
        else:
            assert outcome is None
    assert machine.state is definition.next_state
    assert machine.artim_running == (machine.state in (State.STA2, State.STA13))
    assert machine.must_close == (machine.state is State.STA1)
    assert replies(machine) == b""


def check_blank(machine: UpperLayer, event: Event, state: State) -> None:
    if event in SENT or event is Event.EVT18:
        with pytest.raises(LocalProtocolError, match=rf"in Sta{state:d} \({state.meaning}\)"):
            stimulate(machine, event)
    elif state is State.STA1:
        with pytest.raises(LocalProtocolError, match="before there is a connection"):
            stimulate(machine, event)
    else:
        assert state is State.STA4  # where bytes wait
        assert stimulate(machine, event) is None
    assert machine.state is state
    assert replies(machine) == b""


@pytest.mark.parametrize(("side", "state"), [(Side.REQUESTOR, State.STA4), (Side.ACCEPTOR, State.STA2)])
def test_a_machine_is_connected_once(side: Side, state: State) -> None:
    machine = UpperLayer(side, Limits())
    assert (machine.side, machine.state, machine.must_close) == (side, State.STA1, False)
    machine.connected()
    assert machine.state is state
    with pytest.raises(LocalProtocolError, match="one transport connection"):
        machine.connected()


# --- associating


@pytest.mark.fault_row(3)
@pytest.mark.parametrize("triple", [(1, 1, 1), (1, 1, 7), (1, 2, 2), (2, 3, 1), (2, 3, 2)])
def test_fault3_a_rejection_ends_it(triple: tuple[int, int, int]) -> None:
    machine = machine_in(State.STA5)
    assert hear(machine, AssociateRJ(*triple)) == AssociateRJ(*triple)
    assert machine.must_close


@pytest.mark.fault_row(4)
def test_fault4_a_rejection_without_a_meaning_is_one() -> None:
    machine = machine_in(State.STA5)
    assert hear(machine, AssociateRJ(0, 255, 99)) == AssociateRJ(0, 255, 99)
    assert machine.must_close


@pytest.mark.fault_row(18, 19, 41, 71)
@pytest.mark.parametrize(
    ("state", "pdu", "name"),
    [
        pytest.param(State.STA6, AC, "A-ASSOCIATE-AC", id="fault18-second-AC"),
        pytest.param(State.STA6, RJ, "A-ASSOCIATE-RJ", id="fault18-RJ-when-established"),
        pytest.param(State.STA5, RQ, "A-ASSOCIATE-RQ", id="fault18-RQ-to-the-requestor"),
        pytest.param(State.STA5, DATA, "P-DATA-TF", id="fault19-data-before-AC"),
        pytest.param(State.STA6, ReleaseRP(), "A-RELEASE-RP", id="fault41-unsolicited-RP"),
        pytest.param(State.STA6, RQ, "A-ASSOCIATE-RQ", id="fault71-second-RQ"),
        pytest.param(State.STA3, DATA, "P-DATA-TF", id="data-before-our-answer"),
        pytest.param(State.STA8, DATA, "P-DATA-TF", id="data-after-the-peer-released"),
        pytest.param(State.STA2, DATA, "P-DATA-TF", id="data-before-RQ"),
    ],
)
def test_a_pdu_at_the_wrong_time_is_answered_by_2_2(state: State, pdu: PDU, name: str) -> None:
    machine = machine_in(state)
    with pytest.raises(UnexpectedPDU, match=f"{name} in Sta{state:d} "):
        hear(machine, pdu)
    assert replies(machine) == on_the_wire(Abort(2, 2))
    assert machine.state is State.STA13
    assert machine.artim_running


def test_data_before_our_request_is_judged_once_it_is_sent() -> None:
    machine = machine_in(State.STA4)
    assert hear(machine, DATA) is None
    machine.send(RQ)
    with pytest.raises(UnexpectedPDU):
        machine.next_event()


@pytest.mark.fault_row(63)
@pytest.mark.parametrize("version", [0, 2, 0xFFFE])
def test_fault63_another_protocol_version_is_rejected(version: int) -> None:
    machine = machine_in(State.STA2)
    request = AssociateRQ("PACS", "ME", RQ.presentation_contexts, (), protocol_version=version)
    assert hear(machine, request) is None
    assert replies(machine) == on_the_wire(AssociateRJ(1, 2, 2))
    assert machine.state is State.STA13
    assert machine.artim_running
    assert hear(machine, request) is None
    assert replies(machine)[:1] == b"\x07"  # AA-7


def test_only_bit_0_of_the_protocol_version_is_tested() -> None:
    machine = machine_in(State.STA2)
    assert isinstance(
        hear(machine, AssociateRQ("P", "M", RQ.presentation_contexts, (), protocol_version=3)), AssociateRQ
    )


# --- invalid PDUs


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (b"\x00\0\0\0\0\4", UnrecognisedPDU, 1),
        (b"HTTP/1.1 400 Bad Request", UnrecognisedPDU, 1),
        (b"\x04\0\xff\xff\xff\xff", InvalidPDU, 6),
        (b"\x05\0\0\0\0\5", InvalidPDU, 6),
        (b"\x04\0\0\0\0\6\0\0\0\1\1\3", InvalidPDU, 6),
    ],
)
@pytest.mark.parametrize("state", [state for state in State if state not in (State.STA1, State.STA4, State.STA13)])
def test_invalid_bytes_are_answered_by_what_is_wrong(
    state: State, data: bytes, error: type[ProtocolViolation], reason: int
) -> None:
    machine = machine_in(state)
    machine.receive_data(data)
    with pytest.raises(error):
        machine.next_event()
    assert replies(machine) == on_the_wire(Abort(2, reason))
    assert machine.state is State.STA13


def test_after_a_violation_the_rest_is_ignored_until_the_end() -> None:
    machine = machine_in(State.STA6)
    machine.receive_data(on_the_wire(AC) + on_the_wire(DATA) + on_the_wire(ReleaseRQ()) + on_the_wire(ABORT))
    with pytest.raises(UnexpectedPDU):
        machine.next_event()
    assert replies(machine) == on_the_wire(Abort(2, 2))
    assert machine.next_event() == ABORT
    assert replies(machine) == b""
    assert machine.must_close
    assert machine.next_event() is None


def test_garbage_in_sta13_is_answered_and_does_not_end() -> None:
    machine = machine_in(State.STA13)
    machine.receive_data(INVALID + b"x" * 10_000)
    assert machine.next_event() is None
    assert replies(machine) == on_the_wire(Abort(2, 1))
    machine.receive_data(b"y" * 10_000)
    assert machine.next_event() is None
    assert replies(machine) == b""
    machine.artim_expired()
    assert machine.must_close


# --- releasing


@pytest.mark.fault_row(37)
def test_fault37_the_peer_releases_while_we_still_send() -> None:
    machine = machine_in(State.STA6)
    assert hear(machine, ReleaseRQ()) == ReleaseRQ()
    machine.check_can_send_data()
    assert machine.send(DATA)  # AR-7
    assert machine.state is State.STA8
    assert machine.send(ReleaseRP())
    assert machine.artim_running
    machine.receive_data(b"")
    assert machine.next_event() == ConnectionClosed()
    assert machine.must_close


@pytest.mark.fault_row(39)
@pytest.mark.parametrize("side", Side)
def test_fault39_data_still_arrives_after_our_release_request(side: Side) -> None:
    machine = machine_in(State.STA7, side)
    assert hear(machine, DATA) == DATA
    assert machine.state is State.STA7
    assert hear(machine, ReleaseRP()) == ReleaseRP()
    assert machine.must_close


@pytest.mark.fault_row(38)
def test_fault38_both_sides_release_at_once_and_end_clean() -> None:
    requestor, acceptor = established(Side.REQUESTOR), established(Side.ACCEPTOR)
    from_requestor = requestor.send(ReleaseRQ())
    from_acceptor = acceptor.send(ReleaseRQ())
    for machine, buffers in ((requestor, from_acceptor), (acceptor, from_requestor)):
        machine.receive_data(b"".join(bytes(buffer) for buffer in buffers))
        assert machine.next_event() == ReleaseRQ()
    assert (requestor.state, acceptor.state) == (State.STA9, State.STA10)
    with pytest.raises(LocalProtocolError):
        acceptor.send(ReleaseRP())  # the requestor is first
    acceptor.receive_data(b"".join(bytes(buffer) for buffer in requestor.send(ReleaseRP())))
    assert acceptor.next_event() == ReleaseRP()
    assert (requestor.state, acceptor.state) == (State.STA11, State.STA12)
    requestor.receive_data(b"".join(bytes(buffer) for buffer in acceptor.send(ReleaseRP())))
    assert requestor.next_event() == ReleaseRP()
    assert requestor.must_close
    assert acceptor.state is State.STA13
    acceptor.receive_data(b"")
    assert acceptor.next_event() == ConnectionClosed()
    assert acceptor.must_close
    assert not requestor.artim_running
    assert not acceptor.artim_running


@pytest.mark.fault_row(40)
def test_fault40_a_release_that_is_not_answered_can_be_aborted() -> None:
    machine = machine_in(State.STA7)
    assert machine.send(ABORT) == ABORT.encode()
    assert machine.state is State.STA13


# --- the end of the transport


@pytest.mark.parametrize("state", [state for state in State if state is not State.STA1])
def test_a_failed_send_ends_it(state: State) -> None:
    machine = machine_in(state)
    machine.send_failed()
    assert machine.must_close
    assert not machine.artim_running
    machine.send_failed()
    assert machine.must_close


def test_a_failed_send_forgets_the_reply() -> None:
    machine = machine_in(State.STA6)
    with pytest.raises(UnexpectedPDU):
        hear(machine, AC)
    machine.send_failed()
    assert machine.reply() == []


def test_what_came_before_the_end_comes_before_the_end() -> None:
    machine = machine_in(State.STA6)
    machine.receive_data(on_the_wire(DATA) + on_the_wire(DATA)[:7])
    machine.receive_data(b"")
    assert machine.next_event() == DATA
    assert machine.is_inside_pdu
    assert machine.next_event() == ConnectionClosed(inside_pdu=True)
    assert machine.must_close
    with pytest.raises(LocalProtocolError, match="after the end"):
        machine.receive_data(b"x")


def test_the_end_is_told_once() -> None:
    machine = machine_in(State.STA6)
    machine.receive_data(b"")
    assert machine.next_event() == ConnectionClosed()
    machine.receive_data(b"")
    assert machine.next_event() is None


# --- the local user


@pytest.mark.parametrize("state", State)
def test_whether_data_can_be_sent_is_what_send_says(state: State) -> None:
    for call in (machine_in(state).check_can_send_data, lambda: machine_in(state).send(DATA)):
        if state in (State.STA6, State.STA8):
            call()
        else:
            with pytest.raises(LocalProtocolError, match=f"no P-DATA-TF in Sta{state:d} "):
                call()


def test_an_abort_says_what_the_user_says() -> None:
    assert machine_in(State.STA6).send(Abort(2, 6)) == Abort(2, 6).encode()


def test_a_pdu_that_cannot_be_encoded_changes_nothing() -> None:
    machine = machine_in(State.STA4)
    with pytest.raises(ValueError, match="AE title"):
        machine.send(AssociateRQ("X" * 17, "ME", RQ.presentation_contexts, ()))
    assert machine.state is State.STA4


# --- chunks


@pytest.mark.fault_row(46)
@pytest.mark.parametrize("size", [1, 2, 5, 7, 11, 64, 10_000])
def test_fault46_the_events_do_not_depend_on_the_chunks(size: int) -> None:
    pdus: list[PDU] = [AC, DATA, PDataTF((PDV(1, False, True, b"0123456789" * 20),)), DATA, ReleaseRQ()]
    stream = b"".join(on_the_wire(pdu) for pdu in pdus)
    machine = machine_in(State.STA5)
    events = []
    for start in range(0, len(stream), size):
        machine.receive_data(stream[start : start + size])
        while (event := machine.next_event()) is not None:
            events.append(event)
    assert events == pdus


@pytest.mark.fault_row(72)
@pytest.mark.parametrize("size", [1, 10_000])
def test_fault72_the_longest_pdu_with_data_is_known(size: int) -> None:
    machine = machine_in(State.STA5)
    assert len(on_the_wire(AC)) > 16
    stream = b"".join(on_the_wire(pdu) for pdu in (AC, PDataTF((PDV(1, False, True, b"0123456789"),)), DATA))
    for start in range(0, len(stream), size):
        machine.receive_data(stream[start : start + size])
        while machine.next_event() is not None:
            pass
    assert machine.longest_p_data == 16  # length, context ID and control header are part of it


@pytest.mark.parametrize("state", State)
def test_data_comes_the_short_way_only_while_the_association_is_open(state: State) -> None:
    machine = machine_in(state)
    if state is not State.STA1:
        machine.receive_data(on_the_wire(PDataTF((PDV(1, False, True, b"abcd"),))))
    pieces, is_last = machine.next_data(1)
    assert ([*map(bytes, pieces)], is_last) == (([b"abcd"], True) if state is State.STA6 else ([], False))


def test_what_was_received_is_forgotten() -> None:
    machine = machine_in(State.STA6)
    machine.receive_data(on_the_wire(DATA)[:-1])
    assert machine.is_inside_pdu
    machine.forget()
    assert not machine.is_inside_pdu
    machine.receive_data(on_the_wire(ABORT))
    assert machine.next_event() == ABORT


@pytest.mark.parametrize("wrong", [on_the_wire(AC), b"\x00\0\0\0\0\0"], ids=["unexpected", "unrecognised"])
def test_a_violation_keeps_nothing_that_was_received(wrong: bytes) -> None:
    machine = machine_in(State.STA6)
    machine.receive_data(wrong)
    is_there = weakref.ref(machine)
    gc.disable()
    try:
        with contextlib.suppress(ProtocolViolation):
            machine.next_event()
        assert machine.state is State.STA13
        del machine
        assert is_there() is None  # without a collection of garbage
    finally:
        gc.enable()
