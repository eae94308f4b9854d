"""Handshakes that fail or do not end: rows 119 to 121 of the fault table."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import warnings

import pytest
import trio
import trio.testing

from support.acceptor_link import CT, Keeper, memory_server
from support.certificates import authority, certify, rsa_key
from support.openssl_peer import TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3, OpenSSLClient
from trio_dicom import (
    AssociationSettings,
    AssociationTimeout,
    Retry,
    StorageSCP,
    Timeouts,
    TLSError,
    TrioDicomError,
    open_association,
    serve_associations,
)
from trio_dicom.association import dialling
from trio_dicom.testing import scripted_listener, storage_scp
from trio_dicom.tls import client_context, server_context

OURS = authority()
SERVER = certify(["server.example", "127.0.0.1"], OURS, key=rsa_key(2048))
CONTEXTS = server_context(SERVER.both), client_context(ca=OURS.pem)
NO_TLS = r"does the peer speak TLS on this port\?"


# --- old versions and weak ciphers ------------------------------------------------------------------------------------

# The second Oakley group (RFC 2409): a 1,024-bit prime that did not have to be looked for.
OAKLEY_2 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    16,
)

WEAK = {  # versions of TLS, and cipher suites, that are all that a peer has
    "TLS 1.0": (TLS_1_0, "ALL:@SECLEVEL=0"),
    "TLS 1.1": (TLS_1_1, "ALL:@SECLEVEL=0"),
    "RSA key exchange": (TLS_1_2, "AES256-GCM-SHA384:@SECLEVEL=0"),
    "CBC": (TLS_1_2, "ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA:@SECLEVEL=0"),
    "no encryption": (TLS_1_2, "eNULL:@SECLEVEL=0"),
    "no authentication": (TLS_1_2, "aNULL:@SECLEVEL=0"),
    "3DES and RC4": (TLS_1_2, "3DES:RC4:AES128-SHA:@SECLEVEL=0"),  # some builds have neither
    "DHE": (TLS_1_2, "DHE-RSA-AES256-GCM-SHA384:@SECLEVEL=0"),
}


def weak_server(version: int, ciphers: str, folder: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of old versions
        context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
    (folder / "server.pem").write_bytes(SERVER.both)
    context.load_cert_chain(folder / "server.pem")
    if ciphers.startswith("DHE"):
        der = b"\x30\x81\x87\2\x81\x81\0" + OAKLEY_2.to_bytes(128, "big") + b"\2\1\2"
        (folder / "dh.pem").write_text(ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "DH PARAMETERS"))
        context.load_dh_params(folder / "dh.pem")
    return context


@pytest.mark.fault_row(119)
@pytest.mark.parametrize("name", WEAK)
async def test_fault119_a_server_that_has_nothing_better(name, tmp_path):
    context, heard = weak_server(*WEAK[name], tmp_path), []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                heard.append(stream.recv(100))
        except OSError as error:
            heard.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(TLSError) as caught:
            async with open_association(f"A@127.0.0.1:{listener.getsockname()[1]}", [CT], tls=CONTEXTS[1]):
                raise AssertionError("there is no association")
        await trio.to_thread.run_sync(thread.join)
    assert caught.value.retry is Retry.AFTER_CONFIG
    assert re.search("ALERT|UNSUPPORTED_PROTOCOL", caught.value.reason)
    assert [type(each) for each in heard] == [ssl.SSLError]


async def with_client(port: int, version: int, ciphers: str | None) -> bool:
    """Whether a client of OpenSSL comes through the handshake."""

    def try_it() -> bool:
        with OpenSSLClient(port, version=version, ciphers=ciphers and ciphers.encode()) as client:
            return client.connect() == 1

    return await trio.to_thread.run_sync(try_it)


@pytest.mark.fault_row(119)
async def test_fault119_clients_that_have_nothing_better(caplog):
    caplog.set_level(logging.INFO, "trio_dicom.association.acceptor")
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_tls)
        for version, ciphers in WEAK.values():
            assert not await with_client(server.port, version, ciphers), ciphers
        await wait_until(lambda: len(caplog.messages) == len(WEAK))
        assert all("the TLS handshake failed" in each for each in caplog.messages)
        for version, ciphers in ((TLS_1_2, None), (TLS_1_2, "ECDHE-RSA-AES128-GCM-SHA256"), (TLS_1_3, None)):
            assert await with_client(server.port, version, ciphers)
        nursery.cancel_scope.cancel()


async def wait_until(condition) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def serve_tls(task_status: trio.TaskStatus[object], service: StorageSCP | None = None) -> None:
    await serve_associations(service or StorageSCP(Keeper()), 0, tls=CONTEXTS[0], task_status=task_status)


# --- one of the two speaks TLS ----------------------------------------------------------------------------------------


@pytest.mark.fault_row(120)
async def test_fault120_a_server_without_tls():
    """It is told what is wrong, and connected to once."""
    connections = []

    async def answer(peer):
        connections.append(peer)
        await peer.receive_pdu()

    async with scripted_listener(answer) as listener:
        with pytest.raises(TLSError, match=NO_TLS) as caught:
            async with open_association(listener.address, [CT], tls=CONTEXTS[1]):
                raise AssertionError("there is no association")
    assert caught.value.retry is Retry.AFTER_CONFIG
    assert len(connections) == 1
    assert not bytes(connections[0].received).startswith(b"\1")  # no A-ASSOCIATE-RQ


@pytest.mark.fault_row(120)
async def test_fault120_a_real_server_without_tls():
    async with storage_scp() as scp:
        with pytest.raises(TLSError, match=NO_TLS):
            async with open_association(scp.address, [CT], tls=CONTEXTS[1]):
                raise AssertionError("there is no association")
        assert not scp.associations


@pytest.mark.fault_row(120)
async def test_fault120_a_client_without_tls(caplog):
    caplog.set_level(logging.INFO, "trio_dicom.association.acceptor")
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_tls)
        with pytest.raises(TrioDicomError, match="speaks TLS") as caught:
            async with open_association(f"A@127.0.0.1:{server.port}", [CT]):
                raise AssertionError("there is no association")
        assert not isinstance(caught.value, TLSError)
        await wait_until(lambda: caplog.messages)
        nursery.cancel_scope.cancel()
    assert ["does the peer speak TLS on this port?" in each for each in caplog.messages] == [True]


# --- handshakes that do not end ---------------------------------------------------------------------------------------


async def hello() -> bytes:
    """The first flight of a client."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream = trio.SSLStream(ours, CONTEXTS[1], server_hostname="server.example")
    return await said_first(theirs, stream)


async def said_first(other_end: trio.abc.Stream, stream: trio.SSLStream[trio.abc.Stream]) -> bytes:
    """What `stream` says of itself in a handshake."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.do_handshake)
        said = bytes(await other_end.receive_some())
        nursery.cancel_scope.cancel()
    return said


async def stall(stream):
    await stream.send_all((await hello())[:100])
    await trio.sleep_forever()


async def silence(stream):
    await trio.sleep_forever()


async def drip(stream):
    for byte in await hello():
        await stream.send_all(bytes((byte,)))
        await trio.sleep(1)


async def garbage(stream):
    await stream.send_all(b"\x16\3\1\1\6\1\0\1\2\3\3" + bytes(range(256)))
    await trio.sleep_forever()


async def noise(stream):
    await stream.send_all(bytes(range(50, 250)))
    await trio.sleep_forever()


async def half_close(stream):
    await stream.send_all((await hello())[:100])
    await stream.send_eof()
    await trio.sleep_forever()


async def endless_records(stream):
    """Handshake messages that never are whole."""
    while True:
        await stream.send_all(b"\x16\3\3\0\4\1\xff\xff\xff")
        await trio.sleep(0.01)


TIMEOUT = "the TLS handshake took longer than 10 s"
NEVER_ENDING = {
    "silence": (silence, 10, TIMEOUT),
    "stall": (stall, 10, TIMEOUT),
    "drip": (drip, 10, TIMEOUT),
    "garbage": (garbage, 0, "the TLS handshake failed"),
    "noise": (noise, 0, "the TLS handshake failed: .*does the peer speak TLS"),
    "half-close": (half_close, 0, "the TLS handshake failed: the peer ended the handshake"),
    "endless": (endless_records, 10, "the TLS handshake (failed|took longer)"),
}


@pytest.mark.fault_row(121)
@pytest.mark.parametrize("name", NEVER_ENDING)
async def test_fault121_a_client_that_does_not_come_to_the_end(name, caplog, autojump_clock):
    """Others come in meanwhile: the server has a task for each."""
    caplog.set_level(logging.INFO, "trio_dicom.association.acceptor")
    script, seconds, text = NEVER_ENDING[name]
    async with memory_server(Keeper(), tls=CONTEXTS) as memory, trio.open_nursery() as nursery:
        stream, start = await memory.reach(), trio.current_time()

        async def follow():
            try:
                await script(stream)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(follow)
        await memory.check_well()
        assert trio.current_time() - start < 1
        await trio.sleep(seconds + 0.5)
        assert memory.waiting == 0
        said = [each for each in caplog.records if each.name.endswith("acceptor")]
        assert [record.levelname for record in said] == ["INFO"]
        nursery.cancel_scope.cancel()
    assert re.search(text, said[0].getMessage())


async def first_flight(stream) -> bytes:
    """What a server answers to the hello that comes over `stream`."""
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(await stream.receive_some())
    return await said_first(ours, trio.SSLStream(theirs, CONTEXTS[0], server_side=True))


async def answer_some(stream, count: int, *, ends: bool = False) -> None:
    await stream.send_all((await first_flight(stream))[:count])
    if ends:
        await stream.send_eof()
    await trio.sleep_forever()


async def drip_answer(stream) -> None:
    for byte in await first_flight(stream):
        await stream.send_all(bytes((byte,)))
        await trio.sleep(1)


SERVERS = {
    "silence": (silence, 10, AssociationTimeout),
    "stall": (lambda stream: answer_some(stream, 60), 10, AssociationTimeout),
    "drip": (drip_answer, 10, AssociationTimeout),
    "garbage": (garbage, 0, TLSError),
    "noise": (noise, 0, TLSError),
    "half-close": (lambda stream: answer_some(stream, 60, ends=True), 0, TLSError),
}


@pytest.mark.fault_row(121)
@pytest.mark.parametrize("name", SERVERS)
async def test_fault121_a_server_that_does_not_come_to_the_end(name, monkeypatch, autojump_clock):
    script, seconds, error = SERVERS[name]
    ours, theirs = trio.testing.memory_stream_pair()

    async def reach(peer):
        await trio.lowlevel.checkpoint()
        return ours

    async def follow():
        try:
            await script(theirs)
        except trio.BrokenResourceError:
            pass

    monkeypatch.setattr(dialling, "_open_tcp", reach)
    settings = AssociationSettings(timeouts=Timeouts(tls_handshake=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        start = trio.current_time()
        with pytest.raises(error) as caught:
            async with open_association(
                "A@h:1", [CT], settings=settings, tls=CONTEXTS[1], server_hostname="server.example"
            ):
                raise AssertionError("there is no association")
        assert seconds <= trio.current_time() - start < seconds + 1
        assert type(caught.value) is error
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        nursery.cancel_scope.cancel()
