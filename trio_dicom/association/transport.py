"""Transports: byte streams to a peer, over TCP by system calls of their own, which take many buffers at once.

A transport is written by one task and read by another. Its `write` takes buffers that are whole PDUs and keeps account
of how far it came: after a cancelled `write`, `finish` writes the rest where that is possible, so that an A-ABORT never
lands inside another PDU. Whatever goes wrong with the connection is raised as `ConnectionLost`.
"""

from __future__ import annotations

import abc
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator, Sequence

import trio

from ..errors import ConnectionLost, Retry

Buffer = bytes | bytearray | memoryview

READ_SIZE = 1 << 16  # below what malloc maps anew each time
READ_MOST = 1 << 18
READS_AT_ONCE = 4
JOIN_SIZE = 1 << 18  # SSLStream encrypts all that it is given before its first await
GATHER_MOST = 1024  # IOV_MAX of Linux, macOS and the BSDs
MOST_UNSENT = 1 << 19  # bytes in the kernel; trio's 16 KiB would have us woken for each 16 KiB of a fast network
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
    async def read(self, *, acknowledge: bool = True) -> bytes:
        """The next bytes; `b""` once the peer has closed its side.

        `acknowledge` what came before at once: the peer may keep the rest of its message until then. Without it, that
        goes out with what is written next, or when the system likes.
        """

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


def lost(error: BaseException) -> ConnectionLost:
    """What `error` of a stream means."""
    if isinstance(error, trio.ClosedResourceError):
        return ConnectionLost("the connection was closed on this side")
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLEOFError):
        return ConnectionLost("the peer closed the connection without a TLS close_notify")
    if isinstance(cause, ssl.SSLError):
        reason = cause.reason or "unknown reason"
        failure = ConnectionLost(not_accepted(reason) or f"TLS failed: {reason}")
        if not_accepted(reason):  # in TLS 1.3 a client's handshake is over before the server has seen its certificate
            failure.retry = Retry.AFTER_CONFIG
        return failure
    if isinstance(cause, OSError) and cause.errno:
        return ConnectionLost(f"the connection was lost: {os.strerror(cause.errno)}")
    return ConnectionLost("the connection was lost")


def not_accepted(reason: str) -> str | None:
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

    async def read(self, *, acknowledge: bool = True) -> bytes:
        while True:
            try:
                if not self._reads_at_once:
                    if acknowledge and self._quickack is not None:  # Linux forgets it
                        self._setsockopt(socket.IPPROTO_TCP, self._quickack, 1)
                    await trio.lowlevel.wait_readable(self._fd)
                data = os.read(self._fd, self._read_size)
            except BlockingIOError:
                self._reads_at_once = 0
            except _LOSSES as error:
                raise lost(error) from error
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
                raise lost(error) from error
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
            raise lost(error) from error

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

    async def read(self, *, acknowledge: bool = True) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_SIZE))
        except _LOSSES as error:
            raise lost(error) from error

    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        end = 0
        self._broken = True  # until all of it is out: a stream cannot tell how far a cancelled send_all came
        try:
            for piece in list(joined(buffers, JOIN_SIZE)):
                end += len(piece)
                if progress is not None:
                    progress.about_to_write(end)
                await self._stream.send_all(piece)
                if progress is not None:
                    progress.bytes_accepted(len(piece))
        except _LOSSES as error:
            raise lost(error) from error
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
                raise lost(error) from error


def joined(buffers: Sequence[Buffer], most: int) -> Iterator[Buffer]:
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
    with contextlib.suppress(OSError):
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT)
    with contextlib.suppress(OSError):  # of a connection that has gone, which shows when it is used
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def remote_address(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Host and port of the other end, if it has such."""
    if not isinstance(stream, trio.SocketStream) or not _is_tcp(stream.socket):
        return None
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:  # it has gone already
        return None
    return host, port
