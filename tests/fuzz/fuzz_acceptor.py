"""What a hostile requestor says to an acceptor that files what comes in a folder.

The first byte chooses how it is said: see `fuzz_requestor`. With bit 2, a handler has it, and no folder.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import trio
import trio.testing

from trio_dicom.association.acceptor import wrap_server_stream
from trio_dicom.association.association import Association
from trio_dicom.errors import AssociationError
from trio_dicom.plain_nursery import open_plain_nursery
from trio_dicom.services.instance import Instance
from trio_dicom.services.instance_folder import InstanceFolder
from trio_dicom.services.storage_scp import StorageSCP
from trio_dicom.testing.scripted_peer import GONE

from .finding import documented, require, run
from .wire import C_STORE_RQ, C_STORE_RSP, FIELD, STATUS, UIDS, Message, messages, split

STEP_BY_STEP, CLOSES, TO_A_HANDLER = 1, 2, 4
LAYOUT = "{calling_ae_title}/{patient_id}/{modality}/{sop_instance_uid}.dcm"
DEPTH = 4


def check(data: bytes) -> None:
    if data:
        with tempfile.TemporaryDirectory() as folder:
            session = Session(data[0], data[1:], Path(folder, "root"))
            run(session.run)
            session.judge(Path(folder))


class Session:
    def __init__(self, manner: int, words: bytes, root: Path) -> None:
        self.manner = manner
        self.words = words
        self.root = root
        self.kept: list[tuple[str, bytes]] = []
        self.said = bytearray()
        self.association: Association | None = None

    async def run(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        service = StorageSCP(
            self._keep if self.manner & TO_A_HANDLER else InstanceFolder(self.root, layout=LAYOUT, sync=False)
        )
        async with open_plain_nursery() as peer:
            peer.start_soon(self._hear, theirs)
            peer.start_soon(self._speak, theirs)
            with documented(AssociationError):
                async with open_plain_nursery() as nursery:
                    self.association = await wrap_server_stream(nursery, ours, service)
            with suppress(trio.ClosedResourceError):
                await ours.send_all(b"")
                require(False, "the stream is left open")
            peer.cancel_scope.cancel()

    async def _keep(self, instance: Instance) -> int:
        data = await instance.read()
        self.kept.append((instance.sop_instance_uid, data))
        return 0

    async def _hear(self, stream: trio.abc.Stream) -> None:
        with suppress(*GONE):
            while data := await stream.receive_some(1 << 20):
                self.said += data

    async def _speak(self, stream: trio.testing.MemoryReceiveStream) -> None:
        with suppress(*GONE):
            for piece in split(self.words) if self.manner & STEP_BY_STEP else [self.words]:
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(piece)
            if self.manner & CLOSES:
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_eof()

    def judge(self, folder: Path) -> None:
        """What is filed came whole, and lies where it should; what was acknowledged is filed."""
        failure = self.association.failure if self.association is not None else None
        require(failure is None or isinstance(failure, AssociationError), repr(failure))
        came = [each for each in messages(self.words) if each.number(FIELD) == C_STORE_RQ and each.is_whole]
        answers = messages(bytes(self.said))
        good = [each for each in answers if (each.number(FIELD), each.number(STATUS)) == (C_STORE_RSP, 0)]
        require(len(good) <= len(came), f"{len(good)} successes, and {len(came)} objects")
        for uid, data in self.kept:
            require(any(_is(each, uid, data) for each in came), f"{uid} was kept, and never came so")
        filed = [Path(at, name) for at, _, names in os.walk(folder) for name in names]
        for path in filed:
            parts = path.relative_to(folder).parts
            require(parts[0] == "root" and len(parts) == DEPTH + 1, f"it lies in the wrong place: {path}")
            data = path.read_bytes()
            require(any(data.endswith(each.data_set) and path.stem == each.uid(UIDS[1]) for each in came), path)
        there = {path.stem for path in filed} | {uid for uid, _ in self.kept}
        for answer in good:
            require(not answer.uid(UIDS[1]) or answer.uid(UIDS[1]) in there, f"{answer} was said, and it is not there")


def _is(message: Message, uid: str, data: bytes) -> bool:
    return message.uid(UIDS[1]) == uid and bytes(message.data_set) == data
