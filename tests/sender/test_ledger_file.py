"""The ledger as a file: one run at a time, other files left alone, and disks that are full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import trio

from sender.ledger_helpers import PEER, entry, identity, outcomes, report, rows
from trio_dicom import LedgerError, Outcome, Retry
from trio_dicom.sender import ledger as ledger_module
from trio_dicom.sender import ledger_file, ledger_lock
from trio_dicom.sender.ledger import open_ledger
from trio_dicom.sender.ledger_lock import LedgerLock
from trio_dicom.sender.ledger_schema import APPLICATION_ID, VERSION, ledger_errors
from trio_dicom.sender.ledger_view import LedgerView
from trio_dicom.testing import make_instance_file

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


async def use(path, peer=PEER):
    async with open_ledger(path, peer):
        pass


def change(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def refused(path, match, peer=PEER):
    """It is refused, says why, and nothing is changed or left; its folder holds what it held."""
    before = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    with pytest.raises(LedgerError, match=match) as caught:
        await use(path, peer)
    assert caught.value.path == str(path)
    assert caught.value.retry is Retry.AFTER_CONFIG
    after = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    readers_own = {f"{path.name}-wal", f"{path.name}-shm"}
    assert {each: data for each, data in after.items() if each.name not in readers_own or each in before} == before


# --- what is no ledger, or none for us


@pytest.mark.parametrize(
    "content", [b"no database", bytes(5000), make_instance_file(300)], ids=["text", "zeros", "DICOM"]
)
async def test_another_file_is_left_alone(path, content):
    path.write_bytes(content)
    await refused(path, "no ledger of trio_dicom, and is left alone")


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_another_database_is_left_alone(path, mode):
    change(path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE run (number)")
    await refused(path, "no ledger of trio_dicom")


async def test_the_database_of_a_program_that_was_killed_is_left_alone(path):
    program = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA cache_size = 1'); c.execute('CREATE TABLE a (b)'); c.execute('BEGIN'); "
        "[c.execute('INSERT INTO a VALUES (zeroblob(9000))') for _ in range(20)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    await trio.run_process([sys.executable, "-c", program, path], check=False)
    assert path.with_name("run.db-journal").exists()  # to be rolled back by its own program
    await refused(path, "cannot be read")


async def test_a_ledger_of_a_later_version_is_left_alone(path):
    await use(path)
    change(path, f"PRAGMA user_version = {VERSION + 1}")
    await refused(path, rf"later trio_dicom .* \(schema {VERSION + 1}; this one knows {VERSION}\)")


@pytest.mark.parametrize("damage", ["cut", "overwritten", "no table"])
async def test_a_damaged_ledger_is_left_alone(path, damage):
    async with open_ledger(path, PEER) as ledger:
        for number in range(1000):
            ledger.settle(identity(number), report())
    if damage == "no table":
        change(path, "DROP TABLE run")
    else:
        data = path.read_bytes()
        middle = len(data) // 2 // 4096 * 4096
        path.write_bytes(data[:middle] if damage == "cut" else data[:middle] + b"\xa5" * 8192 + data[middle + 8192 :])
    await refused(path, "damaged, and is left alone")


async def test_a_row_that_is_not_ours_is_an_error(path):
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(0), report())
    change(path, "UPDATE input SET outcome = 'lost'")
    async with open_ledger(path, PEER) as ledger:
        with pytest.raises(LedgerError, match="damaged: a row"):
            await ledger.look_up([identity(0)])


async def test_a_ledger_is_about_one_peer(path):
    await use(path)
    await refused(path, r"it is that of PACS@10\.0\.0\.5:104: what OTHER@host:104 has", "OTHER@host:104")
    await use(path)


async def test_no_file(tmp_path):
    with pytest.raises(LedgerError, match="no file"):
        await use(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(LedgerError, match="no file"):
        await use(fifo)
    with pytest.raises(LedgerError, match="No such file or directory"):
        await use(tmp_path / "missing" / "run.db")


async def test_an_empty_file_and_what_is_left_of_a_beginning_become_a_ledger(path):
    path.touch()
    for suffix in ("-new", "-new-wal", "-new-journal"):
        path.with_name(path.name + suffix).write_bytes(b"left over")
    await use(path)
    assert os.listdir(path.parent) == ["run.db"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_beginning_that_is_cut_off_leaves_no_ledger(path, monkeypatch):
    def cut_off(*arguments):
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(ledger_file.os, "replace", cut_off)
        with pytest.raises(LedgerError, match="cut off"):
            await use(path)
    assert not path.exists()
    await use(path)
    assert os.listdir(path.parent) == ["run.db"]


async def test_a_link_leads_to_the_ledger_and_all_that_is_beside_it(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real" / "run.db")
    async with open_ledger(link, PEER) as ledger:
        await ledger.begin([entry(0)])
        assert {Path(each).name for each in ledger.paths} == set(os.listdir(tmp_path / "real"))
        with pytest.raises(LedgerError, match="another run"):
            await use(tmp_path / "real" / "run.db")
    assert sorted(os.listdir(tmp_path)) == ["link.db", "real"]
    assert link.is_symlink()


async def test_its_own_files_are_told_from_others(tmp_path):
    for folder in ("real", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.db").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    async with open_ledger(tmp_path / "link" / "run.db", PEER) as ledger:
        names = sorted(os.listdir(tmp_path / "real"))
        assert names == ["run.db", "run.db-lock", "run.db-shm", "run.db-wal"]
        for folder in ("real", "link"):
            assert all(ledger.owns(str(tmp_path / folder / name)) for name in names)
            assert not ledger.owns(str(tmp_path / folder / "run.db-new"))
        assert not any(ledger.owns(str(tmp_path / "other" / name)) for name in names)


@pytest.mark.parametrize("name", ["a b%20c?#.db", "né.db", os.fsdecode(b"\xff.db")])
async def test_names_of_any_kind(tmp_path, name):
    for _ in range(2):
        async with open_ledger(tmp_path / name, PEER) as ledger:
            ledger.settle(identity(0), report())
    assert os.listdir(tmp_path) == [name]


@pytest.fixture
def unprivileged():
    """A folder of somebody for whom permissions count; the whole process is that for the test."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


async def test_a_folder_that_cannot_be_written(unprivileged):
    path = unprivileged / "run.db"
    async with open_ledger(path, PEER) as ledger:
        ledger.settle(identity(0), report())
    assert os.listdir(unprivileged) == ["run.db"]
    log = unprivileged / "run.db-wal"
    log.touch()  # of a run that was killed
    unprivileged.chmod(0o500)
    try:
        with LedgerView(path) as view:
            assert [each.report.outcome for each in view.entries()] == [Outcome.STORED]
        log.write_bytes(b"changes")
        with pytest.raises(LedgerError, match="cannot be read"):
            LedgerView(path)
        log.write_bytes(b"")
        with pytest.raises(LedgerError, match="cannot be used: Permission denied"):
            await use(unprivileged / "other.db")
        with pytest.raises(LedgerError, match="cannot be used: Permission denied"):
            await use(path)
    finally:
        unprivileged.chmod(0o700)


async def test_a_ledger_that_cannot_be_written(unprivileged):
    path = unprivileged / "run.db"
    await use(path)
    path.chmod(0o400)
    with pytest.raises(LedgerError, match="cannot be used: attempt to write a readonly database"):
        await use(path)
    path.chmod(0)
    with pytest.raises(LedgerError, match="cannot be read: Permission denied"):
        await use(path)
    assert not (unprivileged / "run.db-lock").exists()


def test_where_there_can_be_no_log_of_changes_there_is_no_ledger(path):
    in_memory = contextlib.closing(sqlite3.connect(":memory:"))
    with in_memory as connection, pytest.raises(LedgerError, match="cannot keep a write-ahead log there"):
        ledger_file._use_log(str(path), connection)


# --- one run at a time

HOLDER = """
import sys, trio
from trio_dicom.sender.ledger import open_ledger

async def main():
    async with open_ledger(sys.argv[1], sys.argv[2]):
        print("open", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@contextlib.contextmanager
def holder(path):
    """A process that has a run on the ledger until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(path), PEER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


async def test_two_runs_at_once_are_refused_and_a_killed_one_is_no_run(path):
    with holder(path) as process:
        for _ in range(2):
            with pytest.raises(LedgerError, match="another run is writing it"):
                await use(path)
        assert LedgerLock(str(path)).is_held()
        assert outcomes(path) == {}  # readers are let in
        process.kill()
        process.wait()
        assert not LedgerLock(str(path)).is_held()
        await use(path)
    assert not path.with_name("run.db-lock").exists()


def test_the_system_says_why_a_ledger_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    path = str(tmp_path / "file" / "run.db")
    with pytest.raises(LedgerError, match="it cannot be read: Not a directory"), ledger_errors(path, "read"):
        sqlite3.connect(f"file:{path}?mode=ro", uri=True)


async def test_two_runs_in_one_process_are_refused_and_leave_the_first_its_locks(path):
    async with open_ledger(path, PEER) as ledger:
        for _ in range(3):
            with pytest.raises(LedgerError, match="another run"):
                await use(path)
        await ledger.begin([entry(0)])
        with pytest.raises(LedgerError, match="another run"):
            await use(path)


async def test_another_file_that_comes_before_the_lock_is_had_is_left_alone(path, monkeypatch):
    await use(path)
    acquire = LedgerLock.acquire

    def replaced_meanwhile(lock):
        path.unlink()
        change(path, "CREATE TABLE theirs (number)")
        return acquire(lock)

    monkeypatch.setattr(LedgerLock, "acquire", replaced_meanwhile)
    with pytest.raises(LedgerError, match="no ledger of trio_dicom"):
        await use(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_once_it_is_abandoned_nothing_is_written(path):
    file = ledger_file.LedgerFile(path, PEER)
    file.open()
    file.abandon()
    for call in (lambda: file.exchange([], [], []), lambda: file.finish([])):
        with pytest.raises(LedgerError, match="it is closed"):
            call()
    assert not LedgerLock(str(path)).is_held()


def test_who_asks_whether_a_run_is_under_way_keeps_none_from_beginning(path):
    lock = LedgerLock(str(path))
    assert lock.is_held() is False
    assert lock.acquire()
    assert lock.is_held() is True
    lock.release()
    path.with_name("run.db-lock").touch()
    asking = os.open(path.with_name("run.db-lock"), os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    assert lock.is_held() is False  # two may ask at once
    timer = threading.Timer(0.03, os.close, [asking])
    timer.start()
    assert lock.acquire()
    lock.release()
    timer.join()


def test_a_lock_on_a_file_that_was_just_removed_is_none(path, monkeypatch):
    first, second = LedgerLock(str(path)), LedgerLock(str(path))
    try_lock = ledger_lock._try_lock

    def released_meanwhile(fd, **kind):
        monkeypatch.undo()
        path.with_name("run.db-lock").unlink()  # as its holder does, just before it lets go
        return try_lock(fd, **kind)

    monkeypatch.setattr(ledger_lock, "_try_lock", released_meanwhile)
    assert second.acquire()
    assert not first.acquire()
    second.release()


# --- a disk that is full


def connection_of(ledger):
    return ledger._file._connection


async def fill(ledger, first=1000):
    """Begin inputs until there is no room for more; gives the error."""
    (pages,) = connection_of(ledger).execute("PRAGMA page_count").fetchone()
    connection_of(ledger).execute(f"PRAGMA max_page_count = {pages + 2}")
    for number in range(first, first + 1000):
        try:
            await ledger.begin([entry(number)])
        except LedgerError as error:
            return error, number
    raise AssertionError("it was never full")


async def test_a_full_disk_begins_nothing_more_and_ends_in_order(path):
    inputs = [identity(number) for number in range(200)]
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin(list(map(entry, inputs)))
        error, number = await fill(ledger)
        assert "cannot be written: database or disk is full" in str(error)
        assert str(ledger.failure) == str(error)
        for call in (ledger.begin([entry(5000)]), ledger.look_up([identity(5000)])):
            with pytest.raises(LedgerError, match="disk is full"):
                await call
        for each in inputs:  # there is no room for the reasons
            ledger.settle(each, report(Outcome.NOT_SENT, reason=1000 * "x"))
        await ledger.flush()
    assert "disk is full" in str(ledger.failure)
    found = outcomes(path)
    assert {found[b"%d" % each] for each in range(200)} == {"in_doubt"}
    assert b"%d" % number not in found
    async with open_ledger(path, PEER) as ledger:  # the next run finds room
        await ledger.begin([entry(5000)])
        assert ledger.failure is None


async def test_what_was_settled_while_the_disk_was_full_is_written_when_it_is_not(path, monkeypatch):
    monkeypatch.setattr(ledger_module, "TRY_AGAIN", 0.01)
    inputs = [identity(number) for number in range(200)]
    async with open_ledger(path, PEER) as ledger:
        await ledger.begin(list(map(entry, inputs)))
        await fill(ledger)
        for each in inputs:
            ledger.settle(each, report(reason=1000 * "x"))
        await ledger.flush()
        assert outcomes(path)[b"0"] == "in_doubt"
        await trio.sleep(0.1)
        await trio.to_thread.run_sync(connection_of(ledger).execute, "PRAGMA max_page_count = 1000000")
        with trio.fail_after(5):
            while outcomes(path)[b"0"] != "stored":  # noqa: ASYNC110  # nobody asks for it
                await trio.sleep(0.01)
        assert ledger.failure is not None  # which stays: nothing more is begun
    assert set(outcomes(path).values()) == {"stored", "in_doubt"}


LIMITED = """
import resource, signal, sys, trio
from sender.ledger_helpers import PEER, entry, identity, report
from trio_dicom import LedgerError
from trio_dicom.sender.ledger import open_ledger

async def main():
    async with open_ledger(sys.argv[1], PEER) as ledger:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        number = 0
        try:
            while True:
                one = identity(number)
                await ledger.begin([entry(one)])
                ledger.settle(one, report())
                number += 1
        except LedgerError as error:
            print(number, error)
    print("ended in order", ledger.failure)

trio.run(main)
"""


async def test_a_file_that_may_not_grow(path):
    process = await trio.run_process(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_stdout=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    refusal, end = process.stdout.decode().splitlines()
    count, _, text = refusal.partition(" ")
    assert text.startswith(f"ledger {path}: it cannot be written: ")
    assert end == f"ended in order {text}"
    found = outcomes(path)
    assert {found[b"%d" % number] for number in range(int(count) - 1)} == {"stored"}
    assert found.get(b"%d" % (int(count) - 1)) in ("stored", "in_doubt")
    await use(path)


async def test_somebody_elses_write_is_waited_for_for_a_time(path, monkeypatch):
    monkeypatch.setattr(ledger_file, "BUSY_TIMEOUT", 0.05)
    async with open_ledger(path, PEER) as ledger:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="cannot be written: database is locked"):
                await ledger.begin([entry(0)])
            other.execute("ROLLBACK")
    assert outcomes(path) == {}


# --- what others find there


async def test_it_can_be_asked_with_sqlite(path):
    async with open_ledger(path, PEER) as ledger:
        one, other = identity(0), identity(1)
        await ledger.begin([entry(one), entry(other)])
        ledger.settle(one, report(Outcome.REFUSED, reason="no"))
        await ledger.flush()
        assert [row["outcome"] for row in rows(path).values()] == ["refused", "in_doubt"]
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            assert connection.execute("SELECT path, reason FROM report WHERE outcome = 'refused'").fetchall() == [
                ("/data/0.dcm", "no")
            ]
            assert connection.execute("SELECT ended FROM run").fetchall() == [(None,)]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x54444C47,) == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,) == (VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        ((peer, ended),) = connection.execute("SELECT peer, ended >= started FROM run").fetchall()
        assert (peer, ended) == (PEER, 1)


async def test_the_log_does_not_grow_without_end(path):
    async with open_ledger(path, PEER) as ledger:
        for start in range(0, 30_000, 100):
            some = [identity(number) for number in range(start, start + 100)]
            await ledger.begin(list(map(entry, some)))
            for each in some:
                ledger.settle(each, report())
        assert path.with_name("run.db-wal").stat().st_size < 10_000_000
    shutil.copy(path, copy := path.with_name("copy.db"))
    assert len(outcomes(copy)) == 30_000
