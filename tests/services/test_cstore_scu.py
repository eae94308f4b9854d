"""CStoreSCU: what goes over the wire for one object, and what comes of the answer."""

from __future__ import annotations

import errno
import io
import logging
import math
import pathlib

import pydicom
import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationAborted,
    AssociationSettings,
    CStoreOptions,
    CStoreSCU,
    InvalidResponse,
    NoPresentationContext,
    OperationTimeout,
    PresentationContext,
    Priority,
    ReadError,
    StatusError,
    TransferProgress,
)
from trio_dicom.association.writer import POOL_BUFFERS
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.pdu import PDV, Abort, PDataTF
from trio_dicom.sources import file as file_module
from trio_dicom.sources.part10 import parse_head
from trio_dicom.testing import ScriptedPeer, SOPClass, make_instance_file, scripted_link
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

MR = "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"


def stream(size: int = 1000, **changes: object) -> io.BytesIO:
    return io.BytesIO(make_instance_file(size, **changes))  # type: ignore[arg-type]


def data_set_of(file: bytes) -> bytes:
    head = parse_head(file, at_end=True)
    assert head is not None
    return file[head.data_set_offset :]


class Archive:
    """A peer that keeps what it gets, with the time, and answers each object with the next of `statuses`, then 0000."""

    def __init__(self, *statuses: int, **acceptance: object) -> None:
        self.statuses = list(statuses)
        self.acceptance = acceptance
        self.messages: list[tuple[int, CStoreRQ, bytes]] = []
        self.times: list[float] = []
        self.peer: ScriptedPeer | None = None

    async def __call__(self, peer: ScriptedPeer) -> None:
        self.peer = peer
        await peer.accept(**self.acceptance)  # type: ignore[arg-type]
        while True:
            try:
                context_id, request, data_set = await peer.receive_message()
            except AssertionError:  # a release, or the end
                return await peer._part(peer.pdus[-1])
            assert isinstance(request, CStoreRQ)
            self.messages.append((context_id, request, data_set))
            self.times.append(trio.current_time())
            await peer.answer(context_id, request, self.statuses.pop(0) if self.statuses else 0)

    @property
    def pdvs(self) -> list[PDV]:
        assert self.peer is not None
        return [pdv for pdu in self.peer.pdus if isinstance(pdu, PDataTF) for pdv in pdu.pdvs]


# --- without an association -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, "PACS@host:104", 5, object()])
def test_an_association_is_needed(nothing: object) -> None:
    with pytest.raises(TypeError, match=f"needs an Association, not {type(nothing).__name__}"):
        CStoreSCU(nothing)  # type: ignore[arg-type]


def test_an_association_is_no_option() -> None:
    with pytest.raises(TypeError):
        CStoreSCU()  # type: ignore[call-arg]


async def test_the_options_it_uses(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(Archive()) as association:
        assert CStoreSCU(association).options == CStoreOptions()
        own = CStoreOptions(timeout=5, max_retries=2)
        assert CStoreSCU(association, own).options is own
        assert CStoreSCU(association).association is association


# --- on the wire ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", Priority)
async def test_the_request(priority: Priority, autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive()
    async with scripted_link(archive) as association:
        response = await CStoreSCU(association, CStoreOptions(priority=priority)).send(stream(number=7))
    ((context_id, request, data_set),) = archive.messages
    assert context_id == 1
    assert request == CStoreRQ(1, SOPClass.CT, "2.25.1000.7", priority)
    assert data_set == data_set_of(make_instance_file(1000, number=7))
    assert (response.status, response.sop_class_uid, response.sop_instance_uid) == (0, SOPClass.CT, "2.25.1000.7")
    assert (response.attempts, response.bytes_sent) == (1, len(data_set))


async def test_message_ids_count_up(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive()
    async with scripted_link(archive) as association:
        for number in range(4):
            await CStoreSCU(association).send(stream(number=number))
    assert [request.message_id for _, request, _ in archive.messages] == [1, 2, 3, 4]


@pytest.mark.parametrize("length", [8, 9, 4096, 16_384, 131_072, 0, None, 0xFFFFFFFF])
async def test_fragments_fit_the_peer(length: int | None, autojump_clock: trio.testing.MockClock) -> None:
    file = make_instance_file(500 if length in (8, 9) else 300_000)
    archive = Archive(max_pdu_length=length)
    async with scripted_link(archive) as association:
        await CStoreSCU(association).send(io.BytesIO(file))
    assert archive.messages[0][2] == data_set_of(file)
    most = min(length or math.inf, AssociationSettings().send_pdu_length)
    assert archive.peer is not None
    sizes = [sum(len(pdv.data) + 6 for pdv in pdu.pdvs) for pdu in archive.peer.pdus if isinstance(pdu, PDataTF)]
    assert max(sizes) == most - most % 2  # all the room there is
    assert all(len(pdv.data) % 2 == 0 for pdv in archive.pdvs)


async def test_our_own_cap_on_what_we_send(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(max_pdu_length=0)
    async with scripted_link(archive, settings=AssociationSettings(send_pdu_length=1000)) as association:
        await CStoreSCU(association).send(stream(5000))
    assert max(len(pdv.data) for pdv in archive.pdvs) == 994


@pytest.mark.parametrize("size", [2, 16_378 - 100, 16_378 * 3, 2_500_000])
async def test_only_the_last_fragment_is_the_last(size: int, autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive()
    async with scripted_link(archive) as association:
        await CStoreSCU(association).send(stream(size - size % 2))
    data = [pdv.is_last for pdv in archive.pdvs if not pdv.is_command]
    commands = [pdv.is_last for pdv in archive.pdvs if pdv.is_command]
    assert commands == [True]
    assert data == [False] * (len(data) - 1) + [True]
    assert archive.pdvs[0].is_command


async def test_a_data_set_that_ends_with_a_pdu(autojump_clock: trio.testing.MockClock) -> None:
    around = len(data_set_of(make_instance_file(0)))
    archive = Archive()
    async with scripted_link(archive) as association:
        await CStoreSCU(association).send(stream(2 * 16_378 - around))
    assert [len(pdv.data) for pdv in archive.pdvs if not pdv.is_command] == [16_378, 16_378]
    assert [pdv.is_last for pdv in archive.pdvs if not pdv.is_command] == [False, True]


@pytest.mark.parametrize("size", [(1 << 20) - 1000, 1 << 20, 3 << 20])
async def test_more_than_one_buffer_of_a_file(
    size: int, tmp_path: pathlib.Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = math.inf  # files are read in threads
    path = tmp_path / "large.dcm"
    path.write_bytes(make_instance_file(size))
    archive = Archive()
    async with scripted_link(archive) as association:
        for form in (path, str(path)):
            await CStoreSCU(association).send(form)
    assert [data_set for _, _, data_set in archive.messages] == [data_set_of(path.read_bytes())] * 2


@pytest.mark.skipif(not file_module.read_on_loop, reason="read at once where the kernel tells what it has")
async def test_objects_that_cannot_be_read_use_up_no_buffers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = math.inf  # files are read in threads
    path = tmp_path / "large.dcm"
    path.write_bytes(make_instance_file(500_000))
    read_at_once = file_module._read_at_once

    def is_damaged(fd: int, target: memoryview, offset: int) -> int:
        if offset:
            raise OSError(errno.EIO, "damaged")
        return read_at_once(fd, target, offset)

    archive = Archive()
    async with scripted_link(archive) as association:
        with monkeypatch.context() as patch:
            patch.setattr(file_module, "_read_at_once", is_damaged)
            for _ in range(2 * POOL_BUFFERS):
                with pytest.raises(ReadError):
                    await CStoreSCU(association).send(path)
        with trio.fail_after(10):
            await CStoreSCU(association).send(path)
    assert [data_set for _, _, data_set in archive.messages] == [data_set_of(path.read_bytes())]


# --- which transfer syntax ------------------------------------------------------------------------------------------


async def test_the_negotiated_transfer_syntax_is_used(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = math.inf
    dataset = pydicom.dcmread(io.BytesIO(make_instance_file(64)))
    contexts = [
        PresentationContext(SOPClass.CT, (uid,)) for uid in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    ]
    for accepted, start in [([contexts[0]], b"UI"), ([contexts[1]], b"\x1a\0"), (contexts[::-1], b"UI")]:
        archive = Archive()
        async with scripted_link(archive, accepted) as association:
            await CStoreSCU(association).send(dataset)
        ((context_id, _, data_set),) = archive.messages
        assert data_set[4:6] == start  # explicit: the VR; implicit: the length, 26
        assert context_id == (3 if len(accepted) == 2 else 1)


async def test_a_stream_goes_in_its_own_transfer_syntax(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive()
    contexts = [
        PresentationContext(SOPClass.CT, (uid,)) for uid in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    ]
    async with scripted_link(archive, contexts) as association:
        await CStoreSCU(association).send(stream(transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN))
        await CStoreSCU(association).send(stream(transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN))
    assert [context_id for context_id, _, _ in archive.messages] == [3, 1]
    assert archive.messages[0][2] == data_set_of(make_instance_file(1000, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN))


@pytest.mark.parametrize("unfit", [{"sop_class": MR}, {"transfer_syntax": JPEG}])
async def test_no_context_for_it(unfit: dict[str, str], autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive()
    async with scripted_link(archive) as association:
        with pytest.raises(NoPresentationContext):
            await CStoreSCU(association).send(stream(**unfit))
        assert (await CStoreSCU(association).send(stream())).is_success
    assert [request.message_id for _, request, _ in archive.messages] == [1]  # nothing of the other went out


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["a.dcm"], io.StringIO("text")])
async def test_what_cannot_be_sent(wrong: object, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(Archive()) as association:
        with pytest.raises(TypeError):
            await CStoreSCU(association).send(wrong)  # type: ignore[call-overload]
        assert (await CStoreSCU(association).send(stream())).is_success


# --- the answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0xA900, 0xC123, 0x0111, 0x0122, 0x0001, 0x1234])
async def test_a_status_is_a_value(status: int, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(Archive(status), settings=None) as association:
        response = await CStoreSCU(association, CStoreOptions(max_retries=5)).send(stream())
        assert response.status == status
        assert response.attempts == 1
        assert association.is_open
        if response.is_failure:
            with pytest.raises(StatusError):
                response.raise_for_status()


@pytest.mark.parametrize("status", [0xFF00, 0xFF01, 0xFE00])
async def test_a_status_that_is_none_of_c_store(status: int, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(Archive(status)) as association:
        with pytest.raises(InvalidResponse) as caught:
            await CStoreSCU(association).send(stream())
        assert caught.value.in_doubt
        assert not association.is_open


async def test_the_error_comment_comes_as_it_was(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, 0xA900, error_comment="not a \x1b CT")

    async with scripted_link(script) as association:
        response = await CStoreSCU(association).send(stream())
    assert response.error_comment == "not a \x1b CT"


async def test_an_answer_without_uids(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, affected_sop_class_uid=None, affected_sop_instance_uid=None)

    async with scripted_link(script) as association:
        response = await CStoreSCU(association).send(stream(number=3))
    assert response.sop_instance_uid == "2.25.1000.3"


# --- again ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0213])
async def test_what_is_tried_again(status: int, autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(status, status)
    async with scripted_link(archive) as association:
        response = await CStoreSCU(association, CStoreOptions(max_retries=3)).send(stream())
    assert response.is_success
    assert response.attempts == 3
    assert [request.message_id for _, request, _ in archive.messages] == [1, 2, 3]
    assert [data for _, _, data in archive.messages] == [data_set_of(make_instance_file(1000))] * 3
    assert response.elapsed == pytest.approx(3.0, abs=1e-6)
    assert response.bytes_sent == len(archive.messages[0][2])


@pytest.mark.parametrize("status", [0xA6FF, 0xA800, 0xA900, 0xC000, 0x0110, 0x0111, 0x0122, 0x0210, 0xB000, 0x0000])
async def test_what_is_not_tried_again(status: int, autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(status)
    async with scripted_link(archive) as association:
        response = await CStoreSCU(association, CStoreOptions(max_retries=3)).send(stream())
    assert (response.status, response.attempts, len(archive.messages)) == (status, 1, 1)


async def test_the_delays_between(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(*[0xA700] * 9)
    async with scripted_link(archive) as association:
        response = await CStoreSCU(association, CStoreOptions(max_retries=8)).send(stream())
    assert response.status == 0xA700
    assert response.attempts == 9
    delays = [later - earlier for earlier, later in zip(archive.times, archive.times[1:], strict=False)]
    assert delays == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], abs=1e-3)


@pytest.mark.parametrize(
    ("delay", "expected"), [(0.25, [0.25, 0.5, 1.0]), (50, [50, 60, 60]), (100, [60, 60, 60]), (0, [0, 0, 0])]
)
async def test_the_first_delay(delay: float, expected: list[float], autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(*[0x0213] * 3)
    async with scripted_link(archive) as association:
        await CStoreSCU(association, CStoreOptions(max_retries=3, retry_delay=delay)).send(stream())
    delays = [later - earlier for earlier, later in zip(archive.times, archive.times[1:], strict=False)]
    assert delays == pytest.approx(expected, abs=1e-3)


async def test_delays_are_not_part_of_the_timeouts(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(*[0xA700] * 4)
    options = CStoreOptions(max_retries=4, retry_delay=20, timeout=0.5, max_duration=0.75)
    async with scripted_link(archive) as association:
        assert (await CStoreSCU(association, options).send(stream())).is_success


async def test_others_send_while_one_waits_to_try_again(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(0xA700)
    async with scripted_link(archive) as association:
        scu = CStoreSCU(association, CStoreOptions(max_retries=1, retry_delay=10))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scu.send, stream(number=1))
            await trio.sleep(1)
            assert (await scu.send(stream(number=2))).elapsed < 1
    assert [request.affected_sop_instance_uid[-1] for _, request, _ in archive.messages] == ["1", "2", "1"]


class OneWay(trio.abc.ReceiveStream):
    """A stream that cannot go back."""

    def __init__(self, data: bytes, step: int = 100, every: float = 0.0) -> None:
        self.data = memoryview(data)
        self.step, self.every = step, every

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep(self.every)
        chunk, self.data = self.data[: self.step], self.data[self.step :]
        return bytes(chunk)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_stream_that_cannot_go_back_is_sent_once(autojump_clock: trio.testing.MockClock) -> None:
    archive = Archive(0xA700)
    async with scripted_link(archive) as association:
        response = await CStoreSCU(association, CStoreOptions(max_retries=3)).send(OneWay(make_instance_file(1000)))
    assert (response.status, response.attempts, len(archive.messages)) == (0xA700, 1, 1)
    assert archive.messages[0][2] == data_set_of(make_instance_file(1000))


async def test_no_second_attempt_on_a_lost_association(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, 0xA700)
        await peer.send(Abort(0, 0))

    async with scripted_link(script) as association:
        with pytest.raises(AssociationAborted) as caught:
            await CStoreSCU(association, CStoreOptions(max_retries=3)).send(stream())
        assert caught.value.by_peer
        assert not caught.value.in_doubt


# --- in time --------------------------------------------------------------------------------------------------------


async def silent(peer: ScriptedPeer) -> None:
    await peer.accept()
    await peer.hold()


async def unread(peer: ScriptedPeer) -> None:
    await peer.accept()
    await trio.sleep_forever()


async def test_no_response(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(silent) as association:
        start = trio.current_time()
        with trio.move_on_after(100) as callers, pytest.raises(OperationTimeout) as caught:
            await CStoreSCU(association, CStoreOptions(timeout=7)).send(stream())
        assert not callers.cancelled_caught
        assert trio.current_time() - start == pytest.approx(7)
        error = caught.value
        assert error.phase == "waiting for the response"
        assert error.bytes_sent == len(data_set_of(make_instance_file(1000)))
        assert error.seconds == 7
        assert error.in_doubt
        assert not association.is_open
        assert isinstance(association.failure, OperationTimeout)


async def test_a_timeout_aborts(autojump_clock: trio.testing.MockClock) -> None:
    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        await silent(peer)

    async with scripted_link(script) as association:
        with pytest.raises(OperationTimeout):
            await CStoreSCU(association).send(stream())
        await association.wait_closed()
    assert peers[0].pdus[-1] == Abort(0, 0)


async def test_a_peer_that_stops_reading(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(unread, streams=trio.testing.lockstep_stream_pair()) as association:
        start = trio.current_time()
        with trio.move_on_after(100) as callers, pytest.raises(OperationTimeout) as caught:
            await CStoreSCU(association, CStoreOptions(timeout=7)).send(stream(10 << 20))
        assert not callers.cancelled_caught
        assert trio.current_time() - start == pytest.approx(7, abs=0.01)
        assert caught.value.phase == "writing"
        assert caught.value.bytes_sent == 0
        assert not caught.value.in_doubt


async def test_an_input_that_stalls(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(silent) as association:
        with pytest.raises(OperationTimeout) as caught:
            await CStoreSCU(association, CStoreOptions(timeout=7)).send(OneWay(b"x" * 1000, every=100))
        assert caught.value.phase == "opening the data set"
        assert not caught.value.in_doubt


async def test_an_input_that_stalls_in_the_middle(autojump_clock: trio.testing.MockClock) -> None:
    class Stalls(OneWay):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            if len(self.data) < 1 << 20:
                await trio.sleep_forever()
            return await super().receive_some()

    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        await silent(peer)

    async with scripted_link(script) as association:
        with pytest.raises(OperationTimeout) as caught:
            await CStoreSCU(association, CStoreOptions(timeout=7)).send(Stalls(make_instance_file(4 << 20), 1 << 18))
        await association.wait_closed()
    assert caught.value.phase == "reading the data set"
    assert not caught.value.in_doubt
    pdus = peers[0].pdus
    assert pdus[-1] == Abort(0, 0)
    assert not any(pdv.is_last for pdu in pdus if isinstance(pdu, PDataTF) for pdv in pdu.pdvs if not pdv.is_command)


async def test_slow_but_alive(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that takes a little every 20 s is not stalled, however long the whole may take."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        original = peer.stream.receive_some

        async def slowly(max_bytes: int | None = None) -> bytes:
            await trio.sleep(20)
            return bytes(await original(max_bytes))

        peer.stream.receive_some = slowly  # type: ignore[method-assign]
        context_id, request, _ = await peer.receive_message()
        peer.stream.receive_some = original  # type: ignore[method-assign]
        await peer.answer(context_id, request)

    async with scripted_link(script, streams=trio.testing.lockstep_stream_pair()) as association:
        response = await CStoreSCU(association, CStoreOptions(timeout=90)).send(stream(2 << 20))
    assert response.is_success
    assert response.elapsed > 600


async def test_the_longest_that_an_attempt_may_take(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(Archive()) as association:
        source = OneWay(make_instance_file(100_000), step=1000, every=1.0)
        with trio.move_on_after(1000) as callers, pytest.raises(OperationTimeout) as caught:
            await CStoreSCU(association, CStoreOptions(timeout=200, max_duration=50)).send(source)
        assert not callers.cancelled_caught
        assert trio.current_time() == pytest.approx(50, abs=0.01)
        assert caught.value.seconds == 50
        assert "not done within 50 s" in str(caught.value)


async def test_the_timeout_is_of_one_send_not_of_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    """Ten objects that take 3 s each, sent at once with a timeout of 5 s: those that wait have not begun."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for _ in range(10):
            context_id, request, _data = await peer.receive_message()
            await trio.sleep(3)
            await peer.answer(context_id, request)

    async with scripted_link(script) as association, trio.open_nursery() as nursery:
        scu = CStoreSCU(association, CStoreOptions(timeout=5, max_duration=10))
        for number in range(10):
            nursery.start_soon(scu.send, stream(number=number))
    assert trio.current_time() == pytest.approx(30, abs=0.1)


async def test_the_callers_own_deadline_is_the_callers(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(silent) as association:
        with trio.move_on_after(3) as callers:
            await CStoreSCU(association, CStoreOptions(timeout=7)).send(stream())
        assert callers.cancelled_caught
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(1):
                await CStoreSCU(association).send(stream())


async def test_both_deadlines_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """The caller's is the outer scope: it gets what it asked for, and no exception besides."""
    async with scripted_link(silent) as association:
        with trio.move_on_after(7) as callers:
            with pytest.raises((OperationTimeout, trio.Cancelled)):
                await CStoreSCU(association, CStoreOptions(timeout=7)).send(stream())
        assert trio.current_time() == pytest.approx(7, abs=0.01)
        assert callers.cancel_called or not association.is_open


# --- what is to be seen ---------------------------------------------------------------------------------------------


class Watcher(trio.abc.SendChannel[TransferProgress]):
    def __init__(self, raises: BaseException | None = None) -> None:
        self.seen: list[TransferProgress] = []
        self.raises = raises

    def send_nowait(self, value: TransferProgress) -> None:
        self.seen.append(value)
        if self.raises is not None:
            raise self.raises

    async def send(self, value: TransferProgress) -> None:
        raise AssertionError("a writer does not wait")

    async def aclose(self) -> None: ...


async def test_progress_comes_batch_by_batch(autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher()
    file = make_instance_file(5 << 20)
    async with scripted_link(Archive()) as association:
        response = await CStoreSCU(association).send(io.BytesIO(file), progress=watcher)
    total = len(data_set_of(file))
    sent = [each.bytes_sent for each in watcher.seen]
    assert len(sent) >= 6
    assert sent == sorted(sent)
    assert sent[-2:] == [total, total]
    assert all(each % 16_378 == 0 for each in sent[:-2])  # whole PDUs
    assert [each.is_complete for each in watcher.seen] == [False] * (len(sent) - 1) + [True]
    for each in watcher.seen:
        assert each.sop_instance_uid == response.sop_instance_uid
        assert each.bytes_total == total
        assert each.percent == pytest.approx(100 * each.bytes_sent / total)
        assert each.attempt == 1
    assert response.bytes_sent == total


async def test_progress_of_an_unknown_length(autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher()
    async with scripted_link(Archive()) as association:
        await CStoreSCU(association).send(OneWay(make_instance_file(3 << 20), 65_536, 0.125), progress=watcher)
    assert len(watcher.seen) >= 4
    assert {each.bytes_total for each in watcher.seen} == {None}
    assert [each.percent for each in watcher.seen] == [None] * (len(watcher.seen) - 1) + [100.0]
    assert all(each.eta is None for each in watcher.seen[:-1])
    times = [each.elapsed for each in watcher.seen]
    assert times == sorted(times)
    assert times[-1] > 5
    assert watcher.seen[0].bytes_per_second == pytest.approx(65_536 / 0.125, rel=0.1)


async def test_progress_of_attempts(autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher()
    async with scripted_link(Archive(0xA700)) as association:
        await CStoreSCU(association, CStoreOptions(max_retries=1)).send(stream(), progress=watcher)
    assert [(each.attempt, each.is_complete) for each in watcher.seen] == [(1, False), (2, False), (2, True)]
    assert watcher.seen[1].elapsed < 1


async def test_a_failure_is_complete_too(autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher()
    async with scripted_link(Archive(0xC000)) as association:
        await CStoreSCU(association).send(stream(), progress=watcher)
    assert [each.is_complete for each in watcher.seen] == [False, True]


async def test_without_a_response_nothing_is_complete(autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher()
    async with scripted_link(silent) as association:
        with pytest.raises(OperationTimeout):
            await CStoreSCU(association).send(stream(), progress=watcher)
    assert [each.is_complete for each in watcher.seen] == [False]


async def test_progress_switched_off(autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher()
    async with scripted_link(Archive()) as association:
        await CStoreSCU(association, CStoreOptions(report_progress=False)).send(stream(), progress=watcher)
    assert watcher.seen == []


FAILURES = [trio.WouldBlock(), trio.ClosedResourceError(), trio.BrokenResourceError(), KeyError(5)]


@pytest.mark.fault_row(115)
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_an_observer_that_fails(error: Exception, autojump_clock: trio.testing.MockClock) -> None:
    watcher = Watcher(error)
    async with scripted_link(Archive()) as association:
        for _ in range(2):
            response = await CStoreSCU(association).send(stream(3 << 20), progress=watcher)
            assert response.is_success
            assert response.elapsed == pytest.approx(0, abs=1e-6)
    assert len(watcher.seen) >= 8


async def test_a_channel_that_nobody_reads(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    send, receive = trio.open_memory_channel[TransferProgress](0)
    with send, receive:
        async with scripted_link(Archive()) as association:
            assert (await CStoreSCU(association).send(stream(3 << 20), progress=send)).is_success
    assert not [each for each in caplog.records if each.levelno > logging.INFO]  # nothing is wrong with that


async def test_a_channel_that_cannot_be_offered(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(trio.abc.SendChannel[TransferProgress]):
        async def send(self, value: TransferProgress) -> None: ...

        async def aclose(self) -> None: ...

    async with scripted_link(Archive()) as association:
        with pytest.raises(TypeError, match="send_nowait"):
            await CStoreSCU(association).send(stream(), progress=Slow())
        assert (await CStoreSCU(association).send(stream())).is_success


async def test_a_response_knows_how_long_it_took(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await trio.sleep(2.5)
        await peer.answer(context_id, request)

    async with scripted_link(script) as association:
        assert (await CStoreSCU(association).send(stream())).elapsed == pytest.approx(2.5, abs=1e-6)
