"""ChunkedSource: what is common to sources whose bytes come one chunk after another, of whatever size."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator

import trio

from ..errors import InvalidObject, LocalProtocolError, ObjectChanged
from .element_walk import ElementWalk
from .part10 import Buffer
from .source import Source

_PATIENCE = 1.0  # seconds after which what has come goes out, though the buffer is not full
_CLOSING = 1.0  # seconds for the caller's own clean-up, when its iterator is given up


class ChunkedSource(Source):
    """A source that is always one chunk ahead, and so knows which bytes are the last."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._wire: AsyncGenerator[Buffer, None] | None = None
        self._walk: ElementWalk | None = None  # along what is on the wire, where it is not known to be whole
        self._chunk = memoryview(b"")
        self._done = 0
        self._finished = False
        self._closed = False

    @abc.abstractmethod
    def _bytes(self) -> AsyncGenerator[Buffer, None]:
        """The bytes of the data set in the prepared transfer syntax, from the first on."""

    async def read_into(self, buffer: memoryview) -> tuple[int, bool]:
        if self._closed:
            raise trio.ClosedResourceError("this source was closed")
        if self._finished or not len(buffer):
            raise LocalProtocolError("read_into after the last byte or a failure, or into no room")
        if self._wire is None:
            self._wire = self._bytes()
        filled = 0
        start = trio.current_time()
        self._finished = True  # whatever is raised from here on
        while True:
            if not self._chunk:
                try:
                    self._chunk = memoryview(await anext(self._wire)).cast("B")
                except StopAsyncIteration:
                    self._check_end()
                    return filled, True
                self._check_room()
                if self._walk is not None:
                    self._walk.feed(self._chunk)
                continue
            is_slow = filled and not filled % 2 and trio.current_time() - start > _PATIENCE
            if is_slow or filled == len(buffer):
                self._finished = False
                return filled, False
            count = min(len(self._chunk), len(buffer) - filled)
            buffer[filled : filled + count] = self._chunk[:count]
            self._chunk = self._chunk[count:]
            self._done += count
            filled += count

    def _check_room(self) -> None:
        if self.size is not None and self._done + len(self._chunk) > self.size:
            raise ObjectChanged(f"gives more than the {self.size} bytes that were announced", self.where)

    def _check_end(self) -> None:
        if self.size is not None and self._done != self.size:
            raise ObjectChanged(f"ended after {self._done} of {self.size} bytes", self.where)
        if not self._done:
            raise InvalidObject("there is no data set", self.where)
        if self._done % 2:
            raise InvalidObject("the data set is of odd length", self.where)
        if self._walk is not None:
            self._walk.check_fed(self.where)

    async def rewind(self) -> bool:
        if self._closed:
            return False
        await self._stop()
        self._done = 0
        self._finished = False
        return True

    async def aclose(self) -> None:
        self._closed = True
        await self._stop()

    async def _stop(self) -> None:
        self._chunk = memoryview(b"")
        wire, self._wire = self._wire, None
        if wire is not None:
            with trio.move_on_after(_CLOSING, shield=True):
                await wire.aclose()
