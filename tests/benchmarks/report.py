"""The tables that are made of runs: goals, and all that was measured."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from .contests import Contest
from .goals import Measure, Spread, measured, ratio
from .run import Book, Run

GOALS = ("Contest", "What", "Goal", "Median", "Least to most", "Met")
RESULTS = (
    *("Contest", "Contestant", "Objects/s", "MB/s", "As fast as the first", "Least to most"),
    *("Seconds", "CPU µs an object", "Peak MB", "First byte after s"),
)


@attrs.frozen
class Table:
    """Cells, all of them text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)

    def write_csv(self, path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self.columns, *self.rows])


def counted(runs: Iterable[Run], contest: Contest) -> list[Run]:
    return [run for run in runs if run.contest == contest.name and run.number]


def goals_table(contests: Iterable[Contest], book: Book) -> Table:
    rows = []
    runs = book.runs
    for contest in contests:
        mine = counted(runs, contest)
        names = {run.contestant for run in mine}
        for goal in contest.goals:
            if not names.issuperset(goal.contestants):
                continue
            result = goal.result(mine)
            met = "not measured" if book.is_quick else "yes" if result.is_met else "no"
            median, span = number(result.spread.median), _span(result.spread)
            rows.append((contest.title, result.what, result.bound, median, span, met))
    return Table(GOALS, rows)


def results_table(contests: Iterable[Contest], runs: Sequence[Run]) -> Table:
    return Table(RESULTS, [row for contest in contests for row in _rows(contest, counted(runs, contest))])


def _rows(contest: Contest, runs: Sequence[Run]) -> Iterable[tuple[str, ...]]:
    names = [each.name for each in contest.contestants if any(run.contestant == each.name for run in runs)]
    for name in names:
        mine = [run for run in runs if run.contestant == name]
        relative = ratio(runs, name, names[0])
        start_ups = [run.start_up for run in mine if run.start_up is not None]
        yield (
            contest.heading if name == names[0] else "",
            name + " *" * any(run.has_other_bytes for run in mine),
            number(Spread.of([run.rate for run in mine]).median),
            number(Spread.of([run.byte_rate for run in mine]).median / 1e6),
            number(relative.median),
            _span(relative),
            number(Spread.of([run.seconds for run in mine]).median),
            number(measured(runs, name, Measure.CPU).median),
            number(measured(runs, name, Measure.MEMORY).median),
            number(Spread.of(start_ups).median) if start_ups else "",
        )


def _span(spread: Spread) -> str:
    return f"{number(spread.least)} to {number(spread.most)}"


def number(value: float) -> str:
    """With three digits that count, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 or not value else f"{value:.3f}"


def markdown(book: Book, contests: Sequence[Contest]) -> str:
    facts = "".join(f"- {name}: {value}\n" for name, value in book.machine.items())
    failures = "".join(f"- {each}\n" for each in book.failures)
    parts = {
        "Goals": goals_table(contests, book).as_markdown(),
        "All that was measured": results_table(contests, book.runs).as_markdown()
        + "\n\\* encodes the objects anew: they arrive with other bytes than the files have.\n",
        "Runs that failed, and were made again": failures,
    }
    return f"# Benchmarks\n\n{facts}" + "".join(f"\n## {title}\n\n{text}" for title, text in parts.items() if text)


def write(folder: Path, contests: Sequence[Contest], book: Book) -> None:
    (folder / "results.md").write_text(markdown(book, contests), encoding="utf-8")
    goals_table(contests, book).write_csv(folder / "goals.csv")
    results_table(contests, book.runs).write_csv(folder / "results.csv")
    Table(("What", "Which"), [*book.machine.items()]).write_csv(folder / "machine.csv")
    (folder / "warning.txt").write_text(_QUICK_WARNING if book.is_quick else "", encoding="utf-8")


_QUICK_WARNING = """\
.. warning::

   The figures below are those of a quick run: few objects, on a machine that had other work. They show that the
   benchmarks run, and measure nothing. A full run puts its own in their place, and takes this away.
"""
