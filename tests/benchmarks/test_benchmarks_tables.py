"""What is made of runs: spreads, ratios, goals, tables. No run is made here."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from benchmarks import report
from benchmarks.contests import CONTESTS, FEW, SINK_TLS, Contest, Contestant, sink
from benchmarks.goals import AtLeast, AtMost, Measure, Spread, measured, ratio
from benchmarks.rounds import present, quicker, rounds
from benchmarks.run import QUICK, Book, Run
from benchmarks.workshop import Workshop

ROOT = Path(__file__).parents[2]
BY_NAME = {contest.name: contest for contest in CONTESTS}


def run(contestant: str, seconds: float, number: int = 1, **changes: object) -> Run:
    made = Run("race", contestant, number, objects=100, bytes=10**7, seconds=seconds, cpu=0.01, peak_memory=50 * 10**6)
    return attrs.evolve(made, **changes)


def race(*goals: AtLeast | AtMost) -> Contest:
    contestants = tuple(Contestant(name, ("{python}",)) for name in ("hare", "tortoise"))
    return Contest("race", "A race", "tiny", 100, sink("16k"), contestants, goals)


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0)
    assert Spread.of([4.0, 2.0]) == Spread(3.0, 2.0, 4.0)


def test_a_ratio_is_taken_within_each_round() -> None:
    """The machine was ten times as slow in the second round; the contestants were still 2 and 4 times apart."""
    runs = [run("hare", 1.0, 1), run("tortoise", 2.0, 1), run("tortoise", 40.0, 2), run("hare", 10.0, 2)]
    assert ratio(runs, "hare", "tortoise") == Spread(3.0, 2.0, 4.0)


def test_a_round_in_which_one_is_missing_makes_no_ratio() -> None:
    runs = [run("hare", 1.0, 1), run("hare", 1.0, 2), run("tortoise", 3.0, 2)]
    assert ratio(runs, "hare", "tortoise") == Spread(3.0, 3.0, 3.0)


def test_the_rate_counts_where_one_had_fewer_objects() -> None:
    runs = [run("hare", 1.0), run("tortoise", 1.0, objects=10)]
    assert ratio(runs, "hare", "tortoise").median == 10


@pytest.mark.parametrize(("seconds", "is_met"), [(2.0, True), (2.01, False)])
def test_a_goal_of_speed(seconds: float, is_met: bool) -> None:
    result = AtLeast(2, "hare", "tortoise").result([run("hare", seconds), run("tortoise", 4.0)])
    assert (result.what, result.bound, result.is_met) == ("hare as fast as tortoise", "at least 2 times", is_met)


@pytest.mark.parametrize(
    ("measure", "run_of", "bound"),
    [
        (Measure.CPU, run("hare", 1.0, cpu=0.012), 120),
        (Measure.MEMORY, run("hare", 1.0, peak_memory=60_000_000), 60),
        (Measure.START, run("hare", 1.0, start_up=0.35), 0.35),
    ],
    ids=lambda value: value.name if isinstance(value, Measure) else "",
)
def test_a_goal_of_cost(measure: Measure, run_of: Run, bound: float) -> None:
    assert measured([run_of], "hare", measure).median == pytest.approx(bound)
    assert AtMost(bound * 1.001, measure, "hare").result([run_of]).is_met
    assert not AtMost(bound * 0.999, measure, "hare").result([run_of]).is_met


def test_a_start_that_was_not_seen_meets_no_goal() -> None:
    assert not AtMost(1000, Measure.START, "hare").result([run("hare", 1.0)]).is_met


@pytest.mark.parametrize(("rival_cpu", "bound"), [(0.002, 120), (0.01, 190)], ids=["cheap rival", "dear rival"])
def test_a_goal_beside_a_rival_takes_the_larger_bound(rival_cpu: float, bound: float) -> None:
    goal = AtMost(120, Measure.CPU, "hare", more_than=("tortoise", 1.3, 60))
    runs = [run("hare", 1.0, cpu=0.0125), run("tortoise", 1.0, cpu=rival_cpu)]
    result = goal.result(runs)
    assert (result.bound, result.is_met) == (f"at most {bound}", bound > 125)


@pytest.mark.parametrize(
    ("value", "text"),
    [(31_234.5, "31,234"), (100, "100"), (99.99, "99.99"), (1, "1.00"), (0.0456, "0.046"), (0, "0.00")],
    ids=str,
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert report.number(value) == text


def test_the_tables() -> None:
    contest = race(AtLeast(2, "hare", "tortoise"), AtMost(40, Measure.MEMORY, "hare"))
    runs = [run("hare", 0.001, 0), run("hare", 1.0), run("hare", 3.0, 2), run("tortoise", 4.0), run("tortoise", 4.0, 2)]
    goals = report.goals_table([contest], Book({}, runs))
    assert goals.rows == [
        ("A race", "hare as fast as tortoise", "at least 2 times", "2.67", "1.33 to 4.00", "yes"),
        ("A race", "hare: MB at most", "at most 40", "50.00", "50.00 to 50.00", "no"),
    ]
    first, second = report.results_table([contest], runs).rows
    heading = "A race. Receiver: sink, 16 KiB PDUs, no Nagle"
    assert first == (heading, "hare", "66.67", "6.67", "1.00", "1.00 to 1.00", "2.00", "100", "50.00", "")
    assert second[:6] == ("", "tortoise", "25.00", "2.50", "0.500", "0.250 to 0.750")


def test_who_encodes_anew_is_marked_and_who_is_missing_has_no_row() -> None:
    rows = report.results_table([race(AtLeast(2, "hare", "tortoise"))], [run("hare", 1.0, has_other_bytes=True)]).rows
    assert [row[1] for row in rows] == ["hare *"]
    assert report.goals_table([race(AtLeast(2, "hare", "tortoise"))], Book({}, [run("hare", 1.0)])).rows == []


def test_a_quick_run_meets_no_goal_and_misses_none() -> None:
    runs = [run("hare", 1.0), run("tortoise", 4.0)]
    goals = report.goals_table([race(AtLeast(2, "hare", "tortoise"))], Book({QUICK: ""}, runs))
    assert goals.rows[0][-1] == "not measured"


@pytest.mark.parametrize("is_quick", [False, True])
def test_the_page_warns_of_the_figures_of_a_quick_run(is_quick: bool, tmp_path: Path) -> None:
    report.write(tmp_path, [], Book({QUICK: ""} if is_quick else {}, []))
    assert (".. warning::" in (tmp_path / "warning.txt").read_text()) == is_quick


def test_a_table_as_markdown_and_as_csv(tmp_path: Path) -> None:
    table = report.Table(("a", "b"), [("1,000", "x|y")])
    assert table.as_markdown() == "| a | b |\n| --- | --- |\n| 1,000 | x/y |\n"
    table.write_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        assert [*csv.reader(file)] == [["a", "b"], ["1,000", "x|y"]]


def test_a_book_is_read_as_it_was_written(tmp_path: Path) -> None:
    book = Book({"Processor": "µ"}, [run("hare", 1.5, start_up=0.1), run("tortoise", 2.5)], ["race: it fell asleep"])
    book.write(tmp_path / "runs.jsonl")
    assert Book.read(tmp_path / "runs.jsonl") == book
    assert "race: it fell asleep" in report.markdown(book, [race()])


def test_each_round_begins_with_another() -> None:
    order = [(turn.number, turn.contestant.name) for turn in rounds(race(), 2)]
    assert order == [
        *((0, "hare"), (0, "tortoise")),
        *((1, "tortoise"), (1, "hare")),
        *((2, "hare"), (2, "tortoise")),
    ]


def test_a_contest_of_few_runs_has_no_warm_up() -> None:
    assert {turn.number for turn in rounds(attrs.evolve(race(), most_runs=1), 5)} == {1}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_goals_of_a_contest_are_about_its_contestants(name: str) -> None:
    contest = BY_NAME[name]
    names = [each.name for each in contest.contestants]
    assert len(names) == len({*names})
    assert all({*goal.contestants} <= {*names} for goal in contest.goals)
    assert quicker(contest).count <= FEW[contest.kind]


def test_no_contest_has_the_name_of_another() -> None:
    assert len(BY_NAME) == len(CONTESTS)


class Bare(Workshop):
    """A machine with nothing but Python."""

    def __init__(self) -> None:
        self.words = dict.fromkeys(("python", "here", "sink", "yardstick"), "")


def test_who_is_not_here_takes_no_part() -> None:
    contest = present(BY_NAME["process-ct"], Bare())
    assert contest is not None
    assert [each.name for each in contest.contestants] == ["trio-dicom send"]
    assert contest.goals == ()
    assert present(attrs.evolve(contest, receiver=SINK_TLS), Bare()) is None


def test_the_help_names_each_contest_and_the_readme_the_command() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in text for name in BY_NAME)
    assert "-m tests.benchmarks --output docs/performance\n" in (ROOT / "README.md").read_text()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["sink", "yardstick"])
def test_the_programs_compile_without_a_warning(name: str, tmp_path: Path) -> None:
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-fsyntax-only"]
    subprocess.run(["cc", *options, Path(__file__).with_name(f"{name}.c")], check=True)


def test_the_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plot

    plot.draw(tmp_path, CONTESTS, [])
    assert [*tmp_path.iterdir()] == []
    runs = [
        run(each.name, 1.0, contest=contest.name)
        for contest in CONTESTS
        for each in contest.contestants
        if contest.name in ("in-process-ct-16k", "in-process-big-0", "process-ct", "receive-ct", "process-ct-tls")
    ]
    plot.draw(tmp_path, CONTESTS, runs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in-process.png", "processes.png"]
