"""What a person sees of a transfer: plain lines, and on a terminal a live line, too (see `live`)."""

from __future__ import annotations

import collections
import os
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from ..errors import printable
from ..sender.outcome import InstanceReport, Outcome
from ..services.storage_scu import ProgressChannel

_printing = threading.Lock()


def open_display(*, quiet: bool = False) -> Display:
    """A live one if standard output is a terminal; only that needs rich, which takes its time to be imported."""
    if quiet or not sys.stdout.isatty():
        return Display(quiet=quiet)
    from .live import LiveDisplay

    return LiveDisplay()


class Display:
    """Shows how a transfer goes on; a context manager. This one has plain lines, for files and pipes."""

    channel: ProgressChannel | None = None  # for the progress of the object that is on its way

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._total_objects = 0
        self._counts: collections.Counter[Outcome] = collections.Counter()
        self._settled_bytes = 0
        self._stored_bytes = 0
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def expect(self, total_objects: int, total_bytes: int) -> None:
        """There are so many inputs, of so many bytes together."""
        self._total_objects = total_objects

    def settled(self, report: InstanceReport, size: int, *, is_news: bool = True) -> None:
        """An input of `size` bytes has come to its end. If that is news, one that was not stored gets a line."""
        self._counts[report.outcome] += 1
        self._settled_bytes += size
        if report.outcome.is_stored:
            self._stored_bytes += report.bytes_sent
        if is_news and report.outcome is not Outcome.STORED:
            name = printable(report.path or "-", 400)
            self.say(f"{report.outcome.value.replace('_', ' ')}: {name}: {report.reason}")

    def say(self, text: str) -> None:
        """A line of its own, on standard error."""
        print_line(text, to_errors=True)

    def summarise(self, total_objects: int) -> None:
        """One line: how many of how many, and how fast."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        parts = [f"{count} {outcome.value.replace('_', ' ')}" for outcome, count in self._counts.items()]
        rate = self._stored_bytes / seconds / 1e6
        amount = f"{self._stored_bytes / 1e6:.1f} MB in {seconds:.1f} s, {rate:.1f} MB/s"
        if not self._quiet:
            print_line(f"{total_objects} input{'s' * (total_objects != 1)}: {', '.join(parts)}; {amount}")


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


def write_at_once(text: str, *, to_errors: bool = False) -> None:
    """The same past Python's buffers, whose locks would keep the process from its end while nobody reads."""
    stream = sys.stderr if to_errors else sys.stdout
    if stream is None:
        return
    left = memoryview(text.encode(stream.encoding, "backslashreplace"))
    try:
        while left:
            left = left[os.write(stream.fileno(), left) :]
    except OSError:
        _write_nowhere(stream)


def _write_nowhere(stream: TextIO) -> None:
    """From now on: nobody reads on (`| head`), or the disk is full."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
