"""Attempt: one try to send a work over an association, from its beginning to the one end that it comes to.

It has two halves. `begin` gives the object to the association, and waits for its turn, for the file and for room in the
operations window. The answer, or the end of the association, comes later, to whatever task reads it; nobody waits for
it: so a lane begins the next object meanwhile, with one task for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..association.association import Association
from ..errors import TrioDicomError
from ..services.storage_scu import CStoreResponse, StoreDelivery
from .pace import PacedSource
from .work import Work

if TYPE_CHECKING:
    from .dispatcher import Dispatcher


class Attempt:
    """See above. `ended` is called once, when all is decided; `interrupt_begin` gets `begin` cancelled."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        work: Work,
        association: Association,
        *,
        ended: Callable[[Attempt], None],
        interrupt_begin: Callable[[], None],
    ) -> None:
        self.work = work
        self.started = trio.current_time()
        self.response: CStoreResponse | None = None
        self.error: TrioDicomError | None = None
        self.is_interrupted = False  # nobody wants it any more
        self._dispatcher = dispatcher
        self.association = association
        self._ended = ended
        self._interrupt_begin = interrupt_begin
        self._is_with_association = False  # the second half: only the answer is awaited

    @property
    def has_begun(self) -> bool:
        """Whether some of the object has gone out."""
        delivery = self.work.delivery
        return delivery is not None and delivery.has_begun

    async def begin(self) -> None:
        """The first half. If it is cancelled, the attempt has ended."""
        dispatcher, work = self._dispatcher, self.work
        dispatcher.takes_in_hand(self)
        try:
            source, work.source = work.source, None
            if source is None:
                source = await dispatcher.open(work)
            if dispatcher.bucket is not None:
                source = PacedSource(source, dispatcher.bucket)
            work.delivery = StoreDelivery(self.association, dispatcher.store, source, None, dispatcher.progress)
            operation = await work.delivery.begin()
        except TrioDicomError as error:
            self.error = error
            self._end()
        except BaseException:
            self.is_interrupted = True
            self._end()
            raise
        else:
            self._is_with_association = True
            if self.is_interrupted:  # a moment ago
                self.interrupt()
            else:
                operation.when_settled(self._settled)

    def interrupt(self) -> None:
        """Nobody wants it any more: it comes to its end now, or as soon as `begin` has been cancelled."""
        self.is_interrupted = True
        if not self._is_with_association:
            self._interrupt_begin()
        elif self.work.delivery is not None:
            self.work.delivery.leave()
            self._end()

    def _settled(self) -> None:
        delivery = self.work.delivery
        if delivery is None or self.is_interrupted:
            return
        try:
            self.response = delivery.response()
        except TrioDicomError as error:
            self.error = error
        self._end()

    def _end(self) -> None:
        self._dispatcher.attempted(self)
        self._ended(self)
