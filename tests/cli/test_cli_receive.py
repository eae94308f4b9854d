"""`trio-dicom receive`: what it stores, prints and reports, and what each option does."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from cli.command_line import CommandLine, finish, read_report, start
from cli.receiving import Caller, Receiving, first_pdus, receiving, store_request
from trio_dicom import AssociationSettings, Duplicates, open_association
from trio_dicom.cli import receive
from trio_dicom.cli.reception import Reception
from trio_dicom.protocol.pdu import ReleaseRQ
from trio_dicom.testing import SOPClass, make_instance_file
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

FIELDS = [
    "time",
    "path",
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "outcome",
    "status",
    "bytes",
    "calling_ae_title",
    "host",
    "comment",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "incoming" / "new"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.dcm" for number in (1, 2)]
    for number, path in enumerate(paths, 1):
        path.write_bytes(make_instance_file(1000 * number, number=number))
    return paths


def data_set(file: bytes) -> bytes:
    return file[file.index(b"\x08\0\x16\0UI") :]


def code(command_line: CommandLine, receiver: Receiving, *arguments: str | Path) -> int:
    """That of sending."""
    return command_line("send", receiver.address, *arguments).code


# --- what it does -----------------------------------------------------------------------------------------------------


def test_what_is_sent_is_filed_told_and_reported(
    command_line: CommandLine, folder: Path, files: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "arrivals.ndjson"
    with receiving(folder, "--report", report) as receiver:
        assert (receiver.host, receiver.title) == ("127.0.0.1", "ANY")
        assert command_line("echo", receiver.address).code == 0
        assert code(command_line, receiver, *files, "--calling", "MODALITY") == 0
        sizes = [len(data_set(path.read_bytes())) for path in files]
        for number, size in enumerate(sizes, 1):
            uid = f"2.25.1000.{number}"
            assert receiver.out() == f"stored {uid} {size} bytes from MODALITY status 0000: {uid}.dcm"
        lines = read_report(report)  # it is there at once
        ended = receiver.stop()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("2 objects: 2 stored; 0.0 MB in ")
    assert receiver.files() == ["2.25.1000.1.dcm", "2.25.1000.2.dcm"]
    for path, name in zip(files, receiver.files(), strict=True):
        assert data_set((folder / name).read_bytes()) == data_set(path.read_bytes())
    assert all(list(line) == FIELDS for line in lines)
    assert datetime.now(UTC) - datetime.fromisoformat(lines[0].pop("time")) < timedelta(seconds=60)
    assert lines[0] == {
        "path": str(folder / "2.25.1000.1.dcm"),
        "sop_class_uid": SOPClass.CT,
        "sop_instance_uid": "2.25.1000.1",
        "transfer_syntax_uid": EXPLICIT_VR_LITTLE_ENDIAN,
        "outcome": "stored",
        "status": 0,
        "bytes": sizes[0],
        "calling_ae_title": "MODALITY",
        "host": "127.0.0.1",
        "comment": "",
    }


def test_what_is_refused_says_why(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "arrivals.ndjson"
    with receiving(folder, "--report", report, "--max-object-size", "5000") as receiver:
        caller = Caller(receiver)
        for request, status in (
            (store_request(uid="2.25.7"), "A900: Error: Data Set Does Not Match SOP Class; the data set has another"),
            (store_request(uid="../../x"), "C000: Error: Cannot Understand; Affected SOP Instance UID is not a UID"),
            (store_request(6000), "C000: Error: Cannot Understand; the object is larger"),
        ):
            caller.say(request)
            caller.hear()
            line = receiver.err()
            assert line.startswith("refused ")
            assert f" from CALLER status {status}" in line
        caller.close()
        said = "trio-dicom: association with 127.0.0.1 ended: the peer closed the connection; "
        assert receiver.err().startswith(said)
        ended = receiver.stop()
    assert ended.out.startswith("3 objects: 3 refused; ")
    assert ended.code == 0
    assert receiver.files() == []
    assert [(line["outcome"], line["status"], line["path"]) for line in read_report(report)] == [
        ("refused", 0xA900, None),
        ("refused", 0xC000, None),
        ("refused", 0xC000, None),
    ]


def test_what_is_cut_off_is_incomplete(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "arrivals.ndjson"
    with receiving(folder, "--report", report) as receiver:
        large = make_instance_file(4 << 20)
        sender = start("send", receiver.address, "-", stdin=-1)
        assert sender.stdin is not None
        os.write(sender.stdin.fileno(), large[: 3 << 20])
        receiver.wait_until_arriving()
        sender.kill()
        finish(sender)
        line = receiver.err()
        assert line.startswith("incomplete 2.25.1000.1 ")
        assert " bytes from TRIO_DICOM status none: the peer closed the connection" in line
        assert receiver.err().startswith("trio-dicom: association with 127.0.0.1 ended: ")
        assert receiver.files() == []
        caller = Caller(receiver)
        caller.say(first_pdus(store_request(4 << 20), 3 << 20))
        receiver.wait_until_arriving()
        caller.say(*ReleaseRQ().encode())
        assert receiver.err().endswith(" status none: the peer asked for release in the middle of it")
        caller.close()
        ended = receiver.stop()
    assert ended.code == 0
    assert ended.out.startswith("2 objects: 2 incomplete; ")
    assert receiver.files() == []
    assert [(line["outcome"], line["status"]) for line in read_report(report)] == [("incomplete", None)] * 2


def test_trouble_with_the_disk_passes(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    with receiving(folder) as receiver:
        shutil.rmtree(folder)
        assert code(command_line, receiver, files[0], "--retries", "0") == 75
        assert receiver.err().startswith("trio-dicom: an instance could not be filed: No such file")
        line = receiver.err()
        assert line.startswith("refused 2.25.1000.1 ")
        assert "status A700: Refused: Out of Resources; " in line
        folder.mkdir()
        assert code(command_line, receiver, files[0]) == 0
        assert receiver.out().startswith("stored 2.25.1000.1 ")
        assert receiver.stop().code == 0
    assert receiver.files() == ["2.25.1000.1.dcm"]


def test_output_that_nobody_reads_is_no_error(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    with receiving(folder) as receiver:
        assert receiver.process.stdout is not None
        receiver.process.stdout.close()
        assert code(command_line, receiver, *files) == 0
        receiver.process.stdout = None
        ended = receiver.stop()
    assert (ended.code, ended.err) == (0, "")
    assert len(receiver.files()) == 2


def test_what_a_killed_receiver_left_is_swept(folder: Path) -> None:
    with receiving(folder) as receiver:
        caller = Caller(receiver)
        caller.say(store_request(4 << 20)[: 2 << 20])
        receiver.wait_until_arriving()
        receiver.process.kill()
        finish(receiver.process)
        caller.close()
        assert len(receiver.files()) == 1
    with receiving(folder) as receiver:
        assert receiver.files() == []


def test_rates_on_a_terminal(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    ours, theirs = pty.openpty()
    process = start("receive", "--port", "0", "--output", folder, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""

    def read_until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(ours, 65_536)

    read_until(b"\n")
    port = shown.split()[2].rpartition(b":")[2].decode()
    assert command_line("send", f"PEER@127.0.0.1:{port}", *files).code == 0
    read_until(b"2 objects, 0.0 MB, ")
    read_until(b" 0 associations")
    process.send_signal(2)
    read_until(b"2 objects: 2 stored; ")
    assert process.wait(10) == 0
    os.close(ours)
    lines = [line.rpartition(b"\r")[2].rstrip() for line in shown.replace(b"\r\n", b"\n").split(b"\n")]
    assert [line.split()[0] for line in lines if line][:4] == [b"listening", b"stored", b"stored", b"2"]


# --- whom it lets in --------------------------------------------------------------------------------------------------


def test_titles(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    with receiving(folder, "--ae", "STORE", "--calling", "CT1", "--calling", "CT2") as receiver:
        assert receiver.title == "STORE"
        for title in ("CT1", "CT2"):
            assert code(command_line, receiver, files[0], "--calling", title) == 0
        assert code(command_line, receiver, files[0], "--calling", "CT3") == 69
        rejected = "the association was rejected permanently: "
        reason = "calling AE title not recognised"
        assert receiver.err() == f"trio-dicom: connection from 127.0.0.1: CT3 called STORE: {rejected}{reason}"
        assert command_line("echo", f"OTHER@127.0.0.1:{receiver.port}", "--calling", "CT1").code == 69
        reason = "called AE title not recognised"
        assert receiver.err() == f"trio-dicom: connection from 127.0.0.1: CT1 called OTHER: {rejected}{reason}"
        assert receiver.stop().code == 0


@pytest.mark.parametrize("option", ["--associations", "--per-host"])
def test_no_more_associations_than_told(command_line: CommandLine, folder: Path, option: str) -> None:
    with receiving(folder, option, "1") as receiver:
        caller = Caller(receiver)
        assert command_line("echo", receiver.address).code == 75
        assert "rejected for now" in receiver.err()
        caller.close()
        receiver.err()
        assert command_line("echo", receiver.address).code == 0


def test_another_address(command_line: CommandLine, folder: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with receiving(folder, "--bind", "::1") as receiver:
        assert receiver.host == "[::1]"
        assert command_line("echo", receiver.address).code == 0


def test_only_this_machine_unless_told_otherwise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(folder) as receiver, pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", receiver.port), 5)
    with receiving(folder, "--bind", "0.0.0.0") as receiver:
        socket.create_connection(("127.0.0.2", receiver.port), 5).close()


# --- how it does it ---------------------------------------------------------------------------------------------------


async def test_what_is_negotiated(folder: Path) -> None:
    with receiving(folder, "--max-pdu", "8192", "--window", "5") as receiver:
        settings = AssociationSettings(operations_window=9)
        async with open_association(receiver.address, [SOPClass.CT], settings=settings) as association:
            assert association.negotiated.peer_max_pdu_length == 8192
            assert association.negotiated.operations_window == 5


async def test_what_is_private_is_accepted_when_told(folder: Path) -> None:
    for options, count in (((), 1), (("--accept-private",), 2)):
        with receiving(folder, *options) as receiver:
            async with open_association(receiver.address, [SOPClass.CT, "1.2.3.4"]) as association:
                assert len(association.negotiated.accepted) == count


async def test_a_silent_peer_is_not_waited_for(folder: Path) -> None:
    with receiving(folder, "--timeout", "0.1") as receiver:
        async with open_association(receiver.address, [SOPClass.CT]) as association:
            with trio.fail_after(5):
                await association.wait_closed()
        assert "the next message of the peer took longer than 0.1 s" in receiver.err()


def test_layout(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    layout = "{calling_ae_title}/{patient_id}/x_{sop_instance_uid}"
    with receiving(folder, "--layout", layout) as receiver:
        assert code(command_line, receiver, files[0]) == 0
        assert receiver.out().endswith(": TRIO_DICOM/unknown/x_2.25.1000.1")
    assert receiver.files() == ["TRIO_DICOM/unknown/x_2.25.1000.1"]


@pytest.mark.parametrize(
    ("policy", "line", "pixels"),
    [
        ("replace", "stored 2.25.1000.1 {} bytes from TRIO_DICOM status 0000: 2.25.1000.1.dcm", 2000),
        ("keep", "kept 2.25.1000.1 {} bytes from TRIO_DICOM status 0000: as it was before", 1000),
        ("refuse", "refused 2.25.1000.1 {} bytes from TRIO_DICOM status 0111: Duplicate SOP Instance; ", 1000),
    ],
)
def test_duplicates(
    command_line: CommandLine, folder: Path, files: list[Path], policy: str, line: str, pixels: int
) -> None:
    files[1].write_bytes(make_instance_file(2000))
    with receiving(folder, "--duplicates", policy) as receiver:
        assert code(command_line, receiver, files[0]) == 0
        receiver.out()
        command_line("send", receiver.address, files[1])
        told = receiver.err() if policy == "refuse" else receiver.out()
    assert told.startswith(line.format(len(data_set(files[1].read_bytes()))))
    assert len(data_set((folder / "2.25.1000.1.dcm").read_bytes())) == len(data_set(make_instance_file(pixels)))


def test_quiet(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start("receive", "--port", str(port), "--output", folder, "--quiet", "--once")
    while command_line("send", f"PEER@127.0.0.1:{port}", files[0]).code == 75:  # not yet
        assert process.poll() is None
    ended = finish(process)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert len(os.listdir(folder)) == 1


def test_what_the_options_say_is_done(
    command_line: CommandLine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def note(*args: Any, **options: Any) -> int:
        seen.append((*args, options))
        return 0

    monkeypatch.setattr(receive, "run_receive", note)
    options = "--port 104 --bind :: --timeout 20 --associations 9 --per-host 3 --no-fsync --max-object-size 77"
    others = ["--duplicates", "keep", "--accept-private", "--report", tmp_path / "r"]
    assert command_line("receive", "--output", folder, *options.split(" "), *others).code == 0
    assert command_line("receive", "--output", folder, "--once").code == 0
    (reception, instances, rest), (default, default_instances, once) = seen
    assert (reception.port, reception.host) == (104, "::")
    timeouts = reception.settings.timeouts
    assert (timeouts.idle, timeouts.handler, timeouts.pdu, timeouts.artim) == (20, 20, 20, 10)
    assert (reception.admission.associations, reception.admission.associations_per_host) == (9, 3)
    assert (instances.sync, instances.max_object_size, instances.duplicates) == (False, 77, Duplicates.KEEP)
    assert rest == {"accept_private": True, "once": False, "report_path": tmp_path / "r", "quiet": False}
    assert (default.port, default.host, default.tls) == (11112, "127.0.0.1", None)
    assert default.settings.max_pdu_length == 131_072
    assert (default_instances.sync, default_instances.max_object_size) == (True, 16 << 30)
    assert default.admission.associations == 1
    assert once["once"]


# --- what keeps it from beginning -------------------------------------------------------------------------------------


@pytest.fixture
def busy_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


def test_a_port_that_is_in_use(folder: Path, busy_port: str) -> None:
    ended = finish(start("receive", "--port", busy_port, "--output", folder))
    assert (ended.code, ended.out) == (75, "")
    assert ended.err.startswith(f"trio-dicom: cannot listen on 127.0.0.1:{busy_port}: the port is in use; ")
    assert "--port" in ended.err
    assert not folder.exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours(folder: Path, host: str) -> None:
    ended = finish(start("receive", "--port", "0", "--output", folder, "--bind", host))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"trio-dicom: cannot listen on {host}:0: that is no address of this machine; --bind")


def test_a_port_that_needs_rights(command_line: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reception = Reception("127.0.0.1", 104, settings=None, admission=None)  # type: ignore[arg-type]
    text, exit_code = reception.explain(PermissionError(13, "Permission denied"))
    assert exit_code == 2
    assert text.startswith("cannot listen on 127.0.0.1:104: ports below 1024 need special rights; choose a --port")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "--output"),
        (("--output", ""), "must not be empty"),
        (
            ("--port", "0", "--output", "/dev/null"),
            "the folder for instances cannot be used: Not a directory: /dev/null",
        ),
        (
            ("--port", "0", "--output", "/proc/new"),
            "the folder for instances cannot be used: No such file or directory: /proc/new",
        ),
        (("--output", ".", "--port", "65536"), "0 for any free port"),
        (("--output", ".", "--port", "dicom"), "--port"),
        (("--output", ".", "--ae", "A_TITLE_THAT_IS_TOO_LONG"), "not an AE title"),
        (("--output", ".", "--calling", "GOOD", "--calling", "back\\slash"), "not an AE title"),
        (("--output", ".", "--max-pdu", "4095"), "4096 to 1048576"),
        (("--output", ".", "--window", "65536"), "0 for as many"),
        (("--output", ".", "--associations", "0"), "1 or more"),
        (("--output", ".", "--per-host", "0"), "1 or more"),
        (("--output", ".", "--max-object-size", "0"), "1 or more"),
        (("--output", ".", "--timeout", "0"), "above 0"),
        (("--output", ".", "--duplicates", "both"), "--duplicates"),
        (("--output", ".", "--layout", "{patient_name}"), "there is no field {patient_name}. The fields are sop_inst"),
        (("--output", ".", "--layout", "../{sop_instance_uid}"), 'a name, ".." too, must not begin with a dot'),
        (("--output", ".", "--layout", "{patient_id}"), "{sop_instance_uid} must be there"),
        (("--output", ".", "--layout", "{sop_instance_uid"), "cannot be used"),
        (("--output", ".", "--cert", "cert.pem"), "--cert needs --tls"),
        (("--output", ".", "--tls"), "--tls needs --cert"),
        (("--output", ".", "--tls", "--cert", "/missing.pem"), "the TLS files cannot be used: "),
        (("--port", "0", "--output", ".", "--report", "/missing/report"), "the report cannot be written: No such file"),
        (("--output", ".", "PEER@127.0.0.1:104"), "PEER@127.0.0.1:104"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors(command_line: CommandLine, options: tuple[str, ...], text: str) -> None:
    ended = command_line("receive", *options)
    assert ended.code == 2
    assert ended.out == ""
    assert text in " ".join(ended.err.replace("│", " ").split())


def test_a_report_does_not_overwrite_an_object(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    before = files[0].read_bytes()
    ended = command_line("receive", "--port", "0", "--output", folder, "--report", files[0])
    assert ended.code == 2
    assert "it is a DICOM file" in ended.err
    assert files[0].read_bytes() == before


def test_a_report_goes_on(command_line: CommandLine, folder: Path, files: list[Path], tmp_path: Path) -> None:
    report = tmp_path / "arrivals.ndjson"
    report.write_text('{"outcome": "from the first run"}\n{"outcome": "torn by a po')
    with receiving(folder, "--report", report) as receiver:
        assert code(command_line, receiver, files[0]) == 0
        second = start("receive", "--port", str(receiver.port), "--output", folder, "--report", report)
        assert finish(second).code == 75
        with receiving(folder, "--report", report) as other:  # of another port
            assert code(command_line, other, files[1]) == 0
            assert code(command_line, receiver, files[0]) == 0
            other.stop()
        receiver.stop()
    first, torn, *lines = report.read_text().splitlines()
    assert "from the first run" in first
    assert torn.endswith("torn by a po")
    assert [json.loads(line)["sop_instance_uid"] for line in lines] == ["2.25.1000.1", "2.25.1000.2", "2.25.1000.1"]


def test_a_report_that_is_cut_short_is_told(command_line: CommandLine, folder: Path, files: list[Path]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with receiving(folder, "--report", "/dev/full") as receiver:
        assert code(command_line, receiver, files[0]) == 0
        ended = receiver.stop()
    assert ended.code == 1
    assert "the report is incomplete" in ended.err
    assert receiver.files() == ["2.25.1000.1.dcm"]
