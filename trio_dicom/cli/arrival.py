"""Arrival: an object that a peer sends to us, and what became of it."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from ..association.service_request import ServiceRequest
from ..errors import printable
from ..protocol.command import CStoreRQ, Response
from ..protocol.status import PROCESSING_FAILURE, Status
from ..services.instance import Instance, StoreReply
from ..services.instance_folder import InstanceFolder, StoredInstance
from ..services.storage_scp import StorageSCP


class Fate(enum.Enum):
    """What became of an object. Each that was begun has one."""

    STORED = "stored"
    KEPT = "kept"  #: it was there before, and that one was kept
    REFUSED = "refused"  #: answered with a failure, and not stored
    INCOMPLETE = "incomplete"  #: its association ended in the middle of it; nothing of it was left
    IN_DOUBT = "in_doubt"  #: it was given up while it was being filed: it is there whole, or not at all

    @property
    def is_stored(self) -> bool:
        """The object is there, and the peer was told so."""
        return self in (Fate.STORED, Fate.KEPT)


@attrs.frozen
class Arrival:
    """An object that was begun; its UIDs are as they came, made printable."""

    fate: Fate
    path: Path | None
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    status: Status | None  # None: there was no answer
    size: int  # bytes of the data set
    calling_ae_title: str
    host: str | None
    comment: str

    def as_fields(self) -> dict[str, object]:
        """The fields of a line of the report, the time left out."""
        return {
            "path": None if self.path is None else str(self.path),
            "sop_class_uid": self.sop_class_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "transfer_syntax_uid": self.transfer_syntax_uid,
            "outcome": self.fate.value,
            "status": None if self.status is None else int(self.status),
            "bytes": self.size,
            "calling_ae_title": self.calling_ae_title,
            "host": self.host,
            "comment": self.comment,
        }


class ArrivalSCP(StorageSCP):
    """Storage into a folder. It tells of each object when it begins, and when it is settled, before the answer."""

    def __init__(
        self,
        folder: InstanceFolder,
        begun: Callable[[], None],
        settled: Callable[[Arrival], None],
        *,
        accept_private: bool = False,
    ) -> None:
        super().__init__(self._store, accept_private=accept_private)
        self.under_way: set[ServiceRequest] = set()
        self.is_stopping = False  # what is cancelled is so by us
        self._idle_since = -math.inf  # while none is under way
        self._has_ended = trio.Event()
        self._folder = folder
        self._begun = begun
        self._settled = settled
        self._filed: dict[trio.lowlevel.Task, StoredInstance] = {}  # by the task of the request, which is one each

    async def perform(self, request: ServiceRequest) -> Response:
        self.under_way.add(request)
        self._begun()
        try:
            response = await super().perform(request)
        except trio.Cancelled:
            self._settle(request, *self._end_of(request), was_cancelled=True)
            raise
        except Exception:
            self._settle(request, PROCESSING_FAILURE, "the receiver failed")
            raise
        else:
            self._settle(request, Status(response.status), response.error_comment or "")
            return response
        finally:
            self.under_way.discard(request)
            self._idle_since = trio.current_time()
            self._has_ended.set()

    async def wait_lull(self, seconds: float) -> None:
        """Wait until no object has been under way for so long."""
        while self.under_way or (rest := self._idle_since + seconds - trio.current_time()) > 0:
            if self.under_way:
                self._has_ended = trio.Event()
                await self._has_ended.wait()
            else:
                await trio.sleep(rest)

    async def _store(self, instance: Instance) -> StoreReply:
        stored = await self._folder.store(instance)
        self._filed[trio.lowlevel.current_task()] = stored
        return StoreReply(stored.status, stored.error_comment)

    def _end_of(self, request: ServiceRequest) -> tuple[Status | None, str]:
        """Why the task of `request` was cancelled: the status that this gives, and a reason."""
        association = request.association
        if association.failure is not None:
            return None, str(association.failure)
        if self.is_stopping:
            return None, "the receiver was stopped"
        if request.is_abandoned:
            return None, "the peer asked for release in the middle of it"
        return PROCESSING_FAILURE, "the receiver took too long"

    def _settle(
        self, request: ServiceRequest, status: Status | None, comment: str, *, was_cancelled: bool = False
    ) -> None:
        filed = self._filed.pop(trio.lowlevel.current_task(), None)
        path = None if filed is None else filed.path
        if was_cancelled and request.is_whole:
            fate = Fate.IN_DOUBT
        elif status is None:
            fate = Fate.INCOMPLETE
        elif status.is_failure:
            fate = Fate.REFUSED
        else:
            fate = Fate.STORED if path is not None else Fate.KEPT
        association, command = request.association, request.command
        if not isinstance(command, CStoreRQ):  # it is: nothing else is performed here
            return
        self._settled(
            Arrival(
                fate,
                path,
                printable(command.affected_sop_class_uid),
                printable(command.affected_sop_instance_uid),
                request.context.transfer_syntax,
                status,
                request.bytes_received,
                association.calling_ae_title,
                None if association.peer is None else association.peer.host,
                comment,
            )
        )
