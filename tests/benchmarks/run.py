"""Run: what one run of one contestant took; and Book, which has them all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

QUICK = "Quick"  # a fact about a book


@attrs.frozen
class Run:
    contest: str
    contestant: str
    number: int  # of the round; 0 is not counted
    objects: int
    bytes: int  # of data sets
    seconds: float  # of the whole process, or as it prints itself
    cpu: float  # seconds, user and system, of the same time
    peak_memory: int  # bytes, resident, of the whole process
    start_up: float | None = None  # s from the start of the process to the first byte, where the receiver can tell
    cipher: str = ""
    has_other_bytes: bool = False  # the data sets came with another length than the files': they were encoded anew

    @property
    def rate(self) -> float:
        """Objects a second."""
        return self.objects / self.seconds

    @property
    def byte_rate(self) -> float:
        return self.bytes / self.seconds


@attrs.frozen
class Book:
    """All runs of a call, with what they were made on, and the text of each that failed."""

    machine: Mapping[str, str]
    runs: Sequence[Run] = attrs.field(factory=list)
    failures: Sequence[str] = attrs.field(factory=list)

    @property
    def is_quick(self) -> bool:
        """Of few objects, so that it shows nothing but that all works."""
        return QUICK in self.machine

    def write(self, path: Path) -> None:
        """Lines of JSON: the machine, each run, each failure."""
        lines: list[Mapping[str, object]] = [{"machine": self.machine}, *map(attrs.asdict, self.runs)]
        lines += [{"failure": text} for text in self.failures]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Book:
        first, *others = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        runs = [Run(**line) for line in others if "failure" not in line]
        return cls(first["machine"], runs, [line["failure"] for line in others if "failure" in line])
