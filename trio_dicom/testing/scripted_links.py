"""An association with a scripted peer, in memory, and a port of loopback where scripted peers answer."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
import trio.testing

from ..association.association import Association
from ..association.requestor import wrap_client_stream
from ..errors import ProtocolViolation
from ..protocol.negotiation import PresentationContext
from ..settings import AssociationSettings
from .identity import SOPClass
from .plain_nursery import open_plain_nursery, released_after
from .scripted_peer import GONE, Script, ScriptedPeer

LINGER = 2.0  # s that a script which never ends is given after the body


@asynccontextmanager
async def scripted_link(
    script: Script,
    contexts: Iterable[PresentationContext | str] = (SOPClass.CT,),
    *,
    settings: AssociationSettings | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> AsyncIterator[Association]:
    """An association of ours, as the requestor, with a peer that follows `script`.

    It goes over `trio.testing.memory_stream_pair`, or over `streams`: ours, and the peer's. When the script ends, the
    peer reads on, answers a release, and closes once it is told good-bye.

    Left well, the association is released; left by an exception, aborted. Exceptions come out as they are, in no
    `ExceptionGroup`: those of the body, of the association request, and of the script, whichever was first.
    """
    ours, theirs = streams or trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)
    async with open_plain_nursery() as nursery:
        nursery.start_soon(follow, script, peer)
        try:
            association = await wrap_client_stream(nursery, ours, contexts, settings=settings)
            async with released_after(association):
                yield association
        finally:
            nursery.cancel_scope.deadline = trio.current_time() + LINGER


async def follow(script: Script, peer: ScriptedPeer) -> None:
    """Let `peer` do what `script` says, then part in peace; whatever happens, its stream is closed."""
    try:
        with suppress(*GONE):  # the other side was faster
            await script(peer)
        await peer.finish()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            await peer.close()


@attrs.frozen
class ScriptedListener:
    """A port of loopback. `peers` are those who answered there, in the order of the connections."""

    port: int
    peers: list[ScriptedPeer] = attrs.field(factory=list)

    @property
    def address(self) -> str:
        """What to connect to: AE title, host and port."""
        return f"SCRIPTED@127.0.0.1:{self.port}"


@asynccontextmanager
async def scripted_listener(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedListener]:
    """Scripted peers on a port of 127.0.0.1 that the system chooses, for the length of an `async with` block.

    Each connection follows the next of `scripts`, the last one all that remain. With `tls`, they speak TLS. Leaving the
    block cuts off whoever is still there. What a script raises comes out of the block, in no `ExceptionGroup`; that the
    other side has gone, or speaks nonsense, is no error.
    """
    if not scripts:
        raise ValueError("no script: nobody would answer")
    left = list(scripts)

    async def handle(stream: trio.abc.Stream) -> None:
        peer = ScriptedPeer(stream)
        found.peers.append(peer)
        with suppress(ProtocolViolation):
            await follow(left.pop(0) if len(left) > 1 else left[0], peer)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    found = ScriptedListener(listeners[0].socket.getsockname()[1])
    doors: list[Any] = listeners  # of sockets or of TLS
    if tls is not None:
        doors = [trio.SSLListener(each, tls, https_compatible=True) for each in listeners]
    async with open_plain_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, doors)
        yield found
        nursery.cancel_scope.cancel()
