"""Association requests that are not as they should be: rows 60 and 62 to 70 of the fault table."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
import trio
import trio.testing

from support.acceptor_link import CONTEXTS, CT, DATA_SET, FILE, UID, Keeper, aborted_with, memory_server, store_rq
from trio_dicom import (
    Admission,
    AssociationSettings,
    AssociationTimeout,
    PresentationContext,
    Role,
    StorageSCP,
    Timeouts,
    wrap_server_stream,
)
from trio_dicom.protocol.pdu import Abort, AssociateAC, AssociateRJ, ReleaseRP
from trio_dicom.protocol.user_information import (
    AsynchronousOperationsWindow,
    RoleSelection,
    UserIdentityAC,
    UserIdentityRQ,
)
from trio_dicom.testing.scripted_peer import association_request, encoded, message
from trio_dicom.uids import APPLICATION_CONTEXT, EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from trio_dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT

ACCEPTED = "accepted"


def item(item_type: int, value: bytes, *, declared: int | None = None) -> bytes:
    return struct.pack(">BxH", item_type, len(value) if declared is None else declared) + value


def context(context_id: int, *sub_items: bytes) -> bytes:
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(sub_items))


def abstract(uid: str = CT) -> bytes:
    return item(0x30, uid.encode())


def transfer(uid: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    return item(0x40, uid.encode())


APPLICATION = item(0x10, APPLICATION_CONTEXT.encode())
CONTEXT = context(1, abstract(), transfer())
LENGTH = item(0x51, struct.pack(">L", 16_384))
USER = item(0x50, LENGTH)


def request(
    *items: bytes, called: bytes = b"STORE", calling: bytes = b"SCRIPTED", version: int = 1, length: int | None = None
) -> bytes:
    body = struct.pack(">H2x16s16s32x", version, called.ljust(16), calling.ljust(16)) + b"".join(items)
    return struct.pack(">BxL", 1, len(body) if length is None else length) + body


def usual(**changes: object) -> bytes:
    return request(APPLICATION, CONTEXT, USER, **changes)


def with_context(*contexts: bytes) -> bytes:
    return request(APPLICATION, *contexts, USER)


def with_user(*sub_items: bytes) -> bytes:
    return request(APPLICATION, CONTEXT, item(0x50, b"".join(sub_items)))


REQUESTS = [
    ("control", usual(), ACCEPTED),
    # 62: lengths, refused from the header alone
    ("fault62-4GiB", usual(length=0xFFFFFFFF)[:6], Abort(2, 6)),
    ("fault62-2GiB", usual(length=0x80000000)[:6], Abort(2, 6)),
    ("fault62-above_1MiB", usual(length=(1 << 20) + 1)[:6], Abort(2, 6)),
    ("fault62-67", usual(length=67)[:6], Abort(2, 6)),
    ("fault62-0", usual(length=0)[:6], Abort(2, 6)),
    ("fault62-4GiB_and_more", usual(length=0xFFFFFFFF) + bytes(100_000), Abort(2, 6)),
    ("fault62-http", b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", Abort(2, 1)),
    ("fault62-tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Abort(2, 1)),
    ("fault62-data_first", b"\4\0\0\0\0\x08\0\0\0\4\1\3\0\0", Abort(2, 2)),
    ("fault62-release_first", b"\5\0\0\0\0\4\0\0\0\0", Abort(2, 2)),
    ("fault62-acceptance_first", b"\2" + usual()[1:], Abort(2, 2)),
    ("fault62-abort_first", b"\7\0\0\0\0\4\0\0\0\0", None),
    # 63, 64
    ("fault63", usual(version=0), AssociateRJ(1, 2, 2)),
    ("fault63-other_bits", usual(version=0xFFFE), AssociateRJ(1, 2, 2)),
    ("fault63-more_bits", usual(version=0xFFFF), ACCEPTED),
    ("fault64", request(item(0x10, b"1.2.3"), CONTEXT, USER), AssociateRJ(1, 1, 2)),
    ("fault64-none", request(CONTEXT, USER), Abort(2, 6)),
    ("fault64-two", request(APPLICATION, APPLICATION, CONTEXT, USER), Abort(2, 6)),
    # 65, 66
    ("fault65-called", usual(called=b"OTHER"), AssociateRJ(1, 1, 7)),
    ("fault65-calling", usual(calling=b"OTHER"), AssociateRJ(1, 1, 3)),
    ("fault65-case", usual(calling=b"scripted"), AssociateRJ(1, 1, 3)),
    ("fault65-padding", usual(called=b"  STORE", calling=b" SCRIPTED"), ACCEPTED),
    # 68
    ("fault68-no_context", with_context(), Abort(2, 6)),
    ("fault68-even_id", with_context(context(2, abstract(), transfer())), Abort(2, 6)),
    ("fault68-id_0", with_context(context(0, abstract(), transfer())), Abort(2, 6)),
    ("fault68-same_id", with_context(CONTEXT, CONTEXT), Abort(2, 6)),
    ("fault68-no_abstract_syntax", with_context(context(1, transfer())), Abort(2, 6)),
    ("fault68-two_abstract_syntaxes", with_context(context(1, abstract(), abstract(), transfer())), Abort(2, 6)),
    ("fault68-no_transfer_syntax", with_context(context(1, abstract())), Abort(2, 6)),
    ("fault68-empty_context", with_context(item(0x20, b"")), Abort(2, 6)),
    (
        "fault68-128",
        with_context(*[context(number, abstract(), transfer()) for number in range(1, 256, 2)]),
        ACCEPTED,
    ),
    (
        "fault68-129",
        with_context(*[context(number % 256, abstract(), transfer()) for number in range(1, 258, 2)]),
        Abort(2, 6),
    ),
    ("fault68-uid_of_65", with_context(context(1, abstract("1." * 32 + "1"), transfer())), Abort(2, 6)),
    ("fault68-uid_empty", with_context(context(1, abstract(""), transfer())), Abort(2, 6)),
    ("fault68-uid_path", with_context(context(1, abstract("../../x"), transfer())), Abort(2, 6)),
    ("fault68-uid_digits", with_context(context(1, item(0x30, "1.\u0661".encode()), transfer())), Abort(2, 6)),
    # 69
    ("fault69-past_the_item", with_context(context(1, abstract(), item(0x40, b"", declared=65_535))), Abort(2, 6)),
    ("fault69-past_the_pdu", request(APPLICATION, item(0x20, b"\1\0\0\0", declared=65_535)), Abort(2, 6)),
    (
        "fault69-16000_sub_items",
        with_context(context(1, abstract(), *[item(0x40, b"", declared=65_535)] * 16_000)),
        Abort(2, 6),
    ),
    ("fault69-16000_empty", with_context(context(1, abstract(), *[item(0x40, b"")] * 16_000)), Abort(2, 6)),
    ("fault69-129_transfer_syntaxes", with_context(context(1, abstract(), *[transfer()] * 129)), Abort(2, 6)),
    ("fault69-257_user_items", with_user(LENGTH, *[item(0x7F, b"")] * 256), Abort(2, 6)),
    ("fault69-16000_items", request(APPLICATION, CONTEXT, USER, *[item(0x7F, b"")] * 16_000), Abort(2, 6)),
    ("fault69-260000_items", request(APPLICATION, *[item(0x20, b"")] * 260_000), Abort(2, 6)),
    # 70
    ("fault70-two_user_informations", request(APPLICATION, CONTEXT, USER, USER), Abort(2, 6)),
    ("fault70-no_user_information", request(APPLICATION, CONTEXT), ACCEPTED),
    ("fault70-two_lengths", with_user(LENGTH, LENGTH), Abort(2, 6)),
    ("fault70-unknown", with_user(LENGTH, item(0x5F, b"x"), item(0xFF, b""), item(0, b"y")), ACCEPTED),
    ("fault70-unknown_item", request(APPLICATION, item(0x7E, b"x"), CONTEXT, USER), ACCEPTED),
    ("fault70-length_1", with_user(item(0x51, struct.pack(">L", 1))), Abort(2, 6)),
    ("fault70-length_8", with_user(item(0x51, struct.pack(">L", 8))), ACCEPTED),
    ("fault70-length_0", with_user(item(0x51, bytes(4))), ACCEPTED),
    ("fault70-length_of_3_bytes", with_user(item(0x51, bytes(3))), Abort(2, 6)),
]


@pytest.mark.fault_row(62, 63, 64, 65, 68, 69, 70)
@pytest.mark.parametrize(("raw", "answer"), [each[1:] for each in REQUESTS], ids=[each[0] for each in REQUESTS])
@pytest.mark.parametrize("chunk", [None, 1], ids=["whole", "bytewise"])
async def test_a_request(raw, answer, chunk, autojump_clock):
    if chunk and len(raw) > 5000:
        raw = raw[:3000], raw[3000:]
    else:
        raw = [raw] if chunk is None else [raw[at : at + 1] for at in range(len(raw))]
    admission = Admission(ae_title="STORE", calling_ae_titles=["SCRIPTED", "OTHERS"])
    async with memory_server(Keeper(), admission=admission, bystander=False) as server:
        start = trio.current_time()
        peer = await server.connect()
        for piece in raw:
            await peer.send(piece)
        if answer == ACCEPTED:
            response = await peer.receive_pdu()
            assert isinstance(response, AssociateAC)
            assert {each.result for each in response.presentation_contexts} == {0}
            assert await peer.release() == ReleaseRP()
        else:
            assert await peer.receive_pdu() == answer
            # Until the peer closes, but for a second at most.
            assert await peer.receive_pdu() is None
            await peer.close()
        assert trio.current_time() - start <= 1
        await server.check_empty()
        assert server.inside == 0


# --- 60: silence ------------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(60)
@pytest.mark.parametrize("first", [b"", usual()[:1], usual()[:6], usual()[:-1]], ids="fault60-{}".format)
async def test_a_peer_that_says_nothing_more(first, autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        if first:
            await peer.send(first)
        assert await aborted_with(peer) is None  # AA-2: the connection is closed, and that is all
        assert trio.current_time() == 10
        await server.check_empty()


@pytest.mark.fault_row(60)
async def test_fault60_a_request_that_drips(autojump_clock):
    """The timer is absolute: bytes do not start it anew."""
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        with trio.move_on_after(60) as scope, pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            for byte in usual():
                await peer.send(bytes((byte,)))
                await trio.sleep(0.9)
        assert not scope.cancelled_caught
        assert 10 <= trio.current_time() <= 12


@pytest.mark.fault_row(60)
async def test_fault60_an_answer_that_is_never_read(autojump_clock):
    """A stream that takes nothing holds up nobody for ever, and no place either."""
    settings = AssociationSettings(timeouts=Timeouts(association=7))
    async with memory_server(Keeper(), settings=settings) as server:
        peer = await server.connect(trio.testing.lockstep_stream_pair)
        await peer.send(usual())
        await trio.sleep(9)
        await server.check_empty()


@pytest.mark.fault_row(60)
async def test_fault60_over_a_stream_of_the_callers(autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssociationTimeout):
            await wrap_server_stream(nursery, ours, StorageSCP(Keeper()))
    assert trio.current_time() == 10
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


# --- 62, 69: memory ---------------------------------------------------------------------------------------------------

BOMBS = [
    each
    for each in REQUESTS
    if each[0]
    in ("fault62-4GiB", "fault62-above_1MiB", "fault69-16000_sub_items", "fault69-16000_items", "fault69-260000_items")
]


@pytest.mark.fault_row(62, 69)
@pytest.mark.parametrize("raw", [each[1] for each in BOMBS], ids=[each[0] for each in BOMBS])
async def test_memory_does_not_follow_what_is_declared(raw, autojump_clock):
    async with memory_server(Keeper()) as server:
        await server.check_well()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            peers = [await server.connect() for _ in range(5)]
            for peer in peers:
                await peer.send(raw)
            await trio.testing.wait_all_tasks_blocked()
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most - before < 5 * 4 * (len(raw) + 16_384)
        assert [await aborted_with(peer) for peer in peers] == [(2, 6)] * 5


# --- 66: titles -------------------------------------------------------------------------------------------------------

TITLES = [b"../x", b"/etc/passwd", b"", b"\0" * 16, b"\x1b[31mRED", b"\xff" * 16, b"A\\B", b"A\nB", b"A\0B"]
LEGAL = {b"../x", b"/etc/passwd"}


@pytest.mark.fault_row(66)
@pytest.mark.parametrize("title", TITLES, ids="fault66-{!r}".format)
@pytest.mark.parametrize(("which", "reason"), [("called", 7), ("calling", 3)])
async def test_a_title_that_is_hostile(title, which, reason, autojump_clock, caplog):
    caplog.set_level("DEBUG", "trio_dicom")
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        await peer.send(usual(**{which: title}))
        answer = await peer.receive_pdu()
        if title in LEGAL:  # to the standard; it is for whoever makes names of files of it to take care
            assert isinstance(answer, AssociateAC)
        else:
            assert answer == AssociateRJ(1, 1, reason)
        await peer.close()
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert record.getMessage().isascii()


# --- who is let in ----------------------------------------------------------------------------------------------------

ASKED = UserIdentityRQ(2, True, b"somebody", b"secret")


def checking(result):
    async def check(identity):
        assert identity in (None, ASKED)
        await trio.sleep(1)
        if isinstance(result, BaseException):
            raise result
        return result

    return check


async def never(identity):
    await trio.sleep_forever()


@pytest.mark.fault_row(65)
@pytest.mark.parametrize(
    ("check", "items", "answer"),
    [
        pytest.param(checking(b"ticket"), [ASKED], UserIdentityAC(b"ticket"), id="confirmed"),
        pytest.param(checking(b""), [ASKED], UserIdentityAC(b""), id="confirmed_without_words"),
        pytest.param(checking(b"ticket"), [], ACCEPTED, id="nothing_asked"),
        pytest.param(None, [ASKED], ACCEPTED, id="no_check"),
        pytest.param(checking(None), [ASKED], AssociateRJ(1, 1, 1), id="refused"),
        pytest.param(checking(None), [], AssociateRJ(1, 1, 1), id="nobody_refused"),
        pytest.param(checking(RuntimeError("secret")), [ASKED], AssociateRJ(2, 3, 1), id="raises"),
        pytest.param(checking(ExceptionGroup("x", [OSError()])), [ASKED], AssociateRJ(2, 3, 1), id="raises_a_group"),
        pytest.param(never, [ASKED], AssociateRJ(2, 3, 1), id="hangs"),
        pytest.param(checking("ticket"), [ASKED], AssociateRJ(2, 3, 1), id="junk"),
    ],
)
async def test_user_identity(check, items, answer, autojump_clock, caplog):
    admission = Admission(check_identity=check)
    async with memory_server(Keeper(), admission=admission, bystander=False) as server:
        peer = await server.connect()
        found = await peer.associate(CONTEXTS, user_items=items)
        if isinstance(answer, AssociateRJ):
            assert found == answer
            await peer.close()
        else:
            assert isinstance(found, AssociateAC)
            confirmed = [item for item in found.user_information if isinstance(item, UserIdentityAC)]
            assert confirmed == ([] if answer == ACCEPTED else [answer])
            assert await peer.release() == ReleaseRP()
        await server.check_empty()
    assert trio.current_time() <= 32
    assert "secret" not in caplog.text
    assert "somebody" not in caplog.text


async def test_a_check_of_identity_that_is_slow_holds_up_nobody(autojump_clock):
    async with memory_server(Keeper(), admission=Admission(check_identity=never), bystander=False) as server:
        peers = [await server.connect() for _ in range(3)]
        for peer in peers:
            await peer.send(usual())
        for peer in peers:
            assert await peer.receive_pdu() == AssociateRJ(2, 3, 1)
            assert trio.current_time() <= 30
            await peer.close()


@pytest.mark.fault_row(54)
@pytest.mark.parametrize(
    ("asked", "allowed", "answer", "may_store"),
    [
        pytest.param(None, {}, None, True, id="none"),
        pytest.param((True, False), {}, (True, False), True, id="scu"),
        pytest.param((True, True), {}, (True, False), True, id="both_one_allowed"),
        pytest.param((False, True), {}, (False, False), False, id="scp_not_allowed"),
        pytest.param((False, True), {CT: Role(scu=True, scp=True)}, (False, True), False, id="scp_allowed"),
        pytest.param((True, True), {CT: Role(scu=True, scp=True)}, (True, True), True, id="both"),
    ],
)
async def test_roles(asked, allowed, answer, may_store, autojump_clock):
    keeper = Keeper()
    items = [] if asked is None else [RoleSelection(CT, *asked), RoleSelection("1.2.3", True, True)]
    async with memory_server(keeper, settings=AssociationSettings(roles=allowed)) as server:
        peer = await server.connect()
        found = await peer.associate(CONTEXTS, user_items=items)
        roles = [item for item in found.user_information if isinstance(item, RoleSelection)]
        assert roles == ([] if answer is None else [RoleSelection(CT, *answer)])
        await peer.send_message(1, store_rq(FILE), DATA_SET)
        if may_store:
            assert (await peer.receive_message())[1].status == 0x0000
            assert await peer.release() == ReleaseRP()
        else:
            assert await aborted_with(peer) == (0, 0)
    assert len(keeper.stored) == keeper.begun == may_store


@pytest.mark.fault_row(51)
@pytest.mark.parametrize(
    ("ours", "asked", "answered"),
    [(1, None, None), (4, None, None), (1, (8, 1), (1, 1)), (4, (8, 1), (4, 1)), (0, (8, 8), (8, 8)),
     (4, (0, 0), (4, 4)), (0, (0, 0), (64, 64)), (0, (65_535, 0), (64, 64))],
)  # fmt: skip
async def test_asynchronous_operations_window(ours, asked, answered, autojump_clock):
    async with memory_server(Keeper(), settings=AssociationSettings(operations_window=ours)) as server:
        peer = await server.connect()
        found = await peer.associate(CONTEXTS, window=asked)
        windows = [item for item in found.user_information if isinstance(item, AsynchronousOperationsWindow)]
        assert windows == ([] if answered is None else [AsynchronousOperationsWindow(*answered)])
        assert await peer.release() == ReleaseRP()


async def test_contexts_are_answered_one_by_one(autojump_clock):
    contexts = [
        CT,
        VERIFICATION,
        "1.2.3",
        PresentationContext(CT, ["1.2.3"]),
        PresentationContext(CT, ["1.2.3", IMPLICIT]),
    ]
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        found = await peer.associate(contexts)
        results = [(each.context_id, each.result) for each in found.presentation_contexts]
        assert results == [(1, 0), (3, 0), (5, 3), (7, 4), (9, 0)]
        assert found.presentation_contexts[4].transfer_syntaxes == (IMPLICIT,)
        assert await peer.release() == ReleaseRP()


async def test_no_context_is_accepted(autojump_clock):
    async with memory_server(Keeper()) as server:
        peer = await server.connect()
        found = await peer.associate(["1.2.3"])
        assert [each.result for each in found.presentation_contexts] == [3]
        assert await peer.release() == ReleaseRP()


async def test_a_message_before_the_answer(autojump_clock):
    """In one segment with the request: it is P-DATA in Sta3, or taken in Sta6; never lost, never twice."""
    keeper = Keeper()
    async with memory_server(keeper) as server:
        peer = await server.connect()
        await peer.send(encoded(association_request(CONTEXTS)), message(1, store_rq(FILE), DATA_SET))
        assert isinstance(await peer.receive_pdu(), AssociateAC)
        assert (await peer.receive_message())[1].status == 0x0000
        assert await peer.release() == ReleaseRP()
    assert keeper.stored == [(UID, DATA_SET)]
