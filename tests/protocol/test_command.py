"""Command sets: what is written, what is read, and what is refused."""

from __future__ import annotations

import struct
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_dicom.errors import DIMSEDecodeError, InvalidResponse, ProtocolViolation
from trio_dicom.protocol import other_services
from trio_dicom.protocol.command import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    Command,
    CommandField,
    CStoreRQ,
    CStoreRSP,
    Priority,
    UnknownRQ,
    decode_command,
    encode_command,
    response_to,
)
from trio_dicom.protocol.other_services import (
    CGetRSP,
    CMoveRQ,
    NActionRSP,
    NEventReportRQ,
    NGetRQ,
    NGetRSP,
    NSetRSP,
)

MESSAGES = [CStoreRQ, CStoreRSP, CEchoRQ, CEchoRSP, CCancelRQ, *other_services.MESSAGES.values()]
CT = "1.2.840.10008.5.1.4.1.1.2"


def element(number: int, value: bytes, *, group: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


def us(number: int, value: int) -> bytes:
    return element(number, value.to_bytes(2, "little"))


def command_set(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return element(0, len(body).to_bytes(4, "little")) + body


# What each test takes one element out of, or puts a wrong one into.
RSP = {
    0x0002: element(0x0002, b"1.2.3\0"),
    0x0100: us(0x0100, 0x8001),
    0x0120: us(0x0120, 7),
    0x0800: us(0x0800, 0x0101),
    0x0900: us(0x0900, 0),
    0x1000: element(0x1000, b"1.2.4\0"),
}


def rsp(changes: dict[int, bytes] | None = None) -> bytes:
    elements = RSP | (changes or {})
    return command_set(*(elements[number] for number in sorted(elements)))


def test_a_c_store_rq_byte_by_byte() -> None:
    command = CStoreRQ(258, "1.2.3", "1.2.34", Priority.LOW, "MOVER", 4)
    assert encode_command(command) == command_set(
        element(0x0002, b"1.2.3\0"),
        us(0x0100, 1),
        us(0x0110, 258),
        us(0x0700, 2),
        us(0x0800, 1),
        element(0x1000, b"1.2.34"),
        element(0x1030, b"MOVER "),
        us(0x1031, 4),
    )


def test_a_c_store_rsp_byte_by_byte() -> None:
    command = CStoreRSP(
        7, 0xA700, CT, error_comment="Disk full", offending_elements=(0x0008_0018, 0x7FE0_0010), error_id=3
    )
    assert encode_command(command) == command_set(
        element(0x0002, CT.encode() + b"\0"),
        us(0x0100, 0x8001),
        us(0x0120, 7),
        us(0x0800, 0x0101),
        us(0x0900, 0xA700),
        element(0x0901, b"\x08\0\x18\0\xe0\x7f\x10\0"),
        element(0x0902, b"Disk full "),
        us(0x0903, 3),
    )


UIDS = st.sampled_from(["1.2.3", CT, "2.25.42"])
TEXT = st.from_regex(r"[!-~]([ -~]{0,10}[!-~])?", fullmatch=True)
NUMBERS = st.integers(0, 0xFFFF)
TAGS = st.lists(st.integers(0, 0xFFFF_FFFF), max_size=3).map(tuple)


def values_of(field: attrs.Attribute[Any]) -> st.SearchStrategy[Any]:
    kinds = {"int": NUMBERS, "bool": st.booleans(), "tuple[int, ...]": TAGS}
    kind, _, optional = str(field.type).partition(" | ")
    values = kinds.get(kind, UIDS if field.name.endswith("uid") else TEXT)
    return values | st.none() if optional else values


@pytest.mark.parametrize("message", MESSAGES)
def test_round_trip_of_every_message(message: type[Command]) -> None:
    @given(st.builds(message, **{field.name: values_of(field) for field in attrs.fields(message)}))
    def check(command: Command) -> None:
        encoded = encode_command(command)
        assert decode_command(encoded) == command
        assert len(encoded) % 2 == 0
        assert int.from_bytes(encoded[8:12], "little") == len(encoded) - 12

    check()


def test_every_command_field_has_its_message() -> None:
    assert {message.command_field for message in MESSAGES} == set(CommandField)
    for field in CommandField:
        if field.name.endswith("_RSP"):
            assert CommandField[field.name.replace("_RSP", "_RQ")] | 0x8000 == field


@pytest.mark.fault_row(84)
@pytest.mark.parametrize("field", [0x0002, 0x0131, 0x0FFE, 0x7FFF])
def test_fault84_a_request_of_a_command_field_that_is_none_can_be_answered(field: int) -> None:
    request = decode_command(command_set(us(0x0100, field), us(0x0110, 7), us(0x0800, 1)))
    assert request == UnknownRQ(field, 7, has_data_set=True)
    assert encode_command(response_to(request, 0x0211, "no")) == command_set(
        us(0x0100, field | 0x8000), us(0x0120, 7), us(0x0800, 0x0101), us(0x0900, 0x0211), element(0x0902, b"no")
    )


def test_data_sets_by_default() -> None:
    """Those without which the message makes no sense."""
    by_default = {message.__name__ for message in MESSAGES if attrs.fields(message).has_data_set.default}
    assert by_default == {"CStoreRQ", "CFindRQ", "CGetRQ", "CMoveRQ", "NSetRQ"}


def test_priorities() -> None:
    assert {each.name: each.value for each in Priority} == {"MEDIUM": 0, "HIGH": 1, "LOW": 2}


@pytest.mark.parametrize("data", [bytearray, memoryview])
def test_any_buffer_is_decoded(data: Any) -> None:
    assert decode_command(data(rsp())) == CStoreRSP(7, 0, "1.2.3", "1.2.4")


@pytest.mark.parametrize(
    "command",
    [
        CStoreRQ(0x10000, CT, "1.2"),
        CStoreRQ(-1, CT, "1.2"),
        CStoreRSP(1, 0, error_comment="日本"),
        NGetRQ(1, CT, "1.2", (1 << 32,)),
    ],
)
def test_what_does_not_fit_is_a_value_error(command: Command) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the codec has words of its own
        encode_command(command)


# --- liberal where nothing is lost


@pytest.mark.fault_row(28)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({0x0002: element(0x0002, b"1.2.3 "), 0x1000: element(0x1000, b"1.2.4 ")}, id="fault28-spaces"),
        pytest.param({0x0002: element(0x0002, b"1.2.3\0\0\0")}, id="fault28-NULs"),
        pytest.param({0x0001: element(0x0001, b"\0\0\0\0"), 0x5110: element(0x5110, b"xyz ")}, id="unknown-elements"),
        pytest.param({0x0902: element(0x0902, b"")}, id="empty-comment"),
        pytest.param({0x0901: element(0x0901, b"")}, id="no-offending-elements"),
    ],
)
def test_what_makes_no_difference(changes: dict[int, bytes]) -> None:
    assert decode_command(rsp(changes)) == CStoreRSP(7, 0, "1.2.3", "1.2.4")


@pytest.mark.fault_row(25)
@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_fault25_a_wrong_group_length_alone_is_tolerated(length: bytes) -> None:
    assert decode_command(rsp()[:8] + length + rsp()[12:]) == decode_command(rsp())


def test_a_missing_group_length_is_tolerated() -> None:
    assert decode_command(rsp()[12:]) == decode_command(rsp())


def test_absent_and_empty_uids_of_a_response_are_none() -> None:
    expected = CStoreRSP(7, 0)
    without = {number: value for number, value in RSP.items() if number not in (0x0002, 0x1000)}
    assert decode_command(command_set(*without.values())) == expected
    assert decode_command(rsp({0x0002: element(0x0002, b""), 0x1000: element(0x1000, b"")})) == expected


@pytest.mark.fault_row(36)
def test_fault36_an_error_comment_is_kept_raw() -> None:
    comment = "\x1b[31m" + "\xe4" * 95
    command = decode_command(rsp({0x0902: element(0x0902, comment.encode("latin-1"))}))
    assert isinstance(command, CStoreRSP)
    assert command.error_comment == comment


@pytest.mark.fault_row(35)
@pytest.mark.parametrize("value", [0, 1, 0x0102, 0xFFFF])
def test_fault35_every_data_set_type_but_0101_announces_one(value: int) -> None:
    assert decode_command(rsp({0x0800: us(0x0800, value)})).has_data_set


@pytest.mark.fault_row(33, 34)
@pytest.mark.parametrize("status", [0xFF00, 0xFE00, 0x1234, 0x0107])
def test_fault33_fault34_any_status_is_kept(status: int) -> None:
    command = decode_command(rsp({0x0900: us(0x0900, status)}))
    assert isinstance(command, CStoreRSP)
    assert command.status == status


# fault 74: what a service answers with a status is decoded.
def test_a_request_without_uids_and_with_a_bad_priority_is_for_the_service() -> None:
    request = command_set(us(0x0100, 1), us(0x0110, 9), us(0x0700, 77), us(0x0800, 1))
    assert decode_command(request) == CStoreRQ(9, "", "", priority=77)
    assert decode_command(command_set(us(0x0100, 0x21), us(0x0110, 9), us(0x0800, 1))) == CMoveRQ(9, "", "")


def test_fields_that_few_messages_have() -> None:
    got = CGetRSP(1, 0xFF00, number_of_remaining_sub_operations=4, number_of_failed_sub_operations=0)
    assert decode_command(encode_command(got)) == got
    assert decode_command(encode_command(NActionRSP(1, 0, action_type_id=2))) == NActionRSP(1, 0, action_type_id=2)
    listed = NSetRSP(1, 0x0107, attribute_identifier_list=(0x0010_0010,))
    assert decode_command(encode_command(listed)) == listed
    # The counts are no field of a C-STORE-RSP, so there they are skipped.
    assert decode_command(rsp({0x1020: us(0x1020, 4)})) == decode_command(rsp())


# --- strict where the meaning changes


@pytest.mark.fault_row(25, 26, 74, 84)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="fault25-nothing"),
        pytest.param(rsp()[:-1], id="fault25-truncated-value"),
        pytest.param(rsp()[:-7], id="fault25-truncated-further"),
        pytest.param(rsp() + b"\0\0\0\x20", id="fault25-truncated-header"),
        pytest.param(rsp({0x0002: element(0x0002, b"1.2.3")}), id="fault25-odd-length"),
        pytest.param(rsp({0x0010: element(0x0010, b"", length=0xFFFF_FFFF)}), id="fault25-undefined-length"),
        pytest.param(rsp({0x2000: element(0x2000, b"ab", length=0x8000_0000)}), id="fault25-huge-length"),
        pytest.param(rsp({0x2000: element(0x0018, b"ab", group=8)}), id="fault25-group-0008"),
        pytest.param(rsp({0x2000: element(0x2000, b"ab", group=8)}), id="fault25-group-0008-ascending"),
        pytest.param(rsp({0x2000: RSP[0x1000]}), id="fault25-duplicate"),
        pytest.param(rsp({0x2000: RSP[0x0002]}), id="fault25-unsorted"),
        pytest.param(rsp({0x0901: element(0x0901, b"\x08\0")}), id="fault25-half-a-tag"),
        pytest.param(element(0, b"\0\0") + rsp()[12:], id="fault25-short-group-length"),
        pytest.param(struct.pack(">HHI", 0, 0x0100, 2) + b"\x80\x01", id="fault25-big-endian"),
        pytest.param(struct.pack("<HH2sH", 0, 0x0100, b"US", 2) + b"\1\x80", id="fault25-explicit-VR"),
        pytest.param(rsp({0x0100: b""}), id="fault26-no-command-field"),
        pytest.param(rsp({0x0100: us(0x0100, 0x8002)}), id="fault26-fault84-unknown-command-field"),
        pytest.param(rsp({0x0900: element(0x0900, b"")}), id="fault26-status-of-no-length"),
        pytest.param(rsp({0x0900: element(0x0900, b"\0\0\0\0")}), id="fault26-status-of-4-bytes"),
        pytest.param(rsp({0x0120: element(0x0120, b"\1", length=1)}), id="fault26-message-id-of-1-byte"),
        pytest.param(rsp({0x0800: b""}), id="no-data-set-type"),
        pytest.param(command_set(us(0x0100, 1), us(0x0800, 1)), id="fault74-no-message-id"),
        pytest.param(command_set(us(0x0100, 2), us(0x0800, 1)), id="fault84-no-message-id"),
        pytest.param(command_set(us(0x0100, 0xFFF), us(0x0800, 0x101)), id="cancel-of-nothing"),
        pytest.param(command_set(us(0x0100, 0x100), us(0x0110, 1), us(0x0800, 0x101)), id="no-event-type"),
    ],
)
def test_what_is_no_command_set(data: bytes) -> None:
    with pytest.raises(DIMSEDecodeError) as caught:
        decode_command(data)
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)


@pytest.mark.parametrize(
    ("data", "counts"),
    [
        (rsp() + b"\0\0\0\x20", "^.*: 4 bytes after the last element"),
        (rsp({0x2000: element(0x2000, b"abc", length=6)}), "2000. of 6 bytes, where 3 are left"),
        (rsp({0x0900: element(0x0900, b"\0\0\0\0")}), "0900. of 4 bytes instead of 2"),
        (rsp({0x0901: element(0x0901, b"\x08\0")}), "a list of tags of 2 bytes"),
        (element(0, b"\0\0") + rsp()[12:], "a group length of 2 bytes"),
        (rsp({0x2000: RSP[0x0002]}), "0000,0002. after .0000,1000."),
    ],
)
def test_what_is_no_command_set_is_counted_right(data: bytes, counts: str) -> None:
    with pytest.raises(DIMSEDecodeError, match=counts):
        decode_command(data)


@pytest.mark.fault_row(26)
@pytest.mark.parametrize("number", [0x0120, 0x0900])
def test_fault26_a_response_without_its_essentials(number: int) -> None:
    with pytest.raises(InvalidResponse, match=f"0000,{number:04X}") as caught:
        decode_command(rsp({number: b""}))
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)


@pytest.mark.fault_row(25)
@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_command_or_a_violation(data: bytes) -> None:
    try:
        command = decode_command(data)
    except ProtocolViolation:
        return
    assert decode_command(encode_command(command)) == command


def test_an_event_report() -> None:
    report = NEventReportRQ(3, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 2, has_data_set=True)
    assert decode_command(encode_command(report)) == report


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (CStoreRQ(7, CT, "1.2.3"), CStoreRSP(7, 0xA700, CT, "1.2.3", "full")),
        (NGetRQ(8, CT, "1.2.3"), NGetRSP(8, 0xA700, CT, "1.2.3", "full")),
        (CEchoRQ(9, ""), CEchoRSP(9, 0xA700, None, None, "full")),
    ],
)
def test_the_response_to_a_request(request_: Any, response: Command) -> None:
    assert response_to(request_, 0xA700, "full") == response
    assert decode_command(encode_command(response_to(request_, 0))).status == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "message", [each for each in MESSAGES if each.__name__.endswith("RQ") and each is not CCancelRQ]
)
def test_every_request_has_its_response(message: type[Any]) -> None:
    given = {"message_id": 7, "move_destination": "DEST", "event_type_id": 1, "action_type_id": 1}
    fields = [field.name for field in attrs.fields(message) if field.default is attrs.NOTHING]
    response = response_to(message(**{name: given.get(name, "1.2.3") for name in fields}), 0)
    assert type(response).__name__ == message.__name__[:-2] + "RSP"
    assert response.message_id_being_responded_to == 7
    assert response.affected_sop_class_uid == "1.2.3"


@pytest.mark.parametrize(
    ("comment", "sent"), [("x" * 65, "x" * 64), ("gr\xf6\xdfe \u2013", "gr??e ?"), ("", ""), (None, None)]
)
def test_any_comment_goes_out(comment: str | None, sent: str | None) -> None:
    response = response_to(CStoreRQ(7, CT, "1.2.3"), 0, comment)
    assert response.error_comment == sent
    encode_command(response)


def test_a_cancel_has_no_response() -> None:
    with pytest.raises(ValueError, match="no response"):
        response_to(CCancelRQ(7), 0)
