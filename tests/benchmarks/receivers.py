"""Receivers of the benchmarks, each a process of its own for each run."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from .processes import Failed, Process, Usage

LISTENS_WITHIN = 20.0  # s
TICK = os.sysconf("SC_CLK_TCK")


class Storing(enum.Enum):
    """How a receiver shows what came."""

    COUNTED = "counted"  # it prints counts: the sink
    FILED = "filed"  # a file for each object, in its folder
    THROWN_AWAY = "thrown away"  # it does not


@attrs.frozen
class Receiver:
    """How one is started. {Words} of its command are the `Workshop`'s, but {port} and {received}."""

    command: tuple[str, ...]
    storing: Storing
    variables: Mapping[str, str] = {}
    note: str = ""  # what is said of it in the report


@attrs.frozen
class Received:
    """What a receiver says of a run; None where it cannot tell."""

    objects: int | None = None
    bytes: int | None = None
    first_byte: float | None = None  # as `time.monotonic`
    cipher: str = ""


class Listening:
    """A receiver that listens."""

    def __init__(self, receiver: Receiver, process: Process, port: int, folder: Path) -> None:
        self.port = port
        self._receiver = receiver
        self._process = process
        self._folder = folder
        self._cpu_before = _cpu_seconds(process.pid)

    def end(self) -> tuple[Usage, Received]:
        """Stop it: what it took, the CPU seconds without those until it listened, and what it received."""
        taken = self._process.stop()
        taken = attrs.evolve(taken, cpu=taken.cpu - self._cpu_before)
        match self._receiver.storing:
            case Storing.COUNTED:
                return taken, _counted(taken)
            case Storing.FILED:
                return taken, Received(objects=len(_files(self._folder)))
            case Storing.THROWN_AWAY:
                return taken, Received()


@contextlib.contextmanager
def listening(receiver: Receiver, words: Mapping[str, str], folder: Path) -> Iterator[Listening]:
    """A receiver that runs, until its `end`; it files in a new folder within `folder`.

    Its files are emptied afterwards, and stay: for minutes ext4 makes no new ones in place of those that were removed,
    and looking for others would be half of what a receiver of the next run does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folder))
    port = 0 if receiver.storing is Storing.COUNTED else _free_port()
    command = [word.format_map({**words, "port": port, "received": folder}) for word in receiver.command]
    process = Process(command, receiver.variables)
    try:
        deadline = time.monotonic() + LISTENS_WITHIN
        while not (printed := process.output.partition("\n")[0] if not port else _is_listening(port)):
            if not process.is_running() or time.monotonic() > deadline:
                raise Failed(f"the receiver does not listen: {process.stop().errors}")
            time.sleep(0.005)
        yield Listening(receiver, process, port or int(printed), folder)
    finally:
        process.stop()
        for path in _files(folder):
            os.truncate(path, 0)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _counted(taken: Usage) -> Received:
    counts = json.loads(taken.output.splitlines()[-1]) if not taken.exit_code else None
    if counts is None or counts["broken"]:
        raise Failed(taken.errors)
    return Received(counts["objects"], counts["bytes"], counts["first_byte"], counts["cipher"])


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_listening(port: int) -> bool:
    """Without connecting to it, which would be an association that fails."""
    lines = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if os.path.exists(table)
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)
