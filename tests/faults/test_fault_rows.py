"""Each row of the tables in docs/reliability.rst has its tests, or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults.fault_row import Test, marked_tests
from faults.rows import ROWS, SECTIONS

MARKED = list(marked_tests())


def test_the_rows_are_numbered_one_by_one() -> None:
    assert [row.number for rows in SECTIONS.values() for row in rows] == list(range(1, 126))


def test_the_page_shows_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.rst").read_text()
    assert re.findall(r"^\.\. fault-rows:: (\w+)$", page, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("number", ROWS)
def test_each_row_has_tests_or_a_reason(number: int) -> None:
    is_tested = any(number in test.rows for test in MARKED)
    assert is_tested or ROWS[number].not_yet


@pytest.mark.parametrize("test", MARKED, ids=lambda test: f"{test.file}::{test.name}")
def test_each_mark_is_of_rows_that_exist(test: Test) -> None:
    assert set(test.rows) <= set(ROWS)


def test_marks_are_found_wherever_they_are_in_a_decorator(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "@pytest.mark.fault_row(1, 2)\n"
        "@pytest.mark.parametrize('a', [pytest.param(1, marks=pytest.mark.fault_row(3))])\n"
        "async def test_a(a): ...\n"
        "class TestIt:\n"
        "    @pytest.mark.fault_row(4)\n"
        "    def test_b(self): ...\n"
        "def test_c(): ...\n"
    )
    assert list(marked_tests(tmp_path)) == [Test("test_it.py", "test_a", (1, 2, 3)), Test("test_it.py", "test_b", (4,))]
