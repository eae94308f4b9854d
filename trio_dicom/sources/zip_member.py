"""ZipMemberSource: a DICOM file in a ZIP archive, unpacked while it is sent.

A small one is unpacked at once. Of a larger one there is never more in memory than a chunk, however far it was
compressed; its last bytes are given out only when its checksum was found to be right. Each source has the archive open
for itself, and reads at positions of its own: a thread that was abandoned disturbs nobody.
"""

from __future__ import annotations

import bz2
import io
import os
import struct
import zlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, BinaryIO

from ..errors import InternalError, InvalidObject, ObjectChanged, printable
from . import part10, recode
from .chunked import ChunkedSource
from .container import container_of
from .element_walk import ElementWalk
from .file import Descriptor, open_regular, read_at, read_error
from .part10 import Buffer, Head
from .recode import Piece, Span
from .threads import run_abandonable
from .zip_archive import BZIP2, DEFLATED, Member, damaged

UNPACKED_AT_ONCE = 1 << 20  # bytes: a member of so many is held in memory
_CHUNK = 1 << 20  # bytes that one thread hop unpacks
_PACKED_CHUNK = 64 << 10
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MARK = b"PK\3\4"


async def open_members(members: Sequence[Member]) -> list[ZipMemberSource | InvalidObject]:
    """The sources of `members`, or for each what is the matter with it, in one thread hop."""
    opened = [Descriptor() for _ in members]
    complete = False
    try:
        results = await run_abandonable(lambda: [_open(*job) for job in zip(opened, members, strict=True)])
        complete = True
    finally:
        if not complete:
            for descriptor in opened:
                descriptor.close()
    return results


def _open(descriptor: Descriptor, member: Member) -> ZipMemberSource | InvalidObject:
    where = printable(member.path, 1024)
    try:
        if member.fault:
            raise InvalidObject(member.fault)
        reader = _Reader(descriptor, member, open_regular(descriptor, member.archive.path))
        first = memoryview(reader.take(member.size if member.size <= UNPACKED_AT_ONCE else part10.HEAD_LIMIT))
        head = _head(first, member.name, at_end=len(first) == member.size)
        if (member.size - head.data_set_offset) % 2:
            raise InvalidObject("the data set is of odd length")
        if len(first) == member.size:
            walk = ElementWalk(head.transfer_syntax_uid)
            walk.feed(first[head.data_set_offset :])
            walk.check_fed(where)
    except OSError as error:
        descriptor.close()
        return read_error(error, where)
    except InvalidObject as error:
        descriptor.close()
        error.where = where
        return error
    if len(first) == member.size:
        descriptor.close()
        return ZipMemberSource(descriptor, member, where, head, first)
    return ZipMemberSource(descriptor, member, where, head, None)


def _head(first: memoryview, name: str, *, at_end: bool) -> Head:
    try:
        head = part10.parse_head(first, at_end=at_end)
    except InvalidObject:
        container = container_of(first, name)
        if container is not None:
            raise InvalidObject(container.in_an_archive) from None
        raise
    if head is None:
        raise InternalError("the head of a file was not told from its first 64 KiB")
    return head


def open_member(descriptor: Descriptor, member: Member) -> BinaryIO:
    """`member`, unpacked while it is read: seekable, though to go back is to begin anew. Blocks.

    `descriptor` is opened, and remains the caller's to close. Raises `InvalidObject` and `OSError`, then and later.
    """
    reader = _Reader(descriptor, member, open_regular(descriptor, member.archive.path))
    return io.BufferedReader(reader, _PACKED_CHUNK)


class ZipMemberSource(ChunkedSource):
    """See `open_members`. `data` is the whole file, if it is in memory."""

    def __init__(self, descriptor: Descriptor, member: Member, where: str, head: Head, data: memoryview | None) -> None:
        super().__init__(where)
        self.sop_class_uid = head.sop_class_uid
        self.sop_instance_uid = head.sop_instance_uid
        self.transfer_syntaxes = recode.native_alternatives(head.transfer_syntax_uid)
        self.memory = member.size if data is not None else 0
        self._own = self._prepared = head.transfer_syntax_uid
        self._start, self._end = head.data_set_offset, member.size
        self._descriptor = descriptor
        self._member = member
        self._data = data
        self._arrange([Span(self._start, self._end - self._start)])

    def _arrange(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self.size = sum(map(recode.piece_length, pieces))

    async def prepare(self, transfer_syntax_uid: str) -> None:
        self._check_offered(transfer_syntax_uid)
        if transfer_syntax_uid != self._prepared:
            self._arrange(await self._in_thread(self._recode, transfer_syntax_uid))
            self._prepared = transfer_syntax_uid
        await self.rewind()
        if not self.size:
            raise InvalidObject("the data set has no elements", self.where)
        if self.size % 2:
            raise InvalidObject("the data set is of odd length", self.where)

    def _recode(self, target: str) -> list[Piece]:
        if self._data is not None:
            stream: BinaryIO = io.BytesIO(self._data)
        else:
            stream = io.BufferedReader(self._reader(), _PACKED_CHUNK)
        return recode.recode(stream, self._start, self._end, self._own, target)

    async def _bytes(self) -> AsyncGenerator[Buffer, None]:
        self._walk = ElementWalk(self._prepared)
        reader = None
        for piece in self._pieces:
            if not isinstance(piece, Span):
                yield piece
            elif self._data is not None:
                yield self._data[piece.offset : piece.offset + piece.length]
            else:
                reader = reader or self._reader()
                end = piece.offset + piece.length
                for offset in range(piece.offset, end, _CHUNK):
                    yield await self._in_thread(reader.take_from, offset, min(_CHUNK, end - offset))
        if self._data is None:
            reader = reader or self._reader()
            await self._in_thread(reader.verify)

    def _reader(self) -> _Reader:
        """Each pass has one of its own: an abandoned thread may still be using the last one."""
        status = self._member.archive.status
        if status is None:
            raise InternalError("a member of an archive that was never listed")
        return _Reader(self._descriptor, self._member, status)

    async def _in_thread(self, method: Any, *args: Any) -> Any:
        try:
            return await run_abandonable(method, *args)
        except OSError as error:
            raise read_error(error, self.where) from error
        except InvalidObject as error:
            error.where = self.where
            raise

    def whole(self) -> memoryview | None:
        if self._data is None or self._prepared != self._own or self._wire is not None or self._finished:
            return None
        self._finished = True
        self._done = self._end - self._start
        return self._data[self._start :]

    def discard(self) -> None:
        self._closed = True
        self._data = None
        self._pieces = []
        self._descriptor.close()

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self.discard()


class _Reader(io.RawIOBase):
    """The bytes of a member. `status` is that of the archive as it was opened."""

    def __init__(self, descriptor: Descriptor, member: Member, status: os.stat_result) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._member = member
        self._check_unchanged(status)
        self._restart()

    def _restart(self) -> None:
        self._position = 0
        self._crc = 0
        self._is_right = False  # the checksum was met
        self._packed_at = -1  # the local header was not read yet
        self._packed_left = self._member.packed_size
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if self._member.method == DEFLATED else None
        self._decompressor = bz2.BZ2Decompressor() if self._member.method == BZIP2 else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            offset += self._position if whence == io.SEEK_CUR else self._member.size
        offset = max(0, min(offset, self._member.size))
        if offset < self._position:
            self._restart()
        if offset > self._position:
            scratch = memoryview(bytearray(min(_CHUNK, offset - self._position)))
            while offset > self._position:
                self.readinto(scratch[: offset - self._position])
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Some of the next bytes. Raises `InvalidObject` where the archive is damaged, the checksum wrong."""
        view = memoryview(buffer).cast("B")[: self._member.size - self._position]
        if not view:
            return 0
        with self._descriptor as fd:
            chunk = self._unpack(fd, len(view))
        count = len(chunk)
        view[:count] = chunk
        self._crc = zlib.crc32(chunk, self._crc)
        self._position += count
        if self._position == self._member.size:
            if self._crc != self._member.crc:
                raise damaged("the checksum of this member is wrong")
            self._is_right = True
        return count

    def take(self, size: int) -> bytearray:
        """Exactly the next `size` bytes, of which so many are left."""
        data = bytearray(size)
        filled = 0
        while filled < size:
            filled += self.readinto(memoryview(data)[filled:])
        return data

    def take_from(self, offset: int, size: int) -> bytearray:
        self.seek(offset)
        return self.take(size)

    def verify(self) -> None:
        """That the checksum is met, and the archive what it was."""
        if not self._is_right:
            self.seek(0, io.SEEK_END)
        with self._descriptor as fd:
            self._check_unchanged(os.fstat(fd))

    def _check_unchanged(self, now: os.stat_result) -> None:
        then = self._member.archive.status
        if then is None or [getattr(now, name) for name in _LASTING] != [getattr(then, name) for name in _LASTING]:
            raise ObjectChanged("the ZIP archive was changed after its members were listed")

    def _unpack(self, fd: int, most: int) -> Buffer:
        """1 to `most` bytes."""
        while True:
            chunk: Buffer
            if self._inflater is not None:
                packed: Buffer = self._inflater.unconsumed_tail or self._packed(fd, _PACKED_CHUNK)
                try:
                    chunk = self._inflater.decompress(packed, most)
                except zlib.error as error:
                    raise damaged("this member cannot be unpacked") from error
                is_over = self._inflater.eof or not packed
            elif self._decompressor is not None:
                packed = self._packed(fd, _PACKED_CHUNK) if self._decompressor.needs_input else b""
                is_starved = self._decompressor.needs_input and not packed
                try:
                    chunk = self._decompressor.decompress(packed, most)
                except (OSError, EOFError) as error:
                    raise damaged("this member cannot be unpacked") from error
                is_over = self._decompressor.eof or is_starved
            else:
                chunk = self._packed(fd, most)
                is_over = not chunk
            if chunk:
                return chunk
            if is_over:
                raise damaged("this member is shorter than its directory says")

    def _packed(self, fd: int, most: int) -> Buffer:
        if self._packed_at < 0:
            self._packed_at = self._data_offset(fd)
        size = min(most, self._packed_left)
        data = _read(fd, self._packed_at, size)
        self._packed_at += size
        self._packed_left -= size
        return data

    def _data_offset(self, fd: int) -> int:
        at = self._member.header_offset
        mark, name_length, extra_length = _LOCAL_HEADER.unpack(_read(fd, at, _LOCAL_HEADER.size))
        if mark != _LOCAL_MARK:
            raise damaged("a member is not where it should be")
        return int(at + _LOCAL_HEADER.size + name_length + extra_length)


_LASTING = ("st_dev", "st_ino", "st_size", "st_mtime_ns")


def _read(fd: int, offset: int, size: int) -> bytearray:
    data = bytearray(size)
    if read_at(fd, memoryview(data), offset) < size:
        raise damaged("a member is cut short")
    return data
