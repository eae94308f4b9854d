"""Running `trio-dicom`: in this process where that will do, and as a process where signals or start-up matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_dicom.cli.app import run

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "trio_dicom")


@attrs.frozen
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """`trio-dicom` in this process; each call gives how it ended."""

    def __init__(self, capture: pytest.CaptureFixture[str], report_path: Path) -> None:
        self._capture = capture
        self._report_path = report_path

    def __call__(self, *arguments: str | os.PathLike[str]) -> Ended:
        self._capture.readouterr()
        code = run([os.fspath(argument) for argument in arguments])
        return Ended(code, *self._capture.readouterr())

    def send(self, address: str, *arguments: str | os.PathLike[str]) -> tuple[Ended, list[dict[str, Any]]]:
        """`trio-dicom send` with a report, and its lines."""
        self._report_path.unlink(missing_ok=True)
        ended = self("send", address, "--report", self._report_path, *arguments)
        assert self._report_path.exists(), ended
        return ended, read_report(self._report_path)


def read_report(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def start(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
    """`trio-dicom` as a process, with pipes for output and errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *map(os.fspath, arguments)], text=True, env=environment, **pipes)


def finish(process: subprocess.Popen[str], text: str | None = None) -> Ended:
    """Wait for its end."""
    out, err = process.communicate(text, timeout=30)
    return Ended(process.returncode, out, err)
