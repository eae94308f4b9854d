"""The summary of a soak: for people, and as the tables of the documentation."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from trio_dicom import Outcome
from trio_dicom._version import __version__

from .sample import Sample
from .scenes import SCENES
from .verdict import Verdict
from .world import World

WRONG = "false or missing"
OUTCOMES = [outcome.value for outcome in Outcome if outcome is not Outcome.INVALID]


class Summary:
    """What came of it all."""

    def __init__(self, world: World, samples: Sequence[Sample], verdict: Verdict, seed: int) -> None:
        self._world = world
        self._end = samples[-1]
        self._peak = max(sample.rss for sample in samples)
        self._verdict = verdict
        self._seed = seed

    def facts(self) -> dict[str, str]:
        world, verdict, end = self._world, self._verdict, self._end
        first, last = verdict.points[0], verdict.points[-1]
        return {
            "Associations": f"{world.associations:,}, in {end.seconds:,.0f} s, seed {self._seed}",
            "Objects": f"{world.outcomes.total():,}",
            "False or missing outcomes": str(self._count(outcome=WRONG)),
            "Quiet points after the warm-up": str(len(verdict.points)),
            "Resident memory, fitted": f"{_mb(verdict.memory.first)} to {_mb(verdict.memory.last)}, a rise of "
            f"{verdict.memory.rise / 2**20:+.2f} MB; {_mb(self._peak)} at most",
            "Handed out by malloc, fitted": f"{_mb(verdict.heap.first)} to {_mb(verdict.heap.last)}, "
            f"a rise of {verdict.heap.rise / 2**20:+.2f} MB",
            "Python's memory blocks, fitted": f"{verdict.blocks.first:,.0f} to {verdict.blocks.last:,.0f}",
            "Descriptors when quiet": f"{first.descriptors} first, {last.descriptors} last",
            "Tasks when quiet": f"{first.tasks} first, {last.tasks} last",
            "With": f"Python {platform.python_version()}, trio {trio.__version__}, trio_dicom {__version__}",
        }

    def _count(self, scene: str | None = None, outcome: str | None = None) -> int:
        return sum(
            count
            for (name, end), count in self._world.outcomes.items()
            if scene in (None, name) and outcome in (None, end)
        )

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A table: the scenes, and how many of their objects ended how."""
        yield ("Scene", "associations", *(outcome.replace("_", " ") for outcome in OUTCOMES), WRONG)
        for scene in SCENES:
            counts = [self._count(scene.name, outcome) for outcome in (*OUTCOMES, WRONG)]
            yield (scene.name, _number(self._world.played[scene.name]), *map(_number, counts))
        totals = [self._count(outcome=outcome) for outcome in (*OUTCOMES, WRONG)]
        yield ("all", f"{self._world.associations:,}", *(f"{total:,}" for total in totals))

    def write(self, folder: Path) -> None:
        for name, rows in (("summary.csv", self.facts().items()), ("outcomes.csv", self.rows())):
            with (folder / name).open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)

    def __str__(self) -> str:
        rows = list(self.rows())
        first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
            for row in rows
        ]
        return "\n".join([*lines, "", *(f"{name}: {value}" for name, value in self.facts().items())])


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _mb(size: float) -> str:
    return f"{size / 2**20:.1f} MB"
