"""A ledger as its readers have it: while a run writes, after one that was killed, and where nothing can be written."""

from __future__ import annotations

import contextlib
import os
import sqlite3

import attrs
import pytest
import trio

from sender.ledger_helpers import PEER, entry, identity, report
from trio_dicom import LedgerError, Outcome, Retry, Status
from trio_dicom.sender import ledger_view
from trio_dicom.sender.ledger import open_ledger
from trio_dicom.sender.ledger_lock import LedgerLock
from trio_dicom.sender.ledger_view import LedgerView, Rate, Run, Tally


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


async def write(path, *reports, begun=0):
    """A run that settles as `reports` say, and leaves so many further ones begun."""
    async with open_ledger(path, PEER) as ledger:
        inputs = [identity(number) for number in range(len(reports) + begun)]
        await ledger.begin(list(map(entry, inputs)))
        for each, its_report in zip(inputs, reports, strict=False):
            ledger.settle(each, its_report)


def set_times(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def test_entries_are_the_inputs_in_their_order(path, monkeypatch):
    monkeypatch.setattr(ledger_view, "ROWS_A_PAGE", 2)
    already = report(Outcome.ALREADY_PRESENT, status=Status(0x0111))
    reports = [
        report(),
        report(Outcome.REFUSED, status=Status(0xA700)),
        already,
        attrs.evolve(already, was_in_doubt=True),
    ]
    await write(path, *reports, begun=1)
    with LedgerView(path) as view:
        entries = list(view.entries())
        assert [each.report.outcome for each in entries] == [each.outcome for each in reports] + [Outcome.IN_DOUBT]
        assert [each.report.path for each in entries] == [f"/data/{number}.dcm" for number in range(5)]
        assert entries[4].report.retry is Retry.LATER
        assert entries[4].settled is None
        assert entries[4].begun is not None
        assert (entries[1].size, entries[1].mtime_ns, entries[1].run) == (1001, 5, 1)
        assert [each.report.path for each in view.entries(failed=True)] == [f"/data/{n}.dcm" for n in (1, 2, 4)]
        assert [(failure[0], failure[1], failure[3]) for failure in view.failures()] == [
            (Outcome.REFUSED, 0xA700, "/data/1.dcm"),
            (Outcome.ALREADY_PRESENT, 0x0111, "/data/2.dcm"),
            (Outcome.IN_DOUBT, None, "/data/4.dcm"),
        ]


async def test_tallies_add_up(path):
    refused = report(Outcome.REFUSED, status=Status(0xA900), retry=Retry.NEVER, attempts=3, bytes_sent=10)
    await write(path, report(), report(), refused, begun=1)
    with LedgerView(path) as view:
        tallies = {(each.outcome, each.retry): each for each in view.tallies()}
    assert tallies == {
        (Outcome.STORED, Retry.NEVER): Tally(Outcome.STORED, Retry.NEVER, True, False, 2, 1400, 2),
        (Outcome.REFUSED, Retry.NEVER): Tally(Outcome.REFUSED, Retry.NEVER, False, False, 1, 10, 3),
        (Outcome.IN_DOUBT, Retry.LATER): Tally(Outcome.IN_DOUBT, Retry.LATER, False, True, 1, 0, 0),
    }
    assert tallies[Outcome.REFUSED, Retry.NEVER].as_report().outcome is Outcome.REFUSED


async def test_runs_and_what_stands_of_them(path):
    await write(path, report(), report(Outcome.NOT_SENT))
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(1), report(bytes_sent=5))
        await ledger.flush()
        with LedgerView(path) as view:
            first, second = view.runs()
        assert (first.number, first.inputs, first.stored, first.bytes_stored, first.is_running) == (1, 1, 1, 700, False)
        assert (second.number, second.inputs, second.stored, second.bytes_stored) == (2, 1, 1, 5)
        assert second.is_running
        assert second.ended is None
        assert second.peer == PEER
    with LedgerView(path) as view:
        assert not view.runs()[-1].is_running
        assert view.runs()[-1].ended is not None


def run_of(**fields):
    given = {"number": 1, "peer": PEER, "version": "1", "started": 100.0, "ended": None, "last_settled": None}
    return Run(**given | {"inputs": 0, "stored": 0, "bytes_stored": 0} | fields)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"ended": 130.0, "last_settled": 120.0}, 30.0),
        ({"is_running": True, "last_settled": 120.0}, 900.0),
        ({"last_settled": 120.0}, 20.0),  # it was killed
        ({}, 0.0),
        ({"ended": 90.0}, 0.0),  # somebody set the clock
    ],
    ids=str,
)
def test_how_long_a_run_took(fields, seconds):
    assert run_of(**fields).seconds(1000.0) == seconds


async def test_rates(path):
    await write(path, *[report(bytes_sent=10) for _ in range(6)], report(Outcome.NOT_SENT))
    set_times(
        path,
        "UPDATE run SET started = 100, ended = 104",
        "UPDATE input SET settled = 100 + (number - 1) * 0.5",
        "UPDATE input SET settled = 100 WHERE number = 2",
        "UPDATE input SET settled = 104 WHERE number = 6",
        "UPDATE input SET settled = 99 WHERE number = 1",  # somebody set the clock
    )
    with LedgerView(path) as view:
        (run,) = view.runs()
        assert view.rates(run, most=60) == [
            Rate(100.0, 1.0, 1, 10),
            Rate(101.0, 1.0, 2, 20),
            Rate(102.0, 1.0, 1, 10),
            Rate(103.0, 1.0, 1, 10),
        ]
        assert [(each.seconds, each.objects) for each in view.rates(run, most=2)] == [(2.0, 3), (2.0, 2)]
        assert [each.objects for each in view.rates(run, most=60, shortest=10.0)] == [5]
        assert view.rates(attrs.evolve(run, ended=None, last_settled=None), most=60) == []


async def test_a_reader_sees_one_moment_and_keeps_no_run_from_writing(path):
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(0), report())
        await ledger.flush()
        with LedgerView(path) as view:
            with view.at_one_moment():
                assert len(list(view.entries())) == 1
                ledger.settle(identity(1), report())
                await ledger.flush()
                assert ledger.failure is None
                assert len(list(view.entries())) == 1
                assert sum(each.inputs for each in view.tallies()) == 1
            assert len(list(view.entries())) == 2


async def test_between_pages_nothing_is_held(path, monkeypatch):
    monkeypatch.setattr(ledger_view, "ROWS_A_PAGE", 1)
    async with open_ledger(path, PEER) as ledger:
        for number in range(3):
            ledger.settle(identity(number), report())
        await ledger.flush()
        with LedgerView(path) as view:
            entries = view.entries()
            next(entries)
            assert not view._connection.in_transaction
            done = await trio.to_thread.run_sync(
                lambda: ledger._file._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            )
            assert done[0] == 0  # no reader was in its way
            assert len(list(entries)) == 2


async def test_a_view_changes_nothing(path):
    await write(path, report())
    before = path.read_bytes()
    with LedgerView(path) as view:
        list(view.entries())
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            view._connection.execute("DELETE FROM input")
    with pytest.raises(LedgerError, match="closed"):
        view.tallies()
    assert path.read_bytes() == before
    assert not LedgerLock(str(path)).is_held()


async def test_any_thread_may_ask(path):
    await write(path, report())
    with LedgerView(path) as view:
        assert await trio.to_thread.run_sync(view.tallies) == view.tallies()
        assert view.tallies()


async def test_what_cannot_be_read(tmp_path):
    for name, match in (("missing.db", "no such ledger"), (".", "no file"), ("empty", "no such ledger")):
        (tmp_path / "empty").touch()
        with pytest.raises(LedgerError, match=match):
            LedgerView(tmp_path / name)
    (tmp_path / "text").write_text("text")
    with pytest.raises(LedgerError, match="no ledger of trio_dicom"):
        LedgerView(tmp_path / "text")
    assert sorted(os.listdir(tmp_path)) == ["empty", "text"]


async def test_a_row_that_is_not_ours_is_an_error(path):
    await write(path, report())
    set_times(path, "UPDATE input SET retry = 'perhaps'")
    with LedgerView(path) as view:
        for call in (view.tallies, lambda: list(view.entries())):
            with pytest.raises(LedgerError, match="damaged: a row"):
                call()
