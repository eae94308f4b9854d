"""What a service may do with the association on which it is performed, and what is left of one that has ended."""

from __future__ import annotations

import gc
import io
import ssl
import weakref
from collections.abc import Container
from contextlib import suppress

import pytest
import trio
import trio.testing

from trio_dicom import (
    Admission,
    AssociationAborted,
    AssociationRejected,
    AssociationSettings,
    CStoreSCU,
    Instance,
    LocalProtocolError,
    Role,
    Status,
    StorageSCP,
    UnexpectedPDU,
    echo,
    open_sender,
    serve_associations,
    wrap_server_stream,
)
from trio_dicom.protocol.command import CEchoRQ, CEchoRSP, CStoreRQ, encode_command
from trio_dicom.protocol.pdu import PDV, Abort, PDataTF
from trio_dicom.protocol.user_information import RoleSelection
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    association_request,
    encoded,
    make_instance_file,
    memory_link,
    message,
    scripted_requestor,
)
from trio_dicom.uids import VERIFICATION

CONTEXTS = [SOPClass.CT]


async def test_a_handler_that_aborts_does_not_wait_for_itself(autojump_clock: trio.testing.MockClock) -> None:
    ended_at = 0.0

    async def handler(instance: Instance) -> Status:
        nonlocal ended_at
        try:
            await instance.association.abort()
        finally:
            ended_at = trio.current_time()
        return Status(0)

    async with memory_link(CONTEXTS, StorageSCP(handler)) as (requestor, acceptor):
        with pytest.raises(AssociationAborted) as caught:
            await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))
        await acceptor.wait_closed()
    assert caught.value.by_peer
    assert ended_at == 0.0


async def test_a_handler_cannot_release_its_association(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(instance: Instance) -> Status:
        async with trio.open_nursery() as nursery:  # nor a task below it
            nursery.start_soon(close, instance)
        return Status(0)

    async def close(instance: Instance) -> None:
        with pytest.raises(LocalProtocolError, match="cannot release"):
            await instance.association.aclose()

    async with memory_link(CONTEXTS, StorageSCP(handler)) as (requestor, _):
        assert (await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))).is_success
    assert trio.current_time() == 0.0


async def test_an_association_that_has_ended_is_no_garbage_to_be_collected() -> None:
    async def handler(instance: Instance) -> Status:
        await instance.read()
        return Status(0)

    gc.collect()
    gc.disable()
    try:
        async with memory_link(CONTEXTS, StorageSCP(handler)) as (requestor, acceptor):
            assert (await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))).is_success
        await trio.testing.wait_all_tasks_blocked()
        ended = [weakref.ref(requestor), weakref.ref(acceptor)]
        del requestor, acceptor
        await trio.testing.wait_all_tasks_blocked()
        assert [each() for each in ended] == [None, None]
    finally:
        gc.enable()


async def test_an_acceptor_that_invokes_operations_is_not_idle(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([VERIFICATION], user_items=[RoleSelection(VERIFICATION, True, True)])
        with suppress(AssertionError):  # the A-RELEASE-RQ comes in place of a request
            while True:
                context_id, request, _ = await peer.receive_message()
                await peer.answer(context_id, request)

    settings = AssociationSettings(roles={VERIFICATION: Role(scu=True, scp=True)})
    async with scripted_requestor(script, settings=settings) as association:
        for _ in range(30):
            await association.echo()
            await trio.sleep(10)
        await association.abort()


async def test_a_pdu_that_is_coming_in_is_not_silence(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([VERIFICATION])
        await trio.sleep(55)
        echo = message(1, CEchoRQ(7, VERIFICATION))
        for byte in range(0, len(echo), 8):
            await peer.send(echo[byte : byte + 8])
            await trio.sleep(2)
        _, response, _ = await peer.receive_message()
        assert isinstance(response, CEchoRSP)
        await peer.release()

    async with scripted_requestor(script) as association:
        await association.wait_closed()
    assert trio.current_time() > 62
    assert association.failure is None


async def test_a_pdu_that_has_come_whole_is_not_overdue(autojump_clock: trio.testing.MockClock) -> None:
    """Though it takes long to be handled, with turns of others between."""

    class Slow(StorageSCP):
        is_slow = False

        def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
            if self.is_slow:
                autojump_clock.jump(2)
            return super().transfer_syntaxes(abstract_syntax)

    async def handler(instance: Instance) -> Status:
        return Status(0 if len(await instance.read()) == 600 else 0xC000)

    async def script(peer: ScriptedPeer) -> None:
        await peer.associate(CONTEXTS)
        slow.is_slow = True
        command = encode_command(CStoreRQ(1, SOPClass.CT.value, "1.2.3"))
        data = [PDV(1, False, number == 299, b"xx") for number in range(300)]
        raw = encoded(PDataTF((PDV(1, True, True, command), *data)))
        await peer.send(raw[:-1])
        await trio.sleep(29)
        await peer.send(raw[-1:])
        _, response, _ = await peer.receive_message()
        assert response.status == 0  # type: ignore[union-attr]
        await peer.release()

    slow = Slow(handler)
    async with scripted_requestor(script, slow) as association:
        await association.wait_closed()
    assert association.failure is None


async def test_more_requests_than_anybody_may_ask_for_end_the_association(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(instance: Instance) -> Status:
        await trio.sleep_forever()
        return Status(0)

    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([*CONTEXTS, VERIFICATION])
        await peer.send_message(1, CStoreRQ(1, SOPClass.CT.value, "1.2.3"), b"xx")
        echo = encode_command(CEchoRQ(2, VERIFICATION))
        await peer.send(PDataTF(tuple(PDV(3, True, True, echo) for _ in range(600))))
        assert await peer.receive_pdu() == Abort(0, 0)

    async with scripted_requestor(script, StorageSCP(handler)) as association:
        await association.wait_closed()
    assert isinstance(association.failure, UnexpectedPDU)


async def test_verification_is_served_whatever_a_service_says_of_it() -> None:
    jpeg = "1.2.840.10008.1.2.4.50"

    async def handler(instance: Instance) -> Status:
        return Status(0)

    service = StorageSCP(handler, accept_private=True, transfer_syntaxes=[jpeg])
    async with memory_link([VERIFICATION], service) as (requestor, _):
        assert await requestor.echo() >= 0


async def test_a_rejection_that_nobody_reads(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    request = encoded(association_request(CONTEXTS, called_ae_title="WRONG"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, request)
        with pytest.raises(AssociationRejected):
            await wrap_server_stream(nursery, ours, (), admission=Admission(ae_title="RIGHT"))
    assert trio.current_time() <= 32


async def test_what_is_no_context_of_tls() -> None:
    with pytest.raises(TypeError, match=r"tls is an ssl.SSLContext, not bool: trio_dicom.tls.client_context and"):
        await serve_associations((), 0, tls=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"tls is an ssl.SSLContext"):
        await echo("PACS@127.0.0.1:1", tls=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"tls is an ssl.SSLContext"):
        async with open_sender("PACS@127.0.0.1:1", tls=True):  # type: ignore[arg-type]
            pass


async def test_a_context_of_a_client_is_no_context_of_a_server() -> None:
    with pytest.raises(ValueError, match="client's context"):
        await serve_associations((), 0, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
