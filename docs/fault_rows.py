"""What the tests show, for the page on reliability.

`.. fault-rows:: acceptor` is that part of tests/faults/rows.py, and which tests have a row's mark; `.. breakages::` is
tests/faults/breakages.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

import trio_dicom
from faults.breakages import BREAKAGES, Breakage
from faults.fault_row import FaultRow, Test, marked_tests
from faults.rows import SECTIONS


class FaultRows(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        tests: dict[int, list[Test]] = defaultdict(list)
        for test in marked_tests():
            for number in test.rows:
                tests[number].append(test)
        text = [line for row in SECTIONS[self.arguments[0]] for line in lines_of(row, tests[row.number])]
        container = nodes.container(classes=["fault-rows"])
        self.state.nested_parse(StringList(text, source=f"tests/faults: {self.arguments[0]}"), 0, container)
        return [container]


class Breakages(Directive):
    def run(self) -> list[nodes.Node]:
        text = [line for number, group in groupby(BREAKAGES, attrgetter("promise")) for line in broken(number, group)]
        container = nodes.container(classes=["fault-rows"])
        self.state.nested_parse(StringList(text, source="tests/faults/breakages.py"), 0, container)
        return [container]


def broken(promise: int, breakages: Iterable[Breakage]) -> Iterator[str]:
    yield f"**{promise}.**"
    for each in breakages:
        yield f"    {each.what}"
        yield ""
        yield "    .. rst-class:: fault-tests"
        yield ""
        yield f"    Test: {each.file_of_test}: ``{each.name_of_test}``"
        yield ""


def lines_of(row: FaultRow, tests: list[Test]) -> Iterator[str]:
    yield f"**{row.number}.** {with_links(row.what)}"
    yield f"    {with_links(row.behaviour)}"
    yield ""
    if row.not_yet is not None:
        yield f"    *Not yet:* {with_links(row.not_yet)}."
        yield ""
    if tests:
        names = [(test.file, f"``{test.name}``") for test in tests]
        files = [f"{file}: {', '.join(name for _, name in group)}" for file, group in groupby(names, itemgetter(0))]
        yield "    .. rst-class:: fault-tests"
        yield ""
        yield f"    Tests: {'; '.join(files)}"
        yield ""


def with_links(text: str) -> str:
    """What stands in `...` and is a public name becomes a link to it."""

    def link(found: re.Match[str]) -> str:
        name, home = found[1], found[1].partition(".")[0]
        return f":obj:`{name} <trio_dicom.{home}>`" if home in trio_dicom.__all__ else f"``{name}``"

    return re.sub(r"(?<!:)`([^`]+)`", link, text)


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("breakages", Breakages)
    app.add_directive("fault-rows", FaultRows)
    return {"parallel_read_safe": True}
