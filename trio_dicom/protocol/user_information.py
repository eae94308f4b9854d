"""The sub-items of User Information: what two applications tell each other beside presentation contexts.

PS3.8 annex D.1 and PS3.7 annex D.3. All items of an association PDU are one byte of type, one reserved, two of length,
and that many of value, big endian; the functions that write, split and read them are here for `pdu` as well.

What has no meaning is refused with `InvalidPDU`, A-ABORT (2, 6). Reserved bytes are not tested, and items of a type
that is not known are kept as `UnknownItem`, to be ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import ClassVar, Protocol, TypeAlias

import attrs

from ..errors import InvalidPDU, printable
from ..secret import Secret
from ..settings import Limits
from ..uids import is_valid_uid

_ITEM_HEADER = struct.Struct(">BxH")
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">L")
_TWO_UINT16 = struct.Struct(">HH")


def encode_item(item_type: int, value: bytes) -> bytes:
    """The item with its header; `ValueError` if the value is longer than the 65,535 bytes that an item can hold."""
    if len(value) > 0xFFFF:
        raise ValueError(f"{len(value)} bytes do not fit into item {item_type:02X}H, which holds 65,535")
    return _ITEM_HEADER.pack(item_type, len(value)) + value


def split_items(data: memoryview, where: str) -> Iterator[tuple[int, memoryview]]:
    """Type and value of each item in `data`, as slices; `InvalidPDU` once an item runs past the end."""
    at, end = 0, len(data)
    while at < end:
        if end - at < 4:
            raise InvalidPDU(f"{end - at} bytes are left over after the last item of {where}", 2, 6)
        item_type, length = _ITEM_HEADER.unpack_from(data, at)
        at += 4
        if length > end - at:
            raise InvalidPDU(
                f"item {item_type:02X}H of {where} declares {length} bytes where {end - at} are left", 2, 6
            )
        yield item_type, data[at : at + length]
        at += length


def decode_uid(data: memoryview, what: str) -> str:
    """A UID without the NUL or space that some peers pad it with; `InvalidPDU` if it is none."""
    raw = bytes(data).rstrip(b"\0 ")
    uid = raw.decode("latin-1")
    if not is_valid_uid(uid):
        raise InvalidPDU(f'{what} is not a UID: "{printable(raw)}"', 2, 6)
    return uid


def _counted(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"{len(value)} bytes do not fit into a field of at most 65,535")
    return _UINT16.pack(len(value)) + value


def _take_counted(data: memoryview, where: str) -> tuple[memoryview, memoryview]:
    """The field behind a two-byte count, and what follows it."""
    if len(data) < 2:
        raise InvalidPDU(f"{where} ends before a field", 2, 6)
    (length,) = _UINT16.unpack_from(data)
    if length > len(data) - 2:
        raise InvalidPDU(f"a field of {where} declares {length} bytes where {len(data) - 2} are left", 2, 6)
    return data[2 : 2 + length], data[2 + length :]


def _check_length(data: memoryview, length: int, where: str) -> None:
    if len(data) != length:
        raise InvalidPDU(f"{where} ends with {len(data)} bytes where there are {length} to be", 2, 6)


def _decode_flag(value: int, what: str) -> bool:
    if value > 1:
        raise InvalidPDU(f"{what} is {value}, neither 0 nor 1", 2, 6)
    return value == 1


def byte_count(value: bytes | bytearray | memoryview) -> str:
    """How a `repr` shows what must not, or need not, be seen."""
    return f"<{len(value)} bytes>"


@attrs.frozen
class MaximumLength:
    """51H: the longest variable field, in bytes, of a P-DATA-TF PDU that the sender takes; 0: no limit (PS3.8 D.1)."""

    item_type: ClassVar[int] = 0x51
    length: int

    def encode(self) -> bytes:
        return encode_item(self.item_type, _UINT32.pack(self.length))

    @classmethod
    def decode(cls, data: memoryview) -> MaximumLength:
        _check_length(data, 4, "the maximum length item")
        return cls(*_UINT32.unpack(data))


@attrs.frozen
class ImplementationClassUID:
    """52H: the implementation that speaks (PS3.7 D.3.3.2)."""

    item_type: ClassVar[int] = 0x52
    uid: str

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.uid.encode("ascii"))

    @classmethod
    def decode(cls, data: memoryview) -> ImplementationClassUID:
        return cls(decode_uid(data, "the implementation class UID"))


@attrs.frozen
class AsynchronousOperationsWindow:
    """53H: how many operations, invoked and performed by the requestor, may wait; 0: no limit (PS3.7 D.3.3.3)."""

    item_type: ClassVar[int] = 0x53
    invoked: int
    performed: int

    def encode(self) -> bytes:
        return encode_item(self.item_type, _TWO_UINT16.pack(self.invoked, self.performed))

    @classmethod
    def decode(cls, data: memoryview) -> AsynchronousOperationsWindow:
        _check_length(data, 4, "the asynchronous operations window item")
        return cls(*_TWO_UINT16.unpack(data))


@attrs.frozen
class RoleSelection:
    """54H: the roles that the requestor takes for a SOP class (PS3.7 D.3.3.4)."""

    item_type: ClassVar[int] = 0x54
    sop_class_uid: str
    scu: bool
    scp: bool

    def encode(self) -> bytes:
        return encode_item(self.item_type, _counted(self.sop_class_uid.encode("ascii")) + bytes((self.scu, self.scp)))

    @classmethod
    def decode(cls, data: memoryview) -> RoleSelection:
        uid, roles = _take_counted(data, "a role selection item")
        _check_length(roles, 2, "a role selection item")
        return cls(
            decode_uid(uid, "the SOP class of a role selection"),
            _decode_flag(roles[0], "an SCU role"),
            _decode_flag(roles[1], "an SCP role"),
        )


@attrs.frozen
class ImplementationVersionName:
    """55H: 1 to 16 characters by the standard (PS3.7 D.3.3.2.3); a peer's is taken as it comes, without padding."""

    item_type: ClassVar[int] = 0x55
    name: str

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.name.encode("latin-1"))

    @classmethod
    def decode(cls, data: memoryview) -> ImplementationVersionName:
        return cls(bytes(data).decode("latin-1").rstrip("\0 "))


@attrs.frozen
class SOPClassExtendedNegotiation:
    """56H: application information, in a form that belongs to the service class (PS3.7 D.3.3.5)."""

    item_type: ClassVar[int] = 0x56
    sop_class_uid: str
    information: bytes

    def encode(self) -> bytes:
        return encode_item(self.item_type, _counted(self.sop_class_uid.encode("ascii")) + self.information)

    @classmethod
    def decode(cls, data: memoryview) -> SOPClassExtendedNegotiation:
        uid, information = _take_counted(data, "a SOP class extended negotiation item")
        return cls(decode_uid(uid, "the SOP class of an extended negotiation"), bytes(information))


@attrs.frozen
class SOPClassCommonExtendedNegotiation:
    """57H: the service class, and the SOP classes of which this one is a special case (PS3.7 D.3.3.6)."""

    item_type: ClassVar[int] = 0x57
    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()

    def encode(self) -> bytes:
        related = b"".join(_counted(uid.encode("ascii")) for uid in self.related_general_sop_class_uids)
        head = _counted(self.sop_class_uid.encode("ascii")) + _counted(self.service_class_uid.encode("ascii"))
        return encode_item(self.item_type, head + _counted(related))

    @classmethod
    def decode(cls, data: memoryview) -> SOPClassCommonExtendedNegotiation:
        where = "a SOP class common extended negotiation item"
        sop_class, rest = _take_counted(data, where)
        service_class, rest = _take_counted(rest, where)
        related, _ = _take_counted(rest, where)  # what may follow is reserved for later versions of the item
        uids = []
        while related:
            uid, related = _take_counted(related, where)
            uids.append(decode_uid(uid, "a related general SOP class"))
        return cls(
            decode_uid(sop_class, "the SOP class of a common extended negotiation"),
            decode_uid(service_class, "the service class of a common extended negotiation"),
            tuple(uids),
        )


@attrs.frozen
class UserIdentityRQ:
    """58H: who the requestor is, `type` by PS3.7 table D.3-14. `primary` and `secondary` are secrets."""

    item_type: ClassVar[int] = 0x58
    type: int
    positive_response_requested: bool
    primary: Secret = attrs.field(converter=Secret)
    secondary: Secret = attrs.field(default=Secret(b""), converter=Secret)

    def encode(self) -> bytes:
        flags = bytes((self.type, self.positive_response_requested))
        return encode_item(self.item_type, flags + _counted(self.primary.reveal()) + _counted(self.secondary.reveal()))

    @classmethod
    def decode(cls, data: memoryview) -> UserIdentityRQ:
        where = "the user identity item"
        primary, rest = _take_counted(data[2:], where)
        secondary, rest = _take_counted(rest, where)
        _check_length(rest, 0, where)
        positive = _decode_flag(data[1], "the positive response requested")
        return cls(data[0], positive, bytes(primary), bytes(secondary))


@attrs.frozen
class UserIdentityAC:
    """59H: the acceptor confirms the user identity, with a ticket or token where the type has one (PS3.7 D.3.3.7.2)."""

    item_type: ClassVar[int] = 0x59
    server_response: Secret = attrs.field(converter=Secret)

    def encode(self) -> bytes:
        return encode_item(self.item_type, _counted(self.server_response.reveal()))

    @classmethod
    def decode(cls, data: memoryview) -> UserIdentityAC:
        where = "the user identity response item"
        server_response, rest = _take_counted(data, where)
        _check_length(rest, 0, where)
        return cls(bytes(server_response))


@attrs.frozen
class UnknownItem:
    """A sub-item of a type that is not known here: to be ignored (PS3.7 D.3.3), and passed through unharmed."""

    item_type: int
    data: bytes = attrs.field(repr=byte_count)

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.data)


UserItem: TypeAlias = (
    MaximumLength
    | ImplementationClassUID
    | AsynchronousOperationsWindow
    | RoleSelection
    | ImplementationVersionName
    | SOPClassExtendedNegotiation
    | SOPClassCommonExtendedNegotiation
    | UserIdentityRQ
    | UserIdentityAC
    | UnknownItem
)


class _KnownItem(Protocol):
    item_type: ClassVar[int]

    @classmethod
    def decode(cls, data: memoryview) -> UserItem: ...


_SINGLE: tuple[type[_KnownItem], ...] = (
    MaximumLength,
    ImplementationClassUID,
    AsynchronousOperationsWindow,
    ImplementationVersionName,
    UserIdentityRQ,
    UserIdentityAC,
)
_REPEATED: tuple[type[_KnownItem], ...] = (
    RoleSelection,
    SOPClassExtendedNegotiation,
    SOPClassCommonExtendedNegotiation,
)
_SINGLE_TYPES = frozenset(item.item_type for item in _SINGLE)
_DECODERS = {item.item_type: item.decode for item in _SINGLE + _REPEATED}


def decode_user_items(data: memoryview, limits: Limits) -> tuple[UserItem, ...]:
    """The sub-items in the value of a User Information item, in their order.

    Raises `InvalidPDU`, A-ABORT (2, 6), for lengths that do not add up, values without a meaning, a second item of a
    kind of which there is one only, and more than `limits.user_items` items.
    """
    items: list[UserItem] = []
    seen: set[int] = set()
    for item_type, value in split_items(data, "the user information"):
        if len(items) == limits.user_items:
            raise InvalidPDU(f"there are more than {limits.user_items} user information items", 2, 6)
        if item_type in seen:
            raise InvalidPDU(f"user information item {item_type:02X}H is there twice", 2, 6)
        if item_type in _SINGLE_TYPES:
            seen.add(item_type)
        decode = _DECODERS.get(item_type)
        items.append(decode(value) if decode else UnknownItem(item_type, bytes(value)))
    return tuple(items)
