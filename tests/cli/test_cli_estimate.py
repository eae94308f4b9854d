"""How far a transfer has come: what is counted beside it, and what is made of that."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_dicom.cli import scan as scanning
from trio_dicom.cli.estimate import Estimator
from trio_dicom.cli.scan import Scan
from trio_dicom.sender.outcome import InstanceReport, Outcome
from trio_dicom.sender.reports import TransferReport
from trio_dicom.testing import make_instance_file


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Five files of 100 bytes in three folders, a link to one of them, one to a folder, a FIFO, and an archive."""
    for number, name in enumerate(["0", "a/1", "a/2", "b/c/3", "b/4"]):
        path = tmp_path / "study" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 100)
    study = tmp_path / "study"
    (study / "link").symlink_to(study / "0")
    (study / "folder").symlink_to(study / "a")
    os.mkfifo(study / "fifo")
    with zipfile.ZipFile(study / "b" / "z.zip", "w") as archive:
        archive.writestr("x.dcm", make_instance_file(3000))
        archive.writestr("y.dcm", make_instance_file(3000))
    return study


async def count(paths: list[Path], skip: scanning.Skip | None = None) -> tuple[int, int]:
    scan = Scan([str(path) for path in paths], skip)
    await scan.run()
    assert scan.is_complete
    return scan.objects, scan.size


async def test_a_folder_and_what_is_in_its_folders(study: Path, autojump_clock: trio.testing.MockClock) -> None:
    archive = (study / "b" / "z.zip").stat().st_size
    assert await count([study]) == (9, 600 + archive)
    assert await count([study / "a", study / "0", study / "missing"]) == (4, 300)
    assert await count([]) == (0, 0)


async def test_an_archive_stands_for_what_is_in_it(study: Path, autojump_clock: trio.testing.MockClock) -> None:
    assert await count([study / "b" / "z.zip"]) == (2, 2 * len(make_instance_file(3000)))


async def test_what_is_no_input_is_not_counted(study: Path, autojump_clock: trio.testing.MockClock) -> None:
    assert await count([study / "a", study / "0"], lambda path: os.path.basename(path) in ("1", "0")) == (2, 200)


async def test_it_comes_back_again_and_again(
    study: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """However many files there are, a thread counts a few of them at a time."""
    monkeypatch.setattr(scanning, "A_HOP", 0.0)
    monkeypatch.setattr(scanning.time, "monotonic", iter(range(1000)).__next__)
    scan = Scan([str(study)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scan.run)
        await trio.sleep(scanning.LEAST_PAUSE * 5)
        assert not scan.is_complete
        nursery.cancel_scope.cancel()
    assert scan.objects == 0  # there was no time


async def test_a_thread_that_hangs_is_left_to_itself_and_closes_what_is_open(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, may_go_on, closed = threading.Event(), threading.Event(), threading.Event()
    real = os.scandir

    class Hanging:
        def __init__(self, folder: str) -> None:
            self._entries = real(folder)

        def __enter__(self) -> Hanging:
            return self

        def __exit__(self, *error: object) -> None:
            self._entries.close()
            closed.set()

        def __iter__(self) -> Hanging:
            return self

        def __next__(self) -> os.DirEntry[str]:
            hangs.set()
            may_go_on.wait(10)
            return next(self._entries)

    monkeypatch.setattr(os, "scandir", Hanging)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Scan([str(study)]).run)
            await trio.to_thread.run_sync(hangs.wait, 10)
            nursery.cancel_scope.cancel()
    assert not closed.is_set()
    may_go_on.set()
    assert closed.wait(10)


class Counted(Scan):
    """As if so much had been counted."""

    def __init__(self, objects: int, size: int, *, is_complete: bool = True) -> None:
        super().__init__([])
        self.objects, self.size, self.is_complete = objects, size, is_complete


def stored(size: int) -> InstanceReport:
    return InstanceReport(path="x", outcome=Outcome.STORED, bytes_sent=size)


INVALID = InstanceReport(path="x", outcome=Outcome.INVALID)


def test_until_all_is_counted_the_rest_is_not_known() -> None:
    estimator = Estimator()
    estimator.settled(stored(1_000_000))
    scan = Counted(7, 9_000_000, is_complete=False)
    estimate = estimator.estimate(TransferReport(bytes_sent=1_000_000), scan, 500_000, 10.0)
    assert str(estimate) == "1 object, 1.5 MB, 0.0 MB/s, 0.0 objects/s"
    assert (estimate.fraction, estimate.seconds_left) == (None, None)


def test_rates_are_those_of_the_last_seconds() -> None:
    estimator, scan = Estimator(), Counted(100, 100_000_000)
    for second in range(31):
        if second:
            estimator.settled(stored(1_000_000))
        slow = 1_000_000 * min(second, 10) + 2_000_000 * max(0, second - 10)
        estimate = estimator.estimate(TransferReport(bytes_sent=slow), scan, 0, float(second))
    assert (estimate.bytes_per_second, estimate.objects_per_second) == (2_000_000, 1.0)
    assert (estimate.fraction, estimate.seconds_left) == (pytest.approx(0.3, abs=0.001), pytest.approx(35.0, abs=0.1))
    assert str(estimate) == "30 of 100 objects, 30.0 MB of 100.0 MB, 2.0 MB/s, 1.0 objects/s, 35.0 s left"


def test_what_was_not_sent_counts_as_far_as_can_be_told() -> None:
    estimator, scan = Estimator(), Counted(20, 10_000_000)
    fractions = []
    for _ in range(10):
        estimator.settled(INVALID)
    for number in range(10):
        estimate = estimator.estimate(TransferReport(bytes_sent=number * 1_000_000), scan, 500_000, float(number))
        fractions.append(estimate.fraction or 0.0)
        estimator.settled(stored(1_000_000))
    end = estimator.estimate(TransferReport(bytes_sent=10_000_000), scan, 0, 10.0)
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[5] < 1.0
    assert (end.fraction, end.seconds_left) == (1.0, 0.0)


def test_more_than_was_counted_is_no_error() -> None:
    """Files may be added while they are sent."""
    estimator, scan = Estimator(), Counted(1, 10)
    for _ in range(3):
        estimator.settled(stored(1_000_000))
    estimate = estimator.estimate(TransferReport(bytes_sent=3_000_000), scan, 0, 1.0)
    assert (estimate.fraction, estimate.objects_total) == (1.0, 3)
