"""`trio-dicom report`: what it says of ledgers, to people and to programs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cli.command_line import COMMAND, ROOT, CommandLine, finish, start
from sender.ledger_helpers import PEER, entry, identity, report
from trio_dicom import InstanceReport, Outcome, Retry, Status
from trio_dicom.cli import ledger_report
from trio_dicom.cli.exit_codes import ExitCode
from trio_dicom.sender.ledger import InputIdentity, open_ledger

REFUSED = report(Outcome.REFUSED, status=Status(0xA900), retry=Retry.NEVER, reason="Error: Data Set Does Not Match")
TIMED_OUT = "no progress for 30 s while writing, after {} bytes of the data set"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def write(path: Path, *reports: InstanceReport, begun: int = 0, names: tuple[bytes, ...] = ()) -> None:
    """A run that settles inputs as `reports` say, and leaves so many further ones begun."""

    async def main() -> None:
        inputs = [identity(number) for number in range(len(reports) + begun)]
        inputs[: len(names)] = [InputIdentity(name) for name in names]
        async with open_ledger(path, PEER) as ledger:
            await ledger.begin(list(map(entry, inputs)))
            for each, its_report in zip(inputs, reports, strict=False):
                ledger.settle(each, its_report)

    trio.run(main)


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture
def night(path: Path) -> Path:
    """Two runs: 8 stored, 5 refused, 2 that timed out, one in doubt, one begun; over 20 seconds, and then 10."""
    slow = [report(Outcome.NOT_SENT, reason=TIMED_OUT.format(size)) for size in (4096, 8192)]
    in_doubt = report(Outcome.IN_DOUBT, reason="the peer closed the connection", attempts=2)
    stored = [report(bytes_sent=2_000_000) for _ in range(8)]
    write(path, *stored, *[REFUSED] * 5, *slow, in_doubt, begun=1)
    write(path)
    change(
        path,
        "UPDATE run SET started = 1700000000, ended = 1700000020 WHERE number = 1",
        "UPDATE run SET started = 1700000100, ended = 1700000110 WHERE number = 2",
        "UPDATE input SET run = 2 WHERE number BETWEEN 5 AND 8",
        "UPDATE input SET begun = 1700000100, settled = 1700000100.5 + 2 * (number - 5) WHERE run = 2",
        "UPDATE input SET begun = 1700000000, settled = 1700000001 WHERE run = 1 AND settled",
    )
    return path


@pytest.fixture
def in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_utc")
def test_a_night(command_line: CommandLine, night: Path) -> None:
    ended = command_line("report", night)
    assert ended.err == ""
    assert ended.code == ExitCode.TRY_AGAIN
    assert ended.out.splitlines() == [
        f"ledger {night} of PACS@10.0.0.5:104",
        "17 inputs: 8 stored, 5 refused, 2 not sent, 2 in doubt",
        "16.0 MB stored, 17 attempts; 30.0 s of sending, 0.3 objects/s, 0.5 MB/s",
        "",
        "run 1: 2023-11-14 22:13:20, 20.0 s, ended: 13 inputs, 4 stored, 8.0 MB, 0.2 objects/s, 0.4 MB/s",
        "run 2: 2023-11-14 22:15:00, 10.0 s, ended: 4 inputs, 4 stored, 8.0 MB, 0.4 objects/s, 0.8 MB/s",
        "",
        "refused A900 (Error: Data Set Does Not Match): 5",
        "    /data/8.dcm",
        "    /data/9.dcm",
        "    /data/10.dcm",
        "    and 2 more: see --failed",
        "",
        "not sent (no progress for 30 s while writing, after 4096 bytes of the data set): 2",
        "    /data/13.dcm",
        "    /data/14.dcm",
        "",
        "in doubt (the peer closed the connection): 1",
        "    /data/15.dcm",
        "",
        "in doubt (begun, and its end is not noted): 1",
        "    /data/16.dcm",
        "",
        "run 2, 1.0 s a column, from 2023-11-14 22:15:00",
        "objects/s █ █ █ █    at most 1.0",
        "MB/s      █ █ █ █    at most 2.0",
    ]


def test_a_night_in_plain_letters(night: Path) -> None:
    ended = finish(start("report", night, env={"PYTHONIOENCODING": "ascii", "TZ": "UTC"}))
    assert ended.out.splitlines()[-1] == "MB/s      # # # #    at most 2.0"


def test_as_json(command_line: CommandLine, night: Path) -> None:
    ended = command_line("report", night, "--json")
    assert ended.code == ExitCode.TRY_AGAIN
    document = json.loads(ended.out)
    assert document["ledger"] == str(night)
    assert document["peer"] == PEER
    assert document["count"] == sum(document["counts"].values()) == len(document["inputs"]) == 17
    assert set(document["counts"]) == {outcome.value for outcome in Outcome}
    assert (document["delivered"], document["bytes_stored"], document["attempts"]) == (8, 16_000_000, 17)
    assert (document["seconds"], document["objects_per_second"], document["bytes_per_second"]) == (30, 0.267, 533_333)
    assert document["runs"][1] | {"version": ""} == {
        "number": 2,
        "peer": PEER,
        "version": "",
        "started": "2023-11-14T22:15:00.000+00:00",
        "ended": "2023-11-14T22:15:10.000+00:00",
        "is_running": False,
        "seconds": 10.0,
        "count": 4,
        "stored": 4,
        "bytes_stored": 8_000_000,
    }
    assert document["failures"][0] == {
        "outcome": "refused",
        "status": 0xA900,
        "reason": "Error: Data Set Does Not Match",
        "count": 5,
        "paths": ["/data/8.dcm", "/data/9.dcm", "/data/10.dcm"],
    }
    assert document["rates"]["run"] == 2
    assert [each["objects"] for each in document["rates"]["columns"]] == [1, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    assert document["inputs"][4] == {
        "path": "/data/4.dcm",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": "1.2.3",
        "transfer_syntax_uid": None,
        "outcome": "stored",
        "status": 0,
        "attempts": 1,
        "bytes": 2_000_000,
        "reason": "",
        "retry": "never",
        "was_in_doubt": False,
        "run": 2,
        "begun": "2023-11-14T22:15:00.000+00:00",
        "settled": "2023-11-14T22:15:00.500+00:00",
        "size": 1004,
        "mtime_ns": 5,
    }


def test_failed_ones_only(command_line: CommandLine, night: Path) -> None:
    lines = command_line("report", night, "--failed").out.splitlines()
    assert len(lines) == 9
    assert lines[0] == "refused: /data/8.dcm: Error: Data Set Does Not Match"
    assert lines[-1] == "in doubt: /data/16.dcm: begun, and its end is not noted"
    inputs = json.loads(command_line("report", night, "--failed", "--json").out)["inputs"]
    assert [each["path"] for each in inputs] == [f"/data/{number}.dcm" for number in range(8, 17)]
    rows = list(csv.DictReader(io.StringIO(command_line("report", night, "--failed", "--csv").out)))
    assert [row["path"] for row in rows] == [each["path"] for each in inputs]


def test_csv_has_what_json_has(command_line: CommandLine, night: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(command_line("report", night, "--csv").out)))
    inputs = json.loads(command_line("report", night, "--json").out)["inputs"]
    as_text = [
        {k: "" if v is None else str(int(v) if isinstance(v, bool) else v) for k, v in each.items()} for each in inputs
    ]
    assert rows == as_text


def test_names_are_escaped_for_people_and_whole_for_programs(command_line: CommandLine, path: Path) -> None:
    names = (b"/data/\x1b[31mred\n.dcm", b'/data/\xff"; ,.dcm')
    write(path, REFUSED, REFUSED, names=names)
    for arguments in ((), ("--failed",)):
        out = command_line("report", path, *arguments).out
        assert r"/data/\x1b[31mred\n.dcm" in out
        assert r'/data/\udcff"; ,.dcm' in out
        assert "\x1b" not in out
    inputs = json.loads(command_line("report", path, "--json").out)["inputs"]
    assert [os.fsencode(each["path"]) for each in inputs] == list(names)
    data = subprocess.run([*COMMAND, "report", path, "--csv"], capture_output=True, cwd=ROOT, check=False).stdout
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
    assert [os.fsencode(row["path"]) for row in rows] == list(names)


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ((report(),), ExitCode.OK),
        ((report(), report(Outcome.STORED_WITH_WARNING, status=Status(0xB000))), ExitCode.OK),
        ((report(), REFUSED), ExitCode.NOT_STORED),
        ((report(), report(Outcome.NOT_SENT)), ExitCode.TRY_AGAIN),
        ((report(), report(Outcome.NO_CONTEXT, retry=Retry.AFTER_CONFIG)), ExitCode.NOT_STORED),
        ((report(Outcome.NOT_SENT, retry=Retry.AFTER_CONFIG),), ExitCode.REFUSED),
        ((report(Outcome.INVALID, retry=Retry.NEVER),), ExitCode.NO_INPUT),
        ((), ExitCode.NO_INPUT),
    ],
    ids=lambda each: str(int(each)) if isinstance(each, ExitCode) else "",
)
def test_exit_codes(command_line: CommandLine, path: Path, reports: tuple[InstanceReport, ...], code: ExitCode) -> None:
    write(path, *reports)
    for arguments in ((), ("--json",), ("--csv",), ("--failed",)):
        assert command_line("report", path, *arguments).code == code


def test_begun_and_not_settled_is_worth_another_run(command_line: CommandLine, path: Path) -> None:
    write(path, report(), begun=1)
    assert command_line("report", path).code == ExitCode.TRY_AGAIN


def test_an_empty_ledger(command_line: CommandLine, path: Path) -> None:
    write(path)
    assert command_line("report", path).out.splitlines()[1:3] == [
        "0 inputs",
        "0.0 MB stored, 0 attempts; 0.0 s of sending, nothing a second",
    ]
    assert json.loads(command_line("report", path, "--json").out)["inputs"] == []
    assert command_line("report", path, "--csv").out.startswith("path,sop_class_uid,")
    assert command_line("report", path, "--failed").out == ""


def test_there_is_an_end_to_the_kinds_of_failure(command_line: CommandLine, path: Path) -> None:
    write(path, *[report(Outcome.INVALID, reason="x" * (number + 1)) for number in range(23)])
    lines = command_line("report", path).out.splitlines()
    assert sum(line.startswith("invalid") for line in lines) == ledger_report.GROUPS_SHOWN
    assert "3 other kinds of failure: see --failed" in lines


@pytest.mark.parametrize("ending", ["runs", "is killed"])
def test_while_a_run_writes_and_after_it_was_killed(command_line: CommandLine, path: Path, ending: str) -> None:
    program = (
        "import sys, trio\nfrom sender.ledger_helpers import *\nfrom trio_dicom.sender.ledger import open_ledger\n"
        "async def main():\n"
        "    async with open_ledger(sys.argv[1], PEER) as ledger:\n"
        "        one = identity(0)\n"
        "        await ledger.begin([entry(one), entry(1)])\n"
        "        ledger.settle(one, report())\n"
        "        await ledger.flush()\n"
        "        print('there', flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
            if ending == "is killed":
                process.kill()
                process.wait()
            ended = command_line("report", path)
        finally:
            process.kill()
    assert ended.err == ""
    assert "2 inputs: 1 stored, 1 in doubt" in ended.out
    assert ("running:" if ending == "runs" else "cut off:") in ended.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("report",), "LEDGER"),
        (("report", "{path}", "--json", "--csv"), "give one of them"),
        (("report", "{path}.missing"), "there is no such ledger"),
        (("report", "{path}.text"), "it is no ledger of trio_dicom"),
        (("report", "/"), "it is no file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors(command_line: CommandLine, path: Path, arguments: tuple[str, ...], text: str) -> None:
    write(path)
    path.with_name("run.db.text").write_text("text")
    ended = command_line(*(each.format(path=path) for each in arguments))
    assert ended.code == ExitCode.USAGE
    assert ended.out == ""
    assert text in " ".join(ended.err.replace("│", " ").split())


def many(path: Path) -> None:
    """So many that no pipe holds what there is to say of them."""
    write(path, *[REFUSED] * 3000)


@pytest.mark.parametrize("option", ["--failed", "--csv", "--json"])
def test_nobody_reads_on(path: Path, option: str) -> None:
    many(path)
    process = start("report", path, option)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) == ExitCode.NOT_STORED  # as the ledger has it
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("option", ["--failed", "--csv", "--json"])
def test_output_that_is_cut_short_is_an_error(path: Path, option: str) -> None:
    write(path, report(), REFUSED)
    with open("/dev/full", "wb") as full:
        ended = finish(start("report", path, option, stdout=full))
    assert ended.err == "trio-dicom: the output is incomplete: No space left on device\n"
    assert ended.code == ExitCode.NOT_STORED


def test_without_a_standard_output(path: Path) -> None:
    write(path, report())
    command = f"exec {' '.join(COMMAND)} report {path} >&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def on_a_terminal(*arguments: str | Path) -> str:
    """What `trio-dicom` prints on one."""
    ours, theirs = pty.openpty()
    with contextlib.closing(io.FileIO(ours)) as terminal:
        process = start(*arguments, stdout=theirs, env={"TERM": "xterm-256color", "COLUMNS": "200"})
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # its other end was closed
            while piece := terminal.read(4096):
                shown += piece
        finish(process)
    return shown.decode()


def test_on_a_terminal(night: Path) -> None:
    shown = on_a_terminal("report", night)
    assert "17 inputs: 8 stored, 5 refused, 2 not sent, 2 in doubt" in shown
    assert "\x1b[31mrefused A900" in shown  # red
    assert "█" in shown


def test_a_table_on_a_terminal_has_escaped_names(path: Path) -> None:
    write(path, REFUSED, names=(b"/data/\x1b[31mred.dcm",))
    shown = on_a_terminal("report", path, "--csv")
    assert r"/data/\x1b[31mred.dcm" in shown
    assert "\x1b" not in shown


def test_help_needs_neither_trio_nor_sqlite(command_line: CommandLine) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "trio_dicom", "report", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Exit codes are those of send" in ended.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert not imported & {"trio", "sqlite3", "pydicom"}
