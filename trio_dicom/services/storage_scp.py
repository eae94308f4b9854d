"""The Storage service class provider: C-STORE, performed (PS3.4 annex B, PS3.7 section 9.1.1)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Container, Iterable

from ..association.service import ANY, Service
from ..association.service_request import ServiceRequest
from ..errors import InvalidObject, printable
from ..protocol.command import CStoreRQ, Response
from ..protocol.status import CANNOT_UNDERSTAND, SOP_CLASS_NOT_SUPPORTED
from ..uids import is_valid_uid
from .instance import Instance, StoreReply
from .instance_folder import InstanceFolder

Handler = Callable[[Instance], Awaitable[StoreReply | int]]


class StorageSCP(Service):
    """Takes SOP instances: to a folder, or to a handler of yours.

    `destination` is a path, short for `InstanceFolder(path)`, which files each object there and forces it to the disk;
    or an async function that is given each `Instance` as it begins to come in, reads of it what it wants, and returns
    the `Status` (or a number, or a `StoreReply` with a comment) to answer with. It answers 0000 only by saying so:
    whatever else it returns, None too, is answered with 0110H, and so are an exception and `timeouts.handler` seconds
    without progress. The answer goes out after the last byte of the object has come in.

    By default every Storage SOP class and transfer syntax of pydicom's dictionary is accepted. `sop_classes` and
    `transfer_syntaxes` are UIDs to accept instead; `accept_private` accepts whatever is proposed, Verification apart.

    A request whose SOP class is not that of its presentation context is answered with 0122H, one whose SOP Instance UID
    is none with C000H; they never come to the handler.
    """

    requests = (CStoreRQ,)

    def __init__(
        self,
        destination: str | os.PathLike[str] | Handler,
        *,
        sop_classes: Iterable[str] | None = None,
        transfer_syntaxes: Iterable[str] | None = None,
        accept_private: bool = False,
    ) -> None:
        self._handler: Handler = (
            InstanceFolder(destination) if isinstance(destination, str | os.PathLike) else destination
        )
        if not callable(self._handler):
            raise TypeError(f"a path or an async function is wanted, not a {type(destination).__name__}")
        self._sop_classes = None if accept_private else _uids(sop_classes, storage_sop_classes)
        self._transfer_syntaxes = (
            ANY if accept_private and transfer_syntaxes is None else _uids(transfer_syntaxes, all_transfer_syntaxes)
        )

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        if self._sop_classes is None or abstract_syntax in self._sop_classes:
            return self._transfer_syntaxes
        return None

    async def perform(self, request: ServiceRequest) -> Response:
        command = request.command
        if not isinstance(command, CStoreRQ):
            raise TypeError(f"a {type(command).__name__} is not this service's")
        if command.affected_sop_class_uid != request.context.abstract_syntax:
            return request.response(SOP_CLASS_NOT_SUPPORTED, "not the SOP class of the presentation context")
        if not is_valid_uid(command.affected_sop_instance_uid):
            return request.response(CANNOT_UNDERSTAND, "Affected SOP Instance UID is not a UID")
        if not command.has_data_set:
            return request.response(CANNOT_UNDERSTAND, "a C-STORE-RQ without a data set")
        try:
            reply = await self._handler(Instance(request, command))
        except InvalidObject as error:
            return request.response(CANNOT_UNDERSTAND, printable(error.reason, 61))
        if isinstance(reply, int) and not isinstance(reply, bool):
            reply = StoreReply(reply)
        if not isinstance(reply, StoreReply):
            raise TypeError(f"the handler of a StorageSCP returned a {type(reply).__name__}, not a Status")
        return request.response(reply.status, reply.error_comment)


def _uids(given: Iterable[str] | None, default: Callable[[], frozenset[str]]) -> frozenset[str]:
    if given is None:
        return default()
    if isinstance(given, str):
        raise TypeError(f"UIDs are given as a list, not as one: write [{given!r}]")
    plain = frozenset(map(str, given))
    wrong = sorted(uid for uid in plain if not is_valid_uid(uid))
    if wrong:
        raise ValueError(f"not a UID: {wrong[0]!r}")
    return plain


# They have "Storage" in their names, but belong to other service classes, or to media.
_NOT_OF_THE_SERVICE = frozenset({"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"})
_NOT_FOR_MESSAGES = ("1.2.840.10008.1.2.6.", "1.2.840.10008.1.2.7.")  # MIME and XML encodings, real-time video


def storage_sop_classes() -> frozenset[str]:
    """The UIDs of the Storage SOP classes in pydicom's dictionary, retired ones among them (PS3.4 B.5)."""
    return _of_kind("SOP Class", "Storage") - _NOT_OF_THE_SERVICE


def all_transfer_syntaxes() -> frozenset[str]:
    """The UIDs of the transfer syntaxes in pydicom's dictionary, retired ones among them."""
    return frozenset(uid for uid in _of_kind("Transfer Syntax") if not uid.startswith(_NOT_FOR_MESSAGES))


def _of_kind(wanted: str, word: str = "") -> frozenset[str]:
    from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

    return frozenset(uid for uid, (name, kind, *_) in UID_dictionary.items() if kind == wanted and word in name)
