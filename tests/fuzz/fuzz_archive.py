"""Bytes for a ZIP archive that is an input."""

from __future__ import annotations

from pathlib import Path

from trio_dicom.errors import InvalidObject
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.inputs.item import Item, open_items
from trio_dicom.sources.source import Source

from .finding import documented, file_of, require, run

MOST_ITEMS = 64
MOST_BYTES = 8 << 20  # of one member: it is the ratio that shows whether memory is bounded, not time
ROOM = 65_537


def check(data: bytes) -> None:
    with file_of(data, "archive.zip") as path:
        run(lambda: _inputs(path))


async def _inputs(path: Path) -> None:
    items = await items_of(path)
    for result in await open_items(items):
        if isinstance(result, InvalidObject):
            continue
        require(isinstance(result, Source), repr(result))
        async with result:
            for syntax in result.transfer_syntaxes:
                with documented(InvalidObject):
                    await result.prepare(syntax)
                    await _drain(result)
    for item in items:
        with documented(InvalidObject):
            async with await item.open() as source:
                item.identity(source)


async def items_of(path: Path) -> list[Item]:
    """At least one: that says what is wrong, if nothing else."""
    items: list[Item] = []
    async with Inputs([path]) as inputs:
        while len(items) < MOST_ITEMS and (some := await inputs.take(16)):
            items += some
        if inputs.is_exhausted and not items:
            return []
    for item in items:
        require(isinstance(item.name, str), repr(item))
        item.identity(None)
    return items


async def _drain(source: Source) -> None:
    if source.whole() is not None:
        return
    buffer, total, is_last = memoryview(bytearray(ROOM)), 0, False
    while not is_last and total < MOST_BYTES:
        count, is_last = await source.read_into(buffer)
        require(0 < count <= ROOM, f"{count} bytes in a room of {ROOM}")
        total += count
    require(not is_last or source.size in (None, total), f"{total} bytes, not {source.size}")
