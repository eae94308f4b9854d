"""The seeds of all fuzz targets, and mutations of each that are the same every time, without atheris."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest

from fuzz.minimise import minimised, outcome_of
from fuzz.targets import SEEDS, TARGETS, check_of, seeds_of

MUTATIONS = {"pdu": 100, "command_set": 600, "archive": 60}  # of each seed, where it is quick
FEW = 30  # of one of another target
LEARNT = 2  # of one that a long run has come upon
MOST_BYTES = 200_000  # of all seeds
NUMBERS = (b"\0", b"\xff", b"\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
CASES = [(target, name) for target in TARGETS for name in seeds_of(target)]


def mutations(seed: bytes, others: list[bytes], count: int, chance: Random) -> Iterator[bytes]:
    """Cut, turned over, written over, doubled, spliced; several times running, further and further from the seed."""
    data = seed
    for number in range(count):
        if not number % 4 or not data:
            data = seed
        at = chance.randrange(len(data))
        match chance.randrange(6):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
            case 2:
                wrong = chance.choice(NUMBERS)
                data = data[:at] + wrong + data[at + len(wrong) :]
            case 3:
                data = data[:at] + data[at + chance.randrange(32) :]
            case 4:
                data = data[:at] + data[chance.randrange(len(data)) :]
            case 5:
                other = chance.choice(others)
                data = data[:at] + other[chance.randrange(len(other)) :]
        yield data


@pytest.mark.fault_row(14, 20, 25, 75, 94, 105)
@pytest.mark.parametrize(("target", "name"), CASES)
def test_seeds_and_mutations_of_them(target: str, name: str) -> None:
    check, seeds = check_of(target), seeds_of(target)
    check(seeds[name])
    count = LEARNT if name.startswith("learnt-") else MUTATIONS.get(target, FEW)
    for data in mutations(seeds[name], list(seeds.values()), count, Random(f"{target} {name}")):
        try:
            check(data)
        except Exception as error:
            error.add_note(data.hex())
            raise


def test_the_seeds_are_small() -> None:
    assert sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file()) < MOST_BYTES
    assert sorted(path.name for path in SEEDS.iterdir()) == sorted(TARGETS)


def test_a_finding_is_made_smaller() -> None:
    def check(data: bytes) -> None:
        if b"ab" in data and data.endswith(b"z"):
            raise KeyError(data)

    assert outcome_of(check, b"ab") is None
    assert minimised(check, b"12345678ab12345678z") == b"abz"
    with pytest.raises(ValueError, match="no finding"):
        minimised(check, b"")


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["nothing"], 2), (["--replay", "there"], 2)])
def test_the_command(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=SEEDS.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "usage: python -m tests.fuzz" in done.stdout + done.stderr
