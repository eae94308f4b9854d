from __future__ import annotations

import os
import shutil
import struct
import warnings

import pydicom
import pytest
from pydicom.fileset import FileSet

from inputs.input_helpers import all_items, descriptors, names, sent, why_not
from sources.source_helpers import SHIPPED, data_set, element, meta
from trio_dicom.errors import InvalidObject
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.sources import directory_records
from trio_dicom.sources.threads import stand_still

TESTS = SHIPPED / "dicomdirtests"
DIRECTORY = "1.2.840.10008.1.3.10"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


def by_pydicom(path):
    """The files of its file set, as pydicom finds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file_set = FileSet(path)
    file_set._stage["t"].cleanup()
    return sorted(instance.path for instance in file_set)


@pytest.fixture
def media(tmp_path):
    """pydicom's file set, where it can be tampered with."""
    shutil.copytree(TESTS, tmp_path / "cd")
    return tmp_path / "cd"


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered"])
async def test_the_files_that_a_dicomdir_names(name):
    before = descriptors()
    items = await all_items(TESTS / name, 7)
    assert len(items) == 31
    assert sorted(names(items)) == by_pydicom(TESTS / name)
    assert descriptors() == before
    for item in items[:3]:
        data = (TESTS / item.name).read_bytes()
        assert data.endswith(await sent(item))


async def test_what_pydicom_cannot_read_as_a_whole(media):
    # No offset of the first record; no patient for the studies: what they name is there all the same.
    for name in ("DICOMDIR-nooffset", "DICOMDIR-nopatient"):
        assert len(await all_items(media / name)) == 31


async def test_other_file_sets(media):
    assert await all_items(media / "DICOMDIR-empty.dcm") == []
    names_ = names(await all_items(TESTS / "TINY_ALPHA/DICOMDIR"))
    assert names_
    assert sorted(names_) == by_pydicom(TESTS / "TINY_ALPHA/DICOMDIR")


async def test_a_file_set_that_pydicom_writes(tmp_path):
    file_set = FileSet()
    for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"):
        file_set.add(pydicom.dcmread(SHIPPED / name))
    file_set.write(tmp_path)
    file_set._stage["t"].cleanup()
    items = await all_items([tmp_path / "DICOMDIR"])
    assert sorted(names(items)) == by_pydicom(tmp_path / "DICOMDIR")
    assert len(items) == 3
    for item in items:
        assert await sent(item)


async def test_by_a_relative_name(media, monkeypatch):
    monkeypatch.chdir(media)
    items = await all_items("DICOMDIR")
    assert names(items)[0] == "77654033/CR1/6154"
    assert await sent(items[0])


async def test_a_folder_with_a_dicomdir_is_a_folder(media):
    items = {item.name: item for item in await all_items(media)}
    assert "name it to send the objects of its file set" in await why_not(items[str(media / "DICOMDIR")])
    assert str(media / "77654033/CR1/6154") in items


# --- what it may say ------------------------------------------------------------------------------------------------


def record(*elements, length=None):
    body = b"".join(elements)
    if length is None:
        return struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body
    return struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + body + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)


def image(file_id, *, in_use=b"\xff\xff", more=b"", length=None):
    value = file_id + b" " * (len(file_id) % 2)
    return record(
        element(4, 0x1400, "UL", bytes(4)),
        element(4, 0x1410, "US", in_use),
        element(4, 0x1500, "CS", value),
        more,
        length=length,
    )


def dicomdir(*records, length=None):
    body = b"".join(records)
    if length is None:
        length = len(body)
    head = struct.pack("<HH2sHL", 4, 0x1220, b"SQ", 0, length)
    return meta(sop_class=DIRECTORY) + element(4, 0x1130, "CS", b"TEST") + head + body


@pytest.fixture
def file_set(tmp_path):
    """Writes a DICOMDIR; A/B/C and a/low are files beside it, and `secret` is one outside."""
    root = tmp_path / "cd"
    (root / "A/B").mkdir(parents=True)
    (root / "low").mkdir()
    for path in (root / "A/B/C", root / "low/er", tmp_path / "secret"):
        path.write_bytes(meta() + data_set())

    def write(*records, **options):
        (root / "DICOMDIR").write_bytes(dicomdir(*records, **options))
        return root / "DICOMDIR"

    return write


UNDEFINED = struct.pack("<HH2sHL", 0x88, 0x200, b"SQ", 0, 0xFFFFFFFF)
ITEM, ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF), struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


async def test_records_of_all_shapes(file_set):
    decoy = element(4, 0x1500, "CS", b"NOT\\THIS")
    nested = UNDEFINED + ITEM + decoy + UNDEFINED + ITEM + decoy + ITEM_END + SEQUENCE_END + ITEM_END + SEQUENCE_END
    defined = UNDEFINED + struct.pack("<HHL", 0xFFFE, 0xE000, len(decoy)) + decoy + SEQUENCE_END
    pixels = element(0x88, 0x200, "SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0))
    patient = record(element(4, 0x1430, "CS", b"PATIENT "))
    for kind in (None, "undefined"):
        records = [patient] + [image(b"A\\B\\C", more=more, length=kind) for more in (b"", nested, defined, pixels)]
        for options, end in (({}, b""), ({"length": 0xFFFFFFFF}, SEQUENCE_END), ({"length": 0xFFFFFFFF}, b"")):
            path = file_set(*records, end, **options)
            assert names(await all_items(path)) == [str(path.parent / "A/B/C")] * 4


async def test_a_record_that_is_not_in_use(file_set):
    without_flag = record(element(4, 0x1500, "CS", b"LOW\\ER"))
    path = file_set(image(b"A\\B\\C", in_use=b"\0\0"), without_flag)
    assert names(await all_items(path)) == [str(path.parent / "low/er")]  # as it is on some mounted CDs


async def test_padding_and_slashes(file_set):
    path = file_set(image(b" A \\B\\C\0"), image(b"A/B/C"))
    assert names(await all_items(path)) == [str(path.parent / "A/B/C")] * 2


@pytest.mark.fault_row(105)
@pytest.mark.parametrize(
    "file_id",
    [
        b"..\\secret",
        b"A\\..\\..\\secret",
        b"../secret",
        b"/etc/passwd",
        b"\\etc\\passwd",
        b"",
        b".",
        b"A\\\\B",
        b"A\0B\\C",
    ],
)
async def test_fault105_a_name_that_leads_out_of_the_folder(file_set, file_id):
    path = file_set(image(file_id), image(b"A\\B\\C"))
    wrong, right = await all_items(path)
    assert "the DICOMDIR names a file that is not in its folder" in await why_not(wrong)
    assert wrong.name.startswith(f"{path}!")
    assert await sent(right) == data_set()


@pytest.mark.fault_row(105)
async def test_fault105_links_that_lead_out_of_the_folder(file_set, tmp_path):
    path = file_set(image(b"OUT"), image(b"UP\\secret"), image(b"IN"), image(b"DANGLING"), image(b"LOOP"))
    root = path.parent
    (root / "OUT").symlink_to("../secret")
    (root / "UP").symlink_to(tmp_path)
    (root / "IN").symlink_to("A/B/C")
    (root / "DANGLING").symlink_to("nothing")
    (root / "LOOP").symlink_to("LOOP")
    out, up, inside, dangling, loop = await all_items(path)
    for item in (out, up):
        assert "the DICOMDIR names a link that leads out of its folder" in await why_not(item)
    assert await sent(inside) == data_set()
    assert "No such file" in await why_not(dangling)
    assert "Too many levels" in await why_not(loop)
    (tmp_path / "cd-twin").mkdir()  # not below cd, though its name begins so
    (tmp_path / "cd-twin/secret").write_bytes(meta() + data_set())
    (root / "OUT").unlink()
    (root / "OUT").symlink_to("../cd-twin/secret")
    assert "leads out" in await why_not((await all_items(path))[0])


async def test_a_folder_that_is_reached_by_a_link(file_set, tmp_path):
    path = file_set(image(b"A\\B\\C"))
    (tmp_path / "mnt").symlink_to(path.parent)
    (item,) = await all_items(tmp_path / "mnt/DICOMDIR")
    assert item.name == str(tmp_path / "mnt/A/B/C")
    assert await sent(item) == data_set()


@pytest.mark.fault_row(105)
async def test_fault105_a_name_of_what_is_not_there_or_no_file(file_set):
    path = file_set(image(b"A\\B\\GONE"), image(b"A\\B"), image(b"DICOMDIR"), image(b"A\\B\\C\\D"))
    gone, folder, itself, below = await all_items(path)
    assert await why_not(gone) == f"{path}!A/B/GONE: the DICOMDIR names this file, and it is not there"
    assert "not a file but a directory" in await why_not(folder)
    assert "a DICOMDIR" in await why_not(itself)
    assert "it is not there" in await why_not(below)


async def test_a_file_that_vanishes_after_it_was_named(file_set):
    path = file_set(image(b"A\\B\\C"))
    (item,) = await all_items(path)
    os.unlink(item.name)
    assert "No such file" in await why_not(item)


@pytest.mark.fault_row(111)
async def test_fault111_names_that_no_standard_allows(file_set, tmp_path):
    odd = [b"\xff\xfe", b"a\nb", b"-rf", b"x" * 250]
    for name in odd:
        (tmp_path / "cd" / os.fsdecode(name)).write_bytes(meta() + data_set())
    path = file_set(*(image(name) for name in odd))
    items = await all_items(path)
    assert [os.fsencode(os.path.basename(item.name)) for item in items] == odd
    for item in items:
        assert await sent(item) == data_set()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-3], "damaged or cut short at byte"),
        (lambda data: data[: len(meta(sop_class=DIRECTORY))], "there is no data set"),
        (lambda data: data[: len(meta(sop_class=DIRECTORY)) + 10], "damaged or cut short"),
        (lambda data: data[: len(meta(sop_class=DIRECTORY)) + 12], "no Directory Record Sequence"),
        (lambda data: data.replace(b"\x04\0\0\x15CS", b"\x04\0\0\x15??"), "damaged or cut short"),
        (lambda data: data.replace(b"\x04\0\0\x15CS\x06", b"\x04\0\0\x15CS\xf6"), "damaged or cut short"),
        (lambda data: data[: data.index(b"\xfe\xff")] + UNDEFINED * 50_000, "damaged or cut short"),
    ],
)
async def test_a_damaged_dicomdir_is_an_item_that_says_so(file_set, damage, reason):
    path = file_set(image(b"A\\B\\C"))
    path.write_bytes(damage(path.read_bytes()))
    before = descriptors()
    items = await all_items(path)
    assert items[-1].name == str(path)
    assert reason in await why_not(items[-1])
    assert descriptors() == before


async def test_what_comes_before_the_damage_is_sent(file_set):
    path = file_set(image(b"A\\B\\C"), image(b"LOW\\ER"), b"junk" * 10)
    first, second, broken = await all_items(path)
    assert await sent(first) == await sent(second) == data_set()
    assert "the DICOMDIR is damaged" in await why_not(broken)


async def test_every_byte_of_a_dicomdir_may_be_wrong(file_set):
    stand_still.set(True)
    path = file_set(image(b"A\\B\\C", length=1), image(b"LOW\\ER"))
    good = path.read_bytes()
    before = descriptors()
    for at in range(len(good)):
        for value in (0, 0xFF, good[at] ^ 1):
            path.write_bytes(good[:at] + bytes([value]) + good[at + 1 :])
            for item in await all_items(path):
                assert item.name.startswith(str(path.parent))
        path.write_bytes(good[:at])
        for item in await all_items(path):
            assert item.name.startswith(str(path.parent))
    assert descriptors() == before


async def test_a_dicomdir_that_cannot_be_read(file_set, monkeypatch):
    path = file_set(image(b"A\\B\\C"))

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(directory_records, "open_regular", fail)
    (item,) = await all_items(path)
    assert await why_not(item) == f"{path}: cannot be read: Input/output error"


async def test_one_that_became_another_file(file_set, monkeypatch):
    path = file_set(image(b"A\\B\\C"))
    real = directory_records.open_regular

    def swapped(descriptor, name):
        path.write_bytes(meta() + data_set())
        return real(descriptor, name)

    monkeypatch.setattr(directory_records, "open_regular", swapped)
    (item,) = await all_items(path)
    assert await why_not(item) == f"{path}: not a DICOMDIR"


async def test_a_large_one_is_read_as_far_as_is_asked(file_set):
    path = file_set(*[image(b"A\\B\\C")] * 5000)
    before = descriptors()
    async with Inputs(path) as inputs:
        assert len(await inputs.take(10)) == 10
        assert descriptors() > before
    assert descriptors() == before
    assert len(await all_items(path, 999)) == 5000


def test_the_reader_alone(file_set):
    path = file_set(image(b"A\\B\\C"))
    assert list(directory_records.referenced_file_ids(str(path))) == [(b"A", b"B", b"C")]
    with pytest.raises(InvalidObject, match="a directory"):
        list(directory_records.referenced_file_ids(str(path.parent)))
