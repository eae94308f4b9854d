"""Transforms in their forms, what is refused, and what is never said of a patient."""

from __future__ import annotations

import functools
import logging
import threading

import numpy
import pydicom
import pytest
import trio
from pydicom.dataset import Dataset
from pydicom.uid import UID

from conversion.codec_samples import (
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_LS,
    RLE,
    all_but_pixels,
    own_syntax,
    reader,
    received,
    require,
    sample,
    samples,
)
from sources.source_helpers import BIG, DEFLATED, EXPLICIT, IMPLICIT
from trio_dicom.conversion.conversion import Conversion
from trio_dicom.errors import InvalidObject, ReadError
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import SOPClass, cancel_at_every_checkpoint, make_instance

CANARY = "Canary^Yellow"
NEW_INSTANCE = "1.2.3.4.5.6.7"


def read() -> Dataset:
    return make_instance(SOPClass.CT, PatientName=CANARY, PatientID="canary-17")


def rename(dataset: Dataset) -> None:
    dataset.PatientName = "NOBODY"
    dataset.SOPInstanceUID = NEW_INSTANCE


def renamed(dataset: Dataset) -> Dataset:
    other = Dataset()
    other.update(dataset)
    rename(other)
    return other


async def rename_slowly(dataset: Dataset) -> None:
    await trio.sleep(1)
    rename(dataset)


async def renamed_slowly(dataset: Dataset) -> Dataset:
    await trio.sleep(1)
    return renamed(dataset)


class Renamer:
    def __call__(self, dataset: Dataset) -> None:
        rename(dataset)


class SlowRenamer:
    async def __call__(self, dataset: Dataset) -> None:
        await rename_slowly(dataset)


def rename_with(dataset: Dataset, *, how) -> object:
    return how(dataset)


FORMS = [
    rename,
    renamed,
    rename_slowly,
    renamed_slowly,
    Renamer(),
    SlowRenamer(),
    functools.partial(rename_with, how=rename),
    functools.partial(rename_with, how=rename_slowly),  # plain, and what it returns is to be awaited
]


@pytest.mark.parametrize("transform", FORMS)
@pytest.mark.parametrize("is_virtual", [True, False])
async def test_a_transform_in_each_form(transform, is_virtual: bool, autojump_clock) -> None:
    stand_still.set(is_virtual)
    source = await Conversion(transform).convert(read, EXPLICIT)
    assert source.sop_instance_uid == NEW_INSTANCE
    assert source.transfer_syntaxes == (EXPLICIT, IMPLICIT, DEFLATED)
    after = await received(source)
    assert str(after.PatientName) == "NOBODY"
    assert after.PixelData == read().PixelData


async def test_a_plain_transform_has_a_thread_and_an_async_one_the_loop() -> None:
    threads = []

    def plain(dataset: Dataset) -> None:
        threads.append(threading.current_thread())

    async def on_the_loop(dataset: Dataset) -> None:
        await trio.lowlevel.checkpoint()
        threads.append(threading.current_thread())

    for transform in (plain, on_the_loop):
        await Conversion(transform).convert(read, EXPLICIT)
    assert threads[0] is not threading.current_thread()
    assert threads[1] is threading.current_thread()


async def test_the_file_meta_information_agrees_afterwards(autojump_clock) -> None:
    stand_still.set(True)
    given = []

    def transform(dataset: Dataset) -> None:
        given.append(dataset)
        rename(dataset)
        dataset.SOPClassUID = SOPClass.MR.value

    source = await Conversion(transform).convert(read, EXPLICIT)
    assert source.sop_class_uid == SOPClass.MR
    assert given[0].file_meta.MediaStorageSOPClassUID == SOPClass.MR
    assert given[0].file_meta.MediaStorageSOPInstanceUID == NEW_INSTANCE


async def test_a_transform_sees_what_the_transfer_syntax_is(autojump_clock) -> None:
    stand_still.set(True)
    seen = []
    await Conversion(lambda dataset: seen.append(dataset.file_meta.TransferSyntaxUID)).convert(
        reader("MR_small_RLE.dcm"), RLE
    )
    assert seen == [RLE]


async def test_a_compressed_object_stays_compressed_whatever_is_returned(autojump_clock) -> None:
    stand_still.set(True)
    before = sample("MR_small_RLE.dcm")
    for transform in (lambda dataset: None, renamed):
        source = await Conversion(transform).convert(reader("MR_small_RLE.dcm"), RLE)
        assert source.transfer_syntaxes == (RLE,)
        assert (await received(source)).PixelData == before.PixelData


async def test_a_transform_may_decompress(autojump_clock) -> None:
    require(RLE)
    stand_still.set(True)

    def decompress(dataset: Dataset) -> None:
        dataset.decompress(generate_instance_uid=False)
        dataset.PixelData = bytes(len(dataset.PixelData))

    source = await Conversion(decompress).convert(reader("MR_small_RLE.dcm"), RLE)
    assert source.transfer_syntaxes[0] == EXPLICIT
    assert not samples(await received(source)).any()


async def test_what_is_transformed_is_transcoded_then(autojump_clock) -> None:
    require(RLE)
    require(RLE, to_encode=True)
    stand_still.set(True)

    def blacken(dataset: Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    source = await Conversion(blacken, RLE).convert(read, EXPLICIT)
    assert source.transfer_syntaxes == (RLE,)
    assert not samples(await received(source)).any()


async def test_native_pixels_left_in_a_compressed_object_are_noticed(autojump_clock) -> None:
    require(RLE)
    stand_still.set(True)

    def forget(dataset: Dataset) -> None:
        dataset.PixelData = dataset.pixel_array.tobytes()

    with pytest.raises(InvalidObject, match="transform left native Pixel Data"):
        await Conversion(forget).convert(reader("MR_small_RLE.dcm"), RLE)


async def test_a_big_endian_object_can_be_transformed(autojump_clock) -> None:
    stand_still.set(True)
    source = await Conversion(rename).convert(reader("MR_small_bigendian.dcm"), BIG)
    assert source.transfer_syntaxes == (BIG,)
    assert source.sop_instance_uid == NEW_INSTANCE
    assert numpy.array_equal(samples(await received(source)), samples(sample("MR_small_bigendian.dcm")))


async def test_data_sets_without_file_meta_information(autojump_clock) -> None:
    require(RLE)
    stand_still.set(True)

    def bare() -> Dataset:
        dataset = read()
        del dataset.file_meta
        return dataset

    assert await Conversion(transcode="native").convert(bare, None) is None
    for conversion in (Conversion(rename), Conversion(rename, "native"), Conversion(transcode=IMPLICIT)):
        source = await conversion.convert(bare, None)
        assert source.transfer_syntaxes[0] == (EXPLICIT if conversion._transform else IMPLICIT)
    source = await Conversion(transcode=RLE).convert(bare, None)
    assert numpy.array_equal(samples(await received(source)), samples(read()))


# --- failures ---------------------------------------------------------------------------------------------------------


def fail(dataset: Dataset) -> None:
    raise ValueError(f"{dataset.PatientName} has no such thing")


async def fail_slowly(dataset: Dataset) -> None:
    await trio.sleep(1)
    fail(dataset)


async def fail_in_a_nursery(dataset: Dataset) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_slowly, dataset)


@pytest.mark.fault_row(115)
@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (fail, "transform failed with ValueError"),
        (fail_slowly, "transform failed with ValueError"),
        (fail_in_a_nursery, "transform failed with ExceptionGroup"),
        (lambda dataset: dataset.Nonsense, "transform failed with AttributeError"),
        (lambda: None, "transform failed with TypeError"),
        (lambda dataset: str(dataset.PatientName), "transform returned str, neither a Dataset nor None"),
        (lambda dataset: [dataset], "transform returned list, neither a Dataset nor None"),
        (lambda dataset: dataset.clear(), "SOP Class UID (0008,0016) is missing"),
        (
            lambda dataset: dataset.add_new(0x00101010, "XX", CANARY),
            "the data set cannot be encoded: NotImplementedError",
        ),
        (lambda dataset: next(iter(())), "transform failed with RuntimeError"),  # which StopIteration becomes
    ],
)
@pytest.mark.parametrize("is_virtual", [True, False])
async def test_what_fails_costs_one_object_and_names_nobody(
    transform, reason: str, is_virtual: bool, autojump_clock, caplog
) -> None:
    stand_still.set(is_virtual)
    caplog.set_level(logging.DEBUG, "trio_dicom")
    with pytest.raises(InvalidObject) as caught:
        await Conversion(transform).convert(read, EXPLICIT)
    assert caught.value.reason == reason
    assert "Canary" not in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "anary" not in caplog.text


async def test_the_cause_is_chained_and_the_place_is_in_the_log(autojump_clock, caplog) -> None:
    stand_still.set(True)
    caplog.set_level(logging.DEBUG, "trio_dicom")
    with pytest.raises(InvalidObject) as caught:
        await Conversion(fail).convert(read, EXPLICIT)
    assert type(caught.value.__cause__) is ValueError
    assert "Canary" in str(caught.value.__cause__)
    (record,) = [record for record in caplog.records if "transform" in record.message]
    assert record.levelno == logging.DEBUG
    assert f"{__file__}:{fail.__code__.co_firstlineno + 1} in fail" in record.message


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "/data/Canary^Yellow"), ReadError, "No such file or"),
        (InvalidObject("no DICOM", "one.dcm"), InvalidObject, "one.dcm: no DICOM"),
        (KeyError(CANARY), InvalidObject, "the data set cannot be read or converted: KeyError"),
    ],
)
async def test_what_cannot_be_read(error: Exception, kind: type, reason: str, autojump_clock) -> None:
    stand_still.set(True)

    def read() -> Dataset:
        raise error

    with pytest.raises(kind, match=reason) as caught:
        await Conversion(rename).convert(read, EXPLICIT)
    assert type(caught.value) is kind
    assert "Canary" not in str(caught.value)


# --- what can be asked for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transcode", "reason"),
    [
        ("always", 'transcode is "never", "native" or a transfer syntax UID, not \'always\''),
        ("", "transcode is"),
        (JPEG_BASELINE, "is lossy, or may be"),
        ("1.2.840.10008.1.2.4.81", "is lossy, or may be"),
        ("1.2.840.10008.1.2.4.91", r"Lossy Image Compression \(0028,2110\)"),
        ("1.2.840.10008.1.2.4.100", "is lossy, or may be"),
        ("1.2.840.10008.1.2.4.70", "pydicom has no encoder for"),
        ("1.2.840.10008.1.2.4.201", f"losslessly there are {RLE}, {JPEG_LS}, {JPEG_2000}"),
        (BIG, "Big Endian: it is retired"),
        ("1.2.3", "cannot be made"),
        ("1.2.840.10008.1.1", "cannot be made"),
    ],
)
def test_what_is_not_made_is_refused_at_once(transcode: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Conversion(transcode=transcode)


@pytest.mark.parametrize("uid", [JPEG_LS, JPEG_2000])
def test_an_encoder_that_is_missing_is_named_with_the_extra(uid: str, monkeypatch) -> None:
    encoder = pydicom.pixels.get_encoder(uid)
    monkeypatch.setattr(encoder, "_available", {})
    with pytest.raises(ValueError, match=rf"no encoder for JPEG.*{uid}.* is installed: .*'trio-dicom\[transcode\]'"):
        Conversion(transcode=uid)


def test_without_numpy_nothing_is_compressed(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"numpy, .* is not installed: .*'trio-dicom\[transcode\]'"):
        Conversion(transcode=RLE)
    for transcode in ("never", "native", EXPLICIT, IMPLICIT, DEFLATED):
        Conversion(transcode=transcode)


@pytest.mark.parametrize(
    "arguments", [{"transform": "rename"}, {"transcode": None}, {"at_once": 0}, {"at_once": True}, {"at_once": 1.5}]
)
def test_wrong_arguments(arguments: dict) -> None:
    with pytest.raises((TypeError, ValueError)):
        Conversion(**arguments)


def test_a_pydicom_uid_is_a_transfer_syntax_uid() -> None:
    assert not Conversion(transcode=UID(EXPLICIT)).leaves(IMPLICIT)


@pytest.mark.parametrize(
    ("transform", "transcode", "left", "not_left"),
    [
        (None, "never", [EXPLICIT, BIG, RLE, "1.2.3"], []),
        (None, "native", [EXPLICIT, IMPLICIT, DEFLATED, BIG], [RLE, JPEG_BASELINE, "1.2.3"]),
        (None, IMPLICIT, [IMPLICIT], [EXPLICIT, DEFLATED, BIG, RLE]),
        (None, RLE, [RLE], [EXPLICIT, JPEG_BASELINE]),
        (rename, "never", [], [EXPLICIT, RLE]),
        (rename, RLE, [], [EXPLICIT, RLE]),
    ],
)
async def test_what_stays_as_it_is_is_not_even_read(transform, transcode, left, not_left, autojump_clock) -> None:
    def never() -> Dataset:
        raise AssertionError("it was read")

    conversion = Conversion(transform, transcode)
    for syntax in left:
        assert conversion.leaves(syntax)
        assert await conversion.convert(never, syntax) is None
    for syntax in not_left:
        assert not conversion.leaves(syntax)


# --- several at once, and cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 5])
async def test_no_more_are_read_than_are_converted(at_once: int, autojump_clock) -> None:
    stand_still.set(True)
    held = most = 0

    def take() -> Dataset:
        nonlocal held, most
        held += 1
        most = max(most, held)
        return read()

    async def transform(dataset: Dataset) -> None:
        nonlocal held
        await trio.sleep(1)
        held -= 1

    conversion = Conversion(transform, at_once=at_once)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(conversion.convert, take, EXPLICIT)
    assert most == at_once
    assert trio.current_time() - start == pytest.approx(10 / at_once)


async def test_a_transform_that_hangs_is_left_behind() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hang(dataset: Dataset) -> None:
        begun.set()
        go_on.wait(30)

    conversion = Conversion(hang, at_once=1)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversion.convert, read, EXPLICIT)
            with trio.fail_after(20):
                await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
        with trio.move_on_after(0.05) as scope:  # the thread still counts
            await conversion.convert(read, EXPLICIT)
        assert scope.cancelled_caught
    finally:
        go_on.set()
    with trio.fail_after(20):
        assert await conversion.convert(read, EXPLICIT) is not None


@pytest.mark.fault_row(112)
@pytest.mark.parametrize("transform", [rename, rename_slowly])
def test_cancelled_at_every_checkpoint(transform) -> None:
    require(RLE, JPEG_LS)
    require(JPEG_LS, to_encode=True)

    async def scenario(cut) -> None:
        stand_still.set(True)
        async with Conversion(transform, JPEG_LS, at_once=1) as conversion:
            with cut:
                await conversion.convert(reader("MR_small_RLE.dcm"), RLE)
            with trio.fail_after(60):  # whoever comes next has his turn
                source = await conversion.convert(reader("MR_small_RLE.dcm"), RLE)
            assert source.sop_instance_uid == NEW_INSTANCE

    assert cancel_at_every_checkpoint(scenario) > 8


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "test-SR.dcm", "rtplan.dcm"])
async def test_an_idle_transform_changes_nothing(name: str, autojump_clock) -> None:
    stand_still.set(True)
    source = await Conversion(lambda dataset: None).convert(reader(name), own_syntax(name))
    assert source.transfer_syntaxes[0] == own_syntax(name)
    after, before = await received(source), sample(name)
    assert all_but_pixels(after) == all_but_pixels(before)
    assert after.get("PixelData") == before.get("PixelData")
