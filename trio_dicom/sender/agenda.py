"""Agenda: the works that wait, and which lane sends what. Synchronous, but for the waiting itself.

1. A lane serves a set of kinds, for which its association has presentation contexts. Among the works of these kinds it
   takes the one that came first. A work that comes back, to be sent again, keeps its place.
2. A lane without an association takes on first the kinds that wait and that no lane serves, in the order of their first
   work, then the others that wait, then all that were seen, up to 128 presentation contexts.
3. A suspect, in the middle of which an association has ended, goes over an association for such, one at a time: so the
   next end is not mistaken for that of a neighbour.
4. More input is read while there is little here, or while some lane has nothing to do.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import attrs
import trio

from ..protocol.negotiation import PresentationContext
from ..sources.contexts import contexts_of
from .job import Job
from .work import Kind, Work

MOST_CONTEXTS = 128  # PS3.8 section 7.1.1.13: the odd numbers of a byte
ENOUGH_WAITING = 128  # works, while each lane finds some of its kinds
MOST_WAITING = 4096  # works, also while a lane finds none
PATIENCE = 5.0  # s that the first of a kind which no lane serves waits, before a busy lane is taken from its own

_Heap = list[tuple[int, Work]]


@attrs.frozen(eq=False)
class Assignment:
    """What an association is opened for."""

    kinds: frozenset[Kind]
    contexts: tuple[PresentationContext, ...]
    is_for_suspects: bool = False
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)  # where its lane waits

    def takes(self, work: Work) -> bool:
        """Whether `work` is for its lane."""
        return work.is_suspect is self.is_for_suspects and work.kind in self.kinds


class Agenda:
    """See above."""

    def __init__(self) -> None:
        self._ready: dict[Kind, _Heap] = {}  # none of them empty
        self._suspects: _Heap = []
        self._later: list[tuple[float, int, Work]] = []
        self._arrivals: dict[Kind, float] = {}  # when the first of a ready kind was put here
        self._seen: dict[Kind, None] = {}  # the one that came last is the last
        self._assignments: dict[Assignment, None] = {}
        self._served: Counter[Kind] = Counter()  # by how many of them
        self._news = trio.lowlevel.ParkingLot()  # lanes without one
        self._room = trio.lowlevel.ParkingLot()  # readers of input
        self._feeding = 0  # of these
        self._timer = trio.CancelScope()
        self._hungry = 0  # tasks with an association that find nothing to do
        self.size = 0

    # --- what waits

    def add(self, work: Work, now: float) -> None:
        """`work` is to be sent."""
        self.size += 1
        self._add(work, now)
        self._tell(work)

    def add_later(self, work: Work, due: float) -> None:
        """The same, but not before `due`."""
        self.size += 1
        heapq.heappush(self._later, (due, work.order, work))
        self._timer.cancel()

    def _add(self, work: Work, now: float) -> None:
        if work.is_suspect:
            heapq.heappush(self._suspects, (work.order, work))
            return
        heap = self._ready.get(work.kind)
        if heap is None:
            heap = self._ready[work.kind] = []
            self._arrivals[work.kind] = now
        self._seen.setdefault(work.kind)
        heapq.heappush(heap, (work.order, work))

    def _tell(self, work: Work) -> None:
        """Wake one who may take it."""
        for assignment in self._assignments:
            if assignment.news and assignment.takes(work):
                assignment.news.unpark()
                return
        if self._news:
            self._news.unpark()
        elif not self._served[work.kind]:
            self.wake()  # all lanes have associations, and none for this: one that has nothing to do may take it on

    def take(self, assignment: Assignment) -> Work | None:
        """The next work for a lane; None if there is none of its kinds."""
        if assignment.is_for_suspects:
            return self._take_suspect(assignment)
        first: _Heap | None = None
        kinds = assignment.kinds
        for kind, heap in self._ready.items():
            if kind in kinds and (first is None or heap[0][0] < first[0][0]):
                first = heap
        if first is None:
            return None
        work = heapq.heappop(first)[1]
        if not first:
            del self._ready[work.kind], self._arrivals[work.kind]
        self._took()
        return work

    def _take_suspect(self, assignment: Assignment) -> Work | None:
        entry = min((each for each in self._suspects if each[1].kind in assignment.kinds), default=None)
        if entry is None:
            return None
        self._suspects.remove(entry)
        heapq.heapify(self._suspects)
        self._took()
        return entry[1]

    def _took(self) -> None:
        self.size -= 1
        if self._feeding and self.size < ENOUGH_WAITING:
            self._room.unpark()

    def withdraw(self, job: Job | None = None, kinds: Collection[Kind] | None = None) -> list[Work]:
        """Take out all works, or those of one job, or those of some kinds."""

        def is_meant(work: Work) -> bool:
            return (job is None or work.job is job) and (kinds is None or work.kind in kinds)

        found = [work for work in self._all() if is_meant(work)]
        if found:
            self._later = [entry for entry in self._later if not is_meant(entry[2])]
            self._suspects = [entry for entry in self._suspects if not is_meant(entry[1])]
            ready = {kind: [each for each in heap if not is_meant(each[1])] for kind, heap in self._ready.items()}
            self._ready = {kind: heap for kind, heap in ready.items() if heap}
            self._arrivals = {kind: when for kind, when in self._arrivals.items() if kind in self._ready}
            for heap in (self._later, self._suspects, *self._ready.values()):
                heapq.heapify(heap)  # type: ignore[arg-type]
            self.size -= len(found)
        self._room.unpark_all()
        return sorted(found, key=lambda work: work.order)

    def _all(self) -> Iterator[Work]:
        for heap in self._ready.values():
            yield from (work for _, work in heap)
        yield from (work for _, work in self._suspects)
        yield from (work for _, _, work in self._later)

    # --- who sends it

    def assign(self) -> Assignment | None:
        """What a lane without an association is to serve; None if there is nothing for it."""
        if self._has_unserved_suspects:
            kinds = dict.fromkeys(work.kind for _, work in self._suspects)
            assignment = Assignment(*within_limit(kinds), is_for_suspects=True)
        elif self._ready:
            waiting = sorted(self._ready, key=lambda kind: (self._served[kind] > 0, self._ready[kind][0][0]))
            assignment = Assignment(*within_limit(dict.fromkeys((*waiting, *reversed(self._seen)))))
            self._served.update(assignment.kinds)
        else:
            return None
        self._assignments[assignment] = None
        return assignment

    def resign(self, assignment: Assignment) -> None:
        """A lane serves this no longer."""
        del self._assignments[assignment]
        if not assignment.is_for_suspects:
            self._served.subtract(assignment.kinds)
        self.wake()

    @property
    def _has_unserved_suspects(self) -> bool:
        return bool(self._suspects) and not any(each.is_for_suspects for each in self._assignments)

    def wants_another(self, unfilled: int) -> bool:
        """Whether there is more than the lanes that are being opened, `unfilled`, will take at once."""
        return self._has_unserved_suspects or self._ready_count() > unfilled

    def _ready_count(self) -> int:
        return self.size - len(self._later) - len(self._suspects)

    def has_unserved(self, now: float, patience: float = 0.0) -> bool:
        """Whether works have waited for so long of which no lane has the kind."""
        if self._has_unserved_suspects:
            return True
        return any(not self._served[kind] and now >= since + patience for kind, since in self._arrivals.items())

    # --- waiting

    @property
    def wants_more(self) -> bool:
        """Whether more input is to be read."""
        return self.size < ENOUGH_WAITING or (self._hungry > 0 and self.size < MOST_WAITING)

    async def wait_room(self) -> None:
        """Wait until more input is wanted."""
        while not self.wants_more:
            self._feeding += 1
            try:
                await self._room.park()
            finally:
                self._feeding -= 1
            if self.wants_more:
                self._room.unpark()  # there may be room for the next one, too

    async def wait_news(self, assignment: Assignment | None = None) -> None:
        """Wait until something has changed for the lane of `assignment`, or for one that has none."""
        if assignment is None:
            await self._news.park()
            return
        self._hungry += 1
        if ENOUGH_WAITING <= self.size < MOST_WAITING:
            self._room.unpark_all()
        try:
            await assignment.news.park()
        finally:
            self._hungry -= 1

    def wake(self) -> None:
        """Something has changed for all lanes."""
        self._news.unpark_all()
        for assignment in self._assignments:
            assignment.news.unpark_all()

    async def run(self) -> None:
        """Put the works that are to be sent later where the lanes find them, until cancelled."""
        while True:
            now = trio.current_time()
            while self._later and self._later[0][0] <= now:
                work = heapq.heappop(self._later)[2]
                self._add(work, now)
                self._tell(work)
            with trio.CancelScope(deadline=self._later[0][0] if self._later else math.inf) as self._timer:
                await trio.sleep_forever()


def within_limit(kinds: Iterable[Kind]) -> tuple[frozenset[Kind], tuple[PresentationContext, ...]]:
    """As many of the first of `kinds` as one association has presentation contexts for, and those."""
    chosen = list(kinds)[:MOST_CONTEXTS]
    most, least = len(chosen), 1
    while least < most:
        middle = (least + most + 1) // 2
        if len(contexts_of(chosen[:middle])) <= MOST_CONTEXTS:
            least = middle
        else:
            most = middle - 1
    return frozenset(chosen[:least]), contexts_of(chosen[:least])
