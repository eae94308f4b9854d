"""What the options of `trio-dicom send` do: associations, ledger, deadline, rate, JSON, dry run and others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cli.command_line import ROOT, CommandLine, finish, read_report, start
from cli.conftest import Receiver, answering
from trio_dicom.cli.quantities import bytes_per_second
from trio_dicom.protocol.pdu import Abort, AssociateRQ
from trio_dicom.protocol.user_information import AsynchronousOperationsWindow
from trio_dicom.sender.ledger_lock import LedgerLock
from trio_dicom.testing import ScriptedPeer, make_instance_file

Scripted = Callable[..., str]
Received = tuple[str, Receiver]

SOON = ("--retry-delay", "0.01")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder of six objects."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number in range(1, 7):
        (folder / f"{number}.dcm").write_bytes(make_instance_file(1000 * number, number=number))
    return folder


async def lose(peer: ScriptedPeer) -> None:
    """A peer that aborts when it has an object."""
    await peer.accept()
    await peer.receive_message()
    await peer.send(Abort(2, 0))


# --- how they are sent ------------------------------------------------------------------------------------------------


class Gate:
    """A peer that answers nobody before `wanted` objects have come, on one association or on as many."""

    def __init__(self, wanted: int, window: int | None = None) -> None:
        self.requests: list[AssociateRQ] = []
        self._wanted = wanted
        self._window = window
        self._came = 0
        self._all_came = trio.Event()

    async def __call__(self, peer: ScriptedPeer) -> None:
        self.requests.append(await peer.accept(window=self._window))
        messages = [await peer.receive_message() for _ in range(self._window or 1)]
        self._came += len(messages)
        if self._came == self._wanted:
            self._all_came.set()
        await self._all_came.wait()
        for context_id, request, _ in messages:
            await peer.answer(context_id, request)
        await peer.serve_requests()


def test_one_association_unless_more_are_wanted(
    command_line: CommandLine, scripted_peer: Scripted, study: Path
) -> None:
    for options, associations in (((), 1), (("--associations", "3"), 3)):
        gate = Gate(associations)
        ended, report = command_line.send(scripted_peer(gate), study, *options)
        assert ended.code == 0
        assert len(gate.requests) == associations
        assert f"{associations} association" in ended.out
        assert len(report) == 6


def test_a_window_is_proposed(command_line: CommandLine, scripted_peer: Scripted, study: Path) -> None:
    gate = Gate(4, window=4)
    paths = [study / f"{number}.dcm" for number in range(1, 5)]
    assert command_line.send(scripted_peer(gate), *paths, "--window", "4")[0].code == 0
    assert AsynchronousOperationsWindow(4, 1) in gate.requests[0].user_information


@pytest.mark.parametrize(("text", "rate"), [("500", 500), ("2k", 2e3), ("1.5M", 1.5e6), ("3G", 3e9), ("1e3", 1e3)])
def test_rates(text: str, rate: float) -> None:
    assert bytes_per_second(text) == rate


@pytest.mark.parametrize("text", ["", "M", "0", "-1k", "1T", "1 MB", "nan", "inf", "infG", "1kk"])
def test_rates_that_are_none(command_line: CommandLine, text: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        bytes_per_second(text)
    assert command_line("send", "PACS@127.0.0.1:1", "x.dcm", f"--max-rate={text}").code == 2


def test_a_rate_is_kept(command_line: CommandLine, receiver: Received, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(make_instance_file(400_000))
    begin = time.monotonic()
    assert command_line.send(receiver[0], path, "--max-rate", "1M")[0].code == 0
    assert time.monotonic() - begin > 0.14  # a quarter of a second goes at once


def test_a_deadline(command_line: CommandLine, scripted_peer: Scripted, study: Path) -> None:
    ended, report = command_line.send(scripted_peer(answering(0, 0)), study, "--deadline", "0.7")
    assert ended.code == 75
    assert [line["outcome"] for line in report].count("stored") == 2
    assert [line["outcome"] for line in report].count("in_doubt") == 1
    assert "trio-dicom: the deadline of 0.7 s has passed\n" in ended.err


def test_a_deadline_with_a_peer_that_says_nothing(
    command_line: CommandLine, scripted_peer: Scripted, study: Path
) -> None:
    silent = scripted_peer(ScriptedPeer.hold)
    ended, report = command_line.send(silent, study, "--deadline", "0.7")
    assert ended.code == 75
    assert {line["outcome"] for line in report} == {"not_sent"}
    assert f"the deadline of 0.7 s has passed before there was an association with {silent}\n" in ended.err


def test_a_deadline_that_is_kept_says_nothing(command_line: CommandLine, receiver: Received, study: Path) -> None:
    ended, _ = command_line.send(receiver[0], study, "--deadline", "30")
    assert (ended.code, ended.err) == (0, "")


def test_after_a_deadline_all_is_reported_and_what_was_not_read_is_told(
    command_line: CommandLine, scripted_peer: Scripted, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    data = make_instance_file(number=1)
    for number in range(300):
        (folder / f"{number:03}").write_bytes(data)
    ended, report = command_line.send(scripted_peer(answering(0)), folder, "--deadline", "0.7")
    assert ended.code == 75
    assert f"trio-dicom: not looked through to its end: {folder}" in ended.err
    assert report[-1]["path"] == str(folder)
    assert len(ended.err.splitlines()) < 10  # not a line for each


def test_a_ledger(command_line: CommandLine, scripted_peer: Scripted, receiver: Received, study: Path) -> None:
    ledger = study / "run.db"  # which is no input, though it lies there
    address, peer = receiver
    options = ("--ledger", ledger, "--retries", "0", *SOON)
    ended, report = command_line.send(address, study, *options)
    assert ended.code == 0
    assert len(report) == 6
    (study / "7.dcm").write_bytes(make_instance_file(number=7))
    (study / "8.txt").write_text("no object")
    ended, report = command_line.send(address, study, *options)
    assert ended.code == 1
    assert "8 inputs: 7 stored, 1 invalid (6 in an earlier run)" in ended.out
    assert [line["earlier"] for line in report].count(True) == 6
    assert len(peer.stored) == 7
    ended, _ = command_line.send(address, study, *options)
    assert "in an earlier run" in ended.out
    assert ended.code == 1


def test_a_ledger_that_cannot_be_used(command_line: CommandLine, receiver: Received, study: Path) -> None:
    other = study / "1.dcm"
    before = other.read_bytes()
    ended = command_line("send", receiver[0], study, "--ledger", other)
    assert ended.code == 2
    assert ended.err.startswith("trio-dicom: ledger ")
    assert other.read_bytes() == before
    assert receiver[1].stored == []


def test_a_ledger_that_another_run_is_writing(command_line: CommandLine, receiver: Received, study: Path) -> None:
    ledger = study / "run.db"
    lock = LedgerLock(str(ledger))
    assert lock.acquire()
    try:
        ended = command_line("send", receiver[0], study, "--ledger", ledger)
    finally:
        lock.release()
    assert ended.err == f"trio-dicom: ledger {ledger}: another run is writing it\n"
    assert ended.code == 75
    assert receiver[1].stored == []


def test_the_same_instance(command_line: CommandLine, receiver: Received, study: Path) -> None:
    (study / "again.dcm").write_bytes((study / "1.dcm").read_bytes())
    ended, _ = command_line.send(receiver[0], study)
    assert ended.code == 0
    assert len(receiver[1].stored) == 7
    ended, report = command_line.send(receiver[0], study, "--same-instance", "skip")
    assert ended.code == 0
    assert len(receiver[1].stored) == 7 + 6
    assert sum(line["attempts"] for line in report) == 6


def test_what_is_present_may_count_as_stored(command_line: CommandLine, scripted_peer: Scripted, study: Path) -> None:
    path = study / "1.dcm"
    for options, code in (((), 1), (("--accept-present",), 0)):
        ended, (line,) = command_line.send(scripted_peer(answering(0x0111)), path, *options)
        assert (ended.code, line["outcome"]) == (code, "already_present")


def test_what_is_present_after_a_doubt_counts_as_stored(
    command_line: CommandLine, scripted_peer: Scripted, study: Path
) -> None:
    ended, (line,) = command_line.send(scripted_peer(lose, answering(0x0111)), study / "1.dcm", *SOON)
    assert (ended.code, line["outcome"], line["was_in_doubt"]) == (0, "already_present", True)


def test_transcoding(command_line: CommandLine, receiver: Received, study: Path) -> None:
    implicit = "1.2.840.10008.1.2"
    ended, report = command_line.send(receiver[0], study, "--transcode", implicit)
    assert ended.code == 0, ended
    assert {line["transfer_syntax_uid"] for line in report} == {implicit}
    ended = command_line("send", receiver[0], study, "--transcode", "1.2.840.10008.1.2.4.50")
    assert ended.code == 2
    assert "is lossy, or may be" in ended.err


def test_an_archive_stands_for_what_is_in_it(
    command_line: CommandLine, receiver: Received, study: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(study.iterdir()):
            file.write(path, path.name)
    ended, report = command_line.send(receiver[0], archive)
    assert ended.code == 0
    assert [line["path"] for line in report] == [f"{archive}!{number}.dcm" for number in range(1, 7)]
    assert len(receiver[1].stored) == 6


def test_a_file_that_is_called_as_streams_are(
    receiver: Received, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "1.dcm").rename(study / "stream")
    report = tmp_path / "report"
    with (study / "2.dcm").open("rb") as stdin:
        ended = finish(start("send", receiver[0], "stream", "-", "--report", report, cwd=study, stdin=stdin))
    assert ended.code == 0, ended
    assert [line["path"] for line in read_report(report)] == ["./stream", "-"]


def test_standard_input_that_is_closed(nobody: str) -> None:
    command = f"exec {sys.executable} -m trio_dicom send {nobody} - <&-"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 2
    assert "standard input cannot be read" in ended.stderr


# --- what is said -----------------------------------------------------------------------------------------------------


def test_json(command_line: CommandLine, receiver: Received, study: Path) -> None:
    (study / "text").write_text("no object")
    ended, report = command_line.send(receiver[0], study, "--json")
    assert (ended.code, ended.err) == (1, "")
    *lines, totals = map(json.loads, ended.out.splitlines())
    assert lines == report
    assert len(lines) == 7
    seconds, rate = totals.pop("seconds"), totals.pop("bytes_per_second")
    assert totals == {
        "count": 7,
        "counts": {
            "stored": 6,
            "stored_with_warning": 0,
            "already_present": 0,
            "refused": 0,
            "invalid": 1,
            "no_context": 0,
            "not_sent": 0,
            "in_doubt": 0,
        },
        "delivered": 6,
        "earlier": 0,
        "is_complete": True,
        "bytes_sent": sum(line["bytes"] for line in lines),
        "bytes_stored": sum(line["bytes"] for line in lines),
        "attempts": 6,
        "retries": 0,
        "associations": 1,
        "failed_associations": 0,
        "failure": None,
        "exit_code": 1,
    }
    assert rate == pytest.approx(totals["bytes_stored"] / seconds, rel=0.1)


def test_json_of_a_peer_that_is_not_there(command_line: CommandLine, nobody: str, study: Path) -> None:
    ended = command_line("send", nobody, study, "--json")
    *lines, totals = map(json.loads, ended.out.splitlines())
    assert ended.code == totals["exit_code"] == 75
    assert "Connection refused" in totals["failure"]
    assert {line["retry"] for line in lines} == {"later"}


def test_json_that_nobody_reads_is_waited_for_and_whole(
    receiver: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe holds 64 KiB: more lines than that, and a reader that takes its time."""
    data = make_instance_file()
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number:03}-{'x' * 200}").write_bytes(data)
    process = start("send", receiver[0], folder, "--json")
    deadline = time.monotonic() + 20
    while len(receiver[1].stored) < 400 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.stdout is not None
    with pytest.raises(subprocess.TimeoutExpired):  # it does not end before all was read
        process.wait(1.5)
    ended = finish(process)
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 401


def test_json_on_a_full_disk_is_said(receiver: Received, study: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with open("/dev/full", "w") as full:
        ended = finish(start("send", receiver[0], study, "--json", stdout=full))
    assert ended.code == 1
    assert "the output is incomplete: No space left on device" in ended.err


def test_a_line_about_the_progress_now_and_then(
    command_line: CommandLine, scripted_peer: Scripted, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_dicom.cli.transfer_display.SCAN_AFTER", 0.1)
    monkeypatch.setattr("trio_dicom.cli.transfer_display.PROGRESS_EVERY", 0.3)

    async def slow(peer: ScriptedPeer) -> None:
        await peer.accept()
        for _ in range(6):
            context_id, request, _ = await peer.receive_message()
            await trio.sleep(0.2)
            await peer.answer(context_id, request)

    ended, _ = command_line.send(scripted_peer(slow), study)
    assert ended.code == 0
    lines = ended.err.splitlines()
    assert 2 <= len(lines) <= 4
    assert lines[0].startswith(("0 of 6 objects, ", "1 of 6 objects, "))
    assert all(line.endswith("; 1 association") for line in lines)
    assert command_line("send", scripted_peer(slow), study, "--quiet").err == ""


def test_how_associations_end_is_said_while_it_goes_on(
    command_line: CommandLine, scripted_peer: Scripted, study: Path
) -> None:
    ended, _ = command_line.send(scripted_peer(lose, ScriptedPeer.serve), study, *SOON)
    assert ended.code == 0
    assert "trio-dicom: association with PEER@127.0.0.1" in ended.err
    assert command_line("send", scripted_peer(lose, ScriptedPeer.serve), study, *SOON, "--quiet").err == ""


# --- dry run ----------------------------------------------------------------------------------------------------------


def test_a_dry_run(command_line: CommandLine, nobody: str, study: Path, tmp_path: Path) -> None:
    (study / "7").write_bytes(make_instance_file(5000, sop_class="1.2.840.10008.5.1.4.1.1.4", number=7))
    (study / "8").write_bytes(make_instance_file(5000, sop_class="1.2.3.4", number=8))
    (study / "text").write_text("no object")
    ended = command_line("send", nobody, study, "--dry-run")
    assert ended.code == 1
    *kinds, last = ended.out.splitlines()
    assert kinds[0] == "1.2.3.4 in Explicit VR Little Endian (1.2.840.10008.1.2.1): 1 object, 5.1 kB"
    assert kinds[1].startswith("CT Image Storage (1.2.840.10008.5.1.4.1.1.2) in Explicit VR Little Endian (")
    assert kinds[1].endswith(": 6 objects, 21.5 kB")
    assert kinds[2].startswith("MR Image Storage (1.2.840.10008.5.1.4.1.1.4) in ")
    assert "8 objects" in last
    assert "over at least 1 association with 6 presentation contexts; 1 input invalid; nothing was sent" in last
    assert ended.err.startswith(f"invalid: {study / 'text'}: not a DICOM file")


def test_a_dry_run_in_json(command_line: CommandLine, nobody: str, tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"{number:03}").write_bytes(make_instance_file(sop_class=f"1.2.3.{number}", number=number + 1))
    for name in ("x", "y"):
        (tmp_path / name).write_text("no object")
    ended = command_line("send", nobody, tmp_path, "--dry-run", "--json")
    plan: dict[str, Any] = json.loads(ended.out)
    assert (ended.code, ended.err) == (1, "")
    assert [each["path"] for each in plan["invalid"]] == [str(tmp_path / "x"), str(tmp_path / "y")]
    assert (plan["associations"], plan["proposed_contexts"]) == (3, [128, 128, 44])
    assert (plan["objects"], plan["invalid_count"], plan["exit_code"]) == (150, 2, 1)
    assert len(plan["contexts"]) == 150
    assert plan["contexts"][0]["abstract_syntax"] is None
    assert plan["contexts"][0]["transfer_syntax"] == "Explicit VR Little Endian"
    assert plan["bytes"] == sum(each["bytes"] for each in plan["contexts"])


def test_dry_runs_of_other_things(command_line: CommandLine, nobody: str, study: Path, tmp_path: Path) -> None:
    assert command_line("send", nobody, study, "--dry-run").code == 0
    assert command_line("send", nobody, tmp_path / "missing", "--dry-run").code == 65
    ended = command_line("send", nobody, study, "--dry-run", "--transcode", "1.2.840.10008.1.2")
    assert "Implicit VR Little Endian" in ended.out
    for options in (("--ledger", tmp_path / "l"), ("--report", tmp_path / "r")):
        ended = command_line("send", nobody, study, "--dry-run", *options)
        assert ended.code == 2
        assert "--dry-run sends nothing" in ended.err
    assert not {*tmp_path.iterdir()} - {study}
    with (study / "1.dcm").open("rb") as stdin:
        ended = finish(start("send", nobody, "-", "--dry-run", "--json", stdin=stdin))
    assert json.loads(ended.out)["objects"] == 1
