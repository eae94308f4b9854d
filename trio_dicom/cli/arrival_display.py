"""What a person sees of a receiver: a line for each object, and on a terminal one more that is kept up to date."""

from __future__ import annotations

import collections
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..association import account
from ..peer import host_and_port
from .arrival import Arrival, Fate
from .line_queue import LineQueue

PERIOD = 0.25  # s from one state of the live line to the next
SAMPLES = 9  # of the counts, from which the rates are taken: two seconds


class ArrivalDisplay:
    """Plain lines: what was stored on standard output, the rest on standard error."""

    is_live = False

    def __init__(self, folder: Path, *, quiet: bool = False) -> None:
        self._prefix = len(str(folder).rstrip(os.sep)) + 1
        self._quiet = quiet
        self._lines = LineQueue()
        self._counts: collections.Counter[Fate] = collections.Counter()
        self._bytes = 0
        self._start = self._end = time.monotonic()  # of what is counted

    def listening(self, addresses: tuple[tuple[str, int], ...], title: str | None) -> None:
        """It has begun."""
        where = ", ".join(host_and_port(*address) for address in addresses)
        self._out(f"listening on {where} as {title or 'ANY'}")

    def begun(self) -> None:
        """An object begins to come in."""
        if not self._counts:
            self._start = time.monotonic()

    def settled(self, arrival: Arrival) -> None:
        """A line for an object."""
        self._counts[arrival.fate] += 1
        self._bytes += arrival.size
        self._end = time.monotonic()
        status = "none" if arrival.status is None else f"{arrival.status:04X}"
        what = f"{arrival.sop_instance_uid} {arrival.size} bytes from {arrival.calling_ae_title}"
        if arrival.fate.is_stored:
            if not self._quiet:
                where = "as it was before" if arrival.path is None else str(arrival.path)[self._prefix :]
                self._out(f"{arrival.fate.value} {what} status {status}: {where}")
            return
        reasons = [arrival.comment] if arrival.comment else []
        if arrival.status is not None:
            reasons.insert(0, arrival.status.meaning)
        self.say(f"{arrival.fate.value.replace('_', ' ')} {what} status {status}: {'; '.join(reasons)}")

    def say(self, text: str) -> None:
        """A line of its own, on standard error."""
        self._lines.put(text, to_errors=True)

    def update(self, associations: int, bytes_under_way: int) -> None:
        """So many associations are open."""

    def summarise(self) -> None:
        """The last line."""
        count = self._counts.total()
        fates = ", ".join(f"{n} {fate.value.replace('_', ' ')}" for fate, n in self._counts.items())
        seconds = max(self._end - self._start, 1e-9)
        rate = f"{self._bytes / 1e6:.1f} MB in {seconds:.1f} s, {self._bytes / seconds / 1e6:.1f} MB/s"
        text = f"{count} object{'s' * (count != 1)}" + (f": {fates}; {rate}" if count else "")
        if dropped := self._lines.dropped:
            text += f"; {dropped} line{'s' * (dropped != 1)} dropped, since nobody read them"
        if not self._quiet:
            self._lines.put(text, always=True)

    def close(self) -> None:
        """Wait until what was said is written, but not for a reader that does not read."""
        self._lines.close()

    def _out(self, text: str) -> None:
        if not self._quiet:
            self._lines.put(text)


class LiveArrivalDisplay(ArrivalDisplay):
    """The same, above a line with counts and rates. It needs no more of a terminal than a carriage return."""

    is_live = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._shown = ""
        self._samples: collections.deque[tuple[float, int, int]] = collections.deque(maxlen=SAMPLES)

    def update(self, associations: int, bytes_under_way: int) -> None:
        count, size = self._counts.total(), self._bytes + bytes_under_way
        self._samples.append((time.monotonic(), count, size))
        then, count_then, size_then = self._samples[0]
        seconds = max(time.monotonic() - then, PERIOD)
        parts = (
            f"{count} objects",
            f"{size / 1e6:.1f} MB",
            f"{(count - count_then) / seconds:.0f} objects/s",
            f"{max(size - size_then, 0) / seconds / 1e6:.1f} MB/s",
            f"{associations} association{'s' * (associations != 1)}",
        )
        self._show(", ".join(parts)[: shutil.get_terminal_size().columns - 1])

    def say(self, text: str) -> None:
        if not sys.stderr.isatty():
            super().say(text)
            return
        shown = self._shown
        self._show("")
        super().say(text)
        self._show(shown)

    def summarise(self) -> None:
        self._show("")
        super().summarise()

    def _out(self, text: str) -> None:
        if self._shown:  # in one go: a terminal is slow
            text = f"\r{text.ljust(len(self._shown))}\n{self._shown}"
            self._lines.put(text, end="")
        else:
            self._lines.put(text)

    def _show(self, line: str) -> None:
        if line != self._shown:
            self._lines.put(f"\r{line.ljust(len(self._shown))}\r{line}", end="")
            self._shown = line


def open_arrival_display(folder: Path, *, quiet: bool) -> ArrivalDisplay:
    """A live one if standard output is a terminal."""
    if quiet or sys.stdout is None or not sys.stdout.isatty():
        return ArrivalDisplay(folder, quiet=quiet)
    return LiveArrivalDisplay(folder)


class _DisplayHandler(logging.Handler):
    def __init__(self, display: ArrivalDisplay, level: int) -> None:
        super().__init__(level)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == account.__name__ and getattr(record, "outcome", "released") == "released":
            return  # the lines of its objects tell enough
        self._display.say(f"trio-dicom: {record.getMessage()}")


@contextmanager
def log_shown(display: ArrivalDisplay, *, quiet: bool) -> Iterator[None]:
    """What the library logs goes to `display`: who was not let in, how associations ended, trouble with the disk."""
    logger, level = logging.getLogger("trio_dicom"), logging.WARNING if quiet else logging.INFO
    handler, level_before, passes_on = _DisplayHandler(display, level), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = passes_on
        logger.setLevel(level_before)
        logger.removeHandler(handler)
