"""A stream on which things go wrong: at a given byte, in a given direction, the same way every time.

    stream = FaultyStream(stream, Stall(at_byte=10_000, seconds=5), Reset(at_byte=20_000))

1. Bytes are counted for each direction from 0. `at_byte=n` lets the first n bytes pass; what it does, it does to what
   comes after them.
2. A fault acts when the byte after it is on its way; `Reset` and `HalfClose` as soon as the n bytes have gone, for they
   need no more bytes to be noticed.
3. Faults at the same byte act in the order in which they are given.
4. Chance comes from the seed alone, and from a die of its own for each fault: the same seed, the same bytes.
"""

from __future__ import annotations

import abc
import heapq
import itertools
import math
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import trio
from attrs.validators import optional

from .direction import Direction


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{attribute.name} must be a number of bytes, not {value!r}")


def _positive_count(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{attribute.name} must be a number of bytes above 0, not {value!r}")


def _seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must be a number of seconds, not {value!r}")


def _mask(instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and not 1 <= value <= 255:
        raise ValueError(f"{attribute.name} must be a mask of bits, 1 to 255, not {value!r}")


@attrs.frozen
class Fault(abc.ABC):
    """What goes wrong on a `FaultyStream`, and in which direction."""

    direction: Direction = attrs.field(default=Direction.SENDING, kw_only=True)

    @abc.abstractmethod
    def positions(self, dice: random.Random) -> Iterator[int]:
        """The bytes before which it acts, ascending."""


@attrs.frozen
class _SingleFault(Fault):
    at_byte: int = attrs.field(default=0, validator=_count)

    def positions(self, dice: random.Random) -> Iterator[int]:
        yield self.at_byte


@attrs.frozen
class Stall(_SingleFault):
    """Nothing goes on after `at_byte`, for `seconds`, by default for ever."""

    seconds: float = attrs.field(default=math.inf, validator=_seconds)


@attrs.frozen
class Drip(Fault):
    """After `at_byte`, there come `bytes` at once, and `seconds` pass before each time."""

    bytes: int = attrs.field(default=1, validator=_positive_count)
    seconds: float = attrs.field(default=1.0, validator=_seconds)
    at_byte: int = attrs.field(default=0, validator=_count)

    def positions(self, dice: random.Random) -> Iterator[int]:
        return itertools.count(self.at_byte, self.bytes)


@attrs.frozen
class Reset(_SingleFault):
    """The connection breaks after `at_byte`: from then on all that is done with the stream raises
    `trio.BrokenResourceError`, also what was waiting, in both directions.

    The other side of a socket meets a reset, that of a memory stream its end.
    """


@attrs.frozen
class HalfClose(_SingleFault):
    """One direction ends after `at_byte`; the other goes on.

    SENDING: the other side meets the end, and what is sent from then on is lost without a word; only for streams that
    can close one direction alone, which TLS cannot. RECEIVING: `receive_some` gives `b""`, whatever is sent.
    """


@attrs.frozen
class Corrupt(_SingleFault):
    """The byte after `at_byte` is another one: the bits of the mask `flip` are turned, by default some of its bits."""

    flip: int | None = attrs.field(default=None, validator=_mask)


@attrs.frozen
class Split(Fault):
    """What is sent or received at once comes in pieces: cut `at_byte`, or `every` so many bytes, or into lengths of
    chance that go `up_to` so many bytes. One of the three must be given. The other side of a stream may get several
    of the pieces that are sent at once.
    """

    at_byte: int | None = attrs.field(default=None, validator=optional(_positive_count))
    every: int | None = attrs.field(default=None, validator=optional(_positive_count))
    up_to: int | None = attrs.field(default=None, validator=optional(_positive_count))

    def __attrs_post_init__(self) -> None:
        if sum(each is not None for each in (self.at_byte, self.every, self.up_to)) != 1:
            raise ValueError("Split needs one of at_byte, every and up_to")

    def positions(self, dice: random.Random) -> Iterator[int]:
        if self.at_byte is not None:
            yield self.at_byte
        elif self.every is not None:
            yield from itertools.count(self.every, self.every)
        elif self.up_to is not None:
            position = 0
            while True:
                position += dice.randint(1, self.up_to)
                yield position


@attrs.define(order=True)
class _Due:
    """A fault, and the byte before which it acts next."""

    position: int
    number: int  # among all faults
    fault: Fault = attrs.field(order=False)
    later: Iterator[int] = attrs.field(order=False)
    dice: random.Random = attrs.field(order=False)
    ends_at: float | None = attrs.field(default=None, order=False)  # of a pause that has begun


class _Way:
    """One direction of a faulty stream: how far it is, and what is still to go wrong."""

    def __init__(self) -> None:
        self.position = 0
        self.is_over = False
        self.is_busy = False
        self._due: list[_Due] = []
        self._mask = 0  # for the next byte

    def add(self, due: _Due) -> None:
        heapq.heappush(self._due, due)

    @property
    def next_due(self) -> _Due | None:
        """What acts here and now."""
        return self._due[0] if self._due and self._due[0].position <= self.position else None

    def done(self, due: _Due) -> None:
        heapq.heappop(self._due)
        due.ends_at = None
        due.position = next(due.later, -1)
        if due.position >= 0:
            self.add(due)

    def room(self) -> int | None:
        """The bytes that can pass before the next fault acts; None for any number."""
        return self._due[0].position - self.position if self._due else None

    def flip(self, mask: int) -> None:
        self._mask ^= mask

    def spoil(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        """`data` as they arrive."""
        if not self._mask or not data:
            return data
        return bytes((data[0] ^ self._mask,)) + data[1:]

    def passed(self, count: int) -> None:
        self.position += count
        if count:
            self._mask = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        if self.is_busy:
            raise trio.BusyResourceError("another task is using this direction of the stream")
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False


class FaultyStream(trio.abc.HalfCloseableStream):
    """`stream`, with `faults`, which act as `Fault` and the classes of it tell. It owns `stream`, and closes it.

    Without faults, it behaves as `stream` does. Pauses are on trio's clock, a virtual one too. Cancelling keeps what
    trio promises: a `receive_some` loses nothing, and after a `send_all` nobody knows how much has gone. Raises
    `TypeError` for a `HalfClose` of what is sent over a stream that cannot do that.
    """

    def __init__(self, stream: trio.abc.Stream, *faults: Fault, seed: int = 0) -> None:
        self.stream = stream
        self.faults = faults
        self._ways = {direction: _Way() for direction in Direction}
        self._is_closed = self._is_broken = False
        self._ended = trio.Event()  # no use in waiting on
        for number, fault in enumerate(faults):
            if isinstance(fault, HalfClose) and fault.direction is Direction.SENDING:
                self._half_closeable()
            dice = random.Random(f"{seed}/{number}")
            later = fault.positions(dice)
            self._ways[fault.direction].add(_Due(next(later), number, fault, later, dice))

    # --- the stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        way = self._ways[Direction.SENDING]
        with way.busy():
            left = memoryview(data)
            while True:
                if left:
                    await self._act(way)
                room = way.room()
                piece = left if room is None else left[:room]
                if way.is_over:
                    piece = left
                    self._check()
                    await trio.lowlevel.checkpoint()
                else:
                    with self._mapped():
                        await self.stream.send_all(way.spoil(piece))
                way.passed(len(piece))
                await self._act(way, eagerly=True)
                left = left[len(piece) :]
                if not left:
                    return

    async def wait_send_all_might_not_block(self) -> None:
        way = self._ways[Direction.SENDING]
        with way.busy():
            await self._act(way)
            with self._mapped():
                await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        way = self._ways[Direction.RECEIVING]
        with way.busy():
            await self._act(way)
            if way.is_over:
                self._check()
                await trio.lowlevel.checkpoint()
                return b""
            room = way.room()
            if room is not None and (max_bytes is None or max_bytes > room):
                max_bytes = room
            with self._mapped():
                data = bytes(way.spoil(await self.stream.receive_some(max_bytes)))
            way.passed(len(data))
            await self._act(way, eagerly=True)
            return data

    async def send_eof(self) -> None:
        """As of the stream within. Raises `TypeError` if that cannot close one direction alone."""
        stream = self._half_closeable()
        way = self._ways[Direction.SENDING]
        with way.busy(), self._mapped():
            if way.is_over:
                self._check()
                await trio.lowlevel.checkpoint()
            else:
                await stream.send_eof()

    async def aclose(self) -> None:
        self._is_closed = True
        self._ended.set()
        await self.stream.aclose()

    def _half_closeable(self) -> trio.abc.HalfCloseableStream:
        if not isinstance(self.stream, trio.abc.HalfCloseableStream):
            raise TypeError(f"{type(self.stream).__name__} cannot close one direction alone")
        return self.stream

    def _check(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._is_broken:
            raise trio.BrokenResourceError("the connection was reset by a fault")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """To close the stream within is how a reset is done: to the one without, it broke."""
        self._check()
        try:
            yield
        except trio.ClosedResourceError as error:
            if self._is_broken and not self._is_closed:
                raise trio.BrokenResourceError("the connection was reset by a fault") from error
            raise

    # --- the faults

    async def _act(self, way: _Way, *, eagerly: bool = False) -> None:
        """Let happen what is due; `eagerly`, what needs no further byte for it: that neither raises nor waits."""
        while not (way.is_over or self._is_broken or self._is_closed) and (due := way.next_due) is not None:
            fault = due.fault
            if isinstance(fault, Reset):
                await self._reset()
            elif isinstance(fault, HalfClose):
                await self._end(way, fault.direction)
            elif eagerly:
                return
            elif isinstance(fault, Stall | Drip):
                await self._pause(due, fault.seconds)
                if self._ended.is_set():
                    break
            elif isinstance(fault, Corrupt):
                way.flip(fault.flip or due.dice.randint(1, 255))
            way.done(due)
        if not eagerly:
            self._check()

    async def _pause(self, due: _Due, seconds: float) -> None:
        """A pause that is cancelled goes on when the next one comes to it."""
        if due.ends_at is None:
            due.ends_at = trio.current_time() + seconds
        with trio.move_on_at(due.ends_at):
            await self._ended.wait()

    async def _end(self, way: _Way, direction: Direction) -> None:
        way.is_over = True
        if direction is Direction.SENDING:
            with trio.move_on_after(1, shield=True), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._half_closeable().send_eof()

    async def _reset(self) -> None:
        self._is_broken = True
        self._ended.set()
        _linger_not(self.stream)
        await trio.aclose_forcefully(self.stream)


def _linger_not(stream: trio.abc.Stream) -> None:
    """Have a socket send RST when it is closed."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream) and stream.socket.family in (socket.AF_INET, socket.AF_INET6):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
