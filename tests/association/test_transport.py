"""Transports: all the bytes in order, whatever the stream does, and an account of a write that was cancelled."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationAborted,
    AssociationSettings,
    AssociationTimeout,
    ConnectFailed,
    ConnectionLost,
    CStoreSCU,
    Instance,
    Peer,
    Status,
    StorageSCP,
    StoreDelivery,
    Timeouts,
)
from trio_dicom.association import transport as transport_module
from trio_dicom.association.dialling import dial
from trio_dicom.association.transport import SocketTransport, StreamTransport, Transport, WriteProgress, transport_over
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.pdu import Abort, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.protocol.user_information import AsynchronousOperationsWindow
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    loopback_streams,
    make_instance_file,
    message,
    response_to,
    scripted_link,
    scripted_requestor,
    whole_pdus,
)
from trio_dicom.uids import VERIFICATION

BUFFERS = [bytes([number % 251]) * (1 + number % 997) for number in range(5000)]
ALL = b"".join(BUFFERS)


def sockets(size: int = 4096) -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        each.setblocking(False)
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (ours, theirs))
    return one, other


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


async def write_on(transport: Transport) -> None:
    for _ in range(1000):  # the first may still be taken by the kernel
        await transport.write([b"x" * 1000], Told())


class Told(WriteProgress):
    def __init__(self) -> None:
        self.accepted = 0
        self.ends: list[int] = []

    def bytes_accepted(self, count: int) -> None:
        assert count
        self.accepted += 1

    def about_to_write(self, end: int) -> None:
        assert len(self.ends) == self.accepted
        self.ends.append(end)


TRANSPORTS: list[Callable[[], tuple[Transport, trio.abc.ReceiveStream]]] = [
    lambda: (lambda pair: (SocketTransport(pair[0]), pair[1]))(sockets()),
    lambda: (lambda pair: (StreamTransport(pair[0]), pair[1]))(sockets()),
    lambda: (lambda pair: (StreamTransport(pair[0]), pair[1]))(trio.testing.memory_stream_pair()),
    lambda: (lambda pair: (StreamTransport(pair[0]), pair[1]))(trio.testing.lockstep_stream_pair()),
]
EACH = pytest.mark.parametrize("make", TRANSPORTS, ids=["writev", "socket", "memory", "lockstep"])


@EACH
async def test_all_bytes_in_order(make: Callable[[], tuple[Transport, trio.abc.ReceiveStream]]) -> None:
    transport, other = make()
    told = Told()
    received = b""

    async def read() -> None:
        nonlocal received
        received = await read_all(other)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await transport.write([*BUFFERS, memoryview(b"view"), bytearray(b"array"), b""], told)
        await transport.write([b"more"], Told())
        assert await transport.finish()
        await transport.aclose()
    await other.aclose()
    assert received == ALL + b"viewarraymore"
    assert told.accepted > 1
    if told.ends:  # not of a socket
        assert told.ends == sorted({*told.ends})
        assert told.ends[-1] == len(received) - len(b"more")


@pytest.mark.parametrize("pause", [1, 7, 50])
async def test_the_rest_of_a_cancelled_write(pause: int) -> None:
    ours, theirs = sockets()
    transport = SocketTransport(ours)
    received = bytearray()

    async def read() -> None:
        async for chunk in theirs:
            received.extend(chunk)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.write, BUFFERS, Told())
            for _ in range(pause):
                received += await theirs.receive_some(997)
            scope.cancel()
    assert len(received) < len(ALL)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        assert await transport.finish()
        await transport.write([b"good-bye"])
        await transport.aclose()
    await theirs.aclose()
    assert bytes(received) == ALL + b"good-bye"


async def test_a_stream_cannot_finish_a_cancelled_write() -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    transport = StreamTransport(ours)
    with trio.move_on_after(0) as scope:
        await transport.write([b"x" * 100], Told())
    assert scope.cancelled_caught
    assert not await transport.finish()
    await transport.aclose()
    await theirs.aclose()


async def test_pieces_of_a_bounded_size() -> None:
    """SSLStream encrypts all that it is given before its first await."""
    sizes = []

    class Measure(trio.abc.Stream):
        async def send_all(self, data: bytes) -> None:  # type: ignore[override]
            sizes.append(len(data))

        async def wait_send_all_might_not_block(self) -> None: ...

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None: ...

    await StreamTransport(Measure()).write([b"12 bytes hdr", bytes(65_536)] * 64, Told())
    assert max(sizes) <= 256 << 10
    assert min(sizes[:-1]) > 128 << 10
    assert sum(sizes) == 64 * 65_548


def test_a_socket_is_written_at_once_where_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ours, theirs = sockets()
        async with ours, theirs:
            assert isinstance(transport_over(ours), SocketTransport)
            assert isinstance(transport_over(trio.testing.memory_stream_pair()[0]), StreamTransport)
            monkeypatch.setattr(transport_module, "has_gathering_write", False)
            assert isinstance(transport_over(ours), StreamTransport)

    trio.run(main)


async def test_the_same_bytes_without_gathering_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for has in (True, False):
        monkeypatch.setattr(transport_module, "has_gathering_write", has)
        peers = []

        async def script(peer: ScriptedPeer, peers: list[ScriptedPeer] = peers) -> None:
            peers.append(peer)
            await peer.serve()

        async with scripted_link(script, streams=sockets()) as association:
            for size in (100, 3_000_000):
                assert (await CStoreSCU(association).send(io.BytesIO(make_instance_file(size)))).is_success
        seen.append(bytes(peers[0].received))
    assert seen[0] == seen[1]
    assert len(seen[0]) > 3_000_000


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="of Linux and macOS")
async def test_the_kernel_takes_so_much_ahead_of_the_network() -> None:
    ours, theirs = await loopback_streams()
    async with ours, theirs:
        SocketTransport(ours)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 512 << 10


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="of Linux")
async def test_what_came_is_acknowledged_at_once_where_that_is_wanted() -> None:
    ours, theirs = await loopback_streams()
    async with ours, theirs:
        transport = SocketTransport(ours)
        armed = []
        transport._setsockopt = lambda *option: armed.append(option)
        for acknowledge, expected in ((False, 0), (True, 1), (False, 1)):
            await theirs.send_all(b"some")
            assert await transport.read(acknowledge=acknowledge) == b"some"
            assert len(armed) == expected
        assert armed == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)]


@pytest.fixture
def note_waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[bool]]:
    """What is called from now on tells of each wait of a `SocketTransport` whether it acknowledges what came."""
    read = SocketTransport.read

    def note() -> list[bool]:
        waits: list[bool] = []

        async def noted(transport: SocketTransport, *, acknowledge: bool = True) -> bytes:
            waits.append(acknowledge)
            return await read(transport, acknowledge=acknowledge)

        monkeypatch.setattr(SocketTransport, "read", noted)
        return waits

    return note


# A peer with Nagle's algorithm keeps the rest of a message until then; between messages our next one does that as well.


async def test_the_rest_of_a_response_is_never_waited_for_without_acknowledging(
    note_waits: Callable[[], list[bool]],
) -> None:
    async def in_two_parts(peer: ScriptedPeer, answer: bytes) -> None:
        for part in (answer[:8], answer[8:]):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(part)

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for _ in range(2):
            context_id, request = await peer.receive_command()
            await in_two_parts(peer, message(context_id, response_to(request)))
        assert isinstance(await peer.receive_pdu(), ReleaseRQ)
        await in_two_parts(peer, b"".join(ReleaseRP().encode()))

    async with scripted_link(script, [VERIFICATION], streams=await loopback_streams()) as association:
        await trio.testing.wait_all_tasks_blocked()
        waits = note_waits()
        for _ in range(2):
            await association.echo()
            await trio.testing.wait_all_tasks_blocked()
        assert waits == [True, False, True, False]
    assert waits[4:] == [True, False]


@pytest.mark.parametrize("window", [1, 2])
async def test_the_rest_of_a_request_is_never_waited_for_without_acknowledging(
    note_waits: Callable[[], list[bool]], window: int
) -> None:
    waits = []

    async def script(peer: ScriptedPeer) -> None:
        nonlocal waits
        await peer.associate([SOPClass.CT], user_items=[AsynchronousOperationsWindow(window, 1)])
        await trio.testing.wait_all_tasks_blocked()
        waits = note_waits()
        data = message(1, CStoreRQ(1, SOPClass.CT, "1.2.3"), bytes(10))
        data_set_at = len(data) - 22
        for part in (data[:8], data[8:data_set_at], data[data_set_at:-5]):
            await peer.send(part)
            await trio.testing.wait_all_tasks_blocked()
        assert waits == [True, True, True]
        await peer.send(data[-5:])
        await peer.receive_message()

    settings = AssociationSettings(operations_window=2)
    async with scripted_requestor(
        script, StorageSCP(storing), settings=settings, streams=await loopback_streams()
    ) as association:
        await association.wait_closed()
    assert waits[3] is (window > 1)


async def storing(instance: Instance) -> Status:
    await instance.read()
    return Status(0)


# --- the connection goes wrong --------------------------------------------------------------------------------------


async def tcp() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return ours, await listener.accept()


@pytest.mark.fault_row(44)
async def test_a_reset() -> None:
    ours, theirs = await tcp()
    transport = transport_over(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await theirs.aclose()
    with pytest.raises(ConnectionLost, match=r"reset|lost"):
        await transport.read()
    with pytest.raises(ConnectionLost):
        await write_on(transport)
    await transport.aclose()


@EACH
async def test_a_peer_that_has_gone(make: Callable[[], tuple[Transport, trio.abc.ReceiveStream]]) -> None:
    transport, other = make()
    await other.aclose()
    assert await transport.read() == b""
    with pytest.raises(ConnectionLost):
        await write_on(transport)
    await transport.aclose()


@EACH
async def test_closed_on_this_side(make: Callable[[], tuple[Transport, trio.abc.ReceiveStream]]) -> None:
    transport, other = make()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ConnectionLost):
        await transport.read()
    with pytest.raises(ConnectionLost):
        await transport.write([b"x"], Told())
    await other.aclose()


async def test_tcp_is_tuned() -> None:
    ours, theirs = await tcp()
    transport = transport_over(ours)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    await transport.aclose()
    await theirs.aclose()


# --- cancelled in the middle of a batch -----------------------------------------------------------------------------

QUICK = Timeouts(abort_grace=0.3, abort_linger=0.8)


async def cancelled_when_stuck(delivery: StoreDelivery) -> None:
    """However long it takes until it is."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.run)
        while not delivery.has_begun:
            await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


async def cut_in_the_middle(reads_after: float) -> bytes:
    """What a peer gets whose buffers were full when the sender was cancelled."""
    was_cancelled = trio.Event()
    got = bytearray()

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await was_cancelled.wait()
        await trio.sleep(reads_after)
        async for chunk in peer.stream:  # type: ignore[attr-defined]
            got.extend(chunk)
            if got.endswith(b"".join(Abort(0, 0).encode())):
                break
        await peer.close()

    async with scripted_link(script, settings=AssociationSettings(timeouts=QUICK), streams=sockets()) as association:
        await cancelled_when_stuck(CStoreSCU(association).delivery(io.BytesIO(make_instance_file(8 << 20))))
        assert isinstance(association.failure, AssociationAborted)
        was_cancelled.set()
        await association.wait_closed()
    return bytes(got)


async def test_the_batch_in_hand_is_finished_and_then_an_abort() -> None:
    pdus = whole_pdus(await cut_in_the_middle(reads_after=0))
    assert pdus[-1] == Abort(0, 0)
    data = [pdv for pdu in pdus[:-1] if isinstance(pdu, PDataTF) for pdv in pdu.pdvs]
    assert len(data) == len(pdus) - 1
    assert not any(pdv.is_last for pdv in data if not pdv.is_command)
    assert 0 < sum(len(pdv.data) for pdv in data) <= 1 << 20  # one batch, not the queue


async def test_a_peer_that_does_not_read_sees_the_end_alone() -> None:
    """Even if it reads again later: the time for good manners is over."""
    got = await cut_in_the_middle(reads_after=0.5)
    with pytest.raises(ValueError, match="cut off"):
        whole_pdus(got)
    assert not got.endswith(b"".join(Abort(0, 0).encode()))


# --- dialling -------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(1)
async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        peer = Peer("PACS", "127.0.0.1", unused.getsockname()[1])
        with pytest.raises(ConnectFailed) as caught:
            await dial(peer, Timeouts())
    assert caught.value.errno is not None
    assert str(peer) in str(caught.value)
    assert caught.value.attempts[0][0] == f"127.0.0.1:{peer.port}"


@pytest.mark.fault_row(1)
async def test_a_host_that_cannot_be() -> None:
    with pytest.raises(ConnectFailed):
        await dial(Peer("PACS", "a" * 80 + ".example", 104), Timeouts())


async def test_a_host_that_does_not_answer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forever(*_: object) -> trio.SocketStream:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", forever)
    with trio.move_on_after(100) as callers, pytest.raises(AssociationTimeout, match="connecting to PACS@host:104"):
        await dial(Peer("PACS", "host", 104), Timeouts(connect=3))
    assert not callers.cancelled_caught
    assert trio.current_time() == 3
