"""A sender with a ledger: the next run sends what this one did not settle, and nothing else."""

from __future__ import annotations

import math
import os
import sqlite3

import pytest
import trio

from support.sending import exact, objects, outcomes, send_all, sender_to
from trio_dicom.errors import LedgerError
from trio_dicom.sender.ledger import Ledger
from trio_dicom.sender.outcome import Outcome
from trio_dicom.testing import instance_uid, make_instance_file, storage_scp


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    for number in range(1, 21):
        (folder / f"{number:03}.dcm").write_bytes(make_instance_file(number=number))
    return folder


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "run.db"


def uids(scp):
    return [each.sop_instance_uid for each in scp.received]


async def test_the_same_again_sends_nothing(study, ledger, autojump_clock):
    async with storage_scp() as scp:
        async with sender_to(scp, ledger=ledger) as sender:
            first = await send_all(sender, study)
        async with sender_to(scp, ledger=ledger) as sender:
            second = await send_all(sender, study)
            report = sender.report
    assert outcomes(first) == outcomes(second) == {Outcome.STORED: 20}
    assert len(scp.received) == 20
    assert all(each.is_earlier for each in second)
    assert [each.number for each in second] == list(range(20))
    assert (report.earlier, report.delivered, report.associations, report.bytes_stored) == (20, 20, 0, 0)


async def test_what_was_cut_off_is_sent_by_the_next_run(study, ledger, autojump_clock):
    async with storage_scp() as scp:
        scp.reply(0, delay=10, times=math.inf)
        with trio.move_on_after(55):
            async with sender_to(scp, ledger=ledger, associations=2) as sender:
                await send_all(sender, study)
        assert sender.report.counts == {Outcome.STORED: 10, Outcome.IN_DOUBT: 2, Outcome.NOT_SENT: 8}
        async with sender_to(scp, ledger=ledger, associations=2) as sender:
            reports = await send_all(sender, study)
    assert outcomes(reports) == {Outcome.STORED: 20}
    assert sum(each.is_earlier for each in reports) == 10
    assert sum(each.was_in_doubt for each in reports) == 2  # the doubt of the run before is not forgotten
    assert len(scp.received) == 22
    assert set(uids(scp)) == {instance_uid(number) for number in range(1, 21)}


async def test_a_ledger_that_takes_longer_than_an_association_lingers(study, ledger, monkeypatch, autojump_clock):
    begin = Ledger.begin

    async def slowly(self, entries):
        await trio.sleep(12)
        await begin(self, entries)

    monkeypatch.setattr(Ledger, "begin", slowly)
    with trio.fail_after(100):
        async with storage_scp() as scp, sender_to(scp, ledger=ledger, associations=1) as sender:
            reports = await send_all(sender, study)
    assert outcomes(reports) == {Outcome.STORED: 20}
    assert sender.report.associations == 1


async def test_an_association_that_ends_while_the_ledger_is_told(study, ledger, monkeypatch, autojump_clock):
    """What it was to send is sent over another."""
    begin, ended = Ledger.begin, []

    async def slowly(self, entries):
        if not ended:
            (association,) = sender._dispatcher.fleet._open
            ended.append(association)
            await association.abort()
            await trio.sleep(1)
        await begin(self, entries)

    monkeypatch.setattr(Ledger, "begin", slowly)
    with trio.fail_after(100):
        async with storage_scp() as scp, sender_to(scp, ledger=ledger, associations=1) as sender:
            reports = await send_all(sender, study)
    assert outcomes(reports) == {Outcome.STORED: 20}
    assert sender.report.associations == 2


async def test_already_present_after_a_doubt_of_the_run_before_is_delivered(study, ledger, autojump_clock):
    async with storage_scp() as scp:
        scp.reply_nothing()
        with trio.move_on_after(5):
            async with sender_to(scp, ledger=ledger) as sender:
                await send_all(sender, study / "001.dcm")
        scp.reply(0x0111)
        async with sender_to(scp, ledger=ledger) as sender:
            (report,) = await send_all(sender, study / "001.dcm")
    assert (report.outcome, report.is_delivered) == (Outcome.ALREADY_PRESENT, True)


async def test_a_file_that_changed_is_new_work(study, ledger, autojump_clock):
    async with storage_scp() as scp:
        async with sender_to(scp, ledger=ledger) as sender:
            await send_all(sender, study)
        (study / "007.dcm").write_bytes(make_instance_file(512, number=7))
        os.utime(study / "008.dcm", ns=(1, 1))
        async with sender_to(scp, ledger=ledger) as sender:
            reports = await send_all(sender, study)
    assert outcomes(reports) == {Outcome.STORED: 20}
    assert uids(scp)[20:] == [instance_uid(7), instance_uid(8)]


async def test_refused_for_good_is_settled_and_out_of_resources_is_not(study, ledger, autojump_clock):
    async with storage_scp() as scp:
        scp.reply(0xC000, sop_instance_uid=instance_uid(1))
        scp.reply(0xA700, sop_instance_uid=instance_uid(2), times=5)
        (study / "bad.dcm").write_text("no object")
        async with sender_to(scp, ledger=ledger) as sender:
            first = await send_all(sender, study)
        async with sender_to(scp, ledger=ledger) as sender:
            second = await send_all(sender, study)
    assert outcomes(first) == {Outcome.STORED: 18, Outcome.REFUSED: 2, Outcome.INVALID: 1}
    assert outcomes(second) == {Outcome.STORED: 19, Outcome.REFUSED: 1, Outcome.INVALID: 1}
    assert uids(scp)[-1] == instance_uid(2)


async def test_what_is_handed_over_was_noted_before(study, ledger, autojump_clock):
    async with storage_scp() as scp:
        rows = []

        def note(instance):
            with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
                query = "SELECT begun, outcome FROM input WHERE sop_instance_uid = ?"
                rows.append(connection.execute(query, (instance.sop_instance_uid,)).fetchone())
            connection.close()
            return False

        scp.reply(0, when=note, times=math.inf, required=False)
        async with sender_to(scp, ledger=ledger, associations=2, window=4) as sender:
            await send_all(sender, study)
    assert len(rows) == 20
    assert all(begun is not None and outcome is None for begun, outcome in rows)


async def test_a_ledger_that_cannot_be_written_stops_the_sending(study, ledger, autojump_clock, monkeypatch):
    async with storage_scp() as scp, sender_to(scp, ledger=ledger, associations=1) as sender:
        scp.reply(0, delay=1, times=math.inf)

        async def fail(entries):
            raise LedgerError(str(ledger), "the disk is full")

        async with sender.send_many(objects(100)) as channel:
            await channel.receive()
            monkeypatch.setattr(sender._dispatcher.ledger, "begin", fail)
            reports = [report async for report in channel]
    counts = outcomes(reports)
    assert counts[Outcome.NOT_SENT] + counts[Outcome.STORED] == 99
    assert counts[Outcome.NOT_SENT] > 50
    assert isinstance(sender.failure, LedgerError)
    assert len(scp.received) == counts[Outcome.STORED] + 1


async def test_two_senders_with_one_ledger(study, ledger, autojump_clock):
    async with storage_scp() as scp, sender_to(scp, ledger=ledger):
        with pytest.raises(LedgerError, match="another run"):
            async with sender_to(scp, exact(), ledger=ledger):
                pass


async def test_last_lines_that_cannot_be_written_are_told(study, ledger, autojump_clock, monkeypatch):
    def fail(settled):
        raise LedgerError(str(ledger), "the disk is full")

    async with storage_scp() as scp:
        async with sender_to(scp, ledger=ledger) as sender:
            await send_all(sender, study)
            await sender._dispatcher.ledger.flush()
            assert sender.failure is None
            monkeypatch.setattr(sender._dispatcher.ledger._file, "finish", fail)
        assert isinstance(sender.failure, LedgerError)
