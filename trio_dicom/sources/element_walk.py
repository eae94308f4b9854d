"""Whether a data set is there to its end, as far as that can be told without reading it.

The walk goes from the header of one element to that of the next; values are stepped over. A data set that ends inside
an element, or before the end of a sequence that it began, was cut off: it must not go out as if it were whole. Where
the walk loses its way (a VR that nobody knows, a deflated data set), or takes too long, it says nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..errors import InvalidObject
from ..uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from .part10 import LONG_VRS, SHORT_VRS, UNDEFINED_LENGTH, Buffer, Head

_CHUNK = 16 << 10  # bytes of one look into a file
_MOST_LOOKS = 64  # into one file: a longer walk is not cheap any more, and is given up
_LONGEST_HEADER = 12
_MOST_HEADERS = 200_000  # of one data set: as long as nobody notices
_DEEPEST = 1000  # sequences and items in each other; nobody shall make this side remember more

_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD  # of group FFFE
_PIXEL_DATA = b"\xe0\x7f\x10\x00"  # in Little Endian
_END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"

_SEQUENCE, _IN_ITEM, _FRAGMENTS = range(3)  # what is open, of undefined length


class ElementWalk:
    """Goes over a data set whose first byte is at `offset`, which is from then on where the next header begins."""

    def __init__(self, transfer_syntax_uid: str, offset: int = 0) -> None:
        self.offset = offset
        self.is_lost = transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        self._order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
        self._implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
        self._open: list[tuple[int, bool]] = []  # the outer ones of what is open, and whether they are Implicit VR
        self._kind = _IN_ITEM  # of the innermost; the data set itself is like an item
        self._headers = 0  # met
        self._fed = offset
        self._tail = b""  # the beginning of a header

    def over(self, data: Buffer, at: int) -> None:
        """Go on through `data`, which are the bytes from `at` on."""
        position, size = self.offset - at, len(data)
        short = struct.Struct(self._order + "HH2sH").unpack_from
        plain = struct.Struct(self._order + "HHL").unpack_from
        long = struct.Struct(self._order + "L").unpack_from
        while position + 8 <= size and not self.is_lost:
            self._headers += 1
            group, element, vr, length = short(data, position)
            start = position + 8
            if group == 0xFFFE or self._implicit:
                vr, length = b"", plain(data, position)[2]
            elif vr in LONG_VRS:
                start += 4
                if start > size:
                    break
                length = long(data, position + 8)[0]
            elif vr not in SHORT_VRS:
                self.is_lost = True
                break
            position = start
            if length != UNDEFINED_LENGTH and group != 0xFFFE and self._kind == _IN_ITEM and group:
                position += length
            else:
                position += self._step(group, element, vr, length)
        self.offset = at + position
        self.is_lost |= self._headers > _MOST_HEADERS

    def _step(self, group: int, element: int, vr: bytes, length: int) -> int:
        """What is no element of a known length: the bytes to step over."""
        is_delimiter = group == 0xFFFE
        if is_delimiter and element == _ITEM and self._kind != _IN_ITEM:
            if length != UNDEFINED_LENGTH:
                return length
            self._enter(_IN_ITEM, self._implicit)
            self.is_lost |= self._open[-1][0] == _FRAGMENTS
        elif is_delimiter and element == (_ITEM_END if self._kind == _IN_ITEM else _SEQUENCE_END) and self._open:
            self._kind, self._implicit = self._open.pop()
        elif self._kind == _IN_ITEM and group and not is_delimiter:
            kind = _FRAGMENTS if vr in (b"OB", b"OW") else _SEQUENCE
            self._enter(kind, self._implicit or vr == b"UN")  # UN is Implicit VR inside (PS3.5 6.2.2)
        else:
            self.is_lost = True
        return 0

    def _enter(self, kind: int, implicit: bool) -> None:
        self._open.append((self._kind, self._implicit))
        self.is_lost = len(self._open) > _DEEPEST
        self._kind, self._implicit = kind, implicit

    def feed(self, chunk: Buffer) -> None:
        """Go on through the next bytes of a data set that comes piece by piece."""
        at, self._fed = self._fed, self._fed + len(chunk)
        if self._tail:
            joint = self._tail + bytes(chunk[:_LONGEST_HEADER])
            self.over(joint, at - len(self._tail))
            if self.offset < at:  # still no whole header
                self._tail = joint
                return
        self.over(chunk, at)
        self._tail = bytes(chunk[self.offset - at :]) if self.offset < self._fed and not self.is_lost else b""

    def check_fed(self, where: str) -> None:
        """Raise `InvalidObject` if what was fed is cut off."""
        self.check(self._fed, self._tail, where)

    def check(self, end: int, rest: Buffer = b"", where: str = "") -> None:
        """Raise `InvalidObject` if a data set that ends at `end` is cut off; `rest` is what is behind its elements."""
        is_padding = not any(rest) and self.offset + len(rest) == end
        if not self.is_lost and (self._open or not is_padding):
            raise InvalidObject("the data set is cut off", where)


def check_file(head: Head, first: Buffer, size: int, read: Callable[[int, int], Buffer]) -> None:
    """Raise `InvalidObject` if the data set of a file of `size` bytes is cut off.

    `first` are its first bytes, `read` gives so many from an offset on. The elements of most are walked to their end.
    """
    if _ends_with_pixels(head, first, size, read):
        return
    walk = ElementWalk(head.transfer_syntax_uid, head.data_set_offset)
    walk.over(first, 0)
    looks, before = 0, -1
    while before < walk.offset < size and not walk.is_lost:
        if looks == _MOST_LOOKS:
            return
        looks, before = looks + 1, walk.offset
        walk.over(read(before, min(_CHUNK, size - before)), before)
    if not walk.is_lost:
        walk.check(size, read(walk.offset, size - walk.offset) if walk.offset < size else b"")


def _ends_with_pixels(head: Head, first: Buffer, size: int, read: Callable[[int, int], Buffer]) -> bool:
    """Whether Pixel Data goes on exactly to the end of the file: so it is with most, and is found without a walk."""
    if head.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN:
        return False
    raw = first if isinstance(first, bytearray) else bytes(first)
    length_at = 4 if head.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN else 8
    at = raw.find(_PIXEL_DATA, head.data_set_offset)
    while at >= 0:
        start = at + length_at + 4
        length = int.from_bytes(raw[start - 4 : start], "little")
        if start + length == size:
            return True
        if length == UNDEFINED_LENGTH:
            return bytes(read(size - 8, 8)) == _END_OF_SEQUENCE
        at = raw.find(_PIXEL_DATA, at + 4)
    return False
