"""The three doors of the requestor: an association as a block, in the caller's nursery, or over the caller's stream."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from ..errors import (
    AssociationRejected,
    AssociationTimeout,
    ConnectionLost,
    LocalProtocolError,
    NoAcceptedContexts,
    PeerLimitUnusable,
    ProtocolViolation,
    printable,
)
from ..peer import Peer
from ..plain_nursery import open_plain_nursery
from ..protocol.negotiation import PresentationContext, as_presentation_contexts, conclude, propose
from ..protocol.pdu import PDU, Abort, AssociateAC, AssociateRJ, AssociateRQ, ReleaseRQ
from ..protocol.upper_layer import Side, UpperLayer
from ..settings import AssociationSettings
from .association import Association
from .dialling import Connect, check_context, dial, dial_by
from .handshake import hang_up, hear, say
from .transport import Transport, transport_over

log = logging.getLogger(__name__)

Contexts = Iterable[PresentationContext | str]


@asynccontextmanager
async def open_association(
    peer: Peer | str,
    contexts: Contexts,
    *,
    settings: AssociationSettings | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    connect: Connect | None = None,
) -> AsyncIterator[Association]:
    """An association with `peer`, for the length of an `async with` block.

    `peer` is a `Peer` or text such as `PACS@10.0.0.5:104`. `contexts` are the presentation contexts to propose:
    `PresentationContext` objects or abstract syntax UIDs, 1 to 128. With `tls`, the connection is TLS and the
    certificate is checked for `server_hostname`, by default the peer's host; plain TCP is never fallen back to.
    `connect`, an async function, gives a connected stream in place of all that: a tunnel, or memory in a test.

    Leaving the block releases the association, within `timeouts.release`; leaving it by an exception or by cancellation
    aborts it, within about a second. The body's own exception leaves as it is, in no `ExceptionGroup`. When the peer
    aborts or the connection is lost, operations raise at once, but the body is not cancelled: see
    `Association.wait_closed`.

    Raises `ConnectFailed`, `TLSError`, `AssociationTimeout`, `AssociationRejected`, `NoAcceptedContexts`,
    `PeerLimitUnusable`, `IdentityNotConfirmed`, `AssociationAborted`, `ConnectionLost` or `ProtocolViolation` before
    the body runs, and `ValueError` for contexts that cannot be proposed. PS3.8 section 7.1.
    """
    peer, settings = Peer.parse(peer), settings or AssociationSettings()
    if connect is None:
        association = await _connect(peer, contexts, settings, tls, server_hostname)
    else:
        proposed = as_presentation_contexts(contexts)
        stream = await dial_by(connect, peer, settings.timeouts)
        association = await _establish(stream, proposed, peer.ae_title, settings, peer)
    async with _running(association):
        yield association


async def connect_association(
    nursery: trio.Nursery,
    peer: Peer | str,
    contexts: Contexts,
    *,
    settings: AssociationSettings | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> Association:
    """An association with `peer` whose tasks run in `nursery`, which must outlive it.

    Parameters and errors are those of `open_association`. End it with `Association.aclose`; cancelling the nursery
    aborts it.
    """
    association = await _connect(Peer.parse(peer), contexts, settings or AssociationSettings(), tls, server_hostname)
    return await _started(nursery, association, f"association with {association.peer}")


async def wrap_client_stream(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    contexts: Contexts,
    *,
    called_ae_title: str = "ANY-SCP",
    settings: AssociationSettings | None = None,
) -> Association:
    """An association over `stream`, which is connected already (a tunnel, a memory stream, TLS of the caller's making).

    The association owns the stream from now on, and closes it also when this call fails. Otherwise as
    `connect_association`.
    """
    settings = settings or AssociationSettings()
    association = await _establish(stream, contexts, called_ae_title, settings, None)
    return await _started(nursery, association, "association over a stream")


async def _started(nursery: trio.Nursery, association: Association, name: str) -> Association:
    try:
        nursery.start_soon(association.run, name=name)
    except RuntimeError:  # the nursery is closed
        await association.discard()
        raise
    return association


@asynccontextmanager
async def _running(association: Association) -> AsyncIterator[None]:
    """Run the association's tasks around a body, whose exception leaves unwrapped."""
    async with open_plain_nursery() as nursery:
        nursery.start_soon(association.run)
        try:
            yield
        except BaseException:
            await association.abort()
            raise
        else:
            await association.aclose()


async def _connect(
    peer: Peer,
    contexts: Contexts,
    settings: AssociationSettings,
    tls: ssl.SSLContext | None,
    server_hostname: str | None,
) -> Association:
    check_context(tls)
    proposed = as_presentation_contexts(contexts)
    transport = await dial(peer, settings.timeouts, tls, server_hostname)
    try:
        return await _establish(transport, proposed, peer.ae_title, settings, peer)
    except ConnectionLost as lost:
        if tls is None:  # who speaks nothing but TLS hangs up
            lost.detail = f"{lost.detail}; does the peer want TLS on this port?"
        raise


async def _establish(
    stream: trio.abc.Stream | Transport,
    contexts: Contexts,
    called_ae_title: str,
    settings: AssociationSettings,
    peer: Peer | None,
) -> Association:
    """Ask for the association over `stream`; whatever goes wrong, the stream is closed."""
    machine = UpperLayer(Side.REQUESTOR, settings.limits)
    transport = transport_over(stream)
    try:
        request = propose(as_presentation_contexts(contexts), called_ae_title, settings)
        machine.connected()
        with trio.move_on_after(settings.timeouts.association) as scope:
            answer = await _request(transport, machine, request)
        if scope.cancelled_caught:
            raise AssociationTimeout("the answer to the association request", settings.timeouts.association)
        negotiated = conclude(request, answer, settings)
        if not negotiated.accepted:
            raise NoAcceptedContexts(tuple((each.abstract_syntax, each.result) for each in negotiated.rejected))
        return Association(transport, machine, negotiated, settings, peer)
    except BaseException as failure:
        await hang_up(transport, machine, _farewell(failure), settings.timeouts)
        raise


async def _request(transport: Transport, machine: UpperLayer, request: AssociateRQ) -> AssociateAC:
    await say(transport, machine.send(request))
    answer = await hear(transport, machine)
    if isinstance(answer, AssociateRJ):
        raise AssociationRejected(answer.result, answer.source, answer.reason, answer.text)
    if not isinstance(answer, AssociateAC):
        raise LocalProtocolError(f"{answer} in place of an answer")  # the machine lets no other PDU through
    if answer.application_context != request.application_context:
        log.warning("the peer answered in application context %s: taken", printable(answer.application_context))
    return answer


def _farewell(failure: BaseException) -> PDU:
    """How to part where there is an association: one that is of no use is released."""
    if isinstance(failure, NoAcceptedContexts | PeerLimitUnusable):
        return ReleaseRQ()
    if isinstance(failure, ProtocolViolation):
        return Abort(failure.abort_source, failure.abort_reason)
    return Abort(0, 0)
