"""The ledger as the sender uses it: what is settled stays so, and what may have arrived is never taken for not sent."""

from __future__ import annotations

import os
import threading

import attrs
import pytest
import trio

from sender.ledger_helpers import CT, PEER, entry, identity, outcomes, report, rows
from trio_dicom import LedgerError, Outcome, Retry, Status
from trio_dicom.sender import ledger as ledger_module
from trio_dicom.sender import ledger_file
from trio_dicom.sender.ledger import InputIdentity, open_ledger
from trio_dicom.sender.ledger_lock import LedgerLock
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import cancel_at_every_checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


async def settled_in_a_run(path, *reports):
    """Of input 0, 1, ... each as `reports` say."""
    async with open_ledger(path, PEER) as ledger:
        identities = [identity(number) for number in range(len(reports))]
        await ledger.begin(list(map(entry, identities)))
        for each, its_report in zip(identities, reports, strict=True):
            ledger.settle(each, its_report)


async def look_up(path, *identities):
    async with open_ledger(path, PEER) as ledger:
        return await ledger.look_up(identities)


# --- what the next run need not send


async def test_what_was_settled_is_found_as_it_was_reported(path):
    stored = report(
        transfer_syntax_uid="1.2.840.10008.1.2.1", attempts=3, bytes_sent=12, reason="say nothing", was_in_doubt=True
    )
    await settled_in_a_run(path, stored)
    (found,) = await look_up(path, identity(0))
    assert found == attrs.evolve(stored, path="/data/0.dcm")
    assert isinstance(found.status, Status)


SETTLED = [
    report(Outcome.STORED),
    report(Outcome.STORED_WITH_WARNING, status=Status(0xB000)),
    report(Outcome.ALREADY_PRESENT, status=Status(0x0111)),
    report(Outcome.REFUSED, status=Status(0xA900), retry=Retry.NEVER),
    report(Outcome.INVALID, retry=Retry.NEVER),
]
UNSETTLED = [
    report(Outcome.REFUSED, status=Status(0xA700)),
    report(Outcome.NO_CONTEXT, retry=Retry.AFTER_CONFIG),
    report(Outcome.NOT_SENT),
    report(Outcome.NOT_SENT, retry=Retry.NEW_ASSOCIATION),
    report(Outcome.IN_DOUBT, retry=Retry.NEW_ASSOCIATION),
]


async def test_only_what_is_unsettled_is_to_be_sent(path):
    await settled_in_a_run(path, *SETTLED, *UNSETTLED)
    found = await look_up(path, *map(identity, range(11)))
    assert [each and each.outcome for each in found] == [each.outcome for each in SETTLED] + 6 * [None]


@pytest.mark.parametrize("change", [{"size": 7}, {"mtime_ns": 6}, {"size": None}, {"mtime_ns": None}], ids=str)
async def test_an_input_that_has_changed_is_new_work(path, change):
    await settled_in_a_run(path, report(), report())
    assert await look_up(path, identity(0, **change), identity(1)) != [None, None]
    found = await look_up(path, identity(0, **change), identity(1))
    assert [each is None for each in found] == [True, False]
    assert rows(path)[b"/data/0.dcm"]["outcome"] == "not_sent"


async def test_an_input_without_size_or_time_is_the_same_by_its_name(path):
    stream = InputIdentity(b"stream 1.2.3")
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(stream, report())
    assert await look_up(path, stream) != [None]


async def test_what_this_run_has_settled_is_found_at_once(path):
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(0), report())
        (found,) = await ledger.look_up([identity(0)])
    assert found.outcome is Outcome.STORED


async def test_thousands_are_looked_up_and_begun_at_once(path):
    many = [identity(number) for number in range(3000)]
    async with open_ledger(path, PEER) as ledger:
        assert await ledger.look_up(many) == [None] * 3000
        await ledger.begin(list(map(entry, many)))
        for each in many:
            ledger.settle(each, report())
        await ledger.flush()
        assert None not in await ledger.look_up(many)


async def test_what_was_seen_and_never_begun_is_not_sent(path):
    await look_up(path, identity(0))
    row = rows(path)[b"/data/0.dcm"]
    assert (row["outcome"], row["retry"], row["begun"], row["reason"]) == (
        "not_sent",
        "later",
        None,
        "its turn has not come",
    )


# --- doubt


async def test_what_was_begun_and_never_settled_is_in_doubt(path):
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(0)])
        assert outcomes(path) == {b"0": "in_doubt"}
    async with open_ledger(path, PEER) as ledger:
        assert await ledger.look_up([identity(0), identity(1)]) == [None, None]
        assert [ledger.was_in_doubt(identity(number)) for number in (0, 1)] == [True, False]
        ledger.settle(identity(0), report(Outcome.ALREADY_PRESENT, was_in_doubt=True))
        assert not ledger.was_in_doubt(identity(0))
    assert rows(path)[b"/data/0.dcm"]["was_in_doubt"] == 1


@pytest.mark.parametrize("is_begun", [False, True], ids=["not begun again", "begun again"])
@pytest.mark.parametrize("how", ["killed", "in doubt", "in doubt before"])
@pytest.mark.parametrize("later", [Outcome.NOT_SENT, Outcome.REFUSED, Outcome.INVALID, Outcome.NO_CONTEXT])
async def test_a_later_run_does_not_take_doubt_back(path, how, later, is_begun):
    one = identity(0)
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(one)])
        if how != "killed":
            kind = Outcome.IN_DOUBT if how == "in doubt" else Outcome.REFUSED
            ledger.settle(one, report(kind, was_in_doubt=True))
    async with open_ledger(path, PEER) as ledger:
        assert await ledger.look_up([one]) == [None]
        assert ledger.was_in_doubt(one)
        if is_begun:
            await ledger.begin([entry(one)])
        ledger.settle(one, report(later))
    assert outcomes(path) == {b"0": "in_doubt"}
    await settled_in_a_run(path, report())
    assert outcomes(path) == {b"0": "stored"}


@pytest.mark.parametrize("is_looked_up", [True, False])
@pytest.mark.parametrize("change", [{"size": 7}, {"mtime_ns": 6}], ids=str)
async def test_doubt_does_not_outlive_a_change_of_the_input(path, change, is_looked_up):
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(0)])
    changed = identity(0, **change)
    async with open_ledger(path, PEER) as ledger:
        if is_looked_up:
            await ledger.look_up([changed])
            assert not ledger.was_in_doubt(changed)
        await ledger.begin([entry(changed)])
        ledger.settle(changed, report(Outcome.NOT_SENT))
    assert outcomes(path) == {b"0": "not_sent"}


@pytest.mark.parametrize("change", [{"size": 7}, {"mtime_ns": 6}], ids=str)
async def test_what_arrived_says_nothing_of_a_changed_input(path, change):
    await settled_in_a_run(path, report())
    changed = identity(0, **change)
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(changed)])
        assert outcomes(path) == {b"0": "in_doubt"}
        ledger.settle(changed, report(Outcome.NOT_SENT))
    assert outcomes(path) == {b"0": "not_sent"}


# What a row says of an attempt before there was one.
NO_ATTEMPT = {"settled": None, "status": None, "attempts": 0, "bytes": 0, "transfer_syntax_uid": None, "retry": "later"}


async def test_of_an_earlier_attempt_nothing_is_left_once_it_is_begun_again(path):
    failed = report(Outcome.REFUSED, status=Status(0xA700), attempts=3, reason="full", transfer_syntax_uid="1.2.3")
    await settled_in_a_run(path, failed)
    before = rows(path)[b"/data/0.dcm"]
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([attrs.evolve(entry(0), sop_class_uid="1.2.5", sop_instance_uid="1.2.6")])
        (row,) = rows(path).values()
    assert row.items() >= NO_ATTEMPT.items()
    assert (row["sop_class_uid"], row["sop_instance_uid"], row["run"]) == ("1.2.5", "1.2.6", 2)
    assert row["begun"] > before["settled"]
    assert row["reason"] == "begun, and its end is not noted"


async def test_what_was_begun_in_another_run_is_not_begun_in_this_one(path):
    await settled_in_a_run(path, report(Outcome.NOT_SENT))
    assert rows(path)[b"/data/0.dcm"]["begun"] is not None
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(0), report(Outcome.NOT_SENT))
    assert [(row["run"], row["begun"]) for row in rows(path).values()] == [(2, None)]


async def test_of_an_earlier_attempt_nothing_is_left_once_the_input_has_changed(path):
    failed = report(Outcome.REFUSED, status=Status(0xA700), attempts=3, reason="full", transfer_syntax_uid="1.2.3")
    await settled_in_a_run(path, attrs.evolve(failed, was_in_doubt=True))
    assert await look_up(path, identity(0, size=7)) == [None]
    (row,) = rows(path).values()
    uids = {"sop_class_uid": None, "sop_instance_uid": None}
    assert row.items() >= (NO_ATTEMPT | uids | {"begun": None, "was_in_doubt": 0, "run": 2, "size": 7}).items()
    assert row["reason"] == "its turn has not come"


async def test_an_object_begun_twice_in_a_run_is_not_in_doubt_for_that(path):
    async with open_ledger(path, PEER) as ledger:
        one = identity(0)
        await ledger.begin([entry(one)])
        await ledger.begin([entry(one)])  # given back by one lane, taken by another
        ledger.settle(one, report(Outcome.NOT_SENT))
    assert outcomes(path) == {b"0": "not_sent"}


async def test_of_two_inputs_of_one_name_none_hides_what_the_other_may_do(path):
    one, other = identity(0), identity(0)
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(one), entry(other)])
        ledger.settle(one, report(Outcome.NOT_SENT))
        await ledger.flush()
        assert outcomes(path) == {b"0": "in_doubt"}  # the other is under way
        ledger.settle(other, report(Outcome.NOT_SENT))
        await ledger.flush()
        assert outcomes(path) == {b"0": "not_sent"}
        await ledger.begin([entry(one), entry(other)])
        ledger.settle(one, report(Outcome.IN_DOUBT))
        ledger.settle(other, report(Outcome.NOT_SENT))
        await ledger.flush()
        assert outcomes(path) == {b"0": "in_doubt"}
        await ledger.begin([entry(one)])
        ledger.settle(one, report())
        await ledger.begin([entry(other)])
        await ledger.flush()
        assert outcomes(path) == {b"0": "stored"}  # whatever becomes of the other: the peer has it
        ledger.settle(other, report(Outcome.NOT_SENT))
    assert outcomes(path) == {b"0": "stored"}


# --- when it is written


async def test_begin_returns_when_it_is_committed(path):
    async with open_ledger(path, PEER) as ledger:
        for number in range(20):
            await ledger.begin([entry(number)])
            assert outcomes(path)[b"%d" % number] == "in_doubt"


async def test_callers_that_come_together_share_a_commit(path, monkeypatch):
    groups = []
    exchange = ledger_file.LedgerFile.exchange
    monkeypatch.setattr(
        ledger_file.LedgerFile,
        "exchange",
        lambda self, settled, begun, names: groups.append(len(begun)) or exchange(self, settled, begun, names),
    )
    async with open_ledger(path, PEER) as ledger, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ledger.begin, [entry(number)])
    assert sum(groups) == 50
    assert len(groups) <= 3


async def test_an_end_is_written_within_some_tenths_of_a_second(path, autojump_clock):
    stand_still.set(True)
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(0), report())
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes(path) == {}
        await trio.sleep(0.2)
        assert outcomes(path) == {b"0": "stored"}


async def test_what_is_settled_while_cancelled_is_written(path):
    one, other = identity(0), identity(1)
    with trio.CancelScope() as scope:
        async with open_ledger(path, PEER) as ledger:
            await ledger.begin([entry(one), entry(other)])
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                ledger.settle(one, report(Outcome.NOT_SENT, reason="interrupted"))
                ledger.settle(other, report())
    assert scope.cancelled_caught
    assert os.listdir(path.parent) == ["run.db"]
    assert outcomes(path) == {b"0": "not_sent", b"1": "stored"}
    assert ledger.failure is None


async def test_the_bodys_exception_leaves_as_it_is_and_all_is_written(path):
    async def main():
        async with open_ledger(path, PEER) as ledger:
            ledger.settle(identity(0), report())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await main()
    assert outcomes(path) == {b"0": "stored"}


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["withdrawn", "cancelled"])
async def test_what_is_given_up_before_it_was_noted_is_not_in_doubt(path, monkeypatch, is_cancelled):
    one = identity(0)
    async with open_ledger(path, PEER) as ledger:
        hang = Hang(monkeypatch, "_find")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.look_up, [identity(1)])
            await trio.to_thread.run_sync(hang.is_there.wait)  # what comes now is written later
            nursery.start_soon(ledger.begin, [entry(one)])
            await trio.testing.wait_all_tasks_blocked()
            if is_cancelled:
                nursery.cancel_scope.cancel()
                await trio.lowlevel.cancel_shielded_checkpoint()
            ledger.settle(one, report(Outcome.NOT_SENT))
            hang.may_go_on.set()
    assert outcomes(path)[b"0"] == "not_sent"


async def test_once_it_is_closed_nothing_begins_and_nothing_waits(path):
    async with open_ledger(path, PEER) as ledger:
        pass
    for call in (ledger.begin([entry(0)]), ledger.look_up([identity(0)])):
        with pytest.raises(LedgerError, match="closed"):
            await call
    await ledger.flush()
    ledger.settle(identity(0), report())
    assert outcomes(path) == {}


async def test_names_times_and_reasons_of_any_kind(path):
    strange = InputIdentity(b"/data/\xff\n\x1b[31m'", 1 << 40, (1 << 63) + 5)  # in the year 2262
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(strange)])
        ledger.settle(strange, report(reason="no such file: \udcff\n\x00", bytes_sent=1 << 40))
    (found,) = await look_up(path, strange)
    assert found.path == "/data/\udcff\n\x1b[31m'"
    assert found.reason == "no such file: \\udcff\n\x00"
    assert found.bytes_sent == 1 << 40
    assert await look_up(path, attrs.evolve(strange, mtime_ns=(1 << 63) + 6)) == [None]


# --- cancellation


def test_cancelled_anywhere_it_is_a_ledger_and_tells_the_truth(tmp_path):
    count = 0

    async def scenario(cut):
        nonlocal count
        count += 1
        stand_still.set(True)
        path = tmp_path / f"{count}.db"
        begun, sent, settled = set(), set(), set()
        with cut:
            async with open_ledger(path, PEER) as ledger:
                inputs = [identity(number) for number in range(4)]
                try:
                    await ledger.look_up(inputs)
                    for number in range(4):
                        begun.add(b"%d" % number)
                        await ledger.begin([entry(inputs[number])])
                        sent.add(b"%d" % number)  # from now on the peer may have it
                        await trio.lowlevel.checkpoint()
                        if number < 2:
                            ledger.settle(inputs[number], report())
                            settled.add(b"%d" % number)
                    await ledger.flush()
                finally:
                    if len(begun) == 4:
                        ledger.settle(inputs[3], report(Outcome.NOT_SENT))
        assert not LedgerLock(str(path)).is_held()
        found = outcomes(path) if path.exists() else {}
        expected = {name: "stored" if name in settled else "in_doubt" for name in sent - {b"3"}}
        assert expected.items() <= found.items()
        assert {name for name, outcome in found.items() if outcome == "in_doubt"} <= begun
        if len(begun) == 4:
            assert found[b"3"] == "not_sent"
        assert not any(name.name.startswith(f"{count}.db-new") for name in tmp_path.iterdir())

    assert cancel_at_every_checkpoint(scenario) > 20


class Hang:
    """In place of a method of `LedgerFile`: its thread hangs until it is let go."""

    def __init__(self, monkeypatch, name):
        self.may_go_on, self.is_there = threading.Event(), threading.Event()
        method = getattr(ledger_file.LedgerFile, name)

        def hanging(*arguments):
            self.is_there.set()
            assert self.may_go_on.wait(20)
            return method(*arguments)

        monkeypatch.setattr(ledger_file.LedgerFile, name, hanging)


async def wait_closed(path):
    """No thread has it any more, and its lock is free."""
    with trio.fail_after(10):
        while (path.parent / "run.db-lock").exists():  # noqa: ASYNC110  # only a look at the folder tells
            await trio.sleep(0.01)


async def test_cancelled_while_the_disk_hangs_it_is_closed_by_the_thread_that_was_left(path, monkeypatch):
    hang = Hang(monkeypatch, "_make")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel():
                await trio.to_thread.run_sync(hang.is_there.wait)
                scope.cancel()

            nursery.start_soon(cancel)
            async with open_ledger(path, PEER):
                raise AssertionError("it is not open")
    assert scope.cancelled_caught
    assert LedgerLock(str(path)).is_held()
    hang.may_go_on.set()
    await wait_closed(path)
    async with open_ledger(path, PEER):
        pass


async def test_a_disk_that_hangs_at_the_end_is_not_waited_for_for_ever(path, monkeypatch):
    monkeypatch.setattr(ledger_module, "CLOSING", 0.1)
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin([entry(0)])
        hang = Hang(monkeypatch, "_find")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.look_up, [identity(1)])
            await trio.to_thread.run_sync(hang.is_there.wait)
            ledger.settle(identity(0), report())
            nursery.cancel_scope.cancel()
    assert "could not be written within 0.1 s" in str(ledger.failure)
    hang.may_go_on.set()
    await wait_closed(path)
    assert outcomes(path)[b"0"] == "in_doubt"  # never "not sent"


async def test_it_is_written_in_a_thread(path, monkeypatch):
    threads = set()
    for name in ("open", "exchange", "finish"):
        method = getattr(ledger_file.LedgerFile, name)

        def noting(*arguments, method=method):
            threads.add(threading.current_thread())
            return method(*arguments)

        monkeypatch.setattr(ledger_file.LedgerFile, name, noting)
    await settled_in_a_run(path, report())
    assert threads
    assert threading.current_thread() not in threads


async def test_rows_have_uids_and_times(path):
    await settled_in_a_run(path, report(), report(Outcome.REFUSED, status=Status(0xA700)))
    stored, refused = rows(path).values()
    assert stored["sop_class_uid"] == CT
    assert stored["sop_instance_uid"] == "1.2.3"
    assert stored["begun"] <= stored["settled"]
    assert (refused["status"], refused["bytes"], refused["attempts"], refused["run"]) == (0xA700, 700, 1, 1)
