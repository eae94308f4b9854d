"""Watch: one task that looks up when the first of an association's operations is overdue, or the rest of a PDU.

A scope with a deadline for each would cost more than sending or receiving a small object does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .operation import Operation
from .writer import Writer

if TYPE_CHECKING:
    from .association import Association


class Watch:
    """See above. `association` is told which one it is."""

    def __init__(self, association: Association, writer: Writer) -> None:
        self._association = association
        self._writer = writer
        self._scope = trio.CancelScope()
        self._next_look = math.inf  # its deadline
        self.end_of_pdu = math.inf  # when the PDU that is coming in must be whole

    def keep_in_view(self, operation: Operation) -> None:
        """Look up when `operation` is overdue, or before."""
        self._look_by(operation.deadline(self._writer.progressed_at))

    def expect_end_of_pdu(self, deadline: float) -> None:
        """Look up when this has passed, or before, unless `end_of_pdu` is set to another time meanwhile."""
        self.end_of_pdu = deadline
        self._look_by(deadline)

    def _look_by(self, deadline: float) -> None:
        if deadline < self._next_look:  # else it looks in vain, which costs less than to move its deadline
            self._next_look = self._scope.deadline = deadline

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            now, first = trio.current_time(), self.end_of_pdu
            if first <= now:
                self._association.pdu_timed_out()
            for operation in self._association.watched():
                deadline = operation.deadline(self._writer.progressed_at)
                if deadline <= now:
                    self._association.timed_out(operation)
                first = min(first, deadline)
            self._next_look = first
            with trio.CancelScope(deadline=first) as self._scope:
                await trio.sleep_forever()
