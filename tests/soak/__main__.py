"""The command that soaks; see `python -m tests.soak --help`."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from . import sample
from .sample import Sample, Samples
from .scenes import LONGEST, SCENES, play
from .summary import Summary
from .verdict import RULE, Verdict
from .world import World, open_world

LEAST = 50  # associations
SETTLING = 20.0  # s that the last tasks and threads have to end
QUIET_POINTS = 100  # in a run
BETWEEN = (10, 200)  # associations from one to the next, at least and at most
DESCRIPTION = f"""\
Opens thousands of associations over loopback, between senders and a Storage SCP of this library in one process, and
sees to it that nothing is left by any of them, and that no object has a false outcome.

What is played is a seeded mix of the scenes below. The receiver files what it is sent; at each quiet point what the
senders said of every object is compared with what lies in its folder and with what it answered.

{RULE}

The exit code is 0 if all of that holds, and 1 if not, or if an object has a false outcome or none, something was not
documented that was raised, an error was logged, or a scene did not come to its end within {LONGEST:g} s. 10,000
associations take about five minutes. It needs Linux, and trustme for the certificates.
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="scenes:\n" + "\n".join(f"  {scene.name}" for scene in SCENES),
    )
    add = parser.add_argument
    add("--associations", type=int, default=2000, help="at least so many (default: %(default)s)")
    add("--seconds", type=float, default=1200, help="begin nothing further after that time (default: %(default)s)")
    add("--at-once", type=int, default=8, help="scenes that are played at a time (default: %(default)s)")
    add("--seed", type=int, default=0, help="the same one is the same mix (default: %(default)s)")
    add("--output", type=Path, help="a folder for samples.csv, summary.csv, outcomes.csv and, by matplotlib, soak.png")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.associations < LEAST or arguments.at_once < 1:
        parser().error(f"--associations must be {LEAST} or more, --at-once 1 or more")
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        soak = trio.run(run, arguments, Path(scratch))
    samples = list(soak.samples)
    try:
        verdict = Verdict.of(samples)
    except ValueError as error:
        sys.exit("; ".join([str(error), *soak.world.troubles]))
    summary = Summary(soak.world, samples, verdict, arguments.seed)
    print(summary)
    if arguments.output:
        write(arguments.output, samples, verdict, summary)
    wrong = soak.world.troubles + verdict.growths
    print("\n".join(["", *(f"WRONG: {each}" for each in wrong)]) if wrong else "\nAll as it must be.")
    sys.exit(bool(wrong))


def write(folder: Path, samples: list[Sample], verdict: Verdict, summary: Summary) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sample.write(folder / "samples.csv", samples)
    summary.write(folder)
    try:
        from .plot import draw  # only now: it would be a part of what is measured
    except ImportError:
        print("no plot without matplotlib", file=sys.stderr)
    else:
        draw(folder / "soak.png", samples, verdict)


async def run(arguments: argparse.Namespace, scratch: Path) -> Soak:
    async with open_world(scratch) as world:
        soak = Soak(world, arguments)
        await soak.run()
    return soak


class Soak:
    """A run: scenes, and samples of what they leave."""

    def __init__(self, world: World, arguments: argparse.Namespace) -> None:
        self.world = world
        self.samples = Samples()
        self._arguments = arguments
        self._numbers = itertools.count()
        self._start = time.monotonic()
        self._shown = Progress(arguments)

    async def run(self) -> None:
        total = self._arguments.associations
        before = self._take(is_quiet=True)
        step = max(BETWEEN[0], min(BETWEEN[1], total // QUIET_POINTS))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while self.world.associations < total and not self._is_over:
                await self._play_until(min(total, self.world.associations + step))
                await self._settle(before)
                self._take(is_quiet=True)
                self.world.settle_accounts()
            nursery.cancel_scope.cancel()
        self._shown.end()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def _is_over(self) -> bool:
        return self._seconds > self._arguments.seconds

    async def _play_until(self, associations: int) -> None:
        """Some at a time, until there are so many."""

        async def go_on() -> None:
            while self.world.associations < associations and not self._is_over:
                await play(self.world, self._arguments.seed, next(self._numbers))

        async with trio.open_nursery() as nursery:
            for _ in range(self._arguments.at_once):
                nursery.start_soon(go_on)

    async def _settle(self, before: Sample) -> None:
        """Until nothing is going on, and no more is held than before; or for long enough for that."""
        with trio.move_on_after(SETTLING):
            while not self.world.is_quiet or not self._holds_no_more_than(before):  # noqa: ASYNC110  # who could tell?
                await trio.sleep(0.01)

    def _holds_no_more_than(self, before: Sample) -> bool:
        tasks = trio.lowlevel.current_statistics().tasks_living
        return tasks <= before.tasks + 1 and sample.descriptors() <= before.descriptors  # one task is `_watch`

    async def _watch(self) -> None:
        while True:
            await trio.sleep(0.5)
            self._take(is_quiet=False)

    def _take(self, *, is_quiet: bool) -> Sample:
        sample = Sample.take(self._seconds, self.world.associations, is_quiet=is_quiet)
        self.samples.append(sample)
        self._shown.show(sample)
        return sample


class Progress:
    """A line on a terminal; elsewhere, a line now and then."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._total = arguments.associations
        self._seconds = arguments.seconds
        self._is_terminal = sys.stderr.isatty()
        self._tenths: Iterator[int] = iter(range(1, 11))
        self._next = next(self._tenths)

    def show(self, sample: Sample) -> None:
        done, passed = sample.associations, sample.seconds
        part = min(1.0, done / self._total)
        if not self._is_terminal and part * 10 < self._next:
            return
        while part * 10 >= self._next <= 10:
            self._next = next(self._tenths, 11)
        left = min(passed / part - passed, self._seconds - passed) if part else 0.0
        bar = "#" * round(20 * part)
        text = (
            f"[{bar:<20}] {done:,} of {self._total:,} associations, {passed:,.0f} s, {max(0.0, left):,.0f} s left; "
            f"{sample.rss / 2**20:.0f} MB, {sample.descriptors} descriptors, {sample.tasks} tasks"
        )
        print(f"\r\033[K{text}" if self._is_terminal else text, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        if self._is_terminal:
            print(file=sys.stderr)


if __name__ == "__main__":
    main()
