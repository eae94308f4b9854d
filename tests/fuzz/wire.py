"""What went over the wire, read without the library: a second opinion, that believes what can be believed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

UIDS = (0x0002, 0x1000)  # (0000,0002) and (0000,1000)
FIELD, RESPONDED_TO, MESSAGE_ID, STATUS = 0x0100, 0x0120, 0x0110, 0x0900
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001


@attrs.define
class Message:
    """A command set, by element, and what came of its data set."""

    context_id: int
    command: dict[int, bytes]
    data_set: bytearray = attrs.field(factory=bytearray)
    is_whole: bool = False  # the last of the data set was there

    def number(self, element: int) -> int | None:
        value = self.command.get(element, b"")
        return int.from_bytes(value, "little") if len(value) == 2 else None

    def uid(self, element: int) -> str:
        return self.command.get(element, b"").rstrip(b"\0 ").decode("latin-1")


def messages(data: bytes) -> list[Message]:
    """The messages in the P-DATA-TF PDUs of `data`, as far as there are whole command sets."""
    found: list[Message] = []
    command = bytearray()
    for context_id, control, value in _pdvs(data):
        if control & 1:
            command += value
            if control & 2:
                found.append(Message(context_id, _elements(bytes(command))))
                command.clear()
        elif found and not found[-1].is_whole:
            found[-1].data_set += value
            found[-1].is_whole = bool(control & 2)
    return found


def split(data: bytes) -> list[bytes]:
    """`data` cut where the headers say that PDUs end; what is no PDU is the last piece."""
    pieces = []
    while data:
        length = 6 + int.from_bytes(data[2:6], "big")
        if len(data) < 6 or length > len(data):
            length = len(data)
        pieces.append(data[:length])
        data = data[length:]
    return pieces


def _pdvs(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    for pdu in split(data):
        at = 6 if pdu[:1] == b"\4" else len(pdu)
        while at + 6 <= len(pdu):
            length, context_id, control = struct.unpack_from(">LBB", pdu, at)
            if length < 2 or at + 4 + length > len(pdu):
                break
            yield context_id, control, pdu[at + 6 : at + 4 + length]
            at += 4 + length


def _elements(command: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, at)
        if not group:
            found.setdefault(element, command[at + 8 : at + 8 + length])
        at += 8 + length
    return found
