"""Encoder and decoder held against bytes that others recorded: the fixtures of pynetdicom's own tests.

Each is read and written again; what then differs, or is refused, is listed here with the reason.
"""

from __future__ import annotations

import pytest

from trio_dicom.errors import InvalidPDU
from trio_dicom.protocol.pdu import PDataTF, PresentationContextAC, PresentationContextRQ
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.protocol.user_information import UnknownItem, decode_uid, decode_user_items, encode_item, split_items
from trio_dicom.settings import Limits

recorded = pytest.importorskip("pynetdicom.tests.encoded_pdu_items")

LIMITS = Limits()
FIXTURES = {name: value for name, value in vars(recorded).items() if isinstance(value, bytes)}

# What is refused, with words of the error. Each is wrong, and most are so on purpose.
REFUSED = {
    "application_context_empty": "not a UID",  # it has no bytes
    "implementation_class_uid_empty": "not a UID",  # it has no bytes
    "presentation_context_rq_utf8": "not a UID",  # an abstract syntax with zero-width spaces between the components
    "a_associate_ac_user": "declares 72 bytes where 58 are left",  # its PDU length, 184, is 14 bytes short
}

# What is written otherwise than it was recorded: the recorded bytes, ours in their place, and why.
NOT_CANONICAL = {
    "a_associate_rq_user_id_user_pass": [
        (b"\x20\0\0\x64\1\0\xff\0", b"\x20\0\0\x64\1\0\0\0"),  # FFH in a reserved byte of the presentation context
    ],
    "a_associate_ac_zero_ts": [
        # A transfer syntax without bytes, in a rejected context, where it is not significant: left out.
        (b"\x21\0\0\x08\3\0\3\0\x40\0\0\0", b"\x21\0\0\x04\3\0\3\0"),
        (b"\x02\0\0\0\0\xb6", b"\x02\0\0\0\0\xb2"),  # so the PDU is 4 bytes shorter
    ],
}


def through_pdu(raw: bytes) -> bytes:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(raw)
    pdu = buffer.next_pdu()
    assert pdu is not None
    assert not buffer.is_inside_pdu
    return b"".join(pdu.encode())


def through_pdv(raw: bytes) -> bytes:
    header = bytes((PDataTF.pdu_type, 0)) + len(raw).to_bytes(4, "big")
    written = through_pdu(header + raw)
    assert written.startswith(header)
    return written[len(header) :]


def through_pdv_without_length_and_context_id(raw: bytes) -> bytes:
    head = (len(raw) + 1).to_bytes(4, "big") + b"\1"
    written = through_pdv(head + raw)
    assert written.startswith(head)
    return written[len(head) :]


def through_item(raw: bytes) -> bytes:
    ((item_type, value),) = split_items(memoryview(raw), "a fixture")
    match item_type:
        case 0x10 | 0x30 | 0x40:
            return encode_item(item_type, decode_uid(value, "a fixture").encode())
        case 0x20:
            return PresentationContextRQ.decode(value, LIMITS).encode()
        case 0x21:
            return PresentationContextAC.decode(value, LIMITS).encode()
        case 0x50:
            return encode_item(item_type, through_user_items(value))
        case _:
            return through_user_items(memoryview(raw))


def through_user_items(data: memoryview) -> bytes:
    items = decode_user_items(data, LIMITS)
    assert not any(isinstance(item, UnknownItem) for item in items)
    return b"".join(item.encode() for item in items)


def through(name: str, raw: bytes) -> bytes:
    match name:
        case "presentation_data":  # begins with the control header
            return through_pdv_without_length_and_context_id(raw)
        case "presentation_data_value":
            return through_pdv(raw)
        case _:
            return through_pdu(raw) if raw[0] < 0x10 else through_item(raw)


@pytest.mark.parametrize("name", sorted(FIXTURES.keys() - REFUSED))
def test_recorded_bytes_are_read_and_written_again(name: str) -> None:
    expected = FIXTURES[name]
    for theirs, ours in NOT_CANONICAL.get(name, []):
        assert expected.count(theirs) == 1
        expected = expected.replace(theirs, ours)
    assert through(name, FIXTURES[name]) == expected


@pytest.mark.parametrize(("name", "words"), REFUSED.items())
def test_recorded_bytes_that_are_wrong_are_refused(name: str, words: str) -> None:
    with pytest.raises(InvalidPDU, match=words):
        through(name, FIXTURES[name])


def test_the_acceptance_with_the_wrong_length_is_right_but_for_that() -> None:
    raw = bytearray(FIXTURES["a_associate_ac_user"])
    raw[2:6] = (len(raw) - 6).to_bytes(4, "big")
    assert through_pdu(bytes(raw)) == raw


def test_all_fixtures_are_there() -> None:
    assert len(FIXTURES) >= 42
    assert FIXTURES.keys() >= REFUSED.keys() | NOT_CANONICAL.keys()
