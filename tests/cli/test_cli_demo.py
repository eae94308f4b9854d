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
from trio_dicom import StoreReply
from trio_dicom.cli import demo

JPEG_LS = "1.2.840.10008.1.2.4.80"


def test_demo(tmp_path: Path) -> None:
    ended = finish(start("demo", env={"TMPDIR": str(tmp_path)}))
    assert ended.code == 0, ended
    assert ended.err == ""
    samples, left_out = demo.find_samples(demo.samples_folder())
    count = len(samples)
    rows = [line for line in ended.out.splitlines() if line.startswith("│")]
    assert len(rows) == 12
    assert len(ended.out.splitlines()) < 24
    agreeing = [row.split("│")[1:-1] for row in rows]
    assert all(objects.strip() == agree.strip() for _, _, objects, _, agree in agreeing)
    assert sum(int(objects) for _, _, objects, _, _ in agreeing) == count > 100
    assert any("CT Image Storage" in row and " 4 different " in row for row in rows)
    last = ended.out.splitlines()[-1]
    assert last.startswith(
        f"{count} of {count} objects were stored, and their bytes agree: 12 SOP classes, 11 transfer"
    )
    assert f"({left_out} other files" in last
    assert "\x1b" not in ended.out
    assert list(tmp_path.iterdir()) == []


def test_a_byte_that_differs_is_found(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = demo.InstanceFolder.store

    async def store_wrongly(self: Any, instance: Any) -> Any:
        stored = await store(self, instance)
        if instance.transfer_syntax_uid == JPEG_LS and not damaged:
            damaged.append(stored.path)
            stored.path.write_bytes(stored.path.read_bytes()[:-1] + b"\x5a")
        return stored

    damaged: list[Path] = []
    monkeypatch.setattr(demo.InstanceFolder, "store", store_wrongly)
    ended = command_line("demo")
    assert ended.code == 1
    assert len(damaged) == ended.out.count("does NOT agree: ") == 1
    assert "(status 0000)" in ended.out
    count = len(demo.find_samples(demo.samples_folder())[0])
    assert ended.out.splitlines()[-1].startswith(f"{count - 1} of {count} objects")


def test_what_is_not_stored_is_named(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: Any, instance: Any) -> StoreReply:
        return StoreReply(0xA700)

    samples, left_out = demo.find_samples(demo.samples_folder())
    monkeypatch.setattr(demo, "find_samples", lambda folder: (samples[:2], left_out))
    monkeypatch.setattr(demo.Receiver, "store", refuse)
    ended = command_line("demo")
    assert ended.code == 1
    assert ended.out.count("(status A700)") == 2


def test_without_sample_files(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "samples_folder", lambda: tmp_path)
    ended = command_line("demo")
    assert ended.code == 65
    assert "no sample objects" in ended.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path: Path, number: int, code: int) -> None:
    program = """
import sys, trio
from trio_dicom.cli import demo, main

async def stall(self, instance):
    print("stalled", file=sys.stderr, flush=True)
    await trio.sleep_forever()

demo.Receiver.store = stall
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
