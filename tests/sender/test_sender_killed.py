"""SIGKILL of `trio-dicom send --ledger` at random moments, and the same again: all arrives, and the ledger is right.

Right is: what it calls stored was acknowledged; what may have arrived never reads as not sent.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from services.receiver_process import receiver_process
from trio_dicom.testing import instance_uid, make_instance_file

SIZES = (256, 3_000, 20_000, 300_000)
COUNT = 400


def make_study(folder: Path, first: int) -> None:
    folder.mkdir()
    for number in range(COUNT):
        file = make_instance_file(SIZES[number % len(SIZES)], number=first + number)
        (folder / f"{number:04}.dcm").write_bytes(file)


def command(address: str, ledger: Path, study: Path) -> list[str]:
    options = ["--ledger", str(ledger), "--associations", "2", "--quiet"]
    return [sys.executable, "-m", "trio_dicom", "send", *options, address, str(study)]


def rows(ledger: Path) -> dict[str, tuple[str, int]]:
    """By SOP Instance UID the outcome, as it is to be read; nothing while there is no ledger."""
    if not ledger.exists():
        return {}
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT sop_instance_uid, outcome FROM report WHERE sop_instance_uid NOT NULL"))


def check(ledger: Path, incoming: Path, first: int) -> None:
    told = rows(ledger)
    arrived = {path.stem for path in incoming.iterdir() if path.suffix == ".dcm"}
    mine = {instance_uid(first + number) for number in range(COUNT)}
    for uid in arrived & mine:
        assert told.get(uid, "no row") in ("stored", "in_doubt"), f"it arrived, and is said to be {told.get(uid)}"
    assert {uid for uid, outcome in told.items() if outcome == "stored"} <= arrived


def run_and_kill(tmp_path: Path, kills: int, seed: int) -> int:
    """Each ledger is run until it ends by itself; then the next begins. How many there were."""
    dice, killed, runs = random.Random(seed), 0, 0
    root = Path(__file__).parents[2]
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    with receiver_process(incoming) as receiver:
        while killed < kills:
            runs += 1
            first = 10_000 * runs
            study, ledger = tmp_path / f"study{runs}", tmp_path / f"run{runs}.db"
            make_study(study, first)
            while True:
                process = subprocess.Popen(command(receiver.address, ledger, study), cwd=root)
                try:
                    code = process.wait(dice.uniform(0.1, 1.5) if killed < kills else 60)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    killed += 1
                    settle(incoming)
                    check(ledger, incoming, first)
                else:
                    break
            assert code == 0
            check(ledger, incoming, first)
            told = rows(ledger)
            assert len(told) == COUNT
            assert set(told.values()) == {"stored"}
        for number in range(COUNT):
            name = f"{instance_uid(first + number)}.dcm"
            sent = (study / f"{number:04}.dcm").read_bytes()
            assert (incoming / name).read_bytes().endswith(sent[sent.index(b"\x08\x00\x16\x00UI") :])
    return runs


def settle(incoming: Path) -> None:
    """What the receiver had whole when the sender died may come to its name a moment later."""
    before: list[str] | None = None
    while (now := sorted(path.name for path in incoming.iterdir())) != before:
        before = now
        time.sleep(0.05)


@pytest.mark.timeout(120)
def test_killed_and_run_again(tmp_path: Path) -> None:
    assert run_and_kill(tmp_path, 3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_a_hundred_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = run_and_kill(tmp_path, 100, seed=2)
    with capsys.disabled():
        print(f"\n100 kills in {runs} ledgers of {COUNT} objects")
