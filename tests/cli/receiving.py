"""`trio-dicom receive` as a process, and a caller that says to it what a test wants."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import attrs

from cli.command_line import Ended, finish, start
from trio_dicom import AssociationSettings
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.negotiation import as_presentation_contexts, propose
from trio_dicom.protocol.pdu import PDU
from trio_dicom.testing import SOPClass, make_instance_file, message, whole_pdus
from trio_dicom.uids import VERIFICATION

WITHIN = 10.0  # s


@attrs.define
class Receiving:
    """A receiver that listens."""

    process: subprocess.Popen[str]
    folder: Path
    host: str
    port: int
    title: str
    callers: list[Caller] = attrs.field(factory=list)  # whose connections are closed in the end

    @property
    def address(self) -> str:
        """AET@host:port; the title is right."""
        return f"{'PEER' if self.title == 'ANY' else self.title}@{self.host}:{self.port}"

    def out(self) -> str:
        """The next line of standard output, waited for."""
        return _line(self.process.stdout)

    def err(self) -> str:
        """The next line of standard error, waited for."""
        return _line(self.process.stderr)

    def files(self) -> list[str]:
        """What is in the folder, hidden files among it."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def wait_until_arriving(self) -> None:
        """Until an object is being written."""
        deadline = time.monotonic() + WITHIN
        while not any(name.startswith(".arriving") for name in os.listdir(self.folder)):
            assert time.monotonic() < deadline
            os.sched_yield()

    def stop(self, number: int = signal.SIGINT) -> Ended:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return finish(self.process)


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().rstrip("\n")


@contextlib.contextmanager
def receiving(folder: Path, *options: str | os.PathLike[str]) -> Iterator[Receiving]:
    """A receiver on a free port, which files in `folder`. Its first line has been read."""
    with ended_with_the_test(start("receive", "--port", "0", "--output", folder, *options), folder) as receiver:
        yield receiver


@contextlib.contextmanager
def ended_with_the_test(process: subprocess.Popen[str], folder: Path) -> Iterator[Receiving]:
    """The receiver that `process` is. Its first line has been read."""
    callers: list[Caller] = []
    try:
        receiver = listening(process, folder)
        callers = receiver.callers
        yield receiver
    finally:
        for caller in callers:
            caller.close()
        if process.poll() is None:
            process.kill()
            process.communicate()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def listening(process: subprocess.Popen[str], folder: Path) -> Receiving:
    """Wait for the first line of `process`."""
    first = _line(process.stdout)
    found = re.fullmatch(r"listening on (.+):(\d+) as (.+)", first)
    assert found is not None, (first, process.poll() is not None and finish(process))
    return Receiving(process, folder, found[1], int(found[2]), found[3])


class Caller:
    """A requestor without a mind of its own, over a blocking socket."""

    def __init__(self, receiving: Receiving) -> None:
        self.socket = socket.create_connection((receiving.host, receiving.port), timeout=WITHIN)
        receiving.callers.append(self)
        settings = AssociationSettings(calling_ae_title="CALLER")
        called = "ANY" if receiving.title == "ANY" else receiving.title
        self.say(*propose(as_presentation_contexts([SOPClass.CT, VERIFICATION]), called, settings).encode())
        assert self.hear().pdu_type == 2

    def say(self, *data: bytes | bytearray | memoryview) -> None:
        self.socket.sendall(b"".join(data))

    def hear(self) -> PDU:
        """The next PDU."""
        header = self._read(6)
        (pdu,) = whole_pdus(header + self._read(int.from_bytes(header[2:], "big")))
        return pdu

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, "closed"
            data += piece
        return data

    def close(self) -> None:
        self.socket.close()


def store_request(size: int = 256, *, uid: str | None = None) -> bytes:
    """A whole C-STORE-RQ, of one object."""
    file = make_instance_file(size)
    return message(1, CStoreRQ(1, SOPClass.CT, uid or "2.25.1000.1"), file[file.index(b"\x08\0\x16\0UI") :])


def first_pdus(data: bytes, size: int) -> bytes:
    """The PDUs at the beginning of `data` that make up `size` bytes at most."""
    end = 0
    while (following := end + 6 + int.from_bytes(data[end + 2 : end + 6], "big")) <= size:
        end = following
    return data[:end]
