"""How a sender ends: drained, by a deadline, left early, or in the middle; each input has one end all the same."""

from __future__ import annotations

import math

import pytest
import trio

from support.sending import exact, objects, outcomes, send_all, sender_to
from trio_dicom.errors import LocalProtocolError
from trio_dicom.sender.options import SameInstance
from trio_dicom.sender.outcome import Outcome
from trio_dicom.sender.sender import open_sender
from trio_dicom.testing import instance_uid, make_instance_file, storage_scp


async def test_drain_finishes_what_is_in_hand_and_begins_nothing(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=2) as sender:
        scp.reply(0, delay=10, times=math.inf)
        async with sender.send_many(objects(100)) as channel:
            await trio.sleep(25)
            await sender.drain()
            reports = [report async for report in channel]
        assert trio.current_time() == pytest.approx(30, abs=0.1)
    counts = outcomes(reports)
    assert counts == {Outcome.STORED: 6, Outcome.NOT_SENT: 94}
    assert not sender.report.pending


async def test_drain_gives_up_what_takes_too_long(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply_nothing(times=math.inf)
        async with sender.send_many(objects(10)) as channel:
            await trio.sleep(1)
            await sender.drain(timeout=5)
            reports = [report async for report in channel]
    assert trio.current_time() == pytest.approx(6, abs=0.1)  # nor does anything wait for its answer after that
    assert outcomes(reports) == {Outcome.IN_DOUBT: 1, Outcome.NOT_SENT: 9}
    assert {each.reason for each in reports if each.outcome is Outcome.IN_DOUBT} == {"interrupted"}


async def test_a_drain_with_time_left_aborts_nothing(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply(0, delay=5)
        with trio.move_on_after(1):
            async with sender.send_many(objects(1)) as channel:
                await channel.receive()
        await sender.drain(timeout=30)
        assert trio.current_time() == pytest.approx(1, abs=0.1)
    assert trio.current_time() == pytest.approx(5, abs=0.1)  # the release waits for the answer


async def test_a_deadline_leaves_a_complete_report(autojump_clock):
    async with storage_scp() as scp:
        with trio.move_on_after(35) as deadline:
            async with sender_to(scp, associations=2) as sender:
                scp.reply(0, delay=10, times=math.inf)
                async with sender.send_many(objects(100)) as channel:
                    async for _ in channel:
                        pass
        assert deadline.cancelled_caught
        assert trio.current_time() < 36.5
    report = sender.report
    assert report.counts == {Outcome.STORED: 6, Outcome.IN_DOUBT: 2, Outcome.NOT_SENT: 92}
    assert (report.inputs, report.pending) == (100, 0)


async def test_one_call_is_cancelled_and_another_goes_on(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=2) as sender:
        scp.reply(0, delay=1, times=math.inf)

        async def hurried():
            with trio.move_on_after(4.5):
                await send_all(sender, objects(50, first=1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurried)
            reports = await send_all(sender, objects(20))
    assert outcomes(reports) == {Outcome.STORED: 20}
    report = sender.report
    assert report.inputs == 70
    assert report.pending == 0
    assert report.counts[Outcome.NOT_SENT] > 30


async def test_a_block_that_is_left_early_waits_for_all(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        async with sender.send_many(objects(3000)) as channel:
            async for _ in channel:
                break
        assert sender.report.delivered == 3000


async def test_nothing_can_be_sent_after_the_block(autojump_clock):
    async with storage_scp() as scp:
        async with sender_to(scp) as sender:
            pass
        with pytest.raises(LocalProtocolError, match="block is over"):
            await sender.send(objects(1)[0])


@pytest.mark.fault_row(115)
async def test_what_the_inputs_raise_comes_out_as_it_is(autojump_clock):
    def failing():
        yield from objects(3)
        raise ZeroDivisionError("mine")

    async with storage_scp() as scp, sender_to(scp) as sender:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await send_all(sender, failing())
        report = sender.report
    assert report.inputs == 3
    assert report.pending == 0
    assert not report.is_exhausted


@pytest.mark.fault_row(113)
async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock):
    async with storage_scp() as scp:
        with pytest.raises(ZeroDivisionError):
            async with sender_to(scp) as sender, sender.send_many(objects(100)):
                raise ZeroDivisionError
    assert sender.report.counts == {Outcome.NOT_SENT: 100}


async def test_what_is_no_input_is_a_mistake_of_the_caller(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        with pytest.raises(TypeError, match="not int"):
            await send_all(sender, [*objects(1), 5])
        assert sender.report.pending == 0


async def test_send_sends_one(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        report = await sender.send(objects(1)[0])
        assert report.outcome is Outcome.STORED
        assert sender.report.open_associations == 1
        await trio.sleep(4)
        await sender.send(objects(1, first=2)[0])
        assert sender.report.associations == 1
        await trio.sleep(6)
        assert sender.report.open_associations == 0  # it lingered for 5 s
        await sender.send(objects(1, first=3)[0])
        assert sender.report.associations == 2
        assert sender.report.failed_associations == 0


async def test_send_sends_no_more_than_one(tmp_path, autojump_clock):
    (tmp_path / "a").write_bytes(make_instance_file(number=1))
    (tmp_path / "b").write_bytes(make_instance_file(number=2))
    async with storage_scp() as scp, sender_to(scp) as sender:
        with pytest.raises(ValueError, match="stands for 2"):
            await sender.send(tmp_path)


# --- at awkward moments


async def test_after_a_drain_everything_is_not_sent_at_once(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        await sender.drain()
        assert outcomes(await send_all(sender, objects(300))) == {Outcome.NOT_SENT: 300}
    assert not scp.received


async def test_the_end_of_the_block_does_not_wait_for_a_pause_to_be_over(autojump_clock):
    policy = {"max_attempts": 3, "base_delay": 50.0, "max_age": 75.0}
    async with storage_scp() as scp:
        async with sender_to(scp, exact(policy=policy), associations=1) as sender:
            scp.reply(0xA700, times=math.inf)
            (report,) = await send_all(sender, objects(1))
            assert (report.outcome, report.attempts) == (Outcome.REFUSED, 2)
            assert sender._dispatcher.throttle.resume_at > trio.current_time()
            before = trio.current_time()
        assert trio.current_time() == before


@pytest.mark.parametrize("how", ["drain", "leave"])
async def test_nobody_waits_for_an_association_that_nobody_needs(how, autojump_clock):
    async def silent():
        ours, theirs = trio.testing.memory_stream_pair()
        peers.append(theirs)
        return ours

    peers = []
    async with open_sender("PACS@silent:104", connect=silent, options=exact()) as sender:
        with trio.move_on_after(5):
            await send_all(sender, objects(3))
        if how == "drain":
            await sender.drain()
    assert trio.current_time() < 7
    assert sender.report.counts == {Outcome.NOT_SENT: 3}


async def test_an_answer_before_does_not_stand_for_an_attempt_that_was_cut(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.reply(0xA700)
        scp.reply_nothing()
        with trio.move_on_after(10):
            await send_all(sender, objects(1))
        report = sender.report
    assert report.counts == {Outcome.IN_DOUBT: 1}


async def test_an_answer_before_stands_while_it_waits_to_be_sent_again(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.reply(0xA700)
        with trio.move_on_after(0.5):
            await send_all(sender, objects(1))
    assert sender.report.counts == {Outcome.REFUSED: 1}


async def test_of_the_same_instance_the_next_is_sent_if_the_first_is_withdrawn(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, exact(same_instance=SameInstance.SKIP), associations=1) as sender:
        scp.reply(0, delay=10, times=math.inf)

        async def withdrawn():
            with trio.move_on_after(5):
                await send_all(sender, objects(2))  # the second one waits behind the first

        async with trio.open_nursery() as nursery:
            nursery.start_soon(withdrawn)
            await trio.sleep(1)
            reports = await send_all(sender, objects(1, first=2))
    assert outcomes(reports) == {Outcome.STORED: 1}
    assert [each.sop_instance_uid for each in scp.received] == [instance_uid(1), instance_uid(2)]
