"""The account of an association: a line of the log when it begins, and one when it has ended, with what came of it.

At INFO there is nothing that identifies a patient or an object. The UIDs of objects, one a line, are for DEBUG.
"""

from __future__ import annotations

import logging

import trio

from ..errors import printable
from ..peer import Peer
from ..protocol.command import Response
from ..protocol.negotiation import Negotiated

log = logging.getLogger(__name__)


class Account:
    """What is counted: cheap, for it is done at each object."""

    def __init__(self, peer: Peer | None, negotiated: Negotiated, *, is_requestor: bool) -> None:
        self.statuses: dict[int, int] = {}  # how often each was answered, by either side
        self.data_set_bytes = 0
        self.is_debugging = log.isEnabledFor(logging.DEBUG)
        self._begin = trio.current_time()
        self._contexts = len(negotiated.accepted)
        self._about = {
            "host": None if peer is None else peer.host,
            "calling_ae_title": printable(negotiated.calling_ae_title, 16),
            "called_ae_title": printable(negotiated.called_ae_title, 16),
            "is_requestor": is_requestor,
        }
        self._with = f"association with {'a peer' if peer is None else peer.host}"
        self._titles = "{calling_ae_title} called {called_ae_title}".format(**self._about)

    def note(self, response: Response, size: int) -> None:
        """An answer, with the bytes of the data set of its request."""
        self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
        self.data_set_bytes += size
        if self.is_debugging:
            kind = type(response).__name__.removesuffix("RSP")
            uid = getattr(response, "affected_sop_instance_uid", None) or "an object"
            log.debug("%s: %s of %s: %04X, %d bytes", self._with, kind, uid, response.status, size)

    def open(self) -> None:
        """It begins."""
        log.info(
            "%s begins: %s, %d presentation contexts",
            self._with,
            self._titles,
            self._contexts,
            extra=self._about | {"event": "begin", "contexts": self._contexts},
        )

    def close(self, failure: Exception | None) -> None:
        """It has ended."""
        if not log.isEnabledFor(logging.INFO):
            return
        seconds, reason = trio.current_time() - self._begin, "released" if failure is None else str(failure)
        statuses = {f"{status:04X}": count for status, count in sorted(self.statuses.items())}
        answers = ", ".join(f"{count} times {status}" for status, count in statuses.items()) or "nothing"
        about = {"event": "end", "outcome": "released" if failure is None else type(failure).__name__, "reason": reason}
        figures = {"statuses": statuses, "data_set_bytes": self.data_set_bytes, "seconds": seconds}
        log.info(
            "%s ended: %s; %s; answered: %s; %d bytes in %.1f s",
            self._with,
            reason,
            self._titles,
            answers,
            self.data_set_bytes,
            seconds,
            extra=self._about | about | figures,
        )
