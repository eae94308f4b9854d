"""open_association over TLS: the right certificate, and what happens with any other, or none."""

from __future__ import annotations

import io
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationSettings,
    AssociationTimeout,
    ConnectionLost,
    CStoreSCU,
    Retry,
    Timeouts,
    TLSError,
    TLSVerifyError,
    open_association,
)
from trio_dicom.testing import (
    ScriptedListener,
    ScriptedPeer,
    SOPClass,
    TLSContexts,
    TLSFault,
    make_instance_file,
    scripted_listener,
    storage_scp,
    tls_contexts,
)

HOST = "archive.example"
CT = [SOPClass.CT]


@pytest.fixture(scope="module")
def contexts() -> TLSContexts:
    return tls_contexts(HOST)


@asynccontextmanager
async def silence() -> AsyncIterator[ScriptedListener]:
    """A port where nothing is said, and no handshake done."""

    async def nothing(peer: ScriptedPeer) -> None:
        await trio.sleep_forever()

    async with scripted_listener(nothing) as listener:
        yield listener


async def test_the_right_certificate(contexts: TLSContexts) -> None:
    async with scripted_listener(ScriptedPeer.serve, tls=contexts.server) as listener:
        opened = open_association(listener.address, CT, tls=contexts.client, server_hostname=HOST)
        async with opened as association:
            for size in (100, 2_000_000):
                assert (await CStoreSCU(association).send(io.BytesIO(make_instance_file(size)))).is_success
        assert association.failure is None
    assert len(listener.peers[0].received) > 2_000_000


async def test_the_host_is_that_of_the_peer() -> None:
    contexts = tls_contexts("127.0.0.1")
    async with (
        scripted_listener(ScriptedPeer.serve, tls=contexts.server) as listener,
        open_association(listener.address, CT, tls=contexts.client) as association,
    ):
        assert association.is_open


@pytest.mark.parametrize("fault", [TLSFault.OTHER_AUTHORITY, TLSFault.WRONG_HOST, TLSFault.EXPIRED])
async def test_a_certificate_that_is_not_trusted(fault: TLSFault) -> None:
    contexts = tls_contexts(HOST, fault=fault)
    async with scripted_listener(ScriptedPeer.serve, tls=contexts.server) as listener:
        with pytest.raises(TLSVerifyError) as caught:
            async with open_association(listener.address, CT, tls=contexts.client, server_hostname=HOST):
                raise AssertionError("there is no association")
        await trio.testing.wait_all_tasks_blocked(0.02)
    assert isinstance(caught.value, TLSError)
    assert listener.address in str(caught.value)
    assert not any(peer.received for peer in listener.peers)  # not one byte of DICOM


async def test_a_peer_without_tls(contexts: TLSContexts) -> None:
    async def shout(peer: ScriptedPeer) -> None:
        await peer.send(b"\x03\0\0\0\0\x04\0\1\1\1")
        await peer.close()

    async with scripted_listener(shout) as listener:
        with pytest.raises(TLSError, match="does the peer speak TLS on this port") as caught:
            async with open_association(listener.address, CT, tls=contexts.client, server_hostname=HOST):
                raise AssertionError("there is no association")
    assert type(caught.value) is TLSError


async def no_words(peer: ScriptedPeer) -> None:
    await peer.stream.receive_some()
    await peer.close()


async def the_wrong_words(peer: ScriptedPeer) -> None:
    await peer.stream.receive_some()
    await peer.send(b"\x15\3\3\0\2\2\x28")  # the alert handshake_failure
    await peer.close()


async def words_cut_off(peer: ScriptedPeer) -> None:
    await peer.stream.receive_some()
    await peer.send(b"\x16\3\3\0\x7a\2")  # the beginning of a ServerHello
    await peer.close()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (no_words, "the peer closed the connection; does the peer speak TLS on this port?"),
        (the_wrong_words, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        (words_cut_off, "in the middle of it; it may ask for a certificate of ours, or not accept it"),
    ],
)
async def test_why_a_handshake_failed(
    contexts: TLSContexts, script: Callable[[ScriptedPeer], Awaitable[None]], text: str
) -> None:
    async with scripted_listener(script) as listener:
        with pytest.raises(TLSError) as caught:
            async with open_association(listener.address, CT, tls=contexts.client, server_hostname=HOST):
                raise AssertionError("there is no association")
    assert str(caught.value).endswith(text)
    assert caught.value.is_cut_off == (script is not the_wrong_words)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (TLSFault.NO_CLIENT_CERTIFICATE, "the peer sent no certificate"),
        (
            TLSFault.OTHER_AUTHORITY,
            "the peer does not accept our TLS certificate, or that there is none: .*_UNKNOWN_CA",
        ),
    ],
)
async def test_what_a_server_says_of_a_handshake(fault: TLSFault, text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trio_dicom")
    contexts = tls_contexts(HOST, fault=fault)
    async with storage_scp(tls=contexts.server) as scp:
        with pytest.raises((TLSError, ConnectionLost)):
            async with open_association(scp.address, CT, tls=contexts.client, server_hostname=HOST):
                raise AssertionError("there is no association")
        with trio.fail_after(5):
            while not caplog.messages:
                await trio.lowlevel.checkpoint()
    assert len(caplog.messages) == 1
    assert re.fullmatch(f"connection from 127.0.0.1: the TLS handshake failed: {text}", caplog.messages[0])


async def test_a_handshake_that_hangs(contexts: TLSContexts) -> None:
    settings = AssociationSettings(timeouts=Timeouts(tls_handshake=0.1))
    async with silence() as listener:
        start = trio.current_time()
        with pytest.raises(AssociationTimeout, match="TLS handshake"):
            async with open_association(
                listener.address, CT, settings=settings, tls=contexts.client, server_hostname=HOST
            ):
                raise AssertionError("there is no association")
        assert trio.current_time() - start < 1


async def test_cancelled_in_the_handshake(contexts: TLSContexts) -> None:
    async with silence() as listener:
        with trio.move_on_after(0.05) as scope:
            async with open_association(listener.address, CT, tls=contexts.client, server_hostname=HOST):
                raise AssertionError("there is no association")
        assert scope.cancelled_caught


async def test_cancelled_in_the_middle_of_an_object(contexts: TLSContexts) -> None:
    """After a cancelled send a TLS stream is only closed."""

    async def stuck(peer: ScriptedPeer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with scripted_listener(stuck, tls=contexts.server) as listener:
        patient = AssociationSettings(timeouts=Timeouts(abort_grace=60, abort_linger=60))
        opened = open_association(listener.address, CT, settings=patient, tls=contexts.client, server_hostname=HOST)
        async with opened as association:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(CStoreSCU(association).send, io.BytesIO(make_instance_file(32 << 20)))
                await trio.testing.wait_all_tasks_blocked(0.1)  # in a write that the peer does not take
                nursery.cancel_scope.cancel()
            assert association.failure is not None
            with trio.fail_after(30):  # no wait for a good-bye
                await association.wait_closed()


async def test_a_reset_in_the_handshake_is_trouble_that_may_pass(contexts: TLSContexts) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, reset, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(TLSError, match="reset") as caught:
            async with open_association(f"PACS@127.0.0.1:{port}", CT, tls=contexts.client, server_hostname=HOST):
                pass
        nursery.cancel_scope.cancel()
    assert caught.value.retry is Retry.LATER
