"""Estimate: how far a transfer has come, how fast it goes, and how long it will take."""

from __future__ import annotations

import collections

import attrs

from ..sender.outcome import InstanceReport
from ..sender.reports import TransferReport
from .scan import Scan
from .wording import duration, plural, size_of

WINDOW = 10.0  # s over which rates are taken
USUAL_HEAD = 350  # bytes of a file before its data set


@attrs.frozen
class Estimate:
    """How it stands. The totals are None as long as they are not known."""

    objects: int  # that have come to their end
    objects_total: int | None
    size: int  # bytes, of these and of those on their way
    size_total: int | None
    bytes_per_second: float
    objects_per_second: float
    seconds_left: float | None

    @property
    def fraction(self) -> float | None:
        """0 to 1."""
        if self.size_total:
            return min(1.0, self.size / self.size_total)
        return min(1.0, self.objects / self.objects_total) if self.objects_total else None

    def __str__(self) -> str:
        objects = plural(self.objects, "object")
        if self.objects_total is not None:
            objects = f"{self.objects:,} of {plural(self.objects_total, 'object')}"
        size = size_of(self.size)
        if self.size_total is not None:
            size += f" of {size_of(self.size_total)}"
        text = f"{objects}, {size}, {self.bytes_per_second / 1e6:.1f} MB/s, {self.objects_per_second:.1f} objects/s"
        return text if self.seconds_left is None else f"{text}, {duration(self.seconds_left)} left"


class Estimator:
    """Is told what happens, and estimates the rest from what a `Scan` has counted."""

    def __init__(self) -> None:
        self._objects = 0
        self._size = 0  # bytes of data sets, of these
        self._without_size = 0  # of these: nothing of them was sent
        self._samples: collections.deque[tuple[float, int, int]] = collections.deque()

    def settled(self, report: InstanceReport) -> None:
        """An input has come to its end."""
        self._objects += 1
        self._size += report.bytes_sent
        self._without_size += not report.bytes_sent

    def estimate(self, totals: TransferReport, scan: Scan | None, size_under_way: int, now: float) -> Estimate:
        """How it stands at `now`."""
        samples = self._samples
        samples.append((now, totals.bytes_sent, self._objects))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW:
            samples.popleft()
        then, sent_then, objects_then = samples[0] if len(samples) > 1 else (now - totals.elapsed, 0, 0)
        seconds = max(now - then, 1e-9)
        rate = max(0.0, (totals.bytes_sent - sent_then) / seconds) if now > then else 0.0
        done = self._size + size_under_way
        objects_total = size_total = seconds_left = None
        if scan is not None and scan.is_complete:
            objects_total, size_total = max(scan.objects, self._objects), scan.size
            left = objects_total - self._objects
            # What is not accounted for is spread evenly over these and those of which nothing was sent.
            accounted = self._size + USUAL_HEAD * (self._objects - self._without_size)
            size_left = max(0, size_total - accounted) * left / max(left + self._without_size, 1)
            done = round(size_total - max(0.0, size_left - size_under_way))
            seconds_left = (size_total - done) / rate if rate else None
        return Estimate(
            objects=self._objects,
            objects_total=objects_total,
            size=done,
            size_total=size_total,
            bytes_per_second=rate,
            objects_per_second=(self._objects - objects_then) / seconds if now > then else 0.0,
            seconds_left=seconds_left,
        )
