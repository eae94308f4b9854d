"""`python -O`, which leaves out every `assert`, takes no check away from the library; nor does an order of sets."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import trio_dicom

PACKAGE = Path(trio_dicom.__file__).parent


def left_out(source: str) -> Iterator[int]:
    """The lines of what `-O` leaves out: `assert`, and what asks for `__debug__`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__"):
            yield node.lineno


def test_nothing_is_left_out() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 100
    found = {path: list(left_out(path.read_text("utf-8"))) for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_what_is_left_out_is_found() -> None:
    assert list(left_out("def f():\n    if x:\n        assert y\nif __debug__:\n    z()\n")) == [4, 3]


def test_the_seeds_of_the_fuzz_targets_under_it() -> None:
    """Whose checks are no `assert` either; with another hash seed than this process has."""
    code = (
        "import sys; assert not sys.flags.optimize\n"
        "from tests.fuzz.targets import TARGETS, check_of, seeds_of\n"
        "checked = [check_of(target)(data) for target in TARGETS for data in seeds_of(target).values()]\n"
        "print(sys.flags.optimize, len(checked))\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-O", "-c", code],
        cwd=PACKAGE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    level, count = done.stdout.split()
    assert level == "1"
    assert int(count) > 70
