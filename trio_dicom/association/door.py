"""The door of an acceptor: who is inside, who waits to come in, and who has to make room for others. No I/O."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import attrs
import trio

from ..protocol.pdu import AssociateRJ
from .admission import LOCAL_LIMIT_EXCEEDED, Admission


class Door:
    """Who is inside, and who waits to come in."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.waiting: list[Visit] = []  # from the first that came
        self.inside: Counter[str | None] = Counter()
        self.is_closed = False

    def close(self) -> None:
        """Nobody comes in any more."""
        self.is_closed = True
        for visit in self.waiting.copy():
            visit.turn_away()

    @contextlib.contextmanager
    def visit(self, host: str | None) -> Iterator[Visit]:
        """From the connection to its end. The block is left early if the visitor has to make room for another."""
        visit = Visit(self, host)
        self.waiting.append(visit)
        if self.is_closed:
            visit.turn_away()
        self._make_room(host)
        try:
            with visit.scope:
                yield visit
        finally:
            visit.leave()

    def _make_room(self, host: str | None) -> None:
        most = self.admission.connections_waiting
        neighbours = [each for each in self.waiting if each.host == host]
        if len(neighbours) > max(1, most // 4):
            neighbours[0].turn_away()
        elif len(self.waiting) > most:
            self.waiting[0].turn_away()


@attrs.define(eq=False)
class Visit:
    """One connection's stay."""

    _door: Door
    host: str | None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _is_inside: bool = attrs.field(default=False, init=False)

    def enter(self) -> AssociateRJ | None:
        """It has asked for an association: what there is against one more."""
        inside, admission = self._door.inside, self._door.admission
        if inside.total() >= admission.associations or inside[self.host] >= admission.associations_per_host:
            return LOCAL_LIMIT_EXCEEDED
        self._stop_waiting()
        inside[self.host] += 1
        self._is_inside = True
        return None

    def turn_away(self) -> None:
        self._stop_waiting()
        self.scope.cancel()

    def leave(self) -> None:
        self._stop_waiting()
        if self._is_inside:
            self._is_inside = False
            self._door.inside[self.host] -= 1
            if not self._door.inside[self.host]:
                del self._door.inside[self.host]

    def _stop_waiting(self) -> None:
        if self in self._door.waiting:
            self._door.waiting.remove(self)
