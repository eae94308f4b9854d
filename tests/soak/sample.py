"""Sample: what the process holds at one moment; and the table of them."""

from __future__ import annotations

import csv
import ctypes
import gc
import os
import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import trio

PAGE = os.sysconf("SC_PAGE_SIZE")
_C = ctypes.CDLL(None)
_trim = getattr(_C, "malloc_trim", lambda size: None)  # of the C library of GNU, as is mallinfo2


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _heap() -> int:
    """0 where that is not known."""
    try:
        mallinfo = _C.mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


@attrs.frozen
class Sample:
    """What is held. `is_quiet` if nothing goes on.

    `rss` is resident memory, and `heap` what malloc has handed out, in bytes; `blocks` are Python's, of small objects.
    """

    seconds: float
    associations: int
    rss: int
    descriptors: int
    tasks: int
    threads: int
    heap: int
    blocks: int
    is_quiet: bool

    @classmethod
    def take(cls, seconds: float, associations: int, *, is_quiet: bool) -> Sample:
        """Of this process, from within trio. Where all is quiet, what is free is given back to the system first."""
        if is_quiet:
            gc.collect()
            _trim(0)
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        tasks = trio.lowlevel.current_statistics().tasks_living
        return cls(
            round(seconds, 2),
            associations,
            resident * PAGE,
            descriptors(),
            tasks,
            threading.active_count(),
            _heap(),
            sys.getallocatedblocks(),
            is_quiet,
        )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Samples:
    """Many, kept as bare numbers: so they hardly add to what they measure."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def append(self, sample: Sample) -> None:
        self._numbers.extend(attrs.astuple(sample))

    def __iter__(self) -> Iterator[Sample]:
        width = len(attrs.fields(Sample))
        for at in range(0, len(self._numbers), width):
            seconds, *counts, is_quiet = self._numbers[at : at + width]
            yield Sample(seconds, *map(int, counts), bool(is_quiet))  # type: ignore[arg-type]


def write(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(field.name for field in attrs.fields(Sample))
        table.writerows((*attrs.astuple(sample)[:-1], int(sample.is_quiet)) for sample in samples)
