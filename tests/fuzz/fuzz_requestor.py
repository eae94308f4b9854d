"""What a hostile acceptor says to a requestor, which asks for an association, sends two objects, echoes and releases.

The first byte chooses how it is said (bit 0: PDU by PDU, each when the requestor waits; bit 1: it closes in the end,
and else is silent), the others are said.
"""

from __future__ import annotations

import io
from contextlib import suppress

import trio
import trio.testing

from trio_dicom.association.requestor import open_association
from trio_dicom.errors import AssociationError, NoPresentationContext
from trio_dicom.services.storage_scu import CStoreOptions, StoreDelivery
from trio_dicom.testing import SOPClass, make_instance_file
from trio_dicom.testing.scripted_peer import GONE
from trio_dicom.uids import VERIFICATION

from .finding import documented, require, run
from .wire import C_STORE_RQ, C_STORE_RSP, FIELD, MESSAGE_ID, RESPONDED_TO, STATUS, UIDS, messages, split

FILES = [make_instance_file(2000, number=number) for number in (1, 2)]
STEP_BY_STEP, CLOSES = 1, 2


def check(data: bytes) -> None:
    if data:
        session = Session(data[0], data[1:])
        run(session.run)
        session.judge()


class Session:
    def __init__(self, manner: int, words: bytes) -> None:
        self.manner = manner
        self.words = words
        self.sent = bytearray()
        self.deliveries: list[StoreDelivery] = []

    async def run(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()

        async def connect() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return ours

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, theirs)
            nursery.start_soon(self._speak, theirs)
            with documented(AssociationError):
                async with open_association("PACS@host:104", [SOPClass.CT, VERIFICATION], connect=connect) as there:
                    for file in FILES:
                        delivery = StoreDelivery(there, CStoreOptions(), io.BytesIO(file))
                        self.deliveries.append(delivery)
                        with documented(AssociationError, NoPresentationContext):
                            await delivery.run()
                    with documented(AssociationError, NoPresentationContext):
                        await there.echo()
            with suppress(trio.ClosedResourceError):
                await ours.send_all(b"")
                require(False, "the stream is left open")
            nursery.cancel_scope.cancel()

    async def _hear(self, stream: trio.abc.Stream) -> None:
        with suppress(*GONE):
            while data := await stream.receive_some(1 << 20):
                self.sent += data

    async def _speak(self, stream: trio.testing.MemoryReceiveStream) -> None:
        with suppress(*GONE):
            for piece in split(self.words) if self.manner & STEP_BY_STEP else [self.words]:
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(piece)
            if self.manner & CLOSES:
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_eof()

    def judge(self) -> None:
        """Whether what is told of each object is so."""
        requests = {each.uid(UIDS[1]): each for each in messages(bytes(self.sent)) if each.number(FIELD) == C_STORE_RQ}
        answers = [each for each in messages(self.words) if each.number(FIELD) == C_STORE_RSP]
        for number, delivery in enumerate(self.deliveries, 1):
            request = requests.get(f"2.25.1000.{number}")
            is_whole = request is not None and request.is_whole
            if delivery.status is None:
                require(delivery.in_doubt or not is_whole, f"object {number} went out, and there is no doubt about it")
                continue
            require(request is not None, f"object {number} was answered, and never sent")
            require(
                is_whole or delivery.status.is_failure, f"object {number} did not go out whole: {delivery.status!r}"
            )
            fitting = [
                answer
                for answer in answers
                if answer.number(STATUS) == delivery.status
                and answer.number(RESPONDED_TO) == request.number(MESSAGE_ID)  # type: ignore[union-attr]
                and answer.context_id == request.context_id  # type: ignore[union-attr]
                and all(answer.uid(each) in ("", request.uid(each)) for each in UIDS)  # type: ignore[union-attr]
            ]
            require(fitting, f"nobody answered object {number} with {delivery.status!r}")
