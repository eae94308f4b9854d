"""A disk that fails, a receiver that is killed, a task that is cancelled: what was acknowledged is there, and whole."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_dicom
from support.fake_instance import UID, data_set, descriptors, instance, names
from trio_dicom.services import instance_folder
from trio_dicom.services.arriving_file import ArrivingFile, Discarded
from trio_dicom.services.directory import Durable
from trio_dicom.services.instance_folder import Duplicates, InstanceFolder
from trio_dicom.testing import Cut, cancel_at_every_checkpoint

_NAMES = ["open", "close", "dup", "writev", "fsync", "replace", "link", "unlink", "stat", "fstat", "mkdir", "fstatvfs"]
CALLS = [(os, name) for name in _NAMES]
FLOCK = (fcntl, "flock")
LARGE = 2 << 20
FLAT = "{sop_instance_uid}.dcm"
DEEP = "{patient_id}/{modality}/{sop_instance_uid}.dcm"


class Calls:
    """The calls to the system by name and by what they were about; the `failing`th is made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int | None = None, error: int = errno.EIO) -> None:
        self.made: list[tuple[str, str]] = []
        self.failed: tuple[str, str] | None = None
        self._failing = failing
        self._error = error
        for module, name in [*CALLS, FLOCK]:
            monkeypatch.setattr(module, name, self._wrap(name, getattr(module, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            subject = args[-1] if name in ("replace", "link") else args[0]
            if isinstance(subject, int) and subject >= 0:
                subject = os.path.basename(os.readlink(f"/proc/self/fd/{subject}"))
            subject = "part" if str(subject).startswith(".arriving-") else str(subject)
            self.made.append((name, subject))
            if self._failing == len(self.made) - 1:
                self.failed = self.made[-1]
                if name == "close":
                    real(*args)  # as Linux does: it is closed, and an error reported
                raise OSError(self._error, os.strerror(self._error))
            return real(*args, **options)

        return call


# --- the disk -------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(82)
@pytest.mark.parametrize("is_there", [False, True], ids=["new", "again"])
@pytest.mark.parametrize("duplicates", Duplicates)
@pytest.mark.parametrize(
    ("error", "size", "layout"),
    [
        *((errno.EIO, size, layout) for size in (1000, LARGE) for layout in (FLAT, DEEP)),
        *((error, 1000, FLAT) for error in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)),
    ],
)
async def test_the_kth_call_fails_fault82(
    tmp_path: pathlib.Path, duplicates: Duplicates, is_there: bool, size: int, layout: str, error: int
) -> None:
    path = layout.replace("{sop_instance_uid}", UID).replace("{patient_id}/{modality}", "unknown/unknown")
    first = instance(data_set(size, fill=1))
    for failing in range(200):
        root = tmp_path / str(failing)
        if is_there:
            await InstanceFolder(root, layout=layout).store(instance(first.data))
        folder = InstanceFolder(root, layout=layout, duplicates=duplicates)
        folder.sweep()
        second = instance(data_set(size, fill=2))
        open_before = descriptors()
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, failing, error)
            stored = await folder.store(second)
        assert descriptors() == open_before, calls.made
        there = names(root)
        if calls.failed is None:
            assert failing > 12
            break
        if calls.failed[0] == "unlink":  # it cannot be removed now; the next receiver does
            assert stored.status in (0, 0x0111)
            assert folder.sweep() == 1
            there = names(root)
        assert there in ([], [path]), calls.failed
        # What was acknowledged is never lost, whatever became of its successor, and nobody sees a part of one.
        if is_there:
            assert path in there
        if path in there:
            assert (root / path).read_bytes() in ([first.file] if is_there else []) + [second.file]
        if stored.status == 0:
            assert path in there
            if duplicates is Duplicates.REPLACE or not is_there:
                assert (root / path).read_bytes() == second.file
                assert stored.path == root / path
        elif stored.status != 0x0111:
            assert stored.status == 0xA700
            assert stored.error_comment in (
                "the storage is full",
                f"the storage failed ({errno.errorcode[error]})",
            )
            # The one case: renamed, and the fsync of the folder failed. It cannot be taken back (see arriving_file).
            if path in there and not is_there:
                assert calls.failed[0] == "fsync"
                assert calls.failed[1] != "part"
        is_refused = path in there and duplicates is Duplicates.REFUSE
        assert (await folder.store(instance(second.data))).status == (0x0111 if is_refused else 0)
        assert (root / path).exists()
    else:
        pytest.fail("more calls than expected")


def fails(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, part: bool = True) -> None:
    """Every call on the temporary file, or else on anything else, fails."""
    real = getattr(module, name)

    def call(fd: Any, *args: Any, **options: Any) -> Any:
        if (".arriving-" in os.readlink(f"/proc/self/fd/{fd}")) is part:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, *args, **options)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("name", ["writev", "fsync", "flock"])
async def test_a_file_that_cannot_be_written_is_never_filed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = InstanceFolder(tmp_path)
    with monkeypatch.context() as patch:
        fails(patch, fcntl if name == "flock" else os, name)
        assert (await folder.store(instance())).status == 0xA700
        assert names(tmp_path) == []
    assert (await folder.store(instance())).status == 0


@pytest.mark.fault_row(82, 116)
@pytest.mark.parametrize("duplicates", Duplicates)
async def test_success_is_not_said_before_the_folder_is_on_the_disk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, duplicates: Duplicates
) -> None:
    folder = InstanceFolder(tmp_path, duplicates=duplicates)
    with monkeypatch.context() as patch:
        fails(patch, os, "fsync", part=False)
        assert (await folder.store(instance())).status == 0xA700
        assert names(tmp_path) == [f"{UID}.dcm"]  # another may have been told that it is there
        assert (await folder.store(instance())).status == 0xA700  # a duplicate, too, must be durable
    assert (await folder.store(instance())).status == (0x0111 if duplicates is Duplicates.REFUSE else 0)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
async def test_a_file_system_without_fsync_of_folders(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(code, os.strerror(code))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert (await InstanceFolder(tmp_path / "new", layout=DEEP).store(instance())).status == 0


async def test_errors_of_the_close_come_before_the_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server reports there what it could not write, where there is no fsync."""
    real = os.close

    def close(fd: int) -> None:
        is_part = ".arriving-" in os.readlink(f"/proc/self/fd/{fd}")
        real(fd)
        if is_part:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", close)
    stored = await InstanceFolder(tmp_path, sync=False).store(instance())
    assert (stored.status, stored.error_comment) == (0xA700, "the storage is full")
    assert names(tmp_path) == []


async def test_one_warning_for_one_object(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = InstanceFolder(tmp_path)
    fails(monkeypatch, os, "writev")
    await folder.store(instance())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "an instance could not be filed: Input/output error")
    ]


# --- the order ------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(116)
@pytest.mark.parametrize(("duplicates", "placing"), [(Duplicates.REPLACE, "replace"), (Duplicates.KEEP, "link")])
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_the_order_that_makes_it_durable(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, duplicates: Duplicates, placing: str, size: int
) -> None:
    folder = InstanceFolder(tmp_path / "root", layout=DEEP.replace("{patient_id}", "a"), duplicates=duplicates)
    folder.sweep()
    calls = Calls(monkeypatch)
    assert (await folder.store(instance(data_set(size)))).status == 0
    order = [made for made in calls.made if made[0] in ("writev", "fsync", "mkdir", "replace", "link")]
    assert order[-7:] == [
        ("fsync", "part"),
        ("mkdir", "a"),
        ("fsync", "root"),
        ("mkdir", "unknown"),
        ("fsync", "a"),
        (placing, f"{UID}.dcm"),
        ("fsync", "unknown"),
    ]
    assert set(order[:-7]) == {("writev", "part")}
    del calls.made[:]
    await folder.store(instance(uid="1.2"))  # both folders are known to be on the disk
    assert [made for made in calls.made if made[0] == "fsync"] == [("fsync", "part"), ("fsync", "unknown")]


async def test_folders_that_another_made_are_forced_to_the_disk_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root" / "unknown" / "unknown").mkdir(parents=True)
    folder = InstanceFolder(tmp_path / "root", layout=DEEP)
    calls = Calls(monkeypatch)
    await folder.store(instance())
    assert [made[1] for made in calls.made if made[0] == "fsync"] == ["part", "root", "unknown", "unknown"]


async def test_without_sync_there_is_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    for duplicates in Duplicates:
        root = tmp_path / "new" / duplicates.value
        folder = InstanceFolder(root, layout=DEEP, duplicates=duplicates, sync=False)
        assert (await folder.store(instance())).status == 0
    assert "fsync" not in {name for name, _ in calls.made}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux begins to write back when it is told to forget")
@pytest.mark.parametrize("sync", [True, False])
async def test_what_is_to_be_forced_to_the_disk_is_on_its_way_before_the_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    begun: list[tuple[int, int]] = []

    def posix_fadvise(fd: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        begun.append((offset, offset + length))
        raise OSError(errno.EINVAL, "it is no more than a wish")

    monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
    stored = await InstanceFolder(tmp_path, sync=sync).store(instance(data_set(LARGE)))
    assert stored.status == 0x0000
    assert begun[:1] == ([(0, begun[0][1])] if sync else [])
    assert all(before[1] == after[0] for before, after in itertools.pairwise(begun))
    assert not begun or 1 << 20 <= begun[-1][1] < stored.size


def test_durable_forgets_rather_than_grows() -> None:
    durable = Durable()
    for number in range(10_000):
        durable.add(str(number))
        assert str(number) in durable
    assert len(durable._paths) <= Durable._MOST


# --- the receiver is killed -----------------------------------------------------------------------------------------


@pytest.mark.fault_row(116)
@pytest.mark.parametrize("replace", [True, False])
def test_killed_before_the_kth_call_fault116(tmp_path: pathlib.Path, replace: bool) -> None:
    code = """
        import fcntl, os, signal, sys
        from trio_dicom.services.arriving_file import ArrivingFile, sweep
        from trio_dicom.services.directory import Durable

        def store(root, k):
            count = 0
            def lethal(real):
                def call(*args, **options):
                    nonlocal count
                    if count == k:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1
                    return real(*args, **options)
                return call
            for name in "open close dup writev fsync replace link unlink stat fstat mkdir".split():
                setattr(os, name, lethal(getattr(os, name)))
            fcntl.flock = lethal(fcntl.flock)
            with ArrivingFile(root, Durable()) as file:
                file.write([b"head"])
                file.write([b"data set"])
                file.commit(["a", "final"], replace=REPLACE)

        for k in range(100):
            root = os.path.join(sys.argv[1], str(k))
            os.mkdir(root)
            pid = os.fork()
            if not pid:
                store(root, k)
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            before = os.listdir(root)
            swept = sweep(root)
            left = [os.path.join(at, name) for at, _, found in os.walk(root) for name in found]
            assert left in ([], [os.path.join(root, "a", "final")]), left
            if left:
                assert open(left[0]).read() == "headdata set"
            if not status:
                assert left
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            print(len(left), swept)
    """.replace("REPLACE", str(replace))
    path = pathlib.Path(trio_dicom.__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    seen = set(done.stdout.split("\n"))
    assert {"0 0", "0 1", "1 0"} <= seen  # before the file, in its middle, after its renaming
    assert ("1 1" in seen) is not replace  # linked, and the other name still there


# --- cancelled ------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(112)
@pytest.mark.parametrize("size", [1000, 3 << 20])
def test_cancelled_at_every_checkpoint_fault112(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = data_set(size)
    seen = set()

    async def scenario(cut: Cut) -> None:
        folder = InstanceFolder(tmp_path)
        arriving = instance(data)
        before = descriptors()
        with cut:
            stored = await folder.store(arriving)
            assert stored.status == 0
        assert descriptors() == before  # at once, not some time later
        there = names(tmp_path)
        seen.add((cut.was_cancelled, len(there)))
        assert there in ([], [f"{UID}.dcm"])
        if there:
            path = tmp_path / there[0]
            assert path.read_bytes() == arriving.file
            path.unlink()

    cancel_at_every_checkpoint(scenario, virtual_clock=False)
    assert (True, 0) in seen
    assert (False, 1) in seen


async def test_cancelled_while_the_bytes_come(tmp_path: pathlib.Path) -> None:
    folder = InstanceFolder(tmp_path)
    arriving = instance(data_set(5 << 20), stop_at=3 << 20)
    before = descriptors()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folder.store, arriving)
        await arriving.stalled.wait()
        assert len(names(tmp_path)) == 1
        assert descriptors() > before
        nursery.cancel_scope.cancel()
    assert names(tmp_path) == []
    assert descriptors() == before


async def test_an_error_of_the_instance_is_the_callers(tmp_path: pathlib.Path) -> None:
    folder = InstanceFolder(tmp_path)
    arriving = instance(data_set(5 << 20))
    real = arriving.receive_pieces

    async def receive_pieces(at_least: int) -> Any:
        if arriving.read > 2 << 20:
            raise OSError("not the disk's")
        return await real(at_least)

    arriving.receive_pieces = receive_pieces
    before = descriptors()
    with pytest.raises(OSError, match="not the disk's"):
        await folder.store(arriving)
    assert names(tmp_path) == []
    assert descriptors() == before


class Hanging:
    """A call that hangs until `go_on`; `entered` when it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._real = getattr(os, name)
        self._entered = threading.Event()
        self.go_on = threading.Event()
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._entered.set()
        self.go_on.wait(20)
        return self._real(*args, **options)

    async def entered(self) -> None:
        await until(self._entered.is_set)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.mark.fault_row(82)
@pytest.mark.parametrize("name", ["writev", "fsync"])
async def test_a_disk_that_hangs_holds_nobody(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(instance_folder, "_GRACE", 0.05)
    folder = InstanceFolder(tmp_path)
    await folder.store(instance(uid="1.2"))
    before = descriptors()
    hanging = Hanging(monkeypatch, name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folder.store, instance())
        await hanging.entered()
        nursery.cancel_scope.cancel()
    assert len(names(tmp_path)) == 2  # the thread has it
    hanging.go_on.set()
    await until(lambda: descriptors() == before)
    assert names(tmp_path) == ["1.2.dcm"]  # nobody waits for it any more: it is not filed


@pytest.mark.parametrize("call", ["fsync", "replace"])
async def test_a_thread_at_work_is_waited_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = InstanceFolder(tmp_path)
    hanging = Hanging(monkeypatch, call)
    before = descriptors()
    done = False

    async def store() -> None:
        nonlocal done
        try:
            await folder.store(instance())
        finally:
            done = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store)
        await hanging.entered()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not done
            hanging.go_on.set()
    assert done
    assert names(tmp_path) == ([] if call == "fsync" else [f"{UID}.dcm"])  # before the renaming, it can be stopped
    assert descriptors() == before


async def test_cancelled_while_all_threads_are_taken(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = InstanceFolder(tmp_path)
    folder._threads.total_tokens = 1
    hanging = Hanging(monkeypatch, "fsync")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(folder.store, instance(uid="1.1"))
        await hanging.entered()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(folder.store, instance(uid="1.2"))
                await trio.testing.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
        assert not scope.cancelled_caught
        hanging.go_on.set()
    assert names(tmp_path) == ["1.1.dcm"]


async def test_no_thread_to_clean_up_with(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = InstanceFolder(tmp_path, max_object_size=2 << 20)
    before = descriptors()
    arriving = instance(data_set(3 << 20))
    real = instance_folder.run_errand

    async def run_errand(function: Any, *args: Any, **options: Any) -> Any:
        if options.get("needs_thread"):
            raise RuntimeError("can't start new thread")
        return await real(function, *args, **options)

    monkeypatch.setattr(instance_folder, "run_errand", run_errand)
    assert (await folder.store(arriving)).status == 0xC000
    assert names(tmp_path) == []
    assert descriptors() == before


def test_a_file_that_was_given_up_is_not_begun(tmp_path: pathlib.Path) -> None:
    file = ArrivingFile(str(tmp_path), Durable())
    file.discard()
    with pytest.raises(Discarded), file:
        file.write([b"x"])
    assert names(tmp_path) == []
