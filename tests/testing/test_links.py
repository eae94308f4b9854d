"""memory_link and loopback_link: two associations of ours that know each other."""

from __future__ import annotations

import io

import pytest
import trio
import trio.testing

from trio_dicom import (
    Admission,
    AssociationAborted,
    AssociationRejected,
    AssociationSettings,
    CStoreSCU,
    NoAcceptedContexts,
    StorageSCP,
)
from trio_dicom.services.instance import Instance
from trio_dicom.testing import (
    Direction,
    FaultyStream,
    SOPClass,
    Stall,
    loopback_link,
    loopback_streams,
    make_instance_file,
    memory_link,
    socket_pair_streams,
)

LINKS = pytest.mark.parametrize("link", [memory_link, loopback_link])


async def keep(instance: Instance) -> int:
    await instance.read()
    return 0


def service() -> StorageSCP:
    return StorageSCP(keep, sop_classes=[SOPClass.CT])


@LINKS
async def test_both_sides_are_open_and_end_together(link: object) -> None:
    async with link([SOPClass.CT], service()) as (requestor, acceptor):  # type: ignore[operator]
        assert requestor.is_open
        assert acceptor.is_open
        assert (await CStoreSCU(requestor).send(io.BytesIO(make_instance_file(50_000)))).is_success
    assert requestor.failure is acceptor.failure is None
    assert not requestor.is_open
    assert not acceptor.is_open


@LINKS
async def test_without_arguments_there_is_verification(link: object) -> None:
    async with link() as (requestor, _):  # type: ignore[operator]
        assert await requestor.echo() >= 0


@LINKS
async def test_left_by_an_exception_it_is_aborted(link: object) -> None:
    with pytest.raises(KeyError, match="planted"):
        async with link() as (_, acceptor):  # type: ignore[operator]
            raise KeyError("planted")
    assert isinstance(acceptor.failure, AssociationAborted)
    assert acceptor.failure.by_peer


@LINKS
async def test_a_refusal_is_told_in_the_terms_of_the_requestor(link: object) -> None:
    with pytest.raises(AssociationRejected) as caught:
        async with link(admission=Admission(ae_title="OTHER")):  # type: ignore[operator]
            raise AssertionError("there is no association")
    assert caught.value.by_peer
    with pytest.raises(NoAcceptedContexts):
        async with link(["1.2.3"]):  # type: ignore[operator]
            raise AssertionError("there is no association")


async def test_each_side_has_its_settings() -> None:
    ours, theirs = AssociationSettings(calling_ae_title="US"), AssociationSettings(max_pdu_length=5000)
    async with memory_link(settings=ours, acceptor_settings=theirs) as (requestor, acceptor):
        assert acceptor.calling_ae_title == "US"
        assert requestor.negotiated.peer_max_pdu_length == 5000
    async with memory_link(settings=AssociationSettings(max_pdu_length=6000)) as (requestor, _):
        assert requestor.negotiated.peer_max_pdu_length == 6000


@pytest.mark.parametrize("backpressure", [False, True])
async def test_back_pressure(backpressure: bool, autojump_clock: trio.testing.MockClock) -> None:
    """A peer that takes nothing: does its writer wait?"""

    async def wait(instance: Instance) -> int:
        await trio.sleep(20)
        return await keep(instance)

    slow = StorageSCP(wait, sop_classes=[SOPClass.CT])
    link = memory_link([SOPClass.CT], slow, backpressure=backpressure)
    async with link as (requestor, _):
        with trio.move_on_after(10) as scope:
            scu = CStoreSCU(requestor)
            await scu.send(io.BytesIO(make_instance_file(16 << 20)))
        assert scope.cancelled_caught
        # What was taken whole is waited for; what could not be, is given up.
        assert requestor.is_open is not backpressure


async def test_streams_of_the_callers(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = socket_pair_streams()
    stalled = FaultyStream(ours, Stall(at_byte=250, seconds=7, direction=Direction.RECEIVING))
    async with memory_link(streams=(stalled, theirs)) as (requestor, _):
        assert 0 <= await requestor.echo() <= 7


async def test_socket_streams() -> None:
    for ours, theirs in (socket_pair_streams(), await loopback_streams()):
        await ours.send_all(b"there")
        assert await theirs.receive_some() == b"there"
        await theirs.send_all(b"back")
        assert await ours.receive_some() == b"back"
        with trio.move_on_after(0.05) as scope:
            await ours.send_all(bytes(64 << 20))
        assert scope.cancelled_caught
        await ours.aclose()
        await theirs.aclose()
