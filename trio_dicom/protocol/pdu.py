"""The seven protocol data units of the upper layer (PS3.8 section 9.3), each a frozen value that encodes itself.

`decode_pdu` is the way back. Bytes from the peer lead to a PDU, to `InvalidPDU` or to `UnrecognisedPDU`, and to nothing
else; no length that is declared is used before it was held against the bytes that are there. Reserved bytes are not
tested, and items of unknown types are skipped, as the standard says.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import attrs

from ..errors import InvalidPDU, UnrecognisedPDU
from ..settings import Limits
from ..uids import APPLICATION_CONTEXT
from .user_information import UserItem, byte_count, decode_uid, decode_user_items, encode_item, split_items

Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER_LENGTH = 6  # type, reserved, length of what follows

_HEADER = struct.Struct(">BxL")
_FOUR_BYTES = struct.Struct(">BxLBBBB")
_ASSOCIATE = struct.Struct(">HH16s16s32x")
_PDV_HEADER = struct.Struct(">LBB")
_FIRST_PDV_HEADER = struct.Struct(">BxLLBB")  # that of the PDU, and that of its first PDV
_PLAIN_HEADER = _FIRST_PDV_HEADER.size

_APPLICATION_CONTEXT_ITEM = 0x10
_CONTEXT_RQ_ITEM = 0x20
_CONTEXT_AC_ITEM = 0x21
_ABSTRACT_SYNTAX_ITEM = 0x30
_TRANSFER_SYNTAX_ITEM = 0x40
_USER_INFORMATION_ITEM = 0x50
_MOST_ITEMS = 1024  # a slice of each is kept; 130 are what can be of use

_MOST_AT_ONCE = 256  # PDUs that are decoded together, before others have their turn

_COMMAND_BIT = 0x01
_LAST_BIT = 0x02


class ContextResult(enum.IntEnum):
    """What became of a proposed presentation context (PS3.8 table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@attrs.frozen
class PresentationContextRQ:
    """A proposed presentation context (PS3.8 9.3.2.2): `context_id` is odd, 1 to 255."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    def encode(self) -> bytes:
        return encode_item(
            _CONTEXT_RQ_ITEM,
            bytes((self.context_id, 0, 0, 0))
            + encode_item(_ABSTRACT_SYNTAX_ITEM, self.abstract_syntax.encode("ascii"))
            + _encode_transfer_syntaxes(self.transfer_syntaxes),
        )

    @classmethod
    def decode(cls, data: memoryview, limits: Limits) -> PresentationContextRQ:
        context_id = _context_id(data)
        if not context_id % 2:
            raise InvalidPDU(f"presentation context ID {context_id} is not odd", 2, 6)
        where = f"proposed presentation context {context_id}"
        abstract_syntaxes, transfer_syntaxes = _decode_syntaxes(data[4:], where, limits)
        if len(abstract_syntaxes) != 1:
            raise InvalidPDU(f"{where} has {len(abstract_syntaxes)} abstract syntaxes, not one", 2, 6)
        if not transfer_syntaxes:
            raise InvalidPDU(f"{where} has no transfer syntax", 2, 6)
        return cls(context_id, abstract_syntaxes[0], transfer_syntaxes)


@attrs.frozen
class PresentationContextAC:
    """The answer to a proposed presentation context (PS3.8 9.3.3.2).

    `result` is a `ContextResult`, or what else came. The transfer syntaxes are those that came, of which there ought
    to be one. They are significant after an acceptance only: otherwise, where they cannot be read, there are none.
    """

    context_id: int
    result: int
    transfer_syntaxes: tuple[str, ...]

    def encode(self) -> bytes:
        head = bytes((self.context_id, 0, self.result, 0))
        return encode_item(_CONTEXT_AC_ITEM, head + _encode_transfer_syntaxes(self.transfer_syntaxes))

    @classmethod
    def decode(cls, data: memoryview, limits: Limits) -> PresentationContextAC:
        context_id, result = _context_id(data), data[2]
        try:
            _, transfer_syntaxes = _decode_syntaxes(data[4:], f"answered presentation context {context_id}", limits)
        except InvalidPDU:
            if result == ContextResult.ACCEPTANCE:
                raise
            transfer_syntaxes = ()
        return cls(context_id, result, transfer_syntaxes)


def _encode_transfer_syntaxes(uids: tuple[str, ...]) -> bytes:
    return b"".join(encode_item(_TRANSFER_SYNTAX_ITEM, uid.encode("ascii")) for uid in uids)


def _context_id(data: memoryview) -> int:
    if len(data) < 4:
        raise InvalidPDU(f"a presentation context item has {len(data)} bytes, and needs 4", 2, 6)
    return data[0]


def _decode_syntaxes(data: memoryview, where: str, limits: Limits) -> tuple[list[str], tuple[str, ...]]:
    abstract_syntaxes: list[str] = []
    transfer_syntaxes: list[str] = []
    for item_type, value in split_items(data, where):
        if item_type == _ABSTRACT_SYNTAX_ITEM:
            abstract_syntaxes.append(decode_uid(value, f"the abstract syntax of {where}"))
        elif item_type == _TRANSFER_SYNTAX_ITEM:
            if len(transfer_syntaxes) == limits.transfer_syntaxes:
                raise InvalidPDU(f"{where} has more than {limits.transfer_syntaxes} transfer syntaxes", 2, 6)
            transfer_syntaxes.append(decode_uid(value, f"a transfer syntax of {where}"))
    return abstract_syntaxes, tuple(transfer_syntaxes)


@attrs.frozen
class AssociateRQ:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""

    pdu_type: ClassVar[int] = 0x01
    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: tuple[UserItem, ...]
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1

    def encode(self) -> list[Buffer]:
        """One buffer; `ValueError` for a title of more than 16 characters or an item of more than 65,535 bytes."""
        return _encode_associate(self)

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> AssociateRQ:
        version, called, calling, items = _split_associate(body, "A-ASSOCIATE-RQ")
        contexts: dict[int, PresentationContextRQ] = {}
        for value in items.get(_CONTEXT_RQ_ITEM, ()):
            context = PresentationContextRQ.decode(value, limits)
            if context.context_id in contexts:
                raise InvalidPDU(f"presentation context ID {context.context_id} is proposed twice", 2, 6)
            contexts[context.context_id] = context
        if not contexts:
            raise InvalidPDU("A-ASSOCIATE-RQ proposes no presentation context", 2, 6)
        application_context, user_information = _decode_single_items(items, "A-ASSOCIATE-RQ", limits)
        return cls(called, calling, tuple(contexts.values()), user_information, application_context, version)


@attrs.frozen
class AssociateAC:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). The AE titles are those that came: the standard says not to test them."""

    pdu_type: ClassVar[int] = 0x02
    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: tuple[UserItem, ...]
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1

    def encode(self) -> list[Buffer]:
        """One buffer; `ValueError` for a title of more than 16 characters or an item of more than 65,535 bytes."""
        return _encode_associate(self)

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> AssociateAC:
        version, called, calling, items = _split_associate(body, "A-ASSOCIATE-AC")
        contexts = tuple(PresentationContextAC.decode(value, limits) for value in items.get(_CONTEXT_AC_ITEM, ()))
        application_context, user_information = _decode_single_items(items, "A-ASSOCIATE-AC", limits)
        return cls(called, calling, contexts, user_information, application_context, version)


def _encode_associate(pdu: AssociateRQ | AssociateAC) -> list[Buffer]:
    parts = [
        _ASSOCIATE.pack(
            pdu.protocol_version, 0, _encode_ae_title(pdu.called_ae_title), _encode_ae_title(pdu.calling_ae_title)
        ),
        encode_item(_APPLICATION_CONTEXT_ITEM, pdu.application_context.encode("ascii")),
        *(context.encode() for context in pdu.presentation_contexts),
        encode_item(_USER_INFORMATION_ITEM, b"".join(item.encode() for item in pdu.user_information)),
    ]
    body = b"".join(parts)
    return [_HEADER.pack(pdu.pdu_type, len(body)) + body]


def _encode_ae_title(title: str) -> bytes:
    raw = title.encode("latin-1")
    if len(raw) > 16:
        raise ValueError(f"an AE title has at most 16 characters: {title!r}")
    return raw.ljust(16)


def _decode_ae_title(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" ")


def _split_associate(body: memoryview, where: str) -> tuple[int, str, str, dict[int, list[memoryview]]]:
    """Protocol version, called and calling AE title, and the values of the items by their type."""
    version, _, called, calling = _ASSOCIATE.unpack_from(body)
    items: dict[int, list[memoryview]] = {}
    for number, (item_type, value) in enumerate(split_items(body[_ASSOCIATE.size :], where)):
        if number == _MOST_ITEMS:
            raise InvalidPDU(f"{where} has more than {_MOST_ITEMS} items", 2, 6)
        items.setdefault(item_type, []).append(value)
    return version, _decode_ae_title(called), _decode_ae_title(calling), items


def _decode_single_items(
    items: dict[int, list[memoryview]], where: str, limits: Limits
) -> tuple[str, tuple[UserItem, ...]]:
    application_contexts = items.get(_APPLICATION_CONTEXT_ITEM, [])
    if len(application_contexts) != 1:
        raise InvalidPDU(f"{where} has {len(application_contexts)} application contexts, not one", 2, 6)
    # Without its user information a PDU says no less than with an empty one; two would contradict each other.
    user_information = items.get(_USER_INFORMATION_ITEM, [memoryview(b"")])
    if len(user_information) != 1:
        raise InvalidPDU(f"{where} has {len(user_information)} user information items, not one", 2, 6)
    uid = decode_uid(application_contexts[0], f"the application context of {where}")
    return uid, decode_user_items(user_information[0], limits)


# (source, reason) of PS3.8 table 9-21
_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given by the service provider",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


@attrs.frozen
class AssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4): `result` 1 is permanent, 2 transient. Other values are kept as they came."""

    pdu_type: ClassVar[int] = 0x03
    result: int
    source: int
    reason: int

    @property
    def text(self) -> str:
        """What PS3.8 table 9-21 says of source and reason, or the three numbers if one of them is not in it."""
        meaning = _REJECTIONS.get((self.source, self.reason)) if self.result in (1, 2) else None
        return meaning or f"result {self.result}, source {self.source}, reason {self.reason}"

    def encode(self) -> list[Buffer]:
        return [_FOUR_BYTES.pack(self.pdu_type, 4, 0, self.result, self.source, self.reason)]

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> AssociateRJ:
        return cls(body[1], body[2], body[3])


@attrs.frozen
class PDV:
    """A presentation data value: a fragment of one message (PS3.8 9.3.5.1, and annex E for its control header).

    `data` is a flat buffer of bytes. After decoding it is a view into what was received, not a copy.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: Buffer = attrs.field(repr=byte_count)


@attrs.frozen
class PDataTF:
    """P-DATA-TF (PS3.8 9.3.5)."""

    pdu_type: ClassVar[int] = 0x04
    pdvs: tuple[PDV, ...]

    def encode(self) -> list[Buffer]:
        """A header before each PDV's own buffer, which is not copied. `fragment` is the way to send much."""
        buffers: list[Buffer] = []
        length = sum(_PDV_HEADER.size + len(pdv.data) for pdv in self.pdvs)
        header = _HEADER.pack(self.pdu_type, length)
        for pdv in self.pdvs:
            control = pdv.is_command * _COMMAND_BIT | pdv.is_last * _LAST_BIT
            buffers += header + _PDV_HEADER.pack(len(pdv.data) + 2, pdv.context_id, control), pdv.data
            header = b""
        return buffers

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> PDataTF:
        pdvs: list[PDV] = []
        at, end = 0, len(body)
        while at < end:
            if end - at < 6:
                raise InvalidPDU(f"P-DATA-TF has {end - at} bytes left, too few for a PDV", 2, 6)
            length, context_id, control = _PDV_HEADER.unpack_from(body, at)
            if not 2 <= length <= end - at - 4:
                raise InvalidPDU(f"a PDV declares {length} bytes where 2 to {end - at - 4} can be", 2, 6)
            if len(pdvs) == limits.pdvs:
                raise InvalidPDU(f"P-DATA-TF has more than {limits.pdvs} PDVs", 2, 6)
            following = at + 4 + length
            # Bits 2 to 7 of the control header are reserved.
            pdvs.append(
                PDV(context_id, control & _COMMAND_BIT != 0, control & _LAST_BIT != 0, body[at + 6 : following])
            )
            at = following
        return cls(tuple(pdvs))


@attrs.define
class PlainData:
    """P-DATA-TF PDUs as most are: one PDV each, of the data set in one presentation context, and not empty.

    They are decoded many at once, and before they are whole: `pieces` is what has come of their data.
    """

    pieces: list[memoryview] = attrs.Factory(list)
    longest: int = 0  # bytes of a variable field
    is_last: bool = False  # the PDU of the last piece has the last fragment
    rest: int = 0  # bytes of this PDU that are to come

    def decode(self, data: memoryview, start: int, context_id: int, limits: Limits) -> int:
        """Take what there is of `data` from `start` on, to the first that is not so plain; where that begins."""
        end = len(data)
        while start + _PLAIN_HEADER < end and not self.is_last and len(self.pieces) < _MOST_AT_ONCE:
            pdu_type, length, pdv_length, context, control = _FIRST_PDV_HEADER.unpack_from(data, start)
            if (
                control & _COMMAND_BIT
                or context != context_id
                or pdv_length + 4 != length
                or not 6 < length <= limits.pdu_length
                or pdu_type != PDataTF.pdu_type
            ):
                break
            following = start + HEADER_LENGTH + length
            self.pieces.append(data[start + _PLAIN_HEADER : following])
            self.is_last = control & _LAST_BIT != 0
            if length > self.longest:
                self.longest = length
            if following > end:
                self.rest, following = following - end, end
            start = following
        return start


@functools.lru_cache
def p_data_header(length: int, context_id: int, is_command: bool, is_last: bool) -> bytes:
    """The 12 bytes before `length` bytes of data in a P-DATA-TF PDU of a single PDV."""
    control = is_command * _COMMAND_BIT | is_last * _LAST_BIT
    return _FIRST_PDV_HEADER.pack(PDataTF.pdu_type, length + 6, length + 2, context_id, control)


@attrs.frozen
class ReleaseRQ:
    """A-RELEASE-RQ (PS3.8 9.3.6)."""

    pdu_type: ClassVar[int] = 0x05

    def encode(self) -> list[Buffer]:
        return [_FOUR_BYTES.pack(self.pdu_type, 4, 0, 0, 0, 0)]

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> ReleaseRQ:
        return cls()


@attrs.frozen
class ReleaseRP:
    """A-RELEASE-RP (PS3.8 9.3.7)."""

    pdu_type: ClassVar[int] = 0x06

    def encode(self) -> list[Buffer]:
        return [_FOUR_BYTES.pack(self.pdu_type, 4, 0, 0, 0, 0)]

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> ReleaseRP:
        return cls()


@attrs.frozen
class Abort:
    """A-ABORT (PS3.8 9.3.8): `source` 0 is the service user, 2 the provider, whose `reason` alone is significant."""

    pdu_type: ClassVar[int] = 0x07
    source: int = 0
    reason: int = 0

    def encode(self) -> list[Buffer]:
        return [_FOUR_BYTES.pack(self.pdu_type, 4, 0, 0, self.source, self.reason)]

    @classmethod
    def decode(cls, body: memoryview, limits: Limits) -> Abort:
        return cls(body[2], body[3])


PDU: TypeAlias = AssociateRQ | AssociateAC | AssociateRJ | PDataTF | ReleaseRQ | ReleaseRP | Abort

# By PDU type: its name, and the least and the most bytes after its header; None leaves the most to the limits.
_LENGTHS: dict[int, tuple[str, int, int | None]] = {
    AssociateRQ.pdu_type: ("A-ASSOCIATE-RQ", 68, None),
    AssociateAC.pdu_type: ("A-ASSOCIATE-AC", 68, None),
    AssociateRJ.pdu_type: ("A-ASSOCIATE-RJ", 4, 4),
    PDataTF.pdu_type: ("P-DATA-TF", 6, None),
    ReleaseRQ.pdu_type: ("A-RELEASE-RQ", 4, 4),
    ReleaseRP.pdu_type: ("A-RELEASE-RP", 4, 4),
    Abort.pdu_type: ("A-ABORT", 4, 4),
}

_DECODERS: dict[int, Callable[[memoryview, Limits], PDU]] = {
    AssociateRQ.pdu_type: AssociateRQ.decode,
    AssociateAC.pdu_type: AssociateAC.decode,
    AssociateRJ.pdu_type: AssociateRJ.decode,
    PDataTF.pdu_type: PDataTF.decode,
    ReleaseRQ.pdu_type: ReleaseRQ.decode,
    ReleaseRP.pdu_type: ReleaseRP.decode,
    Abort.pdu_type: Abort.decode,
}


def check_header(pdu_type: int, length: int, limits: Limits) -> None:
    """What a PDU's header gives away before its body has come.

    Raises `UnrecognisedPDU`, A-ABORT (2, 1), for a type that is none, and `InvalidPDU`, A-ABORT (2, 6), for a length
    that no PDU of this type has or that is above `limits.pdu_length`.
    """
    try:
        name, least, most = _LENGTHS[pdu_type]
    except KeyError:
        raise UnrecognisedPDU(f"there is no PDU of type {pdu_type:02X}H", 2, 1) from None
    if not least <= length <= (most or limits.pdu_length):
        raise InvalidPDU(f"{name} cannot have {length} bytes ({least} to {most or limits.pdu_length})", 2, 6)


def decode_pdu(pdu_type: int, body: memoryview, limits: Limits) -> PDU:
    """The PDU of which `body` is all that follows the six bytes of the header.

    Raises `UnrecognisedPDU` for an unknown type and `InvalidPDU` for all that is wrong in the body; nothing else.
    """
    check_header(pdu_type, len(body), limits)
    return decode_body(pdu_type, body, limits)


def decode_body(pdu_type: int, body: memoryview, limits: Limits) -> PDU:
    """The same, for a header that was checked."""
    return _DECODERS[pdu_type](body, limits)
