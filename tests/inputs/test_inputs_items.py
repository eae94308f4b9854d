from __future__ import annotations

import io
import os
import re
import socket
import struct

import pydicom
import pytest
import trio
import trio.testing

from inputs.input_helpers import all_items, descriptors, sent, why_not, zip_of
from sources.source_helpers import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    JPEG,
    SHIPPED,
    data_set,
    decoded,
    drain,
    element,
    meta,
)
from trio_dicom.errors import InvalidObject, ObjectChanged, ReadError, Retry
from trio_dicom.inputs.item import DatasetItem, FileItem, StreamItem, open_items
from trio_dicom.sources import parsed
from trio_dicom.sources.pixels import ArrayPixelSource
from trio_dicom.testing import file_bytes, instance_uid, make_instance, make_instance_file

WHOLE = meta() + data_set()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(WHOLE)
    return path


# --- what the files may be: fault table, 2c -------------------------------------------------------------------------


@pytest.fixture(params=["in a folder", "named", "in an archive"])
async def item_of(request, tmp_path):
    """An item of a file with these bytes, however it came to be one."""

    async def make(data):
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "it").write_bytes(data)
        if request.param == "in a folder":
            (item,) = await all_items(folder)
        elif request.param == "named":
            (item,) = await all_items(folder / "it")
        else:
            (item,) = await all_items(zip_of(tmp_path / "it.zip", {"it": data}))
        return item

    return make


@pytest.mark.fault_row(93, 94, 95, 96, 97, 98, 99, 100, 101)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not a DICOM file: 0 bytes are too few", id="93 empty"),
        pytest.param(bytes(131), "not a DICOM file: 131 bytes are too few", id="93 short"),
        pytest.param(meta()[128:] + data_set(), "not a DICOM file: the 128-byte preamble is missing", id="94 preamble"),
        pytest.param(data_set() * 3, "not a DICOM file: no DICM prefix", id="94 bare data set"),
        pytest.param(b"\xff\xd8\xff\xe0JFIF" + bytes(500), "not a DICOM file: no DICM prefix", id="94 JPEG"),
        pytest.param(b"some text\n" * 50, "not a DICOM file: no DICM prefix", id="94 text"),
        pytest.param(bytes(128) + b"DICM" + element(2, 2, "UI", b"1.2") * 9000, "appears twice", id="95 twice"),
        pytest.param(
            bytes(128) + b"DICM" + element(2, 0x16, "AE", b"x" * 1000) * 80, "longer than 64 KiB", id="95 long"
        ),
        pytest.param(meta(None) + data_set(), "Transfer Syntax UID .* is missing", id="96 no transfer syntax"),
        pytest.param(meta() + data_set(instance="9.9"), "mismatch: SOP Instance UID", id="97 instance"),
        pytest.param(meta() + data_set(sop_class="9.9"), "mismatch: SOP Class UID", id="97 class"),
        pytest.param(meta(instance=None) + data_set(instance=None), "SOP Instance UID is missing", id="98 missing"),
        pytest.param(meta(instance="1.a") + data_set(instance="1.a"), "is not a UID", id="98 letters"),
        pytest.param(meta(instance="1" * 65) + data_set(), "is not a UID", id="98 long"),
        pytest.param(meta(), "there is no data set", id="99 no data set"),
        pytest.param(meta() + data_set()[:-2], "the data set is cut off", id="99 in the pixels"),
        pytest.param(meta() + data_set() + b"x", "the data set is of odd length", id="100"),
        pytest.param(meta() + element(0, 0, "UL", bytes(4)) + data_set(), "group 0000", id="101 group 0000"),
    ],
)
async def test_fault_a_file_that_is_no_object_says_why(item_of, data, reason):
    before = descriptors()
    item = await item_of(data)
    assert re.match(f"{re.escape(item.name)}: .*{reason}", await why_not(item))
    assert descriptors() == before


def pydicom_offset(data):
    """Where the data set begins."""
    stream = io.BytesIO(data)
    pydicom.filereader.read_preamble(stream, force=False)
    pydicom.filereader._read_file_meta_info(stream)
    return stream.tell()


@pytest.mark.fault_row(95, 96, 98, 101, 102, 103, 104, 109)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(meta(group_length=0xFFFFFFFF) + data_set(), id="95 wrong group length"),
        pytest.param(meta(group_length=None) + data_set(), id="95 no group length"),
        pytest.param(meta("1.2.3.4") + data_set(), id="96 private transfer syntax"),
        pytest.param(meta(instance="1.02.3") + data_set(instance="1.02.3"), id="98 leading zeros"),
        pytest.param(meta() + data_set() + element(0xFFFC, 0xFFFC, "OB", bytes(8)), id="101 trailing padding"),
        pytest.param(make_instance_file(transfer_syntax=DEFLATED), id="102 deflated"),
        pytest.param(make_instance_file(transfer_syntax=JPEG), id="103 compressed"),
        pytest.param(make_instance_file(transfer_syntax=IMPLICIT), id="104 implicit"),
        pytest.param(make_instance_file(transfer_syntax="1.2.840.10008.1.2.2"), id="104 big endian"),
        pytest.param(make_instance_file(2), id="109 one pixel"),
    ],
)
async def test_fault_a_file_goes_out_as_it_is(item_of, data):
    assert await sent(await item_of(data)) == data[pydicom_offset(data) :]


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*.dcm")))
async def test_pydicoms_files_come_to_the_same_from_wherever_they_are_taken(tmp_path, name):
    data = (SHIPPED / name).read_bytes()
    (named,) = await all_items(SHIPPED / name)
    (member,) = await all_items(zip_of(tmp_path / "x.zip", {name: data}))
    stream = StreamItem(io.BytesIO(data))
    try:
        whole = await sent(named)
    except AssertionError:
        reason = (await why_not(named)).rpartition(": ")[2]
        assert (await why_not(member)).endswith(reason)
        return
    assert data.endswith(whole)
    assert await sent(member) == await sent(stream) == whole


@pytest.mark.fault_row(104)
@pytest.mark.parametrize("size", [256, 3 << 20])
async def test_fault104_another_native_transfer_syntax(item_of, size):
    data = make_instance_file(size)
    item = await item_of(data)
    async with await item.open() as source:
        assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
        for syntax in (IMPLICIT, DEFLATED, EXPLICIT):
            await source.prepare(syntax)
            out = await drain(source, 100_000)
            assert await source.rewind()
            assert await drain(source) == out
            assert decoded(out, syntax) == decoded(await sent(item), EXPLICIT)


@pytest.mark.fault_row(105)
async def test_fault105_a_dicomdir_that_is_met(tmp_path):
    data = (SHIPPED / "dicomdirtests/DICOMDIR").read_bytes()
    (tmp_path / "DICOMDIR").write_bytes(data)
    (item,) = await all_items(tmp_path)
    assert await why_not(item) == f"{item.name}: a DICOMDIR: name it to send the objects of its file set"
    (item,) = await all_items(zip_of(tmp_path / "cd.zip", {"DICOMDIR": data}))
    assert "a DICOMDIR, which is not an object that can be stored" in await why_not(item)


async def test_an_archive_that_is_met(tmp_path):
    zip_of(tmp_path / "data", {"a": WHOLE})
    (item,) = await all_items(tmp_path)
    assert await why_not(item) == f"{item.name}: a ZIP archive: name it to send what is in it"
    outer = zip_of(tmp_path / "outer", {"inner": (tmp_path / "data").read_bytes()})
    (item,) = await all_items(outer)
    assert await why_not(item) == (
        f"{outer}!inner: a ZIP archive in a ZIP archive: unpack it, and name it to send what is in it"
    )
    (tmp_path / "outer").unlink()
    (tmp_path / "data").rename(tmp_path / "cut.ZIP")
    os.truncate(tmp_path / "cut.ZIP", 40)
    (item,) = await all_items(tmp_path)
    assert "a ZIP archive: name it" in await why_not(item)


@pytest.mark.fault_row(106)
@pytest.mark.parametrize("how", ["named", "in a folder"])
async def test_fault106_what_is_no_file(tmp_path, monkeypatch, how):
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener, trio.fail_after(10):
        listener.bind("socket")
        given = sorted(os.listdir(".")) if how == "named" else "."
        items = {os.path.basename(item.name): await why_not(item) for item in await all_items(given)}
    assert [(name, text.rpartition(": ")[2]) for name, text in items.items()] == [
        ("dangling", "No such file or directory"),
        ("device", "not a file but a character device"),
        ("fifo", "not a file but a FIFO"),
        ("loop", "Too many levels of symbolic links"),
        ("socket", "not a file but a socket"),
    ]


@pytest.mark.fault_row(106)
async def test_fault106_what_is_no_file_is_not_opened_to_be_looked_at(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    inputs = [tmp_path / "fifo", "/dev/zero"]

    def fail(*args, **options):
        raise AssertionError("somebody may be waiting at the other end")

    monkeypatch.setattr(os, "open", fail)
    assert len(await all_items(inputs)) == 2


@pytest.mark.fault_row(106)
async def test_fault106_a_folder_that_was_a_file(tmp_path, path):
    (item,) = await all_items([path])
    path.unlink()
    path.mkdir()
    assert await why_not(item) == f"{path}: not a file but a directory"


@pytest.mark.fault_row(107)
async def test_fault107_a_file_that_vanished_or_may_not_be_read(tmp_path, path, monkeypatch):
    (item,) = await all_items([path])
    path.rename(tmp_path / "elsewhere")
    assert "No such file" in await why_not(item)
    (item,) = await all_items(["\0"])
    assert "not a path" in await why_not(item)
    (item,) = await all_items([tmp_path / "elsewhere"])

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    (result,) = await open_items([item])
    assert isinstance(result, ReadError)
    assert "Permission denied" in str(result)
    (item,) = await all_items([tmp_path / "elsewhere"])  # it could not be looked at
    assert isinstance(item, FileItem)


@pytest.mark.fault_row(107)
async def test_fault107_a_server_that_is_gone_may_be_tried_again(path, monkeypatch):
    (item,) = await all_items([path])

    def fail(*args, **options):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ReadError) as caught:
        await item.open()
    assert caught.value.retry is Retry.LATER


@pytest.mark.fault_row(108)
async def test_fault108_a_file_that_changes(path):
    (item,) = await all_items([path])
    async with await item.open() as source:
        path.write_bytes(WHOLE + b"xx")
        with pytest.raises(ObjectChanged):
            await drain(source)


# --- opening --------------------------------------------------------------------------------------------------------


async def test_many_are_opened_in_one_hop_and_what_is_wrong_is_a_value(tmp_path, path, monkeypatch):
    (tmp_path / "text").write_text("text" * 100)
    archive = zip_of(tmp_path / "a.zip", {"good": WHOLE, "bad": b"no"})
    members = await all_items(archive)
    items = [FileItem(str(path)), StreamItem(io.BytesIO(WHOLE)), members[0], FileItem("/nowhere"), members[1]]
    items += [FileItem(str(tmp_path / "text")), FileItem(str(path)), DatasetItem(make_instance())]
    hops = []
    real = trio.to_thread.run_sync

    async def counted(*args, **options):
        hops.append(1)
        return await real(*args, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    before = descriptors()
    sources = await open_items(items)
    assert len(hops) == 4  # files, those that are not clear, members, the data set
    assert [isinstance(source, InvalidObject) for source in sources] == [
        (isinstance(item, FileItem) and "image" not in item.name) or item is members[1] for item in items
    ]
    assert descriptors() == before + 2
    for source in sources:
        if not isinstance(source, InvalidObject):
            await source.prepare(source.transfer_syntaxes[0])
            assert await drain(source)
            await source.aclose()
    assert descriptors() == before
    assert await open_items([]) == []


async def test_a_bug_in_one_leaves_nothing_open(path, tmp_path, monkeypatch):
    async def fail(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(DatasetItem, "open", fail)
    large = zip_of(tmp_path / "large.zip", {"it": make_instance_file(3 << 20)})
    items = [FileItem(str(path)), *await all_items(large), DatasetItem(make_instance())]
    before = descriptors()
    with pytest.raises(RuntimeError, match="a bug"):
        await open_items(items)
    assert descriptors() == before


async def test_a_stream_that_cannot_be_rewound_is_opened_once():
    class OnlyRead:
        def __init__(self):
            self.read = io.BytesIO(WHOLE).read

    sender, receiver = trio.testing.memory_stream_one_way_pair()
    await sender.send_all(WHOLE)
    await sender.aclose()
    for stream in (OnlyRead(), receiver):
        item = StreamItem(stream)
        assert not item.can_reopen
        assert await sent(item) == data_set()
        with pytest.raises(ReadError, match="second time"):
            await item.open()


async def test_a_stream_that_can_be_rewound_is_opened_again_from_where_it_stood(path):
    path.write_bytes(b"other things" + WHOLE)
    with path.open("rb") as file:
        file.seek(12)
        item = StreamItem(file)
        assert item.can_reopen
        for _ in range(3):
            async with await item.open() as source:
                assert source.size == len(data_set())
                await source.read_into(memoryview(bytearray(50)))
            assert await sent(item) == data_set()
        assert not file.closed


async def test_a_stream_that_failed_or_was_cancelled_is_not_begun_again():
    item = StreamItem(io.BytesIO(b"text" * 100))
    with pytest.raises(InvalidObject, match="not a DICOM file"):
        await item.open()
    assert not item.can_reopen
    with pytest.raises(ReadError, match="second time"):
        await item.open()
    _, receiver = trio.testing.memory_stream_one_way_pair()
    item = StreamItem(receiver)
    with trio.move_on_after(0.01):
        await item.open()
    with pytest.raises(ReadError, match="second time"):
        await item.open()


async def test_what_is_wrong_with_a_stream_or_with_pixels_is_a_value():
    class Text:
        def read(self, size):
            return "text"

    class Pixels:
        length = None
        transfer_syntax_uid = None

        def chunks(self):
            raise AssertionError

    bare = make_instance(PixelData=None)
    for given, reason in ((Text(), "a stream of bytes is needed"), ((bare, Pixels()), "either a length")):
        (item,) = await all_items(given)
        (result,) = await open_items([item])
        assert isinstance(result, InvalidObject)
        assert reason in str(result)


async def test_data_sets_that_cannot_be_sent():
    without = make_instance()
    del without.SOPInstanceUID
    for broken in (without, pydicom.Dataset()):
        (item,) = await all_items(broken)
        assert item.name == "data set"
        assert "is missing" in await why_not(item)
    broken = make_instance()
    broken["SOPInstanceUID"]._value = "Doe^John"
    (item,) = await all_items(broken)
    assert item.name == "data set"  # whatever stands there instead


# --- identity -------------------------------------------------------------------------------------------------------


async def test_the_identity_is_of_what_was_opened(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.utime(path, ns=(1, 123_456_789))
    item = FileItem("image.dcm")
    name = os.fsencode(path)
    assert item.identity(None) == (name, None, None)
    async with await item.open() as source:
        path.unlink()
        assert item.identity(source) == (name, len(WHOLE), 123_456_789)


async def test_identities_of_all_kinds(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"f/ä": WHOLE})
    os.utime(archive, ns=(1, 777))
    (member,) = await all_items(archive)
    dataset = make_instance(number=3)
    bare = make_instance(number=3, PixelData=None)
    with_pixels = DatasetItem(bare, ArrayPixelSource(bytes(1000)))
    stream = StreamItem(io.BytesIO(WHOLE))
    (tmp_path / "c.zip").touch()
    (broken,) = await all_items(tmp_path / "c.zip")
    uid = b"data set " + instance_uid(3).encode()
    for item, without, name, size, mtime in (
        (member, None, os.fsencode(archive) + b"!f/" + "ä".encode(), len(WHOLE), 777),
        (DatasetItem(dataset), uid, uid, None, None),
        (with_pixels, uid, uid, None, None),
        (stream, b"stream", b"stream " + INSTANCE.encode(), len(data_set()), None),
    ):
        async with await item.open() as source:
            await source.prepare(source.transfer_syntaxes[0])
            size = size or source.size - (12 if item is with_pixels else 0)  # the header of the pixels
            assert item.identity(source) == (name, size, mtime)
            if IMPLICIT in source.transfer_syntaxes:
                await source.prepare(IMPLICIT)
                assert item.identity(source) == (name, size, mtime)  # whatever it is encoded in
        assert item.identity(None) == ((without, None, None) if without else (name, size, mtime))
    assert broken.identity(None) == (os.fsencode(tmp_path / "c.zip"), None, None)


# --- data sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        (SHIPPED / "CT_small.dcm").read_bytes(),
        (SHIPPED / "MR_small_implicit.dcm").read_bytes(),
        (SHIPPED / "MR_small_bigendian.dcm").read_bytes(),
        (SHIPPED / "JPEG2000.dcm").read_bytes(),
        (SHIPPED / "MR_small_RLE.dcm").read_bytes(),
        file_bytes(make_instance(transfer_syntax=DEFLATED)),
    ],
    ids=["explicit", "implicit", "big endian", "JPEG 2000", "RLE", "deflated"],
)
async def test_a_data_set_is_what_pydicom_reads(tmp_path, path, data):
    before = descriptors()
    path.write_bytes(data)
    expected = pydicom.dcmread(io.BytesIO(data))
    (member,) = await all_items(zip_of(tmp_path / "x.zip", {"x": data}))
    items = [FileItem(str(path)), member, DatasetItem(expected), StreamItem(io.BytesIO(data))]
    for item in items:
        async with await item.open() as source:
            await item.fetch(source)
        found = item.read_dataset()
        assert found is not expected
        assert found == expected
        assert found.file_meta.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID
        assert found.original_encoding == expected.original_encoding
        found.file_meta.ImplementationVersionName = "CHANGED"
        assert await sent(DatasetItem(found)) == await sent(DatasetItem(expected))
    assert expected.file_meta.get("ImplementationVersionName") != "CHANGED"
    assert descriptors() == before


async def test_a_stream_has_to_be_fetched_and_is_had_once(path):
    item = StreamItem(io.BytesIO(WHOLE))
    with pytest.raises(ReadError, match="not fetched"):
        item.read_dataset()
    async with await item.open() as source:
        await item.fetch(source)
    assert item.read_dataset().SOPInstanceUID == INSTANCE
    with pytest.raises(ReadError, match="taken already"):
        item.read_dataset()


async def test_data_sets_that_cannot_be_read(tmp_path, monkeypatch):
    before = descriptors()
    os.mkfifo(tmp_path / "fifo")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(meta(IMPLICIT) + struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + b"junk" * 20)
    deflated = tmp_path / "deflated"
    deflated.write_bytes(make_instance_file(5000, transfer_syntax=DEFLATED)[:-20])
    archive = zip_of(tmp_path / "a.zip", {"x": damaged.read_bytes(), "text": b"text" * 100})
    members = await all_items(archive)
    for item, reason in (
        (FileItem(str(tmp_path / "fifo")), "not a file but a FIFO"),
        (FileItem("/nowhere"), "No such file"),
        (FileItem(str(damaged)), "cannot be parsed"),
        (FileItem(str(deflated)), "the deflated data set is"),
        (members[0], "cannot be parsed"),
        (members[1], "no DICM prefix"),
    ):
        with pytest.raises(InvalidObject, match=reason) as caught:
            item.read_dataset()
        assert caught.value.where == item.name
    assert descriptors() == before
    monkeypatch.setattr(parsed, "MOST_IN_MEMORY", 500)
    large = make_instance_file(5000)
    damaged.write_bytes(large)
    (member,) = await all_items(zip_of(archive, {"large": large}))
    monkeypatch.setattr("trio_dicom.sources.zip_member.open_member", None)  # it is not even begun
    for item in (FileItem(str(damaged)), member):
        with pytest.raises(InvalidObject, match="too large to be held in memory"):
            item.read_dataset()
    item = StreamItem(io.BytesIO(large))
    async with await item.open() as source:
        with pytest.raises(InvalidObject, match="too large to be held in memory"):
            await item.fetch(source)


async def test_a_data_set_that_cannot_be_copied():
    class Stubborn(pydicom.Dataset):
        def __deepcopy__(self, memo):
            raise RuntimeError("Doe^John")

    with pytest.raises(InvalidObject, match="cannot be copied: RuntimeError") as caught:
        DatasetItem(Stubborn()).read_dataset()
    assert "Doe" not in str(caught.value)


async def test_a_data_set_is_not_converted_without_its_pixels():
    item = DatasetItem(make_instance(PixelData=None), ArrayPixelSource(bytes(512)))
    with pytest.raises(InvalidObject, match="pixels that come while they are sent cannot be converted"):
        item.read_dataset()


async def test_what_is_invalid_has_no_data_set(tmp_path):
    (tmp_path / "x.zip").touch()
    (item,) = await all_items(tmp_path / "x.zip")
    with pytest.raises(InvalidObject, match="the ZIP archive is damaged"):
        item.read_dataset()
