"""StreamSource: a DICOM file that comes out of a stream, sent while it comes.

Read from where the stream stands: preamble, File Meta Information, data set. Nothing is held but the head and one
chunk. The stream remains its owner's: it is neither closed nor, unless the object is sent again, sought in.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from typing import Any, BinaryIO, Protocol

import trio

from ..errors import InvalidObject, ReadError
from . import part10
from .chunked import ChunkedSource
from .element_walk import ElementWalk, check_file
from .file import read_error
from .part10 import Buffer, Head
from .threads import run_abandonable

_HEAD_CHUNK = 16 << 10
_CHUNK = 1 << 20
_WHERE = "stream"


async def open_stream(stream: BinaryIO | trio.abc.ReceiveStream) -> StreamSource:
    """The DICOM object at the head of `stream`: a binary file object, or trio's `ReceiveStream`.

    It can be sent in its own transfer syntax only. File objects are read in threads, `io.BytesIO` directly. A read that
    was cancelled may still be going on in its thread: leave a file object alone after that.

    Raises `TypeError` for anything else, text streams too; `InvalidObject` if this is no DICOM object that can be sent;
    `ReadError` (the cause is chained) if the stream fails.
    """
    reader: _Reader
    if isinstance(stream, trio.abc.ReceiveStream):
        reader = _TrioReader(stream)
    else:
        file: Any = getattr(stream, "wrapped", stream) if isinstance(stream, trio.abc.AsyncResource) else stream
        if isinstance(file, io.TextIOBase) or not callable(getattr(file, "read", None)):
            raise TypeError(f"a stream is a binary file object or a trio.abc.ReceiveStream, not {_name(stream)}")
        reader = _FileReader(file)
    start, end = await reader.bounds()
    head, first = await _read_head(reader)
    size = None
    if end is not None and start is not None:
        size = end - start - head.data_set_offset
        if size % 2:
            raise InvalidObject("the data set is of odd length", _WHERE)
        if isinstance(stream, io.BytesIO):
            _check_whole(stream, head, start, end)
    return StreamSource(reader, head, first, start, size)


def _check_whole(stream: io.BytesIO, head: Head, start: int, end: int) -> None:
    """Where it costs nothing, before the first byte goes out. Raises `InvalidObject`."""
    with stream.getbuffer() as everything, everything[start:end] as file, file[:_HEAD_CHUNK] as first:
        try:
            check_file(head, first, len(file), lambda offset, count: bytes(file[offset : offset + count]))
        except InvalidObject as error:
            error.where = _WHERE
            raise


def _name(thing: object) -> str:
    return type(thing).__name__


async def _read_head(reader: _Reader) -> tuple[Head, bytes]:
    """The head, and the bytes of the data set that came with it."""
    data = bytearray()
    next_look = 1024
    while True:
        chunk = await reader.read(_HEAD_CHUNK)
        data += chunk
        if chunk and len(data) < next_look:
            continue  # however small the chunks, the head is not walked more often than its size doubles
        next_look = min(2 * len(data), part10.HEAD_LIMIT)
        try:
            head = part10.parse_head(data, at_end=not chunk)
        except InvalidObject as error:
            error.where = _WHERE
            raise
        if head is not None:
            return head, bytes(data[head.data_set_offset :])


class StreamSource(ChunkedSource):
    """See `open_stream`."""

    def __init__(self, reader: _Reader, head: Head, first: bytes, start: int | None, size: int | None) -> None:
        super().__init__(_WHERE)
        self.head = head
        self.sop_class_uid = head.sop_class_uid
        self.sop_instance_uid = head.sop_instance_uid
        self.transfer_syntaxes = (head.transfer_syntax_uid,)
        self.size = size
        self._reader = reader
        self._first = first
        self._start = start
        self._untouched = True

    async def prepare(self, transfer_syntax_uid: str) -> None:
        self._check_offered(transfer_syntax_uid)
        if not await self.rewind():
            raise ReadError("the stream cannot be read a second time", self.where)

    async def _bytes(self) -> AsyncGenerator[Buffer, None]:
        self._untouched = False
        first, self._first = self._first, b""
        self._walk = ElementWalk(self.head.transfer_syntax_uid)
        yield first
        while chunk := await self._reader.read(_CHUNK):
            yield chunk

    async def rewind(self) -> bool:
        if self._untouched:
            return not self._closed
        if self._start is None or self._reader.in_use or not await super().rewind():
            return False
        await self._reader.seek(self._start + self.head.data_set_offset)
        return True

    async def reopened(self) -> StreamSource:
        """The same object of the stream once more, though this source was closed. Raises `ReadError`."""
        again = StreamSource(self._reader, self.head, b"", self._start, self.size)
        again._untouched = False
        if not await again.rewind():
            raise ReadError("the stream cannot be read a second time", self.where)
        return again


class _Reader(Protocol):
    in_use: bool  # an abandoned thread may still be reading

    async def bounds(self) -> tuple[int | None, int | None]:
        """Where the stream stands, if it can be returned to; where it ends, if that costs nothing to know."""

    async def read(self, size: int) -> Buffer:
        """Up to `size` bytes; none at the end."""

    async def seek(self, position: int) -> None: ...


class _TrioReader:
    in_use = False

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream

    async def bounds(self) -> tuple[None, None]:
        return None, None

    async def read(self, size: int) -> Buffer:
        try:
            return await self._stream.receive_some(size)
        except Exception as error:
            raise ReadError(f"the stream failed: {_name(error)}", _WHERE) from error

    async def seek(self, position: int) -> None:
        raise ReadError("the stream cannot be read a second time", _WHERE)


class _FileReader:
    def __init__(self, file: Any) -> None:
        self.in_use = False
        self._file = file
        self._in_memory = isinstance(file, io.BytesIO)

    async def bounds(self) -> tuple[int | None, int | None]:
        bounds: tuple[int | None, int | None] = await self._call(self._bounds)
        return bounds

    def _bounds(self) -> tuple[int | None, int | None]:
        file = self._file
        seekable = getattr(file, "seekable", None)
        if seekable is None or not seekable():
            return None, None
        start = file.tell()
        # Others, that decompress for instance, may have to read all to find their end.
        plain = isinstance(getattr(file, "file", file), io.BytesIO | io.FileIO | io.BufferedReader | io.BufferedRandom)
        if not plain:
            return start, None
        end = file.seek(0, io.SEEK_END)
        file.seek(start)
        return start, end

    async def read(self, size: int) -> Buffer:
        chunk = await self._call(self._file.read, size)
        if chunk is None:
            raise ReadError("the stream has no bytes ready: it is in non-blocking mode", _WHERE)
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(f"a stream of bytes is needed; read() gave {_name(chunk)}")
        return chunk

    async def seek(self, position: int) -> None:
        await self._call(self._file.seek, position)

    async def _call(self, method: Any, *args: Any) -> Any:
        try:
            if self._in_memory:
                return method(*args)
            self.in_use = True
            result = await run_abandonable(method, *args)
        except OSError as error:
            self.in_use = False
            raise read_error(error, _WHERE) from error
        except Exception as error:
            self.in_use = False
            raise ReadError(f"the stream failed: {_name(error)}", _WHERE) from error
        self.in_use = False
        return result
