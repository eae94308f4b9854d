"""The doors of the acceptor: a server for many associations, and one association over the caller's stream.

Each connection is served in a task of its own, TLS handshake and association request included, and none of them can end
another, nor the server: whatever goes wrong on one is the end of that one, and a line in the log.

A server stops in two ways, both bounded: `AssociationServer.drain` lets associations end, for a time; cancelling
`serve_associations` aborts them, in about a second.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable

import attrs
import trio

from ..errors import (
    AssociationRejected,
    AssociationTimeout,
    InternalError,
    LocalProtocolError,
    PeerLimitUnusable,
    ProtocolViolation,
    TLSError,
    TrioDicomError,
)
from ..peer import Peer
from ..protocol.negotiation import answer
from ..protocol.pdu import PDU, Abort, AssociateRJ, AssociateRQ
from ..protocol.upper_layer import Side, UpperLayer
from ..protocol.user_information import UserIdentityRQ
from ..settings import AssociationSettings
from .admission import (
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    IDENTITY_REFUSED,
    TEMPORARY_CONGESTION,
    Admission,
)
from .association import Association
from .dialling import check_context, listen, local_address, peer_certificate, secure
from .door import Door, Visit
from .handshake import hang_up, hear, say
from .service import Service, Services
from .transport import Transport, remote_address, transport_over

log = logging.getLogger(__name__)

BACKLOG = 128  # connections that the system holds ready

ServicesArgument = Service | Iterable[Service]
Address = tuple[str, int]


async def serve_associations(
    services: ServicesArgument,
    port: int = 11112,
    *,
    host: str | None = "127.0.0.1",
    settings: AssociationSettings | None = None,
    admission: Admission | None = None,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[AssociationServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept associations on `port`, and perform `services` on them, until cancelled or drained::

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_associations, StorageSCP("incoming"), 11112)

    `services` is a `Service`, such as `StorageSCP`, or several; C-ECHO is always answered. `port` 0 is any free one,
    and `host` None stands for all addresses of this machine. `settings` are those of each association: `timeouts` and
    `limits`, `operations_window` (the most requests performed at once), `roles` that a peer may take. `admission` tells
    who is let in. With `tls` there is nothing but TLS.

    The `AssociationServer` comes with `task_status`. Raises `OSError` if the port cannot be listened on, and
    `ValueError` for a TLS context that is a client's, or for titles by certificate where nobody is asked for one.
    Running out of descriptors makes it pause, not end. Cancelled, it aborts the associations and ends within about a
    second. PS3.8 section 7.1.
    """
    check_context(tls)
    if tls is not None and tls.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("tls is a client's context: make one with trio_dicom.tls.server_context")
    admission = admission or Admission()
    if admission.certificate_titles is not None and (tls is None or tls.verify_mode is not ssl.CERT_REQUIRED):
        raise ValueError("certificate_titles need a tls context that asks for certificates: give it a ca")
    server = AssociationServer(Services(services), settings or AssociationSettings(), admission, tls)
    listeners = await listen(port, host, BACKLOG)
    await server.run(listeners, task_status)


async def wrap_server_stream(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    services: ServicesArgument,
    *,
    settings: AssociationSettings | None = None,
    admission: Admission | None = None,
) -> Association:
    """An association that the peer asks for over `stream`, which is connected already; its tasks run in `nursery`.

    The association owns the stream from now on, and closes it also when this call fails. The counts of `admission` do
    not matter here. Raises `AssociationTimeout` if no request came within `timeouts.artim`, `AssociationRejected` (with
    `by_peer` False), `PeerLimitUnusable`, `AssociationAborted`, `ConnectionLost` or `ProtocolViolation`. Cancelled, it
    closes the stream.
    """
    entrance = _Entrance(Services(services), settings or AssociationSettings(), admission or Admission())
    address = remote_address(stream)
    association = await entrance.establish(stream, address, lambda: None)
    try:
        nursery.start_soon(association.run, name="association over a stream")
    except RuntimeError:  # the nursery is closed
        await association.discard()
        raise
    return association


class AssociationServer:
    """What `serve_associations` runs: where it listens, and the associations that are open."""

    def __init__(
        self, services: Services, settings: AssociationSettings, admission: Admission, tls: ssl.SSLContext | None
    ) -> None:
        self.addresses: tuple[tuple[str, int], ...] = ()  #: (host, port)
        self._entrance = _Entrance(services, settings, admission)
        self._timeouts = settings.timeouts
        self._tls = tls
        self._door = Door(admission)
        self._open: set[Association] = set()
        self._listening = trio.CancelScope()
        self._all = trio.CancelScope()
        self._stopped = trio.Event()
        self._newest: Association
        self._arrival = trio.Event()  # of the next association

    @property
    def port(self) -> int:
        """The port that it listens on; with port 0, and several addresses, that of the first."""
        return self.addresses[0][1]

    @property
    def associations(self) -> frozenset[Association]:
        """Those that are open."""
        return frozenset(self._open)

    async def next_association(self) -> Association:
        """Wait until one more association has come about; the newest, if there were several at once."""
        await self._arrival.wait()
        return self._newest

    async def drain(self, timeout: float = 10.0) -> None:
        """Let nobody in any more, give what is open `timeout` seconds to end, abort the rest, and return.

        Connections on which no association was asked for yet are closed at once.

        `serve_associations` returns, too. If this is cancelled, what is open has no more than the rest of that time.
        """
        self._listening.cancel()
        self._door.close()
        self._all.deadline = min(self._all.deadline, trio.current_time() + timeout)
        await self._stopped.wait()

    async def run(self, listeners: list[trio.SocketListener], task_status: trio.TaskStatus[AssociationServer]) -> None:
        """Serve until cancelled or drained."""
        self.addresses = tuple(map(local_address, listeners))
        try:
            with self._all:
                async with trio.open_nursery() as connections:
                    task_status.started(self)
                    with self._listening:
                        await trio.serve_listeners(self._serve, listeners, handler_nursery=connections)
        finally:
            self._stopped.set()

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection, from its first byte to its close. Nothing of it is raised but `Cancelled`."""
        address = remote_address(stream)
        host = address[0] if address else None
        try:
            with self._door.visit(host) as visit:
                association = await self._establish(stream, address, visit)
                self._enter(association)
                try:
                    await association.run()
                finally:
                    self._open.discard(association)
            if visit.scope.cancelled_caught:
                log.info("a connection from %s was closed before there was an association: others need the room", host)
        except TrioDicomError as failure:
            level = logging.ERROR if isinstance(failure, InternalError) else logging.INFO
            # A text: the failure itself would stay with this frame, and all that was received with it.
            what = f"the TLS handshake failed: {failure.reason}" if isinstance(failure, TLSError) else str(failure)
            is_rejected = isinstance(failure, AssociationRejected)
            about = {"event": "rejected" if is_rejected else "failed", "host": host, "outcome": type(failure).__name__}
            log.log(level, "connection from %s: %s", host, what, extra=about)
        except Exception as error:
            log.error("a connection from %s failed with %s (details at DEBUG)", host, type(error).__name__)
            log.debug("the failure", exc_info=error)

    def _enter(self, association: Association) -> None:
        self._open.add(association)
        self._newest = association
        self._arrival.set()
        self._arrival = trio.Event()

    async def _establish(self, stream: trio.SocketStream, address: Address | None, visit: Visit) -> Association:
        secured: trio.abc.Stream | Transport = (
            stream if self._tls is None else await secure(stream, self._tls, self._timeouts)
        )
        return await self._entrance.establish(secured, address, visit.enter)


@attrs.frozen
class _Entrance:
    """How an association comes about, or does not."""

    services: Services
    settings: AssociationSettings
    admission: Admission

    async def establish(
        self, stream: trio.abc.Stream | Transport, address: Address | None, enter: Callable[[], AssociateRJ | None]
    ) -> Association:
        """Hear the request and answer it; if no association comes of it, the stream is closed."""
        transport = transport_over(stream)
        machine, timeouts = UpperLayer(Side.ACCEPTOR, self.settings.limits), self.settings.timeouts
        try:
            machine.connected()
            with trio.move_on_after(timeouts.artim) as scope:
                request = await hear(transport, machine)
            if scope.cancelled_caught:
                raise AssociationTimeout("the association request", timeouts.artim)
            if not isinstance(request, AssociateRQ):
                raise LocalProtocolError(f"{request} in place of a request")  # the machine lets no other PDU through
            objection, doubt = self.admission.objection(request), None
            if objection is None:
                doubt = self.admission.doubt(request, peer_certificate(stream))
                objection = CALLING_AE_TITLE_NOT_RECOGNIZED if doubt else enter()
            confirmed: bytes | None = None
            if objection is None:
                objection, confirmed = await self._check_identity(request)
            if objection is not None:
                with trio.move_on_after(timeouts.association):
                    await say(transport, machine.send(objection))
                raise AssociationRejected(
                    objection.result,
                    objection.source,
                    objection.reason,
                    objection.text if doubt is None else f"{objection.text}: {doubt}",
                    by_peer=False,
                    calling_ae_title=request.calling_ae_title,
                    called_ae_title=request.called_ae_title,
                )
            response, negotiated = answer(
                request, self.services.supported(request), self.settings, identity_response=confirmed
            )
            with trio.move_on_after(timeouts.association) as scope:
                await say(transport, machine.send(response))
            if scope.cancelled_caught:
                raise AssociationTimeout("the peer's taking of the answer to its request", timeouts.association)
            peer = None if address is None else Peer(request.calling_ae_title, *address)
            return Association(transport, machine, negotiated, self.settings, peer, self.services)
        except BaseException as failure:
            await hang_up(transport, machine, _farewell(failure), timeouts)
            raise

    async def _check_identity(self, request: AssociateRQ) -> tuple[AssociateRJ | None, bytes | None]:
        """An objection, or the response with which the identity is confirmed: none if nobody has looked at it."""
        check = self.admission.check_identity
        if check is None:
            return None, None
        identity = next((item for item in request.user_information if isinstance(item, UserIdentityRQ)), None)
        confirmed: bytes | None = None
        with trio.move_on_after(self.settings.timeouts.association) as scope:
            try:
                confirmed = await check(identity)
                if not isinstance(confirmed, bytes | None):
                    raise TypeError(f"check_identity returned a {type(confirmed).__name__}, not bytes or None")
            except Exception as error:  # what it says of it may name somebody
                log.error("the check of an identity failed with %s", type(error).__name__)
                log.debug("the failure", exc_info=error)
                return TEMPORARY_CONGESTION, None
        if scope.cancelled_caught:
            return TEMPORARY_CONGESTION, None
        return (IDENTITY_REFUSED, None) if confirmed is None else (None, confirmed)


def _farewell(failure: BaseException) -> PDU:
    """How to part from a peer whose request was heard, and not answered."""
    if isinstance(failure, ProtocolViolation):
        return Abort(failure.abort_source, failure.abort_reason)
    return Abort(2, 6) if isinstance(failure, PeerLimitUnusable) else Abort(0, 0)
