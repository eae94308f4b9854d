"""The sender: each input comes to exactly one end, and what is said of it is true."""

from __future__ import annotations

import math

import pytest
import trio

from support.sending import exact, objects, outcomes, send_all, sender_to
from trio_dicom.association.admission import Admission
from trio_dicom.errors import AssociationRejected, ConnectFailed, StatusError
from trio_dicom.sender.options import SameInstance
from trio_dicom.sender.outcome import Outcome
from trio_dicom.sender.sender import open_sender
from trio_dicom.settings import AssociationSettings, Timeouts
from trio_dicom.testing import SOPClass, instance_uid, make_instance_file, make_study, storage_scp


async def test_many_objects_over_several_associations(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=3) as sender:
        reports = await send_all(sender, objects(100))
        report = sender.report
    assert outcomes(reports) == {Outcome.STORED: 100}
    assert sorted(each.number for each in reports) == list(range(100))
    assert sorted(each.sop_instance_uid for each in scp.received) == sorted(each.sop_instance_uid for each in reports)
    assert report.inputs == report.delivered == report.attempts == 100
    assert report.pending == report.retries == 0
    assert report.is_all_delivered
    assert 1 <= report.associations <= 3


async def test_one_association_sends_in_the_order_of_the_inputs(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        await send_all(sender, objects(50))
    assert [each.sop_instance_uid for each in scp.received] == [instance_uid(number) for number in range(1, 51)]


async def test_nothing_is_connected_before_there_is_something_to_send(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        assert await send_all(sender, []) == []
        assert sender.report.associations == 0


async def test_data_sets_are_inputs(autojump_clock):
    study = make_study(3)
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        reports = await send_all(sender, study)
    assert scp.stored == study
    assert [report.path for report in reports] == [f"data set {each.SOPInstanceUID}" for each in study]


async def test_a_file_is_sent_as_it_lies(tmp_path, autojump_clock):
    file = make_instance_file(5000)
    (tmp_path / "one.dcm").write_bytes(file)
    (tmp_path / "two.txt").write_text("no object")
    async with storage_scp() as scp, sender_to(scp) as sender, sender.send_tree(tmp_path) as channel:
        reports = {report.path: report async for report in channel}
    assert file.endswith(scp.received[0].data_set)
    assert reports[str(tmp_path / "one.dcm")].outcome is Outcome.STORED
    invalid = reports[str(tmp_path / "two.txt")]
    assert (invalid.outcome, invalid.attempts) == (Outcome.INVALID, 0)
    assert "not a DICOM file" in invalid.reason


# --- what is tried again


async def test_out_of_resources_is_tried_again_after_growing_delays(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply(0xA700, times=3)
        (report,) = await send_all(sender, objects(1))
    assert (report.outcome, report.attempts) == (Outcome.STORED, 4)
    assert trio.current_time() == pytest.approx(1 + 2 + 4, abs=0.01)
    assert sender.report.retries == 3


async def test_out_of_resources_without_end_is_refused_in_the_end(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply(0xA700, times=math.inf)
        (report,) = await send_all(sender, objects(1))
    assert (report.outcome, report.status, report.attempts) == (Outcome.REFUSED, 0xA700, 5)
    assert len(scp.received) == 5


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0xB000, Outcome.STORED_WITH_WARNING),
        (0x0111, Outcome.ALREADY_PRESENT),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
        (0x1234, Outcome.REFUSED),
    ],
)
async def test_an_answer_that_the_same_bytes_would_get_again_is_final(status, outcome, autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.reply(status)
        (report,) = await send_all(sender, objects(1))
    assert (report.outcome, report.status, report.attempts) == (outcome, status, 1)


async def test_a_processing_failure_is_tried_again_twice(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.reply(0x0110, times=math.inf)
        (report,) = await send_all(sender, objects(1))
    assert (report.outcome, report.attempts) == (Outcome.REFUSED, 3)


async def test_an_object_in_doubt_is_sent_again_and_the_doubt_is_not_forgotten(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.abort()  # when it came whole
        reports = await send_all(sender, objects(5))
    assert outcomes(reports) == {Outcome.STORED: 5}
    (doubtful,) = [report for report in reports if report.was_in_doubt]
    assert (doubtful.number, doubtful.attempts) == (0, 2)
    assert len(scp.received) == 6


async def test_already_present_after_doubt_counts_as_delivered(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.abort()
        scp.reply(0x0111)
        (report,) = await send_all(sender, objects(1))
    assert (report.outcome, report.was_in_doubt, report.is_delivered) == (Outcome.ALREADY_PRESENT, True, True)


async def test_a_refusal_after_doubt_stays_in_doubt(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.abort()
        scp.reply(0xC000)
        (report,) = await send_all(sender, objects(1))
    assert (report.outcome, report.status) == (Outcome.IN_DOUBT, 0xC000)


@pytest.mark.parametrize("window", [1, 8])
async def test_an_object_that_ends_two_associations_is_set_aside_and_its_neighbours_are_not(window, autojump_clock):
    poison = instance_uid(7)
    settings = AssociationSettings(operations_window=8, timeouts=Timeouts(idle=math.inf))
    async with storage_scp(settings=settings) as scp, sender_to(scp, associations=2, window=window) as sender:
        scp.abort(sop_instance_uid=poison, times=math.inf)
        reports = await send_all(sender, objects(40))
    assert outcomes(reports) == {Outcome.STORED: 39, Outcome.IN_DOUBT: 1}
    (left,) = [report for report in reports if report.outcome is Outcome.IN_DOUBT]
    assert left.sop_instance_uid == poison
    assert left.attempts == 2
    assert "set aside" in left.reason


async def test_an_object_that_never_comes_whole_was_not_sent(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.abort(sop_instance_uid=instance_uid(1), after_bytes=1000, times=math.inf)
        reports = await send_all(sender, objects(3, size=3_000_000))
    assert outcomes(reports) == {Outcome.STORED: 2, Outcome.NOT_SENT: 1}


async def test_a_stream_that_cannot_be_rewound_is_sent_once(autojump_clock):
    class Once(trio.abc.ReceiveStream):
        def __init__(self, data):
            self.data = data

        async def receive_some(self, max_bytes=None):
            await trio.lowlevel.checkpoint()
            data, self.data = self.data, b""
            return data

        async def aclose(self):
            await trio.lowlevel.checkpoint()

    async with storage_scp() as scp, sender_to(scp) as sender:
        scp.reply(0xA700)
        report = await sender.send(Once(make_instance_file()))
    assert (report.outcome, report.attempts) == (Outcome.REFUSED, 1)


# --- presentation contexts


@pytest.mark.fault_row(109)
async def test_three_hundred_kinds_take_as_many_associations_as_it_needs(autojump_clock):
    items = [
        stream
        for number in range(1, 301)
        for stream in objects(2, sop_class=f"1.2.840.10008.5.1.4.1.1.{number}", first=2 * number)
    ]
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        reports = await send_all(sender, items)
    assert outcomes(reports) == {Outcome.STORED: 600}
    assert sender.report.associations < 12  # 64 kinds each, for each has a context for the other native encodings, too
    assert sender.report.failed_associations == 0


async def test_a_class_that_comes_late_opens_another_association(autojump_clock):
    async def slowly():
        for item in objects(2):
            yield item
        await trio.sleep(1)
        for item in objects(2, sop_class=SOPClass.MR, first=3):
            yield item

    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        reports = await send_all(sender, slowly())
    assert outcomes(reports) == {Outcome.STORED: 4}
    assert sender.report.associations == 2


async def test_a_class_that_nobody_serves_does_not_wait_for_ever_behind_a_busy_association(autojump_clock):
    async def without_end():
        number = 0
        while not any(each.sop_class_uid == SOPClass.MR for each in scp.received):
            number += 1
            sop_class = SOPClass.MR if number == 10 else SOPClass.CT
            for item in objects(1, sop_class=sop_class, first=number):
                yield item

    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply(0, delay=0.1, times=math.inf)
        reports = await send_all(sender, without_end())
    assert {report.outcome for report in reports} == {Outcome.STORED}
    assert trio.current_time() < 20


@pytest.mark.fault_row(8)
async def test_what_the_peer_does_not_take_has_no_context(autojump_clock):
    async with storage_scp(sop_classes=[SOPClass.CT]) as scp, sender_to(scp) as sender:
        items = [*objects(3), *objects(3, sop_class=SOPClass.MR, first=4)]
        reports = await send_all(sender, items)
    assert outcomes(reports) == {Outcome.STORED: 3, Outcome.NO_CONTEXT: 3}
    assert sender.failure is None


@pytest.mark.fault_row(7)
async def test_a_peer_that_takes_nothing_of_it_is_asked_once(autojump_clock):
    async with storage_scp(sop_classes=[SOPClass.CT]) as scp, sender_to(scp) as sender:
        reports = await send_all(sender, objects(500, sop_class=SOPClass.MR))
        assert outcomes(reports) == {Outcome.NO_CONTEXT: 500}
        assert sender.report.associations == 0
        assert outcomes(await send_all(sender, objects(3, first=1000))) == {Outcome.STORED: 3}


# --- the destination


@pytest.mark.fault_row(1)
async def test_a_peer_that_is_not_there_is_no_exception(autojump_clock):
    times = []

    async def refuse():
        times.append(trio.current_time())
        raise ConnectionRefusedError(111, "Connection refused")

    async with open_sender("PACS@nowhere:104", connect=refuse, options=exact()) as sender:
        reports = await send_all(sender, objects(300))
        assert outcomes(reports) == {Outcome.NOT_SENT: 300}
        assert isinstance(sender.failure, ConnectFailed)
        assert outcomes(await send_all(sender, objects(3))) == {Outcome.NOT_SENT: 3}
    assert times == [0, 1, 3, 7, 15]


async def test_a_sender_that_had_nothing_to_send_for_an_hour_is_as_patient_as_before(autojump_clock):
    downs = []

    async def connect():
        if downs:
            raise downs.pop()
        return scp.stream()

    async with storage_scp() as scp, open_sender("PACS@there:104", connect=connect, options=exact()) as sender:
        for number, trouble in enumerate(("none", "down", "full"), 1):
            if trouble == "down":
                downs.append(ConnectionRefusedError(111, "Connection refused"))
            elif trouble == "full":
                scp.reply(0xA700)
            report = await sender.send(objects(1, first=number)[0])
            assert (report.outcome, sender.failure) == (Outcome.STORED, None), trouble
            await trio.sleep(3600)


@pytest.mark.fault_row(3)
async def test_a_peer_that_rejects_us_for_good_is_asked_once(autojump_clock):
    admission = Admission(ae_title="ANOTHER")
    async with storage_scp(admission=admission) as scp, sender_to(scp, associations=1) as sender:
        reports = await send_all(sender, objects(10))
    assert outcomes(reports) == {Outcome.NOT_SENT: 10}
    assert isinstance(sender.failure, AssociationRejected)
    assert sender.report.failed_associations == 1


async def test_a_peer_that_goes_away_is_waited_for(autojump_clock):
    is_there = True

    async with storage_scp() as scp:

        async def connect():
            if not is_there:
                raise ConnectionRefusedError(111, "Connection refused")
            return scp.stream()

        async def go_and_come():
            nonlocal is_there
            await trio.sleep(5)
            is_there = False
            await trio.sleep(300)
            is_there = True

        async with open_sender("PACS@there:104", connect=connect, options=exact(), associations=2) as sender:
            scp.reply(0, delay=1, times=5, required=False)
            scp.abort(after_bytes=10, when=lambda _: not is_there, times=math.inf, required=False)
            scp.reply(0, delay=1, times=math.inf)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(go_and_come)
                reports = await send_all(sender, objects(40))
    assert outcomes(reports) == {Outcome.STORED: 40}
    assert 305 < trio.current_time() < 400


async def test_not_authorized_stops_all(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        scp.reply(0x0124, times=math.inf)
        reports = await send_all(sender, objects(200))
    counts = outcomes(reports)
    assert counts[Outcome.REFUSED] <= 2  # the next one was on its way already
    assert counts[Outcome.NOT_SENT] == 200 - counts[Outcome.REFUSED]
    assert isinstance(sender.failure, StatusError)
    assert len(scp.received) == counts[Outcome.REFUSED]


async def test_a_destination_that_is_full_is_slowed_down_to_and_speeds_up_again(autojump_clock):
    async with storage_scp() as scp:

        def is_full(instance):
            return 100 < trio.current_time() < 300

        async with sender_to(scp, associations=8, options=exact(policy={"max_attempts": 50})) as sender:
            scp.reply(0xA700, when=is_full, times=math.inf)
            scp.reply(0, delay=1, times=math.inf)
            lanes = {}

            async def watch():
                while True:
                    lanes[trio.current_time()] = sender.report.open_associations
                    await trio.sleep(10)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                reports = await send_all(sender, objects(3000))
                nursery.cancel_scope.cancel()
    assert outcomes(reports) == {Outcome.STORED: 3000}
    assert lanes[90] == 8
    assert min(count for time, count in lanes.items() if 150 < time < 300) <= 1
    assert max(count for time, count in lanes.items() if time > 350) == 8
    assert sender.report.retries < 200  # of 3,000: it was not hammered


# --- options


@pytest.mark.fault_row(110)
async def test_the_same_instance_is_sent_as_often_as_it_is_given(autojump_clock):
    async with storage_scp() as scp, sender_to(scp) as sender:
        reports = await send_all(sender, [*objects(3), *objects(3)])
    assert outcomes(reports) == {Outcome.STORED: 6}
    assert len(scp.received) == 6


@pytest.mark.fault_row(110)
async def test_the_same_instance_is_sent_once_if_that_is_wanted(autojump_clock):
    options = exact(same_instance=SameInstance.SKIP)
    async with storage_scp() as scp, sender_to(scp, options) as sender:
        scp.reply(0xC000, sop_instance_uid=instance_uid(2))
        reports = await send_all(sender, [*objects(3), *objects(3)])
        later = await send_all(sender, objects(1))
    assert outcomes(reports) == {Outcome.STORED: 4, Outcome.REFUSED: 2}
    assert outcomes(later) == {Outcome.STORED: 1}
    assert len(scp.received) == 3
    assert all("same SOP Instance UID" in each.reason for each in reports if not each.attempts)


async def test_the_rate_is_kept_over_all_associations(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, exact(max_rate=100_000.0), associations=4) as sender:
        await send_all(sender, objects(20, size=100_000))
    assert trio.current_time() == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize(
    "more", [{"associations": 8}, {"associations": 1, "window": 8}, {"associations": 2, "window": 4}]
)
async def test_slow_answers_are_waited_for_together(more, autojump_clock):
    settings = AssociationSettings(operations_window=8, timeouts=Timeouts(idle=math.inf))
    async with storage_scp(settings=settings) as scp, sender_to(scp, **more) as sender:
        scp.reply(0, delay=1, times=math.inf)
        await send_all(sender, objects(160))
    assert trio.current_time() == pytest.approx(20, abs=1)


async def test_further_associations_that_the_peer_does_not_want_cost_nothing(autojump_clock):
    async with storage_scp() as scp:
        streams = 0

        async def connect():
            nonlocal streams
            streams += 1
            if streams > 2:
                raise ConnectionRefusedError(111, "Connection refused")
            return scp.stream()

        async with open_sender("PACS@memory:104", associations=8, connect=connect, options=exact()) as sender:
            scp.reply(0, delay=1, times=math.inf)
            reports = await send_all(sender, objects(20))
    assert outcomes(reports) == {Outcome.STORED: 20}
    assert trio.current_time() == pytest.approx(10, abs=0.5)


async def test_totals_are_told_and_the_last_is_complete(autojump_clock):
    send, receive = trio.open_memory_channel(10_000)
    async with storage_scp() as scp, sender_to(scp, totals=send) as sender:
        scp.reply(0, delay=1, times=math.inf)
        await send_all(sender, objects(20))
    told = []
    while True:
        try:
            told.append(receive.receive_nowait())
        except trio.WouldBlock:
            break
    assert told[-1] == sender.report
    assert told[-1].delivered == 20
    assert len(told) > 40
    assert all(each.inputs == each.pending + sum(each.counts.values()) for each in told)


@pytest.mark.parametrize("associations", [0, -1, True, 1.5])
async def test_a_number_of_associations_that_is_none(associations, autojump_clock):
    with pytest.raises(ValueError, match="associations"):
        async with open_sender("PACS@nowhere:104", associations=associations):
            pass


async def test_unread_reports_hold_the_input_back(autojump_clock):
    taken = 0

    def counting():
        nonlocal taken
        for taken in range(1, 5001):
            yield from objects(1, first=taken)

    async with storage_scp() as scp, sender_to(scp) as sender, sender.send_many(counting()) as channel:
        await trio.sleep(100)
        assert 1000 <= taken < 1300
        assert len([report async for report in channel]) == 5000
    assert sender.report.delivered == 5000


async def test_suspects_that_end_their_associations_do_not_slow_the_others_down(autojump_clock):
    async with storage_scp() as scp, sender_to(scp, associations=4) as sender:
        bad = [instance_uid(number) for number in range(1, 100, 10)]
        scp.abort(when=lambda instance: instance.sop_instance_uid in bad, times=math.inf)
        scp.reply(0, delay=0.1, times=math.inf)
        reports = await send_all(sender, objects(100))
    assert outcomes(reports) == {Outcome.STORED: 90, Outcome.IN_DOUBT: 10}
    assert trio.current_time() < 30
