"""Messages that are not as they should be, and slow peers: rows 71 to 75, 81, and 84 to 91 of the fault table."""

from __future__ import annotations

import struct
import zlib

import pytest
import trio
import trio.testing

from support.acceptor_link import (
    CONTEXTS,
    CT,
    DATA_SET,
    FILE,
    UID,
    Keeper,
    memory_server,
    rest,
    store_rq,
)
from trio_dicom import PresentationContext
from trio_dicom.protocol.command import CCancelRQ, CEchoRQ, CEchoRSP, CStoreRSP, encode_command
from trio_dicom.protocol.other_services import (
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from trio_dicom.protocol.pdu import PDV, Abort, AssociateAC, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.testing.scripted_peer import association_request, encoded, message
from trio_dicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED
from trio_dicom.uids import VERIFICATION

MR = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"


def data_pdu(data: bytes, *, context_id: int = 1, is_command: bool = False, is_last: bool = False) -> PDataTF:
    return PDataTF((PDV(context_id, is_command, is_last, data),))


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def command_set(**changes: bytes | None) -> bytes:
    """The C-STORE-RQ of `FILE` in bytes, each element replaced or left out by its number, as in `e0110=None`."""
    elements = {
        "e0002": CT.encode(),
        "e0100": b"\1\0",
        "e0110": b"\1\0",
        "e0700": b"\0\0",
        "e0800": b"\1\0",
        "e1000": UID.encode() + b"\0" * (len(UID) % 2),
    }
    elements["e0002"] += b"\0" * (len(CT) % 2)
    elements.update(changes)
    body = b"".join(element(int(name[1:], 16), value) for name, value in sorted(elements.items()) if value is not None)
    return element(0, struct.pack("<L", len(body))) + body


# --- 71, 84, 90: what ends the association ----------------------------------------------------------------------------

COMMAND = encode_command(store_rq(FILE))
HALF = encoded(data_pdu(COMMAND, is_command=True, is_last=True)) + encoded(data_pdu(DATA_SET[:100]))

ENDINGS = [
    ("fault71-second_request", encoded(association_request(CONTEXTS)), Abort(2, 2)),
    ("fault71-request_in_a_data_set", HALF + encoded(association_request(CONTEXTS)), Abort(2, 2)),
    ("fault71-acceptance", HALF + encoded(AssociateAC("A", "B", (), ())), Abort(2, 2)),
    ("fault71-rejection", HALF + b"\3\0\0\0\0\4\0\1\1\1", Abort(2, 2)),
    ("fault71-release_answer", HALF + encoded(ReleaseRP()), Abort(2, 2)),
    ("fault71-unknown_pdu", HALF + b"\x08\0\0\0\0\4\0\0\0\0", Abort(2, 1)),
    ("fault72-above_the_limit", HALF + b"\4\0\0\x10\0\1", Abort(2, 6)),
    ("fault72-4GiB", HALF + b"\4\0\xff\xff\xff\xff", Abort(2, 6)),
    ("fault72-pdv_past_the_pdu", HALF + b"\4\0\0\0\0\x08\0\0\0\x10\1\0xx", Abort(2, 6)),
    ("fault72-pdv_of_4GiB", HALF + b"\4\0\0\0\0\x08\xff\xff\xff\xff\1\0xx", Abort(2, 6)),
    ("fault72-pdv_of_1", HALF + b"\4\0\0\0\0\x06\0\0\0\1\1\0", Abort(2, 6)),
    ("fault72-residue", HALF + b"\4\0\0\0\0\x0b\0\0\0\4\1\0xx\0\0\0", Abort(2, 6)),
    ("fault73-unknown_context", message(5, store_rq(FILE), DATA_SET), Abort(2, 5)),
    ("fault73-other_context_in_the_middle", HALF + encoded(data_pdu(DATA_SET, context_id=3)), Abort(2, 6)),
    ("fault73-unknown_context_in_the_middle", HALF + encoded(data_pdu(DATA_SET, context_id=9)), Abort(2, 5)),
    ("fault73-command_in_a_data_set", HALF + message(1, CEchoRQ(7, VERIFICATION)), Abort(2, 6)),
    ("fault73-data_set_without_command", encoded(data_pdu(DATA_SET, is_last=True)), Abort(2, 6)),
    ("fault73-data_set_after_echo", message(3, CEchoRQ(1, VERIFICATION), b"xx"), Abort(2, 6)),
    ("fault74-no_message_id", message(1, command_set(e0110=None), DATA_SET), Abort(2, 6)),
    ("fault74-no_command_field", message(1, command_set(e0100=None), DATA_SET), Abort(2, 6)),
    ("fault74-no_data_set_type", message(1, command_set(e0800=None), DATA_SET), Abort(2, 6)),
    ("fault74-truncated", message(1, COMMAND[:-3]), Abort(2, 6)),
    ("fault74-empty", message(1, b""), Abort(2, 6)),
    ("fault74-too_large", message(1, element(0x1000, bytes(17_000))), Abort(2, 6)),
    ("fault74-many_fragments", encoded(data_pdu(b"\0\0", is_command=True)) * 257, Abort(2, 6)),
    ("fault74-empty_fragments", HALF + encoded(data_pdu(b"")) * 65, Abort(2, 6)),
    ("fault84-unknown_response", message(1, command_set(e0100=b"\x99\x89")), Abort(2, 6)),
    ("fault84-unknown_field_without_message_id", message(1, command_set(e0100=b"\x99\x09", e0110=None)), Abort(2, 6)),
    ("fault84-response", message(1, CStoreRSP(1, 0)), Abort(0, 0)),
    ("fault84-response_of_echo", message(3, CEchoRSP(1, 0)), Abort(0, 0)),
    ("fault84-response_in_a_data_set", HALF + message(1, CStoreRSP(1, 0)), Abort(2, 6)),
    ("fault90-abort_in_a_data_set", HALF + encoded(Abort()), None),
    ("fault90-release_in_a_data_set", HALF + encoded(ReleaseRQ()), ReleaseRP()),
    ("fault90-release_in_a_command_set", encoded(data_pdu(COMMAND[:20], is_command=True)) + encoded(ReleaseRQ()),
     ReleaseRP()),
    ("fault90-data_after_release", HALF + encoded(ReleaseRQ()) + encoded(data_pdu(b"xx", is_last=True)),
     (Abort(2, 2), ReleaseRP())),
]  # fmt: skip


@pytest.mark.fault_row(71, 72, 73, 74, 84, 90)
@pytest.mark.parametrize(("raw", "answer"), [each[1:] for each in ENDINGS], ids=[each[0] for each in ENDINGS])
@pytest.mark.parametrize("chunk", [None, 7], ids=["whole", "in_pieces"])
async def test_what_ends_the_association(raw, answer, chunk, autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        for at in range(0, len(raw), chunk or len(raw)):
            await peer.send(raw[at : at + (chunk or len(raw))])
            if chunk:
                await trio.testing.wait_all_tasks_blocked()
        told = [pdu for pdu in await rest(peer) if not isinstance(pdu, PDataTF)]  # the echo's answer may come first
        answers = answer if isinstance(answer, tuple) else (answer,)
        assert told in [[] if each is None else [each] for each in answers]
        assert trio.current_time() <= 1
        await server.check_empty()
    assert keeper.stored == []
    assert keeper.cancelled == keeper.begun


# --- 72 to 75, 77, 79 to 81, 84: what is answered, and the association lives ------------------------------------------


def store(**changes: object) -> tuple[object, bytes | None]:
    return store_rq(FILE, **changes), DATA_SET


def named(uid: str | bytes) -> tuple[bytes, bytes]:
    raw = uid if isinstance(uid, bytes) else uid.encode("latin-1")
    return command_set(e1000=raw + b"\0" * (len(raw) % 2)), DATA_SET


NAMES = ["../../x", "/etc/x", "..", ".", "1." * 33 + "1", "1" * 65, "1\x002", "1.2/3", "1.2\\3", "CON", "1.2.", ".1",
         "1..2", "1.2 3", "1.\u00b2", "\xff\xfe", "1.2\n", "%2e%2e", "~", "1.2.3:x", " ", "1.\u00b9"]  # fmt: skip

ANSWERED = [
    ("control", store(), 0x0000),
    ("fault73-other_class", store(affected_sop_class_uid=MR), 0x0122),
    ("fault73-verification", store(affected_sop_class_uid=VERIFICATION), 0x0122),
    ("fault74-no_class", (command_set(e0002=None), DATA_SET), 0x0122),
    ("fault74-no_instance", (command_set(e1000=None), DATA_SET), 0xC000),
    ("fault74-empty_instance", (command_set(e1000=b""), DATA_SET), 0xC000),
    ("fault74-id_0", store(message_id=0), 0x0000),
    ("fault74-id_65535", store(message_id=65_535), 0x0000),
    ("fault74-priority", store(priority=0xFFFF), 0x0000),
    ("fault74-no_priority", (command_set(e0700=None), DATA_SET), 0x0000),
    ("fault74-no_data_set", (store_rq(FILE, has_data_set=False), None), 0xC000),
    ("fault74-move_originator", store(move_originator_ae_title="\x1b[31m../x", move_originator_message_id=9), 0x0000),
    ("fault75-padded", named(UID + "\0\0"), 0x0000),
    ("fault75-space", named(UID + " " * (1 + len(UID) % 2)), 0x0000),
    *[(f"fault75-{number}", named(name), 0xC000) for number, name in enumerate(NAMES)],
    ("fault75-arabic_digits", named("1.\u0661".encode()), 0xC000),
    ("fault84-echo_elsewhere", (CEchoRQ(1, VERIFICATION), None), 0x0211),
    ("fault84-event_report", (NEventReportRQ(1, CT, "1.2.3", 1, has_data_set=True), b"xx"), 0x0211),
    ("fault84-get", (NGetRQ(1, CT, "1.2.3"), None), 0x0211),
    ("fault84-set", (NSetRQ(1, CT, "1.2.3"), b"xx"), 0x0211),
    ("fault84-action", (NActionRQ(1, CT, "1.2.3", 1), None), 0x0211),
    ("fault84-create", (NCreateRQ(1, CT, has_data_set=True), b"xx"), 0x0211),
    ("fault84-delete", (NDeleteRQ(1, CT, "1.2.3"), None), 0x0211),
    ("fault86-find", (CFindRQ(1, CT), b"*?" * 500_000), 0x0211),
    ("fault87-move", (CMoveRQ(1, CT, move_destination="127.0.0.1:22"), b"xx"), 0x0211),
    ("fault88-get", (CGetRQ(1, CT), b"xx"), 0x0211),
]  # fmt: skip


@pytest.mark.fault_row(73, 74, 75, 84, 86, 87, 88)
@pytest.mark.parametrize(("request_", "status"), [each[1:] for each in ANSWERED], ids=[each[0] for each in ANSWERED])
async def test_what_is_answered(request_, status, autojump_clock, caplog):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        command, data_set = request_
        response, _ = await peer.request(1, command, data_set)
        assert response.status == status
        if not isinstance(command, bytes):
            assert type(response).__name__ == type(command).__name__.replace("RQ", "RSP")
            assert response.message_id_being_responded_to == command.message_id
        assert response.has_data_set is False
        assert (await peer.store(FILE)).status == 0x0000  # the data set was taken to its end, and no further
        assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, DATA_SET)] * (2 if status == 0 else 1)
    assert keeper.cancelled == 0
    for record in caplog.records:
        assert record.getMessage().isprintable()


@pytest.mark.fault_row(84)
@pytest.mark.parametrize("field", [0x0002, 0x0131, 0x0999, 0x7FFF], ids="fault84-{:04X}".format)
@pytest.mark.parametrize("data_set", [None, DATA_SET], ids=["alone", "with_data"])
async def test_an_unknown_command_field(field, data_set, autojump_clock):
    keeper = Keeper()
    is_alone = {"e0800": b"\1\1"} if data_set is None else {}
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send_message(1, command_set(e0100=field.to_bytes(2, "little"), e0110=b"\7\0", **is_alone), data_set)
        (response,) = (await peer.receive_pdu()).pdvs
        assert (response.is_command, response.is_last) == (True, True)
        for number, value in ((0x0100, field | 0x8000), (0x0120, 7), (0x0800, 0x0101), (0x0900, 0x0211)):
            assert element(number, value.to_bytes(2, "little")) in bytes(response.data)
        assert (await peer.store(FILE)).status == 0x0000  # the data set was taken to its end, and no further
        assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, DATA_SET)]


@pytest.mark.fault_row(86, 87, 88)
@pytest.mark.parametrize("abstract_syntax", [FIND, "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.1.3"],
                         ids=["fault86", "fault87", "fault88"])  # fmt: skip
async def test_services_that_nobody_performs_are_not_accepted(abstract_syntax, autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        found = await peer.associate([abstract_syntax, VERIFICATION])
        assert [each.result for each in found.presentation_contexts] == [3, 0]
        assert await peer.release() == ReleaseRP()


@pytest.mark.fault_row(72)
@pytest.mark.parametrize("length", [131_072, 131_074, 1 << 20], ids="fault72-{}".format)
async def test_pdus_longer_than_announced(length, autojump_clock, caplog):
    """They are taken, and one line for an association says so."""
    keeper = Keeper()
    data = bytes(3 << 20)
    async with memory_server(keeper) as server:
        for _ in range(2):
            peer = await server.associate()
            for message_id in (1, 2):
                await peer.send_message(1, store_rq(FILE, message_id), data, max_pdu_length=length)
                assert (await peer.receive_message())[1].status == 0x0000
            assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, data)] * 4
    told = [record.getMessage() for record in caplog.records if "were announced" in record.getMessage()]
    assert len(told) == (0 if length == 131_072 else 2)
    assert all(f"{length} bytes came, where 131072 were" in each for each in told)


async def test_many_pdvs_in_a_pdu_and_command_sets_in_pieces(autojump_clock):
    keeper = Keeper()
    raw = COMMAND
    pdvs = [PDV(1, True, at + 5 >= len(raw), raw[at : at + 5]) for at in range(0, len(raw), 5)]
    pdvs += [PDV(1, False, at + 5 >= len(DATA_SET), DATA_SET[at : at + 5]) for at in range(0, len(DATA_SET), 5)]
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(PDataTF((*pdvs, PDV(3, True, True, encode_command(CEchoRQ(2, VERIFICATION))))))
        answers = [(await peer.receive_message())[1] for _ in range(2)]
        assert {type(each) for each in answers} == {CStoreRSP, CEchoRSP}
        assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, DATA_SET)]


@pytest.mark.fault_row(22)
async def test_reserved_bits_of_a_control_header(autojump_clock):
    keeper = Keeper()
    raw = bytearray(message(1, store_rq(FILE), DATA_SET))
    raw[11] |= 0xFC
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(bytes(raw))
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, DATA_SET)]


@pytest.mark.fault_row(81)
@pytest.mark.parametrize(
    "data", [zlib.compress(bytes(1 << 20)), b"\xff" * 999 + b"\0"], ids=["fault81-bomb", "fault81-corrupt"]
)
async def test_deflated_data_sets_are_not_inflated(data, autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate(contexts=[PresentationContext(CT, [DEFLATED])])
        await peer.send_message(1, store_rq(FILE), data + b"\0" * (len(data) % 2))
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, data + b"\0" * (len(data) % 2))]


# --- 85: C-CANCEL -----------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(85)
async def test_fault85_cancel_of_nothing(autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send_message(1, CCancelRQ(7))
        assert (await peer.store(FILE)).status == 0x0000
        await peer.send_message(1, CCancelRQ(1))
        await peer.send_message(3, CCancelRQ(65_535))
        assert await peer.echo() == 0x0000
        assert await peer.release() == ReleaseRP()


@pytest.mark.fault_row(85)
async def test_fault85_cancel_of_what_is_performed(autojump_clock):
    seen = []

    async def handler(instance):
        await instance.read()
        await instance._request.cancelled.wait()
        seen.append(True)
        return 0xB000

    async with memory_server(handler) as server:
        peer = await server.associate()
        await peer.send_message(1, store_rq(FILE), DATA_SET)
        await peer.send_message(1, CCancelRQ(1))
        assert (await peer.receive_message())[1].status == 0xB000
        assert await peer.release() == ReleaseRP()
    assert seen == [True]


# --- 89: slow ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(89)
@pytest.mark.parametrize(
    ("step", "size"),
    [(1, 2), (0.1, 20), (29, 2), (1, 1000)],
    ids=["fault89-1s", "fault89-tenths", "fault89-29s", "fault89-just_too_slow"],
)
async def test_a_data_set_that_drips(step, size, autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(data_pdu(COMMAND, is_command=True, is_last=True))
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:
                await peer.send(data_pdu(bytes(size)))
                await trio.sleep(step)
        assert 60 <= trio.current_time() <= 60 + 2 * step + 1
        assert await rest(peer) == [Abort(0, 0)]
        await server.check_empty()
    assert (keeper.begun, keeper.cancelled, keeper.stored) == (1, 1, [])


@pytest.mark.fault_row(89)
@pytest.mark.parametrize("first", [1, 20], ids=["fault89-from_its_header_on", "fault89-after_its_header"])
async def test_a_data_pdu_that_drips(first, autojump_clock):
    keeper, raw = Keeper(), encoded(data_pdu(bytes(2000)))
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(data_pdu(COMMAND, is_command=True, is_last=True))
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            await peer.send(raw[:first])
            for byte in raw[first:]:
                await trio.sleep(1)
                await peer.send(bytes((byte,)))
        assert 30 <= trio.current_time() - start <= 32
        assert await rest(peer) == [Abort(0, 0)]


@pytest.mark.fault_row(89)
async def test_fault89_data_pdus_that_are_never_whole_when_something_comes(autojump_clock):
    keeper = Keeper()
    raw = encoded(data_pdu(bytes(70_000))) * 3 + encoded(data_pdu(bytes(2), is_last=True))
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(encoded(data_pdu(COMMAND, is_command=True, is_last=True)) + raw[:10])
        for at in range(10, len(raw), 35_000):
            await trio.sleep(9)
            await peer.send(raw[at : at + 35_000])
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert len(keeper.stored[0][1]) == 210_002


@pytest.mark.fault_row(89)
async def test_fault89_a_data_set_that_is_just_fast_enough(autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(data_pdu(COMMAND, is_command=True, is_last=True))
        for _ in range(300):
            await peer.send(data_pdu(bytes(1100)))
            await trio.sleep(1)
        await peer.send(data_pdu(b"", is_last=True))
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert len(keeper.stored[0][1]) == 300 * 1100


@pytest.mark.fault_row(89)
@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        pytest.param(b"", 60, id="fault89-idle"),
        pytest.param(HALF[:1], 30, id="fault89-in_the_header_of_a_pdu"),
        pytest.param(HALF[:30], 30, id="fault89-in_a_command_set"),
        pytest.param(HALF[:-1], 30, id="fault89-in_a_data_pdu"),
        pytest.param(HALF, 60, id="fault89-in_a_data_set"),
        pytest.param(encoded(data_pdu(COMMAND[:20], is_command=True)), 60, id="fault89-between_fragments"),
    ],
)
async def test_silence(raw, seconds, autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        start = trio.current_time()
        if raw:
            await peer.send(raw)
        assert await rest(peer) == [Abort(0, 0)]
        assert seconds <= trio.current_time() - start <= seconds + 1
        await server.check_empty()
    assert keeper.stored == []
    assert keeper.cancelled == keeper.begun


@pytest.mark.fault_row(89)
async def test_fault89_a_command_set_that_drips(autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.associate()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            for at in range(0, len(COMMAND), 2):
                await peer.send(data_pdu(COMMAND[at : at + 2], is_command=True))
                await trio.sleep(20)
        assert trio.current_time() <= 80
        assert await rest(peer) == [Abort(0, 0)]


@pytest.mark.fault_row(89)
async def test_fault89_requests_one_after_another_are_not_idle(autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.associate()
        for _ in range(5):
            await trio.sleep(59)
            assert await peer.echo() == 0x0000
        assert await peer.release() == ReleaseRP()


# --- 91: after our last word ------------------------------------------------------------------------------------------


@pytest.mark.fault_row(91)
@pytest.mark.parametrize("goes_on", [False, True], ids=["stays", "goes_on"])
@pytest.mark.parametrize("last", [b"\x09\0\0\0\0\0", encoded(ReleaseRQ())], ids=["fault91-abort", "fault91-release"])
async def test_a_peer_that_does_not_close(last, goes_on, autojump_clock):
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.associate()
        await peer.send(last)
        pdu = await peer.receive_pdu()
        assert pdu == (ReleaseRP() if last == encoded(ReleaseRQ()) else Abort(2, 1))
        with trio.move_on_after(30) as scope:
            try:
                while goes_on:
                    await peer.send(message(1, store_rq(FILE), DATA_SET))
                    await trio.sleep(0.01)
            except trio.BrokenResourceError:
                pass
            else:
                assert await peer.receive_pdu() is None
        assert not scope.cancelled_caught
        assert trio.current_time() <= 1.1
        await server.check_empty()
    assert keeper.begun == 0


@pytest.mark.fault_row(91)
@pytest.mark.parametrize("goes_on", [False, True], ids=["stays", "goes_on"])
async def test_fault91_a_peer_that_was_rejected_and_does_not_close(goes_on, autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        await peer.associate(called_ae_title="", user_items=())
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while True:
                if goes_on:
                    await peer.send(encoded(association_request(CONTEXTS)))
                elif trio.current_time() >= 2:
                    await peer.send(b"x")
                await trio.sleep(0.5)
        assert trio.current_time() <= 2.5
        await server.check_empty()
