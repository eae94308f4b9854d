"""Two associations of ours, requestor and acceptor, joined; or an acceptor of ours and a scripted peer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import trio
import trio.testing

from ..association.acceptor import ServicesArgument, wrap_server_stream
from ..association.admission import Admission
from ..association.association import Association
from ..association.requestor import wrap_client_stream
from ..errors import TrioDicomError
from ..protocol.negotiation import PresentationContext
from ..settings import AssociationSettings
from ..uids import VERIFICATION
from .plain_nursery import open_plain_nursery, released_after
from .scripted_links import LINGER
from .scripted_peer import GONE, Script, ScriptedPeer
from .streams import loopback_streams

Streams = tuple[trio.abc.Stream, trio.abc.Stream]
Contexts = Iterable[PresentationContext | str]


def memory_link(
    contexts: Contexts = (VERIFICATION,),
    services: ServicesArgument = (),
    *,
    settings: AssociationSettings | None = None,
    acceptor_settings: AssociationSettings | None = None,
    admission: Admission | None = None,
    backpressure: bool = False,
    streams: Streams | None = None,
) -> AbstractAsyncContextManager[tuple[Association, Association]]:
    """A requestor's and an acceptor's association, joined in memory, for an `async with` block::

        async with memory_link([SOPClass.CT], StorageSCP(handler)) as (requestor, acceptor):
            await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))

    No socket is involved, so it goes with a virtual clock. A writer never waits, unless `backpressure` is asked for:
    then nothing is taken before the other side reads it. `streams`, the requestor's and the acceptor's, take the place
    of memory: those of `socket_pair_streams`, or with a `FaultyStream` or `RecordedStream` around one of them.

    `settings` are the requestor's, and the acceptor's too if it has none of its own; `services` and `admission` are the
    acceptor's. Left well, the association is released; left by an exception, aborted. Exceptions come out as they are,
    in no `ExceptionGroup`: the body's, and those of `wrap_client_stream` and `wrap_server_stream`.
    """
    if streams is None:
        streams = trio.testing.lockstep_stream_pair() if backpressure else trio.testing.memory_stream_pair()
    return _link(streams, contexts, services, settings, acceptor_settings, admission)


@asynccontextmanager
async def loopback_link(
    contexts: Contexts = (VERIFICATION,),
    services: ServicesArgument = (),
    *,
    settings: AssociationSettings | None = None,
    acceptor_settings: AssociationSettings | None = None,
    admission: Admission | None = None,
) -> AsyncIterator[tuple[Association, Association]]:
    """As `memory_link`, over a TCP connection on 127.0.0.1, which does not go with a virtual clock."""
    streams = await loopback_streams()
    async with _link(streams, contexts, services, settings, acceptor_settings, admission) as associations:
        yield associations


@asynccontextmanager
async def _link(
    streams: Streams,
    contexts: Contexts,
    services: ServicesArgument,
    settings: AssociationSettings | None,
    acceptor_settings: AssociationSettings | None,
    admission: Admission | None,
) -> AsyncIterator[tuple[Association, Association]]:
    ours, theirs = streams
    acceptor: Association | TrioDicomError | None = None

    async def accept() -> None:
        nonlocal acceptor
        try:
            acceptor = await wrap_server_stream(
                nursery, theirs, services, settings=acceptor_settings or settings, admission=admission
            )
        except TrioDicomError as error:
            acceptor = error  # the requestor tells of it, too, and in the terms of the one who asked

    async with open_plain_nursery() as nursery:
        async with open_plain_nursery() as both:
            both.start_soon(accept)
            requestor = await wrap_client_stream(nursery, ours, contexts, settings=settings)
        try:
            async with released_after(requestor):
                if not isinstance(acceptor, Association):
                    raise acceptor or AssertionError("there is no acceptor")
                yield requestor, acceptor
        finally:
            nursery.cancel_scope.deadline = trio.current_time() + LINGER


@asynccontextmanager
async def scripted_requestor(
    script: Script,
    services: ServicesArgument = (),
    *,
    settings: AssociationSettings | None = None,
    admission: Admission | None = None,
    streams: Streams | None = None,
) -> AsyncIterator[Association]:
    """An association of ours, as the acceptor, that a peer who follows `script` asks for.

    It goes over `trio.testing.memory_stream_pair`, or over `streams`: ours, and the peer's. The block begins when the
    association is established; usually it waits for `Association.wait_closed`. When the script ends, the peer releases
    if it can, and closes.

    At the end of the block, the script has 2 s to end; left by an exception, the association is aborted. Exceptions
    come out as they are, in no `ExceptionGroup`: those of the body, of `wrap_server_stream`, and of the script.
    """
    ours, theirs = streams or trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)
    async with open_plain_nursery() as nursery:
        nursery.start_soon(_follow_as_requestor, script, peer)
        try:
            association = await wrap_server_stream(nursery, ours, services, settings=settings, admission=admission)
            try:
                yield association
            except BaseException:
                await association.abort()
                raise
        finally:
            nursery.cancel_scope.deadline = trio.current_time() + LINGER


async def _follow_as_requestor(script: Script, peer: ScriptedPeer) -> None:
    try:
        with suppress(*GONE):  # the other side was faster
            await script(peer)
            if peer.is_associated:
                await peer.release()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            await peer.close()
