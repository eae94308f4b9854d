"""The command line before anything is sent: help, what is wrong with the arguments, a broken installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.command_line import ROOT, CommandLine, finish, start
from trio_dicom import __version__
from trio_dicom.testing import make_instance_file

HELPS = [("--help",), ("demo", "--help"), ("echo", "--help"), ("receive", "--help"), ("send", "--help"), ()]


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_needs_neither_trio_nor_pydicom(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "trio_dicom", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.startswith("Usage: trio-dicom")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert "cyclopts" in imported
    assert not imported & {"trio", "pydicom", "numpy"}


def imported_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", "-m", "trio_dicom", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}


DEAR = {"rich", "sqlite3", "pydicom", "numpy", "zipfile", "json", "trio_dicom.conversion.conversion"}


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ((), set()),
        (("--json",), {"json"}),
        (("--ledger", "run.db"), {"sqlite3"}),
        (("--transcode", "native"), {"json", "trio_dicom.conversion.conversion"}),
        (("--dry-run",), {"pydicom"}),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_sending_imports_what_it_needs(options: tuple[str, ...], needed: set[str], tmp_path: Path, nobody: str) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(make_instance_file())
    modules = imported_by(
        "send", nobody, str(path), *(str(tmp_path / each) if each == "run.db" else each for each in options)
    )
    assert "trio_dicom.cli.app" in modules
    dear = DEAR - {"numpy", "json", "zipfile"} if "pydicom" in needed else DEAR
    assert modules & dear == needed


def test_version(command_line: CommandLine) -> None:
    assert command_line("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("bogus",), 'Unknown command "bogus"'),
        (("echo",), "PEER"),
        (("echo", "nobody"), "write AET@host:port"),
        (("echo", "PACS@host"), "no host and port"),
        (("echo", "PACS@host:0"), "not a port"),
        (("echo", "PACS@host:99999"), "not a port"),
        (("echo", "PACS@::1:104"), "brackets"),
        (("echo", "A_TITLE_THAT_IS_TOO_LONG@host:104"), "not an AE title"),
        (("echo", "PACS@host:104", "--calling", "back\\slash"), "not an AE title"),
        (("echo", "PACS@host:104", "--bogus"), "--bogus"),
        (("echo", "PACS@host:104", "--timeout", "0"), "above 0"),
        (("echo", "PACS@host:104", "--timeout", "nan"), "above 0"),
        (("echo", "PACS@host:104", "--timeout", "soon"), "--timeout"),
        (("echo", "PACS@host:104", "--ca", "ca.pem"), "--ca needs --tls"),
        (("echo", "PACS@host:104", "--tls", "--ca", "/missing.pem"), "TLS files cannot be used"),
        (("echo", "PACS@host:104", "--tls", "--key", "key.pem"), "--key needs --cert"),
        (("send", "PACS@host:104"), "no PATH"),
        (("send", "PACS@host:104", "--bogus", "x.dcm"), "--bogus is neither an option nor a file"),
        (("send", "PACS@host:104", "-z"), "-z is neither an option nor a file"),
        (("send", "PACS@host:104", "-", "-"), "given once"),
        (("send", "PACS@host:104", "x.dcm", "--retries", "-1"), "0 or more"),
        (("send", "PACS@host:104", "x.dcm", "--retry-delay", "0"), "above 0"),
        (("send", "PACS@host:104", "x.dcm", "--deadline", "0"), "above 0"),
        (("send", "PACS@host:104", "x.dcm", "--drain", "-1"), "above 0"),
        (("send", "PACS@host:104", "x.dcm", "--associations", "0"), "1 or more"),
        (("send", "PACS@host:104", "x.dcm", "--window", "65536"), "1 to 65535"),
        (("send", "PACS@host:104", "x.dcm", "--max-rate", "fast"), "k, M or G"),
        (("send", "PACS@host:104", "x.dcm", "--same-instance", "twice"), "--same-instance"),
        (("send", "PACS@host:104", "x.dcm", "--transcode", "jpeg"), "--transcode jpeg: transcode is"),
        (("send", "PACS@host:104", "x.dcm", "--max-pdu", "4095"), "4096 to 1048576"),
        (("send", "PACS@host:104", "x.dcm", "--max-pdu", "1048577"), "4096 to 1048576"),
        (
            ("send", "PACS@host:104", "x.dcm", "--report", "/missing/report"),
            "the report cannot be written: No such file",
        ),
        (("send", "PACS@host:104", "x.dcm", "--report", "/"), "the report cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors(command_line: CommandLine, arguments: tuple[str, ...], text: str) -> None:
    ended = command_line(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert text in " ".join(ended.err.replace("│", " ").split())


def test_a_usage_error_is_the_exit_code_of_the_process() -> None:
    assert finish(start("echo", "nobody")).code == 2


@pytest.mark.parametrize(
    ("missing", "arguments"), [("cyclopts", ["send", "PACS@127.0.0.1:1", "."]), ("rich", ["demo"])]
)
def test_an_installation_without_the_extra_says_so(missing: str, arguments: list[str]) -> None:
    program = f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_module('trio_dicom', run_name='__main__')"
    command = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 1
    assert "pip install 'trio-dicom[cli]'" in ended.stderr
    assert "Traceback" not in ended.stderr
