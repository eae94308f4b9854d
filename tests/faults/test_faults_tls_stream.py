"""Connections over TLS that break or are misused after the handshake: rows 123 to 125 of the fault table."""

from __future__ import annotations

import contextlib
import io
import ssl

import pytest
import trio
import trio.testing

from support.acceptor_link import CT, DATA_SET, FILE, Keeper, memory_server, store_rq
from support.certificates import authority, certify
from support.openssl_peer import TLS_1_2, TLS_1_3, OpenSSLClient
from trio_dicom import (
    ConnectionLost,
    CStoreSCU,
    StorageSCP,
    open_association,
    serve_associations,
    wrap_client_stream,
)
from trio_dicom.association.transport import StreamTransport
from trio_dicom.protocol.command import CEchoRQ
from trio_dicom.protocol.pdu import Abort, ReleaseRP, ReleaseRQ
from trio_dicom.testing import (
    ScriptedPeer,
    association_request,
    encoded,
    make_instance_file,
    message,
    scripted_listener,
    whole_pdus,
)
from trio_dicom.tls import client_context, server_context
from trio_dicom.uids import VERIFICATION

OURS = authority()
SERVER = certify(["server.example", "127.0.0.1"], OURS)
VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def contexts(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of the server, and of who connects."""
    server, client = server_context(SERVER.both), client_context(ca=OURS.pem)
    server.maximum_version = client.maximum_version = version
    return server, client


async def vanish(peer: ScriptedPeer) -> None:
    """Close the connection, and say no good-bye."""
    await trio.aclose_forcefully(peer.stream.transport_stream)


# --- EOF without close_notify -----------------------------------------------------------------------------------------


@versions
@pytest.mark.fault_row(123)
@pytest.mark.parametrize("when", ["idle", "asked"])
async def test_fault123_a_server_that_vanishes(when, version):
    server, client = contexts(version)

    async def script(peer):
        await peer.accept()
        if when == "asked":
            await peer.receive_message()
        await vanish(peer)

    async with (
        scripted_listener(script, tls=server) as listener,
        open_association(listener.address, [CT], tls=client) as association,
    ):
        if when == "asked":
            with pytest.raises(ConnectionLost) as caught:
                await CStoreSCU(association).send(io.BytesIO(FILE))
            assert caught.value.in_doubt
        await association.wait_closed()
        assert isinstance(association.failure, ConnectionLost)
        assert "without a TLS close_notify" in association.failure.detail


@versions
@pytest.mark.fault_row(123)
async def test_fault123_a_server_that_vanishes_after_the_release(version):
    server, client = contexts(version)

    async def script(peer):
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request)
        assert await peer.receive_pdu() == ReleaseRQ()
        await peer.send(ReleaseRP())
        await vanish(peer)

    async with scripted_listener(script, tls=server) as listener:
        async with open_association(listener.address, [CT], tls=client) as association:
            assert (await CStoreSCU(association).send(io.BytesIO(FILE))).is_success
        assert association.failure is None


@versions
@pytest.mark.fault_row(123)
@pytest.mark.parametrize("cut", [0, 20, 200])
async def test_fault123_a_client_that_vanishes(cut, version, autojump_clock):
    """In the middle of an object, of which nothing is kept."""
    keeper = Keeper()
    async with memory_server(keeper, tls=contexts(version)) as memory:
        peer = await memory.associate()
        head = message(1, store_rq(FILE), DATA_SET)
        await peer.send(head[: len(head) - 1 - cut])
        await trio.testing.wait_all_tasks_blocked()
        await vanish(peer)
        await memory.check_empty()
        assert keeper.stored == []
        await memory.check_well()


# --- what TLS can do besides ------------------------------------------------------------------------------------------


class Bytewise(trio.abc.Stream):
    """Each byte goes out in a record of its own."""

    def __init__(self, stream):
        self._stream = stream

    async def send_all(self, data):
        for byte in bytes(data):
            await self._stream.send_all(bytes((byte,)))

    async def receive_some(self, max_bytes=None):
        return await self._stream.receive_some(1)

    async def wait_send_all_might_not_block(self):
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self):
        await self._stream.aclose()


@versions
@pytest.mark.fault_row(124)
async def test_fault124_records_of_a_byte_and_many_tickets(version):
    server, client = contexts(version)
    server.num_tickets = 20
    server.options &= ~ssl.OP_NO_TICKET

    async def bytewise(peer):
        peer.stream = Bytewise(peer.stream)
        await peer.serve()

    async with scripted_listener(bytewise, tls=server) as listener:
        async with open_association(listener.address, [CT], tls=client) as association:
            for _ in range(3):
                assert (await CStoreSCU(association).send(io.BytesIO(FILE))).is_success
        assert association.failure is None
    assert DATA_SET in bytes(listener.peers[0].received)


@versions
@pytest.mark.fault_row(124)
async def test_fault124_records_of_a_byte_to_a_server(version, autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper, tls=contexts(version)) as memory:
        peer = await memory.connect()
        peer.stream = Bytewise(peer.stream)
        await peer.associate([CT])
        assert (await peer.store(FILE)).status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert [data for _, data in keeper.stored] == [DATA_SET]


ECHO = message(1, CEchoRQ(1, VERIFICATION))


def associate(client: OpenSSLClient) -> bytes:
    """As far as the answer's first byte."""
    assert client.connect() == 1
    assert client.write(encoded(association_request([VERIFICATION]))) > 0
    return client.read(1 << 14)


async def in_a_thread(function, version: ssl.TLSVersion, openssl_version: int):
    """Run `function` with a client of OpenSSL that connects to a server of ours."""

    def run(port: int):
        with OpenSSLClient(port, version=openssl_version) as client:
            return function(client)

    async def serve(task_status):
        await serve_associations(StorageSCP(Keeper()), 0, tls=contexts(version)[0], task_status=task_status)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        found = await trio.to_thread.run_sync(run, server.port)
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.fault_row(124)
async def test_fault124_no_renegotiation():
    """The server does not do it; what was said before came through."""

    def misbehave(client):
        assert associate(client)[0] == 2
        assert client.write(ECHO) > 0
        assert client.read(1 << 14)[0] == 4
        return client.renegotiate()

    assert await in_a_thread(misbehave, ssl.TLSVersion.TLSv1_2, TLS_1_2) <= 0


@pytest.mark.fault_row(124)
async def test_fault124_a_flood_of_key_updates():
    """Each of them asks for one in return; the data between them is right."""

    def misbehave(client):
        assert associate(client)[0] == 2
        for _ in range(500):
            assert client.update_keys() == 1
        answers = []
        for _ in range(3):
            assert client.write(ECHO) > 0
            answers.append(client.read(1 << 14)[:1])
            assert client.update_keys() == 1
        return answers

    assert await in_a_thread(misbehave, ssl.TLSVersion.TLSv1_3, TLS_1_3) == [b"\4"] * 3


@versions
@pytest.mark.fault_row(124)
async def test_fault124_nothing_to_resume_and_so_no_early_data(version, autojump_clock):
    async with memory_server(Keeper(), tls=contexts(version)) as memory:
        peer = await memory.associate()
        assert await peer.echo() == 0x0000
        session = peer.stream._ssl_object.session
        assert session is None or not session.has_ticket
        assert await peer.release() == ReleaseRP()


# --- a cancelled write ------------------------------------------------------------------------------------------------


class Wall(trio.abc.Stream):
    """Takes the first write, and holds up the second."""

    def __init__(self):
        self.taken = []
        self.is_closed = False

    async def send_all(self, data):
        self.taken.append(bytes(data))
        if len(self.taken) > 1:
            await trio.sleep_forever()

    async def receive_some(self, max_bytes=None):
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def aclose(self):
        self.is_closed = True
        await trio.lowlevel.checkpoint()


@pytest.mark.fault_row(125)
async def test_fault125_nothing_follows_a_write_that_was_cancelled(autojump_clock):
    wall = Wall()
    transport = StreamTransport(wall)
    await transport.write([b"a"])
    assert await transport.finish()
    with trio.move_on_after(1) as scope:
        await transport.write([b"b", b"c"])
    assert scope.cancelled_caught
    assert not await transport.finish()
    with trio.move_on_after(1) as scope:
        await transport.aclose()
    assert (wall.taken, wall.is_closed, scope.cancelled_caught) == ([b"a", b"bc"], True, False)


@versions
@pytest.mark.fault_row(125)
async def test_fault125_a_cancelled_object_ends_without_an_abort(version, autojump_clock):
    """What the peer has is a beginning of what was to be sent, and it is told nothing else."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    server, client = contexts(version)
    peer = ScriptedPeer(trio.SSLStream(theirs, server, server_side=True))
    stream = trio.SSLStream(ours, client, server_hostname="server.example")
    async with trio.open_nursery() as nursery:

        async def read_a_little():
            await peer.accept()
            for _ in range(3):
                await peer.receive_pdu()

        nursery.start_soon(read_a_little)
        association = await wrap_client_stream(nursery, stream, [CT])
        with trio.move_on_after(5) as scope:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file(8 << 20)))
        assert scope.cancelled_caught
        await association.wait_closed()
        with contextlib.suppress(trio.BrokenResourceError):  # cut off in the middle of a record
            while await peer.receive_pdu() is not None:
                pass
    pdus = whole_pdus(peer.received, may_be_cut=True)
    assert len(pdus) > 3
    assert not any(isinstance(pdu, Abort) for pdu in pdus)
