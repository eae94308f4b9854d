"""RecordedStream, Recording and replay: what was noted, kept in a file, and played to an association again."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_dicom import Association, ConnectionLost, CStoreSCU, InvalidPDU, StorageSCP, StoreReply
from trio_dicom.protocol.pdu import (
    Abort,
    AssociateAC,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
)
from trio_dicom.services.instance import Instance
from trio_dicom.testing import (
    Direction,
    RecordedChunk,
    RecordedStream,
    Recording,
    Script,
    ScriptedPeer,
    SOPClass,
    encoded,
    instance_uid,
    instead_of_response,
    make_instance_file,
    memory_link,
    replay,
    scripted_link,
    scripted_requestor,
)

SENDING, RECEIVING = Direction.SENDING, Direction.RECEIVING


async def store(association: Association, *numbers: int) -> list[int]:
    scu = CStoreSCU(association)
    return [(await scu.send(io.BytesIO(make_instance_file(40_000, number=number)))).status for number in numbers]


async def script(peer: ScriptedPeer) -> None:
    await peer.accept()
    for status in (0xA700, 0xB000):
        context_id, request, _ = await peer.receive_message()
        await peer.answer(context_id, request, status)


async def recorded(script: Script = script, *numbers: int) -> Recording:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = RecordedStream(ours)
    async with scripted_link(script, streams=(stream, theirs)) as association:
        await store(association, *(numbers or (1, 2)))
    return stream.recording


async def test_it_is_as_good_as_the_stream_within() -> None:
    async def make() -> tuple[RecordedStream, RecordedStream]:
        ours, theirs = trio.testing.memory_stream_pair()
        return RecordedStream(ours), RecordedStream(theirs)

    await trio.testing.check_half_closeable_stream(make, None)


async def test_what_went_is_there_in_its_order() -> None:
    recording = await recorded()
    kinds = [(each.direction, type(each.decode())) for each in recording.split()]
    assert kinds[:2] == [(SENDING, AssociateRQ), (RECEIVING, AssociateAC)]
    assert kinds[-2:] == [(SENDING, ReleaseRQ), (RECEIVING, ReleaseRP)]
    responses = [at for at, kind in enumerate(kinds) if kind == (RECEIVING, PDataTF)]
    assert len(responses) == 2
    assert all(kind == (SENDING, PDataTF) for kind in kinds[2 : responses[0]])
    assert [type(pdu) for pdu in recording.pdus(RECEIVING)] == [AssociateAC, PDataTF, PDataTF, ReleaseRP]
    assert len(recording.pdus()) == len(kinds)
    assert b"".join(each.data for each in recording.split() if each.direction is SENDING) == recording.data(SENDING)


async def test_time_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = RecordedStream(ours)
    await trio.sleep(7)
    await stream.send_all(b"a")
    await trio.sleep(2)
    await theirs.send_all(b"b")
    await stream.receive_some()
    await stream.aclose()
    assert stream.recording.chunks == [
        RecordedChunk(SENDING, 0.0, b"a"),
        RecordedChunk(RECEIVING, 2.0, b"b"),
        RecordedChunk(SENDING, 2.0, b""),
    ]


async def test_to_a_file_and_back(tmp_path: Path) -> None:
    recording = await recorded()
    recording.dump(tmp_path / "association.txt")
    loaded = Recording.load(tmp_path / "association.txt")
    assert [(each.direction, each.data) for each in loaded.chunks] == [
        (each.direction, each.data) for each in recording.chunks
    ]
    assert [each.seconds for each in loaded.chunks] == pytest.approx(
        [each.seconds for each in recording.chunks], abs=1e-6
    )
    assert loaded.dumps() == recording.dumps()


def test_the_format() -> None:
    text = "trio_dicom recording 1\n# written by hand\n\n> 0.000000 0500 00000004 00000000  # A-RELEASE-RQ\n< 1.5\n"
    recording = Recording.loads(text)
    assert recording.chunks == [
        RecordedChunk(SENDING, 0.0, encoded(ReleaseRQ())),
        RecordedChunk(RECEIVING, 1.5, b""),
    ]
    assert recording.dumps() == "trio_dicom recording 1\n> 0.000000 05000000000400000000\n< 1.500000\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1"),
        ("something else\n", "line 1"),
        ("trio_dicom recording 1\n> 0 00\n= 0 00\n", "line 3"),
        ("trio_dicom recording 1\n> soon 00\n", "line 2"),
        ("trio_dicom recording 1\n> 0 0g\n", "line 2"),
        ("trio_dicom recording 1\n>\n", "line 2"),
    ],
)
def test_what_is_no_recording(text: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Recording.loads(text)


def test_what_is_cut_off_or_no_pdu_is_there_all_the_same() -> None:
    release = encoded(ReleaseRQ())
    recording = Recording(
        [RecordedChunk(SENDING, 0, release[:3]), RecordedChunk(SENDING, 1, release[3:] + b"\x99\0\0\0\0\1x\4\0\0")]
    )
    whole, nonsense, cut = recording.split()
    assert whole.decode() == ReleaseRQ()
    assert nonsense.data == b"\x99\0\0\0\0\1x"
    assert (cut.data, cut.is_whole) == (b"\4\0\0", False)
    with pytest.raises(InvalidPDU):
        cut.decode()


# --- replay -----------------------------------------------------------------------------------------------------------


async def test_the_peer_is_played_to_an_association() -> None:
    async with scripted_link(replay(await recorded())) as association:
        assert await store(association, 1, 2) == [0xA700, 0xB000]
    assert association.failure is None


async def test_the_requestor_is_played_to_an_association() -> None:
    stored: dict[str, bytes] = {}

    async def keep(instance: Instance) -> StoreReply:
        stored[instance.sop_instance_uid] = await instance.read()
        return StoreReply(0)

    requestor = replay(await recorded(), SENDING)
    async with scripted_requestor(requestor, StorageSCP(keep, sop_classes=[SOPClass.CT])) as association:
        await association.wait_closed()
    assert association.failure is None
    assert list(stored) == [instance_uid(1), instance_uid(2)]
    assert make_instance_file(40_000, number=2).endswith(stored[instance_uid(2)])


async def test_both_sides_of_our_own_are_recorded_and_played() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = RecordedStream(theirs)  # seen from the acceptor

    async def refuse(instance: Instance) -> int:
        return 0xA701

    service = StorageSCP(refuse, sop_classes=[SOPClass.CT])
    async with memory_link([SOPClass.CT], service, streams=(ours, stream)) as (requestor, _):
        assert await store(requestor, 5) == [0xA701]
    async with scripted_link(replay(stream.recording, SENDING)) as association:
        assert await store(association, 5) == [0xA701]


async def test_it_waits_for_messages_however_they_are_cut() -> None:
    recording = await recorded()
    first = recording.chunks[1]
    smaller = first.data.replace(b"\x51\0\0\4\0\0\x40\0", b"\x51\0\0\4\0\0\x04\0")  # 1,024 bytes, not 16,384
    assert (first.direction, smaller != first.data) == (RECEIVING, True)
    recording.chunks[1] = RecordedChunk(RECEIVING, first.seconds, smaller)
    async with scripted_link(replay(recording)) as association:
        assert await store(association, 1, 2) == [0xA700, 0xB000]


async def test_another_kind_of_pdu_than_the_one_that_came_then() -> None:
    recording = await recorded()
    with pytest.raises(AssertionError, match="P-DATA-TF was awaited, and ReleaseRQ"):
        async with scripted_link(replay(recording)) as association:
            await store(association, 1)
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.aclose()
    with pytest.raises(AssertionError, match="goes on with AssociateRQ, and None came"):
        await replay(recording)(ScriptedPeer(theirs))


async def test_an_abort_is_played_too() -> None:
    recording = await recorded_abort()
    assert recording.pdus(RECEIVING)[-1] == Abort(2, 1)
    async with scripted_link(replay(recording)) as association:
        with pytest.raises(Exception, match="reason 1"):
            await store(association, 1)


async def test_a_close_in_the_middle_is_played_too(autojump_clock: trio.testing.MockClock) -> None:
    async def close(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await peer.close()

    ours, theirs = trio.testing.memory_stream_pair()
    stream = RecordedStream(ours)
    with pytest.raises(ConnectionLost):
        async with scripted_link(close, streams=(stream, theirs)) as association:
            await store(association, 1)
    with pytest.raises(ConnectionLost):
        async with scripted_link(replay(stream.recording)) as association:
            await store(association, 1)
    assert trio.current_time() < 5


async def recorded_abort() -> Recording:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = RecordedStream(ours)
    with pytest.raises(Exception, match="reason 1"):
        async with scripted_link(instead_of_response(Abort(2, 1)), streams=(stream, theirs)) as association:
            await store(association, 1)
    return stream.recording
