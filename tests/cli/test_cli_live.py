"""The live display, on a pseudo-terminal; and what is kept of very many inputs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from cli.command_line import start
from cli.conftest import Receiver
from trio_dicom.cli.exit_codes import ExitCode, Verdict, exit_code_of
from trio_dicom.cli.failures import MOST_GROUPS, NAMES_KEPT, FailureGroups
from trio_dicom.cli.live import UnderWay
from trio_dicom.cli.transfer_display import failure_lines, is_news, line_of
from trio_dicom.cli.wording import duration, size_of
from trio_dicom.errors import Retry
from trio_dicom.protocol.status import Status
from trio_dicom.sender.outcome import InstanceReport, Outcome
from trio_dicom.services.progress import TransferProgress
from trio_dicom.testing import ScriptedPeer, make_instance_file

Scripted = Callable[..., str]
Received = tuple[str, Receiver]

WITHIN = 20.0  # s


@attrs.define
class Terminal:
    """A pseudo-terminal, 100 columns wide, and what a process has shown on it."""

    ours: int
    theirs: int
    shown: bytes = b""

    def read(self) -> None:
        """All there is, until the process has gone."""
        while True:
            try:
                piece = os.read(self.ours, 65_536)
            except OSError:  # how Linux says that nobody is there any more
                return
            if not piece:
                return
            self.shown += piece

    @property
    def text(self) -> str:
        """Without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(*pty.openpty())
    fcntl.ioctl(terminal.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    yield terminal
    os.close(terminal.ours)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder of six objects, and four files that are none."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number in range(1, 7):
        (folder / f"{number}.dcm").write_bytes(make_instance_file(100_000, number=number))
    for number in range(4):
        (folder / f"text{number}").write_text("no object")
    return folder


async def slow(peer: ScriptedPeer) -> None:
    """Answers six objects, one of which it refuses, in two seconds."""
    await peer.accept()
    for number in range(6):
        context_id, request, _ = await peer.receive_message()
        await trio.sleep(0.35)
        await peer.answer(context_id, request, 0xC123 if number == 1 else 0)
    await peer.serve_requests()


def run_on(terminal: Terminal, *arguments: str | os.PathLike[str]) -> int:
    process = start(*arguments, stdout=terminal.theirs, stderr=terminal.theirs, env={"TERM": "xterm"})
    os.close(terminal.theirs)
    terminal.read()
    return process.wait(WITHIN)


def test_how_it_stands(scripted_peer: Scripted, study: Path, terminal: Terminal) -> None:
    assert run_on(terminal, "send", scripted_peer(slow), study) == 1
    frames = terminal.text
    assert b"\x1b[" in terminal.shown
    assert re.search(r"━ \d+ %\r\n", frames)
    assert re.search(
        r"[1-9] of 10 objects, [\d.]+ kB of 60\d.\d kB, [\d.]+ MB/s, [\d.]+ objects/s, [\d.]+ s left", frames
    )
    assert "1 association\r\n" in frames
    assert "refused C123 (Error: Cannot Understand): 1\r\n" in frames
    assert re.search(r"2\.25\.1000\.\d: \d+ % of 100\.\d kB", frames)
    # What stays is the end.
    *_, names, summary = frames.rpartition("invalid (not a DICOM file")
    lines = (names + summary).splitlines()
    assert lines[0].endswith("): 4")
    assert [line.strip() for line in lines[1:5]] == [
        str(study / "text0"),
        str(study / "text1"),
        str(study / "text2"),
        "and 1 more",
    ]
    assert lines[5] == "refused C123 (Error: Cannot Understand): 1"
    assert lines[6].strip().endswith(".dcm")
    assert lines[7].startswith("10 inputs: 5 stored, 1 refused, 4 invalid; 500.4 kB in ")
    assert terminal.shown.count(b"\x1b[?25l") == terminal.shown.count(b"\x1b[?25h") == 1  # the cursor


def test_what_is_over_soon_has_no_display(receiver: Received, study: Path, terminal: Terminal) -> None:
    assert run_on(terminal, "send", receiver[0], study / "1.dcm") == 0
    assert b"\x1b[" not in terminal.shown
    assert terminal.text.startswith("1 input: 1 stored; ")


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_without_it(scripted_peer: Scripted, study: Path, terminal: Terminal, option: str) -> None:
    assert run_on(terminal, "send", scripted_peer(slow), study, option) == 1
    assert b"\x1b[" not in terminal.shown


def test_a_terminal_that_was_stopped_keeps_nothing_from_its_work(
    scripted_peer: Scripted, study: Path, terminal: Terminal
) -> None:
    """Ctrl-S; or a connection to it that hangs."""
    is_served = threading.Event()

    async def script(peer: ScriptedPeer) -> None:
        await slow(peer)
        is_served.set()

    lines = termios.tcgetattr(terminal.theirs)
    process = start("send", scripted_peer(script), study, stdout=terminal.theirs, stderr=terminal.theirs)
    termios.tcflow(terminal.theirs, termios.TCOOFF)
    assert lines
    assert is_served.wait(WITHIN)
    assert process.wait(WITHIN) == 1
    os.close(terminal.theirs)


# --- what is kept, and what is made of it -----------------------------------------------------------------------------


def report(outcome: Outcome, **more: object) -> InstanceReport:
    return InstanceReport(path="a.dcm", outcome=outcome, **more)  # type: ignore[arg-type]


def test_of_many_failures_few_names_are_kept() -> None:
    groups = FailureGroups()
    for number in range(10_000):
        groups.add(Outcome.INVALID, None, f"element at byte {number} is broken", f"{number}")
    for number in range(MOST_GROUPS + 50):
        groups.add(Outcome.REFUSED, number, "refused", "x")
    first, *others = groups.largest_first()
    assert (first.inputs, first.names) == (10_000, ["0", "1", "2"][:NAMES_KEPT])
    assert len(others) == MOST_GROUPS - 1
    assert groups.others == 51
    assert list(failure_lines(groups))[-1] == f"for other reasons: {MOST_GROUPS + 50 - 19}"


def test_progress_that_a_failed_attempt_has_left_behind_is_let_go() -> None:
    under_way = UnderWay()
    for number in range(5):
        under_way.send_nowait(TransferProgress(f"1.{number}", 10, 100, 1.0))
    under_way.send_nowait(TransferProgress("1.0", 20, 100, 1.0))
    under_way.send_nowait(TransferProgress("1.4", 100, 100, 1.0, is_complete=True))
    under_way.drop("1.3")
    under_way.drop(None)
    assert [each.sop_instance_uid for each in under_way.latest(2)] == ["1.2", "1.0"]
    assert under_way.latest(0) == ()


@pytest.mark.parametrize(
    ("outcome", "attempts", "expected"),
    [
        (Outcome.STORED, 1, False),
        (Outcome.STORED_WITH_WARNING, 1, True),
        (Outcome.NOT_SENT, 0, False),
        (Outcome.NOT_SENT, 1, True),
        (Outcome.IN_DOUBT, 1, True),
        (Outcome.INVALID, 0, True),
        (Outcome.NO_CONTEXT, 0, True),
    ],
)
def test_what_is_news(outcome: Outcome, attempts: int, expected: bool) -> None:
    assert is_news(report(outcome, attempts=attempts)) is expected


def test_lines() -> None:
    refused = report(Outcome.REFUSED, status=Status(0xA700), reason="Refused: Out of Resources")
    assert line_of(refused) == "refused A700: a.dcm: Refused: Out of Resources"
    assert line_of(attrs.evolve(refused, is_earlier=True)).endswith(" (in an earlier run)")
    assert line_of(report(Outcome.INVALID, reason="x\n\x1b")) == "invalid: a.dcm: x\\n\\x1b"


STORED, INVALID = report(Outcome.STORED), report(Outcome.INVALID)
REFUSED, DOUBT = report(Outcome.REFUSED), report(Outcome.IN_DOUBT, retry=Retry.NEW_ASSOCIATION)
PRESENT, OURS = report(Outcome.ALREADY_PRESENT), report(Outcome.ALREADY_PRESENT, was_in_doubt=True)
NO_CONTEXT = report(Outcome.NO_CONTEXT, retry=Retry.AFTER_CONFIG)


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ((), ExitCode.NO_INPUT),
        ((INVALID, INVALID), ExitCode.NO_INPUT),
        ((STORED, report(Outcome.STORED_WITH_WARNING)), ExitCode.OK),
        ((STORED, INVALID), ExitCode.NOT_STORED),
        ((STORED, REFUSED), ExitCode.NOT_STORED),
        ((REFUSED, DOUBT, STORED), ExitCode.TRY_AGAIN),
        ((PRESENT,), ExitCode.NOT_STORED),
        ((OURS, STORED), ExitCode.OK),
        ((NO_CONTEXT, NO_CONTEXT, INVALID), ExitCode.REFUSED),
        ((NO_CONTEXT, STORED), ExitCode.NOT_STORED),
    ],
)
def test_exit_codes(reports: tuple[InstanceReport, ...], code: ExitCode) -> None:
    assert exit_code_of(reports) is code


def test_exit_codes_of_what_was_cut_off_or_refused() -> None:
    for reports, is_complete in ((STORED,), False), ((INVALID,), False):
        verdict = Verdict()
        for each in reports:
            verdict.add(each)
        assert verdict.exit_code(is_complete=is_complete) is ExitCode.TRY_AGAIN
    assert exit_code_of([report(Outcome.NOT_SENT)], is_peer_refusal=True) is ExitCode.REFUSED
    accepting = Verdict(accepts_present=True)
    accepting.add(PRESENT)
    assert accepting.exit_code() is ExitCode.OK


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MB"), (1, "0.0 kB"), (999_949, "999.9 kB"), (1_000_000, "1.0 MB"), (1_500_000_000, "1.50 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size_of(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (65, "1 min 5 s"), (3599.6, "1 h 0 min"), (7384, "2 h 3 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
