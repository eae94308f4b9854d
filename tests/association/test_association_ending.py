"""How an association ends: by either side, well or not, and who is told what."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationAborted,
    AssociationClosed,
    AssociationSettings,
    AssociationTimeout,
    ConnectionLost,
    CStoreOptions,
    CStoreSCU,
    InternalError,
    OperationTimeout,
    Timeouts,
    UnexpectedPDU,
    connect_association,
    open_association,
)
from trio_dicom.association import requestor
from trio_dicom.protocol.pdu import Abort, AssociateAC, ReleaseRP, ReleaseRQ
from trio_dicom.testing import Script, ScriptedPeer, SOPClass, make_instance_file, message, response_to, scripted_link
from trio_dicom.uids import VERIFICATION


def stream(number: int = 1, size: int = 1000) -> io.BytesIO:
    return io.BytesIO(make_instance_file(size, number=number))


class Listener:
    """In place of a network: each connection is a pair of memory streams with `script` at the other end."""

    def __init__(self, nursery: trio.Nursery, script: Script) -> None:
        self._nursery, self._script = nursery, script
        self.peers: list[ScriptedPeer] = []

    async def dial(self, *_: object) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.peers.append(ScriptedPeer(theirs))
        self._nursery.start_soon(self._follow, self.peers[-1])
        return ours

    async def _follow(self, peer: ScriptedPeer) -> None:
        try:
            await self._script(peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await peer.finish()


@asynccontextmanager
async def listening(script: Script, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    async with trio.open_nursery() as nursery:
        listener = Listener(nursery, script)
        monkeypatch.setattr(requestor, "dial", listener.dial)
        yield listener


async def silent(peer: ScriptedPeer) -> None:
    await peer.accept()
    await hold(peer)


async def hold(peer: ScriptedPeer) -> None:
    """Say nothing, until it is told to go."""
    await peer.hold()
    await peer.close()


# --- the body -------------------------------------------------------------------------------------------------------


async def test_a_body_that_ends_well(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(ScriptedPeer.serve, monkeypatch) as listener:  # noqa: SIM117
        async with open_association("PACS@host:104", [SOPClass.CT]) as association:
            assert association.is_open
            assert str(association.peer) == "PACS@host:104"
            assert (await CStoreSCU(association).send(stream())).is_success
    assert isinstance(listener.peers[0].pdus[-1], ReleaseRQ)
    assert not association.is_open
    assert association.failure is None
    await association.wait_closed()


class BodyError(Exception):
    pass


@pytest.mark.fault_row(113)
@pytest.mark.parametrize("error", [BodyError("mine"), ExceptionGroup("mine too", [BodyError()]), KeyboardInterrupt()])
async def test_a_bodys_error_leaves_as_it_is(
    error: BaseException, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(ScriptedPeer.serve, monkeypatch) as listener:
        with pytest.raises(type(error)) as caught:
            async with open_association("PACS@host:104", [SOPClass.CT]) as association:
                raise error
        assert caught.value is error
        await association.wait_closed()
    assert listener.peers[0].pdus[-1] == Abort(0, 0)


@pytest.mark.fault_row(112)
async def test_a_body_that_is_cancelled(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(silent, monkeypatch) as listener:
        with trio.move_on_after(5) as scope:
            async with open_association("PACS@host:104", [SOPClass.CT]) as association:
                await CStoreSCU(association).send(stream())
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(5, abs=0.01)
        await association.wait_closed()
    assert listener.peers[0].pdus[-1] == Abort(0, 0)


@pytest.mark.fault_row(113)
async def test_a_body_whose_peer_never_reads_again(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clean-up of a cancelled body has a deadline of its own."""

    async def dead(peer: ScriptedPeer) -> None:
        await peer.accept()
        await trio.sleep(50)

    async with listening(dead, monkeypatch):
        with trio.move_on_after(5):
            async with open_association("PACS@host:104", [SOPClass.CT]):
                await trio.sleep_forever()
        assert trio.current_time() == pytest.approx(6, abs=0.01)


# --- the peer aborts, or is lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "reason"), [(0, 0), (2, 0), (2, 1), (2, 6), (1, 255), (77, 3)])
async def test_the_peer_aborts(
    source: int, reason: int, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is not cancelled; what it does with the association fails; if it ends well, all is well."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await trio.sleep(5)
        await peer.send(Abort(source, reason))

    async with listening(script, monkeypatch):
        async with open_association("PACS@host:104", [SOPClass.CT]) as association:
            await association.wait_closed()
            assert trio.current_time() == pytest.approx(5, abs=0.01)
            for _ in range(2):
                with pytest.raises(AssociationAborted) as caught:
                    await CStoreSCU(association).send(stream())
                error = caught.value
                assert (error.source, error.reason, error.by_peer, error.in_doubt) == (source, reason, True, False)
            assert error is not association.failure
            await trio.sleep(10)
        assert isinstance(association.failure, AssociationAborted)


async def test_an_abort_reaches_all_in_flight_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Those who wait for an answer, the one who is blocked in a write, and those who have not begun."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=0)
        await peer.receive_message()
        await trio.sleep(1)
        await peer.send(Abort(2, 0))
        await trio.sleep_forever()

    errors: dict[int, AssociationAborted] = {}
    settings = AssociationSettings(operations_window=0)
    streams = trio.testing.lockstep_stream_pair()
    async with scripted_link(script, settings=settings, streams=streams) as association:

        async def send(number: int) -> None:
            with pytest.raises(AssociationAborted) as caught:
                await CStoreSCU(association).send(stream(number, 1000 if number < 1 else 20 << 20))
            errors[number] = caught.value
            assert trio.current_time() == pytest.approx(1, abs=0.01)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked()
    assert {number: error.in_doubt for number, error in errors.items()} == {0: True, 1: False, 2: False, 3: False}
    assert all(error.by_peer for error in errors.values())


async def test_the_peer_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await peer.close()

    async with scripted_link(script) as association:
        with pytest.raises(ConnectionLost) as caught:
            await CStoreSCU(association).send(stream())
        assert caught.value.in_doubt
        assert isinstance(association.failure, ConnectionLost)


async def test_a_pdu_that_never_ends(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for byte in b"\x04\0\0\0\0\x20" + bytes(31):
            await peer.send(bytes([byte]))
            await trio.sleep(1)
        await hold(peer)

    settings = AssociationSettings(timeouts=Timeouts(pdu=10))
    async with scripted_link(script, settings=settings) as association:
        await trio.sleep(9.9)
        assert association.is_open
        await trio.sleep(0.2)  # however it drips
        assert not association.is_open
        await association.wait_closed()
        assert isinstance(association.failure, AssociationTimeout)


async def test_each_pdu_has_its_own_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """Chunks that always end in the middle of a PDU, for longer than any one PDU may take."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=0)
        answers = b""
        for _ in range(8):
            context_id, request, _ = await peer.receive_message()
            answers += message(context_id, response_to(request))
        size = len(answers) // 8
        await peer.send(answers[:7])
        for at in range(7, len(answers), size):
            await trio.sleep(6)
            await peer.send(answers[at : at + size])

    settings = AssociationSettings(timeouts=Timeouts(pdu=10), operations_window=0)
    async with scripted_link(script, settings=settings) as association, trio.open_nursery() as nursery:
        scu = CStoreSCU(association, CStoreOptions(timeout=math.inf))
        for number in range(8):
            nursery.start_soon(scu.send, stream(number))


async def test_a_violation_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        request = await peer.accept()
        await peer.send(AssociateAC(request.called_ae_title, request.calling_ae_title, (), ()))
        await hold(peer)

    async with scripted_link(script) as association:
        await association.wait_closed()
        assert isinstance(association.failure, UnexpectedPDU)
        with pytest.raises(UnexpectedPDU):
            await CStoreSCU(association).send(stream())
    assert peers[0].pdus[-1] == Abort(2, 2)


# --- we end it ------------------------------------------------------------------------------------------------------


async def test_abort(autojump_clock: trio.testing.MockClock) -> None:
    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        await silent(peer)

    async with scripted_link(script) as association, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(AssociationAborted) as caught:
                await CStoreSCU(association).send(stream())
            assert not caught.value.by_peer
            assert caught.value.in_doubt

        await trio.sleep(1)
        await association.abort()
        assert not association.is_open
        await association.abort()
        await association.aclose()
        assert trio.current_time() == pytest.approx(1, abs=0.01)
    assert peers[0].pdus[-1] == Abort(0, 0)


async def test_aclose_twice_and_at_once(autojump_clock: trio.testing.MockClock) -> None:
    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        await peer.serve()

    async with scripted_link(script) as association:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(association.aclose)
            nursery.start_soon(association.aclose)
        await association.aclose()
        assert association.failure is None
        with pytest.raises(AssociationClosed):
            await CStoreSCU(association).send(stream())
    assert [type(pdu) for pdu in peers[0].pdus[1:]] == [ReleaseRQ]


async def test_a_release_without_an_answer(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    peers = []

    async def script(peer: ScriptedPeer) -> None:
        peers.append(peer)
        await silent(peer)

    settings = AssociationSettings(timeouts=Timeouts(release=4))
    async with scripted_link(script, settings=settings) as association:
        with caplog.at_level(logging.WARNING), trio.move_on_after(100) as callers:
            await association.aclose()
        assert not callers.cancelled_caught
        assert trio.current_time() == pytest.approx(4, abs=0.01)
        assert association.failure is None
    assert [type(pdu) for pdu in peers[0].pdus[1:]] == [ReleaseRQ, Abort]
    assert "did not answer the release within 4 s" in caplog.text


async def test_an_abort_in_place_of_the_release(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_pdu()
        await peer.send(Abort(2, 0))

    async with scripted_link(script) as association:
        await association.aclose()
        assert isinstance(association.failure, AssociationAborted)


@pytest.mark.parametrize("ends_by", ["abort", "close", "silence"])
async def test_the_end_while_a_release_waits_for_answers(ends_by: str, autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await trio.sleep(2)
        if ends_by == "abort":
            await peer.send(Abort(0, 0))
        elif ends_by == "close":
            await peer.close()
        else:
            await hold(peer)

    settings = AssociationSettings(timeouts=Timeouts(release=4))
    async with scripted_link(script, settings=settings) as association, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises((AssociationAborted, ConnectionLost, AssociationClosed)) as caught:
                await CStoreSCU(association).send(stream())
            assert caught.value.in_doubt

        await trio.testing.wait_all_tasks_blocked()
        await association.aclose()
        assert trio.current_time() == pytest.approx(4 if ends_by == "silence" else 2, abs=0.01)


async def test_data_after_our_release_request(autojump_clock: trio.testing.MockClock) -> None:
    """AR-6: what still comes in Sta7 is taken; here, the response to an echo that was given up."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await trio.sleep(1)
        await peer.answer(context_id, request)
        assert isinstance(await peer.receive_pdu(), ReleaseRQ)
        await peer.send(ReleaseRP())

    async with scripted_link(script, [VERIFICATION]) as association:
        with trio.move_on_after(0.5):
            await association.echo()
        await association.aclose()
        assert association.failure is None
        assert trio.current_time() == pytest.approx(1, abs=0.01)


# --- the peer releases ----------------------------------------------------------------------------------------------


async def test_the_peer_releases(autojump_clock: trio.testing.MockClock) -> None:
    answers = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.send(ReleaseRQ())
        answers.append(await peer.receive_pdu())

    async with scripted_link(script) as association:
        await association.wait_closed()
        assert association.failure is None
        with pytest.raises(AssociationClosed):
            await CStoreSCU(association).send(stream())
    assert isinstance(answers[0], ReleaseRP)


async def test_the_peer_releases_instead_of_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    answers = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_message()
        await peer.send(ReleaseRQ())
        answers.append(await peer.receive_pdu())

    async with scripted_link(script) as association:
        with pytest.raises(AssociationClosed) as caught:
            await CStoreSCU(association).send(stream())
        assert caught.value.in_doubt
    assert isinstance(answers[0], ReleaseRP)


async def test_the_peer_releases_in_the_middle_of_an_object(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_pdu()
        await peer.send(ReleaseRQ())
        await hold(peer)

    streams = trio.testing.lockstep_stream_pair()
    async with scripted_link(script, streams=streams) as association:
        with pytest.raises(AssociationAborted) as caught:
            await CStoreSCU(association).send(stream(1, 20 << 20))
        assert not caught.value.in_doubt


@pytest.mark.parametrize("order", ["answer first", "answer last"])
async def test_both_release_at_once(order: str, autojump_clock: trio.testing.MockClock) -> None:
    """The requestor answers first (PS3.8 AR-8, AR-9); an acceptor that answers out of turn spoils nothing."""
    pdus = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.send(ReleaseRQ())
        pdus.append(await peer.receive_pdu())
        if order == "answer first":
            await peer.send(ReleaseRP())
        pdus.append(await peer.receive_pdu())
        if order == "answer last":
            await peer.send(ReleaseRP())

    async with scripted_link(script) as association:
        await association.aclose()
        assert not association.is_open
        assert trio.current_time() == pytest.approx(0, abs=1.1)
    assert isinstance(pdus[0], ReleaseRQ)
    assert isinstance(pdus[1], ReleaseRP)
    assert association.failure is None


# --- in a nursery of the caller's -----------------------------------------------------------------------------------


@pytest.mark.fault_row(112)
async def test_its_nursery_is_cancelled(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(silent, monkeypatch) as listener:
        async with trio.open_nursery() as nursery:
            association = await connect_association(nursery, "PACS@host:104", [SOPClass.CT])
            assert association.is_open
            nursery.start_soon(CStoreSCU(association).send, stream())
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        await association.wait_closed()
        with pytest.raises(AssociationAborted, match="its nursery was cancelled"):
            await CStoreSCU(association).send(stream())
    assert listener.peers[0].pdus[-1] == Abort(0, 0)


async def test_a_lost_association_does_not_cancel_its_nursery(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.close()

    async with listening(script, monkeypatch), trio.open_nursery() as nursery:
        association = await connect_association(nursery, "PACS@host:104", [SOPClass.CT])
        await association.wait_closed()
        await trio.sleep(1)
        assert isinstance(association.failure, ConnectionLost)


async def test_one_of_two_fails(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(ScriptedPeer.serve, monkeypatch), trio.open_nursery() as nursery:
        one = await connect_association(nursery, "PACS@host:104", [SOPClass.CT])
        two = await connect_association(nursery, "PACS@host:104", [SOPClass.CT])
        await one.abort()
        assert (await CStoreSCU(two).send(stream())).is_success
        await two.aclose()


# --- our own mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["_handle", "_receive_command"])
async def test_a_bug_of_ours(
    where: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    async with listening(ScriptedPeer.serve, monkeypatch) as listener:
        with pytest.raises(InternalError, match="ZeroDivisionError") as caught:  # noqa: PT012
            async with open_association("PACS@host:104", [SOPClass.CT]) as association:
                monkeypatch.setattr(association, where, broken)
                await CStoreSCU(association).send(stream())
        assert isinstance(caught.value.__cause__, BaseException)
        assert isinstance(association.failure, InternalError)
        await association.wait_closed()
    assert listener.peers[0].pdus[-1] == Abort(0, 0)


async def test_a_bug_of_ours_is_told_to_the_sender(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    async with listening(ScriptedPeer.serve, monkeypatch):
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with trio.open_nursery() as nursery:
                association = await connect_association(nursery, "PACS@host:104", [SOPClass.CT])
                monkeypatch.setattr(association, "_settle", broken)
                with trio.CancelScope(shield=True), pytest.raises(InternalError):
                    await CStoreSCU(association).send(stream())
        assert caught.group_contains(InternalError)


# --- what it shows --------------------------------------------------------------------------------------------------


async def test_its_repr(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(ScriptedPeer.serve, monkeypatch):
        async with open_association("PACS@host:104", [SOPClass.CT]) as association:
            assert repr(association) == "<Association with PACS@host:104, open, 1 contexts>"
        assert repr(association) == "<Association with PACS@host:104, closed, 1 contexts>"


async def test_an_echo(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await trio.sleep(0.25)
        await peer.answer(context_id, request)
        await peer.receive_message()
        await hold(peer)

    async with scripted_link(script, [VERIFICATION]) as association:
        assert await association.echo() == pytest.approx(0.25)
        with pytest.raises(OperationTimeout):
            await association.echo(timeout=3)
        assert trio.current_time() == pytest.approx(3.25)
        assert not association.is_open
