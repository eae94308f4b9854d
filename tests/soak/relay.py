"""A relay between two real ends, which cuts the connection: with a reset, or after it has stalled for a while."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_dicom.testing.plain_nursery import open_plain_nursery

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: what is closed is reset


@attrs.frozen
class Cut:
    """After so many bytes, in both directions together; before the reset nothing comes through for `stall` seconds."""

    after: int
    stall: float = 0.0


@asynccontextmanager
async def relay(port: int, cut: Cut) -> AsyncIterator[int]:
    """A port of its own that leads to `port`. The first connection is cut, and no other."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    cuts = [cut]

    async def serve(near: trio.SocketStream) -> None:
        await _connect(near, port, cuts.pop() if cuts else None)

    async with open_plain_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _connect(near: trio.SocketStream, port: int, cut: Cut | None) -> None:
    async with near, await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
        wire = _Wire(near, far, cut, nursery.cancel_scope)
        nursery.start_soon(wire.pump, near, far)
        nursery.start_soon(wire.pump, far, near)


class _Wire:
    def __init__(
        self, near: trio.SocketStream, far: trio.SocketStream, cut: Cut | None, scope: trio.CancelScope
    ) -> None:
        self._ends = (near, far)
        self._left = None if cut is None else cut.after
        self._stall = 0.0 if cut is None else cut.stall
        self._scope = scope

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(1 << 16):
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                await sink.send_all(data)
                if self._left == 0:
                    await trio.sleep(self._stall)
                    self._reset()
                    return
            await sink.send_eof()
        except GONE:
            self._reset()

    def _reset(self) -> None:
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._scope.cancel()
