"""A destination where everything goes wrong that can, by the dice of a seed, and what a sender must say of it."""

from __future__ import annotations

import collections
import io
from random import Random
from typing import Any

import trio
import trio.testing

from trio_dicom.protocol.command import CStoreRQ, decode_command
from trio_dicom.protocol.pdu import PDV, AssociateRJ, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.sender.options import SenderOptions
from trio_dicom.sender.outcome import InstanceReport, Outcome
from trio_dicom.sender.reports import TransferReport
from trio_dicom.sender.sender import open_sender
from trio_dicom.services.storage_scu import CStoreOptions
from trio_dicom.sources.part10 import parse_head
from trio_dicom.testing import Direction, FaultyStream, Reset, ScriptedPeer, Stall, acceptance, make_instance_file

from .sending import send_all

# What becomes of one C-STORE request, and how often, in a thousand.
FATES = {
    "stored": 850,
    "warning": 20,
    "late": 20,  # by up to 35 s; the sender waits for 30
    "out of resources": 25,
    "processing failure": 5,
    "refused": 10,
    "already present": 10,
    "aborted before it is read": 5,
    "aborted in the middle": 5,
    "aborted when it is whole": 10,
    "protocol error": 2,
    "success before it is whole": 2,
    "another message ID": 2,
    "another instance": 2,
    "answered twice": 2,
    "answered again with the next": 2,
    "no answer": 5,
    "connection closed": 5,
}
LIES = (
    "protocol error",
    "success before it is whole",
    "another message ID",
    "another instance",
    "answered twice",
    "answered again with the next",
)
STATUSES = {
    "warning": 0xB000,
    "out of resources": 0xA700,
    "processing failure": 0x0110,
    "refused": 0xC000,
    "already present": 0x0111,
}
TIMEOUT = 30.0  # s


class _CutOff(Exception):
    """The sender has gone."""


class _Released(Exception):
    """The sender has asked for release."""


class _Peer(ScriptedPeer):
    """One that several tasks speak through."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self._speaking = trio.Lock()
        self.pdvs: list[PDV] = []

    async def send(self, *what: Any) -> None:
        async with self._speaking:
            await super().send(*what)

    async def next_pdv(self) -> PDV:
        if not self.pdvs:
            pdu = await self.receive_pdu()
            if isinstance(pdu, ReleaseRQ):
                raise _Released
            if not isinstance(pdu, PDataTF):  # the sender has aborted, or closed
                raise _CutOff
            self.pdvs += pdu.pdvs
        return self.pdvs.pop(0)

    async def next_part(self) -> tuple[int, bytes]:
        """Presentation context ID, and a command set or a data set."""
        data = bytearray()
        while True:
            pdv = await self.next_pdv()
            data += pdv.data
            if pdv.is_last:
                return pdv.context_id, bytes(data)


class ChaoticDestination:
    """See above. `whole` counts, by SOP Instance UID, how often an object came whole; `acknowledged` the successes and
    warnings that were handed to the stream for it, when it had come whole."""

    def __init__(self, seed: int, files: dict[str, bytes], nursery: trio.Nursery, *, window: int) -> None:
        self.whole: collections.Counter[str] = collections.Counter()
        self.acknowledged: collections.Counter[str] = collections.Counter()
        self.fates: collections.Counter[str] = collections.Counter()
        self._dice = Random(seed)
        # A peer that breaks the protocol twice running is given up: with even seeds it is only unreliable.
        self._fates = FATES if seed % 2 else {fate: often for fate, often in FATES.items() if fate not in LIES}
        self._files = files
        self._nursery = nursery
        self._window = window
        self._total = sum(map(len, files.values()))

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        dice = self._dice
        if dice.random() < 0.03:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        stream: trio.abc.Stream = theirs
        fault, where = (
            dice.random(),
            {"at_byte": dice.randrange(self._total), "direction": dice.choice(list(Direction))},
        )
        if fault < 0.15:
            stream = FaultyStream(theirs, Reset(**where))
        elif fault < 0.2:
            stream = FaultyStream(theirs, Stall(**where))
        self._nursery.start_soon(self._serve, _Peer(stream))
        return ours

    async def _serve(self, peer: _Peer) -> None:
        try:
            if self._dice.random() < 0.05:
                await self._reject(peer)
            elif isinstance(request := await peer.receive_pdu(), AssociateRQ):
                await peer.send(acceptance(request, window=(self._window, 1)))
                await self._store(peer)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, _CutOff):
            pass
        finally:
            with trio.move_on_after(1, shield=True):
                await peer.close()

    async def _reject(self, peer: _Peer) -> None:
        if isinstance(await peer.receive_pdu(), AssociateRQ):
            await peer.send(AssociateRJ(2, 3, self._dice.choice([1, 2])))

    async def _store(self, peer: _Peer) -> None:
        left_over: list[tuple[int, CStoreRQ]] = []  # answers that are given once more, too late
        async with trio.open_nursery() as nursery:
            while True:
                fate = self._dice.choices(list(self._fates), list(self._fates.values()))[0]
                context_id, command = await self._next_request(peer)
                if command is None:
                    break
                request = decode_command(command)
                assert isinstance(request, CStoreRQ)
                self.fates[fate] += 1
                if fate == "aborted before it is read":
                    await peer.abort()
                    break
                if fate == "success before it is whole":
                    await peer.answer(context_id, request)
                if fate == "aborted in the middle":
                    await peer.next_pdv()
                    await peer.abort()
                    break
                data_set = (await peer.next_part())[1]
                uid = request.affected_sop_instance_uid
                assert len(data_set) > 100
                assert self._files[uid].endswith(data_set), "other bytes than the file's"
                self.whole[uid] += 1
                for late in left_over:
                    await peer.answer(*late)
                left_over.clear()
                if fate == "answered again with the next":
                    left_over.append((context_id, request))
                nursery.start_soon(self._answer, peer, nursery, fate, context_id, request)
            nursery.cancel_scope.cancel()

    async def _next_request(self, peer: _Peer) -> tuple[int, bytes | None]:
        """None when the sender has asked for release; which is answered, or the connection is closed instead."""
        try:
            return await peer.next_part()
        except _Released:
            if self._dice.random() < 0.8:
                await peer.send(ReleaseRP())
            return 0, None

    async def _answer(self, peer: _Peer, nursery: trio.Nursery, fate: str, context_id: int, request: Any) -> None:
        if fate in ("aborted when it is whole", "protocol error"):
            await peer.abort(*((2, 2) if fate == "protocol error" else (0, 0)))
            nursery.cancel_scope.cancel()
        elif fate == "connection closed":
            await peer.close()
            nursery.cancel_scope.cancel()
        elif fate == "late":
            await trio.sleep(self._dice.uniform(0, 35))
        elif fate == "another message ID":
            await peer.answer(context_id, request, message_id_being_responded_to=request.message_id % 65_535 + 7)
        elif fate == "another instance":
            await peer.answer(context_id, request, affected_sop_instance_uid="1.2.3")
        if fate != "no answer":
            status = STATUSES.get(fate, 0)
            if status in (0, 0xB000):
                self.acknowledged[request.affected_sop_instance_uid] += 1
            for _ in range(1 + (fate == "answered twice")):
                await peer.answer(context_id, request, status)

    def check(self, reports: list[InstanceReport], report: TransferReport) -> None:
        """What must be true, whatever went wrong."""
        assert len(reports) == report.inputs == sum(report.counts.values()) == len(self._files)
        assert report.pending == report.open_associations == 0
        assert report.counts == collections.Counter(each.outcome for each in reports)
        uids = list(self._files)  # in the order of the inputs
        ends = {uids[each.number]: each for each in reports}
        assert len(ends) == len(reports)
        for uid, end in ends.items():
            assert end.sop_instance_uid in (uid, None)
            if end.outcome.is_stored:
                assert self.acknowledged[uid], f"stored, it says, and nobody said so: {end}"
                assert self.whole[uid], f"stored, it says, and it never came whole: {end}"
            elif end.outcome is Outcome.NOT_SENT:
                assert not self.whole[uid], f"not sent, it says, and it came whole: {end}"
            elif end.outcome is Outcome.REFUSED:
                assert end.status is not None, f"refused by nobody: {end}"
                assert not self.acknowledged[uid], f"refused, it says, and it may be stored: {end}"
            else:
                assert end.outcome in (Outcome.IN_DOUBT, Outcome.ALREADY_PRESENT), end


async def send_through_chaos(
    seed: int, count: int, *, associations: int, window: int, size: int = 400
) -> tuple[ChaoticDestination, TransferReport]:
    """Send `count` objects to a destination of that seed, check what became of them, and tell."""
    made = [make_instance_file(size, number=number) for number in range(1, count + 1)]
    files = {_uid(file): file for file in made}
    options = SenderOptions(random=Random(seed), store=CStoreOptions(timeout=TIMEOUT), linger=2.0)
    async with trio.open_nursery() as nursery:
        destination = ChaoticDestination(seed, files, nursery, window=window)
        async with open_sender(
            "CHAOS@memory:104",
            connect=destination.connect,
            associations=associations,
            window=window,
            options=options,
        ) as sender:
            reports = await send_all(sender, (io.BytesIO(file) for file in made))
        nursery.cancel_scope.cancel()
    destination.check(reports, sender.report)
    return destination, sender.report


def _uid(file: bytes) -> str:
    head = parse_head(file, at_end=True)
    assert head is not None
    return head.sop_instance_uid
