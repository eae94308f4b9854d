"""Services that fail, the window, and back-pressure: rows 83 and 86 of the fault table."""

from __future__ import annotations

import tracemalloc

import pytest
import trio
import trio.testing

from support.acceptor_link import (
    CT,
    DATA_SET,
    FILE,
    UID,
    Keeper,
    aborted_with,
    data_set_of,
    memory_server,
    rest,
    store_rq,
)
from trio_dicom import (
    AssociationAborted,
    AssociationSettings,
    InvalidObject,
    Service,
    Status,
    StorageSCP,
    StoreReply,
    Timeouts,
)
from trio_dicom.protocol.command import CEchoRQ, CEchoRSP, CStoreRSP
from trio_dicom.protocol.other_services import CFindRQ, CFindRSP, NGetRSP
from trio_dicom.protocol.pdu import Abort, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.testing.instances import make_instance_file
from trio_dicom.testing.scripted_peer import encoded, message
from trio_dicom.testing.streams import socket_pair_streams
from trio_dicom.uids import VERIFICATION

WINDOW = AssociationSettings(operations_window=4)


def second(message_id: int = 2) -> bytes:
    file = make_instance_file(256, number=2)
    return message(1, store_rq(file, message_id), data_set_of(file))


# --- 83: handlers -----------------------------------------------------------------------------------------------------


def raising(error: BaseException):
    async def handler(instance):
        raise error

    return handler


def returning(value: object):
    async def handler(instance):
        return value

    return handler


async def raises_after_reading(instance):
    await instance.read()
    raise OSError("the disk is on fire")


async def raises_in_the_middle(instance):
    await instance.receive_some(1)
    raise ValueError("Doe^John")


async def group_with_cancelled(instance):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        raise ValueError


async def cancelled_with_an_error(instance):
    """The scope of its own is cancelled, and something fails on the way out."""
    with trio.CancelScope() as scope:
        try:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        finally:
            raise KeyError


async def two_at_once(instance):
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(instance.read)


def not_async(instance):
    return 0x0000


async def closes(instance):
    await instance.aclose()
    await instance.receive_some()


async def waits_forever(instance):
    await trio.sleep_forever()


async def waits_after_reading(instance):
    await instance.read()
    await trio.sleep_forever()


async def swallows(instance):
    """Catches its cancellation, and answers all the same."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        return 0x0000


async def raises_when_cancelled(instance):
    try:
        await trio.sleep_forever()
    finally:
        raise RuntimeError("instead")


async def raises_a_group_when_cancelled(instance):
    async def stubborn():
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("instead")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stubborn)
        nursery.start_soon(trio.sleep_forever)


HANDLERS = [
    ("raises", raising(RuntimeError("Doe^John")), 0x0110, 0),
    ("raises_after_reading", raises_after_reading, 0x0110, 0),
    ("raises_in_the_middle", raises_in_the_middle, 0x0110, 0),
    ("invalid_object", raising(InvalidObject("Doe\x1b^John")), 0xC000, 0),
    ("group", raising(ExceptionGroup("many", [ValueError(), ExceptionGroup("more", [KeyError()])])), 0x0110, 0),
    ("group_from_a_nursery", group_with_cancelled, 0x0110, 0),
    ("error_when_its_own_scope_is_cancelled", cancelled_with_an_error, 0x0110, 0),
    ("stop_iteration", raising(StopAsyncIteration()), 0x0110, 0),
    ("stale_trio_error", raising(trio.BrokenResourceError()), 0x0110, 0),
    ("timeout_error", raising(trio.TooSlowError()), 0x0110, 0),
    ("library_error", raising(AssociationAborted(0, 0)), 0x0110, 0),
    ("assertion", raising(AssertionError()), 0x0110, 0),
    ("recursion", raising(RecursionError()), 0x0110, 0),
    ("memory", raising(MemoryError()), 0x0110, 0),
    ("two_readers", two_at_once, 0x0110, 0),
    ("reads_after_close", closes, 0x0110, 0),
    ("not_async", not_async, 0x0110, 0),
    ("none", returning(None), 0x0110, 0),
    ("true", returning(True), 0x0110, 0),
    ("text", returning("0000"), 0x0110, 0),
    ("float", returning(0.0), 0x0110, 0),
    ("negative", returning(-1), 0x0110, 0),
    ("too_large", returning(0x10000), 0x0110, 0),
    ("comment_of_another_alphabet", returning(StoreReply(0, "\u65e5\u672c")), 0x0000, 0),
    ("pending", returning(0xFF00), 0x0110, 0),
    ("pending_1", returning(0xFF01), 0x0110, 0),
    ("hangs", waits_forever, 0x0110, 60),
    ("hangs_after_reading", waits_after_reading, 0x0110, 60),
    ("swallows_cancellation", swallows, 0x0000, 60),
    ("raises_when_cancelled", raises_when_cancelled, 0x0110, 60),
    ("raises_a_group_when_cancelled", raises_a_group_when_cancelled, 0x0110, 60),
    ("failure", returning(0xA700), 0xA700, 0),
    ("unread", returning(Status(0xB000)), 0xB000, 0),
    ("comment", returning(StoreReply(0xC123, "b\xf6se")), 0xC123, 0),
]


@pytest.mark.fault_row(83)
@pytest.mark.parametrize(
    ("handler", "status", "seconds"), [each[1:] for each in HANDLERS], ids=[f"fault83-{each[0]}" for each in HANDLERS]
)
@pytest.mark.parametrize("size", [256, 5 << 20], ids=["small", "large"])
async def test_a_handler_that_fails(handler, status, seconds, size, autojump_clock, caplog):
    data = bytes(size)
    async with memory_server(handler) as server:
        peer = await server.associate()
        start = trio.current_time()
        await peer.send_message(1, store_rq(FILE), data)
        response = (await peer.receive_message())[1]
        assert isinstance(response, CStoreRSP)
        assert (response.status, response.affected_sop_instance_uid) == (status, UID)
        assert trio.current_time() - start == seconds
        assert await peer.echo() == 0x0000  # the association lives
        assert await peer.release() == ReleaseRP()
    assert "Doe" not in caplog.text
    assert "on fire" not in caplog.text


@pytest.mark.fault_row(83)
@pytest.mark.parametrize("handler", [waits_forever, waits_after_reading, swallows, raises_when_cancelled,
                                     raises_a_group_when_cancelled])  # fmt: skip
@pytest.mark.parametrize("ending", ["abort", "close", "violation", "release"])
@pytest.mark.parametrize("cut", [0, 40], ids=["whole", "cut"])
async def test_fault83_the_association_ends_while_a_handler_hangs(handler, ending, cut, autojump_clock):
    async with memory_server(handler) as server:
        peer = await server.associate()
        raw = message(1, store_rq(FILE), DATA_SET)
        await peer.send(raw[: len(raw) - len(DATA_SET) - 12] if cut else raw)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        match ending:
            case "abort":
                await peer.abort()
            case "close":
                await peer.close()
            case "violation":
                await peer.send(b"\x09\0\0\0\0\0")
                assert await rest(peer) == [Abort(2, 1)]
            case "release":  # what is whole is answered first
                await peer.send(ReleaseRQ())
                told = await rest(peer)
                assert [type(pdu) for pdu in told] == [PDataTF, ReleaseRP][cut > 0 :]
        await server.check_empty()
        assert trio.current_time() - start <= (61 if ending == "release" and not cut else 1)


class Odd(Service):
    """Gives whatever it is told as the final response, and pending ones before."""

    requests = (CFindRQ,)

    def __init__(self, answer):
        self.answer = answer

    def transfer_syntaxes(self, abstract_syntax):
        return {"1.2.840.10008.1.2"} if abstract_syntax == "1.2.3" else None

    async def perform(self, request):
        while await request.receive_pieces():
            pass
        return await self.answer(request) if callable(self.answer) else self.answer


@pytest.mark.fault_row(83)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CEchoRSP(1, 0), id="another_kind"),
        pytest.param(CFindRQ(1, CT), id="a_request"),
        pytest.param(NGetRSP(1, 0), id="another_service"),
        pytest.param(CFindRSP(1, 70_000), id="status_too_large"),
        pytest.param(CFindRSP(1, -1), id="status_negative"),
        pytest.param(CFindRSP(1, "0"), id="status_text"),
        pytest.param(CFindRSP(77, 0), id="another_message"),
        pytest.param(CFindRSP(1, 0, "1.2.3", None, "\u65e5"), id="comment_of_another_alphabet"),
        pytest.param(CFindRSP(1, 0xFF00), id="pending"),
        pytest.param(None, id="none"),
        pytest.param(0, id="number"),
    ],
)
async def test_fault83_a_service_that_gives_no_response_of_its_kind(answer, autojump_clock):
    async with memory_server([Odd(answer), StorageSCP(Keeper())]) as server:
        peer = await server.associate(contexts=["1.2.3", VERIFICATION])
        response, _ = await peer.request(1, CFindRQ(1, "1.2.3"), b"xx")
        assert isinstance(response, CFindRSP)
        assert (response.message_id_being_responded_to, response.status) == (1, 0x0110)
        assert await peer.echo() == 0x0000
        assert await peer.release() == ReleaseRP()


@pytest.mark.fault_row(83)
async def test_fault83_a_service_that_raises_when_it_is_asked_what_it_takes(autojump_clock):
    class Raising(Odd):
        def transfer_syntaxes(self, abstract_syntax):
            if abstract_syntax == "1.2.3":
                raise RuntimeError
            return

    async with memory_server([Raising(None)]) as server:
        peer = await server.connect()
        assert isinstance(await peer.associate(["1.2.3"]), Abort)
        await peer.close()
        await server.check_well()


async def test_fault86_pending_responses_without_end_that_nobody_reads(autojump_clock):
    sent = 0

    async def answer(request):
        nonlocal sent
        while True:
            await request.respond(CFindRSP(request.message_id, 0xFF00), bytes(1 << 16))
            sent += 1

    async with memory_server([Odd(answer)]) as server:
        peer = await server.associate(contexts=["1.2.3"], streams=socket_pair_streams)
        await peer.send_message(1, CFindRQ(1, "1.2.3"), b"xx")
        await trio.sleep(35)
        await server.check_empty()
        await peer.close()
    assert sent <= 14


async def test_an_instance_that_outlives_its_handler(autojump_clock):
    """What was dropped does not read as an end: nobody takes half a data set for a whole one."""
    kept = []

    async def handler(instance):
        kept.append(instance)
        return 0x0000

    async def read(instance):
        with pytest.raises(trio.ClosedResourceError):
            await instance.read()
        done.append(True)

    done = []
    async with memory_server(handler) as server, trio.open_nursery() as nursery:
        peer = await server.associate()
        raw = message(1, store_rq(FILE), DATA_SET)
        await peer.send(raw[: -len(DATA_SET) - 12])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read, kept[0])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(raw[-len(DATA_SET) - 12 :])
        assert (await peer.receive_message())[1].status == 0x0000
        nursery.start_soon(read, kept[0])
        await trio.testing.wait_all_tasks_blocked()
        assert await peer.release() == ReleaseRP()
        nursery.cancel_scope.cancel()
    assert done == [True, True]


async def test_a_handler_that_reads_in_a_task_of_anothers(autojump_clock):
    """The association ends, and the task that was reading is told."""
    ended = []

    async def read(instance):
        with pytest.raises(trio.ClosedResourceError):
            await instance.read()
        ended.append(True)

    async with trio.open_nursery() as nursery:

        async def handler(instance):
            nursery.start_soon(read, instance)
            await trio.sleep_forever()

        async with memory_server(handler) as server:
            peer = await server.associate()
            await peer.send(message(1, store_rq(FILE), DATA_SET)[: -len(DATA_SET) - 12])
            await trio.testing.wait_all_tasks_blocked()
            await peer.abort()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ended == [True]


async def test_a_handler_that_aborts(autojump_clock):
    async def handler(instance):
        await instance.association.abort()

    async with memory_server(handler) as server:
        peer = await server.associate()
        await peer.send(message(1, store_rq(FILE), DATA_SET))
        assert await aborted_with(peer) == (0, 0)
        await server.check_empty()
        assert trio.current_time() <= 3


@pytest.mark.parametrize("seconds", [0.5, 3])
async def test_a_handler_that_takes_its_time_to_clean_up(seconds, autojump_clock):
    """The peer is told at once what it did wrong, whatever the handler is at."""

    async def handler(instance):
        try:
            await instance.read()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)

    async with memory_server(handler) as server:
        peer = await server.associate()
        await peer.send(message(1, store_rq(FILE), DATA_SET)[: -len(DATA_SET) - 12])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(b"\x09\0\0\0\0\0")
        assert await aborted_with(peer) == (2, 1)
        assert trio.current_time() <= seconds + 1
        await trio.sleep(seconds)
        await server.check_empty()


# --- the asynchronous operations window -------------------------------------------------------------------------------


class Gates:
    """A handler that answers when it is told to, by message ID."""

    def __init__(self) -> None:
        self.open = {number: trio.Event() for number in range(1, 50)}
        self.running = self.most = 0
        self.order: list[int] = []

    async def __call__(self, instance):
        number = instance._request.message_id
        self.order.append(number)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            data = await instance.read()
            await self.open[number].wait()
        finally:
            self.running -= 1
        assert data == DATA_SET
        return 0x0000


async def test_several_at_once_answered_out_of_order(autojump_clock):
    gates = Gates()
    async with memory_server(gates, settings=WINDOW) as server:
        peer = await server.associate(window=4)
        for number in (1, 2, 3):
            await peer.send_message(1, store_rq(FILE, number), DATA_SET)
        await peer.send_message(3, CEchoRQ(9, VERIFICATION))
        answer = (await peer.receive_message())[1]
        assert isinstance(answer, CEchoRSP)  # while the others are busy
        assert sorted(gates.order) == [1, 2, 3]
        for number in (2, 3, 1):
            gates.open[number].set()
            assert (await peer.receive_message())[1].message_id_being_responded_to == number
        assert await peer.release() == ReleaseRP()


@pytest.mark.parametrize("window", [None, 1, 4])
async def test_more_requests_than_the_window(window, autojump_clock):
    gates = Gates()
    async with memory_server(gates, settings=WINDOW) as server:
        peer = await server.associate(window=window)
        for number in range(1, 20):
            await peer.send_message(1, store_rq(FILE, number), DATA_SET)
        await trio.testing.wait_all_tasks_blocked()
        assert gates.running == (window or 1)
        for number in range(1, 20):
            gates.open[number].set()
            await trio.testing.wait_all_tasks_blocked()
        answers = [(await peer.receive_message())[1] for _ in range(19)]
        assert [each.message_id_being_responded_to for each in answers] == list(range(1, 20))
        assert {each.status for each in answers} == {0}
        assert await peer.release() == ReleaseRP()
    assert gates.most == (window or 1)


async def test_more_requests_than_the_window_while_a_handler_hangs(autojump_clock):
    """That the second had to wait for the first is not the peer's slowness."""
    begun = []

    async def handler(instance):
        begun.append(instance)
        if len(begun) == 1:
            await trio.sleep_forever()
        await instance.read()
        return 0x0000

    async with memory_server(handler) as server:
        peer = await server.associate()
        await peer.send(message(1, store_rq(FILE), DATA_SET), second())
        answers = [(await peer.receive_message())[1] for _ in range(2)]
        assert {each.message_id_being_responded_to: each.status for each in answers} == {1: 0x0110, 2: 0x0000}
        assert trio.current_time() == 60
        assert await peer.release() == ReleaseRP()


async def test_the_same_message_id_twice(autojump_clock):
    gates = Gates()
    async with memory_server(gates, settings=WINDOW) as server:
        peer = await server.associate(window=4)
        for _ in range(2):
            await peer.send_message(1, store_rq(FILE, 5), DATA_SET)
        assert (await peer.receive_message())[1].status == 0x0210
        gates.open[5].set()
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert gates.order == [5]


# --- back-pressure ----------------------------------------------------------------------------------------------------


class Slow:
    """A handler that takes nothing until it may."""

    def __init__(self) -> None:
        self.may_go_on = trio.Event()
        self.size = 0

    async def __call__(self, instance):
        await self.may_go_on.wait()
        async for piece in instance:
            self.size += len(piece)
        return 0x0000


@pytest.mark.parametrize("streams", [trio.testing.lockstep_stream_pair, socket_pair_streams], ids=["stream", "socket"])
async def test_a_slow_handler_slows_down_the_peer(streams, autojump_clock):
    slow = Slow()
    size = 32 << 20
    sent = 0

    async def send(peer):
        nonlocal sent
        raw = message(1, store_rq(FILE), bytes(size))
        for at in range(0, len(raw), 1 << 16):
            await peer.stream.send_all(raw[at : at + (1 << 16)])
            sent = at

    async with memory_server(slow) as server, trio.open_nursery() as nursery:
        peer = await server.associate(streams=streams)
        tracemalloc.start()
        try:
            nursery.start_soon(send, peer)
            await trio.sleep(50)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert sent < 6 << 20
        assert held < size + (6 << 20)  # of which `size` is the test's own
        slow.may_go_on.set()
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert slow.size == size


async def test_a_peer_that_never_reads_its_responses(autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate(streams=trio.testing.lockstep_stream_pair)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:
                await peer.send(message(3, CEchoRQ(1, VERIFICATION)))
        assert 30 <= trio.current_time() <= 62
        await server.check_empty()


async def test_a_peer_that_reads_its_only_response_never(autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.associate(streams=trio.testing.lockstep_stream_pair)
        await peer.send(message(3, CEchoRQ(1, VERIFICATION)))
        await trio.sleep(62)
        await server.check_empty()


async def test_a_handler_may_be_as_slow_as_the_peer(autojump_clock):
    """Waiting for the peer is not the handler's lack of progress."""
    keeper = Keeper()
    async with memory_server(keeper, settings=AssociationSettings(timeouts=Timeouts(handler=5))) as server:
        peer = await server.associate()
        raw = message(1, store_rq(FILE), bytes(1 << 20), max_pdu_length=1 << 16)
        for at in range(0, len(raw), 1 << 17):
            await peer.send(raw[at : at + (1 << 17)])
            await trio.sleep(20)
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert len(keeper.stored) == 1


async def test_no_bytes_are_wanted(autojump_clock):
    """An empty list is the end, and nothing else."""

    async def handler(instance):
        size = 0
        while pieces := await instance.receive_pieces(0):
            size += sum(map(len, pieces))
        return 0x0000 if size == len(DATA_SET) else 0xC000

    async with memory_server(handler) as server:
        peer = await server.associate()
        raw = message(1, store_rq(FILE), DATA_SET)
        await peer.send(raw[: -len(DATA_SET) - 12])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(raw[-len(DATA_SET) - 12 :])
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()


async def test_a_release_waits_for_the_answer(autojump_clock):
    gates = Gates()
    async with memory_server(gates) as server:
        peer = await server.associate()
        await peer.send(message(1, store_rq(FILE), DATA_SET), encoded(ReleaseRQ()))
        await trio.testing.wait_all_tasks_blocked()
        gates.open[1].set()
        assert (await peer.receive_message())[1].status == 0x0000
        assert await rest(peer) == [ReleaseRP()]
