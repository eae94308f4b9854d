"""`trio-dicom send` of several objects to a storescp that aborts, refuses or sleeps: what it says, what is there."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from cli.command_line import CommandLine
from interop.peers import Storescp
from trio_dicom.testing import instance_uid, make_instance_file

pytestmark = pytest.mark.interop

Start = Callable[..., Any]

OBJECTS = 4


@pytest.fixture
def command_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(capfd, tmp_path / "report.ndjson")


@pytest.fixture
def study(tmp_path: Path) -> Callable[[int], Path]:
    """`study(size)` makes a folder of four objects with so many bytes of pixels."""

    def make(size: int) -> Path:
        folder = tmp_path / "study"
        folder.mkdir()
        for number in range(1, OBJECTS + 1):
            (folder / f"{number}.dcm").write_bytes(make_instance_file(size, number=number))
        return folder

    return make


@attrs.frozen
class Mode:
    """What storescp does, what is asked of us, and what must come of it."""

    peer: tuple[str, ...]
    outcomes: dict[str, int]
    code: int
    ours: tuple[str, ...] = ()
    attempts: int | None = None  # of each object
    size: int = 300_000
    said: str = ""
    failed: int | None = 0  # associations


AGAIN = ("--retry-delay", "0.05")
SMALL_PDUS = ("--max-pdu", "4096")
ALL_STORED, ALL_IN_DOUBT, NONE_SENT = {"stored": OBJECTS}, {"in_doubt": OBJECTS}, {"not_sent": OBJECTS}

MODES = {
    "aborts after": Mode(
        ("--abort-after",), ALL_IN_DOUBT, 75, AGAIN, 2, said="the peer aborted the association", failed=8
    ),
    "aborts after, once is enough": Mode(
        ("--abort-after",), ALL_IN_DOUBT, 75, (*AGAIN, "--retries", "0"), 1, said="the peer aborted", failed=4
    ),
    "aborts during": Mode(
        ("--abort-during", *SMALL_PDUS), ALL_IN_DOUBT, 75, AGAIN, 2, said="the peer aborted the association", failed=8
    ),
    "aborts during large ones": Mode(
        ("--abort-during", *SMALL_PDUS), NONE_SENT, 75, AGAIN, 2, 20_000_000, "the peer aborted", failed=8
    ),
    "refuses": Mode(("--refuse",), NONE_SENT, 69, (), 0, said="rejected the association permanently", failed=1),
    "sleeps after": Mode(("--sleep-after", "1"), ALL_STORED, 0, (), 1),
    "sleeps after, for too long": Mode(
        ("--sleep-after", "1"),
        ALL_STORED,
        0,
        (*AGAIN, "--timeout", "0.8"),
        None,
        said="no progress for 0.8 s",
        failed=None,
    ),
    "sleeps during": Mode(("--fork", "--sleep-during", "1"), ALL_STORED, 0, ("--associations", "4"), 1, size=1000),
}


def uids_by_outcome(report: list[dict[str, Any]]) -> dict[str, set[str]]:
    uids = collections.defaultdict(set)
    for line in report:
        uids[line["outcome"]].add(line["sop_instance_uid"])
    return uids


def check_disk(peer: Storescp, report: list[dict[str, Any]], study: Path) -> None:
    """What was reported as stored is there, and nothing else, but perhaps some of what is in doubt; all of it whole."""
    uids = uids_by_outcome(report)
    received = peer.received()
    assert uids["stored"] <= received.keys() <= uids["stored"] | uids["in_doubt"]
    files = {instance_uid(number): study / f"{number}.dcm" for number in range(1, OBJECTS + 1)}
    assert all(files[uid].read_bytes().endswith(received[uid]) for uid in uids["stored"])


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_modes(storescp: Start, command_line: CommandLine, study: Callable[[int], Path], mode: Mode) -> None:
    peer, folder = storescp(*mode.peer), study(mode.size)
    ended, report = command_line.send(peer.address, folder, *mode.ours, "--json")
    assert ended.code == mode.code, ended
    assert collections.Counter(line["outcome"] for line in report) == mode.outcomes
    assert len({line["path"] for line in report}) == OBJECTS
    if mode.attempts is not None:
        assert {line["attempts"] for line in report} == {mode.attempts}
    assert mode.said in ended.err + ended.out
    totals = json.loads(ended.out.splitlines()[-1])
    assert {outcome: count for outcome, count in totals["counts"].items() if count} == mode.outcomes
    assert totals["attempts"] == sum(line["attempts"] for line in report)
    assert totals["failed_associations"] == mode.failed or mode.failed is None
    check_disk(peer, report, folder)


@pytest.mark.parametrize("options", [("--abort-after",), ("--abort-during", *SMALL_PDUS)], ids=" ".join)
def test_several_associations_that_are_aborted(
    storescp: Start, command_line: CommandLine, study: Callable[[int], Path], options: tuple[str, ...]
) -> None:
    peer, folder = storescp("--fork", *options), study(300_000)
    ended, report = command_line.send(peer.address, folder, "--associations", "3", *AGAIN)
    assert ended.code == 75
    assert {line["outcome"] for line in report} == {"in_doubt"}
    check_disk(peer, report, folder)


def test_a_peer_that_is_too_slow_ends_with_the_deadline(
    storescp: Start, command_line: CommandLine, study: Callable[[int], Path]
) -> None:
    peer, folder = storescp("--sleep-during", "2", *SMALL_PDUS), study(300_000)
    ended, report = command_line.send(peer.address, folder, "--timeout", "0.5", "--deadline", "3", *AGAIN)
    assert ended.code == 75
    assert "the deadline of 3 s has passed" in ended.err
    assert {line["outcome"] for line in report} == {"in_doubt", "not_sent"}
    assert len(report) == OBJECTS
    check_disk(peer, report, folder)
