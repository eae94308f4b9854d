"""Cancellation at every checkpoint of taking and opening: no input is lost, and no descriptor left."""

from __future__ import annotations

import io
import shutil

import pytest
import trio

from inputs.input_helpers import zip_of
from sources.source_helpers import SHIPPED, drain
from trio_dicom.errors import InvalidObject
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.inputs.item import open_items
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import cancel_at_every_checkpoint, make_instance, make_instance_file


def given(folder):
    """One of each kind, and how many items that is."""
    for number in range(7):
        (folder / f"tree/{number % 3}").mkdir(parents=True, exist_ok=True)
        (folder / f"tree/{number % 3}/{number}").write_bytes(make_instance_file(number=number + 1))
    (folder / "tree/text").write_text("no object")
    members = {str(size): make_instance_file(size) for size in (10, 2 << 20)}
    archive = zip_of(folder / "a.zip", members)
    if not (folder / "cd").exists():
        shutil.copytree(SHIPPED / "dicomdirtests", folder / "cd")
    things = [folder / "tree", archive, folder / "cd/DICOMDIR", make_instance(), io.BytesIO(make_instance_file())]
    return things, 8 + 2 + 31 + 2


async def take_all(inputs, items):
    while some := await inputs.take(4):
        items += some


def sweep(folder, virtual_clock):
    async def scenario(cut):
        stand_still.set(virtual_clock)
        things, count = given(folder)
        items = []
        async with Inputs(things) as inputs:
            with cut:
                await take_all(inputs, items)
            await take_all(inputs, items)  # where it was cut off, it goes on
            assert inputs.is_exhausted
        assert len(items) == len({item.name for item in items}) == count

    assert cancel_at_every_checkpoint(scenario, virtual_clock=virtual_clock) > 20


def test_taking_loses_nothing(tmp_path):
    sweep(tmp_path, virtual_clock=True)


def test_taking_loses_nothing_with_threads(tmp_path):
    sweep(tmp_path, virtual_clock=False)


def test_taking_and_the_rest_are_all(tmp_path):
    async def scenario(cut):
        stand_still.set(True)
        things, _ = given(tmp_path)
        items = []
        async with Inputs(things) as inputs:
            with cut:
                await take_all(inputs, items)
            items += inputs.rest()
            assert inputs.is_exhausted
        for thing in ("tree", "cd", "a.zip"):  # walked to the end, or named
            assert any(thing in item.name for item in items)
        assert {"stream", items[-2].name} <= {item.name for item in items[-2:]}
        assert len(items) == len({item.name for item in items})

    assert cancel_at_every_checkpoint(scenario) > 20


@pytest.mark.fault_row(112)
def test_opening_and_reading_leave_nothing_open(tmp_path):
    for virtual_clock in (True, False):

        async def scenario(cut, virtual_clock=virtual_clock):
            stand_still.set(virtual_clock)
            things, _ = given(tmp_path)
            async with Inputs(things[:2] + things[3:]) as inputs:
                items = []
                await take_all(inputs, items)
            with cut:
                sources = await open_items(items)
                with trio.CancelScope() as scope:
                    for source in sources:
                        if isinstance(source, InvalidObject):
                            continue
                        if scope.cancel_called:
                            source.discard()
                        async with source:
                            await source.prepare(source.transfer_syntaxes[0])
                            await drain(source)

        cancel_at_every_checkpoint(scenario, virtual_clock=virtual_clock)


def test_an_async_iterable_that_is_cut_off(tmp_path):
    async def scenario(cut):
        stand_still.set(True)
        things, count = given(tmp_path)
        send, receive = trio.open_memory_channel(0)

        async def feed():
            with send:
                for thing in things:
                    await trio.sleep(1)
                    await send.send(thing)

        items = []
        async with trio.open_nursery() as nursery, Inputs(receive) as inputs:
            nursery.start_soon(feed)
            with cut:
                await take_all(inputs, items)
            await take_all(inputs, items)
        assert len(items) == count

    assert cancel_at_every_checkpoint(scenario) > 20
