"""Signals: the first lets what is under way come to its end, the second cuts it off; every input is accounted for."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cli.command_line import ROOT, finish, read_report, start
from trio_dicom.protocol.pdu import Abort, ReleaseRP, ReleaseRQ
from trio_dicom.testing import ScriptedPeer, make_instance_file, whole_pdus

Scripted = Callable[..., str]

each = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])

WITHIN = 10.0  # s


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.dcm" for number in range(1, 5)]
    for number, path in enumerate(paths, 1):
        path.write_bytes(make_instance_file(1000, number=number))
    return paths


class Stalling:
    """A peer that answers the first `answered` objects, takes the next one, and keeps still until it may go on."""

    def __init__(self, answered: int) -> None:
        self.stalls = threading.Event()
        self.may_go_on = threading.Event()
        self.ended = threading.Event()
        self.received = b""
        self._answered = answered
        self._answered_last = trio.Event()

    async def __call__(self, peer: ScriptedPeer) -> None:
        try:
            await peer.accept()
            for _ in range(self._answered):
                context_id, request, _data_set = await peer.receive_message()
                await peer.answer(context_id, request)
            context_id, request, _data_set = await peer.receive_message()
            self.stalls.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer, peer, context_id, request)
                pdu = await peer.receive_pdu()
                if isinstance(pdu, ReleaseRQ):
                    await self._answered_last.wait()
                    await peer.send(ReleaseRP())
                nursery.cancel_scope.cancel()
        finally:
            self.received = bytes(peer.received)
            self.ended.set()

    async def _answer(self, peer: ScriptedPeer, context_id: int, request: Any) -> None:
        await trio.to_thread.run_sync(self.may_go_on.wait, WITHIN, abandon_on_cancel=True)
        if self.may_go_on.is_set():
            await peer.answer(context_id, request)
            self._answered_last.set()


def by_path(report: Path) -> dict[str, tuple[str, int]]:
    return {line["path"]: (line["outcome"], line["attempts"]) for line in read_report(report)}


def expect_line(process: subprocess.Popen[str], text: str) -> None:
    """Read standard error up to a line that has it."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"{text!r} was not said")


@each
def test_the_first_lets_what_is_under_way_come_to_its_end(
    scripted_peer: Scripted, files: list[Path], tmp_path: Path, number: int, code: int
) -> None:
    peer = Stalling(answered=2)
    report = tmp_path / "report"
    process = start("send", scripted_peer(peer), *files, "--report", report)
    assert peer.stalls.wait(WITHIN)
    process.send_signal(number)
    expect_line(process, "trio-dicom: finishing 1 object; once more stops at once")
    peer.may_go_on.set()
    ended = finish(process)
    assert (ended.code, ended.err) == (code, "")
    ends = [("stored", 1), ("stored", 1), ("stored", 1), ("not_sent", 0)]
    assert by_path(report) == dict(zip(map(str, files), ends, strict=True))
    assert ended.out.startswith("4 inputs: 3 stored, 1 not sent")
    assert peer.ended.wait(WITHIN)
    assert isinstance(whole_pdus(peer.received)[-1], ReleaseRQ)


@each
def test_the_second_cuts_it_off(
    scripted_peer: Scripted, files: list[Path], tmp_path: Path, number: int, code: int
) -> None:
    peer = Stalling(answered=2)
    report = tmp_path / "report"
    process = start("send", scripted_peer(peer), *files, "--report", report)
    assert peer.stalls.wait(WITHIN)
    process.send_signal(number)
    expect_line(process, "once more stops at once")
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert f"in doubt: {files[2]}: " in ended.err
    ends = [("stored", 1), ("stored", 1), ("in_doubt", 1), ("not_sent", 0)]
    assert by_path(report) == dict(zip(map(str, files), ends, strict=True))
    assert ended.out.startswith("4 inputs: 2 stored, 1 not sent, 1 in doubt")
    assert peer.ended.wait(WITHIN)
    assert isinstance(whole_pdus(peer.received)[-1], Abort)


def test_what_does_not_come_to_its_end_is_cut_off_in_the_end(
    scripted_peer: Scripted, files: list[Path], tmp_path: Path
) -> None:
    peer = Stalling(answered=0)
    report = tmp_path / "report"
    process = start("send", scripted_peer(peer), *files, "--report", report, "--drain", "0.2")
    assert peer.stalls.wait(WITHIN)
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    assert [outcome for outcome, _ in by_path(report).values()].count("in_doubt") == 1


def test_signals_that_are_ignored_stay_so(scripted_peer: Scripted, files: list[Path]) -> None:
    """As `nohup` has SIGHUP, and a shell SIGINT for what it runs in the background."""
    peer = Stalling(answered=0)
    ignore = "import os, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)]; "
    program = ignore + "os.execv(sys.executable, [sys.executable, '-m', 'trio_dicom', *sys.argv[1:]])"
    command = [sys.executable, "-c", program, "send", scripted_peer(peer), str(files[0])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert peer.stalls.wait(WITHIN)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    peer.may_go_on.set()
    ended = finish(process)
    assert (ended.code, ended.err) == (0, "")


@each
def test_in_the_middle_of_an_object(
    scripted_peer: Scripted, files: list[Path], tmp_path: Path, number: int, code: int
) -> None:
    """The peer does not read on: whatever it reads later is no complete object."""
    large = tmp_path / "large.dcm"
    large.write_bytes(make_instance_file(64 << 20))
    begun, interrupted = threading.Event(), threading.Event()
    seen: list[Any] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_command()
        begun.set()
        await trio.to_thread.run_sync(interrupted.wait, WITHIN)
        try:
            while (pdu := await peer.receive_pdu()) is not None:
                seen.append(pdu)
        except trio.BrokenResourceError:
            pass

    report = tmp_path / "report"
    process = start("send", scripted_peer(script), large, files[0], "--report", report)
    assert begun.wait(WITHIN)
    process.send_signal(number)
    expect_line(process, "finishing 1 object")
    process.send_signal(number)
    ended = finish(process)
    interrupted.set()
    assert ended.code == code
    assert [line["outcome"] for line in read_report(report)] == ["not_sent", "not_sent"]
    assert not any(pdv.is_last and not pdv.is_command for pdu in seen for pdv in getattr(pdu, "pdvs", ()))


@each
def test_while_the_association_is_awaited(
    scripted_peer: Scripted, files: list[Path], tmp_path: Path, number: int, code: int
) -> None:
    asked = threading.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.receive_pdu()
        asked.set()
        await peer.hold()
        await peer.close()

    address = scripted_peer(script)
    report = tmp_path / "report"
    process = start("send", address, *files, "--report", report)
    assert asked.wait(WITHIN)
    process.send_signal(number)
    assert finish(process).code == code
    assert [line["outcome"] for line in read_report(report)] == ["not_sent"] * 4
    asked.clear()
    process = start("echo", address)
    assert asked.wait(WITHIN)
    process.send_signal(number)
    ended = finish(process)
    assert (ended.code, ended.out, ended.err) == (code, "", "")


@each
def test_while_standard_input_is_awaited(tmp_path: Path, number: int, code: int) -> None:
    reading, writing = os.pipe()
    report = tmp_path / "report"
    process = start("send", "NOBODY@127.0.0.1:1", "-", "--report", report, stdin=reading)
    os.close(reading)
    os.write(writing, bytes(128) + b"DICM" + bytes(2))
    wait_until_read(writing)
    process.send_signal(number)
    ended = finish(process)
    os.close(writing)
    assert ended.code == code
    assert "Fatal" not in ended.err
    assert [line["outcome"] for line in read_report(report)] == ["not_sent"]


def wait_until_read(pipe: int) -> None:
    """Until the other side has taken all that is in `pipe`."""
    left = array.array("i", [1])
    deadline = time.monotonic() + WITHIN
    while left[0] and time.monotonic() < deadline:
        fcntl.ioctl(pipe, termios.FIONREAD, left)
        os.sched_yield()
    assert not left[0]
