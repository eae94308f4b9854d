"""`trio-dicom demo`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.command_line import ROOT, CommandLine, finish, start
from trio_dicom.cli import demo, receiver


def test_demo(tmp_path: Path) -> None:
    ended = finish(start("demo", env={"TMPDIR": str(tmp_path)}))
    assert ended.code == 0, ended
    assert ended.err == ""
    samples, left_out = demo.find_samples(demo.samples_folder())
    count = len(samples)
    rows = [line for line in ended.out.splitlines() if line.startswith("│")]
    assert len(rows) == count > 100
    assert all(row.endswith("│ 0000   │ yes   │") for row in rows)
    assert any("CT_small.dcm" in row and "CT Image Storage" in row and " 38,870 " in row for row in rows)
    last = ended.out.splitlines()[-1]
    assert last.startswith(
        f"{count} of {count} objects were stored, and their bytes agree: 12 SOP classes, 11 transfer"
    )
    assert f"({left_out} other files" in last
    assert "\x1b" not in ended.out
    assert list(tmp_path.iterdir()) == []


def test_a_byte_that_differs_is_found(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    write = receiver._File.write

    def write_wrongly(self: Any, data: Any) -> None:
        if "MR_small_RLE" in current and self._file is None:
            data[-1] ^= 1
        write(self, data)

    current: list[str] = []
    send_one = demo._send_one

    async def note(association: Any, sample: demo.Sample, *others: Any) -> None:
        current[:] = [sample.path.stem]
        await send_one(association, sample, *others)

    monkeypatch.setattr(receiver._File, "write", write_wrongly)
    monkeypatch.setattr(demo, "_send_one", note)
    ended = command_line("demo")
    assert ended.code == 1
    assert ended.out.count("│ NO    │") == 1
    count = len(demo.find_samples(demo.samples_folder())[0])
    assert ended.out.splitlines()[-1].startswith(f"{count - 1} of {count} objects")


def test_without_sample_files(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "samples_folder", lambda: tmp_path)
    ended = command_line("demo")
    assert ended.code == 65
    assert "no sample objects" in ended.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path: Path, number: int, code: int) -> None:
    program = """
import sys, trio
from trio_dicom.cli import main, receiver

async def stall(self, part):
    print("stalled", file=sys.stderr, flush=True)
    await trio.sleep_forever()

receiver._Incoming._take = stall
sys.argv = ["trio-dicom", "demo"]
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "stalled\n"
    process.send_signal(number)
    ended = finish(process)
    assert (ended.code, ended.err) == (code, "")
    assert list(tmp_path.iterdir()) == []
