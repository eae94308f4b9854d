"""The page about ledgers: its program and its queries run, its tables are those of the code."""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio

from interop.peers import pynetdicom_scp
from sender.ledger_helpers import entry, identity, report
from trio_dicom.errors import LedgerError
from trio_dicom.sender.ledger import open_ledger
from trio_dicom.testing import make_instance_file

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "ledger.rst").read_text()

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """The example of that name, as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_send_with_ledger(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, ledger = tmp_path / "night", tmp_path / "run.db"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.dcm").write_bytes(make_instance_file(number=number))
    with pynetdicom_scp() as peer:
        totals = [trio.run(load("send_with_ledger").main, peer.address, str(folder), str(ledger)) for _ in range(2)]
    assert [(each.delivered, each.earlier) for each in totals] == [(2, 0), (2, 2)]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == 2 * ["stored, now"] + 2 * ["stored, earlier"]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "run.db"

    async def main() -> None:
        async with open_ledger(path, "PACS@10.0.0.5:104") as ledger:
            one = identity(0)
            await ledger.begin([entry(one), entry(1)])
            ledger.settle(one, report())

    trio.run(main)
    return path


COMMANDS = re.findall(r'^    sqlite3 run\.db "(.*)"$', PAGE, re.MULTILINE)


@pytest.mark.parametrize("query", COMMANDS)
def test_each_query_can_be_asked(ledger: Path, query: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        found = connection.execute(query).fetchall()
        connection.commit()
    assert bool(found) == (query.startswith("SELECT") and "'refused'" not in query)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 command")
def test_the_command_of_sqlite_can_ask_it(ledger: Path) -> None:
    (query,) = [each for each in COMMANDS if "'refused'" in each]
    command = ["sqlite3", str(ledger), query.replace("refused", "stored")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "/data/0.dcm|\n"


def test_an_address_that_has_changed_can_be_told(ledger: Path) -> None:
    (update,) = [each for each in COMMANDS if each.startswith("UPDATE")]
    (peer,) = re.findall("'(.*)'", update)

    async def main() -> None:
        async with open_ledger(ledger, peer):
            pass

    with pytest.raises(LedgerError, match="a ledger of its own"):
        trio.run(main)
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        connection.execute(update)
        connection.commit()
    trio.run(main)


@pytest.mark.parametrize("table", ["input", "run"])
def test_each_column_is_told(ledger: Path, table: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        columns = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")]
        in_view = {column for _, column, *_ in connection.execute("PRAGMA table_info(report)")}
    heading = re.search(rf"^Column of ``{table}`` [^\n]*\n=[= ]*\n(.*?)^=", PAGE, re.DOTALL | re.MULTILINE)
    assert heading is not None
    assert re.findall(r"^``(\w+)``", heading[1], re.MULTILINE) == columns
    if table == "input":
        assert in_view == {*columns, "path"}
