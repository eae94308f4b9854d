"""A tap on the line between a sender and a receiver: what was sent is what passed here.

A peer's sender may encode a data set anew before it sends it, and none tells which bytes it sent. So it is pointed at a
tap, which hands on every byte in both directions and keeps them; `Tap.requests()` reads the C-STORE requests, and the
statuses they were answered with, out of what passed. Nothing here uses trio_dicom: it is the outside view.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import trio

from interop.peers import HOST, split_part10

PIECE = 1 << 16
P_DATA = 0x04
COMMAND_FIELD, MESSAGE_ID, RESPONDED_TO, STATUS = 0x0100, 0x0110, 0x0120, 0x0900
SOP_CLASS, SOP_INSTANCE = 0x0002, 0x1000
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001


@attrs.frozen
class Instance:
    """What a sender sends and a receiver stores."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes = attrs.field(repr=False)


def instance_of(path: Path) -> Instance:
    """The instance in the Part 10 file at `path`, as its File Meta names it."""
    meta, data_set = split_part10(path.read_bytes())
    return Instance(meta[0x0002].decode("ascii"), meta[0x0003].decode("ascii"), meta[0x0010].decode("ascii"), data_set)


@attrs.frozen
class StoreRequest:
    """A C-STORE request that was sent whole; `status` is None if it was never answered."""

    instance: Instance
    status: int | None


# --- reading what passed (PS3.8 9.3, PS3.7 6.3 and 9.3.1) -------------------------------------------------------------


def pdus(stream: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each whole PDU."""
    at = 0
    while at + 6 <= len(stream):
        end = at + 6 + int.from_bytes(stream[at + 2 : at + 6], "big")
        if end > len(stream):
            return
        yield stream[at], bytes(stream[at + 6 : end])
        at = end


def items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the content of each item of an A-ASSOCIATE PDU."""
    at = 0
    while at + 4 <= len(body):
        end = at + 4 + int.from_bytes(body[at + 2 : at + 4], "big")
        yield body[at], body[at + 4 : end]
        at = end


def accepted(stream: bytes | bytearray) -> dict[int, str]:
    """The transfer syntaxes that an acceptor chose, by presentation context ID."""
    pdu_type, body = next(pdus(stream), (0, b""))
    contexts = [content for item, content in items(body[68:]) if item == 0x21] if pdu_type == 0x02 else []
    return {
        context[0]: uid.rstrip(b"\0 ").decode("ascii")
        for context in contexts
        if context[2] == 0
        for item, uid in items(context[4:])
        if item == 0x40
    }


def messages(stream: bytes | bytearray) -> Iterator[tuple[int, dict[int, bytes], bytes]]:
    """The context ID, the command set and the data set of each whole message."""
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    command: dict[int, bytes] = {}
    for body in (body for pdu_type, body in pdus(stream) if pdu_type == P_DATA):
        at = 0
        while at < len(body):
            end = at + 4 + int.from_bytes(body[at : at + 4], "big")
            context_id, control = body[at + 4], body[at + 5]
            parts[is_command := bool(control & 1)].append(body[at + 6 : end])
            at = end
            if not control & 2:
                continue
            if is_command:
                command = elements(b"".join(parts[True]))
            if not is_command or command[0x0800] == b"\x01\x01":  # no data set follows
                yield context_id, command, b"".join(parts[False])
                parts = {True: [], False: []}


def elements(command_set: bytes) -> dict[int, bytes]:
    """The values of a command set, by element number."""
    values = {}
    at = 0
    while at < len(command_set):
        end = at + 8 + int.from_bytes(command_set[at + 4 : at + 8], "little")
        values[int.from_bytes(command_set[at + 2 : at + 4], "little")] = command_set[at + 8 : end]
        at = end
    return values


@attrs.frozen
class Recording:
    """The bytes of one connection."""

    from_requestor: bytearray = attrs.field(factory=bytearray, repr=False)
    from_acceptor: bytearray = attrs.field(factory=bytearray, repr=False)

    def requests(self) -> list[StoreRequest]:
        statuses: dict[bytes, collections.deque[int]] = collections.defaultdict(collections.deque)
        for _, response, _ in messages(self.from_acceptor):
            if int.from_bytes(response[COMMAND_FIELD], "little") == C_STORE_RSP:
                statuses[response[RESPONDED_TO]].append(int.from_bytes(response[STATUS], "little"))
        transfer_syntaxes = accepted(self.from_acceptor)
        requests = []
        for context_id, command, data_set in messages(self.from_requestor):
            if int.from_bytes(command[COMMAND_FIELD], "little") == C_STORE_RQ:
                sop_class, sop_instance = (
                    command[each].rstrip(b"\0 ").decode("ascii") for each in (SOP_CLASS, SOP_INSTANCE)
                )
                answers = statuses[command[MESSAGE_ID]]  # a message ID may be used again
                status = answers.popleft() if answers else None
                instance = Instance(sop_class, sop_instance, transfer_syntaxes[context_id], data_set)
                requests.append(StoreRequest(instance, status))
        return requests


# --- the tap ----------------------------------------------------------------------------------------------------------


@attrs.define
class Tap:
    """Listens on `port`.

    The answers to the first `together` associations are held until all of them have one: then all are open at once.
    After `stall_after` bytes a requestor's connection hands on no more, and is ended when `cut` is set.
    """

    receiver_port: int
    together: int = 0
    stall_after: float = math.inf
    port: int = 0
    cut: trio.Event = attrs.Factory(trio.Event)
    recordings: list[Recording] = attrs.Factory(list)
    answered: int = 0
    all_answered: trio.Event = attrs.Factory(trio.Event)

    def requests(self) -> list[StoreRequest]:
        """Every C-STORE request that has passed, the associations one after another."""
        return [request for recording in self.recordings for request in recording.requests()]

    async def relay(self, requestor: trio.SocketStream) -> None:
        self.recordings.append(recording := Recording())
        async with await trio.open_tcp_stream(HOST, self.receiver_port) as acceptor, trio.open_nursery() as nursery:

            async def hand_on(source: trio.SocketStream, to: trio.SocketStream, record: bytearray) -> None:
                try:
                    async for piece in source:
                        if source is acceptor and not record:
                            await self.hold()
                        if source is requestor and len(record) + len(piece) > self.stall_after:
                            await self.cut.wait()
                            nursery.cancel_scope.cancel()
                        record += piece
                        await to.send_all(piece)
                    await to.send_eof()
                except trio.BrokenResourceError:  # a side is gone: so is the connection
                    nursery.cancel_scope.cancel()

            nursery.start_soon(hand_on, requestor, acceptor, recording.from_requestor)
            nursery.start_soon(hand_on, acceptor, requestor, recording.from_acceptor)

    async def hold(self) -> None:
        self.answered += 1
        if self.answered == self.together:
            self.all_answered.set()
        elif self.answered < self.together:
            await self.all_answered.wait()


@contextlib.asynccontextmanager
async def tap(receiver_port: int, *, together: int = 0, stall_after: float = math.inf) -> AsyncIterator[Tap]:
    """A tap in front of the receiver at `receiver_port`. Leaving it waits until every connection has ended."""
    tapped = Tap(receiver_port, together, stall_after)
    async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
        listen = functools.partial(trio.serve_tcp, tapped.relay, 0, host=HOST, handler_nursery=connections)
        listeners = await accepting.start(listen)
        tapped.port = listeners[0].socket.getsockname()[1]
        yield tapped
        accepting.cancel_scope.cancel()
