"""Many tasks, one association: messages whole and in order, as many unanswered as the window allows."""

from __future__ import annotations

import io
import math

import pytest
import trio
import trio.testing

from trio_dicom import (
    Association,
    AssociationClosed,
    AssociationSettings,
    CStoreOptions,
    CStoreSCU,
    InvalidObject,
    OperationTimeout,
    Timeouts,
)
from trio_dicom.association.writer import BATCHES_WAITING
from trio_dicom.protocol.command import Command, CStoreRQ
from trio_dicom.protocol.pdu import ReleaseRP, ReleaseRQ
from trio_dicom.testing import ScriptedPeer, SOPClass, make_instance_file, scripted_link
from trio_dicom.uids import VERIFICATION

MANY = 20


def stream(number: int = 1, size: int = 50_000) -> io.BytesIO:
    return io.BytesIO(make_instance_file(size, number=number))


def number_of(request: Command) -> int:
    assert isinstance(request, CStoreRQ)
    return int(request.affected_sop_instance_uid.rpartition(".")[2])


@pytest.mark.parametrize(("window", "most"), [(1, 1), (4, 4), (0, 64)])
async def test_as_many_unanswered_as_the_window_allows(
    window: int, most: int, autojump_clock: trio.testing.MockClock
) -> None:
    order: list[int] = []
    unanswered: list[tuple[int, Command]] = []
    peak = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal peak
        await peer.accept(window=window)
        while len(order) < MANY:
            with trio.move_on_after(1) as pause:
                context_id, request, _ = await peer.receive_message()
            if not pause.cancelled_caught:
                order.append(number_of(request))
                unanswered.append((context_id, request))
                peak = max(peak, len(unanswered))
                continue
            while unanswered:  # the last first: responses may come in any order
                await peer.answer(*unanswered.pop())
        while unanswered:
            await peer.answer(*unanswered.pop())

    answered = []

    async def send(association: Association, number: int) -> None:
        response = await CStoreSCU(association).send(stream(number))
        assert response.sop_instance_uid == f"2.25.1000.{number}"
        answered.append(number)

    async with scripted_link(script, settings=AssociationSettings(operations_window=window)) as association:
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(send, association, number)
                await trio.testing.wait_all_tasks_blocked()
        assert association.is_open
    assert order == list(range(MANY))
    assert sorted(answered) == order
    assert peak == min(most, MANY)


@pytest.mark.fault_row(51)
async def test_a_window_that_the_peer_did_not_grant(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(ScriptedPeer.serve, settings=AssociationSettings(operations_window=8)) as association:
        assert association.negotiated.operations_window == 1


@pytest.mark.fault_row(53)
async def test_message_ids_in_flight_are_not_used_again(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=3)
        first = await peer.receive_message()
        for _ in range(3):
            context_id, request, _ = await peer.receive_message()
            seen.append(request.message_id)  # type: ignore[union-attr]
            await peer.answer(context_id, request)
        await peer.answer(first[0], first[1])

    async with scripted_link(script, settings=AssociationSettings(operations_window=3)) as association:
        association._in_flight._last_message_id = 65_533
        scu = CStoreSCU(association)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scu.send, stream())  # 65,534
            await trio.testing.wait_all_tasks_blocked()
            await scu.send(stream())
            association._in_flight._last_message_id = 65_532
            for _ in range(2):
                await scu.send(stream())
    assert seen == [65_535, 65_533, 65_535]


async def test_an_object_that_fails_does_not_hold_up_others(autojump_clock: trio.testing.MockClock) -> None:
    async def send_junk(association: Association) -> None:
        with pytest.raises(InvalidObject):
            await CStoreSCU(association).send(io.BytesIO(b"junk" * 100))

    async with scripted_link(ScriptedPeer.serve) as association:
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(CStoreSCU(association).send, stream(number))
                nursery.start_soon(send_junk, association)
        assert association.is_open


async def test_echoes_between_objects(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(ScriptedPeer.serve, [SOPClass.CT, VERIFICATION]) as association:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(CStoreSCU(association).send, stream(number))
                nursery.start_soon(association.echo)
        assert await association.echo() == pytest.approx(0, abs=1e-6)


# --- one of many is cancelled ---------------------------------------------------------------------------------------


async def test_cancelled_while_it_waits_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    order: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for _ in range(3):
            context_id, request, _ = await peer.receive_message()
            order.append(number_of(request))
            await trio.sleep(5)
            await peer.answer(context_id, request)

    async with scripted_link(script) as association, trio.open_nursery() as nursery:
        scu = CStoreSCU(association)
        scopes = {}

        async def send(number: int) -> None:
            with trio.CancelScope() as scopes[number]:
                assert (await scu.send(stream(number))).is_success

        for number in range(5):
            nursery.start_soon(send, number)
            await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()  # has the turn, and waits for a slot
        scopes[3].cancel()  # waits for its turn
    assert order == [0, 2, 4]


async def test_a_late_response_keeps_its_slot(autojump_clock: trio.testing.MockClock) -> None:
    times = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for delay in (5, 0):
            context_id, request, _ = await peer.receive_message()
            times.append(trio.current_time())
            await trio.sleep(delay)
            await peer.answer(context_id, request)

    async with scripted_link(script) as association:
        scu = CStoreSCU(association)
        with trio.move_on_after(1):
            await scu.send(stream(1))
        assert trio.current_time() == 1
        assert (await scu.send(stream(2))).is_success
        assert association.is_open
    assert times == pytest.approx([0, 5], abs=1e-6)


@pytest.mark.parametrize("timeout", [2.0, 30.0, math.inf])
async def test_a_late_response_that_never_comes(timeout: float, autojump_clock: trio.testing.MockClock) -> None:
    """`timeouts.response` bounds it, whatever the caller who has gone allowed."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.hold()
        await peer.close()

    settings = AssociationSettings(timeouts=Timeouts(response=12))
    async with scripted_link(script, settings=settings) as association:
        with trio.move_on_after(1):
            await CStoreSCU(association, CStoreOptions(timeout=timeout)).send(stream())
        await association.wait_closed()
        assert trio.current_time() == pytest.approx(13, abs=0.01)
        assert isinstance(association.failure, OperationTimeout)
        assert association.failure.seconds == 12


class OneWay(trio.abc.ReceiveStream):
    """A stream that is read piece by piece."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        chunk, self.data = self.data[: 1 << 18], self.data[1 << 18 :]
        return bytes(chunk)

    async def aclose(self) -> None: ...


@pytest.mark.fault_row(48, 113)
async def test_cancelled_again_and_again_before_a_peer_that_reads_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The buffers that batches are read into come back, also when a batch was never queued."""
    may_read = trio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=0)
        receive = peer.stream.receive_some

        async def when_it_may(max_bytes: int | None = None) -> bytes:
            data = bytes(await receive(max_bytes))
            await may_read.wait()
            return data

        peer.stream.receive_some = when_it_may  # type: ignore[method-assign]
        await peer.serve_requests()

    settings = AssociationSettings(operations_window=0)
    streams = trio.testing.lockstep_stream_pair()
    async with scripted_link(script, [SOPClass.CT, VERIFICATION], settings=settings, streams=streams) as association:
        scu = CStoreSCU(association)
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(2 + BATCHES_WAITING):  # one with the peer, one in the writer's hands, the others queued
                    nursery.start_soon(association.echo)
                    await trio.testing.wait_all_tasks_blocked()
                for _ in range(3):
                    with trio.move_on_after(0.5) as scope:
                        await scu.send(OneWay(make_instance_file(5 << 20)))
                    assert scope.cancelled_caught
                    assert association.is_open
                may_read.set()
            may_read = trio.Event()
        may_read.set()
        assert (await scu.send(OneWay(make_instance_file(5 << 20)))).is_success


@pytest.mark.fault_row(113)
async def test_cancelled_before_it_began(autojump_clock: trio.testing.MockClock) -> None:
    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        await peer.serve()

    async with scripted_link(script, [SOPClass.CT, VERIFICATION]) as association:
        with trio.CancelScope() as scope:
            scope.cancel()
            await CStoreSCU(association).send(stream())
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await association.echo()
        assert scope.cancelled_caught
    assert len(peers[0].pdus) == 2  # the request, the release


# --- release among them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3])
async def test_release_waits_for_what_is_in_flight(window: int, autojump_clock: trio.testing.MockClock) -> None:
    pdus = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=window)
        for _ in range(window):
            context_id, request, _ = await peer.receive_message()
            await trio.sleep(1)
            await peer.answer(context_id, request)
        pdus.append(await peer.receive_pdu())
        await peer.send(ReleaseRP())

    ends: dict[int, object] = {}
    async with scripted_link(script, settings=AssociationSettings(operations_window=window)) as association:

        async def send(number: int) -> None:
            try:
                ends[number] = (await CStoreSCU(association).send(stream(number))).status
            except AssociationClosed as error:
                ends[number] = error

        async with trio.open_nursery() as nursery:
            for number in range(window):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked()
            await association.aclose()
            assert trio.current_time() == pytest.approx(window, abs=1e-6)
            nursery.start_soon(send, 99)
    assert isinstance(pdus[0], ReleaseRQ)
    assert association.failure is None
    assert isinstance(ends.pop(99), AssociationClosed)
    assert ends == dict.fromkeys(range(window), 0)


async def test_release_and_those_who_wait_behind(autojump_clock: trio.testing.MockClock) -> None:
    """What has begun is finished; what waits for its turn is told; nobody waits for a timeout."""
    messages = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            try:
                context_id, request, data_set = await peer.receive_message()
            except AssertionError:
                assert isinstance(peer.pdus[-1], ReleaseRQ)
                return await peer.send(ReleaseRP())
            messages.append((number_of(request), len(data_set)))
            await trio.sleep(1)
            await peer.answer(context_id, request)

    ends: dict[int, object] = {}
    async with scripted_link(script) as association:

        async def send(number: int) -> None:
            try:
                ends[number] = (await CStoreSCU(association).send(stream(number, 5 << 20))).status
            except AssociationClosed as error:
                ends[number] = type(error)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked()
            await association.aclose()
            assert trio.current_time() == pytest.approx(2, abs=1e-6)
    assert association.failure is None
    assert ends == {0: 0, 1: 0, 2: AssociationClosed, 3: AssociationClosed, 4: AssociationClosed}
    assert messages == [(0, messages[0][1]), (1, messages[0][1])]


async def test_release_while_an_object_turns_out_to_be_none(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(trio.abc.ReceiveStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.sleep(1)
            return b""

        async def aclose(self) -> None: ...

    async with scripted_link(ScriptedPeer.serve) as association, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(InvalidObject):
                await CStoreSCU(association).send(Slow())

        await trio.testing.wait_all_tasks_blocked()
        await association.aclose()
        assert trio.current_time() == pytest.approx(1, abs=1e-6)
        assert association.failure is None
