"""Peers that refuse, abort or are slow, many associations at once, C-ECHO: the library and the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from cli.command_line import CommandLine
from interop.peers import Storescp
from interop.samples import SAMPLES, Sample
from trio_dicom import (
    AssociationAborted,
    AssociationRejected,
    CStoreOptions,
    CStoreResponse,
    CStoreSCU,
    OperationTimeout,
    PresentationContext,
    TrioDicomError,
    contexts_for,
    echo,
    open_association,
    open_progress_channel,
    send_file,
)

pytestmark = pytest.mark.interop

Start = Callable[..., Any]

LARGE = next(each for each in SAMPLES if each.name == "examples_overlay.dcm")  # of 320 kB, many PDUs
NATIVE = [each for each in SAMPLES if each.transfer_syntax_uid == ExplicitVRLittleEndian]


@pytest.fixture
def command_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(capfd, tmp_path / "report.ndjson")


@attrs.frozen
class Mode:
    """What storescp does with an option, and what is to be made of that."""

    options: tuple[str, ...]
    error: type[TrioDicomError] | None
    outcome: str
    code: int
    in_doubt: bool = False
    timeout: float = 20.0


MODES = [
    Mode(("--abort-after",), AssociationAborted, "in_doubt", 75, in_doubt=True),
    Mode(("--abort-during", "--max-pdu", "4096"), AssociationAborted, "in_doubt", 75, in_doubt=True),
    Mode(("--refuse",), AssociationRejected, "not_sent", 69),
    Mode(("--reject",), None, "stored", 0),  # it rejects those who do not name their implementation; we do
    Mode(("--sleep-after", "1"), None, "stored", 0, timeout=0.9),  # it answers first
    Mode(("--sleep-during", "2", "--max-pdu", "4096"), OperationTimeout, "in_doubt", 75, in_doubt=True, timeout=0.3),
    Mode(("--ignore",), None, "stored", 0),
]
modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: " ".join(mode.options))


@modes
async def test_modes_with_the_library(storescp: Start, mode: Mode) -> None:
    peer = storescp(*mode.options)
    options = CStoreOptions(timeout=mode.timeout)
    if mode.error is None:
        assert (await send_file(peer.address, LARGE.path, options=options)).is_success
        return
    with pytest.raises(mode.error) as caught:
        await send_file(peer.address, LARGE.path, options=options)
    assert caught.value.in_doubt is mode.in_doubt


@modes
def test_modes_from_the_command_line(storescp: Start, command_line: CommandLine, mode: Mode) -> None:
    peer = storescp(*mode.options)
    ended, (line,) = command_line.send(peer.address, LARGE.path, "--timeout", str(mode.timeout), "--retries", "0")
    assert (line["outcome"], ended.code) == (mode.outcome, mode.code), ended
    assert line["status"] == (0 if mode.error is None else None)


def test_a_peer_that_sleeps_after_an_object_keeps_the_next_in_doubt(storescp: Start, command_line: CommandLine) -> None:
    peer = storescp("--sleep-after", "2")
    options = ("--timeout", "0.8", "--retries", "0")
    ended, report = command_line.send(peer.address, NATIVE[0].path, NATIVE[1].path, *options)
    assert [line["outcome"] for line in report] == ["stored", "in_doubt"]
    assert "no progress for 0.8 s" in report[1]["reason"]
    assert ended.code == 75


def test_every_file_from_the_command_line(storescp: Start, command_line: CommandLine) -> None:
    peer = storescp("--unique-filenames")
    folder = LARGE.path.parent
    ended, report = command_line.send(peer.address, folder)
    assert ended.code == 1  # some of pydicom's files are no objects
    stored = {line["path"] for line in report if line["outcome"] == "stored"}
    assert stored == {str(each.path) for each in SAMPLES}
    assert {line["outcome"] for line in report} == {"stored", "invalid"}
    assert len(report) == sum(path.is_file() for path in folder.rglob("*"))
    assert len(peer.files) == len(SAMPLES)


@pytest.mark.parametrize("receiver", ["storescp", "orthanc", "pynetdicom_scp"])
async def test_echo(receiver: str, request: pytest.FixtureRequest) -> None:
    assert 0 < await echo(request.getfixturevalue(receiver)().address) < 10


@pytest.mark.parametrize("receiver", ["storescp", "orthanc", "pynetdicom_scp"])
def test_echo_from_the_command_line(receiver: str, request: pytest.FixtureRequest, command_line: CommandLine) -> None:
    peer = request.getfixturevalue(receiver)()
    ended = command_line("echo", peer.address)
    assert ended.code == 0
    assert ended.out.startswith(f"{peer.address} answered in ")


async def test_many_associations_at_once(storescp: Start) -> None:
    peer: Storescp = storescp("--fork", "--unique-filenames")
    contexts = await contexts_for([each.path for each in NATIVE])
    responses: list[CStoreResponse] = []

    async def lane(samples: list[Sample]) -> None:
        async with open_association(peer.address, contexts) as association:
            scu = CStoreSCU(association)
            async with trio.open_nursery() as nursery:
                for sample in samples:
                    nursery.start_soon(send_one, scu, sample)

    async def send_one(scu: CStoreSCU, sample: Sample) -> None:
        responses.append(await scu.send(sample.path))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(lane, NATIVE[number::6])
    assert len(responses) == len(NATIVE)
    assert all(each.is_success for each in responses)
    assert peer.received() == {each.sop_instance_uid: peer.received()[each.sop_instance_uid] for each in NATIVE}
    assert len(peer.files) == len(NATIVE)


@attrs.define
class EndlessPixels:
    """Pixels that stop coming after some, until they are cancelled."""

    length: int | None = 1 << 30
    transfer_syntax_uid: str | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(1 << 20)
        await trio.sleep_forever()


def endless_object() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.BitsAllocated = 16
    return dataset


async def test_a_new_association_works_after_a_cancelled_send(storescp: Start) -> None:
    peer = storescp()
    contexts = [PresentationContext(SecondaryCaptureImageStorage), *await contexts_for([LARGE.path])]
    progress_send, progress = open_progress_channel()
    async with open_association(peer.address, contexts) as association:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: CStoreSCU(association).send(endless_object(), EndlessPixels(), progress=progress_send)
            )
            await progress.receive()
            nursery.cancel_scope.cancel()
        await association.wait_closed()
        assert isinstance(association.failure, AssociationAborted)
    assert (await send_file(peer.address, LARGE.path)).is_success
    stored = peer.received()
    assert stored == {LARGE.sop_instance_uid: LARGE.data_set}
