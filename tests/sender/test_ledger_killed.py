"""SIGKILL of a writer at random moments: whatever may have arrived is stored or in doubt, never "not sent"."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sender.ledger_helpers import outcomes
from trio_dicom.sender.ledger_lock import LedgerLock

ROOT = Path(__file__).parents[2]

# Lines go to a file by one system call each, so they are there whatever happens to the process. "h" is written before
# an object would be handed over, "s" once its end is written; in between it has no end yet, or one on its way there.
WRITER = """
import os, sys, trio
from sender.ledger_helpers import PEER, entry, identity, outcomes, report
from trio_dicom import Outcome
from trio_dicom.sender.ledger import open_ledger

log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
first = int(sys.argv[3])

def note(kind, number):
    os.write(log, b"%s %d\\n" % (kind, number))

async def lane(ledger, start):
    number = start
    while True:
        inputs = [identity(each) for each in range(number, number + 8)]
        await ledger.look_up(inputs)
        await ledger.begin([entry(each) for each in inputs])
        for each, one in enumerate(inputs, number):
            note(b"h", each)
            if each == start:  # it waits for its answer until the end
                continue
            if each % 5 == 4:  # nothing of it went out
                ledger.settle(one, report(Outcome.NOT_SENT))
            else:
                ledger.settle(one, report())
        if number % 3 == 0:
            await ledger.flush()
            for each in range(number + (number == start), number + 8):
                note(b"s", each)
        number += 8

async def main():
    print("begins", flush=True)
    async with open_ledger(sys.argv[1], PEER) as ledger, trio.open_nursery() as nursery:
        for start in range(3):
            nursery.start_soon(lane, ledger, first + 100_000 * start)

trio.run(main)
"""


def killed_after(seconds, path, log, first):
    """A writer that is killed so many seconds after it began to open the ledger."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", WRITER, str(path), str(log), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "begins\n"
        time.sleep(seconds)
        process.kill()
        assert process.wait() == -9


def check(path, log):
    """How many objects may have arrived, and how many of them have no end."""
    lines = log.read_text().splitlines() if log.exists() else []
    handed_over = {line[2:].encode() for line in lines if line.startswith("h")}
    settled = {line[2:].encode() for line in lines if line.startswith("s")}
    assert not LedgerLock(str(path)).is_held()
    found = outcomes(path) if path.exists() else {}
    for name in handed_over:
        honest = {"not_sent", "in_doubt"} if int(name) % 5 == 4 else {"stored", "in_doubt"}
        assert found[name] in (honest - {"in_doubt"} if name in settled else honest), name
    for name in found.keys() - handed_over:
        assert found[name] in ("not_sent", "in_doubt"), name
    return len(handed_over), sum(found[name] == "in_doubt" for name in handed_over)


def kill(folder, times, seed=1):
    """Kill so many writers of one ledger, and look at it each time."""
    moments = random.Random(seed)
    path, log = folder / f"{seed}.db", folder / f"{seed}.log"
    for number in range(times):
        killed_after(moments.uniform(0.0, 0.4), path, log, 1_000_000 * number)
        arrived, doubtful = check(path, log)
    return arrived, doubtful


def test_a_writer_that_is_killed_tells_the_truth(tmp_path):
    arrived, doubtful = kill(tmp_path, 6)
    assert arrived > 20
    assert doubtful > 0


def test_a_writer_that_is_killed_as_it_opens_leaves_a_ledger_or_none(tmp_path):
    moments = random.Random(1)
    for number in range(5):
        path = tmp_path / f"{number}.db"
        for first in (0, 1_000_000):
            killed_after(moments.uniform(0.0, 0.03), path, log := tmp_path / f"{number}.log", first)
            check(path, log)
        killed_after(0.2, path, log, 2_000_000)
        arrived, _ = check(path, log)
        assert arrived > 0  # it could be used


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_writers_that_are_killed(tmp_path):
    found = [kill(tmp_path, 5, seed) for seed in range(40)]
    arrived, doubtful = (sum(counts) for counts in zip(*found, strict=True))
    print(f"\n200 kills: {arrived} objects may have arrived, {doubtful} of them in doubt, none taken for not sent")
    assert arrived > 10_000
