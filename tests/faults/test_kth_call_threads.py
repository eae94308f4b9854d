"""The system gives no further thread, once, for all k, or never: what needs one is done where the event loop is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from support.failing_calls import FailingCalls, each_call
from support.fake_instance import names
from trio_dicom import InstanceFolder, Outcome, StorageSCP, TrioDicomError, open_sender, wrap_server_stream
from trio_dicom.plain_nursery import open_plain_nursery
from trio_dicom.sources import file as file_module
from trio_dicom.sources.threads import run_abandonable
from trio_dicom.testing import make_instance_file
from trio_dicom.testing.cancel_sweep import open_descriptors

SIZES = {1: 64, 2: 300_000}


def no_thread(name: str) -> Exception:
    return RuntimeError("can't start new thread")


@asynccontextmanager
async def receiver(folder: Path) -> AsyncIterator[Any]:
    """What connects to one that files in `folder`."""

    async def serve(stream: trio.abc.Stream) -> None:
        try:
            await wrap_server_stream(nursery, stream, StorageSCP(InstanceFolder(folder)))
        except TrioDicomError:
            pass

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(serve, theirs)
        return ours

    async with open_plain_nursery() as nursery:
        yield connect
        nursery.cancel_scope.deadline = trio.current_time() + 5


async def send(files: Path, to: Path, ledger: Path) -> dict[Outcome, int]:
    async with receiver(to) as connect:
        async with (
            open_sender("PACS@host:104", associations=1, ledger=ledger, connect=connect) as sender,
            sender.send_tree(files) as reports,
        ):
            async for _ in reports:
                pass
        assert sender.failure is None
    return dict(sender.report.counts)


@pytest.mark.fault_row(107)
def test_the_kth_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "read_on_loop", False)
    files = tmp_path / "files"
    files.mkdir()
    for number, size in SIZES.items():
        (files / f"{number}.dcm").write_bytes(make_instance_file(size, number=number))
    before = open_descriptors()
    for number, calls in enumerate(each_call(no_thread)):
        root = tmp_path / str(number)
        root.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch_threads(calls, patch)
            counts = trio.run(send, files, root / "received", root / "run.db")
        assert counts == {Outcome.STORED: 2}, calls.made
        assert names(root / "received") == ["2.25.1000.1.dcm", "2.25.1000.2.dcm"]
        assert open_descriptors() == before
    assert number > 5


def patch_threads(calls: FailingCalls, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trio.to_thread, "run_sync", calls.counted_method("run_sync", trio.to_thread.run_sync))
    calls.patch(patch, trio.lowlevel, "start_thread_soon")


async def test_an_error_of_what_ran_in_a_thread_is_its_own() -> None:
    """It is not done a second time."""
    done = []

    def fail() -> None:
        done.append(1)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await run_abandonable(fail)
    assert done == [1]


async def test_where_a_thread_is_needed_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_threads(FailingCalls(0, no_thread), monkeypatch)
    with pytest.raises(RuntimeError, match="can't start"):
        await run_abandonable(len, "abc", needs_thread=True)
    patch_threads(FailingCalls(0, no_thread), monkeypatch)
    assert await run_abandonable(len, "abc") == 3
