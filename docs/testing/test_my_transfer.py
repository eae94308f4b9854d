import trio
from my_transfer import transfer

from trio_dicom import Outcome
from trio_dicom.testing import make_study


def link_to(scp):
    """For `open_sender(connect=...)`: each association is one in memory."""

    async def connect():
        return scp.stream()

    return connect


async def test_a_peer_that_is_busy_is_waited_for(dicom_scp, autojump_clock):
    dicom_scp.reply(0xA700, times=3)
    study = make_study(10)
    assert await transfer("PACS@memory:104", study, connect=link_to(dicom_scp)) == []
    assert {each.SOPInstanceUID for each in dicom_scp.stored} == {each.SOPInstanceUID for each in study}


async def test_i_am_told_what_was_refused(dicom_scp, autojump_clock):
    study = make_study(10)
    dicom_scp.reply(0xA900, sop_instance_uid=study[3].SOPInstanceUID)
    (report,) = await transfer("PACS@memory:104", study, connect=link_to(dicom_scp))
    assert (report.number, report.outcome, report.status) == (3, Outcome.REFUSED, 0xA900)


async def test_an_association_that_is_aborted_loses_nothing(dicom_scp, autojump_clock):
    dicom_scp.abort(times=1)
    assert await transfer("PACS@memory:104", make_study(10), connect=link_to(dicom_scp)) == []
    assert len(dicom_scp.received) == 11  # the one that was in doubt came twice


async def test_a_peer_that_is_down_does_not_keep_us_for_ever(autojump_clock):
    async def refuse():
        raise ConnectionRefusedError

    left = await transfer("PACS@memory:104", make_study(10), connect=refuse)
    assert [report.outcome for report in left] == 10 * [Outcome.NOT_SENT]
    assert trio.current_time() <= 15
