from __future__ import annotations

import io
import os
import threading
import tracemalloc

import pydicom
import pytest
import trio

from inputs.input_helpers import all_items, descriptors, names, sent
from trio_dicom.errors import InvalidObject
from trio_dicom.inputs import tree
from trio_dicom.inputs.inputs import Inputs
from trio_dicom.inputs.item import FileItem, InvalidItem
from trio_dicom.sources.pixels import ArrayPixelSource
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import file_bytes, make_instance, make_instance_file


@pytest.fixture
def study(tmp_path):
    """s1/i1 s1/i2 s2/i3, and beside them i0."""
    for number, name in enumerate(["i0", "s1/i1", "s1/i2", "s2/i3"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(make_instance_file(number=number + 1))
    return tmp_path


# --- what can be given ----------------------------------------------------------------------------------------------


async def test_inputs_of_all_kinds_in_the_order_in_which_they_came(study):
    dataset = make_instance()
    bare = make_instance(PixelData=None)
    stream = io.BytesIO(make_instance_file())
    given = [study / "i0", dataset, str(study / "s1"), stream, (bare, ArrayPixelSource(bytes(512))), study / "nothing"]
    for most in (1, 2, 3, 100):
        items = await all_items(given, most)
        assert names(items) == [
            str(study / "i0"),
            f"data set {dataset.SOPInstanceUID}",
            str(study / "s1/i1"),
            str(study / "s1/i2"),
            "stream",
            f"data set {dataset.SOPInstanceUID}",
            str(study / "nothing"),
        ]
    assert (items[1].dataset, items[4].stream, items[5].dataset) == (dataset, stream, bare)
    assert [item.is_data_set for item in items] == [False, True, False, False, False, True, False]


@pytest.mark.parametrize("kind", [list, tuple, iter, set, lambda each: (x for x in each), dict.fromkeys])
async def test_iterables_of_all_kinds(study, kind):
    paths = [str(study / "i0"), str(study / "s1/i1")]
    assert sorted(names(await all_items(kind(paths)))) == paths


async def test_one_input_in_place_of_an_iterable(study):
    path = study / "i0"
    expected = path.read_bytes()[-300:]
    for given in (str(path), path, trio.Path(path), os.fspath(study / "i0")):
        assert names(await all_items(given)) == [str(path)]
    with open(path, "rb") as file, open(path, "rb", buffering=0) as raw:  # noqa: ASYNC230
        for stream in (file, raw, io.BytesIO(path.read_bytes())):
            (item,) = await all_items(stream)
            assert (await sent(item)).endswith(expected)
    async with await trio.open_file(path, "rb") as file:
        (item,) = await all_items(file)
        assert (await sent(item)).endswith(expected)
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    await sender.send_all(path.read_bytes())
    await sender.aclose()
    (item,) = await all_items(receiver)
    assert (await sent(item)).endswith(expected)
    dataset = make_instance()
    for given in (dataset, (dataset, None), (dataset, ArrayPixelSource(bytes(2)))):
        (item,) = await all_items(given)
        assert item.dataset is dataset
    assert len(await all_items((dataset, dataset))) == 2
    assert await all_items([]) == []


class BytesPath:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


async def test_a_path_of_bytes_within_an_object(study):
    assert names(await all_items([BytesPath(os.fsencode(study / "i0"))])) == [str(study / "i0")]


@pytest.mark.parametrize(
    ("thing", "name"),
    [(7, "int"), (None, "NoneType"), (b"ct.dcm", "bytes"), (io.StringIO("a"), "StringIO"), (["a"], "list")],
)
async def test_what_is_no_input_is_a_type_error_that_names_it(study, thing, name):
    inputs = Inputs([str(study / "i0"), thing, str(study / "s1/i1")])
    assert names(await inputs.take(10)) == [str(study / "i0")]
    for _ in range(2):
        with pytest.raises(TypeError, match=f"not {name}"):
            await inputs.take(10)
    assert not inputs.is_exhausted
    wrong, other = inputs.rest()  # all are accounted for
    assert isinstance(wrong, InvalidItem)
    assert (wrong.name, other.name) == (f"<{name}>", str(study / "s1/i1"))
    if name != "list":
        with pytest.raises(TypeError, match=f"not {name}"):
            await Inputs(thing).take(1)


async def test_a_pair_of_what_does_not_belong_together():
    with pytest.raises(TypeError, match="not tuple"):
        await all_items([(make_instance(), "pixels")])


async def test_a_text_file_that_trio_opened(study):
    async with await trio.open_file(study / "i0") as file:
        with pytest.raises(TypeError, match="not AsyncIOWrapper"):
            await all_items(file)


# --- taking ---------------------------------------------------------------------------------------------------------


async def test_no_more_is_taken_from_an_iterable_than_is_asked_for():
    asked = []

    def endless():
        number = 0
        while True:
            asked.append(number)
            yield f"/nowhere/{number}"
            number += 1

    inputs = Inputs(endless())
    assert asked == []
    assert names(await inputs.take(3)) == ["/nowhere/0", "/nowhere/1", "/nowhere/2"]
    assert len(asked) == 3
    await inputs.take(5)
    assert len(asked) == 8
    assert not inputs.is_exhausted


async def test_only_whole_numbers_from_one_on_are_taken():
    with pytest.raises(ValueError, match="at least one"):
        await Inputs([]).take(0)


@pytest.mark.fault_row(115)
async def test_fault115_an_exception_of_the_iterator_passes_when_what_came_before_was_taken(study):
    def failing():
        yield study / "i0"
        yield study / "s1"
        raise RuntimeError("theirs")

    inputs = Inputs(failing())
    assert len(await inputs.take(2)) == 2
    assert len(await inputs.take(2)) == 1
    with pytest.raises(RuntimeError, match="theirs"):
        await inputs.take(2)
    assert not inputs.is_exhausted
    assert inputs.rest() == []
    assert not inputs.is_exhausted


@pytest.mark.fault_row(115)
async def test_fault115_an_exception_of_an_async_iterator_passes():
    async def failing():
        yield "/nowhere"
        raise RuntimeError("theirs")

    async with Inputs(failing()) as inputs:
        assert names(await inputs.take(9)) == ["/nowhere"]
        with pytest.raises(RuntimeError, match="theirs"):
            await inputs.take(9)


async def test_an_async_iterable_gives_what_it_has(study, autojump_clock):
    stand_still.set(True)
    sender, receiver = trio.open_memory_channel(10)
    inputs = Inputs(receiver)
    sender.send_nowait(study / "i0")
    sender.send_nowait(study / "s1")
    sender.send_nowait(study / "s2")
    with trio.fail_after(1):  # of virtual time: nothing is waited for
        assert names(await inputs.take(10)) == [str(study / "i0")]
        assert names(await inputs.take(1)) == [str(study / "s1/i1")]
        assert names(await inputs.take(10)) == [str(study / "s1/i2")]
        assert names(await inputs.take(10)) == [str(study / "s2/i3")]
    with trio.move_on_after(5) as scope:
        await inputs.take(10)
    assert scope.cancelled_caught
    assert not inputs.is_exhausted
    sender.close()
    assert await inputs.take(10) == []
    assert inputs.is_exhausted


async def test_an_async_iterable_that_trickles(study, autojump_clock):
    stand_still.set(True)

    async def trickle():
        for name in ("i0", "empty", "s1"):
            await trio.sleep(10)
            (study / "empty").mkdir(exist_ok=True)
            yield study / name

    async with Inputs(trickle()) as inputs:
        start = trio.current_time()
        assert names(await inputs.take(10)) == [str(study / "i0")]
        assert trio.current_time() - start == 10
        assert len(await inputs.take(10)) == 2  # nothing is in the second one, so the third is awaited
        assert trio.current_time() - start == 30
        assert await inputs.take(10) == []


async def test_an_async_generator_is_closed_and_a_plain_one_is_not(study):
    closed = []

    async def generator():
        try:
            yield study / "i0"
            yield study / "i0"
        finally:
            await trio.lowlevel.checkpoint()
            closed.append(True)

    async with Inputs(generator()) as inputs:
        await inputs.take(1)
    assert closed == [True]
    plain = iter([study / "i0", study / "s1"])
    async with Inputs(plain) as inputs:
        await inputs.take(1)
    assert list(plain) == [study / "s1"]


@pytest.mark.fault_row(114)
async def test_fault114_two_tasks_that_take():
    async def hang():
        await trio.sleep_forever()
        yield "never"

    async with Inputs(hang()) as inputs, trio.open_nursery() as nursery:
        nursery.start_soon(inputs.take, 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await inputs.take(1)
        nursery.cancel_scope.cancel()


@pytest.mark.fault_row(109)
async def test_fault109_a_hundred_thousand_pass_through_a_little_memory():
    def paths():
        for number in range(100_000):
            yield f"/nowhere/{number}"

    inputs = Inputs(paths())
    await inputs.take(1)
    tracemalloc.start()
    try:
        count = 1
        while items := await inputs.take(2000):
            count += len(items)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert count == 100_000


# --- the rest -------------------------------------------------------------------------------------------------------


async def test_the_rest_of_a_list_without_looking_at_it(study):
    dataset = make_instance()
    inputs = Inputs([study / "i0", study, dataset, study / "s1"])
    await inputs.take(1)
    assert names(inputs.rest()) == [str(study), f"data set {dataset.SOPInstanceUID}", str(study / "s1")]
    assert inputs.is_exhausted
    assert inputs.rest() == await inputs.take(5) == []


async def test_the_rest_of_a_list_of_which_nothing_was_taken(study):
    assert names(Inputs((study, "x")).rest()) == [str(study), "x"]
    assert names(Inputs("x").rest()) == ["x"]


async def test_the_rest_of_a_folder_that_was_begun_is_one_item_which_names_it(study):
    before = descriptors()
    inputs = Inputs([study, study / "s2"])
    assert names(await inputs.take(1)) == [str(study / "i0")]
    assert names(inputs.rest()) == [str(study), str(study / "s2")]
    assert descriptors() == before


async def test_a_folder_that_was_taken_to_its_end_is_not_named_again(study):
    inputs = Inputs([study / "s1", "x"])
    await inputs.take(3)
    assert inputs.rest() == []
    inputs = Inputs([study / "s1", "x"])
    await inputs.take(2)
    assert names(inputs.rest()) in (["x"], [str(study / "s1"), "x"])  # its end may not have been seen


async def test_the_rest_of_what_is_not_known(study):
    inputs = Inputs(iter([study / "i0", study / "s1"]))
    await inputs.take(1)
    assert inputs.rest() == []
    assert not inputs.is_exhausted


# --- folders --------------------------------------------------------------------------------------------------------


async def test_a_folder_is_walked_in_the_order_of_names(study):
    expected = [str(study / name) for name in ("i0", "s1/i1", "s1/i2", "s2/i3")]
    for most in (1, 2, 100):
        assert names(await all_items(study, most)) == expected
    assert names(await all_items(str(study) + "/", 2)) == expected


async def test_folders_of_a_folder_come_in_the_order_of_names(tmp_path):
    for number in (7 * number % 50 for number in range(50)):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}/x").touch()
    assert names(await all_items(tmp_path, 9)) == [f"{tmp_path}/{number:02}/x" for number in range(50)]


async def test_a_folder_by_a_relative_name(study, monkeypatch):
    monkeypatch.chdir(study)
    assert names(await all_items(["s1"])) == ["s1/i1", "s1/i2"]
    assert names(await all_items(["."]))[0] == "./i0"


async def test_an_empty_folder_gives_nothing(study):
    (study / "empty/deeper").mkdir(parents=True)
    assert await all_items([study / "empty"]) == []
    assert names(await all_items([study / "empty", study / "i0"])) == [str(study / "i0")]


async def test_five_thousand_files_with_bounded_look_ahead(tmp_path, monkeypatch):
    for number in range(5000):
        (tmp_path / f"{number:04}").touch()
    made, hops = [], []
    real = tree.FileItem
    monkeypatch.setattr(tree, "FileItem", lambda path: made.append(path) or real(path))
    monkeypatch.setattr("trio_dicom.inputs.expansion._PATIENCE", 10)

    class Clock:  # a hop begins with a look at it
        def monotonic(self):
            hops.append(1)
            return 0

    monkeypatch.setattr("trio_dicom.inputs.expansion.time", Clock())
    before = descriptors()
    async with Inputs(tmp_path) as inputs:
        items = await inputs.take(500)
        assert (len(items), len(made)) == (500, 500)
        assert len(hops) == 501  # one, and one for each name
        while some := await inputs.take(500):
            items += some
            assert len(made) <= len(items) + 500
    assert names(items) == sorted(str(tmp_path / f"{number:04}") for number in range(5000))
    assert descriptors() == before


async def test_a_folder_of_very_many_names_is_not_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "SORTED_AT_ONCE", 10)
    for number in range(35):
        (tmp_path / f"{number:02}").touch()
    for number in range(25):
        (tmp_path / f"d{number:02}").mkdir()
        (tmp_path / f"d{number:02}/x").touch()
    before = descriptors()
    async with Inputs(tmp_path) as inputs:
        items = await inputs.take(7)
        assert descriptors() == before + 1  # it goes on from there
        while some := await inputs.take(7):
            items += some
    assert len(set(names(items))) == 60
    assert descriptors() == before
    async with Inputs(tmp_path) as inputs:
        await inputs.take(7)
    assert descriptors() == before  # given up in the middle


@pytest.mark.fault_row(106)
async def test_fault106_links_in_a_folder(study):
    (study / "s2/again").symlink_to(study / "s1")
    (study / "s2/up").symlink_to(study)
    (study / "s2/file").symlink_to(study / "i0")
    (study / "s2/dangling").symlink_to("nothing")
    (study / "s2/loop").symlink_to("loop")
    items = {item.name.rpartition("/")[2]: item for item in await all_items(study / "s2")}
    assert list(items) == ["again", "dangling", "file", "i3", "loop", "up"]  # none was followed
    for name in ("again", "up"):
        with pytest.raises(InvalidObject, match="link to a folder: name it") as caught:
            await items[name].open()
        assert caught.value.where == items[name].name
    assert await sent(items["file"]) == await sent(FileItem(str(study / "i0")))
    for name in ("dangling", "loop"):
        with pytest.raises(InvalidObject, match="cannot be read"):
            await items[name].open()


async def test_a_link_to_a_folder_that_is_named_is_walked(study):
    (study / "link").symlink_to(study / "s1")
    assert names(await all_items(study / "link")) == [str(study / "link/i1"), str(study / "link/i2")]


@pytest.mark.fault_row(107)
async def test_fault107_a_folder_that_cannot_be_listed(study, monkeypatch):
    real = os.scandir

    def refusing(path):
        if path.endswith("s1"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    items = await all_items(study)
    assert names(items) == [str(study / name) for name in ("i0", "s1", "s2/i3")]
    with pytest.raises(InvalidObject, match="s1: cannot be read: Permission denied"):
        await items[1].open()
    assert names(await all_items(study / "s1")) == [str(study / "s1")]


@pytest.mark.fault_row(107)
async def test_fault107_a_folder_whose_listing_breaks_off(study, monkeypatch):
    real = os.scandir

    class Breaking:
        def __init__(self, path):
            self.entries = real(path)

        def __iter__(self):
            yield next(self.entries)
            raise OSError(5, "Input/output error")

        def close(self):
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Breaking)
    before = descriptors()
    found, broken = await all_items(study / "s1")
    assert isinstance(found, FileItem)
    assert broken.name == str(study / "s1")
    with pytest.raises(InvalidObject, match="Input/output error"):
        await broken.open()
    assert descriptors() == before


async def test_a_tree_deeper_than_a_path_may_be_long(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (item,) = await all_items(tmp_path)
    with pytest.raises(InvalidObject, match="cannot be read: File name too long"):
        await item.open()


@pytest.mark.fault_row(111)
async def test_fault111_names_of_all_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = sorted(os.fsdecode(name) for name in (b"\xff\xfe", b"a\nb", b"-rf", b"x" * 255, b" ", b"\x1b[2J"))
    for name in odd:
        (tmp_path / name).write_bytes(make_instance_file())
    for items in (await all_items(odd), await all_items("."), await all_items(tmp_path)):
        assert [os.path.basename(name) for name in names(items)] == odd
        for item in items:
            assert item.identity(None).name == os.fsencode(tmp_path) + b"/" + os.fsencode(os.path.basename(item.name))
            assert repr(item).isprintable()
            assert repr(item).isascii()
            await sent(item)


@pytest.mark.fault_row(110)
async def test_fault110_the_same_file_twice_is_two_inputs(study):
    assert names(await all_items([study / "i0", study / "i0"])) == [str(study / "i0")] * 2


# --- cancellation ---------------------------------------------------------------------------------------------------


async def test_what_was_found_by_a_thread_that_was_abandoned_is_not_lost(study, monkeypatch):
    entered, let_go = threading.Event(), threading.Event()
    real = os.scandir

    def slow(path):
        if not entered.is_set():
            entered.set()
            assert let_go.wait(30)
        return real(path)

    monkeypatch.setattr(os, "scandir", slow)
    before = descriptors()
    async with Inputs([study, "x"]) as inputs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inputs.take, 10)
            await trio.to_thread.run_sync(entered.wait, 30)
            nursery.cancel_scope.cancel()
        let_go.set()
        items = []
        while some := await inputs.take(3):
            items += some
    assert names(items) == [*(str(study / name) for name in ("i0", "s1/i1", "s1/i2", "s2/i3")), "x"]
    assert descriptors() == before


async def test_a_walk_that_hangs_is_given_up_and_closes_what_it_opened(study, monkeypatch):
    monkeypatch.setattr(tree, "SORTED_AT_ONCE", 1)  # so that it stays open
    entered, let_go = threading.Event(), threading.Event()
    real = tree._is_folder

    def slow(entry):
        entered.set()
        assert let_go.wait(30)
        return real(entry)

    monkeypatch.setattr(tree, "_is_folder", slow)
    before = descriptors()
    with trio.fail_after(20):
        async with Inputs(study) as inputs, trio.open_nursery() as nursery:
            nursery.start_soon(inputs.take, 2)
            await trio.to_thread.run_sync(entered.wait, 30)
            nursery.cancel_scope.cancel()
        held = list(inputs._seen)  # so that it is closed, not only forgotten
        assert names(inputs.rest()) == [str(study)]
        assert descriptors() == before + 1
        let_go.set()
        while descriptors() != before:
            await trio.lowlevel.checkpoint()
    assert held


async def test_the_data_set_that_the_caller_has_is_not_touched():
    dataset = pydicom.dcmread(io.BytesIO(file_bytes(make_instance())))
    raw = dict(dataset._dict)
    (item,) = await all_items(dataset)
    assert item.name.startswith("data set 2.25.")
    await sent(item)
    copied = item.read_dataset()
    copied.PatientName = "Other"
    assert dataset._dict == raw
    assert str(dataset.PatientName) != "Other"
