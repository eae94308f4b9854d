"""What the documentation says in tables is what the code says."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import attrs
import pytest

import trio_dicom
from trio_dicom import CStoreOptions, Limits, Outcome, Retry, Timeouts, TrioDicomError
from trio_dicom.cli.app import run
from trio_dicom.cli.arrival import Fate
from trio_dicom.cli.exit_codes import ExitCode
from trio_dicom.services.file_layout import FIELDS

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.rst").read_text()


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run([command, "--help"]) == 0
    return capsys.readouterr().out


def first_column(text: str, heading: str) -> set[str]:
    """The cells below `heading` in the simple table that it begins."""
    table = re.search(rf"^{heading} [^\n]*\n=[= ]*\n(.*?)^=", text, re.DOTALL | re.MULTILINE)
    assert table is not None
    return {cell.strip("`") for cell in re.findall(r"^(\S+)", table[1], re.MULTILINE)}


@pytest.mark.parametrize("settings", [Timeouts, CStoreOptions])
def test_each_timeout_has_its_default(settings: type[attrs.AttrsInstance]) -> None:
    text = page("cancellation")
    names = {"timeout", "max_duration"} if settings is CStoreOptions else set(attrs.fields_dict(settings))
    for name in names:
        default = attrs.fields_dict(settings)[name].default
        shown = "inf" if default == math.inf else f"{default:g} s"
        assert re.search(rf"^``{name}`` +{shown} ", text, re.MULTILINE), name
    assert first_column(text, "Timeout" if settings is Timeouts else "Option") == names


def test_each_limit_has_its_default() -> None:
    text = page("security")
    for field in attrs.fields(Limits):
        assert re.search(rf"^``{field.name}`` +{field.default:,} ", text, re.MULTILINE), field.name
    assert first_column(text, "Limit") == set(attrs.fields_dict(Limits))


def test_the_options_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    helps = {
        command: set(re.findall(r"^[│|][ *]+(--[a-z-]+)", help_of(command, capsys), re.MULTILINE))
        for command in ("receive", "send", "echo")
    }
    _, receive, send, both = re.split("^Options of .*:$", page("command-line"), flags=re.MULTILINE)
    assert options(receive) == helps["receive"]
    assert options(both) == helps["echo"]
    assert options(send) == helps["send"] - helps["echo"]


def options(text: str) -> set[str]:
    """The options that `text` explains; those that are alike stand together."""
    return set(re.findall(r"``(--[a-z-]+)``", "\n".join(re.findall(r"^``--.*", text, re.MULTILINE))))


def test_the_commands_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = re.findall(r"^[│|] ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert re.findall(r"^``trio-dicom (\w+)", page("command-line"), re.MULTILINE) == listed


def test_the_exit_codes_are_all_there() -> None:
    assert first_column(page("command-line"), "Code") == {*(str(int(code)) for code in ExitCode), "129", "130", "143"}


def test_the_outcomes_are_all_there(capsys: pytest.CaptureFixture[str]) -> None:
    sent, received = page("command-line").split("That of ``receive`` has")
    assert first_column(sent, "Outcome") == {outcome.value for outcome in Outcome}
    assert first_column(received, "Outcome") == {fate.value for fate in Fate}
    help_text = " ".join(help_of("receive", capsys).split())
    assert all(re.search(rf"[( ]{fate.value}[,) ]", help_text) for fate in Fate)


def test_the_fields_of_a_layout_are_all_there(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of("receive", capsys).partition("Fields of the layout:")[2].partition("An")[0]
    assert set(re.findall(r"{(\w+)}", said)) == set(FIELDS)
    listed = page("command-line").partition("Fields are")[2].partition("What would")[0]
    assert set(re.findall(r"``(\w+)``", listed)) == set(FIELDS)


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    parents: list[str] = ["TrioDicomError"]
    tree = {}
    for indent, name in re.findall(r"^    ((?:│   |    )*(?:├|└)── )(\w+)", page("errors"), re.MULTILINE):
        depth = len(indent) // 4
        parents[depth:] = [name]
        tree[name] = parents[depth - 1]
    public = [getattr(trio_dicom, name) for name in trio_dicom.__all__]
    errors = [each for each in public if inspect.isclass(each) and issubclass(each, TrioDicomError)]
    assert tree == {each.__name__: each.__base__.__name__ for each in errors if each is not TrioDicomError}


def test_the_retry_classes_are_all_there() -> None:
    shown = set(re.findall(r"^``([A-Z_]+)`` ", page("errors"), re.MULTILINE))
    assert shown == {retry.name for retry in Retry}


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^\.\. auto\w+:: (\w+)(?:\(\))?$", page("api"), re.MULTILINE)
    assert sorted(shown) == sorted(name for name in trio_dicom.__all__ if not name.startswith("__"))


def test_the_readme_has_the_commands_that_set_everything_up() -> None:
    fences = re.findall(r"^```(\w*)\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    blocks = [text for language, text in fences if not language]
    assert "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/trio-dicom demo" in blocks
    tests = ".venv/bin/python -m pytest -n auto --dist worksteal"
    assert f"python3 -m venv .venv && .venv/bin/pip install '.[test]' && {tests}" in blocks
