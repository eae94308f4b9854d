"""Dialling and listening: how a connection comes about, its TLS handshake done, or the error that says why not."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable

import trio

from ..errors import AssociationTimeout, ConnectFailed, ConnectionLost, Retry, TLSError, TLSVerifyError
from ..peer import Peer
from ..settings import Timeouts
from ..tls import PeerCertificate
from .tls_transport import TLSTransport
from .transport import Transport, not_accepted, transport_over

Connect = Callable[[], Awaitable[trio.abc.Stream]]


async def dial_by(connect: Connect, peer: Peer, timeouts: Timeouts) -> trio.abc.Stream:
    """The connected stream that `connect` gives.

    Raises `ConnectFailed` for its `OSError` or, of a stream that it goes through, `trio.BrokenResourceError`; or
    `AssociationTimeout`.
    """
    stream: trio.abc.Stream | None = None
    with trio.move_on_after(timeouts.connect):
        try:
            stream = await connect()
        except OSError as error:
            raise ConnectFailed(str(peer), (("", error),)) from error
        except trio.BrokenResourceError as error:
            reset = OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            raise ConnectFailed(str(peer), (("", reset),)) from error
    if stream is None:
        raise AssociationTimeout(f"connecting to {peer}", timeouts.connect)
    return stream


def check_context(tls: object) -> None:
    """Raises `TypeError` for what is neither a context nor None: True, say."""
    if not isinstance(tls, ssl.SSLContext | None):
        makers = "trio_dicom.tls.client_context and server_context make one"
        raise TypeError(f"tls is an ssl.SSLContext, not {type(tls).__name__}: {makers}")


async def dial(
    peer: Peer, timeouts: Timeouts, tls: ssl.SSLContext | None = None, server_hostname: str | None = None
) -> Transport:
    """A transport to `peer`, its TLS handshake done if `tls` is given.

    Raises `ConnectFailed`, `AssociationTimeout`, `TLSError` or `TLSVerifyError`. When cancelled, nothing is left open.
    """
    stream: trio.SocketStream | None = None
    with trio.move_on_after(timeouts.connect):
        stream = await _open_tcp(peer)
    if stream is None:
        raise AssociationTimeout(f"connecting to {peer}", timeouts.connect)
    transport = transport_over(stream)
    if tls is None:
        return transport
    try:
        secured = _secured(transport, tls, server_hostname or peer.host, peer)
        with trio.move_on_after(timeouts.tls_handshake) as scope:
            await _handshake(secured, str(peer), _CLOSED_BY_SERVER)
        if scope.cancelled_caught:
            raise AssociationTimeout(f"the TLS handshake with {peer}", timeouts.tls_handshake)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def _secured(transport: Transport, tls: ssl.SSLContext, server_hostname: str, peer: Peer) -> TLSTransport:
    try:
        return TLSTransport(transport, tls, server_hostname=server_hostname)
    except (ssl.SSLError, ValueError) as error:
        raise TLSError(str(peer), f"not with this context and server name: {error}") from error


async def listen(port: int, host: str | None, backlog: int) -> list[trio.SocketListener]:
    """Listeners on `port` of `host`'s addresses; 0 is any free port, None all addresses. Raises `OSError`."""
    return await trio.open_tcp_listeners(port, host=host, backlog=backlog)


def peer_certificate(stream: trio.abc.Stream | Transport) -> PeerCertificate | None:
    """What TLS knows of the other end."""
    return PeerCertificate.of(stream) if isinstance(stream, trio.SSLStream | TLSTransport) else None


def local_address(listener: trio.SocketListener) -> tuple[str, int]:
    """Where `listener` listens."""
    host, port = listener.socket.getsockname()[:2]
    return host, port


async def secure(stream: trio.SocketStream, tls: ssl.SSLContext, timeouts: Timeouts) -> Transport:
    """The server's side of a TLS handshake. Raises `AssociationTimeout` or `TLSError`; `stream` is closed then."""
    try:
        secured = TLSTransport(transport_over(stream), tls, server_side=True)
        with trio.move_on_after(timeouts.tls_handshake) as scope:
            await _handshake(secured, "a peer that connected", _CLOSED_BY_CLIENT)
        if scope.cancelled_caught:
            raise AssociationTimeout("the TLS handshake", timeouts.tls_handshake)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


async def _open_tcp(peer: Peer) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(peer.host, peer.port)
    except OSError as error:
        causes = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else (error.__cause__,)
        errors = tuple(cause for cause in causes if isinstance(cause, OSError)) or (error,)
        raise ConnectFailed(str(peer), tuple(map(_attempt, errors))) from error
    except UnicodeError as error:  # a host name that IDNA cannot encode
        failure = OSError(errno.EINVAL, "not a host name")
        raise ConnectFailed(str(peer), ((peer.host, failure),)) from error


def _attempt(error: OSError) -> tuple[str, OSError]:
    """The address that trio puts into the text of the error, apart from what went wrong there."""
    found = re.search(r"\('([^']+)', (\d+)", error.strerror or "")
    if found is None or error.errno is None:
        return "name look-up" if isinstance(error, socket.gaierror) else "", error
    host, port = found.groups()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", OSError(error.errno, os.strerror(error.errno))


_DOES_IT_SPEAK_TLS = "does the peer speak TLS on this port?"
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
)  # what OpenSSL says of bytes that are no TLS
_NO_TLS_ALERT = b"\x15\3\1\0\2\2\x46"  # fatal: protocol_version; a DICOM peer knows it for what it is
_REASONS = {"PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer sent no certificate"} | {
    reason: f"{reason}; {_DOES_IT_SPEAK_TLS}" for reason in _NO_TLS
}
# What a peer means that closes in the handshake: one that had not said anything yet, and one that had.
_CLOSED_BY_SERVER = (
    f"the peer closed the connection; {_DOES_IT_SPEAK_TLS}",
    "the peer closed the connection in the middle of it; it may ask for a certificate of ours, or not accept it",
)
_CLOSED_BY_CLIENT = (
    "the peer closed the connection before it",
    "the peer ended the handshake; it may not trust our certificate",
)


async def _handshake(transport: TLSTransport, peer: str, closed: tuple[str, str]) -> None:
    try:
        await transport.handshake()
    except ssl.SSLCertVerificationError as error:
        await transport.say_why()
        raise TLSVerifyError(peer, error.verify_message or "the certificate was not verified") from error
    except ssl.SSLError as error:
        if error.reason is None or isinstance(error, ssl.SSLEOFError):
            raise TLSError(peer, closed[transport.has_heard], is_cut_off=True) from error
        await transport.say_why(_NO_TLS_ALERT if error.reason in _NO_TLS else b"")
        raise TLSError(peer, not_accepted(error.reason) or _REASONS.get(error.reason, error.reason)) from error
    except ConnectionLost as error:  # trouble of the network's
        failure = TLSError(peer, error.detail if transport.has_heard else f"{error.detail}; {_DOES_IT_SPEAK_TLS}")
        failure.retry = Retry.LATER
        raise failure from error
