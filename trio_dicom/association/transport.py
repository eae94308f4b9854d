"""Transports: dialling, TLS and the writing of many buffers at once. The only file that touches a socket.

A transport is written by one task and read by another. Its `write` takes buffers that are whole PDUs and keeps account
of how far it came: after a cancelled `write`, `finish` writes the rest where that is possible, so that an A-ABORT never
lands inside another PDU. Whatever goes wrong with the connection is raised as `ConnectionLost`.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import trio

from ..errors import AssociationTimeout, ConnectFailed, ConnectionLost, Retry, TLSError, TLSVerifyError
from ..peer import Peer
from ..settings import Timeouts
from ..tls import PeerCertificate

Buffer = bytes | bytearray | memoryview

READ_SIZE = 1 << 16  # below what malloc maps anew each time
READ_MOST = 1 << 18
READS_AT_ONCE = 4
JOIN_SIZE = 1 << 18  # SSLStream encrypts all that it is given before its first await
TLS_PIECE = 6 << 14  # whole records; joined, encrypted and gone while in the processor's cache, and not mapped anew
GATHER_MOST = 1024  # IOV_MAX of Linux, macOS and the BSDs
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # s, s, probes

has_gathering_write = hasattr(os, "writev")


class WriteProgress(abc.ABC):
    """Is told by a transport how its write goes on."""

    @abc.abstractmethod
    def bytes_accepted(self, count: int) -> None:
        """The transport has taken so many bytes more."""

    @abc.abstractmethod
    def about_to_write(self, end: int) -> None:
        """All before byte `end` is about to be given to a stream that tells only later that it has gone out."""


class Transport(abc.ABC):
    """A byte stream to the peer."""

    @abc.abstractmethod
    async def read(self) -> bytes:
        """The next bytes; `b""` once the peer has closed its side."""

    @abc.abstractmethod
    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        """Write all `buffers`."""

    @abc.abstractmethod
    async def finish(self) -> bool:
        """Write what a cancelled `write` left over. False if that cannot be: then nothing may follow."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close; if cancelled, at once."""

    async def drain(self) -> None:
        """Read and drop until the peer closes, so that closing does not destroy what it has yet to read."""
        while await self.read():
            pass


_LOSSES = (trio.ClosedResourceError, trio.BrokenResourceError, OSError, ValueError)  # ValueError: no descriptor left


def _lost(error: BaseException) -> ConnectionLost:
    if isinstance(error, trio.ClosedResourceError):
        return ConnectionLost("the connection was closed on this side")
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLEOFError):
        return ConnectionLost("the peer closed the connection without a TLS close_notify")
    if isinstance(cause, ssl.SSLError):
        reason = cause.reason or "unknown reason"
        lost = ConnectionLost(_not_accepted(reason) or f"TLS failed: {reason}")
        if _not_accepted(reason):  # in TLS 1.3 a client's handshake is over before the server has seen its certificate
            lost.retry = Retry.AFTER_CONFIG
        return lost
    if isinstance(cause, OSError) and cause.errno:
        return ConnectionLost(f"the connection was lost: {os.strerror(cause.errno)}")
    return ConnectionLost("the connection was lost")


def _not_accepted(reason: str) -> str | None:
    """What it means, if it is an alert about our certificate."""
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return f"the peer does not accept our TLS certificate, or that there is none: {reason}"
    return None


class SocketTransport(Transport):
    """TCP: all buffers in one system call, and acknowledgements that do not wait."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()
        self._setsockopt = stream.socket.setsockopt
        self._left: list[Buffer] = []
        self._progress: WriteProgress | None = None
        self._read_size = READ_SIZE
        self._reads_at_once = 0  # left, before it is waited for
        self._quickack = getattr(socket, "TCP_QUICKACK", None) if _is_tcp(stream.socket) else None
        if _is_tcp(stream.socket):
            _tune(stream)

    async def read(self) -> bytes:
        while True:
            try:
                if not self._reads_at_once:
                    if self._quickack is not None:  # Linux forgets it; without it a peer with Nagle on answers in 44 ms
                        self._setsockopt(socket.IPPROTO_TCP, self._quickack, 1)
                    await trio.lowlevel.wait_readable(self._fd)
                data = os.read(self._fd, self._read_size)
            except BlockingIOError:
                self._reads_at_once = 0
            except _LOSSES as error:
                raise _lost(error) from error
            else:
                self._adapt(len(data))
                return data

    def _adapt(self, count: int) -> None:
        """Where much comes, read more of it at once, and again without waiting, but not for ever."""
        is_more = count == self._read_size
        self._reads_at_once = (self._reads_at_once or READS_AT_ONCE) - 1 if is_more else 0
        self._read_size = READ_MOST if is_more or count > READ_SIZE else READ_SIZE

    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        self._left, self._progress = list(buffers), progress
        await self._write_left()

    async def finish(self) -> bool:
        await self._write_left()
        return True

    async def _write_left(self) -> None:
        left = self._left
        size = sum(map(len, left))
        while left:
            try:
                sent = os.writev(self._fd, left if len(left) <= GATHER_MOST else left[:GATHER_MOST])
            except BlockingIOError:
                await self._writable()
                continue
            except _LOSSES as error:
                raise _lost(error) from error
            size -= sent
            if size:
                _drop(left, sent)
            else:
                left.clear()
            if self._progress is not None:
                self._progress.bytes_accepted(sent)
        self._progress = None  # which has this: the two would be garbage to be collected

    async def _writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._fd)
        except _LOSSES as error:
            raise _lost(error) from error

    async def aclose(self) -> None:
        self._fd = -1  # the number may soon be another file's
        await self._stream.aclose()


def _drop(buffers: list[Buffer], count: int) -> None:
    """Take the first `count` bytes off `buffers`."""
    whole = 0
    for buffer in buffers:
        if count < len(buffer):
            break
        count -= len(buffer)
        whole += 1
    del buffers[:whole]
    if count:
        buffers[0] = memoryview(buffers[0])[count:]


class StreamTransport(Transport):
    """Any trio stream, the caller's own TLS among them: buffers joined to pieces of a bounded size."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._broken = False

    async def read(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_SIZE))
        except _LOSSES as error:
            raise _lost(error) from error

    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        end = 0
        self._broken = True  # until all of it is out: a stream cannot tell how far a cancelled send_all came
        try:
            for piece in list(_joined(buffers, JOIN_SIZE)):
                end += len(piece)
                if progress is not None:
                    progress.about_to_write(end)
                await self._stream.send_all(piece)
                if progress is not None:
                    progress.bytes_accepted(len(piece))
        except _LOSSES as error:
            raise _lost(error) from error
        self._broken = False

    async def finish(self) -> bool:
        return not self._broken

    async def aclose(self) -> None:
        if self._broken:
            await trio.aclose_forcefully(self._stream)
        else:
            try:
                await self._stream.aclose()
            except _LOSSES as error:
                raise _lost(error) from error


def _joined(buffers: Sequence[Buffer], most: int) -> Iterator[Buffer]:
    """The same bytes in pieces of `most`, and a last one of what is left."""
    group: list[Buffer] = []
    room = most
    for buffer in buffers:
        while len(buffer) >= room:
            view = memoryview(buffer)
            yield b"".join([*group, view[:room]]) if group else view[:room]
            group, buffer, room = [], view[room:], most
        if buffer:
            group.append(buffer)
            room -= len(buffer)
    if group:
        yield b"".join(group)


class TLSTransport(Transport):
    """TLS over another transport. Records are made and read at once, without the turns that `trio.SSLStream` takes.

    Its first use is `handshake`. After a cancelled `write` it is only closed.
    """

    def __init__(
        self,
        inner: Transport,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
    ) -> None:
        self.has_heard = False  # anything from the peer
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._sending = trio.Lock()
        self._is_unfinished = False  # a write has not come to its end; one that was cancelled never does
        self._is_cut = False  # nor has a record
        self._is_over = False  # nothing more can be said to the peer

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As that of `ssl.SSLSocket`."""
        return self._tls.getpeercert(binary_form)

    async def handshake(self) -> None:
        """Raises `ssl.SSLError` or `ConnectionLost`; `say_why` then tells the peer."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send()
                await self._hear()
            else:
                break
        if not (self._tls.server_side and self._tls.version() == "TLSv1.3"):
            await self._send()  # else they are tickets, which wait for a first write: the client may not read before

    async def say_why(self, otherwise: bytes = b"") -> None:
        """The alert that OpenSSL has ready: who reads it knows then what is wrong."""
        with contextlib.suppress(ConnectionLost):
            await self._inner.write([self._outgoing.read() or otherwise])

    async def read(self) -> bytes:
        while True:
            unsent = self._outgoing.pending
            try:
                return self._tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                answers = self._outgoing.pending  # to new keys; who is writing sends them, too, unless they are many
                if answers > unsent and (answers > READ_SIZE or not self._sending.locked()):
                    await self._send()
            except ssl.SSLError as error:
                self._is_over = True
                raise _lost(error) from error
            await self._hear()

    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        end = 0
        self._is_unfinished = True
        for piece in _joined(buffers, TLS_PIECE):
            end += len(piece)
            try:
                self._tls.write(piece)
            except ssl.SSLError as error:
                raise _lost(error) from error
            if progress is not None:
                progress.about_to_write(end)
            await self._send()
            if progress is not None:
                progress.bytes_accepted(len(piece))
        self._is_unfinished = False

    async def _send(self) -> None:
        """All records that wait, in their order."""
        try:
            self._sending.acquire_nowait()  # without the turn of the event loop that the other takes
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if self._is_cut:
                raise ConnectionLost("a TLS record was cut off")
            while records := self._outgoing.read():
                self._is_cut = True  # until all of it is out
                await self._inner.write([records])
                self._is_cut = False
        finally:
            self._sending.release()

    async def _hear(self) -> None:
        if data := await self._inner.read():
            self.has_heard = True
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def finish(self) -> bool:
        return not (self._is_unfinished or self._is_cut)

    async def aclose(self) -> None:
        try:
            if await self.finish() and not self._is_over:
                self._is_over = True
                await self._say_good_bye()
        finally:
            await self._inner.aclose()

    async def _say_good_bye(self) -> None:
        """A close_notify; that of the peer is not waited for, which may be slow to look."""
        with contextlib.suppress(ssl.SSLError, ConnectionLost):
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            await self._send()


def transport_over(stream: trio.abc.Stream | Transport) -> Transport:
    """The fastest transport there is for `stream`, which it owns from now on."""
    if isinstance(stream, Transport):
        return stream
    if isinstance(stream, trio.SocketStream) and has_gathering_write:
        return SocketTransport(stream)
    return StreamTransport(stream)


def _is_tcp(sock: trio.socket.SocketType) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _tune(stream: trio.SocketStream) -> None:
    with contextlib.suppress(OSError):  # of a connection that has gone, which shows when it is used
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


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


def remote_address(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Host and port of the other end, if it has such."""
    if not isinstance(stream, trio.SocketStream) or not _is_tcp(stream.socket):
        return None
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:  # it has gone already
        return None
    return host, port


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
        raise TLSError(peer, _not_accepted(error.reason) or _REASONS.get(error.reason, error.reason)) from error
    except ConnectionLost as error:  # trouble of the network's
        failure = TLSError(peer, error.detail if transport.has_heard else f"{error.detail}; {_DOES_IT_SPEAK_TLS}")
        failure.retry = Retry.LATER
        raise failure from error
