"""TLSTransport: TLS over another transport, as records that are made and read here."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

import trio

from ..errors import ConnectionLost
from .transport import READ_SIZE, Buffer, Transport, WriteProgress, joined, lost

TLS_PIECE = 6 << 14  # whole records; joined, encrypted and gone while in the processor's cache, and not mapped anew


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

    async def read(self, *, acknowledge: bool = True) -> bytes:
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
                raise lost(error) from error
            await self._hear(acknowledge=acknowledge)
            acknowledge = True  # the rest of a record, or what comes behind one that was none of the peer's data

    async def write(self, buffers: Sequence[Buffer], progress: WriteProgress | None = None) -> None:
        end = 0
        self._is_unfinished = True
        for piece in joined(buffers, TLS_PIECE):
            end += len(piece)
            try:
                self._tls.write(piece)
            except ssl.SSLError as error:
                raise lost(error) from error
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

    async def _hear(self, *, acknowledge: bool = True) -> None:
        if data := await self._inner.read(acknowledge=acknowledge):
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
