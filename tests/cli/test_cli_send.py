"""`trio-dicom send` and `echo`, with peers that are made for the occasion."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from cli.command_line import CommandLine, finish, read_report, start
from cli.conftest import Receiver, answering
from trio_dicom.protocol.pdu import Abort, AssociateRJ, AssociateRQ, PDataTF, PresentationContextAC
from trio_dicom.protocol.user_information import MaximumLength
from trio_dicom.testing import ScriptedPeer, SOPClass, acceptance, make_instance_file

MR = "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"

Scripted = Callable[..., str]
Received = tuple[str, Receiver]

FIELDS = [
    "path",
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "outcome",
    "status",
    "attempts",
    "bytes",
    "reason",
    "retry",
    "was_in_doubt",
    "earlier",
]
SOON = ("--retry-delay", "0.01")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six objects, in two directories."""
    paths = [tmp_path / "study" / f"series{n // 3}" / f"{n}.dcm" for n in range(6)]
    for number, path in enumerate(paths, 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_instance_file(1000 * number, number=number))
    return paths


# --- inputs and report ------------------------------------------------------------------------------------------------


def test_directories_are_sent_whole_and_reported(
    command_line: CommandLine, receiver: Received, files: list[Path], tmp_path: Path
) -> None:
    address, peer = receiver
    ended, report = command_line.send(address, tmp_path / "study")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("6 inputs: 6 stored; ")
    assert [line["path"] for line in report] == [str(path) for path in files]
    assert all(list(line) == FIELDS for line in report)
    assert report[0] == {
        "path": str(files[0]),
        "sop_class_uid": SOPClass.CT,
        "sop_instance_uid": "2.25.1000.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "outcome": "stored",
        "status": 0,
        "attempts": 1,
        "bytes": peer.stored[0].size,
        "reason": "",
        "retry": "never",
        "was_in_doubt": False,
        "earlier": False,
    }
    stored = [each.path.read_bytes()[each.data_set_offset :] for each in peer.stored]
    assert [path.read_bytes().endswith(data_set) for path, data_set in zip(files, stored, strict=True)] == [True] * 6


def test_options_may_stand_anywhere(command_line: CommandLine, receiver: Received, files: list[Path]) -> None:
    address, peer = receiver
    assert command_line("send", address, "--quiet", files[0], "--retries", "1", files[1]).code == 0
    assert command_line("send", "--retries=1", address, files[2], files[3], "--quiet").out == ""
    assert len(peer.stored) == 4


def test_names_of_any_kind(command_line: CommandLine, receiver: Received, tmp_path: Path, monkeypatch: Any) -> None:
    address, peer = receiver
    folder = tmp_path / "odd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = [b"new\nline.dcm", b"not utf-8 \xff\xfe.dcm", b"-q", b"--report", b"\x1b[31mred.dcm", b"n" * 255]
    for number, name in enumerate(names, 1):
        Path(os.fsdecode(name)).write_bytes(make_instance_file(number=number))
    ended, report = command_line.send(address, "--", *map(os.fsdecode, names))
    assert ended.code == 0
    assert [os.fsencode(line["path"]) for line in report] == names
    assert len(peer.stored) == len(names)
    _, report = command_line.send(address, folder)
    assert sorted(os.path.basename(os.fsencode(line["path"])) for line in report) == sorted(names)


def test_odd_names_are_escaped_on_the_screen(command_line: CommandLine, nobody: str, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred\n.dcm"
    path.write_text("not DICOM")
    ended, _ = command_line.send(nobody, path)
    assert ended.code == 65
    assert "\x1b" not in ended.err
    assert "\\x1b[31mred\\n.dcm" in ended.err


def test_standard_input(receiver: Received, files: list[Path], tmp_path: Path) -> None:
    address, peer = receiver
    report = tmp_path / "report"
    with files[0].open("rb") as stream:
        ended = finish(start("send", address, "-", files[1], "--report", report, stdin=stream))
    assert ended.code == 0, ended
    assert [(line["path"], line["outcome"]) for line in read_report(report)] == [
        ("-", "stored"),
        (str(files[1]), "stored"),
    ]
    assert [each.sop_instance_uid for each in peer.stored] == ["2.25.1000.1", "2.25.1000.2"]


def test_standard_input_that_is_no_object(nobody: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    with open(os.devnull, "rb") as stream:
        assert finish(start("send", nobody, "-", "--report", report, stdin=stream)).code == 65
    assert [line["outcome"] for line in read_report(report)] == ["invalid"]


def test_what_is_no_object_is_said_and_the_rest_sent(
    command_line: CommandLine, receiver: Received, files: list[Path], tmp_path: Path
) -> None:
    fifo, text = tmp_path / "fifo", tmp_path / "text"
    os.mkfifo(fifo)
    text.write_text("not DICOM")
    ended, report = command_line.send(receiver[0], fifo, text, tmp_path / "missing", files[0])
    assert ended.code == 1
    assert {line["path"]: line["outcome"] for line in report} == {
        str(fifo): "invalid",
        str(text): "invalid",
        str(tmp_path / "missing"): "invalid",
        str(files[0]): "stored",
    }
    reasons = {line["path"]: line["reason"] for line in report}
    assert reasons[str(fifo)] == "not a file but a FIFO"
    assert reasons[str(tmp_path / "missing")] == "cannot be read: No such file or directory"
    assert all(f"invalid: {path}: {reasons[str(path)]}" in ended.err for path in (fifo, text))


def test_all_invalid(command_line: CommandLine, nobody: str, tmp_path: Path) -> None:
    ended, report = command_line.send(nobody, tmp_path / "a", tmp_path / "b")
    assert ended.code == 65
    assert [line["outcome"] for line in report] == ["invalid", "invalid"]


def test_an_empty_directory(command_line: CommandLine, nobody: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended, report = command_line.send(nobody, tmp_path / "empty")
    assert (ended.code, report) == (65, [])
    assert "nothing to send" in ended.err


def test_a_report_does_not_overwrite_an_object(
    command_line: CommandLine, receiver: Received, files: list[Path]
) -> None:
    before = files[0].read_bytes()
    ended = command_line("send", receiver[0], "--report", files[0], files[1])
    assert ended.code == 2
    assert "it is a DICOM file, which would be overwritten" in ended.err
    assert files[0].read_bytes() == before


def test_a_report_in_a_directory_that_is_sent_is_no_input(
    command_line: CommandLine, receiver: Received, files: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "study" / "report.ndjson"
    for _ in range(2):  # it is made the first time, and is there the second
        ended = command_line("send", receiver[0], tmp_path / "study", "--report", report)
        assert ended.code == 0, ended
        assert [line["path"] for line in read_report(report)] == [str(path) for path in files]


def test_a_report_that_cannot_be_written_on_is_said(
    command_line: CommandLine, receiver: Received, files: list[Path]
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    ended = command_line("send", receiver[0], files[0], "--report", "/dev/full")
    assert len(receiver[1].stored) == 1
    assert "the report is incomplete: [Errno 28]" in ended.err
    assert ended.code == 1


# --- outcomes and exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "outcomes", "code"),
    [
        ((0x0000, 0xB000, 0xB007, 0xB006), ("stored", *["stored_with_warning"] * 3), 0),
        ((0x0000, 0xC000, 0xA900, 0x0000), ("stored", "refused", "refused", "stored"), 1),
        ((0x0000, 0x0111, 0x0000, 0x0000), ("stored", "already_present", "stored", "stored"), 1),
        ((0x0000, 0xA700, 0xC000, 0x0000), ("stored", "refused", "refused", "stored"), 75),
        ((0x0000, 0x0107, 0x1234, 0x0000), ("stored", "refused", "refused", "stored"), 1),
        ((0x0122, 0x0122, 0x0122, 0x0122), ("refused",) * 4, 1),
    ],
)
def test_statuses(
    command_line: CommandLine,
    scripted_peer: Scripted,
    files: list[Path],
    statuses: tuple[int, ...],
    outcomes: Any,
    code: int,
) -> None:
    ended, report = command_line.send(scripted_peer(answering(*statuses)), *files[:4], "--retries", "0", *SOON)
    assert [line["outcome"] for line in report] == list(outcomes)
    assert [line["status"] for line in report] == list(statuses)
    assert ended.code == code


def test_a_status_that_may_pass_is_retried(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path]
) -> None:
    statuses = {"2.25.1000.1": [0xA700, 0xA701, 0], "2.25.1000.2": [0], "2.25.1000.3": [0xA700] * 3}

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for _ in range(7):
            context_id, request, _ = await peer.receive_message()
            await peer.answer(context_id, request, statuses[request.affected_sop_instance_uid].pop(0))

    ended, report = command_line.send(scripted_peer(script), *files[:3], "--retries", "2", *SOON)
    ends = {line["path"]: (line["outcome"], line["attempts"]) for line in report}
    assert list(map(ends.get, map(str, files[:3]))) == [("stored", 3), ("stored", 1), ("refused", 3)]
    assert f"refused A700: {files[2]}: Refused: Out of Resources" in ended.err
    assert ended.code == 75


async def abort_in_the_middle(peer: ScriptedPeer) -> None:
    await peer.accept()
    await peer.receive_message()
    await peer.send(Abort(2, 0))


def test_an_object_whose_association_was_lost_is_sent_again(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path]
) -> None:
    for options in ((), ("--retries", "1")):
        address = scripted_peer(abort_in_the_middle, ScriptedPeer.serve)
        ended, report = command_line.send(address, *files[:2], *options, *SOON)
        ends = {line["path"]: (line["outcome"], line["attempts"]) for line in report}
        assert ends == {str(files[0]): ("stored", 2), str(files[1]): ("stored", 1)}
        assert ended.code == 0
        assert "3 attempts" in ended.out
        assert "1 that failed" in ended.out


def test_an_object_whose_association_was_lost_is_in_doubt_and_the_rest_is_sent(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path]
) -> None:
    address = scripted_peer(abort_in_the_middle, ScriptedPeer.serve)
    ended, report = command_line.send(address, *files[:3], "--retries", "0", *SOON)
    assert [line["outcome"] for line in report] == ["in_doubt", "stored", "stored"]
    assert report[0]["status"] is None
    assert report[0]["bytes"] > 0
    assert "aborted the association (source 2, reason 0)" in report[0]["reason"]
    assert ended.code == 75


def test_objects_in_whose_middle_the_peer_aborts_are_set_aside(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path]
) -> None:
    ended, report = command_line.send(scripted_peer(abort_in_the_middle), *files[:2], *SOON)
    assert [(line["outcome"], line["attempts"]) for line in report] == [("in_doubt", 2)] * 2
    assert all("set aside: two associations ended in its middle" in line["reason"] for line in report)
    assert ended.err.count("aborted the association (source 2, reason 0)") >= 2
    assert ended.code == 75


def test_connection_refused(command_line: CommandLine, nobody: str, files: list[Path]) -> None:
    ended, report = command_line.send(nobody, *files)
    assert ended.code == 75
    assert [line["outcome"] for line in report] == ["not_sent"] * 6
    assert {line["sop_class_uid"] for line in report} == {SOPClass.CT}
    assert "Connection refused" in report[0]["reason"]
    assert ended.err.count("Connection refused") == 1


def rejecting(result: int, reason: int) -> Callable[[ScriptedPeer], Any]:
    async def script(peer: ScriptedPeer) -> None:
        await peer.receive_pdu()
        await peer.send(AssociateRJ(result, 1, reason))

    return script


@pytest.mark.parametrize(("result", "code"), [(1, 69), (2, 75)])
def test_association_rejected(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path], result: int, code: int
) -> None:
    address = scripted_peer(rejecting(result, 1))
    ended, report = command_line.send(address, *files)
    assert (ended.code, {line["outcome"] for line in report}) == (code, {"not_sent"})
    assert command_line("echo", address).code == code


def test_a_rejection_that_may_pass_is_retried(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path]
) -> None:
    busy = rejecting(2, 2)
    for options, code in ((("--retries", "2"), 0), (("--retries", "1"), 75), ((), 75)):
        address = scripted_peer(busy, busy, answering(*[0] * 6))
        assert command_line.send(address, *files, *options, *SOON)[0].code == code


def taking(*abstract_syntaxes: str) -> Callable[[ScriptedPeer], Any]:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.receive_pdu()
        assert isinstance(request, AssociateRQ)
        answers = tuple(
            PresentationContextAC(
                each.context_id, 0 if each.abstract_syntax in abstract_syntaxes else 3, each.transfer_syntaxes[:1]
            )
            for each in request.presentation_contexts
        )
        await peer.send(attrs.evolve(acceptance(request), presentation_contexts=answers))
        await peer.serve_requests()

    return script


def test_objects_without_a_presentation_context(
    command_line: CommandLine, scripted_peer: Scripted, files: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "mr.dcm"
    other.write_bytes(make_instance_file(sop_class=MR, transfer_syntax=JPEG, number=9))
    ended, report = command_line.send(scripted_peer(taking(SOPClass.CT)), other, files[0])
    assert [line["outcome"] for line in report] == ["no_context", "stored"]
    assert report[0]["transfer_syntax_uid"] == JPEG
    assert ended.code == 1
    ended, report = command_line.send(scripted_peer(taking()), other, files[0])
    assert [line["outcome"] for line in report] == ["no_context", "no_context"]
    assert ended.code == 69


def test_more_kinds_of_objects_than_an_association_has_contexts(
    command_line: CommandLine, receiver: Received, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(150):
        (folder / f"{number:03}").write_bytes(make_instance_file(sop_class=f"1.2.3.{number}", number=number + 1))
    ended, report = command_line.send(receiver[0], folder)
    assert ended.code == 0
    assert len(report) == len(receiver[1].stored) == 150


# --- options ----------------------------------------------------------------------------------------------------------


async def silent(peer: ScriptedPeer) -> None:
    await peer.hold()
    await peer.close()


async def silent_after_accepting(peer: ScriptedPeer) -> None:
    await peer.accept()
    await peer.hold()
    await peer.close()


def test_timeout(command_line: CommandLine, scripted_peer: Scripted, files: list[Path]) -> None:
    ended, report = command_line.send(scripted_peer(silent), files[0], "--timeout", "0.1")
    assert (ended.code, report[0]["outcome"]) == (75, "not_sent")
    assert "took longer than 0.1 s" in report[0]["reason"]
    ended, report = command_line.send(scripted_peer(silent_after_accepting), files[0], "--timeout", "0.1")
    assert (ended.code, report[0]["outcome"]) == (75, "in_doubt")
    assert "no progress for 0.1 s" in report[0]["reason"]
    assert command_line("echo", scripted_peer(silent_after_accepting), "--timeout", "0.1").code == 75


def test_calling_title_and_longest_pdu(command_line: CommandLine, scripted_peer: Scripted, files: list[Path]) -> None:
    seen: list[Any] = []

    async def script(peer: ScriptedPeer) -> None:
        seen.append(await peer.accept(max_pdu_length=65_536))
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request)
        seen.extend(pdu for pdu in peer.pdus if isinstance(pdu, PDataTF))

    ended, _ = command_line.send(scripted_peer(script), files[5], "--calling", "MODALITY 1", "--max-pdu", "4096")
    assert ended.code == 0
    request, *data = seen
    assert request.calling_ae_title == "MODALITY 1"
    assert request.called_ae_title == "PEER"
    assert MaximumLength(4096) in request.user_information
    assert max(sum(len(pdv.data) + 6 for pdv in pdu.pdvs) for pdu in data) == 4096


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}], ids=["plain", "forced"])
def test_no_escape_sequences_without_a_terminal(
    receiver: Received, files: list[Path], tmp_path: Path, environment: dict[str, str]
) -> None:
    ended = finish(start("send", receiver[0], tmp_path / "study", tmp_path / "missing", env=environment))
    assert ended.code == 1
    assert "\x1b" not in ended.out + ended.err
    assert "\r" not in ended.out + ended.err


def test_output_that_nobody_reads_is_no_error(receiver: Received, files: list[Path]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("send", receiver[0], files[0], stdout=writing)
    os.close(writing)
    ended = finish(process)
    assert (ended.code, ended.err) == (0, "")


# --- echo -------------------------------------------------------------------------------------------------------------


def test_echo(command_line: CommandLine, receiver: Received, nobody: str) -> None:
    ended = command_line("echo", receiver[0])
    assert ended.code == 0
    assert ended.out.startswith(f"{receiver[0]} answered in ")
    ended = command_line("echo", nobody)
    assert (ended.code, ended.out) == (75, "")
    assert "Connection refused" in ended.err


def test_echo_that_is_not_accepted(command_line: CommandLine, scripted_peer: Scripted) -> None:
    assert command_line("echo", scripted_peer(taking(SOPClass.CT))).code == 69


def test_echo_to_something_else(command_line: CommandLine, scripted_peer: Scripted) -> None:
    async def http(peer: ScriptedPeer) -> None:
        with trio.move_on_after(5):
            await peer.receive_pdu()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    ended = command_line("echo", scripted_peer(http))
    assert ended.code in (69, 75)
    assert "the peer speaks HTTP" in ended.err


@pytest.mark.parametrize("command", ["echo", "send"])
def test_output_that_cannot_be_written_is_no_traceback(receiver: Received, files: list[Path], command: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with open("/dev/full", "w") as full:
        ended = finish(start(command, receiver[0], *files[: command == "send"], stdout=full))
    assert "Traceback" not in ended.err
    assert ended.code == 0
