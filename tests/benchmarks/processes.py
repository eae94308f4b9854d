"""Processes that are measured: what one took, and the C programs compiled."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHOWN = 2000  # characters of what a failed program said


class Failed(Exception):
    """A run, and why it does not count."""


@attrs.frozen
class Usage:
    """What a process took from its start to its end."""

    exit_code: int
    started: float  # as `time.monotonic`
    seconds: float
    cpu: float  # seconds, user and system
    peak_memory: int  # bytes, resident
    output: str
    errors: str


class Process:
    """A program that runs until it ends or `stop`. What it prints goes to files, so it waits for no reader."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str] = {}) -> None:
        self._output, self._errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._usage: Usage | None = None
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env={**environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    @property
    def errors(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), SHOWN, max(0, size - SHOWN)).decode(errors="replace").strip()

    def is_running(self) -> bool:
        """Without reaping it: what it took is asked for later."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, timeout: float) -> Usage:
        """What it took, when it has ended; it is killed after `timeout` seconds, and when this is interrupted."""
        if self._usage is not None:
            return self._usage
        watchdog = threading.Timer(timeout, self._send, [signal.SIGKILL])
        watchdog.start()
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except BaseException:
            self._send(signal.SIGKILL)
            self._process.wait()
            raise
        finally:
            seconds = time.monotonic() - self._started
            watchdog.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._usage = Usage(
            exit_code=self._process.returncode,
            started=self._started,
            seconds=seconds,
            cpu=usage.ru_utime + usage.ru_stime,
            peak_memory=usage.ru_maxrss << 10,
            output=self.output,
            errors=self.errors,
        )
        self._output.close()
        self._errors.close()
        return self._usage

    def stop(self, timeout: float = 20.0) -> Usage:
        if self._usage is None:
            self._send(signal.SIGTERM)
        return self.wait(timeout)

    def _send(self, number: signal.Signals) -> None:
        # Not by methods of Popen, which reap a process that has ended, and with it what it took.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def environment() -> dict[str, str]:
    """That of this process, with the package of this tree to import, and none of the variables that are compared.

    Modules are compiled once, as those of an installed package are, and not in every run.
    """
    left_out = ("TCP_NODELAY", "PYTHONDONTWRITEBYTECODE")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    path = os.pathsep.join(filter(None, [str(ROOT), variables.get("PYTHONPATH")]))
    return variables | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def compiler() -> str | None:
    return shutil.which("cc")


def compiled(name: str, folder: Path) -> Path:
    """The program that is made of `name`.c, in `folder`."""
    source, program = HERE / f"{name}.c", folder / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-pthread", "-o", program, source, "-ldl"], check=True)
    return program
