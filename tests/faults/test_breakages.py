"""Each promise of docs/reliability.rst, broken in the code on purpose: then a test fails."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faults.breakages import BREAKAGES, Breakage

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns("__pycache__", "seeds")


def test_there_is_one_of_each_promise() -> None:
    page = (ROOT / "docs" / "reliability.rst").read_text()
    promises = {int(number) for number in re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)}
    assert {breakage.promise for breakage in BREAKAGES} == promises


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda each: each.what)
def test_its_test_exists(breakage: Breakage) -> None:
    functions = ast.walk(ast.parse((ROOT / "tests" / breakage.file_of_test).read_bytes()))
    names = {each.name for each in functions if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert breakage.name_of_test in names


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda each: each.what)
def test_broken_it_fails_its_test(breakage: Breakage, tmp_path: Path) -> None:
    for folder in ("trio_dicom", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=NOT_COPIED)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "docs" / "testing").mkdir(parents=True)
    breakage.apply(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{breakage.test}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
