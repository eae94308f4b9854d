"""FaultyStream: each fault in each direction, alone and together, and a stream like any other without them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
import trio
import trio.testing

from trio_dicom import Association, AssociationError, ConnectionLost, CStoreSCU
from trio_dicom.testing import (
    Corrupt,
    Direction,
    Drip,
    Fault,
    FaultyStream,
    HalfClose,
    Reset,
    ScriptedPeer,
    Split,
    Stall,
    loopback_streams,
    make_instance_file,
    scripted_link,
    socket_pair_streams,
)

SENDING, RECEIVING = Direction.SENDING, Direction.RECEIVING
DIRECTIONS = pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.value)
DATA = bytes(range(200)) * 5


async def pieces(direction: Direction, *faults: Fault, data: bytes = DATA, seed: int = 0) -> list[tuple[float, bytes]]:
    """What came through, piece by piece, with the time of each; `data` go in at once."""
    ours, theirs = trio.testing.lockstep_stream_pair()  # which joins nothing
    faulty = FaultyStream(ours, *faults, seed=seed)
    source, sink = (faulty, theirs) if direction is SENDING else (theirs, faulty)
    start = trio.current_time()
    found: list[tuple[float, bytes]] = []

    async def read() -> None:
        async for piece in sink:
            found.append((trio.current_time() - start, bytes(piece)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await source.send_all(data)
        await trio.testing.wait_all_tasks_blocked()
        await source.aclose()
    return found


async def arrived(direction: Direction, *faults: Fault, data: bytes = DATA, seed: int = 0) -> bytes:
    return b"".join(piece for _, piece in await pieces(direction, *faults, data=data, seed=seed))


async def read_to_the_end(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


# --- no faults --------------------------------------------------------------------------------------------------------


async def test_without_faults_it_is_as_good_as_the_stream_within() -> None:
    async def make() -> tuple[FaultyStream, FaultyStream]:
        ours, theirs = trio.testing.memory_stream_pair()
        return FaultyStream(ours), FaultyStream(theirs)

    async def clogged() -> tuple[FaultyStream, FaultyStream]:
        ours, theirs = trio.testing.lockstep_stream_pair()
        return FaultyStream(ours), FaultyStream(theirs)

    await trio.testing.check_half_closeable_stream(make, clogged)


async def test_with_faults_that_do_no_harm_it_is_a_stream_still() -> None:
    async def make() -> tuple[FaultyStream, FaultyStream]:
        ours, theirs = trio.testing.memory_stream_pair()
        harmless = Split(every=999), Split(up_to=900, direction=RECEIVING), Stall(at_byte=1, seconds=0)
        return FaultyStream(ours, *harmless), FaultyStream(theirs, *harmless)

    await trio.testing.check_half_closeable_stream(make, None)


# --- each fault, each direction ---------------------------------------------------------------------------------------


@DIRECTIONS
async def test_stall(direction: Direction, autojump_clock: trio.testing.MockClock) -> None:
    found = await pieces(direction, Stall(at_byte=300, seconds=5, direction=direction))
    assert found == [(0, DATA[:300]), (5, DATA[300:])]


@DIRECTIONS
async def test_stall_for_ever(direction: Direction, autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1e6) as scope:
        await pieces(direction, Stall(at_byte=300, direction=direction))
    assert (scope.cancelled_caught, trio.current_time()) == (True, 1e6)


@DIRECTIONS
async def test_the_other_direction_is_left_alone(direction: Direction, autojump_clock: trio.testing.MockClock) -> None:
    (other,) = set(Direction) - {direction}
    faults = Stall(direction=other), Reset(at_byte=1, direction=other), Corrupt(direction=other)
    with trio.fail_after(1):
        assert await arrived(direction, *faults) == DATA


@DIRECTIONS
async def test_drip(direction: Direction, autojump_clock: trio.testing.MockClock) -> None:
    found = await pieces(direction, Drip(bytes=4, seconds=0.5, at_byte=6, direction=direction), data=DATA[:20])
    assert found == [
        (0, DATA[:6]),
        (0.5, DATA[6:10]),
        (1.0, DATA[10:14]),
        (1.5, DATA[14:18]),
        (2.0, DATA[18:20]),
    ]


@DIRECTIONS
async def test_corrupt(direction: Direction) -> None:
    found = await arrived(direction, Corrupt(at_byte=7, flip=0x81, direction=direction))
    assert [(at, was ^ now) for at, (was, now) in enumerate(zip(DATA, found, strict=True)) if was != now] == [(7, 0x81)]


@DIRECTIONS
async def test_corrupt_by_chance_is_corrupt_and_repeats(direction: Direction) -> None:
    def masks(found: bytes) -> list[int]:
        return [was ^ now for was, now in zip(DATA, found, strict=True) if was != now]

    faults = [Corrupt(at_byte=at, direction=direction) for at in (0, 500, 999)]
    once = masks(await arrived(direction, *faults, seed=5))
    assert len(once) == 3
    assert once == masks(await arrived(direction, *faults, seed=5))
    assert once != masks(await arrived(direction, *faults, seed=6))


@DIRECTIONS
@pytest.mark.parametrize(
    ("split", "lengths"),
    [({"at_byte": 300}, [300, 700]), ({"every": 400}, [400, 400, 200])],
    ids=["at a byte", "every so many"],
)
async def test_split(direction: Direction, split: dict[str, int], lengths: list[int]) -> None:
    found = await pieces(direction, Split(**split, direction=direction))
    assert [len(piece) for _, piece in found] == lengths
    assert b"".join(piece for _, piece in found) == DATA


@DIRECTIONS
async def test_split_by_chance_repeats(direction: Direction) -> None:
    async def lengths(seed: int) -> list[int]:
        return [len(piece) for _, piece in await pieces(direction, Split(up_to=90, direction=direction), seed=seed)]

    once = await lengths(1)
    assert sum(once) == len(DATA)
    assert max(once) <= 90
    assert len(set(once)) > 5
    assert once == await lengths(1)
    assert once != await lengths(2)


@DIRECTIONS
async def test_half_close(direction: Direction) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(ours, HalfClose(at_byte=300, direction=direction))
    source, sink = (faulty, theirs) if direction is SENDING else (theirs, faulty)
    await source.send_all(DATA[:300])
    assert await sink.receive_some() == DATA[:300]
    assert await sink.receive_some() == b""
    await source.send_all(DATA[300:])  # lost
    assert await sink.receive_some() == b""
    await sink.send_all(DATA)  # the other way goes on
    assert await source.receive_some() == DATA


async def test_half_close_of_a_stream_that_cannot() -> None:
    class Whole(trio.abc.Stream):
        send_all = wait_send_all_might_not_block = receive_some = aclose = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="cannot close one direction"):
        FaultyStream(Whole(), HalfClose())
    FaultyStream(Whole(), HalfClose(direction=RECEIVING))


@DIRECTIONS
@pytest.mark.parametrize("pair", ["memory", "lockstep", "unix", "tcp"])
async def test_reset(direction: Direction, pair: str) -> None:
    makers: dict[str, Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]] = {
        "memory": trio.testing.memory_stream_pair,
        "lockstep": trio.testing.lockstep_stream_pair,
        "unix": socket_pair_streams,
    }
    ours, theirs = await loopback_streams() if pair == "tcp" else makers[pair]()
    faulty = FaultyStream(ours, Reset(at_byte=300, direction=direction))
    source, sink = (faulty, theirs) if direction is SENDING else (theirs, faulty)
    got = bytearray()

    async def wait_for_more() -> None:  # in the direction that has no fault
        with pytest.raises(trio.BrokenResourceError):
            await (faulty.receive_some() if direction is SENDING else faulty.send_all(bytes(64 << 20)))

    async def read() -> None:
        try:
            while len(got) < 300:
                got.extend(await sink.receive_some(300 - len(got)))
        except trio.BrokenResourceError:  # it was overtaken by RST
            assert pair == "tcp"

    async with trio.open_nursery() as nursery:
        if pair != "memory" or direction is SENDING:
            nursery.start_soon(wait_for_more)
        nursery.start_soon(read)
        await source.send_all(DATA[:300])
    assert pair == "tcp" or got == DATA[:300]
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await faulty.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await faulty.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await faulty.wait_send_all_might_not_block()
        with pytest.raises(trio.BrokenResourceError):
            await faulty.send_eof()
    if pair == "tcp":
        with pytest.raises(trio.BrokenResourceError):
            await read_to_the_end(theirs)
    await faulty.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()
    await theirs.aclose()


async def test_reset_in_the_middle_of_a_send() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(ours, Reset(at_byte=300))
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(DATA)
    assert await theirs.receive_some() == DATA[:300]
    assert await theirs.receive_some() == b""


async def test_a_reset_wakes_who_is_stalled(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(ours, Stall(direction=RECEIVING), Reset(at_byte=10))

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await faulty.receive_some()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await faulty.send_all(bytes(10))
    await theirs.aclose()


async def test_a_close_wakes_who_is_stalled(autojump_clock: trio.testing.MockClock) -> None:
    faulty = FaultyStream(trio.testing.memory_stream_pair()[0], Stall())

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await faulty.send_all(b"x")

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await faulty.aclose()


# --- together ---------------------------------------------------------------------------------------------------------


async def test_at_one_byte_they_act_in_the_order_given(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(ours, Stall(at_byte=5, seconds=3), Stall(at_byte=5, seconds=4), Reset(at_byte=5))
    await faulty.send_all(bytes(5))
    assert trio.current_time() == 0
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"x")
    assert trio.current_time() == 7
    assert await theirs.receive_some() == bytes(5)


async def test_everything_at_once_repeats() -> None:
    faults = Split(up_to=9), Corrupt(at_byte=3), Corrupt(at_byte=3), Corrupt(at_byte=997), Split(every=100)
    once = await pieces(SENDING, *faults, seed=1)
    again = await pieces(SENDING, *faults, seed=1)
    assert [piece for _, piece in once] == [piece for _, piece in again]
    assert len(once) > 100


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_a_cancelled_receive_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    drip = Drip(bytes=3, seconds=1.0, direction=RECEIVING)
    faulty = FaultyStream(ours, drip, Corrupt(at_byte=4, flip=255, direction=RECEIVING))
    await theirs.send_all(bytes(10))
    got = b""
    while len(got) < 10:
        with trio.move_on_after(0.3):
            got += await faulty.receive_some()
    assert got == bytes((0, 0, 0, 0, 255, 0, 0, 0, 0, 0))
    assert trio.current_time() == pytest.approx(4.0)  # a pause goes on where it was


async def test_a_cancelled_send_in_a_stall_has_sent_what_came_before(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(ours, Stall(at_byte=300))
    with trio.move_on_after(1):
        await faulty.send_all(DATA)
    assert await theirs.receive_some() == DATA[:300]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Stall(at_byte=-1),
        lambda: Stall(seconds=-1),
        lambda: Stall(seconds=math.nan),
        lambda: Drip(bytes=0),
        lambda: Corrupt(flip=0),
        lambda: Corrupt(flip=256),
        Split,
        lambda: Split(at_byte=1, every=2),
        lambda: Split(every=0),
    ],
)
def test_what_cannot_be(make: Callable[[], Fault]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs one"):
        make()


# --- in use -----------------------------------------------------------------------------------------------------------


async def send_through(*faults: Fault) -> Association:
    ours, theirs = trio.testing.memory_stream_pair()
    async with scripted_link(ScriptedPeer.serve, streams=(FaultyStream(ours, *faults), theirs)) as association:
        assert (await CStoreSCU(association).send(io.BytesIO(make_instance_file(5000)))).is_success
    return association


async def test_an_association_in_single_bytes() -> None:
    await send_through(Split(every=1), Split(every=1, direction=RECEIVING))


@pytest.mark.parametrize("fault", [Reset(at_byte=3000), Reset(at_byte=230, direction=RECEIVING)], ids=str)
async def test_an_association_that_breaks(fault: Fault, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ConnectionLost):
        await send_through(fault)


async def test_an_association_over_a_line_that_turns_bits(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(AssociationError):
        await send_through(Corrupt(at_byte=0, flip=0xFF, direction=RECEIVING))
