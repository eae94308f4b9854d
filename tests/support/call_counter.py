"""Counter: how many calls of Python functions something takes. Unlike times, they are the same on every machine."""

from __future__ import annotations

import gc
import sys
from types import FrameType


class Counter:
    """Counts the calls of Python functions in this thread; a task that goes on counts as a call of each it is in."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Counter:
        gc.collect()
        gc.disable()
        sys.setprofile(self._count)
        return self

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.calls += 1

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)
        gc.enable()
