"""A destination where everything goes wrong that can, by dice or by a script, and a sender that must tell the truth.

What the sender tells is compared with what the destination has, and, by the `Witness`, with what went over the wire.
"""

from __future__ import annotations

import collections
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import attrs
import trio
import trio.testing

from trio_dicom.protocol.command import CStoreRQ, decode_command
from trio_dicom.protocol.pdu import PDV, AssociateRJ, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.sender.options import SenderOptions
from trio_dicom.sender.outcome import InstanceReport, Outcome
from trio_dicom.sender.reports import TransferReport
from trio_dicom.sender.retry import RetryPolicy
from trio_dicom.sender.sender import open_sender
from trio_dicom.services.storage_scu import CStoreOptions
from trio_dicom.testing import Direction, FaultyStream, Reset, ScriptedPeer, Stall, acceptance, make_instance_file
from trio_dicom.testing.plain_nursery import open_plain_nursery

from .witness import Witness, data_set_of, uid_of

# What becomes of one C-STORE request, and how often, in ten thousand.
UNRELIABLE = {
    "stored": 8500,
    "warning": 200,
    "late": 200,  # by up to 35 s; the sender waits for 30
    "out of resources": 250,
    "processing failure": 50,
    "refused": 100,
    "refused before it is whole": 20,
    "already present": 100,
    "aborted before it is read": 50,
    "aborted in the middle": 50,
    "stalled in the middle": 30,  # for up to 35 s
    "stalled for ever": 5,
    "aborted when it is whole": 100,
    "release asked for": 20,
    "no answer": 50,
    "connection closed": 50,
}
# A peer that does so twice running is given up.
LYING = {
    "protocol error": 20,
    "success before it is whole": 20,
    "success before it is aborted": 20,
    "another message ID": 20,
    "another instance": 20,
    "another context": 20,
    "pending": 20,
    "answered twice": 20,
    "answered again with the next": 20,
}
FATES = UNRELIABLE | LYING
STATUSES = {
    "warning": 0xB000,
    "out of resources": 0xA700,
    "processing failure": 0x0110,
    "refused": 0xC000,
    "refused before it is whole": 0xC000,
    "already present": 0x0111,
    "pending": 0xFF00,
}
# What becomes of one connection, and how often, in a hundred.
CONNECTIONS = {"fine": 70, "refused": 3, "rejected": 5, "reset": 15, "stalled": 5, "silent": 2}
RELEASES = {"answered": 80, "closed": 15, "not answered": 5}
TIMEOUT = 30.0  # s


class Chance(Protocol):
    """Where the destination's whims come from."""

    def fate(self) -> str: ...  # of FATES
    def connection(self) -> str: ...  # of CONNECTIONS
    def release(self) -> str: ...  # of RELEASES
    def byte(self, total: int) -> int: ...
    def seconds(self, most: float) -> float: ...
    def direction(self) -> Direction: ...


class Dice:
    """A seed, a course of events. With even seeds the destination is unreliable, and does not lie."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._fates = FATES if seed % 2 else UNRELIABLE

    def _one_of(self, weights: dict[str, int]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def fate(self) -> str:
        return self._one_of(self._fates)

    def connection(self) -> str:
        return self._one_of(CONNECTIONS)

    def release(self) -> str:
        return self._one_of(RELEASES)

    def byte(self, total: int) -> int:
        return self._random.randrange(self._random.choice([400, 4_000, max(400, total)]))

    def seconds(self, most: float) -> float:
        return self._random.uniform(0, most)

    def direction(self) -> Direction:
        return self._random.choice(list(Direction))


@attrs.define
class Script:
    """One thing after another, then nothing goes wrong any more."""

    fates: list[str] = attrs.field(factory=list)
    connections: list[str] = attrs.field(factory=list)
    releases: list[str] = attrs.field(factory=list)
    bytes: list[int] = attrs.field(factory=list)
    delays: list[float] = attrs.field(factory=list)

    @classmethod
    def random(cls, dice: Random) -> Script:
        """Fates of all kinds, each as likely as any other."""

        def some(names: Iterable[str], most: int) -> list[str]:
            return dice.choices(sorted(names), k=dice.randrange(most + 1))

        return cls(
            some(FATES, 15),
            some(CONNECTIONS, 5),
            some(RELEASES, 3),
            [dice.randrange(3001) for _ in range(dice.randrange(7))],
            [dice.uniform(0, 2 * TIMEOUT) for _ in range(dice.randrange(7))],
        )

    @property
    def troubles(self) -> int:
        """How often something is left to go wrong."""
        return len(self.fates) + len(self.connections) + len(self.releases)

    def fate(self) -> str:
        return self.fates.pop(0) if self.fates else "stored"

    def connection(self) -> str:
        return self.connections.pop(0) if self.connections else "fine"

    def release(self) -> str:
        return self.releases.pop(0) if self.releases else "answered"

    def byte(self, total: int) -> int:
        return self.bytes.pop(0) if self.bytes else total // 2

    def seconds(self, most: float) -> float:
        return min(self.delays.pop(0), most) if self.delays else most / 2

    def direction(self) -> Direction:
        return list(Direction)[self.byte(0) % 2]


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
        while not self.pdvs:
            pdu = await self.receive_pdu()
            self.received.clear()
            if isinstance(pdu, ReleaseRQ):
                raise _Released
            if isinstance(pdu, ReleaseRP) or not isinstance(pdu, PDataTF):  # the sender has aborted, or closed
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
    """See above. It counts by SOP Instance UID: `whole`, how often an object came whole; `kept`, how often it was not
    refused then; `acknowledged`, the successes and warnings that were given to the stream for what had come whole.
    `early` are those of which it said so before it knew.

    With `backpressure` a sender waits until what it sends is read; else the connections take all. It has what it had in
    the `past`.
    """

    def __init__(
        self,
        chance: Chance,
        files: dict[str, bytes],
        nursery: trio.Nursery,
        *,
        window: int,
        backpressure: bool,
        past: ChaoticDestination | None = None,
    ) -> None:
        self.whole = collections.Counter[str](past.whole if past else ())
        self.kept = collections.Counter[str](past.kept if past else ())
        self.acknowledged = collections.Counter[str](past.acknowledged if past else ())
        self.early = set[str](past.early if past else ())
        self.met: collections.Counter[str] = collections.Counter()  # fates of all kinds
        self._chance = chance
        self._files = files
        self._nursery = nursery
        self._window = window
        self._backpressure = backpressure
        self._total = sum(map(len, files.values()))

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        chance = self._chance
        fate = chance.connection()
        self.met[fate] += 1
        if fate == "refused":
            raise ConnectionRefusedError(111, "Connection refused")
        pair = trio.testing.lockstep_stream_pair if self._backpressure else trio.testing.memory_stream_pair
        ours, theirs = pair()
        stream: trio.abc.Stream = theirs
        if fate == "reset":
            stream = FaultyStream(theirs, Reset(chance.byte(self._total), direction=chance.direction()))
        elif fate == "stalled":
            fault = Stall(chance.byte(self._total), chance.seconds(2 * TIMEOUT), direction=chance.direction())
            stream = FaultyStream(theirs, fault)
        self._nursery.start_soon(self._serve, _Peer(stream), fate)
        return ours

    async def _serve(self, peer: _Peer, fate: str) -> None:
        try:
            request = await peer.receive_pdu()
            if fate == "silent":
                await peer.hold()
            elif fate == "rejected":
                await peer.send(AssociateRJ(2, 3, 1))
            elif isinstance(request, AssociateRQ):
                await peer.send(acceptance(request, window=(self._window, 1)))
                await self._store(peer)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, _CutOff):
            pass
        finally:
            with trio.move_on_after(1, shield=True):
                await peer.close()

    async def _store(self, peer: _Peer) -> None:
        left_over: list[tuple[int, CStoreRQ]] = []  # answers that are given once more, too late
        async with trio.open_nursery() as nursery:
            while True:
                context_id, command = await self._next_request(peer)
                if command is None:
                    break
                fate = self._chance.fate()
                self.met[fate] += 1
                request = decode_command(command)
                assert isinstance(request, CStoreRQ)
                if not await self._begin(peer, fate, context_id, request):
                    break
                data_set = (await peer.next_part())[1]
                uid = request.affected_sop_instance_uid
                assert data_set == data_set_of(self._files[uid]), "other bytes than the file's"
                self.whole[uid] += 1
                self.kept[uid] += STATUSES.get(fate, 0) not in (0xA700, 0x0110, 0xC000)
                for late in left_over:
                    await peer.answer(*late)
                left_over.clear()
                if fate == "answered again with the next":
                    left_over.append((context_id, request))
                nursery.start_soon(self._answer, peer, nursery, fate, context_id, request)
            nursery.cancel_scope.cancel()

    async def _begin(self, peer: _Peer, fate: str, context_id: int, request: CStoreRQ) -> bool:
        """What happens while the data set is on its way. False if no more is to be read."""
        if fate.startswith("success before"):
            self.early.add(request.affected_sop_instance_uid)
            await peer.answer(context_id, request)
        elif fate == "refused before it is whole":
            await peer.answer(context_id, request, 0xC000)
        elif fate == "release asked for":
            await peer.send(ReleaseRQ())
        elif fate.startswith("stalled"):
            await peer.next_pdv()
            await trio.sleep(math.inf if fate == "stalled for ever" else self._chance.seconds(35))
            return False
        if fate in ("aborted before it is read", "aborted in the middle", "success before it is aborted"):
            if fate == "aborted in the middle":
                await peer.next_pdv()
            await peer.abort()
            return False
        return True

    async def _next_request(self, peer: _Peer) -> tuple[int, bytes | None]:
        """None when the sender has asked for release; which is answered, or not."""
        try:
            return await peer.next_part()
        except _Released:
            fate = self._chance.release()
            self.met[f"release {fate}"] += 1
            if fate == "answered":
                await peer.send(ReleaseRP())
            if fate == "not answered":
                await peer.hold()
            return 0, None

    async def _answer(self, peer: _Peer, nursery: trio.Nursery, fate: str, context_id: int, request: Any) -> None:
        changes: dict[str, Any] = {}
        if fate in ("aborted when it is whole", "protocol error"):
            await peer.abort(*((2, 2) if fate == "protocol error" else (0, 0)))
            nursery.cancel_scope.cancel()
        elif fate == "connection closed":
            await peer.close()
            nursery.cancel_scope.cancel()
        elif fate == "late":
            await trio.sleep(self._chance.seconds(35))
        elif fate == "another message ID":
            changes = {"message_id_being_responded_to": request.message_id % 65_535 + 7}
        elif fate == "another instance":
            changes = {"affected_sop_instance_uid": "1.2.3"}
        elif fate == "another context":
            context_id = context_id + 2 if context_id == 1 else 1
        if fate not in ("no answer", "refused before it is whole"):
            status = STATUSES.get(fate, 0)
            if status in (0, 0xB000) and not changes:
                # Once it has it, the stream says so whatever becomes of this task.
                self.acknowledged[request.affected_sop_instance_uid] += 1
            for _ in range(1 + (fate == "answered twice")):
                await peer.answer(context_id, request, status, **changes)

    def check(self, reports: Sequence[InstanceReport], uids: Sequence[str]) -> None:
        """What the destination has, and nothing else, is stored, already present or in doubt."""
        self.check_outcomes((uids[report.number], report.outcome) for report in reports)

    def check_outcomes(self, outcomes: Iterable[tuple[str, Outcome]]) -> None:
        """The same, of outcomes by SOP Instance UID."""
        for uid, outcome in outcomes:
            if outcome.is_stored and uid not in self.early:
                assert self.acknowledged[uid], f"stored, it says, and nobody said so: {uid}"
                assert self.whole[uid], f"stored, it says, and it never came whole: {uid}"
            if self.kept[uid]:
                is_told = outcome.is_stored or outcome in (Outcome.ALREADY_PRESENT, Outcome.IN_DOUBT)
                assert is_told, f"it is there: {uid}, {outcome}"


@attrs.frozen
class Course:
    """What came of a run."""

    destination: ChaoticDestination
    witness: Witness
    report: TransferReport
    reports: list[InstanceReport] = attrs.field(repr=False)
    seconds: float = 0.0  # until the sender's block was left


async def send_through_chaos(
    chance: Chance,
    count: int,
    *,
    associations: int,
    window: int,
    size: int = 400,
    backpressure: bool = False,
    cut_at: float = math.inf,
    seed: int = 0,
    folder: Path | None = None,
    past: Course | None = None,
) -> Course:
    """Send `count` objects to a destination of that chance, check what became of them, and tell.

    All is cancelled at `cut_at` (s). With `folder`, they lie there, and there is a ledger;
    `past` was the run with it before.
    """
    made = [make_instance_file(size, number=number) for number in range(1, count + 1)]
    uids = [uid_of(file) for file in made]
    files = dict(zip(uids, made, strict=True))
    witness = Witness(files, past and past.witness)
    policy = RetryPolicy(patience=3600.0, first_contact=50)
    options = SenderOptions(random=Random(seed), store=CStoreOptions(timeout=TIMEOUT), linger=2.0, retry=policy)
    items = [io.BytesIO(file) for file in made] if folder is None else _written(folder, made)
    reports: list[InstanceReport] = []
    is_finished = False
    async with open_plain_nursery() as nursery:
        destination = ChaoticDestination(
            chance, files, nursery, window=window, backpressure=backpressure, past=past and past.destination
        )
        with trio.move_on_at(cut_at):
            async with (
                open_sender(
                    "CHAOS@memory:104",
                    connect=witness.watching(destination.connect),
                    associations=associations,
                    window=window,
                    ledger=None if folder is None else folder / "run.db",
                    options=options,
                ) as sender,
                sender.send_many(items) as channel,
            ):
                async for report in channel:
                    reports.append(report)
                is_finished = True
        if not is_finished:
            assert trio.current_time() <= cut_at + 4
            reports += [report async for report in channel]  # what was settled when nobody received any more
        seconds = trio.current_time()
        nursery.cancel_scope.cancel()
    assert len(reports) == count or not is_finished
    witness.check(reports, sender.report, uids)
    destination.check(reports, uids)
    if is_finished and sender.failure is None:  # nothing is given up after one trouble
        unanswered = [each for each in reports if each.status is None and not each.is_earlier]
        assert all(each.attempts > 1 for each in unanswered)
    return Course(destination, witness, sender.report, reports, seconds)


def _written(folder: Path, files: list[bytes]) -> list[Path]:
    paths = [folder / f"{number:06}.dcm" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        if not path.exists():  # from a run before: a file that was written again is another input to a ledger
            path.write_bytes(file)
    return paths
