"""The command that measures; see `python -m tests.benchmarks --help`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import report
from .contests import CONTESTS, Contest
from .machine import machine
from .processes import Failed, compiler
from .rounds import Round, play, prepare, present, quicker, rounds
from .run import QUICK, Book, Run
from .workshop import Workshop, default_folder

RUNS, QUICK_RUNS = 5, 2
ATTEMPTS = 6  # pynetdicom now and then waits for an answer that has come
DESCRIPTION = """\
Measures how fast, with how much CPU and in how much memory objects are sent and received, beside DCMTK, pynetdicom
and plain C, over loopback.

The contestants of a contest take turns, each time in another order, so that what slows the machine falls on all of
them. Each run has a receiver of its own, and counts only if every object arrived. Leave the machine alone meanwhile,
and compare the ratios of one call, not times of different days. All of it takes about half an hour, --quick two or
three minutes.

It needs Linux and a C compiler (cc). A contestant whose program is not here is left out: /usr/bin/storescu, storescp
and dcmsend of DCMTK, pynetdicom, trustme for TLS; matplotlib draws the plots of --output.
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog="contests:\n" + "\n".join(f"  {contest.name:<27} {contest.title}" for contest in CONTESTS),
    )
    add = parser.add_argument
    add("contest", nargs="*", help="of those below, or how the names of some begin; all if there is none")
    add("--runs", type=int, help=f"that count, after one that does not ({RUNS}; with --quick {QUICK_RUNS})")
    add("--quick", action="store_true", help="few objects: to see that all works, not to measure")
    add("--output", type=Path, help="a folder for runs.jsonl, and for the tables and plots that are made of it")
    add("--render", type=Path, metavar="JSONL", help="measure nothing; make tables and plots of these runs")
    add(
        "--folder",
        type=Path,
        default=default_folder(),
        help="for the corpus (2 GB) and for what is received; on a disk, not in memory (%(default)s)",
    )
    return parser


def main() -> None:
    arguments = parser().parse_args()
    contests = chosen(arguments.contest)
    if arguments.render is None and compiler() is None:
        parser().error("there is no C compiler")
    book = Book.read(arguments.render) if arguments.render else measure(contests, arguments)
    print(report.markdown(book, contests))
    if arguments.output:
        write(arguments.output, contests, book)
    sys.exit(bool(book.failures))


def write(folder: Path, contests: Sequence[Contest], book: Book) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    book.write(folder / "runs.jsonl")
    report.write(folder, contests, book)
    try:
        from . import plot  # only now: this process is to be a small one while it measures
    except ImportError:
        print(f"no plots without matplotlib; with it: --render {folder}/runs.jsonl", file=sys.stderr)
    else:
        plot.draw(folder, contests, book.runs)


def chosen(names: Sequence[str]) -> list[Contest]:
    for name in names:
        if not any(contest.name.startswith(name) for contest in CONTESTS):
            parser().error(f"no such contest: {name}")
    return [contest for contest in CONTESTS if not names or contest.name.startswith(tuple(names))]


def measure(contests: Sequence[Contest], arguments: argparse.Namespace) -> Book:
    workshop = Workshop(arguments.folder)
    count = arguments.runs or (QUICK_RUNS if arguments.quick else RUNS)
    here = [found for contest in contests if (found := present(contest, workshop)) is not None]
    here = [quicker(contest) for contest in here] if arguments.quick else here
    turns = {contest.name: [*rounds(contest, count)] for contest in here}
    progress = Progress(sum(map(len, turns.values())))
    facts = {"Runs": f"{count}, and one before that is not counted"}
    facts |= {QUICK: "few objects, to see that all works: these figures measure nothing"} if arguments.quick else {}
    runs: list[Run] = []
    facts = machine(arguments.folder) | facts
    try:
        for contest in here:
            prepare(contest, workshop)
            runs.extend(run for turn in turns[contest.name] if (run := taken(turn, workshop, progress)) is not None)
    except KeyboardInterrupt:
        progress.failures.append("It was interrupted: what comes after is missing.")
    finally:
        shutil.rmtree(workshop.received, ignore_errors=True)
    return Book(facts, runs, progress.failures)


def taken(turn: Round, workshop: Workshop, progress: Progress) -> Run | None:
    """The run, or None after a few that failed, after which the contestant is out of the contest."""
    contestant = (turn.contest.name, turn.contestant.name)
    run = None
    if contestant not in progress.out:
        attempts = (attempt(turn, workshop, progress) for _ in range(ATTEMPTS))
        run = next(filter(None, attempts), None)
        progress.out |= {contestant} if run is None else set()
    progress.tell(turn, run)
    return run


def attempt(turn: Round, workshop: Workshop, progress: Progress) -> Run | None:
    try:
        return play(turn, workshop)
    except Failed as failure:
        text = str(failure).replace(str(workshop.folder), "FOLDER")  # it is published
        progress.failures.append(f"{progress.heading(turn)}: {text}")
        print(f"FAILED: {progress.failures[-1]}", file=sys.stderr)
        return None


class Progress:
    """A line for each run on standard error; and those that failed."""

    def __init__(self, total: int) -> None:
        self.failures: list[str] = []
        self.out: set[tuple[str, str]] = set()  # contests and contestants
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    @staticmethod
    def heading(turn: Round) -> str:
        return f"{turn.contest.name}, {f'run {turn.number}' if turn.number else 'warm-up'}: {turn.contestant.name}"

    def tell(self, turn: Round, run: Run | None) -> None:
        self._done += 1
        passed = time.monotonic() - self._start
        text = f"{run.seconds:.3f} s, {report.number(run.rate)} objects/s" if run else "out"
        print(f"[{self._done}/{self._total}, {passed:.0f} s] {self.heading(turn)}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
