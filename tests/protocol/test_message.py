"""Messages cut into PDVs and put together again."""

from __future__ import annotations

import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_dicom.errors import DIMSEDecodeError, InvalidPDU, InvalidResponse, ProtocolViolation, UnexpectedPDU
from trio_dicom.protocol.command import CEchoRQ, CEchoRSP, CStoreRQ, CStoreRSP, encode_command
from trio_dicom.protocol.message import CommandReceived, DataFragment, MessageAssembler, fragment, payload_per_pdu
from trio_dicom.protocol.pdu import PDV, PDataTF, decode_pdu
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.settings import Limits
from trio_dicom.uids import VERIFICATION

LIMITS = Limits()


def pdus_of(buffers: list[bytes | bytearray | memoryview]) -> list[PDataTF]:
    """The PDUs that a peer reads from `buffers`."""
    received = ReceiveBuffer(LIMITS)
    received.feed(b"".join(buffers))
    pdus = []
    while pdu := received.next_pdu():
        assert isinstance(pdu, PDataTF)
        pdus.append(pdu)
    assert not received.is_inside_pdu
    return pdus


# --- fragment -------------------------------------------------------------------------------------------------------


@given(
    data=st.binary(max_size=300),
    context_id=st.integers(0, 127).map(lambda n: 2 * n + 1),
    max_pdu_length=st.integers(8, 320),
    is_command=st.booleans(),
    is_last=st.booleans(),
)
def test_fragments_are_the_data_in_order(
    data: bytes, context_id: int, max_pdu_length: int, is_command: bool, is_last: bool
) -> None:
    if not is_last:
        data = data[: len(data) & ~1]
    pdus = pdus_of(fragment(data, context_id, max_pdu_length, is_command=is_command, is_last=is_last))
    pdvs = [pdv for pdu in pdus for pdv in pdu.pdvs]
    assert len(pdvs) == len(pdus)
    assert b"".join(pdv.data for pdv in pdvs) == data
    assert all(pdv.context_id == context_id and pdv.is_command == is_command for pdv in pdvs)
    assert [pdv.is_last for pdv in pdvs] == [False] * (len(pdvs) - 1) + [is_last] * bool(pdvs)
    assert all(6 + len(pdv.data) <= max_pdu_length for pdv in pdvs)
    assert all(len(pdv.data) % 2 == 0 for pdv in pdvs[:-1])
    assert all(len(pdv.data) == payload_per_pdu(max_pdu_length) for pdv in pdvs[:-1])


def test_fragments_are_headers_and_views_in_turns() -> None:
    data = bytes(100)
    buffers = fragment(data, 5, 36, is_command=False, is_last=True)
    headers, views = buffers[::2], buffers[1::2]
    assert [len(header) for header in headers] == [12] * 4
    assert all(header is headers[0] for header in headers[:-1])
    assert headers[0] == bytes.fromhex("0400 00000024 00000020 05 00")
    assert headers[-1] == bytes.fromhex("0400 00000010 0000000c 05 02")
    for view in views:
        assert isinstance(view, memoryview)
        assert view.obj is data


@pytest.mark.parametrize(
    ("is_command", "is_last", "control"), [(False, False, 0), (True, False, 1), (False, True, 2), (True, True, 3)]
)
def test_the_control_header_says_command_and_last(is_command: bool, is_last: bool, control: int) -> None:
    header, _ = fragment(b"ab", 1, 16384, is_command=is_command, is_last=is_last)
    assert header[11] == control


def test_empty_data_is_an_empty_last_pdv_or_nothing() -> None:
    assert pdus_of(fragment(b"", 1, 16384, is_command=False, is_last=True)) == [PDataTF((PDV(1, False, True, b""),))]
    assert fragment(b"", 1, 16384, is_command=False, is_last=False) == []


@pytest.mark.parametrize(
    ("max_pdu_length", "payload"), [(8, 2), (9, 2), (10, 4), (16384, 16378), (16385, 16378), (0xFFFFFFFF, 0xFFFFFFF8)]
)
def test_payload_is_what_is_left_of_a_pdu_and_even(max_pdu_length: int, payload: int) -> None:
    assert payload_per_pdu(max_pdu_length) == payload


@pytest.mark.fault_row(11)
@pytest.mark.parametrize("max_pdu_length", range(-1, 8))
def test_fault11_no_room_for_data_is_no_endless_loop(max_pdu_length: int) -> None:
    with pytest.raises(ValueError, match="no room for data"):
        payload_per_pdu(max_pdu_length)
    with pytest.raises(ValueError, match="no room for data"):
        fragment(b"ab", 1, max_pdu_length, is_command=False, is_last=True)


@pytest.mark.fault_row(11)
def test_fault11_8_is_enough() -> None:
    pdus = pdus_of(fragment(b"abcdef", 1, 8, is_command=False, is_last=True))
    assert [bytes(pdu.pdvs[0].data) for pdu in pdus] == [b"ab", b"cd", b"ef"]


@pytest.mark.fault_row(12)
def test_fault12_the_largest_maximum_makes_one_pdu() -> None:
    assert len(pdus_of(fragment(bytes(1000), 1, 0xFFFFFFFF, is_command=False, is_last=True))) == 1


def test_an_odd_piece_is_not_sent_in_the_middle() -> None:
    with pytest.raises(ValueError, match="even number of bytes, not 3"):
        fragment(b"abc", 1, 16384, is_command=False, is_last=False)


def test_buffers_of_other_shapes_are_taken_as_bytes() -> None:
    numbers = array.array("H", [1, 2, 3, 4])
    for data in (numbers.tobytes(), bytearray(numbers.tobytes()), memoryview(numbers)):
        buffers = fragment(data, 1, 10, is_command=False, is_last=True)
        assert b"".join(buffers[1::2]) == numbers.tobytes()


# --- MessageAssembler -----------------------------------------------------------------------------------------------

STORE_RQ = CStoreRQ(7, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")
ECHO_RQ = CEchoRQ(8, VERIFICATION)
STORE_RSP = CStoreRSP(7, 0)


def command_pdv(data: bytes, *, is_last: bool = True, context_id: int = 1) -> PDV:
    return PDV(context_id, True, is_last, data)


def data_pdv(data: bytes, *, is_last: bool = True, context_id: int = 1) -> PDV:
    return PDV(context_id, False, is_last, data)


@given(st.integers(8, 200), st.binary(max_size=100))
def test_messages_come_out_as_they_went_in(max_pdu_length: int, data: bytes) -> None:
    buffers = [
        *fragment(encode_command(STORE_RQ), 1, max_pdu_length, is_command=True, is_last=True),
        *fragment(data, 1, max_pdu_length, is_command=False, is_last=True),
        *fragment(encode_command(ECHO_RQ), 3, max_pdu_length, is_command=True, is_last=True),
    ]
    assembler = MessageAssembler(LIMITS)
    events = [assembler.receive(pdv) for pdu in pdus_of(buffers) for pdv in pdu.pdvs]
    came = [event for event in events if event is not None]
    assert came[0] == CommandReceived(1, STORE_RQ)
    assert came[-1] == CommandReceived(3, ECHO_RQ)
    pieces = [event for event in came[1:-1] if isinstance(event, DataFragment)]
    assert len(pieces) == len(came) - 2
    assert all(piece.context_id == 1 for piece in pieces)
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert not assembler.is_inside_message


def test_is_inside_message_from_the_first_fragment_to_the_last() -> None:
    assembler = MessageAssembler(LIMITS)
    raw = encode_command(STORE_RQ)
    assert not assembler.is_inside_message
    seen = []
    for pdv in (
        command_pdv(raw[:10], is_last=False),
        command_pdv(raw[10:]),
        data_pdv(b"ab", is_last=False),
        data_pdv(b"cd"),
        command_pdv(encode_command(STORE_RSP)),
    ):
        assembler.receive(pdv)
        seen.append(assembler.is_inside_message)
    assert seen == [True, True, True, False, False]


def test_data_that_came_another_way_counts_as_if_it_had_come_this_way() -> None:
    request = encode_command(CStoreRQ(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.3"))
    assembler = MessageAssembler(Limits(empty_pdvs=1))
    assert assembler.data_context_id is None
    for _ in range(2):
        assembler.receive(command_pdv(request, context_id=5))
        assert assembler.data_context_id == 5
        for _ in range(3):  # more than may come in a row
            assembler.receive(data_pdv(b"", is_last=False, context_id=5))
            assembler.receive_data(is_last=False)
        assert assembler.data_context_id == 5
        assembler.receive_data(is_last=True)
        assert assembler.data_context_id is None
        assert not assembler.is_inside_message


def test_a_last_fragment_may_be_empty() -> None:
    assembler = MessageAssembler(LIMITS)
    assert assembler.receive(command_pdv(encode_command(STORE_RQ), is_last=False)) is None
    assert assembler.receive(command_pdv(b"")) == CommandReceived(1, STORE_RQ)
    assert assembler.receive(data_pdv(b"ab", is_last=False)) == DataFragment(1, b"ab", False)
    assert assembler.receive(data_pdv(b"")) == DataFragment(1, b"", True)


def test_data_is_passed_on_without_a_copy() -> None:
    raw = b"".join(fragment(b"pixels", 1, 16384, is_command=False, is_last=True))
    pdu = decode_pdu(raw[0], memoryview(raw)[6:], LIMITS)
    assert isinstance(pdu, PDataTF)
    assembler = MessageAssembler(LIMITS)
    assembler.receive(command_pdv(encode_command(STORE_RQ)))
    event = assembler.receive(pdu.pdvs[0])
    assert isinstance(event, DataFragment)
    assert event.data is pdu.pdvs[0].data
    assert "pixels" not in repr(event)


def assert_violation(
    error: type[ProtocolViolation], assembler: MessageAssembler, pdv: PDV, match: str | None = None
) -> None:
    with pytest.raises(error, match=match) as caught:
        assembler.receive(pdv)
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)


@pytest.mark.fault_row(23)
@pytest.mark.parametrize(
    "before",
    [
        pytest.param([], id="fault23-at-the-start"),
        pytest.param([command_pdv(encode_command(STORE_RQ)[:20], is_last=False)], id="fault23-in-the-command"),
        pytest.param([command_pdv(encode_command(STORE_RSP))], id="fault23-after-a-command-without-data"),
        pytest.param([command_pdv(encode_command(STORE_RQ)), data_pdv(b"ab")], id="fault23-after-the-last"),
    ],
)
def test_data_where_a_command_is_to_come_is_refused(before: list[PDV]) -> None:
    assembler = MessageAssembler(LIMITS)
    for pdv in before:
        assembler.receive(pdv)
    assert_violation(UnexpectedPDU, assembler, data_pdv(b"ab"), "a data fragment where a command")


@pytest.mark.fault_row(23)
@pytest.mark.parametrize("data", [[], [b"ab"]], ids=["fault23-before-the-data", "fault23-in-the-data"])
def test_a_command_where_data_is_to_come_is_refused(data: list[bytes]) -> None:
    assembler = MessageAssembler(LIMITS)
    assembler.receive(command_pdv(encode_command(STORE_RQ)))
    for piece in data:
        assembler.receive(data_pdv(piece, is_last=False))
    assert_violation(UnexpectedPDU, assembler, command_pdv(encode_command(ECHO_RQ)), "a command fragment where a data")


@pytest.mark.fault_row(23)
@pytest.mark.parametrize(
    ("before", "then"),
    [
        (command_pdv(b"ab", is_last=False), command_pdv(b"cd", context_id=3)),
        (command_pdv(encode_command(STORE_RQ)), data_pdv(b"ab", context_id=3)),
        (command_pdv(encode_command(STORE_RQ)), command_pdv(encode_command(ECHO_RQ), context_id=3)),
    ],
    ids=["fault23-command", "fault23-data", "fault23-interleaved-message"],
)
def test_another_context_in_the_middle_of_a_message_is_refused(before: PDV, then: PDV) -> None:
    assembler = MessageAssembler(LIMITS)
    assembler.receive(before)
    assert_violation(UnexpectedPDU, assembler, then, "context 3 in the middle of a message on 1")


@pytest.mark.fault_row(24)
def test_fault24_a_command_that_never_ends_is_stopped_by_its_size() -> None:
    limits = Limits(command_set=1000)
    assembler = MessageAssembler(limits)
    for _ in range(10):
        assert assembler.receive(command_pdv(bytes(100), is_last=False)) is None
    assert_violation(DIMSEDecodeError, assembler, command_pdv(b"ab", is_last=False), "more than 1000 bytes")


@pytest.mark.fault_row(24)
def test_fault24_one_fragment_of_a_command_is_held_against_the_limit_too() -> None:
    assert_violation(DIMSEDecodeError, MessageAssembler(Limits(command_set=256)), command_pdv(bytes(258)))


@pytest.mark.fault_row(24)
def test_fault24_a_command_that_never_ends_is_stopped_by_its_fragments() -> None:
    assembler = MessageAssembler(Limits(command_fragments=5))
    for _ in range(5):
        assembler.receive(command_pdv(b"ab", is_last=False))
    assert_violation(DIMSEDecodeError, assembler, command_pdv(b"ab", is_last=False), "more than 5 fragments")


@pytest.mark.fault_row(24)
def test_fault24_limits_hold_for_each_command_anew() -> None:
    raw = encode_command(STORE_RSP)
    assembler = MessageAssembler(Limits(command_fragments=2, command_set=256))
    for _ in range(5):
        assert assembler.receive(command_pdv(raw[:10], is_last=False)) is None
        assert assembler.receive(command_pdv(raw[10:])) == CommandReceived(1, STORE_RSP)


@pytest.mark.fault_row(24)
@pytest.mark.parametrize("kind", ["command", "data"])
def test_fault24_empty_pdvs_without_end_are_stopped(kind: str) -> None:
    assembler = MessageAssembler(Limits(empty_pdvs=4))
    pdv = command_pdv(b"", is_last=False)
    if kind == "data":
        assembler.receive(command_pdv(encode_command(STORE_RQ)))
        pdv = data_pdv(b"", is_last=False)
    for _ in range(4):
        assembler.receive(pdv)
    assert_violation(InvalidPDU, assembler, pdv, "more than 4 empty PDVs")


@pytest.mark.fault_row(24)
def test_fault24_only_empty_pdvs_in_a_row_count() -> None:
    assembler = MessageAssembler(Limits(empty_pdvs=1))
    assembler.receive(command_pdv(encode_command(STORE_RQ)))
    for _ in range(10):
        assembler.receive(data_pdv(b"", is_last=False))
        assembler.receive(data_pdv(b"ab", is_last=False))


def test_a_command_that_cannot_be_read_is_a_violation() -> None:
    assert_violation(DIMSEDecodeError, MessageAssembler(LIMITS), command_pdv(b"\0" * 7))
    assert_violation(DIMSEDecodeError, MessageAssembler(LIMITS), command_pdv(b""))


@pytest.mark.fault_row(26)
def test_fault26_a_response_without_status_is_no_response() -> None:
    raw = encode_command(CEchoRSP(1, 0, VERIFICATION))
    status = bytes.fromhex("00000009 02000000 0000")
    assert status in raw
    assert_violation(InvalidResponse, MessageAssembler(LIMITS), command_pdv(raw.replace(status, b"")))
