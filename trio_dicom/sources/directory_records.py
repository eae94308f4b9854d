"""The files that a DICOMDIR names (PS3.3 annex F), read one directory record after another.

Only Referenced File ID (0004,1500) and Record In-use Flag (0004,1410) are looked at: how the records hang together is
of no concern to who sends what they name. The file may be damaged or hostile: no value is read but these two, nothing
recurses, and records up to the damage are given out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import InvalidObject
from ..uids import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from .file import Descriptor, open_regular
from .part10 import HEAD_LIMIT, LONG_VRS, MEDIA_STORAGE_DIRECTORY, SHORT_VRS, UNDEFINED_LENGTH, parse_head

_IN_USE = (0x0004, 0x1410)
_FILE_ID = (0x0004, 0x1500)
_RECORDS = (0x0004, 0x1220)
_ITEM, _SEQUENCE_END = 0xE000, 0xE0DD
_LONGEST_FILE_ID = 4096  # bytes; the standard has 71
_WINDOW = 64 << 10


def referenced_file_ids(path: str) -> Iterator[tuple[bytes, ...]]:
    """The Referenced File ID of each record that is in use and has one: its components, without padding.

    Blocks. Raises `InvalidObject` where the file is damaged, and `OSError`.
    """
    descriptor = Descriptor()
    try:
        size = open_regular(descriptor, path).st_size
        with descriptor as fd, os.fdopen(os.dup(fd), "rb", _WINDOW) as stream:
            first = stream.read(min(size, HEAD_LIMIT))
            head = parse_head(first, at_end=len(first) == size, directory=True)
            if head is None or head.sop_class_uid != MEDIA_STORAGE_DIRECTORY:
                raise InvalidObject("not a DICOMDIR")
            stream.seek(head.data_set_offset)
            yield from _Records(stream, head.data_set_offset, size, head.transfer_syntax_uid)
    finally:
        descriptor.close()


class _Records:
    """A walk over the elements, all on one level: sequences and items of undefined length are entered, not nested."""

    def __init__(self, stream: BinaryIO, position: int, size: int, transfer_syntax_uid: str) -> None:
        self._stream = stream
        self._position = position
        self._size = size
        self._order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
        self._is_implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN

    def __iter__(self) -> Iterator[tuple[bytes, ...]]:
        end = self._enter_sequence()
        depth = 0  # of sequences of undefined length within the record
        is_in_use = True  # the flag comes before the name
        while self._position < end or depth:
            group, element, length = self._header()
            if group == 0xFFFE and not depth:
                if element == _SEQUENCE_END:
                    return
                is_in_use = True
            elif group == 0xFFFE:
                if element == _SEQUENCE_END:
                    depth -= 1
                elif element == _ITEM and length != UNDEFINED_LENGTH:
                    self._skip(length)
            elif length == UNDEFINED_LENGTH:
                depth += 1
            elif not depth and (group, element) == _IN_USE and length == 2:
                is_in_use = self._read(2) != b"\0\0"
            elif not depth and (group, element) == _FILE_ID and is_in_use and length <= _LONGEST_FILE_ID:
                yield tuple(part.strip(b" \0") for part in self._read(length).split(b"\\"))
            else:
                self._skip(length)

    def _enter_sequence(self) -> int:
        """Go to the first record; where the last one ends."""
        while self._position < self._size:
            group, element, length = self._header()
            if (group, element) == _RECORDS:
                return self._size if length == UNDEFINED_LENGTH else self._within(length)
            self._skip(length)
        raise InvalidObject("the DICOMDIR is damaged: it has no Directory Record Sequence (0004,1220)")

    def _header(self) -> tuple[int, int, int]:
        raw = self._read(8)
        group, element, length = struct.unpack(self._order + "HHL", raw)
        if self._is_implicit or group == 0xFFFE:
            return group, element, length
        vr = raw[4:6]
        if vr in SHORT_VRS:
            return group, element, struct.unpack(self._order + "H", raw[6:])[0]
        if vr not in LONG_VRS:
            raise self._damaged()
        return group, element, struct.unpack(self._order + "L", self._read(4))[0]

    def _within(self, length: int) -> int:
        end = self._position + length
        if end > self._size:
            raise self._damaged()
        return end

    def _read(self, length: int) -> bytes:
        end = self._within(length)
        data = self._stream.read(length)
        if len(data) < length:
            raise self._damaged()
        self._position = end
        return data

    def _skip(self, length: int) -> None:
        self._position = self._within(length)
        self._stream.seek(self._position)

    def _damaged(self) -> InvalidObject:
        return InvalidObject(f"the DICOMDIR is damaged or cut short at byte {self._position}")
