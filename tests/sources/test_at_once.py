"""What is opened on the event loop, and what is left to a thread."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from trio_dicom.sources import at_once, file
from trio_dicom.sources.file import FileSource, open_file, open_files, open_now
from trio_dicom.testing import make_instance_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file in a folder that nothing is known of."""
    monkeypatch.setattr(at_once, "_folders", {})
    monkeypatch.setattr(at_once, "_is_local", lambda folder: True)  # whatever the tests run on
    path = tmp_path / "ct.dcm"
    path.write_bytes(make_instance_file())
    if at_once.open_at_once(str(path), os.O_RDONLY) >= 0:
        pytest.fail("a folder that no thread has looked at")
    at_once.learn_folder(str(path))
    if (fd := at_once.open_at_once(str(path), os.O_RDONLY)) < 0:
        pytest.skip("this kernel, or what it runs in, does not open at once")
    os.close(fd)
    return str(path)


def opened_now(path: str | os.PathLike[str]) -> bool:
    source = open_now(path)
    if source is not None:
        source.discard()
    return source is not None


def test_a_file_whose_folder_is_known(path: str) -> None:
    assert opened_now(path)
    assert opened_now(pathlib.Path(path))


def test_nothing_through_a_symbolic_link(path: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link.dcm").symlink_to(path)
    assert not opened_now(str(tmp_path / "link.dcm"))
    (tmp_path / "folder").symlink_to(tmp_path)
    at_once.learn_folder(str(tmp_path / "folder" / "ct.dcm"))
    assert not opened_now(str(tmp_path / "folder" / "ct.dcm"))


def test_a_folder_on_a_file_server_is_never_opened_from_at_once(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "_is_local", lambda folder: False)
    (tmp_path / "server").mkdir()
    far = tmp_path / "server" / "ct.dcm"
    far.write_bytes(make_instance_file())
    at_once.learn_folder(str(far))
    assert not opened_now(str(far))


def test_what_is_relative_is_known_by_where_it_leads(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    at_once.learn_folder("ct.dcm")
    assert opened_now("ct.dcm")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ct.dcm").write_bytes(make_instance_file())
    monkeypatch.chdir(tmp_path / "other")
    assert not opened_now("ct.dcm")


@pytest.mark.parametrize("content", [b"", bytes(200), make_instance_file()[:-10]], ids=["empty", "zeros", "cut off"])
def test_what_is_wrong_is_left_to_those_who_can_say_it(path: str, tmp_path: pathlib.Path, content: bytes) -> None:
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(content)
    assert not opened_now(str(bad))
    assert not opened_now(str(tmp_path / "nowhere.dcm"))
    assert not opened_now(str(tmp_path))
    assert not opened_now("a\0b")


def test_what_is_not_in_the_page_cache_is_left_to_a_thread(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_read_at_once", lambda fd, target, offset: 0)
    assert not opened_now(path)


def test_what_is_known_is_bounded(path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "_MOST_FOLDERS", 3)
    for number in range(10):
        at_once.learn_folder(f"{tmp_path}/{number}/ct.dcm")
        assert len(at_once._folders) <= 3


async def test_opening_one_learns_its_folder(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "_folders", {})
    assert not opened_now(path)
    await (await open_file(path)).aclose()
    assert opened_now(path)


async def test_some_at_once_and_others_by_a_thread_in_their_order(path: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link.dcm").symlink_to(path)
    paths = [path, str(tmp_path / "link.dcm"), str(tmp_path / "nowhere"), path]
    found = await open_files(paths)
    assert [isinstance(each, FileSource) for each in found] == [True, True, False, True]
    for each in found:
        if isinstance(each, FileSource):
            each.discard()


def test_what_a_folder_is_on() -> None:
    assert not at_once._is_local("/proc")
    assert not at_once._is_local("/nowhere at all")
    assert not at_once._is_local(["a", "b"][1] + "/nowhere")
