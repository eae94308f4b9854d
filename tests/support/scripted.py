"""A peer that says exactly what a script says, legal or not, and shows every byte that it got.

    async def script(peer):
        await peer.accept()
        context_id, request, data_set = await peer.receive_message()
        await peer.answer(context_id, request, status=0xA700)

    async with scripted_link(script, [CT]) as association:
        ...

When the script ends, the peer reads on, answers a release, and closes once it is told good-bye.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
import trio.testing

from trio_dicom import Association, AssociationSettings, Limits, PresentationContext, wrap_client_stream
from trio_dicom.protocol import command as commands
from trio_dicom.protocol.command import Command, Response, decode_command, encode_command
from trio_dicom.protocol.message import fragment
from trio_dicom.protocol.pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRQ,
    PDataTF,
    PresentationContextAC,
    ReleaseRP,
    ReleaseRQ,
)
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.protocol.user_information import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    MaximumLength,
    UserItem,
)
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

CT = "1.2.840.10008.5.1.4.1.1.2"
MAX_PDU_LENGTH = 16_384

Script = Callable[["ScriptedPeer"], Awaitable[None]]

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class ScriptedPeer:
    """The acceptor's end of `stream`. Nothing that it says is checked."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()  # every byte that came
        self._buffer = ReceiveBuffer(Limits(pdu_length=1 << 30))
        self._pdvs: list[PDV] = []

    @property
    def pdus(self) -> list[PDU]:
        """What came so far; raises `ValueError` unless these are whole PDUs."""
        return whole_pdus(self.received)

    # --- what it hears

    async def receive_pdu(self) -> PDU | None:
        """The next PDU, or None once the other side has closed."""
        while (pdu := self._buffer.next_pdu()) is None:
            data = bytes(await self.stream.receive_some(1 << 16))
            if not data:
                return None
            self.received += data
            self._buffer.feed(data)
        return pdu

    async def receive_pdv(self) -> PDV:
        """The next presentation data value. Raises `AssertionError` if another PDU comes, or none."""
        while not self._pdvs:
            pdu = await self.receive_pdu()
            if not isinstance(pdu, PDataTF):
                raise AssertionError(f"P-DATA-TF was awaited, and {pdu} came")
            self._pdvs += pdu.pdvs
        return self._pdvs.pop(0)

    async def receive_message(self) -> tuple[int, Command, bytes]:
        """Presentation context ID, command, and the bytes of the data set (b"" if there is none)."""
        context_id, command = await self.receive_command()
        data_set = (await self._receive_part())[1] if command.has_data_set else b""
        return context_id, command, data_set

    async def receive_command(self) -> tuple[int, Command]:
        """The beginning of a message: its data set, if it has one, is left to come."""
        context_id, raw = await self._receive_part()
        return context_id, decode_command(raw)

    async def _receive_part(self) -> tuple[int, bytes]:
        part = bytearray()
        while True:
            pdv = await self.receive_pdv()
            part += pdv.data
            if pdv.is_last:
                return pdv.context_id, bytes(part)

    # --- what it says

    async def send(self, *what: PDU | bytes) -> None:
        """PDUs and raw bytes, in one piece."""
        pieces = [bytes(each) if isinstance(each, bytes | bytearray) else encoded(each) for each in what]
        await self.stream.send_all(b"".join(pieces))

    async def accept(
        self,
        *,
        max_pdu_length: int | None = MAX_PDU_LENGTH,
        window: int | tuple[int, int] | None = None,
        user_items: Iterable[UserItem] = (),
        **changes: Any,
    ) -> AssociateRQ:
        """Read the request and accept all of it, in the first transfer syntaxes; `changes` are to the AC."""
        request = await self.receive_pdu()
        if not isinstance(request, AssociateRQ):
            raise AssertionError(f"A-ASSOCIATE-RQ was awaited, and {request} came")
        answer = acceptance(request, max_pdu_length=max_pdu_length, window=window, user_items=user_items)
        await self.send(attrs.evolve(answer, **changes))
        return request

    async def answer(self, context_id: int, request: Command, status: int = 0, **changes: Any) -> None:
        """The response that belongs to `request`, with `changes` made to it."""
        await self.send(message(context_id, attrs.evolve(response_to(request, status), **changes)))

    async def serve(self) -> None:
        """Accept the association, answer every request with 0000, and release or close as asked."""
        await self.accept()
        await self.serve_requests()

    async def serve_requests(self, status: int = 0) -> None:
        """The same, of an association that is accepted already."""
        with suppress(*_GONE):
            while True:
                if not self._pdvs:
                    pdu = await self.receive_pdu()
                    if not isinstance(pdu, PDataTF):
                        await self._part(pdu)
                        return
                    self._pdvs += pdu.pdvs
                context_id, request, _ = await self.receive_message()
                await self.answer(context_id, request, status)

    # --- how it ends

    async def finish(self) -> None:
        """Read on to the end, answer a release, and close."""
        with suppress(*_GONE):
            pdu = await self.receive_pdu()
            while isinstance(pdu, PDataTF | AssociateRQ):
                pdu = await self.receive_pdu()
            await self._part(pdu)
        await self.close()

    async def hold(self) -> None:
        """Read on and say nothing at all, not even to a release, until the other side aborts or closes."""
        with suppress(*_GONE):
            pdu = await self.receive_pdu()
            while pdu is not None and not isinstance(pdu, Abort):
                pdu = await self.receive_pdu()

    async def _part(self, pdu: PDU | None) -> None:
        if isinstance(pdu, ReleaseRQ):
            await self.send(ReleaseRP())
            while await self.receive_pdu() is not None:
                pass

    async def close(self) -> None:
        """Close the connection, and keep what lies unread in it."""
        with suppress(*_GONE, trio.BusyResourceError):
            await self.stream.aclose()


def encoded(pdu: PDU) -> bytes:
    """The bytes of `pdu`."""
    return b"".join(pdu.encode())


def whole_pdus(data: bytes | bytearray, *, may_be_cut: bool = False) -> list[PDU]:
    """The PDUs that `data` are. Raises `ValueError` if the last is cut off, and what decoding raises."""
    buffer = ReceiveBuffer(Limits(pdu_length=1 << 30))
    buffer.feed(bytes(data))
    pdus: list[PDU] = []
    while (pdu := buffer.next_pdu()) is not None:
        pdus.append(pdu)
    if buffer.is_inside_pdu and not may_be_cut:
        raise ValueError(f"a PDU is cut off after {len(pdus)} whole ones")
    return pdus


def acceptance(
    request: AssociateRQ,
    *,
    max_pdu_length: int | None = MAX_PDU_LENGTH,
    window: int | tuple[int, int] | None = None,
    user_items: Iterable[UserItem] = (),
) -> AssociateAC:
    """The A-ASSOCIATE-AC that takes all of `request`; None leaves the item out."""
    items: list[UserItem] = [ImplementationClassUID("2.25.1")]
    if max_pdu_length is not None:
        items.insert(0, MaximumLength(max_pdu_length))
    if window is not None:
        invoked, performed = (window, 1) if isinstance(window, int) else window
        items.append(AsynchronousOperationsWindow(invoked, performed))
    contexts = tuple(
        PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[:1]) for each in request.presentation_contexts
    )
    return AssociateAC(request.called_ae_title, request.calling_ae_title, contexts, (*items, *user_items))


def response_to(request: Command, status: int = 0) -> Response:
    """The response that belongs to `request`."""
    kind = getattr(commands, type(request).__name__.replace("RQ", "RSP"))
    response: Response = kind(
        request.message_id,  # type: ignore[union-attr]
        status,
        getattr(request, "affected_sop_class_uid", None),
        getattr(request, "affected_sop_instance_uid", None),
    )
    return response


def message(context_id: int, command: Command | Response | bytes, data_set: bytes | None = None) -> bytes:
    """A message, or its command set in bytes right or wrong, as P-DATA-TF PDUs."""
    raw = command if isinstance(command, bytes) else encode_command(command)  # type: ignore[arg-type]
    buffers = fragment(raw, context_id, MAX_PDU_LENGTH, is_command=True, is_last=True)
    if data_set is not None:
        buffers += fragment(data_set, context_id, MAX_PDU_LENGTH, is_command=False, is_last=True)
    return b"".join(buffers)


@asynccontextmanager
async def scripted_link(
    script: Script,
    contexts: Iterable[PresentationContext | str] = (CT,),
    *,
    settings: AssociationSettings | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> AsyncIterator[Association]:
    """An association with a peer that follows `script`, over memory streams unless others are given.

    Left well, it is released; left by an exception, aborted. Exceptions come out of it as they are.
    """
    ours, theirs = streams or trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_follow, script, peer)
            try:
                association = await wrap_client_stream(nursery, ours, contexts, settings=settings)
                try:
                    yield association
                except BaseException:
                    await association.abort()
                    raise
                else:
                    await association.aclose()
            finally:
                nursery.cancel_scope.deadline = trio.current_time() + 2.0  # for a script that never ends
    except BaseExceptionGroup as group:
        raise _only(group) from None


async def _follow(script: Script, peer: ScriptedPeer) -> None:
    try:
        with suppress(*_GONE):  # the other side was faster
            await script(peer)
        await peer.finish()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            await peer.close()


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that counts: what is not a cancellation, and of these a failed script's last."""
    group = group.split(trio.Cancelled)[1] or group
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHL")
_IMPLICIT = struct.Struct("<HHL")


def make_data_set_file(
    size: int = 256,
    sop_class: str = CT,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    *,
    number: int = 1,
) -> bytes:
    """A DICOM file with `size` bytes (even) of pixels; its SOP Instance UID ends in `number`."""
    instance = f"2.25.1000.{number}"
    meta = b"".join(
        _explicit(2, element, b"UI", _uid(uid))
        for element, uid in ((0x02, sop_class), (0x03, instance), (0x10, transfer_syntax))
    )
    meta = _explicit(2, 0x01, b"OB", b"\0\1") + meta
    element = _implicit if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN else _explicit
    data_set = (
        element(0x0008, 0x0016, b"UI", _uid(sop_class))
        + element(0x0008, 0x0018, b"UI", _uid(instance))
        + element(0x0028, 0x0100, b"US", b"\x10\0")
        + element(0x7FE0, 0x0010, b"OW", bytes(range(256)) * (size // 256) + bytes(size % 256))
    )
    return bytes(128) + b"DICM" + _explicit(2, 0, b"UL", struct.pack("<L", len(meta))) + meta + data_set


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"OB", b"OW"):
        return _LONG.pack(group, element, vr, 0, len(value)) + value
    return _SHORT.pack(group, element, vr, len(value)) + value


def _implicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return _IMPLICIT.pack(group, element, len(value)) + value
