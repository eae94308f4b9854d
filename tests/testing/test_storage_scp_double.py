"""storage_scp: what came, what was stored, and every kind of scripted reply."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest
import trio
import trio.testing

from trio_dicom import (
    Admission,
    Association,
    AssociationAborted,
    AssociationRejected,
    AssociationSettings,
    CStoreOptions,
    CStoreResponse,
    CStoreSCU,
    NoAcceptedContexts,
    OperationTimeout,
    echo,
    open_association,
)
from trio_dicom.testing import (
    Direction,
    FaultyStream,
    Reset,
    SOPClass,
    instance_uid,
    make_instance,
    make_instance_file,
    storage_scp,
    tls_contexts,
)
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

CT = [SOPClass.CT]


async def send(association: Association, number: int = 1, size: int = 256, **options: float) -> CStoreResponse:
    scu = CStoreSCU(association, CStoreOptions(**options))  # type: ignore[arg-type]
    return await scu.send(io.BytesIO(make_instance_file(size, number=number)))


async def test_what_was_sent_is_there() -> None:
    settings = AssociationSettings(calling_ae_title="SENDER")
    async with storage_scp() as scp, open_association(scp.address, CT, settings=settings) as association:
        assert len(scp.associations) == 1
        sent = make_instance(number=3, PatientID="A")
        assert (await CStoreSCU(association).send(sent)).is_success
        await send(association, 4, 100_000)
    came = scp.received
    assert [each.sop_instance_uid for each in came] == [instance_uid(3), instance_uid(4)]
    assert {(each.sop_class_uid, each.transfer_syntax_uid) for each in came} == {(CT[0], EXPLICIT_VR_LITTLE_ENDIAN)}
    assert {(each.calling_ae_title, each.called_ae_title) for each in came} == {("SENDER", "TEST_SCP")}
    assert make_instance_file(100_000, number=4).endswith(came[1].data_set)
    assert came[1].file.endswith(came[1].data_set)
    stored = scp.stored
    assert [each.SOPInstanceUID for each in stored] == [instance_uid(3), instance_uid(4)]
    assert {each.tag: each.value for each in stored[0]} == {each.tag: each.value for each in sent}
    assert stored[0].file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN


async def test_echo() -> None:
    async with storage_scp() as scp:
        assert await echo(scp.address) >= 0


async def test_statuses_in_their_order_and_then_success() -> None:
    async with storage_scp() as scp, scp.link(CT) as association:
        scp.reply(0xA700, times=2)
        once = scp.reply(0xB000, comment="so so")
        responses = [await send(association, number) for number in range(1, 6)]
    assert [response.status for response in responses] == [0xA700, 0xA700, 0xB000, 0, 0]
    assert [response.error_comment for response in responses] == [None, None, "so so", None, None]
    assert once.calls == [instance_uid(3)]
    assert [each.status for each in scp.received] == [0xA700, 0xA700, 0xB000, 0, 0]
    assert [each.SOPInstanceUID for each in scp.stored] == [instance_uid(number) for number in (3, 4, 5)]


async def test_a_retry_survives(autojump_clock: trio.testing.MockClock) -> None:
    async with storage_scp() as scp, scp.link(CT) as association:
        scp.reply(0xA700, times=2)
        response = await send(association, max_retries=3, retry_delay=30)
    assert (response.is_success, response.attempts) == (True, 3)


async def test_replies_for_some() -> None:
    async with storage_scp() as scp, scp.link([*CT, SOPClass.MR]) as association:
        scp.reply(0xC001, sop_instance_uid=instance_uid(2), times=math.inf)
        scp.reply(0xC002, when=lambda instance: instance.sop_class_uid == SOPClass.MR)
        assert [(await send(association, number)).status for number in (1, 2, 2, 3)] == [0, 0xC001, 0xC001, 0]
        magnetic = make_instance(SOPClass.MR, number=9)
        assert [(await CStoreSCU(association).send(magnetic)).status for _ in range(2)] == [0xC002, 0]


async def test_a_delay(autojump_clock: trio.testing.MockClock) -> None:
    async with storage_scp() as scp, scp.link(CT) as association:
        scp.reply(delay=25)
        start = trio.current_time()
        assert (await send(association)).is_success
        assert trio.current_time() - start == 25


async def test_no_answer_at_all(autojump_clock: trio.testing.MockClock) -> None:
    """The deadline that ends it is the sender's: the handler's is off."""
    async with storage_scp() as scp:
        scp.reply_nothing()
        start = trio.current_time()
        with pytest.raises(OperationTimeout):
            async with scp.link(CT) as association:
                await send(association, timeout=1000)
        assert trio.current_time() - start == pytest.approx(1000, abs=2)
    assert [each.status for each in scp.received] == [None]
    assert scp.stored == []


@pytest.mark.parametrize("after_bytes", [None, 100_000])
async def test_an_abort(after_bytes: int | None, autojump_clock: trio.testing.MockClock) -> None:
    async with storage_scp() as scp:
        scp.abort(after_bytes=after_bytes)
        start = trio.current_time()
        with pytest.raises(AssociationAborted) as caught:
            async with scp.link(CT, stream=scp.stream(backpressure=True)) as association:
                await send(association, size=1 << 20)
        assert caught.value.by_peer
        assert caught.value.in_doubt is (after_bytes is None)
        assert trio.current_time() - start <= 1
        async with scp.link(CT) as association:
            assert (await send(association)).is_success
    assert [each.status for each in scp.received] == ([None, 0] if after_bytes is None else [0])


@pytest.mark.parametrize("used", [0, 1])
async def test_what_was_not_used_is_complained_of(used: int) -> None:
    async def use() -> None:
        async with storage_scp() as scp, scp.link(CT) as association:
            scp.reply(0xA700, times=2)
            for _ in range(used):
                await send(association)

    with pytest.raises(AssertionError, match=f"A700 was scripted for 2, and met by {used}"):
        await use()


async def test_an_error_of_the_body_is_the_only_one() -> None:
    with pytest.raises(OSError, match="of the body") as caught:  # noqa: PT012
        async with storage_scp() as scp:
            scp.reply(0xA700)
            raise OSError("of the body")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("status", ["A700", None, 42752.0, [0xA700]])
async def test_a_status_is_a_number(status: Any) -> None:
    async with storage_scp() as scp:
        with pytest.raises(TypeError, match=re.escape(f"a status is a number, such as 0xA700, not {status!r}")):
            scp.reply(status)


async def test_what_was_not_used_at_all_is_told_how_to_be_allowed() -> None:
    with pytest.raises(AssertionError, match=r"A700 .* for 2, and met by 0; `required=False` allows that$"):
        async with storage_scp() as scp:
            scp.reply(0xA700, times=2)


async def test_what_was_not_used_is_named() -> None:
    with pytest.raises(AssertionError, match="0000 was scripted for any number of requests, and met by 0"):
        async with storage_scp() as scp:
            scp.reply(times=math.inf)
    with pytest.raises(AssertionError, match=r"no answer was .*; an abort was"):  # noqa: PT012
        async with storage_scp() as scp:
            scp.reply_nothing()
            scp.abort()


async def test_what_was_not_used_need_not_be() -> None:
    async with storage_scp() as scp:
        scp.reply(required=False)
        scp.reply_nothing(required=False)
        scp.abort(required=False)
    async with storage_scp(assert_all_used=False) as scp:
        scp.reply()
    with pytest.raises(AssertionError):
        scp.assert_all_used()
    with pytest.raises(KeyError):  # noqa: PT012 - not hidden by the complaint
        async with storage_scp() as scp:
            scp.reply()
            raise KeyError("planted")
    with pytest.raises(ValueError, match="one request at least"):
        scp.reply(times=0)


async def test_wait_for(autojump_clock: trio.testing.MockClock) -> None:
    async with storage_scp() as scp, scp.link(CT) as association, trio.open_nursery() as nursery:
        await scp.wait_for(0)
        nursery.start_soon(send, association, 1)
        await scp.wait_for(1)
        assert len(scp.received) == 1
        start = trio.current_time()
        with pytest.raises(AssertionError, match="1 of 2 instances came within 50 s"):
            await scp.wait_for(2, timeout=50)
        assert trio.current_time() - start == 50


async def test_what_it_accepts() -> None:
    async with storage_scp(sop_classes=[SOPClass.MR], transfer_syntaxes=[IMPLICIT_VR_LITTLE_ENDIAN]) as scp:
        with pytest.raises(NoAcceptedContexts):
            async with scp.link(CT):
                pass
        async with scp.link([SOPClass.MR]) as association:
            (context,) = association.negotiated.contexts_for(SOPClass.MR)
            assert context.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    async with storage_scp() as scp, scp.link(["1.2.3.4"]) as association:
        assert association.is_open


async def test_whom_it_lets_in() -> None:
    async with storage_scp(ae_title="ARCHIVE", admission=Admission(calling_ae_titles=["FRIEND"])) as scp:
        with pytest.raises(AssociationRejected):
            async with open_association(scp.address, CT):
                pass
        async with scp.link(CT, settings=AssociationSettings(calling_ae_title="FRIEND")) as association:
            assert association.called_ae_title == "ARCHIVE"


async def test_tls() -> None:
    contexts = tls_contexts()
    async with (
        storage_scp(tls=contexts.server) as scp,
        open_association(scp.address, CT, tls=contexts.client) as association,
    ):
        assert (await send(association)).is_success


async def test_streams_with_faults(autojump_clock: trio.testing.MockClock) -> None:
    async with storage_scp() as scp:
        with pytest.raises(Exception, match="connection was lost"):
            async with scp.link(CT, stream=FaultyStream(scp.stream(), Reset(at_byte=5000))) as association:
                await send(association, size=50_000)
        assert scp.received == []
        broken = FaultyStream(scp.stream(), Reset(at_byte=100, direction=Direction.RECEIVING))
        with pytest.raises(Exception, match="connection was lost"):
            async with scp.link(CT, stream=broken):
                pass
