"""The head of a DICOM file (PS3.10 section 7): identity, transfer syntax, and where the data set begins. No I/O.

The data set is not parsed. Only its first elements are walked, up to SOP Instance UID (0008,0018), so that an object
whose File Meta Information names another class or instance than its data set never gets on the wire.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import attrs

from ..errors import InvalidObject
from ..uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_valid_uid,
)

Buffer = bytes | bytearray | memoryview

HEAD_LIMIT = 1 << 16  # preamble and File Meta Information may take this many bytes
_ENOUGH = 4096  # of the data set: where its SOP UIDs are not within these, they are not looked for

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

# Explicit VRs by the width of their length field (PS3.5 7.1.2).
SHORT_VRS = frozenset(bytes.split(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US"))
LONG_VRS = frozenset(bytes.split(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV"))

UNDEFINED_LENGTH = 0xFFFFFFFF

_short_element = struct.Struct("<HH2sH").unpack_from
_short_element_big = struct.Struct(">HH2sH").unpack_from
_implicit_element = struct.Struct("<HHL").unpack_from
_long = struct.Struct("<L").unpack_from
_long_big = struct.Struct(">L").unpack_from
_tag = struct.Struct("<HH").unpack_from
_tag_big = struct.Struct(">HH").unpack_from


@attrs.frozen
class Head:
    """What must be known of a DICOM file to send it as it lies on the disk. `data_set_offset` is in bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int


def parse_head(data: Buffer, *, at_end: bool, directory: bool = False) -> Head | None:
    """The head of the DICOM file that begins with `data`, or None if more bytes are needed to tell.

    `at_end` says that there are no more. Raises `InvalidObject` if these are not the first bytes of a DICOM object
    that can be sent, a DICOMDIR only with `directory`. The group length (0002,0000) is not relied upon.
    """
    size = len(data)
    if size < 132:
        if at_end:
            raise InvalidObject(f"not a DICOM file: {size} bytes are too few for preamble and prefix")
        return None
    if data[128:132] != b"DICM":
        what = "the 128-byte preamble is missing" if data[:4] == b"DICM" else "no DICM prefix after 128 bytes"
        raise InvalidObject(f"not a DICOM file: {what}")
    at_end = at_end or size >= HEAD_LIMIT
    values: dict[int, bytes] = {}
    offset = declared_end = 132
    while True:
        if offset + 8 > size:
            if not at_end:
                return None
            if size >= HEAD_LIMIT:
                raise InvalidObject("the File Meta Information is longer than 64 KiB")
            break
        group, element, vr, length = _short_element(data, offset)
        if group != 0x0002:
            break
        # Deflated bytes may look like anything, an element of group 0002 too: there the group length decides.
        if offset == declared_end and values.get(0x0010, b"").rstrip(b"\0 ") == _DEFLATED:
            break
        start = offset + 8
        if vr in LONG_VRS:
            start += 4
            length = _long(data, offset + 8)[0] if start <= size else 0
        elif vr not in SHORT_VRS:
            raise InvalidObject("group 0002 is not encoded in Explicit VR Little Endian")
        end = start + length
        if end > HEAD_LIMIT:
            raise InvalidObject("the File Meta Information is longer than 64 KiB")
        if end > size:
            if at_end:
                raise InvalidObject("the File Meta Information is cut short")
            return None
        if element == 0x0000 and length == 4:
            declared_end = end + _long(data, start)[0]
        elif element == 0x0002 or element == 0x0003 or element == 0x0010:
            if element in values:
                raise InvalidObject(f"(0002,{element:04X}) appears twice")
            values[element] = bytes(data[start:end])
        offset = end
    transfer_syntax = _repeated_uid(values.get(0x0010, b""), "Transfer Syntax UID (0002,0010)")
    if not transfer_syntax:
        raise InvalidObject("Transfer Syntax UID (0002,0010) is missing")
    if offset >= size:
        if at_end:
            raise InvalidObject("there is no data set after the File Meta Information")
        return None

    found = first_uids(data, offset, transfer_syntax)
    if found is None:
        if not at_end and size - offset < _ENOUGH:
            return None
        found = b"", b""
    sop_class = _agreed(_repeated_uid, values.get(0x0002, b""), found[0], _SOP_CLASS)
    sop_instance = _agreed(_uid, values.get(0x0003, b""), found[1], _SOP_INSTANCE)
    if sop_class == MEDIA_STORAGE_DIRECTORY and not directory:
        raise InvalidObject("a DICOMDIR is not an object that can be stored")
    return Head(sop_class, sop_instance, transfer_syntax, offset)


_DEFLATED = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode()


def _uid(value: bytes, name: str) -> str:
    """The UID in `value`, without its one byte of padding; empty if there is none."""
    text = value.decode("latin-1")
    if text[-1:] in ("\0", " "):
        text = text[:-1]
    if text and not is_valid_uid(text):
        raise InvalidObject(f"{name} is not a UID")
    return text


_repeated_uid = functools.lru_cache(_uid)  # of which few are met: classes and transfer syntaxes


class _Twice(NamedTuple):
    """A UID that File Meta Information and data set both have."""

    name: str
    in_meta: str
    in_data_set: str


_SOP_CLASS = _Twice("SOP Class UID", "(0002,0002)", "(0008,0016)")
_SOP_INSTANCE = _Twice("SOP Instance UID", "(0002,0003)", "(0008,0018)")


def _agreed(decode: Callable[[bytes, str], str], meta_value: bytes, data_set_value: bytes, what: _Twice) -> str:
    in_meta = in_data_set = decode(meta_value, f"{what.name} {what.in_meta}")
    if data_set_value != meta_value:
        in_data_set = decode(data_set_value, f"{what.name} {what.in_data_set}")
    if in_meta and in_data_set and in_meta != in_data_set:
        raise InvalidObject(
            f"mismatch: {what.name} is one in File Meta Information {what.in_meta}, another in {what.in_data_set}"
        )
    if not (in_meta or in_data_set):
        raise InvalidObject(f"{what.name} is missing: neither {what.in_meta} nor {what.in_data_set}")
    return in_meta or in_data_set


def first_uids(data: Buffer, offset: int, transfer_syntax: str) -> tuple[bytes, bytes] | None:
    """The raw values of (0008,0016) and (0008,0018) in the data set whose first bytes are `data` from `offset` on.

    They have their padding, and are empty where the data set has none; None if the data ended too early to tell. Of a
    deflated data set 4 KiB at most are inflated. Raises `InvalidObject` if these cannot be the first bytes of one.
    """
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[offset:], _ENOUGH)
        except zlib.error:
            raise InvalidObject("the deflated data set is damaged") from None
        offset = 0
    size = len(data)
    big = transfer_syntax == EXPLICIT_VR_BIG_ENDIAN
    if offset + 4 <= size and (group := (_tag_big if big else _tag)(data, offset)[0]) in (0x0000, 0x0002):
        raise InvalidObject(f"the data set begins with group {group:04X}, which does not belong there")
    implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    short_element, long = (_short_element_big, _long_big) if big else (_short_element, _long)
    sop_class = b""
    while offset + 8 <= size:
        start = offset + 8
        if implicit:
            group, element, length = _implicit_element(data, offset)
        else:
            group, element, vr, length = short_element(data, offset)
            if vr in LONG_VRS:
                if (start := offset + 12) > size:
                    return None
                length = long(data, offset + 8)[0]
            elif vr not in SHORT_VRS:
                return sop_class, b""  # a private transfer syntax: no check
        if group > 0x0008 or (group == 0x0008 and element > 0x0018) or length == UNDEFINED_LENGTH:
            return sop_class, b""
        end = start + length
        if group == 0x0008 and (element == 0x0016 or element == 0x0018):
            if end > size:
                return None
            if element == 0x0018:
                return sop_class, bytes(data[start:end])
            sop_class = bytes(data[start:end])
        offset = end
    return None
