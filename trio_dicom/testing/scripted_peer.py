"""A peer that says exactly what a script says, legal or not, and keeps every byte that it got.

As the acceptor:

    async def script(peer):
        await peer.accept()
        context_id, request, data_set = await peer.receive_message()
        await peer.answer(context_id, request, status=0xA700)

    async with scripted_link(script, [SOPClass.CT]) as association:
        ...

As the requestor:

    peer = ScriptedPeer(stream)
    await peer.associate([SOPClass.CT])
    response = await peer.store(make_instance_file())
    await peer.release()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

import attrs
import trio

from ..errors import InvalidObject
from ..protocol import command as commands
from ..protocol.command import (
    CEchoRQ,
    Command,
    CStoreRQ,
    CStoreRSP,
    Response,
    decode_command,
    encode_command,
)
from ..protocol.message import fragment
from ..protocol.negotiation import PresentationContext, as_presentation_contexts
from ..protocol.pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRQ,
    PDataTF,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
)
from ..protocol.receive_buffer import ReceiveBuffer
from ..protocol.user_information import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    MaximumLength,
    UserItem,
)
from ..settings import Limits
from ..sources.part10 import parse_head
from ..uids import VERIFICATION
from .identity import SOPClass

MAX_PDU_LENGTH = 16_384
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)  # what a peer hears of when the other side was faster

_IMPLEMENTATION = ImplementationClassUID("2.25.1")


class ScriptedPeer:
    """One end of an association over `stream`. Nothing that it says is checked, nor what it hears.

    `received` has every byte that came, so that a test can prove what went over the wire.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()
        self._buffer = ReceiveBuffer(Limits(pdu_length=1 << 30))
        self._pdvs: list[PDV] = []
        self._last_message_id = 0
        self._contexts: dict[int, tuple[str, str]] = {}  # accepted: abstract and transfer syntax
        self._is_aborted = False

    @property
    def pdus(self) -> list[PDU]:
        """What came so far; raises `ValueError` unless these are whole PDUs."""
        return whole_pdus(self.received)

    @property
    def is_associated(self) -> bool:
        """True from an answer that accepted a presentation context, to an abort or to a release by this side."""
        return bool(self._contexts) and not self._is_aborted

    # --- what it hears ------------------------------------------------------------------------------------------------

    async def receive_pdu(self) -> PDU | None:
        """The next PDU, or None once the other side has closed.

        Raises `InvalidPDU` or `UnrecognisedPDU` for what is none, and trio's errors of the stream.
        """
        while (pdu := self._buffer.next_pdu()) is None:
            data = bytes(await self.stream.receive_some(1 << 16))
            if not data:
                return None
            self.received += data
            self._buffer.feed(data)
        if isinstance(pdu, Abort):
            self._is_aborted = True
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

    # --- what it says -------------------------------------------------------------------------------------------------

    async def send(self, *what: PDU | bytes) -> None:
        """PDUs and raw bytes, in one piece."""
        pieces = [bytes(each) if isinstance(each, bytes | bytearray) else encoded(each) for each in what]
        await self.stream.send_all(b"".join(pieces))

    async def send_message(
        self,
        context_id: int,
        command: Command | Response | bytes,
        data_set: bytes | None = None,
        *,
        max_pdu_length: int = MAX_PDU_LENGTH,
    ) -> None:
        """A message, or its command set in bytes right or wrong, in P-DATA-TF PDUs of at most `max_pdu_length`."""
        await self.send(message(context_id, command, data_set, max_pdu_length=max_pdu_length))

    # --- as the acceptor ----------------------------------------------------------------------------------------------

    async def accept(
        self,
        *,
        max_pdu_length: int | None = MAX_PDU_LENGTH,
        window: int | tuple[int, int] | None = None,
        user_items: Iterable[UserItem] = (),
        **changes: Any,
    ) -> AssociateRQ:
        """Read the request and accept all of it, in the first transfer syntaxes; `changes` are to the A-ASSOCIATE-AC.

        None as `max_pdu_length` (bytes) or `window` leaves the item out. Raises `AssertionError` if no request comes.
        """
        request = await self.receive_pdu()
        if not isinstance(request, AssociateRQ):
            raise AssertionError(f"A-ASSOCIATE-RQ was awaited, and {request} came")
        answer = acceptance(request, max_pdu_length=max_pdu_length, window=window, user_items=user_items)
        answer = attrs.evolve(answer, **changes)
        self._note_contexts(request, answer)
        await self.send(answer)
        return request

    async def answer(self, context_id: int, request: Command, status: int = 0, **changes: Any) -> None:
        """The response that belongs to `request`, with `changes` made to it."""
        await self.send(message(context_id, attrs.evolve(response_to(request, status), **changes)))

    async def serve(self) -> None:
        """Accept the association, answer every request with 0000, and release or close as asked.

        However the other side ends it, in the middle of a message or before it has asked for anything, this returns.
        """
        with suppress(*GONE, AssertionError):
            await self.accept()
            await self.serve_requests()

    async def serve_requests(self, status: int = 0) -> None:
        """The same, of an association that is accepted already; every request is answered with `status`."""
        with suppress(*GONE, AssertionError):
            while True:
                if not self._pdvs:
                    pdu = await self.receive_pdu()
                    if not isinstance(pdu, PDataTF):
                        await self._part(pdu)
                        return
                    self._pdvs += pdu.pdvs
                context_id, request, _ = await self.receive_message()
                await self.answer(context_id, request, status)

    # --- as the requestor ---------------------------------------------------------------------------------------------

    async def associate(
        self,
        contexts: Iterable[PresentationContext | str] = (SOPClass.CT,),
        *,
        called_ae_title: str = "ANY-SCP",
        calling_ae_title: str = "SCRIPTED",
        max_pdu_length: int | None = MAX_PDU_LENGTH,
        window: int | tuple[int, int] | None = None,
        user_items: Iterable[UserItem] = (),
        **changes: Any,
    ) -> PDU | None:
        """Ask for an association; `changes` are to the A-ASSOCIATE-RQ.

        Returns what was answered, whatever it is; None if the other side closed. Contexts have the IDs 1, 3, 5 ...
        """
        request = association_request(
            contexts,
            called_ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
            max_pdu_length=max_pdu_length,
            window=window,
            user_items=user_items,
        )
        request = attrs.evolve(request, **changes)
        await self.send(request)
        answer = await self.receive_pdu()
        if isinstance(answer, AssociateAC):
            self._note_contexts(request, answer)
        return answer

    async def request(
        self, context_id: int, command: Command | bytes, data_set: bytes | None = None
    ) -> tuple[Command, bytes]:
        """Send a request and receive the next message, which ought to be its response, and the data set of it.

        Raises `AssertionError` if something else than a message comes.
        """
        await self.send_message(context_id, command, data_set)
        _, response, answer = await self.receive_message()
        return response, answer

    async def store(self, file: bytes, *, context_id: int | None = None, **changes: Any) -> CStoreRSP:
        """C-STORE the object that is in `file`, the bytes of a DICOM file, as it lies there; `changes` are to the RQ.

        It goes on the context that was accepted for its SOP class and transfer syntax, if there is one; else on the
        first for its SOP class; else on context 1. Raises `AssertionError` if something else than a response comes.
        """
        head = parse_head(file, at_end=True)
        if head is None:
            raise InvalidObject("not a DICOM file")
        if context_id is None:
            context_id = self.context_id_for(head.sop_class_uid, head.transfer_syntax_uid)
        request = CStoreRQ(self.next_message_id(), head.sop_class_uid, head.sop_instance_uid)
        request = attrs.evolve(request, **changes)
        response, _ = await self.request(context_id, request, file[head.data_set_offset :])
        if not isinstance(response, CStoreRSP):
            raise AssertionError(f"C-STORE-RSP was awaited, and {response} came")
        return response

    async def echo(self, *, context_id: int | None = None) -> int:
        """C-ECHO; the status that it was answered with. Raises `AssertionError` if something else comes."""
        if context_id is None:
            context_id = self.context_id_for(VERIFICATION)
        response, _ = await self.request(context_id, CEchoRQ(self.next_message_id(), VERIFICATION))
        if not isinstance(response, commands.CEchoRSP):
            raise AssertionError(f"C-ECHO-RSP was awaited, and {response} came")
        return response.status

    async def release(self) -> PDU | None:
        """Ask for release, wait for the answer to that, and close. What was answered; None if the other side closed."""
        self._contexts.clear()
        await self.send(ReleaseRQ())
        answer = await self.receive_pdu()
        while isinstance(answer, PDataTF):
            answer = await self.receive_pdu()
        await self.close()
        return answer

    def next_message_id(self) -> int:
        """1, 2, 3 ..., one for each request."""
        self._last_message_id = self._last_message_id % 65_535 + 1
        return self._last_message_id

    def context_id_for(self, abstract_syntax: str, transfer_syntax: str | None = None) -> int:
        """The ID of the context accepted for these, or for the abstract syntax alone; 1 if there is none."""
        found = {pair: context_id for context_id, pair in reversed(self._contexts.items())}
        of_class = [context_id for pair, context_id in found.items() if pair[0] == abstract_syntax]
        return found.get((abstract_syntax, transfer_syntax or ""), min(of_class, default=1))

    def _note_contexts(self, request: AssociateRQ, answer: AssociateAC) -> None:
        proposed = {context.context_id: context.abstract_syntax for context in request.presentation_contexts}
        self._contexts = {
            context.context_id: (proposed[context.context_id], context.transfer_syntaxes[0])
            for context in answer.presentation_contexts
            if not context.result and context.transfer_syntaxes and context.context_id in proposed
        }

    # --- how it ends --------------------------------------------------------------------------------------------------

    async def abort(self, source: int = 0, reason: int = 0) -> None:
        """A-ABORT, and close."""
        self._contexts.clear()
        await self.send(Abort(source, reason))
        await self.close()

    async def finish(self) -> None:
        """Read on to the end, answer a release, and close; after an A-ABORT, close."""
        with suppress(*GONE):
            pdu = None if self._is_aborted else await self.receive_pdu()
            while isinstance(pdu, PDataTF | AssociateRQ):
                pdu = await self.receive_pdu()
            await self._part(pdu)
        await self.close()

    async def hold(self) -> None:
        """Read on and say nothing at all, not even to a release, until the other side aborts or closes."""
        with suppress(*GONE):
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
        self._contexts.clear()
        with suppress(*GONE, trio.BusyResourceError):
            await self.stream.aclose()


Script: TypeAlias = Callable[[ScriptedPeer], Awaitable[None]]
Answer: TypeAlias = PDU | bytes | Callable[[int, Command], PDU | bytes]  # given the context ID and the request


# --- what peers say ---------------------------------------------------------------------------------------------------


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


def association_request(
    contexts: Iterable[PresentationContext | str] = (SOPClass.CT,),
    *,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "SCRIPTED",
    max_pdu_length: int | None = MAX_PDU_LENGTH,
    window: int | tuple[int, int] | None = None,
    user_items: Iterable[UserItem] = (),
) -> AssociateRQ:
    """The A-ASSOCIATE-RQ that proposes `contexts` under the IDs 1, 3, 5 ...; None leaves an item out."""
    proposed = tuple(
        PresentationContextRQ(2 * number + 1, context.abstract_syntax, context.transfer_syntaxes)
        for number, context in enumerate(as_presentation_contexts(contexts))
    )
    return AssociateRQ(called_ae_title, calling_ae_title, proposed, _user_items(max_pdu_length, window, user_items))


def acceptance(
    request: AssociateRQ,
    *,
    max_pdu_length: int | None = MAX_PDU_LENGTH,
    window: int | tuple[int, int] | None = None,
    user_items: Iterable[UserItem] = (),
) -> AssociateAC:
    """The A-ASSOCIATE-AC that takes all of `request`; None leaves an item out."""
    contexts = tuple(
        PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[:1]) for each in request.presentation_contexts
    )
    items = _user_items(max_pdu_length, window, user_items)
    return AssociateAC(request.called_ae_title, request.calling_ae_title, contexts, items)


def _user_items(
    max_pdu_length: int | None, window: int | tuple[int, int] | None, others: Iterable[UserItem]
) -> tuple[UserItem, ...]:
    items: list[UserItem] = [_IMPLEMENTATION]
    if max_pdu_length is not None:
        items.insert(0, MaximumLength(max_pdu_length))
    if window is not None:
        invoked, performed = (window, 1) if isinstance(window, int) else window
        items.append(AsynchronousOperationsWindow(invoked, performed))
    return (*items, *others)


def response_to(request: Command, status: int = 0, error_comment: str | None = None) -> Response:
    """The response that belongs to `request`."""
    return commands.response_to(request, status, error_comment)  # type: ignore[arg-type]  # responses have none


def message(
    context_id: int,
    command: Command | Response | bytes,
    data_set: bytes | None = None,
    *,
    max_pdu_length: int = MAX_PDU_LENGTH,
) -> bytes:
    """A message, or its command set in bytes right or wrong, as P-DATA-TF PDUs."""
    raw = command if isinstance(command, bytes) else encode_command(command)  # type: ignore[arg-type]
    buffers = fragment(raw, context_id, max_pdu_length, is_command=True, is_last=True)
    if data_set is not None:
        buffers += fragment(data_set, context_id, max_pdu_length, is_command=False, is_last=True)
    return b"".join(buffers)


# --- scripts of one line ----------------------------------------------------------------------------------------------


def answering(*statuses: int) -> Script:
    """A peer that accepts, answers the requests that come with `statuses`, one after another, and then only reads."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        for status in statuses:
            context_id, request, _ = await peer.receive_message()
            await peer.answer(context_id, request, status)

    return script


def instead_of_accept(*what: PDU | bytes) -> Script:
    """A peer that says this where an answer to the association request is awaited."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.receive_pdu()
        await peer.send(*what)

    return script


def instead_of_response(*what: Answer) -> Script:
    """A peer that says this, in one piece, where the response to its first request is awaited.

    A callable is given the presentation context ID and the request.
    """

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, _ = await peer.receive_message()
        await peer.send(*(each(context_id, request) if callable(each) else each for each in what))

    return script
