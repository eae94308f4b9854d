import pytest
import trio
from my_sender import send_all

from trio_dicom import (
    AssociationAborted,
    ConnectionLost,
    OperationTimeout,
    StatusError,
    TLSVerifyError,
    echo,
    send_file,
)
from trio_dicom.testing import (
    FaultyStream,
    Reset,
    SOPClass,
    TLSFault,
    cancel_at_every_checkpoint,
    make_instance_file,
    make_study,
    memory_link,
    scripted_link,
    storage_scp,
    tls_contexts,
)

CONTEXTS = [SOPClass.CT]


async def test_my_sender_survives_a700_twice(dicom_scp, autojump_clock):
    dicom_scp.reply(0xA700, times=2)
    async with dicom_scp.link(CONTEXTS) as association:
        await send_all(association, make_study(3))
    assert len(dicom_scp.stored) == 3


async def test_my_code_cancels_within_a_second(dicom_scp, autojump_clock):
    dicom_scp.reply_nothing()
    with trio.move_on_after(5) as patience:
        async with dicom_scp.link(CONTEXTS) as association:
            await send_all(association, make_study(3))
    assert patience.cancelled_caught
    assert trio.current_time() < 6


async def test_what_arrived_is_what_i_sent(dicom_scp, autojump_clock):
    study = make_study(3)
    async with dicom_scp.link(CONTEXTS) as association:
        await send_all(association, study)
    assert dicom_scp.stored == study


async def test_my_sender_tells_me_why_it_failed(dicom_scp, autojump_clock):
    dicom_scp.reply(0xA900, comment="no such class")
    async with dicom_scp.link(CONTEXTS) as association:
        with pytest.raises(StatusError, match="0xA900"):
            await send_all(association, make_study(1))


async def test_my_sender_does_not_wait_for_ever(dicom_scp, autojump_clock):
    dicom_scp.reply_nothing()
    async with dicom_scp.link(CONTEXTS) as association:
        with pytest.raises(OperationTimeout) as caught:
            await send_all(association, make_study(1))
    assert caught.value.in_doubt


async def test_the_network_fails_in_the_middle(dicom_scp, autojump_clock):
    stream = FaultyStream(dicom_scp.stream(), Reset(at_byte=1000))
    async with dicom_scp.link(CONTEXTS, stream=stream) as association:
        with pytest.raises(ConnectionLost):
            await send_all(association, make_study(3))
    assert dicom_scp.stored == []


async def test_my_files_over_a_port(dicom_scp, tmp_path):
    path = tmp_path / "ct.dcm"
    path.write_bytes(make_instance_file())
    response = await send_file(dicom_scp.address, path)
    assert response.status == 0x0000
    assert len(dicom_scp.received) == 1


async def test_my_files_over_tls(dicom_tls, tmp_path):
    path = tmp_path / "ct.dcm"
    path.write_bytes(make_instance_file())
    async with storage_scp(tls=dicom_tls.server) as scp:
        response = await send_file(scp.address, path, tls=dicom_tls.client)
    assert response.status == 0x0000


async def test_a_certificate_of_somebody_else():
    contexts = tls_contexts(fault=TLSFault.OTHER_AUTHORITY)
    async with storage_scp(tls=contexts.server) as scp:
        with pytest.raises(TLSVerifyError):
            await echo(scp.address, tls=contexts.client)


async def test_a_peer_with_a_mind_of_its_own(autojump_clock):
    async def script(peer):
        await peer.accept(max_pdu_length=4096)
        context_id, request, data_set = await peer.receive_message()
        assert len(data_set) % 2 == 0
        await peer.answer(context_id, request, status=0xB000, error_comment="coerced")

    async with scripted_link(script, CONTEXTS) as association:
        await send_all(association, make_study(1))


async def test_a_peer_that_says_what_no_peer_should(autojump_clock):
    async def script(peer):
        await peer.accept()
        await peer.receive_message()
        await peer.abort(source=2, reason=0)

    async with scripted_link(script, CONTEXTS) as association:
        with pytest.raises(AssociationAborted):
            await send_all(association, make_study(1))


def test_my_sender_can_be_cancelled_anywhere():
    async def scenario(cut):
        async with storage_scp() as scp:
            with cut:
                async with scp.link(CONTEXTS) as association:
                    await send_all(association, make_study(1))
            assert len(scp.stored) <= 1

    assert cancel_at_every_checkpoint(scenario) > 10


async def test_over_my_own_service():
    async with memory_link() as (requestor, acceptor):
        assert await requestor.echo() >= 0
        assert acceptor.calling_ae_title == requestor.calling_ae_title
