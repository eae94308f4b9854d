"""A server on loopback, in a process of its own: rows 61, 62, 69, 92 of the fault table, and silent TLS clients."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from support.acceptor_link import CT, FILE
from trio_dicom import AssociationSettings, Timeouts, echo
from trio_dicom.protocol.pdu import Abort, ReleaseRP
from trio_dicom.testing.scripted_peer import ScriptedPeer
from trio_dicom.testing.tls import tls_contexts

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at a process by way of /proc")

ROOT = Path(__file__).resolve().parents[2]
PATIENT = AssociationSettings(timeouts=Timeouts(connect=20, tls_handshake=20, association=20, response=20))

SERVER = """
import resource, ssl, sys
import trio
from trio_dicom import Admission, AssociationSettings, StorageSCP, Timeouts, serve_associations

certificate, descriptors, waiting = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tls = None
if certificate:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
if descriptors:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

async def store(instance):
    await instance.read()
    return 0x0000

async def main():
    settings = AssociationSettings(timeouts=Timeouts(tls_handshake=30, artim=30))
    admission = Admission(connections_waiting=waiting)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve_associations(
                StorageSCP(store), 0, settings=settings, admission=admission, tls=tls, task_status=task_status))
        print(server.port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        await server.drain(1)
    print("well", flush=True)

trio.run(main)
"""


class Process:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    @property
    def rss(self) -> int:
        """KiB."""
        (line,) = (
            line for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines() if "VmRSS" in line
        )
        return int(line.split()[1])

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    @property
    def cpu(self) -> float:
        """Seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def settled(self) -> None:
        """Wait until it has closed what it has to close: one descriptor of a listener, and those of trio."""
        with trio.fail_after(20):
            while self.descriptors > self.quiet:  # noqa: ASYNC110  # another process tells nobody
                await trio.sleep(0.01)

    quiet = 0

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    async def good(self, tls: ssl.SSLContext | None = None) -> float:
        """The seconds in which an association, an echo and a release are done."""
        start = time.monotonic()
        await echo(f"ANY-SCP@127.0.0.1:{self.port}", settings=PATIENT, tls=tls)
        return time.monotonic() - start


@contextmanager
def server_process(certificate: Path | str = "", *, descriptors: int = 0, waiting: int = 128):
    """It is asked to drain at the end, and has to end well."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER, str(certificate), str(descriptors), str(waiting)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        try:
            found = Process(process, int(process.stdout.readline()))
            found.quiet = found.descriptors
            yield found
            out, errors = process.communicate("", timeout=20)
            assert (out, process.returncode) == ("well\n", 0), errors
            assert "Traceback" not in errors.replace("OSError: [Errno 24]", "") or descriptors, errors
        finally:
            process.kill()


@contextmanager
def enough_descriptors(count: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this process may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault_row(61)
async def test_fault61_a_flood_of_silent_connections():
    with enough_descriptors(3000), server_process() as server, ExitStack() as stack:
        await server.good()
        before = server.rss
        silent = []
        for _ in range(20):
            silent += [stack.enter_context(server.connect()) for _ in range(100)]  # less than the backlog
            assert await server.good() < 5
        assert server.descriptors < server.quiet + 128
        assert server.rss - before < 4096
        # Those that made room were closed, and not reset: the end is all that they hear.
        silent[0].settimeout(5)
        assert silent[0].recv(1) == b""


@pytest.mark.fault_row(61)
async def test_fault61_out_of_descriptors():
    """It pauses, does not spin, and goes on when there are descriptors again."""
    with server_process(descriptors=40, waiting=4000) as server:
        await server.good()
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(server.connect())
            with trio.fail_after(20):
                while server.descriptors < 40:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            cpu, start = server.cpu, time.monotonic()
            await trio.sleep(0.5)  # what is measured is what it does meanwhile
            assert server.cpu - cpu < 0.5 * (time.monotonic() - start)
        await server.settled()
        assert await server.good() < 5


BOMBS = {
    "fault62-length_bomb": b"\1\0\xff\xff\xff\xff" + b"x" * 10_000,
    "fault62-just_too_long": b"\1\0\x00\x10\0\1" + b"x" * 10_000,
}


def sub_item_bomb() -> bytes:
    context = b"\1\0\0\0\x30\0" + struct.pack(">H", len(CT)) + CT.encode() + b"\x40\0\xff\xff" * 16_000
    body = struct.pack(">H2x16s16s32x", 1, b"STORE".ljust(16), b"SCU".ljust(16)) + b"\x20\0"
    body += struct.pack(">H", len(context)) + context
    return struct.pack(">BxL", 1, len(body)) + body


def harmless() -> bytes:
    """As many bytes, and wrong, but no bomb."""
    return sub_item_bomb()[:74] + bytes(len(sub_item_bomb()) - 74)


BOMBS["fault69-sub_item_bomb"] = sub_item_bomb()
BOMBS["fault69-item_bomb"] = harmless()


@pytest.mark.fault_row(62, 69)
@pytest.mark.parametrize(
    ("bomb", "growth"),
    [(bomb, 1024 if "length" in name or "long" in name else 4096) for name, bomb in BOMBS.items()],  # KB
    ids=BOMBS,
)
async def test_bombs_leave_memory_and_others_as_they_were(bomb, growth):
    async def throw(bomb=bomb):
        peer = ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
        await peer.send(bomb)
        assert await peer.receive_pdu() == Abort(2, 6)
        await peer.close()

    async def throw_ten():
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(throw)

    with server_process() as server:
        other = ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
        async with other.stream:
            await other.associate()
            assert (await other.store(FILE)).status == 0x0000
            await throw(harmless())
            before = server.rss
            await throw()
            assert server.rss - before < growth
            await throw_ten()
            before = server.rss
            for _ in range(5):
                await throw_ten()
                assert (await other.store(FILE)).status == 0x0000
            assert server.rss - before < growth
            assert await other.release() == ReleaseRP()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    contexts = tls_contexts()
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(contexts.server_certificate_pem + contexts.server_key_pem)
    return contexts.client, path


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01", b"\x16"], ids=["silent", "hello_begun", "a_byte"])
@pytest.mark.fault_row(121)
async def test_silent_tls_clients_hold_up_nobody(first, tls):
    client, certificate = tls
    with server_process(certificate) as server, ExitStack() as stack:
        await server.good(client)
        before = server.rss
        for _ in range(100):
            connection = stack.enter_context(server.connect())
            connection.sendall(first)
        assert await server.good(client) < 5
        assert server.descriptors < server.quiet + 50
        assert server.rss - before < 8192


@pytest.mark.parametrize("first", [b"\1\0\0\0\0\x44" + bytes(68), b"GET / HTTP/1.0\r\n\r\n", os.urandom(500)],
                         ids=["plain", "http", "noise"])  # fmt: skip
@pytest.mark.fault_row(120, 121)
async def test_clients_that_do_not_speak_tls(first, tls):
    client, certificate = tls
    with server_process(certificate) as server:
        with server.connect() as connection:
            connection.sendall(first)
            told = bytearray()
            try:
                while data := connection.recv(1000):
                    told += data
            except ConnectionResetError:
                pass
        assert not told or told[0] == 0x15  # a TLS alert, no PDU
        assert await server.good(client) < 5
        await server.settled()


@pytest.mark.fault_row(92)
async def test_fault92_many_associations_over_sockets():
    reset = struct.pack("ii", 1, 0)

    async def cycle(number):
        peer = ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
        await peer.associate()
        if number % 4 == 0:
            await peer.abort()
        elif number % 4 == 1:
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            await peer.close()
        else:
            assert (await peer.store(FILE)).status == 0x0000
            assert await peer.release() == ReleaseRP()

    with server_process() as server:
        for number in range(100):
            await cycle(number)
        await server.settled()
        before = server.rss
        for number in range(400):
            await cycle(number)
        await server.settled()
        assert server.rss - before < 2048
