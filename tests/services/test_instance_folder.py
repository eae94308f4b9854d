"""InstanceFolder: what is filed, what is refused, and what is answered."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import zlib
from typing import Any

import pydicom
import pytest
import trio

from support.fake_instance import CT, UID, data_set, element, instance, names
from trio_dicom.services.arriving_file import write_all
from trio_dicom.services.instance_folder import Duplicates, InstanceFolder, StoredInstance
from trio_dicom.sources.file import read_head
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

MR = "1.2.840.10008.5.1.4.1.1.4"
MIB = 1 << 20
SYNTAXES = [
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "received"


def refused(stored: StoredInstance, status: int) -> bool:
    comment = stored.error_comment or ""
    assert comment.isascii()
    assert 0 < len(comment) <= 64
    assert stored.path is None
    return stored.status == status


# --- filed ----------------------------------------------------------------------------------------------------------


async def test_an_instance_becomes_a_dicom_file(root: pathlib.Path) -> None:
    arriving = instance(data_set(5000), calling="MODALITY")
    stored = await InstanceFolder(root).store(arriving)

    assert stored == StoredInstance(
        path=root / f"{UID}.dcm",
        status=0,
        error_comment=None,
        sop_class_uid=CT,
        sop_instance_uid=UID,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        calling_ae_title="MODALITY",
        data_set_offset=len(arriving.file_head()),
        size=len(arriving.data),
    )
    assert stored.path is not None
    file = stored.path.read_bytes()
    assert file == arriving.file
    assert file[stored.data_set_offset :] == arriving.data
    assert pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID == UID
    assert read_head(stored.path).data_set_offset == stored.data_set_offset
    assert names(root) == [f"{UID}.dcm"]


async def test_it_is_a_handler(root: pathlib.Path) -> None:
    folder = InstanceFolder(root)
    assert (await folder(instance())).status == 0
    reply = await folder(instance(b""))
    assert (reply.status, reply.error_comment) == (0xC000, "the data set is empty")


@pytest.mark.parametrize("size", [2, MIB - 2, MIB, MIB + 2, 3 * MIB + 12_346])
@pytest.mark.parametrize("piece", [131_066, 3 * MIB])
async def test_every_byte_is_filed(root: pathlib.Path, size: int, piece: int) -> None:
    overhead = len(data_set(0))
    data = data_set(size - overhead, fill=0xA5) if size > overhead else b"\0\0"
    data = data if size > overhead else data_set(0)
    arriving = instance(data, piece=piece)
    stored = await InstanceFolder(root).store(arriving)
    assert stored.path is not None
    assert stored.path.read_bytes() == arriving.file
    assert stored.size == len(data)


async def test_pieces_of_a_byte_and_more_than_writev_takes(root: pathlib.Path) -> None:
    arriving = instance(data_set(3000, fill=7), piece=1)
    stored = await InstanceFolder(root).store(arriving)
    assert (root / f"{UID}.dcm").read_bytes() == arriving.file
    assert stored.status == 0


async def test_a_handler_that_gets_less_than_it_asked_for_does_not_take_that_for_the_end(root: pathlib.Path) -> None:
    arriving = instance(data_set(9000, fill=7), piece=100)
    whole = arriving.receive_pieces
    arriving.receive_pieces = lambda at_least: whole(1)
    await InstanceFolder(root).store(arriving)
    assert (root / f"{UID}.dcm").read_bytes() == arriving.file


@pytest.mark.parametrize(("size", "hops"), [(500_000, 1), (MIB - 1000, 1), (3 * MIB - 1000, 3)])
async def test_hops_to_threads(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size: int, hops: int) -> None:
    count = 0
    real = trio.lowlevel.start_thread_soon

    def start_thread_soon(*args: Any) -> None:
        nonlocal count
        count += 1
        real(*args)

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", start_thread_soon)
    assert (await InstanceFolder(root).store(instance(data_set(size)))).status == 0
    assert count == hops


def test_writes_that_take_only_a_part(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    real = os.writev
    calls = 0

    def writev(fd: int, buffers: list[bytes]) -> int:
        nonlocal calls
        calls += 1
        return real(fd, [b"".join(buffers)[:7]])

    monkeypatch.setattr(os, "writev", writev)
    parts: list[Any] = [b"abc", b"", memoryview(b"defghijkl"), bytearray(b"m" * 20), b"", b"end", b""]
    with (tmp_path / "file").open("wb") as file:
        assert write_all(file.fileno(), parts) == 35
    assert (tmp_path / "file").read_bytes() == b"".join(map(bytes, parts))
    assert calls == 5


def test_a_write_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "writev", lambda fd, buffers: 0)
    with pytest.raises(OSError, match="error"):
        write_all(0, [b"abc"])


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
async def test_every_encoding(root: pathlib.Path, transfer_syntax: str) -> None:
    arriving = instance(data_set(400, transfer_syntax=transfer_syntax), transfer_syntax=transfer_syntax)
    stored = await InstanceFolder(root).store(arriving)
    assert stored.path is not None
    assert stored.path.read_bytes() == arriving.file
    assert pydicom.dcmread(stored.path).SOPInstanceUID == UID


async def test_only_the_owner_can_read(root: pathlib.Path) -> None:
    old = os.umask(0)
    try:
        folder = InstanceFolder(root / "a" / "b", layout="{modality}/{sop_instance_uid}.dcm")
        stored = await folder.store(instance())
    finally:
        os.umask(old)
    assert stored.path is not None
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600
    for made in (root, root / "a", root / "a" / "b", stored.path.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


# --- the identity ---------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(77)
@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize("changes", [{"uid": UID + "2"}, {"sop_class": MR}, {"uid": "1"}], ids=str)
async def test_another_identity_than_the_request_fault77(
    root: pathlib.Path, transfer_syntax: str, changes: dict[str, str]
) -> None:
    data = data_set(9_000_000, transfer_syntax=transfer_syntax, **changes)  # type: ignore[arg-type]
    arriving = instance(data, transfer_syntax=transfer_syntax)
    assert refused(await InstanceFolder(root).store(arriving), 0xA900)
    assert names(root) == []
    assert arriving.read <= MIB + 16_372  # the rest is left to whoever gave it


@pytest.mark.parametrize("padding", [b"\0", b" ", b""])
async def test_a_uid_with_padding_is_the_same(root: pathlib.Path, padding: bytes) -> None:
    uid = "1.2.3" if padding else "1.2.34"
    value = uid.encode() + padding
    data = data_set(10, uid=None, more=[(0x00080018, "UI", value)])
    assert (await InstanceFolder(root).store(instance(data, uid=uid))).status == 0


@pytest.mark.parametrize("missing", ["uid", "sop_class"])
async def test_an_identity_that_is_absent_is_taken_from_the_request(root: pathlib.Path, missing: str) -> None:
    stored = await InstanceFolder(root).store(instance(data_set(10, **{missing: None})))  # type: ignore[arg-type]
    assert stored.status == 0


@pytest.mark.fault_row(77)
@pytest.mark.parametrize("before", [9000, 2_000_000])
@pytest.mark.parametrize(("uid", "status"), [("9.9", 0xA900), (UID, 0x0000)])
async def test_an_identity_far_behind_the_beginning_fault77(
    root: pathlib.Path, before: int, uid: str, status: int
) -> None:
    data = data_set(10, uid=uid, more=[(0x00080001, "UN", bytes(before))])
    assert (await InstanceFolder(root).store(instance(data))).status == status
    assert names(root) == ([] if status else [f"{UID}.dcm"])


@pytest.mark.fault_row(79)
@pytest.mark.parametrize("data", [b"xx", b"\x08\x00\x05\x00CS\xff\x00ISO_IR 100"], ids=["two_bytes", "cut_short"])
async def test_damaged_before_its_identity_fault79(root: pathlib.Path, data: bytes) -> None:
    assert refused(await InstanceFolder(root).store(instance(data)), 0xC000)


@pytest.mark.fault_row(75)
@pytest.mark.parametrize("uid", ["", "../../x", "1.2/3", "CON", "1.2.", "٣.٢", "1" * 65, "1\0"])
async def test_a_request_without_a_valid_uid_fault75(root: pathlib.Path, uid: str) -> None:
    arriving = instance(data_set(10, uid=None), uid="1.2")
    arriving.sop_instance_uid = uid
    arriving.file_head = lambda: b"head"
    assert refused(await InstanceFolder(root).store(arriving), 0xC000)
    assert names(root.parent) == []


@pytest.mark.fault_row(79)
async def test_nothing_at_all_fault79(root: pathlib.Path) -> None:
    stored = await InstanceFolder(root).store(instance(b""))
    assert refused(stored, 0xC000)
    assert stored.size == 0
    assert names(root) == []


@pytest.mark.parametrize("group", [b"\x00\x00", b"\x02\x00"])
async def test_a_group_that_does_not_belong_there(root: pathlib.Path, group: bytes) -> None:
    data = group + b"\x10\x00UI\x02\x001\0" + data_set()
    assert refused(await InstanceFolder(root).store(instance(data)), 0xC000)


@pytest.mark.fault_row(81)
async def test_deflated_bytes_that_are_damaged_or_a_bomb_fault81(root: pathlib.Path) -> None:
    folder = InstanceFolder(root)
    damaged = instance(b"\xff" * 100, transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert refused(await folder.store(damaged), 0xC000)
    assert names(root) == []
    deflater = zlib.compressobj(9, wbits=-15)
    start = element(0x00080016, "UI", CT.encode()) + element(0x00080018, "UI", UID.encode())
    bomb = deflater.compress(start + bytes(100 << 20)) + deflater.flush()
    stored = await folder.store(instance(bomb, transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
    assert stored.status == 0  # it is not inflated
    assert stored.size == len(bomb)


# --- size and space -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 2])
async def test_the_largest_object(root: pathlib.Path, more: int) -> None:
    data = data_set(3 * MIB)
    folder = InstanceFolder(root, max_object_size=len(data))
    data = data_set(3 * MIB + more)
    assert (await folder.store(instance(data))).status == (0xC000 if more else 0)
    assert names(root) == ([] if more else [f"{UID}.dcm"])


async def test_too_large_is_said_while_it_still_comes(root: pathlib.Path) -> None:
    arriving = instance(data_set(20 * MIB))
    stored = await InstanceFolder(root, max_object_size=2 * MIB).store(arriving)
    assert refused(stored, 0xC000)
    assert arriving.read < 4 * MIB
    assert names(root) == []


@pytest.mark.fault_row(82)
async def test_space_that_is_to_be_kept_free_fault82(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Space:
        f_bavail, f_frsize = 99, 4096

    folder = InstanceFolder(root, min_free=100 * 4096)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: Space)
    stored = await folder.store(instance())
    assert refused(stored, 0xA700)
    assert stored.error_comment == "the storage is full"
    assert names(root) == []
    Space.f_bavail = 100
    assert (await folder.store(instance())).status == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_nothing_of_the_patient_or_the_instance_is_logged(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "trio_dicom")
    folder = InstanceFolder(root, layout="{patient_id}/{sop_instance_uid}.dcm")
    (root / "CANARY").write_bytes(b"")  # where a folder should be
    stored = await folder.store(instance(data_set(10, more=[(0x00100020, "LO", b"CANARY")])))
    assert refused(stored, 0xA700)
    text = caplog.text + (stored.error_comment or "")
    assert "Not a directory" in caplog.text
    for secret in ("CANARY", UID, str(root)):
        assert secret not in text


# --- duplicates -----------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(76)
@pytest.mark.parametrize(
    ("duplicates", "status", "stays"),
    [(Duplicates.REPLACE, 0, 2), (Duplicates.KEEP, 0, 1), (Duplicates.REFUSE, 0x0111, 1)],
)
async def test_the_same_instance_again_fault76(
    root: pathlib.Path, duplicates: Duplicates, status: int, stays: int
) -> None:
    folder = InstanceFolder(root, duplicates=duplicates)
    first = await folder.store(instance(data_set(100, fill=1)))
    again = instance(data_set(100, fill=2))
    second = await folder.store(again)
    path = root / f"{UID}.dcm"
    assert (first.status, first.path) == (0, path)
    assert second.status == status
    assert second.path == (path if stays == 2 else None)
    assert path.read_bytes() == instance(data_set(100, fill=stays)).file
    assert names(root) == [path.name]
    assert path.stat().st_nlink == 1


@pytest.mark.fault_row(76)
@pytest.mark.parametrize("duplicates", Duplicates)
async def test_the_same_instance_at_the_same_time_fault76(root: pathlib.Path, duplicates: Duplicates) -> None:
    folders = [InstanceFolder(root, duplicates=duplicates) for _ in range(2)]  # as of two processes
    files = [instance(data_set(2 * MIB, fill=fill)).file for fill in range(1, 7)]
    path = root / f"{UID}.dcm"
    results = []
    seen = set()

    async def store(index: int) -> None:
        stored = await folders[index % 2].store(instance(data_set(2 * MIB, fill=index + 1)))
        results.append((stored, path.read_bytes()))
        seen.add(path.read_bytes())

    async with trio.open_nursery() as nursery:
        for index in range(6):
            nursery.start_soon(store, index)

    assert seen <= set(files)
    assert names(root) == [path.name]
    filed = [stored for stored, _ in results if stored.path]
    if duplicates is Duplicates.REPLACE:
        assert len(filed) == 6
    else:
        assert len(filed) == 1
        assert len(seen) == 1
    wanted = {0, 0x0111} if duplicates is Duplicates.REFUSE else {0}
    assert {int(stored.status) for stored, _ in results} == wanted


@pytest.mark.parametrize("duplicates", [Duplicates.KEEP, Duplicates.REFUSE])
async def test_without_hard_links_the_log_says_what_to_do(
    root: pathlib.Path,
    duplicates: Duplicates,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def link(*args: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert refused(await InstanceFolder(root, duplicates=duplicates).store(instance()), 0xA700)
    assert "no hard links" in caplog.text
    assert "Duplicates.REPLACE" in caplog.text
    assert names(root) == []
    assert (await InstanceFolder(root).store(instance())).status == 0


# --- what others have put there -------------------------------------------------------------------------------------


@pytest.mark.fault_row(75)
async def test_a_link_in_place_of_a_folder_is_not_followed(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = InstanceFolder(root, layout="{modality}/{study_date}/{sop_instance_uid}.dcm")
    (root / "unknown").symlink_to(outside)
    assert refused(await folder.store(instance()), 0xA700)
    (root / "unknown").unlink()
    (root / "unknown").mkdir()
    (root / "unknown" / "unknown").symlink_to("../../outside")
    assert refused(await folder.store(instance()), 0xA700)
    assert names(outside) == []
    assert names(root) == ["unknown/unknown"]


@pytest.mark.fault_row(75)
async def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(
    root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = InstanceFolder(root)
    path = root / f"{UID}.dcm"
    path.symlink_to(outside)
    assert (await folder.store(instance())).status == 0
    assert outside.read_bytes() == b"mine"
    assert not path.is_symlink()
    assert path.read_bytes() == instance().file


@pytest.mark.parametrize("duplicates", [Duplicates.KEEP, Duplicates.REFUSE])
@pytest.mark.parametrize("kind", ["link", "dangling link", "folder"])
async def test_what_is_no_file_is_no_duplicate(root: pathlib.Path, duplicates: Duplicates, kind: str) -> None:
    folder = InstanceFolder(root, duplicates=duplicates)
    path = root / f"{UID}.dcm"
    if kind == "folder":
        path.mkdir()
    else:
        target = root.parent / "outside"
        path.symlink_to(target)
        if kind == "link":
            target.write_bytes(b"")
    assert refused(await folder.store(instance()), 0xA700)  # else it would be acknowledged, and nowhere
    assert names(root) == ([] if kind == "folder" else [path.name])


async def test_a_folder_in_place_of_the_file(root: pathlib.Path) -> None:
    folder = InstanceFolder(root)
    (root / f"{UID}.dcm").mkdir()
    assert refused(await folder.store(instance()), 0xA700)
    assert names(root) == []


async def test_a_folder_that_vanished_is_not_made_again(root: pathlib.Path) -> None:
    # What is mounted there may be away; the instances would land beneath.
    folder = InstanceFolder(root)
    os.rmdir(root)
    assert refused(await folder.store(instance()), 0xA700)
    assert os.listdir(root.parent) == []
    os.mkdir(root)
    assert (await folder.store(instance())).status == 0


async def test_another_makes_the_same_subfolder_at_the_same_moment(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def mkdir(*args: Any, **options: Any) -> None:
        real(*args, **options)
        real(*args, **options)  # the second time it is there

    folder = InstanceFolder(root, layout="{modality}/{sop_instance_uid}.dcm")
    monkeypatch.setattr(os, "mkdir", mkdir)
    assert (await folder.store(instance())).status == 0
    assert names(root) == [f"unknown/{UID}.dcm"]


# --- what the folder is asked to be ---------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"the folder for instances cannot be used.*file"):
        InstanceFolder(file)
    with pytest.raises(NotADirectoryError, match=r"the folder for instances cannot be used.*file/below"):
        InstanceFolder(file / "below")
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        InstanceFolder(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"max_object_size": 0}, {"min_free": -1}, {"duplicates": "both"}, {"layout": "{nothing}"}], ids=str
)
def test_wrong_arguments(tmp_path: pathlib.Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        InstanceFolder(tmp_path / "new", **wrong)
    assert names(tmp_path) == []
    assert not (tmp_path / "new").exists()


async def test_a_relative_folder_stays_where_it_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = InstanceFolder("received", duplicates="keep")  # type: ignore[arg-type]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    stored = await folder.store(instance())
    assert stored.path == tmp_path / "received" / f"{UID}.dcm"
    assert stored.path.exists()


async def test_one_folder_serves_many_runs_of_trio(root: pathlib.Path) -> None:
    folder = InstanceFolder(root)

    def run(uid: str) -> None:
        trio.run(folder.store, instance(uid=uid))

    for uid in ("1.1", "1.2"):
        await trio.to_thread.run_sync(run, uid)
    assert names(root) == ["1.1.dcm", "1.2.dcm"]
