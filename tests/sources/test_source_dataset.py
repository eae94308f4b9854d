from __future__ import annotations

import copy
import struct
import zlib

import numpy
import pydicom
import pytest
import trio
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from sources.source_helpers import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    JPEG,
    SHIPPED,
    decoded,
    drain,
)
from trio_dicom.errors import InvalidObject, LocalProtocolError, ObjectChanged, ReadError
from trio_dicom.sources.dataset import open_dataset
from trio_dicom.sources.file import read_head
from trio_dicom.sources.pixels import ArrayPixelSource, PixelSource


def fresh(**more):
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = INSTANCE
    dataset.PatientName = "Nobody^At^All"
    dataset.BitsAllocated = 16
    dataset.PixelRepresentation = 1
    dataset.SmallestImagePixelValue = -3  # its VR, US or SS, is for the encoder to find out
    item = Dataset()
    item.ReferencedSOPClassUID = CT
    item.SmallestImagePixelValue = -4
    dataset.ReferencedImageSequence = Sequence([item])
    dataset.private_block(0x0011, "TRIO DICOM", create=True).add_new(0x01, "FD", [1.5, 2.5])
    dataset.add_new(0xFFFCFFFC, "OB", b"\0\0\0\0")  # comes after the pixels
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


class Pixels:
    def __init__(self, chunks, length=None, transfer_syntax_uid=None, error=None, frame_lengths=None):
        self.length = length
        self.transfer_syntax_uid = transfer_syntax_uid
        self.frame_lengths = frame_lengths
        self.given, self.error, self.passes, self.cleaned = chunks, error, 0, 0

    async def chunks(self):
        self.passes += 1
        try:
            for chunk in self.given:
                await trio.lowlevel.checkpoint()
                yield chunk
            if self.error:
                raise self.error
        finally:
            self.cleaned += 1


def inflated(data):
    inflater = zlib.decompressobj(-15)
    return inflater.decompress(data)


def shipped():
    # pydicom cannot write the first, the second is cut short, the others are without SOP UIDs in the data set.
    broken = {"SC_rgb_jpeg.dcm", "MR_truncated.dcm", "UN_sequence.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm"}
    for path in sorted(SHIPPED.glob("*.dcm")):
        try:
            head = read_head(path)
        except InvalidObject:
            continue
        if path.name not in broken:
            yield pytest.param(path, head, id=path.name)


# --- a data set as it is --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("path", "head"), list(shipped()))
async def test_what_pydicom_read_is_what_goes_out(path, head):
    whole = pydicom.dcmread(path)
    before = [element.is_raw for element in whole._dict.values()]  # `elements()` itself converts some
    async with await open_dataset(whole) as source:
        assert source.transfer_syntaxes[0] == head.transfer_syntax_uid
        for target in source.transfer_syntaxes:
            await source.prepare(target)
            data = await drain(source, 10_000)
            if target == head.transfer_syntax_uid:
                assert decoded(data, target) == decoded(path.read_bytes()[head.data_set_offset :], target)
    assert [element.is_raw for element in whole._dict.values()] == before  # nobody looked into it
    assert before.count(True) > len(before) // 2


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, DEFLATED])
async def test_a_new_data_set_in_each_native_transfer_syntax(target):
    dataset = fresh()
    dataset.add_new(0x7FE00010, "OW", b"\1\2\3\4")
    dataset.file_meta = FileMetaDataset()
    before = copy.deepcopy(dataset)
    async with await open_dataset(dataset) as source:
        assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
        await source.prepare(target)
        data = await drain(source, 100)
        there = decoded(data, target)
        assert await source.rewind()
        assert await drain(source) == data
    assert there.PixelData == b"\1\2\3\4"
    assert there.PatientName == dataset.PatientName
    assert (there.SmallestImagePixelValue, there[0x00280106].VR) == (-3, "SS")
    if target != IMPLICIT:  # where pydicom does not look for the sign of an item's value in the right place
        assert there.ReferencedImageSequence[0].SmallestImagePixelValue == -4
    assert 0x00020010 not in there
    # Encoding settles VRs in place: not in the caller's data set, nor in its items.
    assert [e.VR for e in dataset.iterall()] == [e.VR for e in before.iterall()]
    assert dataset[0x00280106].VR == "US or SS"
    assert dataset.ReferencedImageSequence[0][0x00280106].VR == "US or SS"


async def test_the_transfer_syntax_of_the_meta_comes_first():
    for syntax in (IMPLICIT, DEFLATED, EXPLICIT):
        dataset = fresh()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        async with await open_dataset(dataset) as source:
            assert source.transfer_syntaxes[0] == syntax
            assert len(source.transfer_syntaxes) == 3


async def test_values_that_were_left_in_the_file_are_fetched():
    path = SHIPPED / "CT_small.dcm"
    async with await open_dataset(pydicom.dcmread(path, defer_size=1000)) as source:
        await source.prepare(source.transfer_syntaxes[0])
        assert await drain(source) == path.read_bytes()[read_head(path).data_set_offset :]


async def test_values_that_are_gone_from_the_file(tmp_path):
    path = tmp_path / "gone.dcm"
    path.write_bytes((SHIPPED / "CT_small.dcm").read_bytes())
    dataset = pydicom.dcmread(path, defer_size=1000)
    path.unlink()
    with pytest.raises(ReadError):
        await open_dataset(dataset)


async def test_compressed_and_big_endian_have_only_their_own():
    for name in ("JPEG2000.dcm", "MR_small_bigendian.dcm"):
        whole = pydicom.dcmread(SHIPPED / name)
        async with await open_dataset(whole) as source:
            assert source.transfer_syntaxes == (str(whole.file_meta.TransferSyntaxUID),)


async def test_big_endian_does_not_become_little_endian():
    whole = pydicom.dcmread(SHIPPED / "MR_small_bigendian.dcm")
    whole.file_meta.TransferSyntaxUID = EXPLICIT
    with pytest.raises(InvalidObject, match="Big Endian"):
        await open_dataset(whole)


async def test_the_data_set_may_be_changed_once_it_is_open():
    dataset = fresh()
    async with await open_dataset(dataset) as source:
        dataset.PatientName = "Another"
        await source.prepare(EXPLICIT)
        assert decoded(await drain(source), EXPLICIT).PatientName == "Nobody^At^All"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.__delattr__("SOPClassUID"), r"\(0008,0016\) is missing"),
        (lambda d: d.__delattr__("SOPInstanceUID"), r"\(0008,0018\) is missing"),
        (lambda d: d.__setattr__("SOPInstanceUID", ""), r"\(0008,0018\) is missing"),
        (lambda d: d[0x00080018].__setattr__("_value", "1.2.x"), r"\(0008,0018\) is not a UID"),
        (lambda d: d[0x00080018].__setattr__("_value", ["1.2", "1.3"]), r"\(0008,0018\) is not a UID"),
        (lambda d: d.__setattr__("SOPClassUID", "1.2.840.10008.1.3.10"), "DICOMDIR"),
        (lambda d: d.add_new(0x00020010, "UI", EXPLICIT), "group 0002"),
        (lambda d: d.add_new(0x00000002, "UI", CT), "group 0000"),
        (lambda d: d.add_new(0x00180050, "DS", object()), "cannot be encoded"),
    ],
)
async def test_what_cannot_be_sent_is_refused(change, reason):
    dataset = fresh()
    try:
        change(dataset)
    except TypeError:
        dataset[0x00280100]._value = "Nobody^At^All"
    with pytest.raises(InvalidObject, match=reason) as caught:
        await open_dataset(dataset)
    assert "Nobody" not in str(caught.value)


@pytest.mark.parametrize("syntax", [None, EXPLICIT])
async def test_encapsulated_pixels_need_their_transfer_syntax(syntax):
    dataset = fresh()
    dataset.add_new(0x7FE00010, "OB", pydicom.encaps.encapsulate([b"frame "]))
    dataset[0x7FE00010].is_undefined_length = True
    if syntax:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(InvalidObject, match="encapsulated"):
        await open_dataset(dataset)


# --- with pixels that come ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, DEFLATED])
@pytest.mark.parametrize(("bits", "vr"), [(16, "OW"), (8, "OB")])
async def test_native_pixels_go_between_the_elements(target, bits, vr):
    dataset = fresh(BitsAllocated=bits)
    raw = bytes(range(256)) * 20
    pixels = Pixels([raw[:1], b"", bytearray(raw[1:3000]), memoryview(raw[3000:])], length=len(raw))
    async with await open_dataset(dataset, pixels) as source:
        assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
        await source.prepare(target)
        assert (source.size is None) == (target == DEFLATED)
        data = await drain(source, 1000)
        assert len(data) % 2 == 0
        assert await source.rewind()
        assert await drain(source) == data
    assert (pixels.passes, pixels.cleaned) == (2, 2)
    there = decoded(data, target)
    assert there.PixelData == raw
    assert there[0xFFFCFFFC].value == b"\0\0\0\0"
    assert there.ReferencedImageSequence[0].ReferencedSOPClassUID == CT
    plain = inflated(data) if target == DEFLATED else data
    header = struct.pack("<HH", 0x7FE0, 0x10) + (b"" if target == IMPLICIT else vr.encode() + b"\0\0")
    assert header + struct.pack("<L", len(raw)) in plain
    assert "PixelData" not in dataset


async def test_odd_native_pixels_are_padded():
    async with await open_dataset(fresh(BitsAllocated=8), Pixels([b"abc"], length=3)) as source:
        await source.prepare(EXPLICIT)
        assert decoded(await drain(source), EXPLICIT).PixelData == b"abc\0"


@pytest.mark.parametrize("ahead", [False, True])
async def test_encapsulated_frames(ahead):
    frames = [b"first!", b"second-", b"3"]
    lengths = [len(frame) for frame in frames] if ahead else None
    pixels = Pixels(frames, transfer_syntax_uid=JPEG, frame_lengths=lengths)
    async with await open_dataset(fresh(NumberOfFrames=3), pixels) as source:
        assert source.transfer_syntaxes == (JPEG,)
        await source.prepare(JPEG)
        assert (source.size is not None) == ahead
        data = await drain(source, 10)
        there = decoded(data, JPEG)
    assert there[0xFFFCFFFC].value == b"\0\0\0\0"
    assert there["PixelData"].is_undefined_length
    offsets = pydicom.encaps.parse_basic_offsets(there.PixelData)
    assert offsets == ([0, 14, 30] if ahead else [])
    fragments = list(pydicom.encaps.generate_fragments(there.PixelData[8 + 4 * len(offsets) :]))
    assert fragments == [b"first!", b"second-\0", b"3\0"]


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (lambda: Pixels([b"abc"], length=4), ObjectChanged),
        (lambda: Pixels([b"abcde"], length=4), ObjectChanged),
        (lambda: Pixels([], length=4), ObjectChanged),
        (lambda: Pixels(["text"], length=4), ReadError),
        (lambda: Pixels([numpy.zeros((4, 4), "u1")[:, ::2]], length=8), ReadError),
        (lambda: Pixels([], transfer_syntax_uid=JPEG), ObjectChanged),
        (lambda: Pixels([b"ab"], transfer_syntax_uid=JPEG, frame_lengths=[4]), ObjectChanged),
        (lambda: Pixels([b"ab", b"cd"], transfer_syntax_uid=JPEG, frame_lengths=[2]), ObjectChanged),
        (lambda: Pixels([b"ab"], transfer_syntax_uid=JPEG, frame_lengths=[2, 2]), ObjectChanged),
    ],
)
async def test_pixels_that_are_not_what_they_said_never_finish(pixels, error):
    async with await open_dataset(fresh(), pixels()) as source:
        await source.prepare(source.transfer_syntaxes[0])
        with pytest.raises(error):
            await drain(source)
        with pytest.raises(LocalProtocolError):
            await source.read_into(memoryview(bytearray(10)))


@pytest.mark.fault_row(115)
@pytest.mark.parametrize("target", [EXPLICIT, DEFLATED])
async def test_fault115_pixels_that_raise(target):
    bug = ZeroDivisionError("Nobody^At^All")
    async with await open_dataset(fresh(), Pixels([b"ab"], length=4, error=bug)) as source:
        await source.prepare(target)
        with pytest.raises(ReadError) as caught:
            await drain(source)
    assert caught.value.__cause__ is bug
    assert "Nobody" not in str(caught.value)


@pytest.mark.parametrize("target", [EXPLICIT, DEFLATED])
async def test_the_callers_iterator_is_closed_when_it_is_given_up(target):
    pixels = Pixels([bytes(3 << 20)] * 2, length=6 << 20)
    async with await open_dataset(fresh(), pixels) as source:
        await source.prepare(target)
        await source.read_into(memoryview(bytearray(4000)))
        assert pixels.cleaned == 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.aclose()
        assert pixels.cleaned == 1


async def test_a_clean_up_that_hangs_is_given_a_second(autojump_clock):
    class Clings(Pixels):
        async def chunks(self):
            try:
                yield bytes(4000)
            finally:
                await trio.sleep_forever()

    source = await open_dataset(fresh(), Clings([], length=8000))
    await source.prepare(EXPLICIT)
    await source.read_into(memoryview(bytearray(2000)))
    start = trio.current_time()
    await source.aclose()
    assert trio.current_time() - start == 1


@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009, 0x7FE00010])
async def test_pixels_besides_pixels_are_refused(tag):
    dataset = fresh()
    dataset.add_new(tag, "OW" if tag == 0x7FE00010 else "OF", b"\0" * 8)
    with pytest.raises(InvalidObject, match="Pixel Data"):
        await open_dataset(dataset, Pixels([b"ab"], length=2))


async def test_native_pixels_need_bits_allocated():
    dataset = fresh()
    del dataset.BitsAllocated
    with pytest.raises(InvalidObject, match=r"\(0028,0100\)"):
        await open_dataset(dataset, Pixels([b"ab"], length=2))


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (object(), TypeError),
        (Pixels([]), ValueError),
        (Pixels([], length=2, transfer_syntax_uid=JPEG), ValueError),
        (Pixels([], transfer_syntax_uid=EXPLICIT), ValueError),
        (Pixels([], transfer_syntax_uid=BIG), ValueError),
        (Pixels([], transfer_syntax_uid="jpeg"), ValueError),
        (Pixels([], length=0), ValueError),
        (Pixels([], length=1 << 32), ValueError),
    ],
)
async def test_pixel_sources_that_make_no_sense(pixels, error):
    with pytest.raises(error):
        await open_dataset(fresh(), pixels)


async def test_text_after_the_pixels_keeps_its_character_set():
    dataset = fresh(SpecificCharacterSet="ISO_IR 192")
    dataset.add_new(0xFFFC0001, "LO", "Grüße")
    async with await open_dataset(dataset, Pixels([b"ab"], length=2)) as source:
        await source.prepare(EXPLICIT)
        assert decoded(await drain(source), EXPLICIT)[0xFFFC0001].value == "Grüße"


# --- arrays ---------------------------------------------------------------------------------------------------------


async def gathered(source):
    return b"".join([bytes(chunk) async for chunk in source.chunks()])


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i2", ">i4", "u1", "i1", "<u8", "?"])
@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5), (2, 3, 4, 3), (9, 600, 601)])
async def test_arrays_are_sent_little_endian(kind, shape):
    array = numpy.arange(numpy.prod(shape)).reshape(shape).astype(kind)
    source = ArrayPixelSource(array)
    assert isinstance(source, PixelSource)
    assert source.length == array.nbytes
    assert await gathered(source) == array.astype(array.dtype.newbyteorder("<")).tobytes()


async def test_arrays_that_are_not_contiguous():
    array = numpy.arange(4 * 6 * 8, dtype=">u2").reshape(4, 6, 8)
    for view in (array[:, ::2], array.T, array[::-1], array[1:3, 2:4, 1::3]):
        assert await gathered(ArrayPixelSource(view)) == view.astype("<u2").tobytes()


async def test_large_arrays_come_in_pieces_without_a_copy():
    array = numpy.zeros((64, 256, 256), "<u2")
    sizes = []
    async for chunk in ArrayPixelSource(array).chunks():
        assert numpy.shares_memory(numpy.frombuffer(chunk, "u1"), array)
        sizes.append(len(chunk))
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == array.nbytes


async def test_a_memmap_is_read_in_threads(tmp_path):
    array = numpy.memmap(tmp_path / "pixels", ">u2", "w+", shape=(10, 300, 300))
    array[:] = numpy.arange(array.size).reshape(array.shape)
    async with await open_dataset(fresh(), ArrayPixelSource(array)) as source:
        await source.prepare(EXPLICIT)
        there = decoded(await drain(source), EXPLICIT)
    assert there.PixelData == array.astype("<u2").tobytes()


async def test_other_things_with_a_buffer():
    assert await gathered(ArrayPixelSource(bytearray(b"abcd"))) == b"abcd"
    for thing, error in (
        (numpy.zeros((2, 2)), TypeError),
        ([1, 2], TypeError),
        (numpy.zeros((0, 2), "u1"), ValueError),
    ):
        with pytest.raises(error):
            ArrayPixelSource(thing)


def test_pydicom_is_imported_only_when_it_is_needed():
    import subprocess
    import sys

    code = "import sys, trio_dicom.sources.dataset, trio_dicom.sources.file; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
