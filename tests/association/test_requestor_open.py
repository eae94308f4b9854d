"""open_association and wrap_client_stream: what is proposed, and that the stream is closed whatever comes of it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationAborted,
    AssociationRejected,
    AssociationSettings,
    AssociationTimeout,
    ConnectFailed,
    ConnectionLost,
    NoAcceptedContexts,
    PresentationContext,
    Retry,
    Timeouts,
    TrioDicomError,
    UnrecognisedPDU,
    open_association,
    wrap_client_stream,
)
from trio_dicom.protocol.pdu import PDU, Abort, AssociateRJ, AssociateRQ, PresentationContextAC, ReleaseRP, ReleaseRQ
from trio_dicom.protocol.user_information import AsynchronousOperationsWindow, MaximumLength
from trio_dicom.testing import ScriptedPeer, SOPClass, scripted_link
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

NATIVE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


async def proposal(
    contexts: list[PresentationContext | str], settings: AssociationSettings | None = None
) -> AssociateRQ:
    requests = []

    async def script(peer: ScriptedPeer) -> None:
        requests.append(await peer.accept())

    async with scripted_link(script, contexts, settings=settings):
        pass
    return requests[0]


async def test_what_is_proposed(autojump_clock: trio.testing.MockClock) -> None:
    request = await proposal([SOPClass.CT, VERIFICATION, SOPClass.CT, PresentationContext(SOPClass.CT, NATIVE[:1])])
    assert request.called_ae_title == "ANY-SCP"
    assert request.calling_ae_title == "TRIO_DICOM"
    proposed = request.presentation_contexts
    assert [(each.context_id, each.abstract_syntax, each.transfer_syntaxes) for each in proposed] == [
        (1, SOPClass.CT, NATIVE),
        (3, VERIFICATION, NATIVE),
        (5, SOPClass.CT, NATIVE[:1]),
    ]
    assert MaximumLength(131_072) in request.user_information
    assert not any(isinstance(item, AsynchronousOperationsWindow) for item in request.user_information)


async def test_what_is_proposed_with_settings(autojump_clock: trio.testing.MockClock) -> None:
    settings = AssociationSettings(calling_ae_title="SCANNER", max_pdu_length=4096, operations_window=8)
    request = await proposal([SOPClass.CT], settings)
    assert request.calling_ae_title == "SCANNER"
    assert MaximumLength(4096) in request.user_information
    assert AsynchronousOperationsWindow(8, 1) in request.user_information


@pytest.mark.parametrize(
    ("contexts", "error"),
    [
        ([], ValueError),
        ([PresentationContext(SOPClass.CT, (f"1.2.{number}",)) for number in range(129)], ValueError),
        (["CT"], ValueError),
        (SOPClass.CT, TypeError),
    ],
)
async def test_contexts_that_cannot_be_proposed(contexts: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        async with open_association("PACS@host.invalid:104", contexts):
            raise AssertionError("nobody was asked")
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        with pytest.raises(error):
            await wrap_client_stream(nursery, ours, contexts)
    assert await theirs.receive_some() == b""


@pytest.mark.parametrize("address", ["host:104", "PACS@host", "PACS@host:0"])
async def test_a_peer_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match=r"no AE title|no host and port|not a port"):
        async with open_association(address, [SOPClass.CT]):
            raise AssertionError("nobody was asked")


async def says_nothing(peer: ScriptedPeer) -> None:
    await trio.sleep_forever()


async def rejects(peer: ScriptedPeer) -> None:
    await peer.receive_pdu()
    await peer.send(AssociateRJ(1, 1, 7))


async def aborts(peer: ScriptedPeer) -> None:
    await peer.receive_pdu()
    await peer.send(Abort(2, 0))


async def closes(peer: ScriptedPeer) -> None:
    await peer.receive_pdu()
    await peer.close()


async def speaks_http(peer: ScriptedPeer) -> None:
    await peer.receive_pdu()
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await peer.hold()
    await peer.close()


async def accepts_nothing(peer: ScriptedPeer) -> None:
    await peer.accept(presentation_contexts=(PresentationContextAC(1, 3, ()),))
    if isinstance(await peer.receive_pdu(), ReleaseRQ):
        await peer.send(ReleaseRP())
    await peer.receive_pdu()
    await peer.close()


@pytest.mark.parametrize(
    ("script", "error", "seconds", "last"),
    [
        (says_nothing, AssociationTimeout, 8, None),
        (rejects, AssociationRejected, 0, AssociateRQ),
        (aborts, AssociationAborted, 0, AssociateRQ),
        (closes, ConnectionLost, 0, AssociateRQ),
        (speaks_http, UnrecognisedPDU, 0, Abort),
        (accepts_nothing, NoAcceptedContexts, 0, ReleaseRQ),
    ],
)
async def test_no_association(
    script: object,
    error: type[TrioDicomError],
    seconds: float,
    last: type[PDU] | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)
    settings = AssociationSettings(timeouts=Timeouts(association=7))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)  # type: ignore[arg-type]
        with trio.move_on_after(100) as callers, pytest.raises(error):
            await wrap_client_stream(nursery, ours, [SOPClass.CT], settings=settings)
        assert not callers.cancelled_caught
        assert trio.current_time() == pytest.approx(seconds, abs=0.01)  # 1 s of it for a good-bye that nobody hears
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    if last is not None:
        assert isinstance(peer.pdus[-1], last)


async def test_the_answer_counts_even_when_it_drips(autojump_clock: trio.testing.MockClock) -> None:
    """The deadline is of the whole answer, not of each byte."""

    async def script(peer: ScriptedPeer) -> None:
        send = peer.stream.send_all

        async def drip(data: bytes) -> None:
            for byte in bytes(data):
                await trio.sleep(1)
                await send(bytes([byte]))

        peer.stream.send_all = drip  # type: ignore[method-assign, assignment]
        await peer.accept()

    with pytest.raises(AssociationTimeout):
        async with scripted_link(script, settings=AssociationSettings(timeouts=Timeouts(association=20))):
            raise AssertionError("there is no association")
    assert trio.current_time() < 25


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), trio.BrokenResourceError()])
async def test_a_tunnel_that_breaks(error: Exception) -> None:
    """Made of sockets, or of trio's streams."""

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(ConnectFailed, match="Connection reset by peer") as caught:
        async with open_association("PACS@behind-it:104", [VERIFICATION], connect=connect):
            pytest.fail("there is no association")
    assert caught.value.errno == 104
    assert caught.value.retry is Retry.LATER
    assert caught.value.__cause__ is error
