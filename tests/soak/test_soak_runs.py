"""The soak itself: that a short one passes, and that what leaks or lies is found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import trio

import soak.__main__ as command
from soak.parcel import Parcel, data_set_of
from soak.receiver import Receiver
from soak.sample import Sample, Samples
from soak.verdict import BLOCKS, HEAP, LEAST, RESIDENT, WARM_UP, Verdict
from trio_dicom import Association, AssociationServer, InstanceReport, Outcome, Status

ROOT = Path(__file__).parents[2]
A700 = Status(0xA700)

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(92)
@pytest.mark.timeout(180)
def test_a_short_soak_leaves_nothing_and_tells_the_truth(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--associations", "60", "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "All as it must be." in done.stdout) == (0, True), done.stdout + done.stderr
    assert "[####################] 60 of 60 associations" in done.stderr
    files = {"samples.csv", "summary.csv", "outcomes.csv"} | ({"soak.png"} if find_spec("matplotlib") else set())
    assert {path.name for path in tmp_path.iterdir()} == files
    assert "False or missing outcomes,0\n" in (tmp_path / "summary.csv").read_text()


def soaked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> command.Soak:
    """A run in this process, of which nothing is waited for long."""
    monkeypatch.setattr(command, "SETTLING", 0.1)
    arguments = argparse.Namespace(associations=50, seconds=30.0, at_once=8, seed=1)
    return trio.run(command.run, arguments, folder)


@pytest.mark.parametrize("what", ["descriptors", "tasks"])
def test_a_leak_is_found(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one with each association."""
    was_entered, leaked = AssociationServer._enter, list[int]()

    def enter(server: AssociationServer, association: Association) -> None:
        was_entered(server, association)
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        if what == "tasks":
            nursery.start_soon(trio.sleep_forever)
        else:
            leaked.append(os.dup(0))

    monkeypatch.setattr(AssociationServer, "_enter", enter)
    growths = Verdict.of(list(soaked(tmp_path, monkeypatch).samples)).growths
    for descriptor in leaked:
        os.close(descriptor)
    assert [each for each in growths if each.endswith(what)]


def test_a_lie_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing lies in the receiver's folder."""
    monkeypatch.setattr(Receiver, "filed", lambda receiver, uid: None)
    troubles = soaked(tmp_path, monkeypatch).world.troubles
    assert any("stored, it says, and it is not there" in trouble for trouble in troubles)


# --- the rules --------------------------------------------------------------------------------------------------------


def samples(**growth: float) -> list[Sample]:
    """Of a run of three thousand associations in which these things grow by so much after the warm-up."""
    collected = Samples()
    for number in range(0, 3001, 100):
        grown = {name: round(value * max(0, number - WARM_UP) / 2000) for name, value in growth.items()}
        flat = {"rss": 100 << 20, "descriptors": 16, "tasks": 12, "threads": 8, "heap": 20 << 20, "blocks": 380_000}
        held = {name: value + grown.get(name, 0) for name, value in flat.items()}
        collected.append(Sample(seconds=number / 50, associations=number, is_quiet=True, **held))
    return list(collected)


def test_what_is_flat_passes() -> None:
    assert Verdict.of(samples()).growths == []
    assert Verdict.of(samples(rss=0.9 * RESIDENT, heap=0.9 * HEAP, blocks=0.9 * BLOCKS)).growths == []


@pytest.mark.parametrize(
    ("growth", "what"),
    [
        ({"rss": 1.1 * RESIDENT}, "resident memory rises by 8.8 MB"),
        ({"heap": 1.1 * HEAP}, "the heap rises by 4.4 MB"),
        ({"blocks": 1.1 * BLOCKS}, "Python's memory blocks rise by 4,400"),
        ({"descriptors": 1}, "quiet points have 16 to 17 descriptors"),
        ({"tasks": 1}, "quiet points have 12 to 13 tasks"),
    ],
)
def test_what_grows_does_not(growth: dict[str, float], what: str) -> None:
    assert Verdict.of(samples(**growth)).growths == [what]


def test_the_warm_up_does_not_count_nor_what_goes_on() -> None:
    warm = [Sample(0, number, 10 << 20, 3, 2, 1, 9, 100, True) for number in range(0, WARM_UP, 100)]
    busy = [Sample(9, 1500, 500 << 20, 99, 99, 9, 9 << 20, 999_999, False)]
    assert Verdict.of(warm + busy + samples()[WARM_UP // 100 :]).growths == []


def test_memory_is_not_judged_by_a_short_run() -> None:
    few = [each for each in samples(rss=1 << 30, tasks=1, blocks=1e6) if each.associations < LEAST]
    assert Verdict.of(few).growths == ["quiet points have 12 to 13 tasks"] or not Verdict.of(few).growths


@pytest.mark.parametrize(
    ("outcome", "status", "answers", "is_filed", "lie"),
    [
        (Outcome.STORED, 0, [0], True, None),
        (Outcome.STORED, 0, [0], False, "stored, it says, and it is not there, and was answered with 0000"),
        (Outcome.STORED, 0, [], True, "stored, it says, and it is there, and was answered with nothing"),
        (Outcome.STORED_WITH_WARNING, 0xB000, [0xB000], True, None),
        (Outcome.STORED_WITH_WARNING, 0xB000, [0], True, "and was answered with 0000"),
        (Outcome.REFUSED, A700, [0, A700], False, None),
        (Outcome.REFUSED, A700, [A700], True, "refused, it says, and it is there"),
        (Outcome.REFUSED, A700, [0xC000], False, "and was answered with C000"),
        (Outcome.ALREADY_PRESENT, 0x0111, [0x0111], False, None),
        (Outcome.NOT_SENT, None, [], False, None),
        (Outcome.NOT_SENT, None, [], True, "not_sent, it says, and it is there"),
        (Outcome.NO_CONTEXT, None, [], False, None),
        (Outcome.IN_DOUBT, None, [], True, None),
        (Outcome.IN_DOUBT, None, [], False, None),
        (Outcome.INVALID, None, [], False, "invalid is no end that this can come to"),
    ],
)
def test_what_is_said_is_compared_with_what_is_there(
    outcome: Outcome, status: int | None, answers: list[int], is_filed: bool, lie: str | None
) -> None:
    parcel = Parcel(1, 100, "", frozenset(Outcome) - {Outcome.INVALID}, [], answers=answers)
    parcel.note(InstanceReport(path=None, outcome=outcome, status=None if status is None else Status(status)))
    found = parcel.lie(parcel.file if is_filed else None)
    assert found is None if lie is None else found is not None and lie in found


def test_no_outcome_two_outcomes_and_other_bytes_are_lies() -> None:
    parcel = Parcel(1, 100, "", frozenset(Outcome), [], answers=[0])
    assert parcel.lie(None) == "it has 0 outcomes"
    parcel.note(InstanceReport(path=None, outcome=Outcome.STORED))
    assert parcel.lie(parcel.file[:-2]) == "other bytes were filed than were sent"
    parcel.note(InstanceReport(path=None, outcome=Outcome.STORED))
    assert parcel.lie(parcel.file) == "it has 2 outcomes"
    assert data_set_of(b"no DICOM") == b""


def test_the_page_tells_the_rule() -> None:
    page = " ".join((ROOT / "docs" / "reliability.rst").read_text().split())
    assert f"after the first {WARM_UP:,} associations" in page
    assert f"by more than {HEAP >> 20} MB" in page
    assert f"{BLOCKS:,} for the number of memory blocks" in page
    assert f"{RESIDENT >> 20} MB for resident memory" in page
