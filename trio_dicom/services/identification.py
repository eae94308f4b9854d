"""A few values from the first elements of a data set, whatever the rest of it is.

Sequences are stepped over without recursion, large values without being read; the number of elements looked at is
bounded, and so is what is inflated.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection

from ..errors import InvalidObject
from ..sources.part10 import LONG_VRS, SHORT_VRS, UNDEFINED_LENGTH
from ..uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

MOST_ELEMENTS = 100_000
MOST_INFLATED = 1 << 20  # bytes
LONGEST_VALUE = 1024  # bytes
MAX_DEPTH = 64  # of sequences in sequences
_WINDOW = 16 << 10

ReadAt = Callable[[int, int], bytes]  # (offset, length): fewer bytes at the end only


def find_values(
    read_at: ReadAt, start: int, end: int, transfer_syntax_uid: str, tags: Collection[int]
) -> dict[int, bytes]:
    """The values of those of `tags` that the data set in bytes `start` to `end` has, without padding.

    Raises `InvalidObject` if the data set is damaged before the last of them, or too long to get there; and what
    `read_at` raises. A transfer syntax that the standard does not have is taken for Explicit VR Little Endian.
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        inflated = _inflate(read_at, start, end)
        return _Walk(lambda offset, length: inflated[offset : offset + length], 0, len(inflated), "<").find(tags, False)
    order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
    return _Walk(read_at, start, end, order).find(tags, transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN)


def _inflate(read_at: ReadAt, start: int, end: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    try:
        while len(out) < MOST_INFLATED and start < end and not inflater.eof:
            chunk = read_at(start, min(_WINDOW, end - start))
            if not chunk:
                break
            start += len(chunk)
            while chunk and len(out) < MOST_INFLATED:
                out += inflater.decompress(chunk, MOST_INFLATED - len(out))
                chunk = inflater.unconsumed_tail
    except zlib.error as error:
        raise InvalidObject("the deflated data set is damaged") from error
    return bytes(out)


class _Walk:
    """One pass over the elements from `start` on."""

    def __init__(self, read_at: ReadAt, start: int, end: int, order: str) -> None:
        self._read_at = read_at
        self._offset = start
        self._end = end
        self._window = b""
        self._window_start = 0
        self._short = struct.Struct(order + "HH2sH").unpack_from
        self._implicit = struct.Struct(order + "HHL").unpack_from
        self._long = struct.Struct(order + "L").unpack_from

    def find(self, tags: Collection[int], implicit: bool) -> dict[int, bytes]:
        values: dict[int, bytes] = {}
        last = max(tags)
        outer: list[tuple[bool, bool]] = []  # those around this level that have no length
        in_sequence = False  # at this level there are items, not elements
        for _ in range(MOST_ELEMENTS):
            if self._offset >= self._end and not outer:
                return values
            tag, vr, length = self._header(implicit)
            if not outer and last < tag and tag >> 16 != 0xFFFE:
                return values
            if tag in (0xFFFEE00D, 0xFFFEE0DD):
                if not outer or in_sequence != (tag == 0xFFFEE0DD):
                    raise self._damaged()
                in_sequence, implicit = outer.pop()
            elif in_sequence != (tag == 0xFFFEE000):
                raise self._damaged()
            elif length == UNDEFINED_LENGTH:
                if len(outer) > 2 * MAX_DEPTH:
                    raise InvalidObject(f"sequences nested more than {MAX_DEPTH} deep")
                outer.append((in_sequence, implicit))
                in_sequence = not in_sequence
                implicit = implicit or vr == b"UN"  # PS3.5 6.2.2
            else:
                if length > self._end - self._offset:
                    raise self._damaged()
                if not outer and tag in tags:
                    if length > LONGEST_VALUE:
                        raise InvalidObject("a value is longer than its VR can be")
                    values[tag] = self._bytes(length).strip(b"\0 ")
                self._offset += length
        raise InvalidObject("too many elements before those that were looked for")

    def _header(self, implicit: bool) -> tuple[int, bytes, int]:
        """Tag, VR and length of the element that begins here; its value is next."""
        group, element, vr, length = self._short(self._bytes(8))
        if implicit or group == 0xFFFE:
            length = self._implicit(self._bytes(8))[2]
            vr = b""
        elif vr in LONG_VRS:
            self._offset += 4
            length = self._long(self._bytes(8), 4)[0]
        elif vr not in SHORT_VRS:
            raise self._damaged()
        self._offset += 8
        return group << 16 | element, vr, length

    def _bytes(self, length: int) -> bytes:
        at = self._offset - self._window_start
        if not 0 <= at <= len(self._window) - length:
            if length > self._end - self._offset:
                raise self._damaged()
            self._window = self._read_at(self._offset, min(_WINDOW, self._end - self._offset))
            self._window_start, at = self._offset, 0
            if len(self._window) < length:
                raise self._damaged()
        return self._window[at : at + length]

    def _damaged(self) -> InvalidObject:
        return InvalidObject(f"the data set is damaged or cut short at byte {self._offset}")
