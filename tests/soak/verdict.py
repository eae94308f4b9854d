"""Verdict: whether anything has grown, by one rule that is told in `RULE`."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from .sample import Sample

WARM_UP = 1000  # associations
LEAST = 2 * WARM_UP  # of a run whose memory is judged
RESIDENT, HEAP = 8 << 20, 4 << 20  # bytes
BLOCKS = 4000
RULE = f"""\
Every now and then nothing further is begun until all associations have ended: a quiet point. After the warm-up, which
is the first {WARM_UP:,} associations, all quiet points must have the same number of descriptors and of tasks. Lines
fitted to the quiet points by least squares must not rise, from the end of the warm-up to the end of the run, by more
than {HEAP >> 20} MB for what malloc has handed out, {BLOCKS:,} for the number of Python's memory blocks, and
{RESIDENT >> 20} MB for resident memory. (What is free is given back to the system first.) In a run of fewer than
{LEAST:,} associations the first quarter is the warm-up, and memory is not judged."""


@attrs.frozen
class Line:
    """Fitted to the quiet points after the warm-up: where it begins and ends."""

    first: float
    last: float

    @property
    def rise(self) -> float:
        return self.last - self.first


@attrs.frozen
class Verdict:
    """What the quiet points after the warm-up say; `growths` is empty if all is flat."""

    points: tuple[Sample, ...]
    memory: Line  # resident
    heap: Line
    blocks: Line

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Verdict:
        total = samples[-1].associations
        warm_up = WARM_UP if total >= LEAST else total // 4
        points = tuple(sample for sample in samples if sample.is_quiet and sample.associations >= warm_up)
        at = [sample.associations for sample in points]
        return cls(
            points,
            fitted(at, [sample.rss for sample in points]),
            fitted(at, [sample.heap for sample in points]),
            fitted(at, [sample.blocks for sample in points]),
        )

    @property
    def growths(self) -> list[str]:
        found = []
        for name in ("descriptors", "tasks"):
            numbers = {getattr(point, name) for point in self.points}
            if len(numbers) != 1:
                found.append(f"quiet points have {min(numbers)} to {max(numbers)} {name}")
        if self.points[-1].associations < LEAST:
            return found
        for what, line, most in (("resident memory", self.memory, RESIDENT), ("the heap", self.heap, HEAP)):
            if line.rise > most:
                found.append(f"{what} rises by {line.rise / 2**20:.1f} MB")
        if self.blocks.rise > BLOCKS:
            found.append(f"Python's memory blocks rise by {self.blocks.rise:,.0f}")
        return found


def fitted(at: Sequence[float], values: Sequence[float]) -> Line:
    """The line of least squares through `values`. Raises `ValueError` if there are too few points for one."""
    if len(set(at)) < 3:
        raise ValueError("there are fewer than three quiet points after the warm-up: too few to tell")
    mean_at, mean = sum(at) / len(at), sum(values) / len(values)
    spread = sum((x - mean_at) ** 2 for x in at)
    slope = sum((x - mean_at) * (value - mean) for x, value in zip(at, values, strict=True)) / spread
    return Line(mean + slope * (at[0] - mean_at), mean + slope * (at[-1] - mean_at))
