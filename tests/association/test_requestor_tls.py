"""open_association over TLS: the right certificate, and what happens with any other, or none."""

from __future__ import annotations

import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
import trustme

from support.scripted import CT, ScriptedPeer, make_data_set_file
from trio_dicom import (
    AssociationSettings,
    AssociationTimeout,
    CStoreSCU,
    Timeouts,
    TLSError,
    TLSVerifyError,
    open_association,
)

HOST = "archive.example"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, host: str = HOST) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def listening(
    context: ssl.SSLContext | None, *, talks: bool = True
) -> AsyncIterator[tuple[str, list[ScriptedPeer]]]:
    """A scripted peer on a port of this machine, over TLS with `context`; its address, and those who came."""
    peers: list[ScriptedPeer] = []

    async def serve(stream: trio.abc.Stream) -> None:
        peers.append(ScriptedPeer(stream))
        if not talks:
            await trio.sleep_forever()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
            await peers[-1].serve()
            await peers[-1].close()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        secured = listeners if context is None else [trio.SSLListener(each, context) for each in listeners]
        nursery.start_soon(trio.serve_listeners, serve, secured)
        yield f"PACS@127.0.0.1:{port}", peers
        nursery.cancel_scope.cancel()


async def test_the_right_certificate(authority: trustme.CA) -> None:
    async with listening(server_context(authority)) as (address, peers):
        opened = open_association(address, [CT], tls=client_context(authority), server_hostname=HOST)
        async with opened as association:
            for size in (100, 2_000_000):
                assert (await CStoreSCU(association).send(io.BytesIO(make_data_set_file(size)))).is_success
        assert association.failure is None
    assert len(peers[0].received) > 2_000_000


async def test_the_host_is_that_of_the_peer(authority: trustme.CA) -> None:
    async with listening(server_context(authority, "127.0.0.1")) as (address, _):  # noqa: SIM117
        async with open_association(address, [CT], tls=client_context(authority)) as association:
            assert association.is_open


@pytest.mark.parametrize("wrong", ["authority", "host"])
async def test_a_certificate_that_is_not_trusted(wrong: str, authority: trustme.CA) -> None:
    trusted = trustme.CA() if wrong == "authority" else authority
    host = "other.example" if wrong == "host" else HOST
    async with listening(server_context(authority)) as (address, peers):
        with pytest.raises(TLSVerifyError) as caught:
            async with open_association(address, [CT], tls=client_context(trusted), server_hostname=host):
                raise AssertionError("there is no association")
        await trio.testing.wait_all_tasks_blocked(0.02)
    assert isinstance(caught.value, TLSError)
    assert address in str(caught.value)
    assert not any(peer.received for peer in peers)  # not one byte of DICOM


async def test_a_peer_without_tls(authority: trustme.CA) -> None:
    async def shout(stream: trio.SocketStream) -> None:
        await stream.send_all(b"\x03\0\0\0\0\x04\0\1\1\1")
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, shout, listeners)
        address = f"PACS@127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with pytest.raises(TLSError, match="does the peer speak TLS on this port") as caught:
            async with open_association(address, [CT], tls=client_context(authority), server_hostname=HOST):
                raise AssertionError("there is no association")
        nursery.cancel_scope.cancel()
    assert type(caught.value) is TLSError


async def test_a_handshake_that_hangs(authority: trustme.CA) -> None:
    settings = AssociationSettings(timeouts=Timeouts(tls_handshake=0.1))
    async with listening(None, talks=False) as (address, _):
        start = trio.current_time()
        with pytest.raises(AssociationTimeout, match="TLS handshake"):
            async with open_association(
                address, [CT], settings=settings, tls=client_context(authority), server_hostname=HOST
            ):
                raise AssertionError("there is no association")
        assert trio.current_time() - start < 1


async def test_cancelled_in_the_handshake(authority: trustme.CA) -> None:
    async with listening(None, talks=False) as (address, _):
        with trio.move_on_after(0.05) as scope:
            async with open_association(address, [CT], tls=client_context(authority), server_hostname=HOST):
                raise AssertionError("there is no association")
        assert scope.cancelled_caught


async def test_cancelled_in_the_middle_of_an_object(authority: trustme.CA) -> None:
    """After a cancelled send a TLS stream is only closed."""

    async def stuck(stream: trio.abc.Stream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept()
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        secured = [trio.SSLListener(each, server_context(authority)) for each in listeners]
        nursery.start_soon(trio.serve_listeners, stuck, secured)
        address = f"PACS@127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        opened = open_association(address, [CT], tls=client_context(authority), server_hostname=HOST)
        async with opened as association:
            with trio.move_on_after(0.2) as scope:
                await CStoreSCU(association).send(io.BytesIO(make_data_set_file(32 << 20)))
            assert scope.cancelled_caught
            with trio.fail_after(0.5):  # no wait for a good-bye
                await association.wait_closed()
        nursery.cancel_scope.cancel()
