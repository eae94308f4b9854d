"""Pairs of connected streams with an operating system behind them; in memory, `trio.testing` has its own."""

from __future__ import annotations

import socket

import trio


async def loopback_streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    """The two ends of a TCP connection on 127.0.0.1. Its buffers hold some MB before a writer has to wait.

    Real sockets do not go with a virtual clock: it may jump while bytes are on their way.
    """
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        host, port = listener.socket.getsockname()
        ours = await trio.open_tcp_stream(host, port)
        return ours, await listener.accept()


def socket_pair_streams(*, send_buffer: int = 4096) -> tuple[trio.SocketStream, trio.SocketStream]:
    """The two ends of a local socket with little room in it (`send_buffer` bytes, as far as the system goes along).

    What is written is there at once, so a virtual clock can be trusted, and a writer whose peer does not read is soon
    blocked, in the way of sockets: it can go on in the middle of what it was writing.
    """
    pair = trio.socket.socketpair()
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return trio.SocketStream(pair[0]), trio.SocketStream(pair[1])
