"""A data set from Explicit VR Big Endian (PS3.5 A.3, retired) into Explicit VR Little Endian.

Numbers are turned round, everything else keeps its bytes, and no length changes. What cannot be known is not guessed:
values of unknown representation (UN), and pixels of more than 16 bits, for which makers disagreed on the order.
"""

from __future__ import annotations

import array
import struct

from ..errors import InvalidObject
from .image_pixels import PIXEL_DATA

MAX_DEPTH = 64  # of sequences in sequences
_UNDEFINED = 0xFFFFFFFF
_CHUNK = 1 << 20  # bytes turned at once: the interpreter's lock is held that long
_BITS_ALLOCATED = 0x00280100

# VR: bytes of a number, and whether the element has 4 bytes for its length (PS3.5 7.1.2).
_VRS = {
    **dict.fromkeys(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UI".split(), (1, False)),
    **dict.fromkeys(b"AT SS US".split(), (2, False)),
    **dict.fromkeys(b"FL SL UL".split(), (4, False)),
    b"FD": (8, False),
    **dict.fromkeys(b"OB UC UN UR UT SQ".split(), (1, True)),
    b"OW": (2, True),
    **dict.fromkeys(b"OF OL".split(), (4, True)),
    **dict.fromkeys(b"OD OV SV UV".split(), (8, True)),
}
_TYPE_CODES = {2: "H", 4: "I", 8: "Q"}


def turn_round(data: bytearray) -> None:
    """Make Little Endian of the Big Endian data set in `data`. Raises `InvalidObject` if that cannot be done."""
    _Turner(data).data_set(0, len(data), 0, is_delimited=False)


class _Turner:
    def __init__(self, data: bytearray) -> None:
        self._data = data
        self._view = memoryview(data)

    def data_set(self, at: int, end: int, depth: int, *, is_delimited: bool) -> int:
        """The elements from `at` on; where they end, or, `is_delimited`, where its delimiter is."""
        bits = 8
        while at < end:
            tag, vr, start, length = self._header(at, end)
            if tag == 0xFFFEE00D and is_delimited:
                return start
            if tag >> 16 == 0xFFFE:
                raise self._damaged(at)
            size, _ = _VRS[vr]
            if vr == b"SQ":
                at = self._sequence(start, length, end, depth + 1)
                continue
            if length == _UNDEFINED or start + length > end or length % size:
                raise self._damaged(at)
            if vr == b"UN" and length:
                raise InvalidObject(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is of unknown VR: it cannot be turned round")
            if tag == PIXEL_DATA and bits > 16:
                raise InvalidObject(f"Big Endian pixels of {bits} bits: their order is not certain")
            self._turn(start, length, size)
            if tag == _BITS_ALLOCATED and length == 2:
                (bits,) = struct.unpack_from("<H", self._data, start)
            at = start + length
        if is_delimited:
            raise self._damaged(at)
        return at

    def _sequence(self, at: int, length: int, end: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise InvalidObject(f"sequences nested more than {MAX_DEPTH} deep")
        is_delimited = length == _UNDEFINED
        if not is_delimited:
            if at + length > end:
                raise self._damaged(at)
            end = at + length
        while is_delimited or at < end:
            tag, _, start, item_length = self._header(at, end)
            if is_delimited and tag == 0xFFFEE0DD:
                return start
            if tag != 0xFFFEE000:
                raise self._damaged(at)
            if item_length == _UNDEFINED:
                at = self.data_set(start, end, depth, is_delimited=True)
            elif start + item_length > end:
                raise self._damaged(at)
            else:
                at = self.data_set(start, start + item_length, depth, is_delimited=False)
        return at

    def _header(self, at: int, end: int) -> tuple[int, bytes, int, int]:
        """Tag, VR, where the value begins and its length; the header turned round."""
        if at + 8 > end:
            raise self._damaged(at)
        group, element = struct.unpack_from(">HH", self._data, at)
        struct.pack_into("<HH", self._data, at, group, element)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, b"", at + 8, self._length(at + 4, "L")
        vr = bytes(self._data[at + 4 : at + 6])
        if vr not in _VRS:
            raise self._damaged(at)
        if not _VRS[vr][1]:
            return tag, vr, at + 8, self._length(at + 6, "H")
        if at + 12 > end:
            raise self._damaged(at)
        return tag, vr, at + 12, self._length(at + 8, "L")

    def _length(self, at: int, code: str) -> int:
        (length,) = struct.unpack_from(">" + code, self._data, at)
        struct.pack_into("<" + code, self._data, at, length)
        return int(length)

    def _turn(self, start: int, length: int, size: int) -> None:
        if size == 1:
            return
        for at in range(start, start + length, _CHUNK):
            stop = min(at + _CHUNK, start + length)
            numbers = array.array(_TYPE_CODES[size])
            numbers.frombytes(self._view[at:stop])
            numbers.byteswap()
            self._view[at:stop] = numbers.tobytes()

    def _damaged(self, at: int) -> InvalidObject:
        return InvalidObject(f"the data set is damaged or cut short at byte {at}")
