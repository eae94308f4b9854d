"""LineQueue: lines for standard output and standard error that never keep their writer waiting."""

from __future__ import annotations

import collections
import threading

from .display import write_at_once

MOST_LINES = 10_000
LAST_WAIT = 1.0  # s for what is left at the end


class LineQueue:
    """Writes in a thread of its own: a terminal that was stopped (Ctrl-S), a pager or a log collector may not read.

    Whoever reads slowly gets all; where `most` lines wait already, one more is dropped and counted. `failure` is what
    first kept something from being written to standard output, unless it was that nobody reads on.
    """

    def __init__(self, most: int = MOST_LINES) -> None:
        self.dropped = 0
        self.failure: OSError | None = None
        self._most = most
        self._lines: collections.deque[tuple[str, bool]] = collections.deque()
        self._is_writing = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="standard output", daemon=True)

    def put(self, text: str, *, to_errors: bool = False, end: str = "\n", always: bool = False) -> None:
        """Have a line written; where there is no room for it, too, if `always`."""
        with self._changed:
            if len(self._lines) >= self._most and not always:
                self.dropped += 1
                return
            self._lines.append((text + end, to_errors))
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    @property
    def backlog(self) -> int:
        """How many lines wait."""
        return len(self._lines)

    def wait_room(self, most: int) -> None:
        """Wait until no more than `most` lines wait. Blocks: for a thread."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lines) <= most or self._is_closed)

    def close(self, timeout: float | None = LAST_WAIT) -> None:
        """Wait until all is written, for a time; without a timeout, for as long as it takes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, timeout)
            self._is_closed = True
            self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if self._is_closed:
                    return
                text, to_errors = self._lines.popleft()
                self._is_writing = True
            failure = write_at_once(text, to_errors=to_errors)
            if not to_errors and not isinstance(failure, BrokenPipeError):
                self.failure = self.failure or failure
