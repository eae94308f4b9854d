"""SIGINT and SIGTERM: the association ends in order, and every input is accounted for."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cli.command_line import finish, read_report, start
from trio_dicom.protocol.pdu import Abort
from trio_dicom.testing import ScriptedPeer, make_instance_file, whole_pdus

Scripted = Callable[..., str]

both = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])

WITHIN = 10.0  # s


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.dcm" for number in range(1, 5)]
    for number, path in enumerate(paths, 1):
        path.write_bytes(make_instance_file(1000, number=number))
    return paths


class Stalling:
    """A peer that answers the first `answered` objects, takes the next one, and keeps still."""

    def __init__(self, answered: int) -> None:
        self.stalls = threading.Event()
        self.ended = threading.Event()
        self.received = b""
        self._answered = answered

    async def __call__(self, peer: ScriptedPeer) -> None:
        try:
            await peer.accept()
            for _ in range(self._answered):
                context_id, request, _data_set = await peer.receive_message()
                await peer.answer(context_id, request)
            await peer.receive_message()
            self.stalls.set()
            await peer.hold()
            await peer.close()
        finally:
            self.received = bytes(peer.received)
            self.ended.set()


@both
def test_in_the_middle_of_a_transfer(
    scripted_peer: Scripted, files: list[Path], tmp_path: Path, number: int, code: int
) -> None:
    peer = Stalling(answered=2)
    report = tmp_path / "report"
    process = start("send", scripted_peer(peer), *files, "--report", report)
    assert peer.stalls.wait(WITHIN)
    process.send_signal(number)
    ended = finish(process)
    assert ended.code == code
    assert "Traceback" not in ended.err
    lines = read_report(report)
    assert [line["path"] for line in lines] == [str(path) for path in files]
    assert [line["outcome"] for line in lines] == ["stored", "stored", "in_doubt", "not_sent"]
    assert [line["attempts"] for line in lines] == [1, 1, 1, 0]
    assert {line["reason"] for line in lines[2:]} == {"interrupted"}
    assert ended.out.startswith("4 inputs: 2 stored, 1 in doubt, 1 not sent")
    assert peer.ended.wait(WITHIN)
    assert isinstance(whole_pdus(peer.received)[-1], Abort)


@both
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
    ended = finish(process)
    interrupted.set()
    assert ended.code == code
    assert [line["outcome"] for line in read_report(report)] == ["not_sent", "not_sent"]
    assert not any(pdv.is_last and not pdv.is_command for pdu in seen for pdv in getattr(pdu, "pdvs", ()))


@both
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


@both
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
