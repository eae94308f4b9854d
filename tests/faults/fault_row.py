"""What can go wrong, a row each, and which tests show it.

The rows are the source of the tables in docs/reliability.rst. A test says that it covers some by
`@pytest.mark.fault_row(15, 16)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

TESTS = Path(__file__).parents[1]


@attrs.frozen
class FaultRow:
    """`what` happens, and what the library does then; `not_yet` is the reason why it has no test."""

    number: int
    what: str
    behaviour: str
    not_yet: str | None = None


@attrs.frozen(order=True)
class Test:
    """A test and the rows that it covers."""

    __test__ = False  # to pytest

    file: str
    name: str
    rows: tuple[int, ...] = attrs.field(order=False)


def marked_tests(folder: Path = TESTS) -> Iterator[Test]:
    """The tests that have the marker, read and not run: so the documentation needs nothing that the tests need."""
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                rows = {row for decorator in node.decorator_list for row in rows_of(decorator)}
                if rows:
                    yield Test(path.relative_to(folder).as_posix(), node.name, tuple(sorted(rows)))


def rows_of(decorator: ast.expr) -> Iterator[int]:
    for node in ast.walk(decorator):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fault_row":
            yield from (ast.literal_eval(argument) for argument in node.args)
