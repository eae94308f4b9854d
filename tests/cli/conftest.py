"""Peers for the command line, which runs a trio of its own: each in a thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from cli.command_line import CommandLine
from trio_dicom import Instance, InstanceFolder, StorageSCP, StoredInstance, StoreReply, wrap_server_stream
from trio_dicom.errors import ProtocolViolation, TrioDicomError
from trio_dicom.testing import ScriptedPeer, tls_contexts

Handler = Callable[[Any], Awaitable[None]]


@pytest.fixture
def command_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(capfd, tmp_path / "report.ndjson")


@contextlib.contextmanager
def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve streams on a port of loopback in a thread of its own; gives the address, AET@host:port."""
    ready: list[Any] = []
    is_ready = threading.Event()

    async def serve() -> None:
        try:
            listeners: list[Any] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            if tls is not None:
                listeners = [trio.SSLListener(each, tls, https_compatible=True) for each in listeners]
            with trio.CancelScope() as scope:
                ready.extend((port, scope, trio.lowlevel.current_trio_token()))
                is_ready.set()
                await trio.serve_listeners(handler, listeners)
        finally:
            is_ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    is_ready.wait()
    port, scope, token = ready
    try:
        yield f"PEER@127.0.0.1:{port}"
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(5)


@pytest.fixture
def scripted_peer() -> Iterator[Callable[..., str]]:
    """`scripted_peer(script, ...)` starts a peer for which each further association follows the next script, the last
    for all that remain; gives its address.
    """
    with contextlib.ExitStack() as stack:

        def start(*scripts: Callable[[ScriptedPeer], Awaitable[None]], tls: ssl.SSLContext | None = None) -> str:
            left = list(scripts)

            async def handle(stream: trio.abc.Stream) -> None:
                script = left.pop(0) if len(left) > 1 else left[0]
                peer = ScriptedPeer(stream)
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, ProtocolViolation):
                    await script(peer)
                    await peer.finish()

            return stack.enter_context(serving(handle, tls))

        yield start


@pytest.fixture
def nobody() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"NOBODY@127.0.0.1:{probe.getsockname()[1]}"


class Receiver:
    """Files in `folder` whatever comes, and knows what."""

    def __init__(self, folder: Path) -> None:
        self.stored: list[StoredInstance] = []
        self._folder = InstanceFolder(folder, sync=False)
        self._scp = StorageSCP(self._store, accept_private=True)

    async def _store(self, instance: Instance) -> StoreReply:
        stored = await self._folder.store(instance)
        self.stored.append(stored)
        return StoreReply(stored.status, stored.error_comment)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """An association, from its request to its end."""
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(TrioDicomError):
                await wrap_server_stream(nursery, stream, self._scp)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, Receiver]]:
    """A receiver, and its address."""
    peer = Receiver(tmp_path / "received")
    with serving(peer.serve_stream) as address:
        yield address, peer


def answering(*statuses: int) -> Callable[[ScriptedPeer], Awaitable[None]]:
    """A script that answers the requests of an association with `statuses`, and then reads on."""
    return partial(_answer, statuses)


async def _answer(statuses: tuple[int, ...], peer: ScriptedPeer) -> None:
    await peer.accept()
    for status in statuses:
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, status)


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEM files: two authorities, and certificates of the first for "server" and "client", of the other one for a
    "stranger"; with "... key" for each of these.
    """
    folder = tmp_path_factory.mktemp("tls")
    ours, stranger = tls_contexts(), tls_contexts()
    contents = {
        "ca": ours.authority_pem,
        "other ca": stranger.authority_pem,
        "server": ours.server_certificate_pem,
        "server key": ours.server_key_pem,
        "client": ours.client_certificate_pem,
        "client key": ours.client_key_pem,
        "stranger": stranger.client_certificate_pem,
        "stranger key": stranger.client_key_pem,
    }
    paths = {name: folder / f"{name.replace(' ', '-')}.pem" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths
