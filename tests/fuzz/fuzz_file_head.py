"""Bytes for the head of a file, and for the sources of files and streams, recoding among it."""

from __future__ import annotations

import io
from collections.abc import Awaitable
from pathlib import Path

import trio

from trio_dicom.errors import InvalidObject
from trio_dicom.sources.file import open_file, read_head
from trio_dicom.sources.part10 import HEAD_LIMIT, Head, parse_head
from trio_dicom.sources.source import Source
from trio_dicom.sources.stream import open_stream
from trio_dicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED

from .finding import documented, file_of, require, run

ROOM = 4099
PIECE = 7


def check(data: bytes) -> None:
    head = _head(data)
    with file_of(data, "object.dcm") as path:
        run(lambda: _sources(data, head, path))


def _head(data: bytes) -> Head | None:
    """None if it was refused. Read while it comes, it must not be told before it is known, nor be another."""
    final: Head | str | None
    try:
        final = parse_head(data[:HEAD_LIMIT], at_end=len(data) <= HEAD_LIMIT)
        require(final is not None, "the head is not told at the end")
    except InvalidObject as error:
        final = str(error)
    for length in {*range(0, min(len(data), 700), 13), len(data) // 2}:
        early: Head | str | None
        try:
            early = parse_head(data[:length], at_end=False)
        except InvalidObject as error:
            early = str(error)
        if isinstance(early, Head):
            is_damaged = isinstance(final, str) and early.transfer_syntax_uid == DEFLATED  # which shows further on
            require(early == final or is_damaged, f"after {length} bytes the head was {early}, in the end {final}")
        elif early is not None:
            require(isinstance(final, str), f"after {length} bytes it was refused, in the end not: {early}")
    if not isinstance(final, Head):
        return None
    require(132 <= final.data_set_offset < len(data), final)
    return final


async def _sources(data: bytes, head: Head | None, path: Path) -> None:
    is_even = head is not None and (len(data) - head.data_set_offset) % 2 == 0
    expected = data[head.data_set_offset :] if head is not None else b""
    sent = [await _sent(opening, expected) for opening in (open_file(path), open_stream(io.BytesIO(data)))]
    require(is_even or not any(sent), f"it is sent, and its head was refused, or its length is odd: {head}")
    # What is cut off is found before the first byte of a file, and before the last of a stream.
    require(sent[0] is not None or not sent[1], "a stream is sent, and not the same file")
    dripped = await _sent(open_stream(Dripping(data)), expected)
    require(bool(dripped) is bool(sent[1]), f"in one piece {sent[1]}, in many {dripped}")
    told = None
    with documented(InvalidObject):
        told = read_head(path)
    require(told is None or told == head, f"{told} and {head}")


class Dripping(trio.abc.ReceiveStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._data = self._data[:PIECE], self._data[PIECE:]
        return piece

    async def aclose(self) -> None: ...


async def _sent(opening: Awaitable[Source], expected: bytes) -> bool | None:
    """Whether it is sent in its own transfer syntax; None if it is not even opened."""
    source = None
    with documented(InvalidObject):
        source = await opening
    if source is None:
        return None
    is_sent = False
    async with source:
        for number, syntax in enumerate(source.transfer_syntaxes):
            with documented(InvalidObject):
                sent = await _drained(source, syntax)
                if not number:
                    require(sent == expected, "other bytes are sent")
                    is_sent = True
    return is_sent


async def _drained(source: Source, transfer_syntax: str) -> bytes:
    await source.prepare(transfer_syntax)
    if (whole := source.whole()) is not None:
        return bytes(whole)
    buffer, sent, is_last = memoryview(bytearray(ROOM)), bytearray(), False
    while not is_last:
        count, is_last = await source.read_into(buffer)
        require(0 < count <= ROOM and (is_last or count == ROOM), f"{count} bytes in a room of {ROOM}")
        sent += buffer[:count]
    require(len(sent) % 2 == 0 and source.size in (None, len(sent)), f"{len(sent)} bytes, not {source.size}")
    return bytes(sent)
