"""Turn: whose message is being written. One after another, in the order in which they asked."""

from __future__ import annotations

import collections

import trio


class Turn:
    """A lock that costs nothing while nobody else wants it."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: collections.deque[trio.Event] = collections.deque()

    def take_nowait(self) -> bool:
        """Take it, unless somebody has it."""
        is_free = not self._is_taken
        self._is_taken = True
        return is_free

    async def take(self) -> None:
        """Wait for it. If cancelled, it goes to the next who waits."""
        if self.take_nowait():
            return
        come = trio.Event()
        self._waiting.append(come)
        try:
            await come.wait()
        except BaseException:
            if come.is_set():
                self.release()
            else:
                self._waiting.remove(come)
            raise

    def release(self) -> None:
        """It is over."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._is_taken = False

    def end(self) -> None:
        """There will be no more turns: all who wait are woken, to find out why."""
        while self._waiting:
            self._waiting.popleft().set()
