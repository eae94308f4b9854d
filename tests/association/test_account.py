"""What an association logs of itself: a line when it begins and one when it has ended, on both sides."""

from __future__ import annotations

import io
import logging

import pytest
import trio
import trio.testing

from trio_dicom import AssociationAborted, AssociationSettings, CStoreSCU, open_association
from trio_dicom.association import account
from trio_dicom.testing import make_instance_file, scripted_link, storage_scp
from trio_dicom.testing.identity import SOPClass
from trio_dicom.testing.scripted_peer import ScriptedPeer

CT = SOPClass.CT
FILES = [make_instance_file(1000, number=number) for number in range(3)]


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == account.__name__]


async def test_both_sides_say_what_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_dicom")
    settings = AssociationSettings(calling_ae_title="CT1")
    async with storage_scp() as scp:
        scp.reply(0xA700)
        async with open_association(scp.address, [CT], settings=settings) as association:
            for file in FILES:
                await CStoreSCU(association).send(io.BytesIO(file))
        with trio.fail_after(5):
            while len(lines(caplog)) < 4:
                await trio.lowlevel.checkpoint()
    for is_requestor in (True, False):
        begin, end = (each for each in lines(caplog) if each.is_requestor is is_requestor)  # type: ignore[attr-defined]
        for record in (begin, end):
            assert (record.levelname, record.host) == ("INFO", "127.0.0.1")  # type: ignore[attr-defined]
            assert record.calling_ae_title == "CT1"  # type: ignore[attr-defined]
            assert record.called_ae_title == association.called_ae_title  # type: ignore[attr-defined]
        assert (begin.event, begin.contexts) == ("begin", 1)  # type: ignore[attr-defined]
        assert (end.event, end.outcome, end.reason) == ("end", "released", "released")  # type: ignore[attr-defined]
        assert end.statuses == {"0000": 2, "A700": 1}  # type: ignore[attr-defined]
        assert 3000 < end.data_set_bytes < 3600  # type: ignore[attr-defined]
        assert 0 <= end.seconds < 60  # type: ignore[attr-defined]
        titles = f"CT1 called {association.called_ae_title}"
        assert begin.getMessage() == f"association with 127.0.0.1 begins: {titles}, 1 presentation contexts"
        said = f"association with 127.0.0.1 ended: released; {titles}; answered: 2 times 0000, 1 times A700; "
        assert end.getMessage().startswith(said)


async def test_how_it_broke(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_dicom")

    async def abort(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.abort(2, 1)

    async with scripted_link(abort, [CT]) as association:
        await association.wait_closed()
    _, end = lines(caplog)
    assert isinstance(association.failure, AssociationAborted)
    assert end.outcome == "AssociationAborted"  # type: ignore[attr-defined]
    assert end.reason == "the peer aborted the association (source 2, reason 1)"  # type: ignore[attr-defined]
    assert "answered: nothing; 0 bytes" in end.getMessage()
    assert end.getMessage().startswith("association with a peer ended: the peer aborted")


async def test_a_title_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_dicom")

    async def accept(peer: ScriptedPeer) -> None:
        await peer.accept(calling_ae_title="A\nINFO: fine", called_ae_title="\x1b[2J")
        await peer.serve_requests()

    async with scripted_link(accept, [CT]):
        pass
    assert len(lines(caplog)) == 2
    assert all(each.getMessage().isprintable() for each in lines(caplog))


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO, logging.DEBUG], ids=logging.getLevelName)
async def test_the_uids_of_objects_are_for_debugging(level: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(level, "trio_dicom")
    async with storage_scp() as scp, open_association(scp.address, [CT]) as association:
        await CStoreSCU(association).send(io.BytesIO(FILES[0]))
    uid = scp.received[0].sop_instance_uid
    of_objects = [each for each in lines(caplog) if uid in each.getMessage()]
    assert {each.levelname for each in of_objects} == ({"DEBUG"} if level == logging.DEBUG else set())
    assert any(each.levelname == "INFO" for each in lines(caplog)) == (level <= logging.INFO)
    if of_objects:
        assert f"CStore of {uid}: 0000, " in of_objects[0].getMessage()
