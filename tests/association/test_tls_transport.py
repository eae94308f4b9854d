"""TLS over a transport: all the bytes in order, in records that are whole, until a write is cut off."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from support.certificates import authority, certify
from support.openssl_peer import TLS_1_3, OpenSSLClient
from trio_dicom import ConnectionLost
from trio_dicom.association.tls_transport import TLS_PIECE, TLSTransport
from trio_dicom.association.transport import Buffer, Transport, WriteProgress, transport_over
from trio_dicom.tls import client_context, server_context

OURS = authority()
SERVER = certify(["server.example"], OURS)
VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
BUFFERS = [
    b"header",
    bytes(TLS_PIECE - 6),
    b"another",
    b"",
    memoryview(bytes(range(256)) * 2000),
    *(bytes([number % 251]) * (1 + number % 997) for number in range(1000)),
]
ALL = b"".join(BUFFERS)


class Told(WriteProgress):
    def __init__(self) -> None:
        self.accepted = 0
        self.announced = 0

    def bytes_accepted(self, count: int) -> None:
        self.accepted += count
        assert self.accepted == self.announced

    def about_to_write(self, end: int) -> None:
        assert self.accepted == self.announced < end
        self.announced = end


class Noted(Transport):
    """Another transport, and what is written to it."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.written: list[bytes] = []
        self.waits: list[bool] = []

    async def read(self, *, acknowledge: bool = True) -> bytes:
        self.waits.append(acknowledge)
        return await self.inner.read(acknowledge=acknowledge)

    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        self.written.append(b"".join(buffers))
        await self.inner.write(buffers, progress)

    async def finish(self) -> bool:
        return await self.inner.finish()

    async def aclose(self) -> None:
        await self.inner.aclose()


def socket_transports() -> tuple[Transport, Transport]:
    pair = socket.socketpair()
    for each in pair:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        each.setblocking(False)
    one, other = (transport_over(trio.SocketStream(trio.socket.from_stdlib_socket(each))) for each in pair)
    return one, other


def memory_transports() -> tuple[Transport, Transport]:
    one, other = map(transport_over, trio.testing.memory_stream_pair())
    return one, other


async def secured(
    version: ssl.TLSVersion, pair: tuple[Transport, Transport], server_tls: ssl.SSLContext | None = None
) -> tuple[TLSTransport, TLSTransport]:
    """Client and server after their handshake."""
    client_tls = client_context(ca=OURS.pem)
    client_tls.maximum_version = version
    client = TLSTransport(pair[0], client_tls, server_hostname="server.example")
    server = TLSTransport(pair[1], server_tls or server_context(SERVER.both), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.handshake)
    return client, server


async def read_all(transport: Transport, into: bytearray) -> None:
    while chunk := await transport.read():
        into += chunk


@versions
@pytest.mark.parametrize("make", [socket_transports, memory_transports], ids=["sockets", "memory"])
async def test_all_bytes_in_order_both_ways_at_once(version, make):
    ends = await secured(version, make())
    received = {}

    async def talk(own: TLSTransport) -> None:
        told = Told()
        await own.write(BUFFERS, told)
        await own.write([b"more"])
        assert told.accepted == len(ALL)
        assert await own.finish()

    async def listen(own: TLSTransport) -> None:
        received[own] = b""
        while len(received[own]) < len(ALL) + 4:
            received[own] += await own.read()

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(talk, end)
            nursery.start_soon(listen, end)
    assert {*received.values()} == {ALL + b"more"}
    for end in ends:
        await end.aclose()


@versions
async def test_the_rest_of_a_record_is_not_waited_for_without_acknowledging(version):
    one, other = memory_transports()
    noted = Noted(one)
    client, server = await secured(version, (noted, other))
    server._tls.write(b"an answer")
    records = server._outgoing.read()
    noted.waits.clear()

    async def send_in_two_parts() -> None:
        for part in (records[:-5], records[-5:]):
            await trio.testing.wait_all_tasks_blocked()
            await other.write([part])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_in_two_parts)
        assert await client.read(acknowledge=False) == b"an answer"
    assert noted.waits == [False, True]


@versions
async def test_records_are_whole_and_pieces_bounded(version):
    one, other = memory_transports()
    noted = Noted(one)
    client, server = await secured(version, (noted, other))
    noted.written.clear()
    await client.write([bytes(TLS_PIECE)] * 3 + [b"rest"])
    sizes = list(map(len, noted.written))
    records = TLS_PIECE >> 14
    assert sizes[:3] == [TLS_PIECE + records * (sizes[3] - 4)] * 3
    assert len(sizes) == 4
    await client.aclose()
    received = bytearray()
    await read_all(server, received)
    assert received == bytes(3 * TLS_PIECE) + b"rest"
    await server.aclose()


async def test_tickets_wait_for_the_first_write():
    """A client that has no use for them may have gone, or not read before it has written all."""
    tls = server_context(SERVER.both)
    tls.num_tickets = 2
    one, other = memory_transports()
    noted = Noted(other)
    client, server = await secured(ssl.TLSVersion.TLSv1_3, (one, noted), tls)
    before = len(noted.written)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.read)
        await trio.testing.wait_all_tasks_blocked()
        assert len(noted.written) == before == 1
        nursery.cancel_scope.cancel()
    await server.write([b"a"])
    assert len(noted.written[1]) > 100  # two of them, and a record of one byte, which is 23
    assert await client.read() == b"a"
    for end in (client, server):
        await end.aclose()


@versions
async def test_nothing_follows_a_write_that_was_cut_off(version):
    ours, theirs = trio.testing.lockstep_stream_pair()
    client, server = await secured(version, (transport_over(ours), transport_over(theirs)))
    received = bytearray()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, [bytes(TLS_PIECE)] * 2)
            received += await server.read()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert not await client.finish()
    with trio.move_on_after(1) as in_time:
        await client.aclose()
    assert not in_time.cancelled_caught
    with pytest.raises(ConnectionLost, match="close_notify"):
        await read_all(server, received)
    assert 0 < len(received) <= TLS_PIECE
    await server.aclose()


@versions
async def test_a_close_is_told(version):
    client, server = await secured(version, memory_transports())
    await client.aclose()
    await client.aclose()
    assert await server.read() == b""
    assert await server.read() == b""
    for way in (client.read(), client.write([b"x"])):
        with pytest.raises(ConnectionLost):
            await way
    await server.aclose()


@versions
async def test_an_end_without_a_word_is_a_loss(version):
    one, other = memory_transports()
    _client, server = await secured(version, (one, other))
    await one.aclose()
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="without a TLS close_notify"):
            await server.read()
    await server.aclose()


@versions
async def test_a_record_that_was_tampered_with(version):
    one, other = memory_transports()
    client, server = await secured(version, (one, other))
    await one.write([b"\x17\3\3\0\x20" + bytes(32)])
    with pytest.raises(ConnectionLost, match=r"TLS failed: .*BAD_RECORD_MAC"):
        await server.read()
    await server.aclose()
    await client.aclose()


async def test_a_close_that_nobody_takes_can_be_cancelled(autojump_clock):
    ours, theirs = trio.testing.lockstep_stream_pair()
    client, _server = await secured(ssl.TLSVersion.TLSv1_3, (transport_over(ours), transport_over(theirs)))
    with trio.move_on_after(1) as scope:
        await client.aclose()
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


@pytest.mark.parametrize("is_cut", [False, True])
async def test_an_answer_of_the_reader_waits_for_the_record_that_goes_out(is_cut):
    """And it is not given if that one is cut off: it would be taken for a part of it."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    client, _server = await secured(ssl.TLSVersion.TLSv1_3, (transport_over(ours), transport_over(theirs)))
    writing, losses, got = trio.CancelScope(), [], bytearray()

    async def write() -> None:
        with writing:
            await client.write([b"whole"])

    async def answer() -> None:
        client._outgoing.write(b"answer")  # as OpenSSL does when there are to be new keys
        try:
            await client._send()
        except ConnectionLost as lost:
            losses.append(lost)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(answer)
        got += await theirs.receive_some(10)
        if is_cut:
            writing.cancel()
        else:
            while not got.endswith(b"answer"):
                got += await theirs.receive_some(10)
    assert len(losses) == is_cut
    assert len(got) == 10 if is_cut else len(got) == len(b"whole") + 22 + len(b"answer")
    await trio.aclose_forcefully(ours)


async def test_a_close_does_not_wait_for_a_write_that_is_stuck(autojump_clock):
    ours, theirs = trio.testing.lockstep_stream_pair()
    client, _server = await secured(ssl.TLSVersion.TLSv1_3, (transport_over(ours), transport_over(theirs)))

    async def write() -> None:
        with pytest.raises(ConnectionLost):
            await client.write([b"never read"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await client.aclose()


async def test_what_comes_is_read_while_an_answer_waits_for_a_write_that_is_stuck():
    """A peer that asks for new keys, takes nothing more and aborts: the abort is heard."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with await trio.to_thread.run_sync(lambda: OpenSSLClient(port, version=TLS_1_3)) as peer:
        stream = await listener.accept()
        server = TLSTransport(transport_over(stream), server_context(SERVER.both), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handshake)
            assert await trio.to_thread.run_sync(peer.connect) == 1
        heard: list[bytes] = []

        async def read() -> None:
            while b"abort" not in heard:
                heard.append(await server.read())
            nursery.cancel_scope.cancel()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.write, [bytes(64 << 20)])
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked(0.05)
                for _ in range(2):  # OpenSSL answers the first when it reads on
                    assert await trio.to_thread.run_sync(peer.update_keys) == 1
                    await trio.testing.wait_all_tasks_blocked(0.05)
                assert await trio.to_thread.run_sync(peer.write, b"abort") > 0
        await trio.aclose_forcefully(stream)
        await listener.aclose()
    assert heard == [b"abort"]


async def test_answers_that_nobody_takes_do_not_pile_up():
    ours, theirs = trio.testing.lockstep_stream_pair()
    client, _server = await secured(ssl.TLSVersion.TLSv1_3, (transport_over(ours), transport_over(theirs)))

    class Asked:
        """Of OpenSSL: there is always an answer to give, and never anything to read."""

        def read(self, size: int) -> bytes:
            client._outgoing.write(bytes(1 << 12))
            raise ssl.SSLWantReadError

        def write(self, data: Buffer) -> int:
            return client._outgoing.write(data)

    client._tls = Asked()  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.write, [b"never read"])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.read)
        nursery.start_soon(feed, theirs)
        with trio.move_on_after(1):
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert client._outgoing.pending < 1 << 17
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(ours)


async def feed(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(b"x")
