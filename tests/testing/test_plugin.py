"""The pytest plugin: beside pytest-trio in each of its modes, and in projects that know nothing of it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import trio_dicom
import trio_dicom.testing

ROOT = Path(trio_dicom.__file__).parents[1]
PLUGIN = "trio_dicom.testing.plugin"
SENDS = """
    import io
    import pytest
    from trio_dicom import CStoreSCU, open_association
    from trio_dicom.testing import SOPClass, make_instance_file

    {marker}
    async def test_send(dicom_scp):
        dicom_scp.reply(0xA700, required={required})
        async with open_association(dicom_scp.address, [SOPClass.CT]) as association:
            for status in {statuses}:
                response = await CStoreSCU(association).send(io.BytesIO(make_instance_file()))
                assert response.status == status
    """

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs pytest on a project of its own that has one test file, with the plugin as its only addition."""

    def run(source: str, *options: str, settings: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        (tmp_path / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{settings}\n")
        is_installed = bool(importlib.metadata.entry_points(group="pytest11", name="trio_dicom"))
        plugin = [] if is_installed else ["-p", PLUGIN]
        command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *options]
        paths = {"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, check=False, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=50)

    return run


@pytest.mark.parametrize(
    ("settings", "marker"),
    [("trio_mode = true", ""), ("trio_mode = false", "@pytest.mark.trio"), ("", "@pytest.mark.trio")],
    ids=["trio_mode", "no trio_mode", "default"],
)
def test_beside_pytest_trio(run: Run, settings: str, marker: str) -> None:
    ended = run(SENDS.format(marker=marker, required=True, statuses=[0xA700, 0]), settings=settings)
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


@pytest.mark.parametrize(
    ("settings", "marker"), [("trio_mode = true", ""), ("", "@pytest.mark.trio")], ids=["trio_mode", "default"]
)
def test_a_reply_that_was_not_used_fails_the_test(run: Run, settings: str, marker: str) -> None:
    ended = run(SENDS.format(marker=marker, required=True, statuses=[]), settings=settings)
    assert ended.returncode == 1
    assert "AssertionError: A700 was scripted for 1, and met by 0" in ended.stdout
    ended = run(SENDS.format(marker=marker, required=False, statuses=[]), settings=settings)
    assert ended.returncode == 0, ended.stdout


def test_a_test_that_fails_says_why(run: Run) -> None:
    ended = run(SENDS.format(marker="", required=True, statuses=[0xB000]), settings="trio_mode = true")
    assert ended.returncode == 1
    assert "assert Status(0xA700" in ended.stdout


def test_a_test_that_fails_says_nothing_else(run: Run) -> None:
    source = SENDS.format(marker="", required=True, statuses=[])
    ended = run(source + "        raise OSError('of the test')\n", settings="trio_mode = true")
    assert ended.returncode == 1
    assert "OSError: of the test" in ended.stdout
    assert "was scripted for" not in ended.stdout
    assert "AssertionError" not in ended.stdout


def test_tls(run: Run) -> None:
    source = "def test_tls(dicom_tls):\n    assert dicom_tls.client is not dicom_tls.server\n"
    assert run(source).returncode == 0


LEFT_ALONE = """
    import sys

    def test_nothing_was_imported():
        assert "{plugin}" in sys.modules
        heavy = {{"trio", "pydicom", "attrs", "ssl", "asyncio", "trustme"}} & sys.modules.keys()
        ours = {{name for name in sys.modules if name.startswith("trio_dicom.")}}
        assert heavy == set()
        assert ours == {{"trio_dicom._version", "trio_dicom.testing", "trio_dicom.testing.plugin"}}
    """


def test_a_project_without_trio_is_left_alone(run: Run) -> None:
    """Without pytest-trio, and without other plugins of this environment: what is imported is the plugin's doing."""
    others = [f"no:{name}" for name in ("trio", "hypothesispytest", "pytest_cov", "timeout")]
    ended = run(LEFT_ALONE.format(plugin=PLUGIN), *(word for name in others for word in ("-p", name)))
    assert ended.returncode == 0, ended.stdout
    collected = run(LEFT_ALONE.format(plugin=PLUGIN), "--collect-only", "-q", "-p", "no:trio")
    assert collected.stdout.splitlines()[0] == "test_it.py::test_nothing_was_imported"


def test_a_project_without_pytest_trio_can_ask_for_the_fixtures_and_is_told(run: Run) -> None:
    ended = run("def test_it(dicom_scp):\n    pass\n", "-p", "no:trio")
    assert ended.returncode == 1
    assert "async fixture 'dicom_scp'" in ended.stdout


def test_its_fixtures_are_named_so_that_they_meet_no_other(run: Run) -> None:
    ended = run("", "--fixtures", "-v")
    ours = [line.split()[0] for line in ended.stdout.splitlines() if "testing/plugin.py:" in line]
    assert sorted(ours) == ["dicom_scp", "dicom_tls"]


def test_importing_the_package_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import trio_dicom.testing; print(*set(sys.modules) - before)"
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert {name for name in ended.stdout.split() if name.startswith(("trio", "pydicom", "attr"))} == {
        "trio_dicom",
        "trio_dicom._version",
        "trio_dicom.testing",
    }


def test_each_name_is_there_and_told_of() -> None:
    assert trio_dicom.testing.__all__ == sorted(trio_dicom.testing.__all__)
    assert set(trio_dicom.testing.__all__) == set(trio_dicom.testing._HOME_OF)
    for name in trio_dicom.testing.__all__:
        value = getattr(trio_dicom.testing, name)
        assert name == "Script" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trio_dicom.testing.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_no_public_name_is_that_of_a_module() -> None:
    """Once such a module is imported, its package would have it in place of the name."""
    for package in (trio_dicom, trio_dicom.testing):
        folder = Path(str(package.__file__)).parent
        assert {path.stem for path in folder.iterdir()}.isdisjoint(package.__all__)
