"""DIMSE command sets (PS3.7 sections 9.3, 10.3 and annex E) as frozen messages.

1. A message is a class; its fields are the elements of the command set, named by their keywords in snake_case. The two
   tables below, elements and messages, are all that encoding and decoding know. Those of C-STORE and C-ECHO are here,
   all others in `other_services`.
2. A command set is Implicit VR Little Endian whatever the presentation context says, ascending, each element even.
3. What decides the meaning is checked: tags, order, lengths, the command field, the message ID, the status. What does
   not is let pass: a wrong or missing group length, retired and unknown elements of group 0000, a priority that is
   none, text outside the default repertoire. A SOP UID that a request lacks is decoded as "": it is for the service to
   answer that with a status (0120H, 0121H). An empty value of an optional element is an absent one. A request of a
   command field that is none is an `UnknownRQ`, so that it can be answered (0211H).
"""

from __future__ import annotations

import enum
import functools
import operator
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from ..errors import DIMSEDecodeError, InvalidResponse

if TYPE_CHECKING:
    from .other_services import OtherRequest, OtherResponse

Buffer: TypeAlias = bytes | bytearray | memoryview


class CommandField(enum.IntEnum):
    """(0000,0100), PS3.7 table E.1-1. A response is its request with bit 15 set."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_GET_RSP = 0x8110
    N_SET_RQ = 0x0120
    N_SET_RSP = 0x8120
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    N_CREATE_RQ = 0x0140
    N_CREATE_RSP = 0x8140
    N_DELETE_RQ = 0x0150
    N_DELETE_RSP = 0x8150
    C_CANCEL_RQ = 0x0FFF


class Priority(enum.IntEnum):
    """(0000,0700)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


# --- messages -------------------------------------------------------------------------------------------------------


@attrs.frozen
class CStoreRQ:
    """C-STORE-RQ, PS3.7 9.3.1.1."""

    command_field: ClassVar[CommandField] = CommandField.C_STORE_RQ
    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    priority: int = Priority.MEDIUM
    move_originator_ae_title: str | None = None
    move_originator_message_id: int | None = None
    has_data_set: bool = True


@attrs.frozen
class CEchoRQ:
    """C-ECHO-RQ, PS3.7 9.3.5.1."""

    command_field: ClassVar[CommandField] = CommandField.C_ECHO_RQ
    message_id: int
    affected_sop_class_uid: str
    has_data_set: bool = False


@attrs.frozen
class CCancelRQ:
    """C-CANCEL-RQ (PS3.7 9.3.2.3 and its like): a request without a message ID of its own, and without a response."""

    command_field: ClassVar[CommandField] = CommandField.C_CANCEL_RQ
    message_id_being_responded_to: int
    has_data_set: bool = False


@attrs.frozen
class UnknownRQ:
    """A request of a Command Field that PS3.7 does not have."""

    command_field: int
    message_id: int
    has_data_set: bool


@attrs.frozen
class Response:
    """What all responses have. `status` is the raw (0000,0900); an offending element is a tag."""

    message_id_being_responded_to: int
    status: int
    affected_sop_class_uid: str | None = None
    affected_sop_instance_uid: str | None = None
    error_comment: str | None = None
    offending_elements: tuple[int, ...] = ()
    error_id: int | None = None
    has_data_set: bool = False


class CStoreRSP(Response):
    """C-STORE-RSP, PS3.7 9.3.1.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_STORE_RSP


class CEchoRSP(Response):
    """C-ECHO-RSP, PS3.7 9.3.5.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_ECHO_RSP


@attrs.frozen
class UnknownRSP(Response):
    """The response to an `UnknownRQ`."""

    command_field: int = 0x8000


AnsweredRequest: TypeAlias = "CStoreRQ | CEchoRQ | UnknownRQ | OtherRequest"
RequestCommand: TypeAlias = "AnsweredRequest | CCancelRQ"
ResponseCommand: TypeAlias = "CStoreRSP | CEchoRSP | UnknownRSP | OtherResponse"
Command: TypeAlias = "RequestCommand | ResponseCommand"

_MESSAGES: tuple[type[Command], ...] = (CStoreRQ, CStoreRSP, CEchoRQ, CEchoRSP, CCancelRQ)
_BY_FIELD: Mapping[int, type[Command]] = {int(message.command_field): message for message in _MESSAGES}


def _message_of(command_field: int) -> type[Command] | None:
    """The class of the messages with this command field, if PS3.7 has it."""
    if (message := _BY_FIELD.get(command_field)) is not None:
        return message
    from .other_services import MESSAGES  # only now: sending and receiving objects starts sooner without

    return MESSAGES.get(command_field)


def response_to(request: RequestCommand, status: int, error_comment: str | None = None) -> ResponseCommand:
    """The response that belongs to `request`, naming the SOP class and instance that it named.

    Of an error comment go 64 characters, with "?" for those that the default repertoire does not have. Raises
    `ValueError` for a C-CANCEL-RQ, which has no response.
    """
    if error_comment is not None:
        error_comment = error_comment[:_LONGEST_COMMENT].encode("ascii", "replace").decode()
    if isinstance(request, UnknownRQ):
        field = request.command_field | IS_RESPONSE
        return UnknownRSP(request.message_id, int(status), error_comment=error_comment, command_field=field)
    if isinstance(request, CCancelRQ) or request.command_field & IS_RESPONSE:
        raise ValueError(f"a {type(request).__name__} has no response")
    kind: Callable[..., ResponseCommand] = _message_of(request.command_field | IS_RESPONSE)  # type: ignore[assignment]
    sop_class, sop_instance = (
        getattr(request, f"affected_{what}", None) or getattr(request, f"requested_{what}", None) or None
        for what in ("sop_class_uid", "sop_instance_uid")
    )
    return kind(request.message_id, int(status), sop_class, sop_instance, error_comment)


IS_RESPONSE = 0x8000  # in a command field
_LONGEST_COMMENT = 64  # (0000,0902) is an LO

# --- elements -------------------------------------------------------------------------------------------------------


class _VR(enum.Enum):
    AE = "AE"
    AT = "AT"
    LO = "LO"
    UI = "UI"
    US = "US"
    DATA_SET_TYPE = "US, of which only 0101H has a meaning: no data set"


# Group 0000, PS3.7 table E.1-1, by the name of the field.
_ELEMENTS: Mapping[str, tuple[int, _VR]] = {
    "affected_sop_class_uid": (0x0002, _VR.UI),
    "requested_sop_class_uid": (0x0003, _VR.UI),
    "command_field": (0x0100, _VR.US),
    "message_id": (0x0110, _VR.US),
    "message_id_being_responded_to": (0x0120, _VR.US),
    "move_destination": (0x0600, _VR.AE),
    "priority": (0x0700, _VR.US),
    "has_data_set": (0x0800, _VR.DATA_SET_TYPE),
    "status": (0x0900, _VR.US),
    "offending_elements": (0x0901, _VR.AT),
    "error_comment": (0x0902, _VR.LO),
    "error_id": (0x0903, _VR.US),
    "affected_sop_instance_uid": (0x1000, _VR.UI),
    "requested_sop_instance_uid": (0x1001, _VR.UI),
    "event_type_id": (0x1002, _VR.US),
    "attribute_identifier_list": (0x1005, _VR.AT),
    "action_type_id": (0x1008, _VR.US),
    "number_of_remaining_sub_operations": (0x1020, _VR.US),
    "number_of_completed_sub_operations": (0x1021, _VR.US),
    "number_of_failed_sub_operations": (0x1022, _VR.US),
    "number_of_warning_sub_operations": (0x1023, _VR.US),
    "move_originator_ae_title": (0x1030, _VR.AE),
    "move_originator_message_id": (0x1031, _VR.US),
}

_COMMAND_FIELD = _ELEMENTS["command_field"][0]
_STATUS = _ELEMENTS["status"][0]
_RESPONDED_TO = _ELEMENTS["message_id_being_responded_to"][0]
_NO_DATA_SET = 0x0101
_DATA_SET_PRESENT = 0x0001

_HEADER = struct.Struct("<HHI")  # group, element, length of the value
_GROUP_LENGTH = _HEADER.pack(0, 0, 4)

# Never absent in what this side encodes, and "" where a peer's request has none.
_LEFT_TO_THE_SERVICE = frozenset({_VR.UI, _VR.AE})


# What is the same in many command sets is encoded once: SOP classes, priorities and the like.


@functools.lru_cache
def _encode_uid(header: bytes, value: str) -> bytes:
    raw = value.encode("latin-1")
    if len(raw) & 1:
        raw += b"\0"
    return header + len(raw).to_bytes(4, "little") + raw


def _encode_string(header: bytes, value: str) -> bytes:
    raw = value.encode("latin-1")
    if len(raw) & 1:
        raw += b" "
    return header + len(raw).to_bytes(4, "little") + raw


@functools.lru_cache
def _encode_number(header: bytes, value: int) -> bytes:
    return header + b"\2\0\0\0" + value.to_bytes(2, "little")


@functools.lru_cache
def _encode_data_set_type(header: bytes, value: bool) -> bytes:
    return _encode_number(header, _DATA_SET_PRESENT if value else _NO_DATA_SET)


def _encode_tags(header: bytes, value: tuple[int, ...]) -> bytes:
    if not value:
        return b""
    raw = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)
    return header + len(raw).to_bytes(4, "little") + raw


_ENCODERS: Mapping[_VR, Callable[[bytes, Any], bytes]] = {
    _VR.AE: _encode_string,
    _VR.AT: _encode_tags,
    _VR.LO: _encode_string,
    _VR.UI: _encode_uid,
    _VR.US: _encode_number,
    _VR.DATA_SET_TYPE: _encode_data_set_type,
}


@attrs.frozen
class _Layout:
    """A message class, as the encoder and the decoder want it."""

    message: type[Command]
    values: Callable[[Command], tuple[Any, ...]]  # in ascending order of their elements
    encoders: tuple[tuple[Callable[[bytes, Any], bytes], bytes], ...]  # in the same order: function, tag
    arguments: tuple[tuple[int, Any], ...]  # in order of the fields: element, value if absent
    required: frozenset[int]


_LAYOUTS: dict[type[Command], _Layout] = {}


def _layout(message: type[Command]) -> _Layout:
    layout = _LAYOUTS.get(message)
    if layout is None:
        layout = _LAYOUTS[message] = _laid_out(message)
    return layout


def _laid_out(message: type[Command]) -> _Layout:
    fields = {field.name: field for field in attrs.fields(message)}
    ascending = sorted({*fields, "command_field"}, key=_ELEMENTS.__getitem__)
    arguments = []
    required = set()
    for name, field in fields.items():
        element, vr = _ELEMENTS[name]
        has_default = field.default is not attrs.NOTHING
        absent = field.default if has_default else ""
        arguments.append((element, absent))
        if vr is _VR.DATA_SET_TYPE or not (has_default or vr in _LEFT_TO_THE_SERVICE):
            required.add(element)
    return _Layout(
        message=message,
        values=operator.attrgetter(*ascending),
        encoders=tuple(
            (_ENCODERS[_ELEMENTS[name][1]], struct.pack("<HH", 0, _ELEMENTS[name][0])) for name in ascending
        ),
        arguments=tuple(arguments),
        required=frozenset(required),
    )


def encode_command(command: Command) -> bytes:
    """The command set of `command`, with its group length.

    Raises `ValueError` for a number outside 0 to 65,535, a tag outside 32 bits or text outside Latin-1.
    """
    layout = _layout(type(command))
    try:
        body = b"".join(
            [
                encode(header, value)
                for (encode, header), value in zip(layout.encoders, layout.values(command), strict=True)
                if value is not None
            ]
        )
    except (OverflowError, struct.error) as error:
        raise ValueError(f"{type(command).__name__} has a number that its command set cannot hold: {error}") from None
    return _GROUP_LENGTH + len(body).to_bytes(4, "little") + body


# --- decoding -------------------------------------------------------------------------------------------------------


def _decode_uid(raw: bytes) -> str:
    return raw.decode("latin-1").rstrip("\0 ")


def _decode_string(raw: bytes) -> str:
    return raw.decode("latin-1").strip("\0 ")


def _decode_tags(raw: bytes) -> tuple[int, ...]:
    if len(raw) % 4:
        raise DIMSEDecodeError(f"a list of tags of {len(raw)} bytes", 2, 6)
    return tuple(group << 16 | element for group, element in struct.iter_unpack("<HH", raw))


_DECODERS: Mapping[int, Callable[[bytes], Any]] = {
    element: {_VR.AE: _decode_string, _VR.AT: _decode_tags, _VR.LO: _decode_string, _VR.UI: _decode_uid}[vr]
    for element, vr in _ELEMENTS.values()
    if vr not in (_VR.US, _VR.DATA_SET_TYPE)
}
_NUMBERS = frozenset(element for element, vr in _ELEMENTS.values() if vr in (_VR.US, _VR.DATA_SET_TYPE))
_DATA_SET_TYPE = _ELEMENTS["has_data_set"][0]


def decode_command(data: Buffer) -> Command:
    """The message whose command set `data` is.

    Raises `DIMSEDecodeError` if it is none (PS3.7 6.3), and `InvalidResponse` for a response without a status or
    without the ID of the message that it answers; `abort_source` and `abort_reason` of either are 2 and 6.
    """
    values = _elements(bytes(data))
    field = values.get(_COMMAND_FIELD)
    if field is None:
        raise DIMSEDecodeError("a command set without a Command Field", 2, 6)
    message = _message_of(field)
    if message is None:
        if field & IS_RESPONSE:
            raise DIMSEDecodeError(f"unknown Command Field {field:04X}H", 2, 6)
        message = UnknownRQ
    layout = _layout(message)
    if not layout.required <= values.keys():
        missing = min(layout.required - values.keys())
        detail = f"a {layout.message.__name__} without element (0000,{missing:04X})"
        if field & IS_RESPONSE and missing in (_STATUS, _RESPONDED_TO):
            raise InvalidResponse(detail, 2, 6)
        raise DIMSEDecodeError(detail, 2, 6)
    values[_DATA_SET_TYPE] = values[_DATA_SET_TYPE] != _NO_DATA_SET
    return layout.message(*[values.get(element, absent) for element, absent in layout.arguments])


def _elements(data: bytes) -> dict[int, Any]:
    """The decoded values of the elements of group 0000 that are known, and not empty, by element number."""
    values: dict[int, Any] = {}
    end = len(data)
    position = 0
    last = -1
    while position < end:
        if end - position < 8:
            raise DIMSEDecodeError(f"{end - position} bytes after the last element of a command set", 2, 6)
        group, element, length = _HEADER.unpack_from(data, position)
        if group:
            raise DIMSEDecodeError(f"element ({group:04X},{element:04X}) in a command set", 2, 6)
        if element <= last:
            raise DIMSEDecodeError(f"element (0000,{element:04X}) after (0000,{last:04X})", 2, 6)
        position += 8
        if length > end - position or length & 1:
            raise DIMSEDecodeError(
                f"element (0000,{element:04X}) of {length} bytes, where {end - position} are left", 2, 6
            )
        if element in _NUMBERS:
            if length != 2:
                raise DIMSEDecodeError(f"element (0000,{element:04X}) of {length} bytes instead of 2", 2, 6)
            values[element] = data[position] | data[position + 1] << 8
        elif element in _DECODERS:
            value = _DECODERS[element](data[position : position + length])
            if value:
                values[element] = value
        elif element == 0 and length != 4:
            raise DIMSEDecodeError(f"a group length of {length} bytes", 2, 6)
        position += length
        last = element
    return values
