"""What a receiver that was killed has left, and what one that lives is writing."""

from __future__ import annotations

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import trio

import trio_dicom
from support.fake_instance import UID, data_set, instance, names
from trio_dicom.services import arriving_file, directory
from trio_dicom.services.arriving_file import ArrivingFile, sweep
from trio_dicom.services.directory import Durable
from trio_dicom.services.instance_folder import Duplicates, InstanceFolder

PART = ".arriving-" + "0" * 32 + ".part"


@pytest.fixture
def receiver(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of an object that it files in `tmp_path`."""
    code = """
        import sys
        from trio_dicom.services.arriving_file import ArrivingFile
        from trio_dicom.services.directory import Durable
        file = ArrivingFile(sys.argv[1], Durable())
        with file:
            file.write([b"half"])
        print("written", flush=True)
        sys.stdin.readline()
        with file:
            file.write([b" and half"])
            file.commit(["whole"], replace=True)
    """
    path = pathlib.Path(trio_dicom.__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=path)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    yield process
    process.kill()
    process.communicate()


async def test_a_living_receiver_keeps_its_file(tmp_path: pathlib.Path, receiver: subprocess.Popen[str]) -> None:
    (part,) = names(tmp_path)
    assert arriving_file._NAME.fullmatch(part)
    assert sweep(str(tmp_path)) == 0
    assert (await InstanceFolder(tmp_path).store(instance())).status == 0
    assert names(tmp_path) == [part, f"{UID}.dcm"]
    await trio.to_thread.run_sync(receiver.communicate, "go on\n")
    assert (tmp_path / "whole").read_bytes() == b"half and half"
    assert names(tmp_path) == [f"{UID}.dcm", "whole"]


@pytest.mark.fault_row(78, 116)
@pytest.mark.parametrize("explicitly", [True, False])
async def test_what_a_killed_receiver_left_is_removed_fault78_fault116(
    tmp_path: pathlib.Path, receiver: subprocess.Popen[str], explicitly: bool
) -> None:
    os.kill(receiver.pid, signal.SIGKILL)
    await trio.to_thread.run_sync(receiver.wait)
    assert len(names(tmp_path)) == 1
    folder = InstanceFolder(tmp_path)
    if explicitly:
        assert folder.sweep() == 1
        assert names(tmp_path) == []
    assert (await folder.store(instance())).status == 0
    assert names(tmp_path) == [f"{UID}.dcm"]


async def test_it_is_done_once(tmp_path: pathlib.Path) -> None:
    folder = InstanceFolder(tmp_path)
    await folder.store(instance())
    (tmp_path / PART).write_bytes(b"")
    await folder.store(instance())
    assert names(tmp_path) == [PART, f"{UID}.dcm"]


async def test_only_its_own_names_are_touched(tmp_path: pathlib.Path) -> None:
    kept = {".arriving-x.part", PART + "2", PART[1:], ".arriving-" + "0" * 31 + "G.part", "sub/" + PART}
    (tmp_path / "sub").mkdir()
    for name in kept | {PART}:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / PART.replace("00", "01")).mkdir()
    os.mkfifo(tmp_path / PART.replace("00", "02"))
    outside = tmp_path.with_name("outside")
    outside.write_bytes(b"")
    (tmp_path / PART.replace("00", "03")).symlink_to(outside)
    assert sweep(str(tmp_path)) == 1
    assert set(names(tmp_path)) == kept | {PART.replace("00", "02"), PART.replace("00", "03")}
    assert outside.exists()


async def test_a_sweep_that_fails_is_not_the_instances_fault(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def scandir(path: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", scandir)
    assert (await InstanceFolder(tmp_path).store(instance())).status == 0
    assert "Input/output error" in caplog.text


@pytest.mark.parametrize("moment", ["before the lock", "while it is locked", "after the lock"])
def test_a_sweep_in_the_moment_when_a_file_is_made(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The other process's sweep sees a file that is there and not yet locked."""
    real = fcntl.flock
    swept: list[Any] = []

    def flock(fd: int, operation: int) -> None:
        if swept:
            return real(fd, operation)
        swept.append(None)
        if moment == "before the lock":
            monkeypatch.setattr(fcntl, "flock", real)
            assert sweep(str(tmp_path)) == 1
            return real(fd, operation)
        if moment == "while it is locked":
            (name,) = names(tmp_path)
            sweeper = os.open(tmp_path / name, os.O_RDWR)
            real(sweeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                return real(fd, operation)
            finally:
                os.unlink(tmp_path / name)
                os.close(sweeper)
        real(fd, operation)
        monkeypatch.setattr(fcntl, "flock", real)
        assert sweep(str(tmp_path)) == 0
        return None

    monkeypatch.setattr(fcntl, "flock", flock)
    with ArrivingFile(str(tmp_path), Durable()) as file:
        file.write([b"whole"])
        assert len(names(tmp_path)) == 1
        assert sweep(str(tmp_path)) == 0
        assert file.commit(["name"], replace=False)
    assert (tmp_path / "name").read_bytes() == b"whole"
    assert names(tmp_path) == ["name"]
    assert swept


def test_a_name_that_leads_to_another_file_is_not_ours(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        real(fd, operation)
        (name,) = names(tmp_path)
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").rename(tmp_path / name)

    monkeypatch.setattr(fcntl, "flock", flock)
    with ArrivingFile(str(tmp_path), Durable()) as file:
        file.write([b"whole"])
        file.commit(["name"], replace=True)
    assert (tmp_path / "name").read_bytes() == b"whole"


def test_a_sweep_between_its_look_and_its_lock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has opened the file, then this is filed: the sweep gets the lock, and must not remove it."""
    file = ArrivingFile(str(tmp_path), Durable())
    with file:
        file.write([b"whole"])
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        with file:
            file.commit(["name"], replace=True)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert sweep(str(tmp_path)) == 0
    assert (tmp_path / "name").read_bytes() == b"whole"


def test_where_every_new_file_is_swept_it_is_given_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(fcntl, "flock", flock)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="as soon as they are made"), ArrivingFile(str(tmp_path), Durable()) as file:
        file.write([b"x"])
    assert names(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_where_there_are_no_locks_nothing_is_swept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / PART).write_bytes(b"")
    assert (await InstanceFolder(tmp_path).store(instance())).status == 0
    assert names(tmp_path) == [PART, f"{UID}.dcm"]


@pytest.mark.parametrize("duplicates", Duplicates)
async def test_a_platform_with_less(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, duplicates: Duplicates
) -> None:
    """No descriptors of folders, no flock, no writev, no pread: paths, and what every system has."""
    monkeypatch.setattr(directory, "_HAS_DIR_FD", False)
    monkeypatch.setattr(arriving_file, "_HAS_LOCKS", False)
    for name in ("writev", "pread", "fstatvfs"):
        monkeypatch.delattr(os, name)
    root = tmp_path / "new" / "in"
    folder = InstanceFolder(root, layout="{patient_id}/{modality}/{sop_instance_uid}.dcm", duplicates=duplicates)
    (root / PART).write_bytes(b"")
    arriving = instance(data_set(3 << 20))
    stored = await folder.store(arriving)
    assert stored.path == root / "unknown" / "unknown" / f"{UID}.dcm"
    assert stored.path.read_bytes() == arriving.file
    again = await folder.store(instance())
    assert again.status == (0x0111 if duplicates is Duplicates.REFUSE else 0)
    assert names(root) == [f"unknown/unknown/{UID}.dcm"]
    stored.path.unlink()
    (root / "unknown" / "unknown").rmdir()
    (root / "unknown" / "unknown").symlink_to(tmp_path)
    assert (await folder.store(instance())).status == 0xA700
    assert (await InstanceFolder(root, min_free=1 << 60).store(instance())).status == 0xA700
    assert names(tmp_path) == ["new/in/unknown/unknown"]
