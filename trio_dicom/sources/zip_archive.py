"""ZipArchive: what is in a ZIP archive, by its central directory (PKWARE APPNOTE 4.3), read a piece at a time.

Archives come from strangers, and may hold millions of members: the directory is never in memory as a whole, nothing is
allocated for a length that it declares, and a member that cannot be read does not stand in the way of the others.
Everything here blocks.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator

import attrs

from ..errors import InvalidObject
from .file import Descriptor, open_regular, read_at

STORED, DEFLATED, BZIP2 = 0, 8, 12
_METHODS = {STORED, DEFLATED, BZIP2}

_END = struct.Struct("<4sHHHHLLH")
_END_MARK = b"PK\5\6"
_LONGEST_COMMENT = 0xFFFF
_LOCATOR_64 = struct.Struct("<4sLQL")
_LOCATOR_64_MARK = b"PK\6\7"
_END_64 = struct.Struct("<4sQHHLLQQQQ")
_END_64_MARK = b"PK\6\6"
_ENTRY = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_ENTRY_MARK = b"PK\1\2"

_EXTRA_64 = 0x0001
_IN_EXTRA = 0xFFFFFFFF
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_UTF8 = 0x0800
_UNIX = 3

_MOST = 1 << 62  # bytes of a member: what the system can count
_WINDOW = 64 << 10  # bytes of the directory that are looked at together
_UNPACK = "unpack the archive, and send the folder"


@attrs.frozen
class Member:
    """One file in an archive. Where it cannot be read, `fault` says why."""

    archive: ZipArchive
    raw_name: bytes
    is_utf8: bool
    method: int
    header_offset: int
    packed_size: int  # bytes in the archive
    size: int  # bytes of the file
    crc: int
    fault: str = ""

    @property
    def name(self) -> str:
        """Within the archive, with slashes."""
        return self.raw_name.decode("utf-8", "surrogateescape") if self.is_utf8 else self.raw_name.decode("cp437")

    @property
    def path(self) -> str:
        """For people: "archive.zip!folder/member.dcm"."""
        return f"{self.archive.path}!{self.name}"


class ZipArchive:
    """The archive at `path`. `status` is that of the file when its members were listed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.status: os.stat_result | None = None

    def members(self) -> Iterator[Member]:
        """Its files, in the order of the directory; folders are none. Raises `InvalidObject`, `OSError`."""
        descriptor = Descriptor()
        try:
            self.status = open_regular(descriptor, self.path)
            with descriptor as fd:
                yield from self._entries(fd, self.status.st_size)
        finally:
            descriptor.close()

    def _entries(self, fd: int, size: int) -> Iterator[Member]:
        start, end, prefix = _locate(fd, size)
        directory = _Directory(fd, start, end)
        while directory.is_left:
            fields = _ENTRY.unpack(directory.take(_ENTRY.size))
            mark, made_by, _, flags, method, _, _, crc, packed_size, member_size = fields[:10]
            name_length, extra_length, comment_length, volume, _, attributes, offset = fields[10:]
            if mark != _ENTRY_MARK:
                raise damaged("its directory")
            name, extra = directory.take(name_length), directory.take(extra_length)
            directory.take(comment_length)
            if name.endswith(b"/"):
                continue
            if _IN_EXTRA in (member_size, packed_size, offset):
                member_size, packed_size, offset = _wide(extra, member_size, packed_size, offset)
            offset += prefix
            is_within = offset + packed_size <= size and member_size < _MOST
            is_link = made_by >> 8 == _UNIX and stat.S_ISLNK(attributes >> 16)
            yield Member(
                self,
                name,
                bool(flags & _UTF8),
                method,
                offset,
                packed_size,
                member_size,
                crc,
                _fault(flags, method, volume, is_link) if is_within else str(damaged("a member is cut short")),
            )


def damaged(what: str) -> InvalidObject:
    return InvalidObject(f"the ZIP archive is damaged: {what}")


def _fault(flags: int, method: int, volume: int, is_link: bool) -> str:
    if flags & _ENCRYPTED:
        return f"encrypted: {_UNPACK}"
    if method not in _METHODS:
        return f"compressed by a method ({method}) that is not read here: {_UNPACK}"
    if volume:
        return f"in another volume of the ZIP archive: {_UNPACK}"
    return "not a file but a symbolic link" if is_link else ""


def _locate(fd: int, size: int) -> tuple[int, int, int]:
    """Where the directory begins and ends, and how many bytes precede the archive (those that unpack it, say)."""
    tail_size = min(size, _END.size + _LONGEST_COMMENT)
    tail = _read(fd, size - tail_size, tail_size)
    at = _find_end(tail)
    _, volume, _, _, _, length, offset, _ = _END.unpack_from(tail, at)
    end = size - tail_size + at
    if end >= _LOCATOR_64.size:
        mark, _, position, _ = _LOCATOR_64.unpack(_read(fd, end - _LOCATOR_64.size, _LOCATOR_64.size))
        if mark == _LOCATOR_64_MARK:
            volume, length, offset, end = _end_64(fd, end - _LOCATOR_64.size, position)
    if volume not in (0, 0xFFFF):
        raise InvalidObject("the ZIP archive is in several volumes: join them first")
    start = end - length
    if start < offset:
        raise damaged("its directory is not where it should be")
    return start, end, start - offset


def _find_end(tail: bytes) -> int:
    """Where the end record is: such that its comment ends the file, else the last whole one."""
    last = -1
    at = max(0, len(tail) - _END.size + len(_END_MARK))
    while (at := tail.rfind(_END_MARK, 0, at)) >= 0:
        comment_length = _END.unpack_from(tail, at)[-1]
        if at + _END.size + comment_length == len(tail):
            return at
        last = max(last, at)
    if last < 0:
        raise damaged("it has no end, or is no ZIP archive")
    return last


def _end_64(fd: int, locator: int, position: int) -> tuple[int, int, int, int]:
    """The volume of the directory, its length and its offset; and where its end is in the file."""
    # Where something precedes the archive, the record is not at its own position, but mostly right before the locator.
    for at in (position, locator - _END_64.size):
        if 0 <= at <= locator - _END_64.size:
            mark, _, _, _, volume, _, _, _, length, offset = _END_64.unpack(_read(fd, at, _END_64.size))
            if mark == _END_64_MARK:
                return volume, length, offset, at
    raise damaged("its end (ZIP64) is not where it should be")


def _wide(extra: bytes, *fields: int) -> tuple[int, ...]:
    """`fields` with those that were too large for 32 bits from the extra field (APPNOTE 4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == _EXTRA_64:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - at) // 8}Q", extra, at))
            try:
                return tuple(next(wide) if field == _IN_EXTRA else field for field in fields)
            except RuntimeError:  # fewer than there should be
                break
        at += length
    raise damaged("sizes are missing (ZIP64)")


class _Directory:
    """The bytes of the directory, one after another."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd = fd
        self._position = start  # of the first byte that was not read
        self._end = end
        self._window = b""
        self._at = 0

    @property
    def is_left(self) -> bool:
        return self._at < len(self._window) or self._position < self._end

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._window):
            self._window = self._window[self._at :]
            self._at = 0
            wanted = min(_WINDOW + size, self._end - self._position)
            self._window += _read(self._fd, self._position, wanted)
            self._position += wanted
            if len(self._window) < size:
                raise damaged("its directory is cut short")
        self._at += size
        return self._window[self._at - size : self._at]


def _read(fd: int, offset: int, size: int) -> bytes:
    data = bytearray(size)
    if read_at(fd, memoryview(data), offset) < size:
        raise damaged("it was cut short while it was read")
    return bytes(data)
