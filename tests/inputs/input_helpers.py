"""Items out of inputs, and what their sources give."""

from __future__ import annotations

import os
import zipfile

import pytest

from sources.source_helpers import drain
from trio_dicom.errors import InvalidObject
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.inputs.item import Item, open_items
from trio_dicom.sources.source import Source


async def all_items(given: object, most: int = 100) -> list[Item]:
    async with Inputs(given) as inputs:
        items = []
        while some := await inputs.take(most):
            assert len(some) <= most
            items += some
        assert inputs.is_exhausted
    return items


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


async def sent(item: Item) -> bytes:
    """The bytes of the data set, in its own transfer syntax; the same a second time, and opened again if it can be."""
    (source,) = await open_items([item])
    assert isinstance(source, Source), source
    async with source:
        await source.prepare(source.transfer_syntaxes[0])
        whole = await drain(source, 10_000)
        if item.can_reopen:
            assert await source.rewind()
            assert await drain(source) == whole
    if item.can_reopen:
        async with await item.open() as source:
            await source.prepare(source.transfer_syntaxes[0])
            view = source.whole()
            assert whole == (await drain(source) if view is None else bytes(view))
    return whole


async def why_not(item: Item) -> str:
    """Why it cannot be sent: the same whether it is opened alone or with others."""
    (result,) = await open_items([item])
    assert isinstance(result, InvalidObject), result
    with pytest.raises(InvalidObject) as caught:
        await item.open()
    assert (str(caught.value), type(caught.value)) == (str(result), type(result))
    return str(result)


def zip_of(path: object, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
