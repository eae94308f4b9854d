"""The processes in which pixels are converted: they are there when needed, gone when not, and nobody waits for them."""

from __future__ import annotations

import copy
import functools
import io
import json
import sys

import attrs
import numpy
import pytest
import trio
import trio.testing
from pydicom.dataset import Dataset

from conversion.codec_samples import JPEG_2000, JPEG_LS, RLE, reader, received, require, sample, samples
from sources.source_helpers import EXPLICIT
from trio_dicom.conversion import codec_process, codec_worker
from trio_dicom.conversion.conversion import Conversion
from trio_dicom.conversion.image_pixels import ImagePixels
from trio_dicom.errors import InvalidObject, Retry
from trio_dicom.testing import cancel_at_every_checkpoint

NAME = "MR_small_RLE.dcm"


class Started(list[trio.Process]):
    """Processes that were started, and an event for the first of them."""

    def __init__(self) -> None:
        self.any = trio.Event()


@pytest.fixture
def started(monkeypatch) -> Started:
    processes = Started()
    start = trio.lowlevel.open_process

    async def open_process(*args, **options) -> trio.Process:
        processes.append(await start(*args, **options))
        processes.any.set()
        return processes[-1]

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    return processes


def are_gone(processes: list[trio.Process]) -> bool:
    """Ended and waited for, their pipes closed."""
    return all(each.returncode is not None and each.stdin._fd_holder.fd == -1 for each in processes)


def program(monkeypatch, text: str) -> None:
    """What runs instead of codec_worker.py."""
    monkeypatch.setattr(codec_process, "_PROGRAM", text)


async def native(conversion: Conversion) -> bytes:
    return (await received(await conversion.convert(reader(NAME), RLE))).PixelData


async def test_one_process_does_one_object_after_another(started) -> None:
    require(RLE)
    expected = samples(sample(NAME)).tobytes()
    async with Conversion(transcode="native") as conversion:
        for _ in range(3):
            assert await native(conversion) == expected
        assert len(started) == 1
        assert started[0].returncode is None
    assert are_gone(started)
    with pytest.raises(trio.ClosedResourceError):
        await conversion.convert(reader(NAME), RLE)


async def test_as_many_processes_as_there_are_objects_at_once(started) -> None:
    require(RLE)
    async with Conversion(transcode="native", at_once=2) as conversion, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(native, conversion)
    assert len(started) == 2
    assert are_gone(started)


async def test_none_where_no_pixels_are_converted(started) -> None:
    async with Conversion(lambda dataset: None, EXPLICIT) as conversion:
        for name in ("CT_small.dcm", "MR_small_implicit.dcm", "test-SR.dcm"):
            await conversion.convert(reader(name), None)
    assert started == []


async def test_what_fails_costs_no_process(started) -> None:
    require(RLE)

    def damaged() -> Dataset:
        dataset = sample(NAME)
        dataset.PixelData = dataset.PixelData[:-2000]
        return dataset

    async with Conversion(transcode="native") as conversion:
        with pytest.raises(InvalidObject, match="frame 1 of 1 is damaged"):
            await conversion.convert(damaged, RLE)
        await native(conversion)
    assert len(started) == 1


async def test_a_process_that_has_died_is_replaced(started) -> None:
    require(RLE)
    async with Conversion(transcode="native") as conversion:
        await native(conversion)
        started[0].kill()
        await started[0].wait()
        await native(conversion)
    assert len(started) == 2
    assert are_gone(started)


DEATHS = {
    "at once": "pass",
    "when the task is there": "import os, sys; sys.stdin.buffer.read(12); os.abort()",
    "with half an answer": (
        "import struct, sys; sys.stdin.buffer.read(12); sys.stdout.buffer.write(struct.pack('<LQ', 9, 0) + b'{')"
    ),
    "having written what is no answer": (
        "import struct, sys; sys.stdin.buffer.read(12); sys.stdout.buffer.write(struct.pack('<LQ', 3, 0) + b'abc')"
    ),
    "having announced too much": (
        "import sys; sys.stdin.buffer.read(12); sys.stdout.buffer.write(b'\\xff' * 99); sys.stdout.flush();"
        "sys.stdin.buffer.read()"
    ),
}


@pytest.mark.parametrize("text", DEATHS.values(), ids=DEATHS)
async def test_a_codec_that_crashes_costs_one_object(text: str, started, monkeypatch) -> None:
    require(RLE)
    async with Conversion(transcode="native") as conversion:
        with monkeypatch.context() as patch:
            program(patch, text)
            with trio.fail_after(30), pytest.raises(InvalidObject, match="the codec crashed at these pixels"):
                await conversion.convert(reader(NAME), RLE)
        await native(conversion)
    assert len(started) == 2
    assert are_gone(started)


async def test_a_frame_that_takes_too_long(started, monkeypatch) -> None:
    program(monkeypatch, "import sys; sys.stdin.buffer.read()")
    monkeypatch.setattr(codec_process, "FRAME", 0.1)
    async with Conversion(transcode="native") as conversion:
        with trio.fail_after(30), pytest.raises(InvalidObject, match=r"a frame was not converted within 0\.1 s"):
            await conversion.convert(reader(NAME), RLE)
    assert are_gone(started)


async def test_the_time_is_that_of_one_frame_not_of_all(monkeypatch) -> None:
    """The deadline moves with every frame that is said to be done."""
    message = "sys.stdout.buffer.write(struct.pack('<LQ', {}, 0) + {!r}); sys.stdout.flush()"
    done, end = message.format(2, b"{}"), message.format(27, b'{"reason": "x","detail":""}')
    program(
        monkeypatch,
        "import struct, sys, time\nsys.stdin.buffer.read(12)\n"
        f"for _ in range(3):\n    time.sleep(0.45); {done}\n"
        f"{end}\nsys.stdin.buffer.read()",
    )
    monkeypatch.setattr(codec_process, "FRAME", 1.0)
    async with Conversion(transcode="native") as conversion:
        with pytest.raises(InvalidObject, match=r"^x$"):
            await conversion.convert(reader(NAME), RLE)


async def test_no_process_can_be_started(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with Conversion(transcode="native") as conversion:
        with pytest.raises(InvalidObject, match="no process to convert pixels in could be started: No such") as caught:
            await conversion.convert(reader(NAME), RLE)
    assert caught.value.retry is Retry.LATER


@pytest.mark.parametrize("has_interpreter", [True, False])
async def test_a_frozen_program_converts_where_it_is(has_interpreter: bool, started, monkeypatch) -> None:
    require(RLE)
    if has_interpreter:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", "")
    async with Conversion(transcode="native") as conversion:
        assert await native(conversion) == samples(sample(NAME)).tobytes()
    assert started == []


async def test_a_process_ends_when_nobody_has_tasks_any_more() -> None:
    """So none outlives a program that was killed."""
    command = [sys.executable, "-c", codec_process._PROGRAM, json.dumps(sys.path)]
    with trio.fail_after(30):
        result = await trio.run_process(command, stdin=b"", capture_stdout=True, capture_stderr=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_each_frame_that_is_done_is_told() -> None:
    require(RLE)
    dataset = sample("SC_rgb_rle_2frame.dcm")
    task = {"image": attrs.asdict(ImagePixels.of(dataset)), "own": RLE, "target": EXPLICIT}
    tasks, answers = io.BytesIO(b"".join(codec_worker.message(task, dataset.PixelData))), io.BytesIO()
    assert codec_worker.serve(tasks, answers)
    assert not codec_worker.serve(tasks, answers)  # there is no other
    pixels = samples(dataset).tobytes()
    told = b"".join(codec_worker.message({})) * 2
    assert answers.getvalue().startswith(told)
    assert answers.getvalue().endswith(pixels)
    assert len(answers.getvalue()) < len(told) + len(pixels) + 500


@pytest.mark.parametrize("cut", [1, 15, 100])
def test_half_a_task_is_none(cut: int) -> None:
    dataset = sample(NAME)
    task = b"".join(codec_worker.message({"own": RLE}, dataset.PixelData))
    assert not codec_worker.serve(io.BytesIO(task[:cut]), io.BytesIO())


async def test_what_codecs_print_is_no_answer(monkeypatch) -> None:
    require(RLE)
    noise = "import os; import pydicom.pixels.decoders.base as base; get = base.get_decoder\n"
    noise += "def noisy(uid):\n    os.write(1, b'libjpeg says hello'); print('so do I', flush=True); return get(uid)\n"
    noise += "base.get_decoder = noisy\n"
    program(monkeypatch, codec_process._PROGRAM.replace("; main()", f"\n{noise}main()"))
    async with Conversion(transcode="native") as conversion:
        assert await native(conversion) == samples(sample(NAME)).tobytes()


# --- cancellation, and the event loop ---------------------------------------------------------------------------------


async def test_cancelled_while_a_codec_is_at_work(started, monkeypatch) -> None:
    program(monkeypatch, "import sys; sys.stdin.buffer.read()")
    async with Conversion(transcode="native") as conversion, trio.open_nursery() as nursery:
        nursery.start_soon(conversion.convert, reader(NAME), RLE)
        with trio.fail_after(30):
            await started.any.wait()
            await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    assert are_gone(started)
    assert started[0].returncode == -9 or sys.platform == "win32"


async def test_closed_while_a_codec_is_at_work(started, monkeypatch) -> None:
    require(RLE)
    async with trio.open_nursery() as nursery:
        conversion = Conversion(transcode="native")
        nursery.start_soon(conversion.convert, reader(NAME), RLE)
        with trio.fail_after(30):
            await started.any.wait()
        await conversion.aclose()
    assert are_gone(started)


@pytest.mark.slow  # a process each time
def test_cancelled_at_every_checkpoint(started) -> None:
    require(RLE)
    dataset = sample(NAME)  # no thread that is left behind has a file open then

    async def scenario(cut) -> None:
        started.clear()
        async with Conversion(transcode="native") as conversion:
            with cut:
                await conversion.convert(functools.partial(copy.deepcopy, dataset), RLE)
        assert are_gone(started)

    assert cancel_at_every_checkpoint(scenario, virtual_clock=False) > 8


async def stalls(work) -> tuple[float, float]:
    """How long `work` takes, and the longest time in which the event loop did nothing else, in seconds."""
    longest = 0.0

    async def heart() -> None:
        nonlocal longest
        last = trio.current_time()
        while True:
            await trio.sleep(0.001)
            longest = max(longest, trio.current_time() - last)
            last = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart)
        start = trio.current_time()
        await work()
        elapsed = trio.current_time() - start
        nursery.cancel_scope.cancel()
    return elapsed, longest


@pytest.mark.parametrize("target", [JPEG_2000, JPEG_LS])
async def test_the_event_loop_does_not_wait_for_codecs(target: str) -> None:
    """In threads, they would stop it for as long as they need for a frame: all but the whole of this."""
    require(target)
    require(target, to_encode=True)
    size = 2000
    noise = numpy.random.default_rng(5).integers(0, 64, (size, size), "uint16")
    pixels = (numpy.add.outer(numpy.arange(size), numpy.arange(size)) // 2 + noise).astype("uint16").tobytes()

    def read() -> Dataset:
        dataset = sample("CT_small.dcm")
        dataset.Rows = dataset.Columns = size
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
        dataset.PixelData = pixels
        return dataset

    async with Conversion(transcode=target) as conversion:
        await conversion.convert(reader("CT_small.dcm"), EXPLICIT)  # the process is there
        elapsed, longest = await stalls(functools.partial(conversion.convert, read, EXPLICIT))
    assert longest < elapsed / 3
