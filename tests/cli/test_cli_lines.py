"""Lines of output: whole ones, and never waited for by a receiver."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

from cli.command_line import CommandLine, start
from cli.receiving import WITHIN
from trio_dicom.cli import line_queue, transfer_display
from trio_dicom.cli.arrival_display import ArrivalDisplay
from trio_dicom.cli.display import print_line
from trio_dicom.cli.line_queue import LineQueue
from trio_dicom.sender.outcome import InstanceReport, Outcome
from trio_dicom.testing import make_instance_file


class Writes(io.StringIO):
    """Keeps what it is given apart."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Writes()
    monkeypatch.setattr(sys, "stdout", out)
    print_line("a line")
    assert out.pieces == ["a line\n"]


class Reader:
    """In place of standard output; it reads when it is told to."""

    def __init__(self) -> None:
        self.has_begun, self.may_read = threading.Event(), threading.Event()
        self.read: list[str] = []

    def write_at_once(self, text: str, *, to_errors: bool) -> None:
        self.has_begun.set()
        assert self.may_read.wait(WITHIN)
        self.read.append(text)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader()
    monkeypatch.setattr(line_queue, "write_at_once", reader.write_at_once)
    return reader


def test_a_slow_reader_gets_all_there_is_room_for(reader: Reader) -> None:
    lines = LineQueue(most=2)
    lines.put("under way")
    assert reader.has_begun.wait(WITHIN)
    for number in range(4):
        lines.put(f"{number}")
    lines.put("the last", always=True)
    assert lines.dropped == 2
    reader.may_read.set()
    lines.close(WITHIN)
    assert reader.read == ["under way\n", "0\n", "1\n", "the last\n"]


def test_a_reader_that_does_not_read_is_not_waited_for(reader: Reader) -> None:
    lines = LineQueue()
    lines.put("a line")
    assert reader.has_begun.wait(WITHIN)
    lines.close(0)
    assert reader.read == []
    reader.may_read.set()


def test_what_was_dropped_is_told(reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(line_queue.LineQueue.__init__, "__defaults__", (1,))
    display = ArrivalDisplay(tmp_path)
    display.say("under way")
    assert reader.has_begun.wait(WITHIN)
    for _ in range(3):
        display.say("a line")
    display.summarise()
    reader.may_read.set()
    display.close()
    assert reader.read[-1] == "0 objects; 2 lines dropped, since nobody read them\n"


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(1 << 12))
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


def test_output_that_is_stuck_does_not_keep_it_from_its_work(command_line: CommandLine, tmp_path: Path) -> None:
    file, folder = tmp_path / "object.dcm", tmp_path / "incoming"
    file.write_bytes(make_instance_file())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    reading, writing = full_pipe()
    process = start("receive", "--port", str(port), "--output", folder, stdout=writing)
    try:
        deadline = time.monotonic() + WITHIN
        while command_line("send", f"PEER@127.0.0.1:{port}", "--timeout", "2", file).code != 0:  # not yet
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
        os.close(reading)
        os.close(writing)
    assert os.listdir(folder) == ["2.25.1000.1.dcm"]


def test_room_is_waited_for(reader: Reader) -> None:
    lines = LineQueue(most=1)
    lines.put("under way")
    assert reader.has_begun.wait(WITHIN)
    for number in range(5):
        lines.put(f"{number}", always=True)
    waiting = threading.Thread(target=lines.wait_room, args=(2,))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert (lines.backlog, lines.dropped) == (5, 0)
    reader.may_read.set()
    waiting.join(WITHIN)
    assert not waiting.is_alive()
    lines.close(WITHIN)
    assert len(reader.read) == 6


async def test_json_lines_wait_for_their_reader(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_display, "MOST_AHEAD", 20)
    monkeypatch.setattr(transfer_display, "ENOUGH_READ", 10)
    display = transfer_display.JSONDisplay()
    report = InstanceReport(path="a.dcm", outcome=Outcome.STORED)
    display.settled(report)
    assert reader.has_begun.wait(WITHIN)
    settled = 1
    with trio.move_on_after(0.2):
        while True:
            display.settled(report)
            settled += 1
            await display.wait_room()
    assert settled == 22  # of which one is being written
    reader.may_read.set()
    with trio.fail_after(WITHIN):
        await display.wait_room()
    assert display.close() is None
    assert len(reader.read) == settled


@pytest.mark.parametrize(("error", "is_failure"), [(OSError(28, "full"), True), (BrokenPipeError(), False)])
def test_what_could_not_be_written_is_known(monkeypatch: pytest.MonkeyPatch, error: OSError, is_failure: bool) -> None:
    monkeypatch.setattr(line_queue, "write_at_once", lambda text, *, to_errors: error)
    lines = LineQueue()
    lines.put("to errors", to_errors=True)
    lines.close(WITHIN)
    assert lines.failure is None
    lines = LineQueue()
    lines.put("a line")
    lines.close(WITHIN)
    assert (lines.failure is error) is is_failure
