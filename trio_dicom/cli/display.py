"""Lines on standard output and standard error."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

_printing = threading.Lock()


def print_line(text: str, *, to_errors: bool = False, end: str = "\n") -> None:
    """`print`, though nobody may read on (`| head`): no reason to end, nor for Python to complain at its exit."""
    stream = sys.stderr if to_errors else sys.stdout
    if stream is None:  # it was closed before we began
        return
    try:
        with _printing:
            stream.write(text + end)  # at once, for what logs in another thread prints, too
            stream.flush()
    except OSError:
        _write_nowhere(stream)


def write_at_once(text: str, *, to_errors: bool = False) -> OSError | None:
    """The same past Python's buffers, whose locks would keep the process from its end while nobody reads.

    Returns what kept it from being written.
    """
    stream = sys.stderr if to_errors else sys.stdout
    if stream is None:
        return None
    left = memoryview(text.encode(stream.encoding, "backslashreplace"))
    try:
        while left:
            left = left[os.write(stream.fileno(), left) :]
    except OSError as error:
        _write_nowhere(stream)
        return error
    return None


def _write_nowhere(stream: TextIO) -> None:
    """From now on: nobody reads on (`| head`), or the disk is full."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
