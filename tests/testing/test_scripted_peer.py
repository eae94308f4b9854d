"""ScriptedPeer in both roles, against associations of ours."""

from __future__ import annotations

import io
import ssl

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationAborted,
    AssociationRejected,
    CStoreSCU,
    PresentationContext,
    StorageSCP,
    UnexpectedPDU,
    UnrecognisedPDU,
    open_association,
)
from trio_dicom.protocol.command import CEchoRQ, CStoreRQ
from trio_dicom.protocol.pdu import Abort, AssociateAC, AssociateRJ, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.services.instance import Instance
from trio_dicom.testing import (
    Script,
    ScriptedPeer,
    SOPClass,
    acceptance,
    answering,
    association_request,
    encoded,
    instance_uid,
    instead_of_accept,
    instead_of_response,
    make_instance_file,
    message,
    response_to,
    scripted_link,
    scripted_listener,
    scripted_requestor,
    tls_contexts,
    whole_pdus,
)
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION


class Archive:
    """A service that keeps what comes, and answers with the next of `statuses`."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.stored: list[tuple[str, str, bytes]] = []
        self.service = StorageSCP(self.keep, sop_classes=[SOPClass.CT, SOPClass.MR])

    async def keep(self, instance: Instance) -> int:
        self.stored.append((instance.sop_instance_uid, instance.transfer_syntax_uid, await instance.read()))
        return self.statuses.pop(0) if self.statuses else 0


# --- as the requestor -------------------------------------------------------------------------------------------------


async def test_it_asks_stores_echoes_and_releases() -> None:
    archive = Archive(0, 0xA700)
    file = make_instance_file(20_000, number=4)

    async def script(peer: ScriptedPeer) -> None:
        contexts = [VERIFICATION, PresentationContext(SOPClass.CT, [IMPLICIT_VR_LITTLE_ENDIAN]), SOPClass.CT]
        answer = await peer.associate(contexts, called_ae_title="ARCHIVE", calling_ae_title="NOBODY")
        assert isinstance(answer, AssociateAC)
        assert [each.context_id for each in answer.presentation_contexts] == [1, 3, 5]
        assert peer.context_id_for(SOPClass.CT) == 3
        assert peer.context_id_for(SOPClass.CT, EXPLICIT_VR_LITTLE_ENDIAN) == 5
        assert peer.context_id_for("1.2.3") == 1
        assert await peer.echo() == 0
        response = await peer.store(file)
        assert (response.status, response.affected_sop_instance_uid) == (0, instance_uid(4))
        assert (await peer.store(file)).status == 0xA700
        assert await peer.release() == ReleaseRP()
        assert not peer.is_associated

    async with scripted_requestor(script, archive.service) as association:
        assert (association.called_ae_title, association.calling_ae_title) == ("ARCHIVE", "NOBODY")
        await association.wait_closed()
        assert association.failure is None
    assert [uid for uid, _, _ in archive.stored] == [instance_uid(4)] * 2
    assert {syntax for _, syntax, _ in archive.stored} == {EXPLICIT_VR_LITTLE_ENDIAN}
    assert all(file.endswith(data_set) and len(data_set) > 20_000 for _, _, data_set in archive.stored)


async def test_it_can_lie() -> None:
    archive = Archive()

    async def script(peer: ScriptedPeer) -> None:
        await peer.associate(max_pdu_length=None, window=5)
        response = await peer.store(make_instance_file(), affected_sop_class_uid=str(SOPClass.MR))
        assert response.status == 0x0122
        response = await peer.store(make_instance_file(), affected_sop_instance_uid="nonsense")
        assert response.status == 0xC000
        await peer.send_message(1, CStoreRQ(9, SOPClass.CT, "1.2.3"), b"one\0", max_pdu_length=8)
        _, command, _ = await peer.receive_message()
        assert command == response_to(CStoreRQ(9, SOPClass.CT, "1.2.3"))
        await peer.send(b"\x99\0\0\0\0\0")
        assert await peer.receive_pdu() == Abort(2, 1)

    async with scripted_requestor(script, archive.service) as association:
        assert association.negotiated.peer_max_pdu_length == 0
        await association.wait_closed()
        assert isinstance(association.failure, UnrecognisedPDU)
    assert archive.stored == [("1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, b"one\0")]


async def test_it_aborts() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([VERIFICATION])
        await peer.abort(2, 4)

    async with scripted_requestor(script) as association:
        await association.wait_closed()
        assert isinstance(association.failure, AssociationAborted)
        assert (association.failure.source, association.failure.reason) == (2, 4)


async def test_it_releases_when_the_script_ends() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([VERIFICATION])

    async with scripted_requestor(script) as association:
        await association.wait_closed()
        assert association.failure is None


async def test_it_is_told_why_not() -> None:
    answers: list[object] = []

    async def script(peer: ScriptedPeer) -> None:
        answers.append(await peer.associate([VERIFICATION], protocol_version=2))

    with pytest.raises(AssociationRejected):
        async with scripted_requestor(script):
            raise AssertionError("there is no association")
    assert [type(answer) for answer in answers] == [AssociateRJ]


async def test_what_goes_wrong_in_a_script_comes_out() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([VERIFICATION])
        assert await peer.echo() == 0x0110, "planted"

    with pytest.raises(AssertionError, match="planted"):
        async with scripted_requestor(script) as association:
            await association.wait_closed()


# --- as the acceptor --------------------------------------------------------------------------------------------------


async def test_it_hears_pdus_messages_and_bytes() -> None:
    peers: list[ScriptedPeer] = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        request = await peer.accept(max_pdu_length=500)
        assert isinstance(request, AssociateRQ)
        context_id, command, data_set = await peer.receive_message()
        assert (context_id, type(command)) == (1, CStoreRQ)
        assert make_instance_file(2000).endswith(data_set)
        await peer.answer(context_id, command, 0xB000, error_comment="so so")

    async with scripted_link(script) as association:
        response = await CStoreSCU(association).send(io.BytesIO(make_instance_file(2000)))
    assert (response.status, response.error_comment) == (0xB000, "so so")
    kinds = [type(pdu) for pdu in peers[0].pdus]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == (AssociateRQ, ReleaseRQ, {PDataTF})
    with pytest.raises(ValueError, match="cut off after"):
        whole_pdus(peers[0].received[:-1])
    assert len(whole_pdus(peers[0].received[:-1], may_be_cut=True)) == len(kinds) - 1


async def test_scripts_of_one_line() -> None:
    async def statuses(script: Script, count: int) -> list[int]:
        async with scripted_link(script) as association:
            scu = CStoreSCU(association)
            return [(await scu.send(io.BytesIO(make_instance_file()))).status for _ in range(count)]

    assert await statuses(answering(0xA700, 0xB000), 2) == [0xA700, 0xB000]
    assert await statuses(lambda peer: peer.serve(), 3) == [0, 0, 0]
    with pytest.raises(AssociationRejected, match="local limit exceeded"):
        await statuses(instead_of_accept(AssociateRJ(2, 3, 2)), 0)
    with pytest.raises(AssociationAborted):
        await statuses(instead_of_response(Abort(2, 0)), 1)
    said = instead_of_response(lambda context_id, request: message(context_id, response_to(request, 0xC123)))
    assert await statuses(said, 1) == [0xC123]


async def test_the_bodys_exception_group_is_its_own() -> None:
    group = ExceptionGroup("two", [ValueError(1), KeyError(2)])
    with pytest.raises(ExceptionGroup) as caught:
        async with scripted_link(ScriptedPeer.serve):
            raise group from OSError("why")
    assert caught.value is group
    assert isinstance(group.__cause__, OSError)


async def test_after_an_abort_it_closes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_link(ScriptedPeer.serve) as association:
        await association.abort()
        assert trio.current_time() == 0


async def test_a_violation_is_told_apart() -> None:
    with pytest.raises(UnexpectedPDU):
        async with scripted_link(instead_of_response(association_request(), b"")) as association:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file()))


# --- values -----------------------------------------------------------------------------------------------------------


def test_requests_and_acceptances_are_values() -> None:
    request = association_request([SOPClass.CT, VERIFICATION], window=(0, 3), max_pdu_length=None)
    assert whole_pdus(encoded(request)) == [request]
    answer = acceptance(request, window=2)
    assert whole_pdus(encoded(answer)) == [answer]
    assert [each.result for each in answer.presentation_contexts] == [0, 0]
    (pdu,) = whole_pdus(message(3, CEchoRQ(1, VERIFICATION)))
    assert isinstance(pdu, PDataTF)
    assert [(pdv.context_id, pdv.is_command, pdv.is_last) for pdv in pdu.pdvs] == [(3, True, True)]


# --- on a port --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
async def test_a_port_where_each_connection_has_its_script(secured: bool) -> None:
    contexts = tls_contexts() if secured else None
    client: ssl.SSLContext | None = contexts.client if contexts else None
    scripts = answering(0xA700), answering(0)
    async with scripted_listener(*scripts, tls=contexts.server if contexts else None) as listener:
        assert listener.address.endswith(f"@127.0.0.1:{listener.port}")
        statuses = []
        for _ in range(3):
            async with open_association(listener.address, [SOPClass.CT], tls=client) as association:
                scu = CStoreSCU(association)
                statuses.append((await scu.send(io.BytesIO(make_instance_file()))).status)
    assert statuses == [0xA700, 0, 0]
    assert [type(peer.pdus[-1]) for peer in listener.peers] == [ReleaseRQ] * 3


async def test_nonsense_on_a_port_harms_nobody() -> None:
    async with scripted_listener(ScriptedPeer.serve) as listener:
        async with await trio.open_tcp_stream("127.0.0.1", listener.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await stream.receive_some() == b""
        async with open_association(listener.address, [VERIFICATION]) as association:
            await association.echo()


async def test_a_script_that_fails_on_a_port_is_heard_of() -> None:
    async def script(peer: ScriptedPeer) -> None:
        raise AssertionError("planted")

    async def meet_it() -> None:
        async with (
            scripted_listener(script) as listener,
            await trio.open_tcp_stream("127.0.0.1", listener.port),
        ):
            await trio.sleep_forever()

    with pytest.raises(AssertionError, match="planted"):
        await meet_it()
    with pytest.raises(ValueError, match="no script"):
        async with scripted_listener():
            pass


async def test_a_file_that_is_none() -> None:
    peer = ScriptedPeer(trio.testing.memory_stream_pair()[0])
    with pytest.raises(Exception, match="not a DICOM file"):
        await peer.store(b"nothing")
