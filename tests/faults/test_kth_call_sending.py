"""Every call to the system on the way from a file to the wire fails once, for all k.

Whatever it was: each input has one outcome, what is stored has arrived whole, the others are not hurt, and nothing is
left open. The clock is virtual, so that what is tried again takes no time.
"""

from __future__ import annotations

import errno
import io
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from support.failing_calls import Error, FailingCalls, each_call, os_error
from trio_dicom import (
    ConnectionLost,
    CStoreOptions,
    CStoreSCU,
    InstanceReport,
    InvalidObject,
    Outcome,
    RetryPolicy,
    SenderOptions,
    TransferReport,
    open_sender,
    wrap_client_stream,
)
from trio_dicom.plain_nursery import open_plain_nursery
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.pdu import ReleaseRP, ReleaseRQ
from trio_dicom.sources import file as file_module
from trio_dicom.sources.part10 import parse_head
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import ScriptedPeer, SOPClass, encoded, make_instance_file, socket_pair_streams
from trio_dicom.testing.cancel_sweep import open_descriptors
from trio_dicom.testing.scripted_peer import GONE

FILE_CALLS = ("open", "fstat", "preadv", "pread", "read", "dup", "fdopen", "stat", "lstat", "scandir", "close")
OPTIONS = {"retry": RetryPolicy(base_delay=0.5), "store": CStoreOptions(timeout=10.0)}
LARGE = 40_000  # bytes of pixels: more than is read with the head
UIDS = {number: f"2.25.1000.{number}" for number in range(1, 6)}


class Archive:
    """What came whole, by SOP Instance UID, over one connection or more."""

    def __init__(self, streams: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]) -> None:
        self.stored: dict[str, bytes] = {}
        self._streams = streams
        self._nursery: trio.Nursery

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = self._streams()
        self._nursery.start_soon(self._serve, ScriptedPeer(theirs))
        return ours

    async def _serve(self, peer: ScriptedPeer) -> None:
        try:
            with suppress(*GONE, AssertionError):  # no further message
                await peer.accept()
                while True:
                    context_id, request, data_set = await peer.receive_message()
                    if isinstance(request, CStoreRQ):
                        self.stored[request.affected_sop_instance_uid] = data_set
                    await peer.answer(context_id, request)
            if peer.received.endswith(encoded(ReleaseRQ())):
                with suppress(*GONE):
                    await peer.send(ReleaseRP())
        finally:
            with trio.move_on_after(1, shield=True):
                await peer.close()

    def run(self, main: Callable[[], Any]) -> None:
        async def serve() -> None:
            stand_still.set(True)
            with trio.fail_after(3600):
                async with open_plain_nursery() as self._nursery:
                    await main()

        before = open_descriptors()
        trio.run(serve, clock=trio.testing.MockClock(autojump_threshold=0))
        assert open_descriptors() == before


def data_set_of(file: bytes) -> bytes:
    head = parse_head(file, at_end=True)
    assert head is not None
    return file[head.data_set_offset :]


class Sending:
    """A run of a sender, and whether what it tells is so."""

    def __init__(self, streams: Any = trio.testing.memory_stream_pair) -> None:
        self.archive = Archive(streams)
        self.reports: list[InstanceReport] = []
        self.report = TransferReport()
        self.failure: Exception | None = None

    def run(self, items: Any, **more: Any) -> None:
        async def main() -> None:
            options = SenderOptions(random=Random(1), **OPTIONS)
            more["connect"] = self.archive.connect
            async with (
                open_sender("PACS@host:104", associations=2, options=options, **more) as sender,
                sender.send_many(items) as reports,
            ):
                self.reports = [report async for report in reports]
            self.report = sender.report
            self.failure = sender.failure

        self.archive.run(main)

    def check(self, files: dict[str, bytes], why: object = "") -> None:
        """`files` by SOP Instance UID; reports may be of others, too, that are none."""
        assert self.report.inputs == len(self.reports) == sum(self.report.counts.values()), why
        assert self.report.pending == self.report.open_associations == 0, why
        for uid, data in self.archive.stored.items():
            assert data == data_set_of(files[uid]), why
        now = [report for report in self.reports if not report.is_earlier]
        stored = {report.sop_instance_uid for report in now if report.outcome is Outcome.STORED}
        in_doubt = {report.sop_instance_uid for report in now if report.outcome is Outcome.IN_DOUBT}
        assert stored <= self.archive.stored.keys() <= stored | in_doubt, why


def study(folder: Path, size: int) -> dict[str, bytes]:
    """Three files in a folder, and two in an archive beside it; by SOP Instance UID."""
    made = {UIDS[number]: make_instance_file(size, number=number) for number in UIDS}
    files = list(made.values())
    (folder / "study/inner").mkdir(parents=True)
    for name, file in zip(("study/1.dcm", "study/2.dcm", "study/inner/3.dcm"), files[:3], strict=True):
        (folder / name).write_bytes(file)
    with zipfile.ZipFile(folder / "more.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("4.dcm", files[3])
        archive.writestr("5.dcm", files[4])
    return made


@pytest.mark.fault_row(107)
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("size", [64, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("on_loop", [True, False], ids=["on the loop", "in threads"])
def test_reading_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_loop: bool, size: int, error: int) -> None:
    monkeypatch.setattr(file_module, "read_on_loop", on_loop and file_module.read_on_loop)
    files = study(tmp_path, size)
    found = set()
    for calls in each_call(os_error(error), only=within(tmp_path)):
        sending = Sending()
        with pytest.MonkeyPatch.context() as patch:
            calls.patch(patch, os, *FILE_CALLS)
            sending.run([tmp_path / "study", tmp_path / "more.zip"])
        sending.check(files, calls.failed)
        outcomes = [report.outcome for report in sending.reports]
        found.update((calls.failed, outcome) for outcome in outcomes)
        bad = [outcome for outcome in outcomes if outcome is not Outcome.STORED]
        assert bad in ([], [Outcome.INVALID], [Outcome.NOT_SENT]), calls.failed  # one call, one object at most
        if calls.failed is None:
            assert len(outcomes) == 5
    assert {("open", Outcome.STORED), ("preadv", Outcome.STORED), ("fstat", Outcome.STORED)} <= found


@pytest.mark.fault_row(44, 107)
@pytest.mark.parametrize("error", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT], ids=errno.errorcode.get)
def test_reading_and_writing_the_connection(error: int) -> None:
    """Over a socket with little room, so that there are many calls."""
    files = {UIDS[number]: make_instance_file(LARGE, number=number) for number in (1, 2)}
    outcomes = set()
    for calls in each_call(os_error(error), only=is_socket):
        sending = Sending(lambda: socket_pair_streams(send_buffer=4096))
        with pytest.MonkeyPatch.context() as patch:
            calls.patch(patch, os, "read", "writev")
            sending.run([io.BytesIO(file) for file in files.values()])
        sending.check(files, calls.failed)
        outcomes.update(report.outcome for report in sending.reports)
        assert calls.failed is None or sending.report.failed_associations <= 1
    assert outcomes == {Outcome.STORED}  # once more, over another association


@pytest.mark.parametrize("how", ["EAGAIN", "one byte"])
def test_a_connection_that_takes_or_gives_less_than_it_could(how: str) -> None:
    """Nothing is lost, nor sent twice."""
    files = {UIDS[number]: make_instance_file(LARGE, number=number) for number in (1, 2)}

    def less(real: Callable[..., Any], fd: int, what: Any) -> Any:
        return real(fd, 1) if isinstance(what, int) else real(fd, [next(memoryview(b) for b in what if len(b))[:1]])

    instead = less if how == "one byte" else None
    for calls in each_call(os_error(errno.EAGAIN), only=is_socket, instead=instead):
        sending = Sending(lambda: socket_pair_streams(send_buffer=4096))
        with pytest.MonkeyPatch.context() as patch:
            calls.patch(patch, os, "read", "writev")
            sending.run([io.BytesIO(file) for file in files.values()])
        sending.check(files, calls.failed)
        assert sending.report.counts == {Outcome.STORED: 2}
        assert sending.report.attempts == 2


def within(folder: Path) -> Callable[..., bool]:
    """Whether a call is about a file in `folder`."""
    readlink = os.readlink

    def is_within(subject: Any, *_: Any) -> bool:
        path = readlink(f"/proc/self/fd/{subject}") if isinstance(subject, int) else os.fspath(subject)
        return path.startswith(str(folder))

    return is_within


def is_socket(fd: int, *_: Any) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")


class FailingStream(trio.abc.Stream):
    """A stream of the caller's, each of whose methods may fail."""

    def __init__(self, stream: trio.abc.Stream, calls: FailingCalls) -> None:
        self._stream = stream
        for name in ("send_all", "receive_some", "wait_send_all_might_not_block", "aclose"):
            setattr(self, name, calls.counted_method(name, getattr(stream, name)))

    async def send_all(self, data: Any) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes: ...  # type: ignore[empty-body]
    async def wait_send_all_might_not_block(self) -> None: ...
    async def aclose(self) -> None: ...


@pytest.mark.fault_row(44)
@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError, os_error(errno.ECONNRESET)])
def test_a_stream_of_the_callers(error: Error) -> None:
    files = {UIDS[number]: make_instance_file(LARGE, number=number) for number in (1, 2)}
    for calls in each_call(error):
        sending = Sending()
        plain = sending.archive.connect

        async def connect(calls: FailingCalls = calls, plain: Any = plain) -> trio.abc.Stream:
            return FailingStream(await plain(), calls)

        sending.archive.connect = connect  # type: ignore[method-assign]
        sending.run([io.BytesIO(file) for file in files.values()])
        sending.check(files, calls.failed)
        assert sending.report.counts == {Outcome.STORED: 2}, calls.failed


class FailingFile(io.BytesIO):
    """A file object of the caller's, each of whose methods may fail."""

    def __init__(self, data: bytes, calls: FailingCalls) -> None:
        super().__init__(data)
        for name in ("read", "readinto", "seek", "tell", "seekable"):
            setattr(self, name, calls.counted(name, getattr(self, name)))


@pytest.mark.fault_row(115)
@pytest.mark.parametrize("size", [64, 3 << 20], ids=["small", "large"])
def test_a_file_object_of_the_callers(size: int) -> None:
    """Alone on an association: what had not begun leaves it usable."""
    file = make_instance_file(size)
    seen = set()
    for calls in each_call(os_error()):
        archive = Archive(trio.testing.memory_stream_pair)

        async def main(calls: FailingCalls = calls, archive: Archive = archive) -> None:
            async with open_plain_nursery() as nursery:
                association = await wrap_client_stream(nursery, await archive.connect(), [SOPClass.CT])
                scu, error = CStoreSCU(association), None
                try:
                    await scu.send(FailingFile(file, calls))
                except InvalidObject as failure:
                    error = failure
                assert (error is not None) is (calls.failed is not None and UIDS[1] not in archive.stored)
                seen.add((error is not None, association.is_open))
                if association.is_open:
                    await scu.send(io.BytesIO(make_instance_file(number=2)))
                    assert UIDS[2] in archive.stored
                await association.aclose()

        archive.run(main)
        assert archive.stored.get(UIDS[1], data_set_of(file)) == data_set_of(file)
    assert seen >= {(False, True), (True, True)}
    assert ((True, False) in seen) is (size > 1 << 20)


@pytest.mark.fault_row(44)
def test_settings_of_a_socket() -> None:
    """That a connection has gone may show first where it is tuned (macOS: EINVAL)."""
    for calls in each_call(os_error(errno.EINVAL)):

        async def main(calls: FailingCalls = calls) -> None:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with listener, trio.open_nursery() as nursery:
                ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
                nursery.start_soon(serve, await listener.accept())
                with pytest.MonkeyPatch.context() as patch:
                    calls.patch(patch, trio.SocketStream, "setsockopt")
                    try:
                        association = await wrap_client_stream(nursery, ours, [SOPClass.CT])
                        await association.aclose()
                    except ConnectionLost:
                        assert calls.failed
                assert ours.socket.fileno() == -1

        before = open_descriptors()
        trio.run(main)
        assert open_descriptors() == before


async def serve(stream: trio.abc.Stream) -> None:
    peer = ScriptedPeer(stream)
    await peer.serve()
    await peer.close()
