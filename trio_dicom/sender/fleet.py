"""Fleet: the associations of a sender that are open or asked for, and how many there may be."""

from __future__ import annotations

import math

import trio

from ..association.association import Association
from ..errors import AssociationAborted, TrioDicomError
from . import retry
from .agenda import Agenda
from .tally import Tally
from .throttle import Throttle


class Fleet:
    """See above. A lane is active from when it asks for an association until it takes no further works over it."""

    def __init__(self, throttle: Throttle, agenda: Agenda, tally: Tally) -> None:
        self.throttle = throttle
        self.unfilled = 0  # lanes that are about to take their first work
        self.is_ending = False  # no lane is to take a further work
        self._agenda = agenda
        self._tally = tally
        self._active = 0
        self._open: dict[Association, None] = {}
        self._openings: dict[trio.CancelScope, None] = {}  # around what asks for an association

    @property
    def size(self) -> int:
        """How many associations are open."""
        return len(self._open)

    # --- what lanes ask

    def may_open(self) -> bool:
        """Whether one more lane may ask for an association now."""
        has_room = self._active < self.throttle.lanes and trio.current_time() >= self.throttle.resume_at
        return has_room and not self.is_ending

    def next_opening(self) -> float:
        """When a lane that may not ask for an association now may perhaps do so."""
        return self.throttle.resume_at if self.throttle.resume_at > trio.current_time() else math.inf

    def has_surplus(self) -> bool:
        """Whether there are to be fewer lanes."""
        return self._active > self.throttle.lanes

    # --- what lanes tell

    def begins(self, opening: trio.CancelScope) -> None:
        """A lane is going to ask for an association, inside of `opening`."""
        self._openings[opening] = None
        self._active += 1
        self.unfilled += 1

    def filled(self) -> None:
        """It has taken its first work, or will take none."""
        self.unfilled -= 1

    def ends(self, opening: trio.CancelScope) -> None:
        """It takes no further works."""
        self._openings.pop(opening, None)
        self._active -= 1
        self._agenda.wake()

    def opened(self, association: Association, opening: trio.CancelScope) -> None:
        """An association has come about."""
        del self._openings[opening]
        self._open[association] = None
        self._tally.associations += 1
        lanes = self.throttle.lanes
        self.throttle.opened()
        self._wake_if_more(lanes)

    def left(self, association: Association) -> None:
        """Nothing more is sent over it."""
        del self._open[association]

    def took(self) -> None:
        """An object was answered in a way that does not speak of trouble."""
        lanes = self.throttle.lanes
        self.throttle.took()
        self._wake_if_more(lanes)

    def failed(self, error: TrioDicomError, started: float, *, has_done_good: bool) -> None:
        """An association asked for at `started` did not come about, or ended in an error."""
        if isinstance(error, AssociationAborted) and not error.by_peer:
            return  # by us, for the sake of one object
        self._tally.failed_associations += 1
        if not has_done_good:
            others = self._active if self._open else 0
            self.throttle.failed(error, started=started, now=trio.current_time(), others=others)
        elif retry.is_distrust(error):
            self.throttle.distrust(error)

    # ---

    def end(self) -> None:
        """No lane is to take a further work, and nobody waits for the associations that are asked for."""
        self.is_ending = True
        for scope in self._openings:
            scope.cancel()
        self._agenda.wake()

    def _wake_if_more(self, lanes: int) -> None:
        """There may be more lanes now than `lanes`."""
        if self.throttle.lanes > lanes:
            self._agenda.wake()
