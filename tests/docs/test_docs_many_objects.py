"""The page about the sender of many objects: its programs run, its tables are those of the code."""

from __future__ import annotations

import importlib
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

from interop.peers import pynetdicom_scp
from trio_dicom import Outcome, RetryPolicy, SenderOptions, Status, send_file
from trio_dicom.sender.retry import FINAL, rule_of_status
from trio_dicom.testing import make_instance_file, storage_scp

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "many-objects.rst").read_text()

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """The example of that name, as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five objects, two of them in a folder in it."""
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for number in range(5):
        place = folder / "series" if number > 2 else folder
        (place / f"{number}.dcm").write_bytes(make_instance_file(number=number + 1))
    return folder


def test_send_folder(load: Load, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.txt").write_text("no DICOM")
    with pynetdicom_scp(statuses=[0xA900, 0x0000, 0x0000, 0x0000, 0x0000]) as peer:
        total = trio.run(load("send_folder").main, peer.address, str(folder))
    assert total.counts == {Outcome.STORED: 4, Outcome.REFUSED: 1, Outcome.INVALID: 1}
    assert not total.is_all_delivered
    said = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in said[:-1]} == {"refused", "invalid"}
    assert said[-1].startswith("4 of 6 delivered")


async def test_send_folder_says_why_it_was_given_up(load: Load, folder: Path, capsys) -> None:
    async with storage_scp() as scp:
        scp.reply(0x0124, times=5, required=False)
        total = await load("send_folder").main(scp.address, str(folder))
    assert total.delivered == 0
    assert "given up: the peer did not store the object: Status(0x0124" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["signal", "deadline"])
async def test_stop_sending(load: Load, folder: Path, how: str) -> None:
    async def raise_signal() -> None:
        await scp.wait_for(1)
        signal.raise_signal(signal.SIGTERM)

    for number in range(5, 40):
        (folder / f"{number}.dcm").write_bytes(make_instance_file(number=number + 1))
    async with storage_scp() as scp, trio.open_nursery() as nursery:
        scp.reply(0, delay=1.5, times=40, required=False)
        if how == "signal":
            nursery.start_soon(raise_signal)
        with trio.fail_after(60):
            total = await load("stop_sending").main(scp.address, str(folder), 60 if how == "signal" else 1.0)
    stored = total.counts.get(Outcome.STORED, 0)
    assert stored == len(scp.received) < 40  # what had been begun came to its end
    assert total.counts[Outcome.NOT_SENT] == total.inputs - stored  # the folder itself, if it was not yet looked into
    assert total.pending == 0


async def test_stop_sending_at_once(load: Load, folder: Path) -> None:
    async def raise_signals() -> None:
        await scp.wait_for(2)
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked(0.05)  # it drains
        signal.raise_signal(signal.SIGINT)

    async with storage_scp() as scp, trio.open_nursery() as nursery:
        scp.reply_nothing(times=5, required=False)
        nursery.start_soon(raise_signals)
        with trio.fail_after(8):
            total = await load("stop_sending").main(scp.address, str(folder), 60)
    came = len(scp.received)
    assert total.counts == {Outcome.IN_DOUBT: came, Outcome.NOT_SENT: 5 - came}


def test_show_totals(load: Load, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pynetdicom_scp() as peer:
        total = trio.run(load("show_totals").main, peer.address, str(folder))
    assert total.is_all_delivered
    assert capsys.readouterr().out.splitlines()[-1].startswith("5 delivered, 0 under way, 0 pending, ")


def test_watch_folder(load: Load, folder: Path) -> None:
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    with pynetdicom_scp() as peer:
        total = trio.run(load("watch_folder").main, peer.address, str(folder), 2)
    assert total.counts == {Outcome.STORED: 3, Outcome.INVALID: 1}
    assert [path.name for path in folder.glob("*.dcm")] == ["broken.dcm"]


async def test_gateway(load: Load, folder: Path) -> None:
    path = folder / "0.dcm"
    async with storage_scp() as archive, trio.open_nursery() as nursery:
        archive.reply(0xB007)
        archive.abort(times=2)
        server = await nursery.start(load("gateway").main, archive.address, 0)
        statuses = []
        for _ in range(3):
            response = await send_file(f"GATEWAY@127.0.0.1:{server.port}", path)
            statuses.append(int(response.status))
        nursery.cancel_scope.cancel()
    assert statuses == [0xB007, 0xA700, 0x0000]
    assert all(path.read_bytes().endswith(each.data_set) for each in archive.received)


# --- what the tables say


def first_column(heading: str) -> list[str]:
    """The cells below `heading` in the simple table that it begins."""
    table = re.search(rf"^{heading} [^\n]*\n=[= ]*\n(.*?)^=", PAGE, re.DOTALL | re.MULTILINE)
    assert table is not None
    return [cell.strip("`") for cell in re.findall(r"^(\S+)", table[1], re.MULTILINE)]


def test_the_outcomes_are_all_there() -> None:
    assert first_column("Outcome") == [outcome.name for outcome in Outcome]


def test_the_statuses_that_have_a_rule_are_all_there() -> None:
    table = PAGE.partition("What is tried again")[2].partition("any other status")[0]
    listed = {int(each, 16) for each in re.findall(r"\b0[0-9]{3}\b", table)}
    rules = {number: rule_of_status(Status(number)) for number in range(1 << 16)}
    assert {number for number, rule in rules.items() if rule is not FINAL} == listed | set(range(0xA700, 0xA800))


def test_each_option_of_the_policy_has_its_default() -> None:
    policy = RetryPolicy()
    for name in RetryPolicy.__slots__:
        if not name.startswith("__"):
            assert re.search(rf"^``{name}`` +{getattr(policy, name):g}( s)? ", PAGE, re.MULTILINE), name


def test_the_defaults_of_the_options_are_those_of_the_code() -> None:
    options = SenderOptions()
    assert f"``memory``) is {options.memory >> 20} MiB" in " ".join(PAGE.split())
    assert f"``linger`` ({options.linger:g} s)" in " ".join(PAGE.split())
    assert f"``timeout`` of {options.store.timeout:g} s" in " ".join(PAGE.split())
