"""Real receivers for tests: DCMTK's storescp, Orthanc, and pynetdicom in threads of this process.

Each is a plain context manager (conftest.py has fixtures of the same names) that listens on a free port: ready when
the block is entered, gone when it is left. All have `address` ("AET@127.0.0.1:port") and `received()`: the data set
bytes of what was stored, by SOP Instance UID. A program's log is printed when it stops, so pytest shows it for a test
that failed.

What they do to a data set: storescp (with +B) and pynetdicom keep it byte for byte, Deflated too. Orthanc parses it and
writes it anew: undefined lengths of sequences become explicit, superfluous padding of values goes, a deflated one is
deflated again. It refuses what it cannot parse (C000), what the command set names otherwise (A900), and JPEG-LS
near-lossless (A700). A Deflated data set of odd length is refused by DCMTK and Orthanc (odd PDVs).

Nothing here uses trio_dicom: it is the outside view.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom import AE
    from pynetdicom.events import Event

HOST = "127.0.0.1"
VERIFICATION = "1.2.840.10008.1.1"

# By full path: pynetdicom installs scripts under DCMTK's names.
PROGRAMS = {
    "storescp": "/usr/bin/storescp",
    "storescu": "/usr/bin/storescu",
    "dcmsend": "/usr/bin/dcmsend",
    "echoscu": "/usr/bin/echoscu",
    "orthanc": "/usr/sbin/Orthanc",
}

READY_WITHIN = 20.0  # seconds; Orthanc alone on a loaded machine takes two
STOPPED_WITHIN = 5.0  # seconds, for threads
LOG_TAIL = 8_000  # characters shown of a log


def require_peer(name: str) -> str:
    """The full path of the program `name`, one of `PROGRAMS`.

    Where it is missing the test is skipped, or fails if TRIO_DICOM_REQUIRE_PEERS=1.
    """
    path = PROGRAMS[name]
    if not os.access(path, os.X_OK):
        verdict = pytest.fail if os.environ.get("TRIO_DICOM_REQUIRE_PEERS") == "1" else pytest.skip
        verdict(f"{path} is not installed")
    return path


# --- files ----------------------------------------------------------------------------------------------------------


def split_part10(file: bytes) -> tuple[dict[int, bytes], bytes]:
    """The File Meta values by element number, padding stripped, and the data set bytes after them (PS3.10 7.1)."""
    if file[128:132] != b"DICM":
        raise ValueError("no DICM prefix")
    meta: dict[int, bytes] = {}
    at = 132
    while file[at : at + 2] == b"\x02\x00":
        element = int.from_bytes(file[at + 2 : at + 4], "little")
        long_form = file[at + 4 : at + 6] in (b"OB", b"UN", b"UT")
        start = at + (12 if long_form else 8)
        at = start + int.from_bytes(file[at + 8 if long_form else at + 6 : start], "little")
        meta[element] = file[start:at].rstrip(b"\0 ")
    return meta, file[at:]


def data_set_bytes(path: str | os.PathLike[str]) -> bytes:
    """What follows the File Meta of the file at `path`."""
    return split_part10(Path(path).read_bytes())[1]


def by_instance(files: Iterable[bytes]) -> dict[str, bytes]:
    """Data set bytes of Part 10 files, by Media Storage SOP Instance UID."""
    split = (split_part10(file) for file in files)
    return {meta[0x0003].decode("ascii"): data_set for meta, data_set in split}


# --- programs -------------------------------------------------------------------------------------------------------


# Below the range from which systems number outgoing connections; never twice until all have been used.
PORTS = itertools.cycle(random.SystemRandom().sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A TCP port that nobody listens on."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            break
    return port


def is_listening(port: int) -> bool:
    """Whether a socket listens on `port`; where possible without a connection, an association attempt to a peer."""
    if sys.platform != "linux":
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        return False
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table) as lines:
            for fields in (line.split() for line in lines):
                if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":  # TCP_LISTEN
                    return True
    return False


@attrs.define
class Program:
    """A peer that runs as a program, in its own process group and folder."""

    ae_title: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"{self.ae_title}@{HOST}:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args!r} ended or was not ready within {READY_WITHIN:g} s")
            time.sleep(0.005)

    def stop(self) -> None:
        """At once: what a peer has stored goes with its folder, and Orthanc would take seconds to end well."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the children of a storescp that forks
        self.process.wait()


def start(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # Should this process be killed, so is the peer; likewise when the thread ends that started it: no worker threads.
    setpriv = shutil.which("setpriv")
    bound = [setpriv, "--pdeathsig=KILL", "--"] if setpriv else []
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [*bound, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )


@contextlib.contextmanager
def stopped_at_the_end(program: Program) -> Iterator[None]:
    try:
        yield
    finally:
        program.stop()
        print(f"--- log of {program.address}\n{program.log[-LOG_TAIL:]}")


@attrs.define
class Storescp(Program):
    """DCMTK's storescp. It is for one association at a time unless started with `--fork`."""

    @property
    def files(self) -> list[Path]:
        """What it has stored, sorted by name. An object that is just coming in may be among them."""
        return sorted((self.folder / "received").iterdir())

    def received(self) -> dict[str, bytes]:
        return by_instance(path.read_bytes() for path in self.files)


@contextlib.contextmanager
def storescp(
    tmp_path: Path, *options: str, ae_title: str = "STORESCP", bit_preserving: bool = True, nodelay: bool = True
) -> Iterator[Storescp]:
    """DCMTK's storescp with `options` (`--abort-after`, `--refuse`, `--sleep-after 1` as two strings, ...).

    It accepts every SOP class (`-pm`) in every transfer syntax that DCMTK knows (`+xa`; not both with `--config-file`,
    so then neither is given), and writes the data sets as they came (`+B`) unless `bit_preserving` is False. Without
    `nodelay` it answers as installed: 40 ms late, for a sender that does not acknowledge at once.
    """
    binary = require_peer("storescp")
    folder = Path(tempfile.mkdtemp(prefix="storescp-", dir=tmp_path))
    (folder / "received").mkdir()
    port = free_port()
    accept = [] if {"-xf", "--config-file"} & {*options} else ["+xa", "-pm"]
    keep = ["+B"] if bit_preserving else []
    command = [binary, "-v", *accept, *keep, "-aet", ae_title, "-od", str(folder / "received"), *options, str(port)]
    process = start(command, folder, {"TCP_NODELAY": str(int(nodelay))})
    peer = Storescp(ae_title, port, folder, process)
    with stopped_at_the_end(peer):
        peer.wait_until(lambda: is_listening(port))
        yield peer


@attrs.define
class Orthanc(Program):
    """Orthanc, with its REST API at `http_port`."""

    http_port: int

    def get(self, path: str) -> bytes:
        """The body that the REST API answers to GET `path`, which begins with a slash."""
        # Not urlopen: a proxy of the environment is none of loopback's business.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{HOST}:{self.http_port}{path}", timeout=10) as response:
            body: bytes = response.read()
            return body

    def is_ready(self) -> bool:
        try:
            self.get("/system")
        except (urllib.error.URLError, ConnectionError):
            return False
        return is_listening(self.port)

    def instances(self) -> list[str]:
        """Orthanc's own identifiers of the instances that it has."""
        identifiers: list[str] = json.loads(self.get("/instances"))
        return identifiers

    def file(self, identifier: str) -> bytes:
        """The Part 10 file of an instance. The File Meta is Orthanc's."""
        return self.get(f"/instances/{identifier}/file")

    def received(self) -> dict[str, bytes]:
        return by_instance(self.file(identifier) for identifier in self.instances())


@contextlib.contextmanager
def orthanc(tmp_path: Path, *, ae_title: str = "ORTHANC", **configuration: Any) -> Iterator[Orthanc]:
    """Orthanc with an empty storage; it accepts everything from everybody. `configuration` goes over the defaults."""
    binary = require_peer("orthanc")
    folder = Path(tempfile.mkdtemp(prefix="orthanc-", dir=tmp_path))
    port, http_port = free_port(), free_port()
    settings = {
        "Name": "trio_dicom tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "StorageCompression": False,
        "SyncStorageArea": False,
        "OverwriteInstances": False,
        "Plugins": [],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "WebDavEnabled": False,
        "DicomServerEnabled": True,
        "DicomAet": ae_title,
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "AcceptedTransferSyntaxes": ["1.*"],
        "UnknownSopClassAccepted": True,
        **configuration,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings, indent=1))
    process = start([binary, "--verbose-dicom", str(folder / "orthanc.json")], folder, {"TCP_NODELAY": "1"})
    peer = Orthanc(ae_title, port, folder, process, http_port)
    with stopped_at_the_end(peer):
        peer.wait_until(peer.is_ready)
        yield peer


# --- pynetdicom -----------------------------------------------------------------------------------------------------


@attrs.define
class PynetdicomSCP:
    """pynetdicom as a receiver, and all it has seen, in the order of its threads."""

    ae_title: str
    port: int = 0
    stored: list[tuple[str, bytes]] = attrs.Factory(list)  # SOP Instance UID, data set bytes
    pdus: list[Any] = attrs.Factory(list)  # as pynetdicom decoded them
    pdu_bytes: list[bytes] = attrs.Factory(list)  # each PDU whole, header included

    @property
    def address(self) -> str:
        return f"{self.ae_title}@{HOST}:{self.port}"

    def received(self) -> dict[str, bytes]:
        return dict(self.stored)


@contextlib.contextmanager
def pynetdicom_scp(
    *,
    ae_title: str = "PYNETDICOM",
    statuses: Iterable[int | Dataset] = (),
    supported: Mapping[str, Sequence[str]] | None = None,
    configure: Callable[[AE], None] | None = None,
) -> Iterator[PynetdicomSCP]:
    """pynetdicom in threads of this process.

    `statuses` answer the C-STORE requests one after another (an int, or a Dataset with Status, Error Comment, ...),
    then comes 0000; an object is in `stored` whatever its status. `supported` has transfer syntaxes by abstract syntax;
    without it every storage, private or unknown SOP class is accepted in the first transfer syntax proposed, and
    Verification. `configure` is given the AE before it listens.
    """
    from pynetdicom import AE, _config, evt
    from pynetdicom.transport import ThreadedAssociationServer

    peer = PynetdicomSCP(ae_title)
    answers = iter(statuses)

    def on_store(event: Event) -> int | Dataset:
        request: Any = event.request
        peer.stored.append((str(request.AffectedSOPInstanceUID), request.DataSet.getvalue()))
        return next(answers, 0x0000)

    ae = AE(ae_title)
    if supported is None:
        ae.add_supported_context(VERIFICATION)
    for abstract_syntax, transfer_syntaxes in (supported or {}).items():
        ae.add_supported_context(abstract_syntax, list(transfer_syntaxes))
    if configure:
        configure(ae)
    handlers: list[Any] = [
        (evt.EVT_C_STORE, on_store),
        (evt.EVT_PDU_RECV, lambda event: peer.pdus.append(event.pdu)),
        (evt.EVT_DATA_RECV, lambda event: peer.pdu_bytes.append(event.data)),
    ]
    unrestricted = _config.UNRESTRICTED_STORAGE_SERVICE
    _config.UNRESTRICTED_STORAGE_SERVICE = supported is None
    server = ae.make_server((HOST, 0), evt_handlers=handlers, server_class=ThreadedAssociationServer)
    peer.port = server.server_address[1]
    # Not AE.start_server: it looks only twice a second whether it is to stop.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        _config.UNRESTRICTED_STORAGE_SERVICE = unrestricted
        socketserver.BaseServer.shutdown(server)
        server.server_close()
        for association in server.active_associations:
            association.abort()
            association.join(STOPPED_WITHIN)
        thread.join(STOPPED_WITHIN)
