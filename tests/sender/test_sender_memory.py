"""How much memory a sender takes, in a process of its own: the same for any number of objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.draining_scp import draining_scp
from trio_dicom.testing import make_instance_file

PEAK = 120_000  # KB

PROGRAM = """
import sys, time, trio
from trio_dicom import Outcome, open_sender

async def main(address, folder, ledger):
    stored, start = 0, time.monotonic()
    async with open_sender(address, associations=1, ledger=ledger or None) as sender:
        async with sender.send_tree(folder) as reports:
            async for report in reports:
                stored += report.outcome is Outcome.STORED
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
    print(stored, peak, time.monotonic() - start)

trio.run(main, *sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")


def make_tree(folder: Path, count: int) -> None:
    for number in range(count):
        inner = folder / f"{number // 1000:03}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"{number:06}.dcm").write_bytes(make_instance_file(64, number=number + 1))


def send(folder: Path, ledger: str) -> tuple[int, int, float]:
    """Objects that were stored, peak in KB, seconds."""
    with draining_scp() as scp:
        command = [sys.executable, "-c", PROGRAM, scp.address, str(folder), ledger]
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    stored, peak, seconds = output.stdout.split()
    return int(stored), int(peak), float(seconds)


@pytest.mark.fault_row(109)
@pytest.mark.parametrize("with_ledger", [False, True])
def test_two_thousand_objects(tmp_path: Path, with_ledger: bool) -> None:
    make_tree(tmp_path / "tree", 2000)
    stored, peak, _ = send(tmp_path / "tree", str(tmp_path / "run.db") if with_ledger else "")
    assert stored == 2000
    assert peak < PEAK


@pytest.mark.fault_row(109)
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("with_ledger", [False, True])
def test_a_hundred_thousand_objects(tmp_path: Path, with_ledger: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for count in (25_000, 50_000, 100_000):
        make_tree(tmp_path / f"{count}", count)
        stored, peak, seconds = send(tmp_path / f"{count}", str(tmp_path / f"{count}.db") if with_ledger else "")
        with capsys.disabled():
            what = f"{count} objects{', ledger' * with_ledger}"
            print(f"\n{what}: {peak / 1000:.1f} MB, {seconds / count * 1e6:.0f} µs each")
        assert stored == count
        assert peak < PEAK
