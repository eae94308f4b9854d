"""What the runs are to show, and whether they do."""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import attrs

from .run import Run


class Measure(enum.Enum):
    """What is looked at of a run: its unit, and how many of the SI unit that is."""

    CPU = ("µs of CPU an object", 1e-6)
    MEMORY = ("MB at most", 1e6)
    START = ("s to the first byte", 1.0)

    @property
    def unit(self) -> str:
        return self.value[0]

    def of(self, run: Run) -> float:
        return _OF[self](run) / self.value[1]


_OF: Mapping[Measure, Callable[[Run], float]] = {
    Measure.CPU: lambda run: run.cpu / run.objects,
    Measure.MEMORY: lambda run: run.peak_memory,
    Measure.START: lambda run: math.nan if run.start_up is None else run.start_up,
}


@attrs.frozen
class Spread:
    """The median of the runs, the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def measured(runs: Sequence[Run], contestant: str, measure: Measure) -> Spread:
    return Spread.of([measure.of(run) for run in runs if run.contestant == contestant])


def ratio(runs: Sequence[Run], contestant: str, rival: str) -> Spread:
    """How many times as fast, run by run: the two of a ratio were measured one soon after the other."""
    rival_rates = {run.number: run.rate for run in runs if run.contestant == rival}
    mine = [run for run in runs if run.contestant == contestant and run.number in rival_rates]
    return Spread.of([run.rate / rival_rates[run.number] for run in mine])


@attrs.frozen
class Result:
    """A goal, and what came of it."""

    what: str
    bound: str
    spread: Spread
    is_met: bool


@attrs.frozen
class AtLeast:
    """A contestant is at least `times` as fast as another."""

    times: float
    contestant: str
    rival: str

    @property
    def contestants(self) -> tuple[str, ...]:
        return (self.contestant, self.rival)

    def result(self, runs: Sequence[Run]) -> Result:
        spread = ratio(runs, self.contestant, self.rival)
        what = f"{self.contestant} as fast as {self.rival}"
        return Result(what, f"at least {self.times:g} times", spread, spread.median >= self.times)


@attrs.frozen
class AtMost:
    """A contestant takes no more than `bound`, in the unit of the measure; or than `more_than` allows beside a rival.

    `more_than` is the rival's name, a factor and what is added to the product; the larger of the two bounds counts.
    """

    bound: float
    measure: Measure
    contestant: str
    more_than: tuple[str, float, float] | None = None

    @property
    def contestants(self) -> tuple[str, ...]:
        return (self.contestant, self.more_than[0]) if self.more_than else (self.contestant,)

    def result(self, runs: Sequence[Run]) -> Result:
        spread = measured(runs, self.contestant, self.measure)
        bound = self.bound
        if self.more_than:
            rival, factor, extra = self.more_than
            bound = max(bound, factor * measured(runs, rival, self.measure).median + extra)
        return Result(f"{self.contestant}: {self.measure.unit}", f"at most {bound:.3g}", spread, spread.median <= bound)


Goal = AtLeast | AtMost
