"""A small receiver, for the demo and for tests: it stores what it is sent in a folder, and looks at nothing.

It accepts every SOP class in every transfer syntax, answers C-ECHO and C-STORE, and gives up an association for any
other request. An object is written under a name of its own making, and gets its final one when it is whole; before that
it is not answered. Nothing is forced to the disk: it is no archive.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import attrs
import trio

from ..association.operation import Batch
from ..association.transport import Buffer, Transport, transport_over
from ..errors import ConnectionLost, PeerLimitUnusable, ProtocolViolation, UnexpectedPDU
from ..protocol.command import CEchoRQ, CEchoRSP, Command, CStoreRQ, CStoreRSP, encode_command
from ..protocol.message import CommandReceived, DataFragment, MessageAssembler, fragment
from ..protocol.negotiation import Negotiated, answer
from ..protocol.pdu import PDU, Abort, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from ..protocol.upper_layer import ConnectionClosed, Side, UpperLayer
from ..settings import AssociationSettings
from ..uids import IMPLEMENTATION_CLASS_UID, is_valid_uid

log = logging.getLogger(__name__)

IDLE = 60.0  # s in which an established association may be silent
FILE_PIECE = 1 << 20  # bytes that go to the file in one thread hop

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
SOP_CLASS_NOT_SUPPORTED = 0x0122


@attrs.frozen
class StoredObject:
    """A file that the receiver has written; `size` is that of the data set, which begins at `data_set_offset`."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    size: int


class Receiver:
    """Stores in `folder`. `stored` has an entry for each object, made before the object is answered."""

    def __init__(self, folder: Path, settings: AssociationSettings | None = None) -> None:
        self.stored: list[StoredObject] = []
        self._folder = folder
        self._settings = settings or AssociationSettings()
        self._numbers = itertools.count(1)

    async def serve(
        self, *, host: str = "127.0.0.1", port: int = 0, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, a task for each association; the status is the port."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, self.serve_stream, listeners, handler_nursery=nursery))
            task_status.started(listeners[0].socket.getsockname()[1])

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """One association over `stream`, from request to close. No fault of the peer, and none of ours, is raised."""
        transport = transport_over(stream)
        try:
            await _Incoming(transport, self._settings, self._open).run()
        except ConnectionLost as lost:
            log.debug("association ended: %s", lost)
        except Exception:
            log.exception("a bug of the receiver ended an association")
        finally:
            with contextlib.suppress(ConnectionLost):
                await transport.aclose()

    def _open(self, request: CStoreRQ, transfer_syntax_uid: str) -> _File:
        return _File(self._folder, next(self._numbers), request, transfer_syntax_uid, self.stored.append)


class _File:
    """An object that is coming in. The methods block."""

    def __init__(
        self,
        folder: Path,
        number: int,
        request: CStoreRQ,
        transfer_syntax_uid: str,
        stored: Callable[[StoredObject], None],
    ) -> None:
        uid = request.affected_sop_instance_uid
        self._arriving = folder / f"arriving-{number}"
        self._final = folder / f"{number:06}-{uid}.dcm"
        self._identity = (request.affected_sop_class_uid, uid, transfer_syntax_uid)
        self._stored = stored
        self._file: BinaryIO | None = None
        self._offset = 0

    def write(self, data: Buffer) -> None:
        """Raises `OSError`."""
        if self._file is None:
            head = file_head(*self._identity)
            self._offset = len(head)
            self._file = open(self._arriving, "xb", buffering=0)  # noqa: SIM115
            _write_all(self._file, head)
        _write_all(self._file, data)

    def complete(self) -> None:
        """It is whole. Raises `OSError`."""
        if self._file is not None:
            size = self._file.tell() - self._offset
            self._file.close()
            os.replace(self._arriving, self._final)
            self._file = None
            self._stored(StoredObject(self._final, *self._identity, self._offset, size))

    def discard(self) -> None:
        """It will not become whole."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                self._arriving.unlink()


def _write_all(file: BinaryIO, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 7.1), the preamble being zeros."""
    items: Mapping[int, tuple[bytes, bytes]] = {
        0x0001: (b"OB", b"\x00\x01"),
        0x0002: (b"UI", sop_class_uid.encode()),
        0x0003: (b"UI", sop_instance_uid.encode()),
        0x0010: (b"UI", transfer_syntax_uid.encode()),
        0x0012: (b"UI", IMPLEMENTATION_CLASS_UID.encode()),
    }
    meta = b""
    for element, (vr, value) in items.items():
        value += b"\0" * (len(value) % 2)
        length = struct.pack("<2xL" if vr == b"OB" else "<H", len(value))
        meta += struct.pack("<HH2s", 0x0002, element, vr) + length + value
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(meta)) + meta


class _Incoming:
    """One association, seen by the acceptor."""

    def __init__(
        self, transport: Transport, settings: AssociationSettings, open_file: Callable[[CStoreRQ, str], _File]
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._open_file = open_file
        self._machine = UpperLayer(Side.ACCEPTOR, settings.limits)
        self._assembler = MessageAssembler(settings.limits)
        self._negotiated: Negotiated | None = None
        self._request: tuple[int, CStoreRQ] | None = None  # whose data set is coming in
        self._status = SUCCESS  # that it is to be answered with
        self._file: _File | None = None
        self._piece = bytearray()
        self._size = 0  # of the data set so far

    async def run(self) -> None:
        """Until the association has ended. Raises `ConnectionLost`."""
        self._machine.connected()
        try:
            with trio.CancelScope() as scope:
                await self._converse(scope)
            if scope.cancelled_caught:
                log.debug("a peer was silent for too long")
        finally:
            if self._file is not None:
                self._file.discard()
            await self._part()

    async def _converse(self, scope: trio.CancelScope) -> None:
        machine, was_timed = self._machine, False
        while not machine.must_close:
            if machine.artim_running != was_timed:
                was_timed = machine.artim_running
                scope.deadline = trio.current_time() + (self._settings.timeouts.artim if was_timed else IDLE)
            try:
                if (event := machine.next_event()) is not None:
                    if not was_timed:  # a whole PDU counts, not the bytes that drip in
                        scope.deadline = trio.current_time() + IDLE
                    await self._handle(event)
                elif reply := machine.reply():
                    await self._write(reply)
                else:
                    machine.receive_data(await self._transport.read())
            except (ProtocolViolation, PeerLimitUnusable) as error:
                log.debug("association ended: %s", error)
                blame = (error.abort_source, error.abort_reason) if isinstance(error, ProtocolViolation) else (0, 0)
                await self._write(machine.reply() or machine.send(Abort(*blame)))

    async def _part(self) -> None:
        """However it ended: where the peer still takes this for an association, it is told otherwise."""
        if self._machine.must_close or self._machine.artim_running:
            return
        with trio.move_on_after(self._settings.timeouts.abort_grace, shield=True):
            if await self._transport.finish():
                await self._write(self._machine.send(Abort(0, 0)))

    async def _write(self, buffers: list[Buffer]) -> None:
        await self._transport.write(buffers, Batch(buffers))

    async def _handle(self, event: PDU | ConnectionClosed) -> None:
        if isinstance(event, AssociateRQ):
            response, self._negotiated = answer(event, _whatever_is_proposed(event), self._settings)
            await self._write(self._machine.send(response))
        elif isinstance(event, PDataTF):
            for pdv in event.pdvs:
                item = self._assembler.receive(pdv)
                if isinstance(item, CommandReceived):
                    await self._begin(item.context_id, item.command)
                elif isinstance(item, DataFragment):
                    await self._take(item)
        elif isinstance(event, ReleaseRQ):
            await self._write(self._machine.send(ReleaseRP()))

    async def _begin(self, context_id: int, command: Command) -> None:
        context = self._negotiated.accepted.get(context_id) if self._negotiated is not None else None
        if context is None:
            raise UnexpectedPDU(f"a message on presentation context {context_id}, which was not accepted", 2, 6)
        if isinstance(command, CEchoRQ):
            response = CEchoRSP(command.message_id, SUCCESS, command.affected_sop_class_uid)
            await self._respond(context_id, response)
        elif isinstance(command, CStoreRQ) and command.has_data_set:
            self._request = (context_id, command)
            self._piece, self._size = bytearray(), 0
            if command.affected_sop_class_uid != context.abstract_syntax:
                self._status = SOP_CLASS_NOT_SUPPORTED
            elif not is_valid_uid(command.affected_sop_instance_uid):  # it is to be part of a file's name
                self._status = CANNOT_UNDERSTAND
            else:
                self._status = SUCCESS
                self._file = self._open_file(command, context.transfer_syntax)
        else:
            raise UnexpectedPDU(f"a {type(command).__name__}, where only C-ECHO and C-STORE are served", 0, 0)

    async def _take(self, part: DataFragment) -> None:
        if self._file is not None:
            self._piece += part.data
            self._size += len(part.data)
            if part.is_last and not self._size:
                self._status = CANNOT_UNDERSTAND
                self._file = None
            elif part.is_last or len(self._piece) >= FILE_PIECE:
                piece, self._piece = self._piece, bytearray()
                try:
                    await trio.to_thread.run_sync(self._store, self._file, piece, part.is_last)
                except OSError as error:
                    log.warning("an object could not be written: %s", error.strerror)
                    self._status = OUT_OF_RESOURCES
                    self._file.discard()
                    self._file = None
        if part.is_last and self._request is not None:
            context_id, request = self._request
            uids = (request.affected_sop_class_uid or None, request.affected_sop_instance_uid or None)
            self._request = self._file = None
            await self._respond(context_id, CStoreRSP(request.message_id, self._status, *uids))

    @staticmethod
    def _store(file: _File, piece: bytearray, is_last: bool) -> None:
        file.write(piece)
        if is_last:
            file.complete()

    async def _respond(self, context_id: int, response: CEchoRSP | CStoreRSP) -> None:
        limit = self._settings.send_pdu_length
        if self._negotiated is not None and self._negotiated.peer_max_pdu_length:
            limit = min(limit, self._negotiated.peer_max_pdu_length)
        self._machine.check_can_send_data()
        await self._write(fragment(encode_command(response), context_id, limit, is_command=True, is_last=True))


def _whatever_is_proposed(request: AssociateRQ) -> dict[str, set[str]]:
    supported: dict[str, set[str]] = {}
    for offer in request.presentation_contexts:
        supported.setdefault(offer.abstract_syntax, set()).update(offer.transfer_syntaxes)
    return supported
