"""A destination that aborts, stalls, resets, rejects, answers wrongly, late, twice or not at all, at random.

Whatever it does: each input has one end; what is stored was acknowledged, and had come whole; what the destination has
is stored, already present or in doubt. A seed is one run, the same every time.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections import Counter
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chaos import CONNECTIONS, FATES, RELEASES, TIMEOUT, Dice, Script, send_through_chaos
from trio_dicom.sender.outcome import Outcome
from trio_dicom.testing.cancel_sweep import _dice

WAYS = [(1, 1), (1, 8), (4, 1), (3, 4)]  # associations, window


def run(chance, count, associations, window, *, seed=0, **more):
    async def main():
        with trio.fail_after(1e6):
            return await send_through_chaos(chance, count, associations=associations, window=window, seed=seed, **more)

    with _dice(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def run_seed(seed, count, associations, window, **more):
    """Every other pair of seeds with backpressure."""
    return run(Dice(seed), count, associations, window, seed=seed, backpressure=bool(seed & 2), **more)


def way_of(seed):
    return WAYS[seed // 4 % 4]


@pytest.mark.parametrize(("associations", "window"), WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_every_object_comes_to_the_end_that_is_told(seed, associations, window):
    run_seed(seed, 100, associations, window)


@pytest.mark.parametrize("seed", range(4))
def test_large_objects_are_cut_anywhere(seed):
    run_seed(seed, 25, 2, 2, size=300_000)


@pytest.mark.parametrize("seed", range(16))
def test_cancelled_in_the_middle_of_it(seed):
    run_seed(seed, 30, *way_of(seed), cut_at=seed * 1.7, size=400 if seed % 3 else 300_000)


def test_most_of_it_arrives_all_the_same():
    report = run_seed(0, 500, 3, 4).report
    assert report.counts[Outcome.STORED] > 450


def test_the_same_seed_is_the_same_run():
    first, second = (run_seed(7, 100, 3, 4) for _ in range(2))
    assert first.reports == second.reports
    assert first.report == second.report
    assert first.destination.met == second.destination.met
    assert first.destination.whole == second.destination.whole


# --- scripts: one thing after another


def test_every_fate_alone_and_twice():
    for fate in FATES:
        for times in (1, 2):
            for backpressure in (False, True):
                course = run(Script([fate] * times), 3, 1, 2, size=40_000, backpressure=backpressure)
                assert course.destination.met[fate] >= times


@pytest.mark.parametrize("fate", [fate for fate in FATES if "before it is" in fate])
def test_ended_before_it_is_whole(fate):
    """Of several batches, so that the end comes while there is still something to be written."""
    course = run(Script([fate]), 2, 1, 1, size=2_500_000, backpressure=True)
    assert course.destination.met[fate] == 1
    assert course.report.counts[Outcome.STORED] == (1 if fate.startswith("refused") else 2)


def test_every_connection_and_release_alone():
    for fate in CONNECTIONS:
        for way in WAYS:
            course = run(Script(connections=[fate]), 3, *way)
            assert course.report.counts == {Outcome.STORED: 3}
            assert course.destination.met[fate] >= 1
    for fate in RELEASES:
        course = run(Script(releases=[fate]), 3, 1, 1)
        assert course.report.counts == {Outcome.STORED: 3}
        assert course.destination.met[f"release {fate}"] >= 1


@pytest.mark.parametrize("backpressure", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_connection_that_breaks_at_any_byte(backwards, backpressure):
    """Of what the destination reads, or of what it says."""
    for byte in range(backwards, 1500, 38):
        byte += (byte + backwards) % 2  # its parity is the direction
        script = Script(connections=["reset"], bytes=[byte, int(backwards)])
        course = run(script, 2, 1, 1, backpressure=backpressure)
        assert course.report.counts == {Outcome.STORED: 2}


def test_refused_once_and_cut_off_when_sent_again_is_not_sent():
    """Found by a seed: it had come whole, but was refused then; the next attempt was cut."""
    script = Script(["out of resources", "aborted in the middle", "aborted in the middle"])
    (report,) = run(script, 1, 1, 1, size=3_000_000, backpressure=True).reports
    assert (report.outcome, report.attempts, report.was_in_doubt) == (Outcome.NOT_SENT, 3, False)


def test_cut_when_the_last_batch_is_in_hand_is_in_doubt():
    """Found by a seed: nothing was with the stream yet; only nobody can tell."""
    course = run_seed(1007, 60, *way_of(1007), cut_at=1007 * 0.37 % 40)
    assert Outcome.IN_DOUBT in course.report.counts


LISTS = {
    "fates": st.lists(st.sampled_from(sorted(FATES)), max_size=15),
    "connections": st.lists(st.sampled_from(sorted(CONNECTIONS)), max_size=5),
    "releases": st.lists(st.sampled_from(sorted(RELEASES)), max_size=3),
    "bytes": st.lists(st.integers(0, 3000), max_size=6),
    "delays": st.lists(st.floats(0, 2 * TIMEOUT), max_size=6),
}
CHANCES = {
    "script": st.builds(Script, **LISTS),
    "count": st.integers(1, 6),
    "way": st.sampled_from(WAYS),
    "size": st.sampled_from([400, 40_000]),
    "backpressure": st.booleans(),
    "cut_at": st.just(math.inf) | st.floats(0, 100),
}


def run_script(script, count, way, size, backpressure, cut_at):
    """What goes wrong once takes a minute at most."""
    longest = 60 * (1 + script.troubles)
    course = run(script, count, *way, size=size, backpressure=backpressure, cut_at=cut_at)
    assert course.seconds < longest
    return course


def run_random_script(seed):
    """One in twenty has objects of several batches, which alone are answered before they are whole."""
    dice = Random(seed)
    cut_at = math.inf if dice.random() < 0.6 else dice.uniform(0, 100)
    script, way = Script.random(dice), dice.choice(WAYS)
    if not seed % 20:
        return run_script(script, dice.randrange(1, 3), way, 2_500_000, True, cut_at)
    return run_script(script, dice.randrange(1, 7), way, dice.choice([400, 40_000]), dice.random() < 0.5, cut_at)


@pytest.mark.parametrize("part", range(5))
def test_ten_random_scripts(part):
    for seed in range(10 * part, 10 * part + 10):
        run_random_script(seed)


@settings(max_examples=60, deadline=None)
@given(**CHANCES)
def test_any_script(script, count, way, size, backpressure, cut_at):
    run_script(script, count, way, size, backpressure, cut_at)


# --- with a ledger


def rows(ledger):
    """By SOP Instance UID the outcome, as any program could read it."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT sop_instance_uid, outcome FROM report WHERE sop_instance_uid NOT NULL")
        return {uid: Outcome(outcome) for uid, outcome in found}


def run_again_and_again(folder, seed, count):
    """Cut off at random, and run again with the ledger of before; at last to a destination that is well."""
    dice, course = Random(seed), None
    for number in range(5):
        is_last = number == 4
        chance = Script() if is_last else Dice(100 * seed + number)
        cut_at = math.inf if is_last else dice.uniform(0.01, 20)
        course = run(chance, count, *way_of(seed), seed=seed, folder=folder, cut_at=cut_at, past=course)
        told = rows(folder / "run.db")
        course.destination.check_outcomes(told.items())
    assert len(told) == count
    assert Outcome.NOT_SENT not in told.values()


@pytest.mark.parametrize("seed", range(4))
def test_a_ledger_through_chaos(tmp_path, seed):
    run_again_and_again(tmp_path, seed, 40)


# --- more of all


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=2000, deadline=None)
@given(**CHANCES)
def test_very_many_scripts(script, count, way, size, backpressure, cut_at):
    run_script(script, count, way, size, backpressure, cut_at)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_random_scripts(part, capsys):
    """Each is a sender's life. None may tell of a success that was none, or leave an input without an outcome."""
    counts, met, inputs = Counter(), Counter(), 0
    for seed in range(1000 * part, 1000 * part + 1000):
        try:
            course = run_random_script(seed)
        except BaseException as error:
            error.add_note(f"run_random_script({seed})")
            raise
        counts.update(course.report.counts)
        met.update(course.destination.met)
        inputs += course.report.inputs
    assert counts.total() == inputs
    assert met.keys() >= {*FATES, *CONNECTIONS}
    with capsys.disabled():
        told = {outcome.value: count for outcome, count in counts.items()}
        print(f"\n1000 sessions, {inputs} inputs: {told}")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_seeds(seed):
    run_seed(seed, 1000, *way_of(seed))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_seeds_cancelled():
    for seed in range(1000, 1400):
        run_seed(seed, 60, *way_of(seed), cut_at=seed * 0.37 % 40)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10, 30))
def test_a_ledger_through_more_chaos(tmp_path, seed):
    run_again_and_again(tmp_path, seed, 150)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_ten_thousand_objects(seed, capsys):
    """To destinations that are only unreliable: one that lies is given up before long."""
    report = run_seed(seed, 10_000, *way_of(seed)).report
    assert report.counts[Outcome.STORED] > 9_000
    with capsys.disabled():
        counts = {outcome.value: count for outcome, count in report.counts.items()}
        print(f"\nseed {seed}: {counts}, {report.attempts} attempts, {report.associations} associations")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 9, 2))
def test_ten_thousand_objects_for_a_liar(seed):
    run_seed(seed, 10_000, *way_of(seed))
