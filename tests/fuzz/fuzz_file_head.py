"""Bytes for the head of a file, and for the sources of files and streams, recoding among it."""

from __future__ import annotations

import io
from pathlib import Path

from trio_dicom.errors import InvalidObject
from trio_dicom.sources.file import open_file, read_head
from trio_dicom.sources.part10 import HEAD_LIMIT, Head, parse_head
from trio_dicom.sources.source import Source
from trio_dicom.sources.stream import open_stream
from trio_dicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED

from .finding import documented, file_of, require, run

ROOM = 4099


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
    sources: list[Source] = []
    with documented(InvalidObject):
        sources.append(await open_file(path))
    with documented(InvalidObject):
        sources.append(await open_stream(io.BytesIO(data)))
    told = None
    with documented(InvalidObject):
        told = read_head(path)
    is_even = head is not None and (len(data) - head.data_set_offset) % 2 == 0
    require(len(sources) == 2 * is_even, f"{len(sources)} sources of {head}, the length being even: {is_even}")
    require(told is None or told == head, f"{told} and {head}")
    for source in sources:
        async with source:
            for number, syntax in enumerate(source.transfer_syntaxes):
                with documented(InvalidObject):
                    sent = await _drained(source, syntax)
                    require(number or head is None or sent == data[head.data_set_offset :], "other bytes are sent")


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
