"""Where a second reader found the sender wrong: each of these failed once."""

from __future__ import annotations

import math

import pytest
import trio

from support.sending import exact, objects, outcomes, send_all, sender_to
from trio_dicom.sender.options import SameInstance
from trio_dicom.sender.outcome import Outcome
from trio_dicom.sender.sender import open_sender
from trio_dicom.testing import SOPClass, storage_scp


async def test_duplicates_of_a_call_that_is_withdrawn_come_to_one_end_each(autojump_clock):
    options = exact(same_instance=SameInstance.SKIP)
    async with storage_scp() as scp, sender_to(scp, options, associations=1) as sender:
        scp.reply(0, delay=10, times=math.inf)
        with trio.move_on_after(5):
            await send_all(sender, [*objects(3), *objects(3), *objects(3)])
        await sender.drain()
        assert sender.report.pending == 0
    assert sum(sender.report.counts.values()) == 9
    assert len(scp.received) == 1


async def test_a_suspect_goes_over_an_association_that_has_its_context(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=3) as sender:
        scp.abort(when=lambda instance: instance.sop_class_uid == SOPClass.CT)
        scp.abort(when=lambda instance: instance.sop_class_uid == SOPClass.MR)
        scp.reply(0, delay=5, times=math.inf)
        items = [*objects(1), *objects(1, first=2, sop_class=SOPClass.MR)]
        reports = await send_all(sender, items)
    assert outcomes(reports) == {Outcome.STORED: 2}


async def test_a_call_of_another_task_ends_with_the_senders_block(autojump_clock):
    ended = []

    async def another(sender):
        ended.append(outcomes(await send_all(sender, objects(1000))))

    async with storage_scp() as scp, trio.open_nursery() as nursery:
        scp.reply(0, delay=10, times=math.inf)
        async with sender_to(scp, associations=1) as sender:
            nursery.start_soon(another, sender)
            await trio.sleep(15)
        assert sender.report.pending == 0
    (told,) = ended
    assert sum(told.values()) == sender.report.inputs == 1000


async def test_patience_is_not_used_up_while_there_is_nothing_to_send(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.reply(0xA700, times=6)
        assert (await sender.send(objects(1)[0])).outcome is Outcome.REFUSED
        await trio.sleep(3600)
        assert (await sender.send(objects(1)[0])).outcome is Outcome.STORED
    assert sender.failure is None


async def test_a_long_linger_costs_nothing(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, exact(linger=1000.0)) as sender:
        await send_all(sender, objects(10))
        await trio.sleep(500)
        assert sender.report.open_associations
        await trio.sleep(600)
        assert not sender.report.open_associations


async def test_a_new_kind_does_not_wait_for_idle_lanes_to_linger(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, exact(linger=1000.0), associations=2) as sender:
        scp.reply(0, delay=1, times=10)
        await send_all(sender, objects(10))
        await trio.sleep(20)
        start = trio.current_time()
        await sender.send(objects(1, first=50, sop_class=SOPClass.MR)[0])
        assert trio.current_time() - start < 1


async def test_the_report_is_complete_when_a_drain_is_over(tmp_path, autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1, ledger=tmp_path / "run.db") as sender:
        scp.reply(0, delay=1, times=math.inf)
        async with sender.send_many(objects(300)):
            await trio.sleep(2.5)
            await sender.drain()
            assert (sender.report.inputs, sender.report.pending) == (300, 0)


async def test_an_endless_source_ends_with_a_drain_before_it(autojump_clock):
    def endless():
        while True:
            yield from objects(1)

    async with storage_scp() as scp, sender_to(scp) as sender:
        await sender.drain()
        assert set(outcomes(await send_all(sender, endless()))) <= {Outcome.NOT_SENT}
        assert not sender.report.is_exhausted


@pytest.mark.parametrize("channel", ["progress", "totals"])
async def test_a_channel_that_is_none_is_told_at_once(channel):
    with pytest.raises(TypeError, match="send_nowait"):
        async with open_sender("PACS@nowhere:104", **{channel: print}):
            pass


async def test_a_drain_of_less_than_no_time_does_nothing(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        with pytest.raises(ValueError, match="timeout"):
            await sender.drain(-1)
        assert (await sender.send(objects(1)[0])).outcome is Outcome.STORED
