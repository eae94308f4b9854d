"""What is left without the library: the same PDUs, made and sent, or received and filed, with nothing looked at.

    bare.py sockets|trio|tasks PORT FOLDER
    bare.py receive|receive-trio PORT FOLDER [--no-fsync]

How fast these are is how fast Python, and trio, are on a machine: `sockets` and `receive` block; `trio` waits with trio
in a single task; `tasks` has a writer task, fed by a memory channel, and a reader task, as an association has;
`receive-trio` files in threads, so that a disk that hangs holds up nobody. None of them checks a file, an object or an
answer, or can be cancelled, and those that send know the heads of the files before their clock starts.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from trio_dicom import AssociationSettings, StorageSCP
from trio_dicom.association.service import Services
from trio_dicom.protocol.command import CStoreRQ, Priority, decode_command, encode_command, response_to
from trio_dicom.protocol.message import fragment, payload_per_pdu
from trio_dicom.protocol.negotiation import Negotiated, PresentationContext, answer, conclude, propose
from trio_dicom.protocol.pdu import PDU, AssociateAC, AssociateRQ, Buffer, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.protocol.upper_layer import Side, UpperLayer
from trio_dicom.services.arriving_file import write_all
from trio_dicom.sources.file import read_head
from trio_dicom.sources.part10 import Head

MiB = 1 << 20
COMMAND, LAST = 1, 2  # message control header
SETTINGS = AssociationSettings()
ROOM = memoryview(bytearray(4 * MiB))
HALVES = ROOM[: 2 * MiB], ROOM[2 * MiB :]  # one is filled while the other is written


# --- sending ----------------------------------------------------------------------------------------------------------


class Sending:
    """An association over which the files of a folder are sent."""

    def __init__(self, port: int, folder: Path) -> None:
        self.paths = [str(path) for path in sorted(folder.iterdir())]
        self.heads = [read_head(path) for path in self.paths]
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        self._machine = UpperLayer(Side.REQUESTOR, SETTINGS.limits)
        self._machine.connected()
        self._negotiated = self._negotiate()
        length = self._negotiated.peer_max_pdu_length or SETTINGS.send_pdu_length
        self._pdu_length = min(length, SETTINGS.send_pdu_length)
        self._piece = MiB // payload_per_pdu(self._pdu_length) * payload_per_pdu(self._pdu_length)

    def _negotiate(self) -> Negotiated:
        contexts = sorted({(head.sop_class_uid, head.transfer_syntax_uid) for head in self.heads})
        request = propose([PresentationContext(*each) for each in contexts], "SINK", SETTINGS)
        write_all(self.fd, self._machine.send(request))
        agreed = hear(self.socket, self._machine)
        assert isinstance(agreed, AssociateAC)
        return conclude(request, agreed, SETTINGS)

    def messages(self) -> Iterator[Iterator[list[Buffer]]]:
        """Each object in pieces, of which each takes the place of the last but one."""
        for number, (path, head) in enumerate(zip(self.paths, self.heads, strict=True)):
            yield self._pieces(path, head, number % 65_535 + 1)

    def _pieces(self, path: str, head: Head, message_id: int) -> Iterator[list[Buffer]]:
        context = self._negotiated.find(head.sop_class_uid, (head.transfer_syntax_uid,)).context_id
        command = encode_command(CStoreRQ(message_id, head.sop_class_uid, head.sop_instance_uid, Priority.MEDIUM))
        buffers = fragment(command, context, self._pdu_length, is_command=True, is_last=True)
        fd = os.open(path, os.O_RDONLY)
        try:
            at, end = head.data_set_offset, os.fstat(fd).st_size
            for room in itertools.cycle(HALVES):
                count = os.preadv(fd, [room[: self._piece]], at)
                at += count
                buffers += fragment(room[:count], context, self._pdu_length, is_command=False, is_last=at == end)
                yield buffers
                if at == end:
                    break
                buffers = []
        finally:
            os.close(fd)

    def release(self) -> None:
        self.socket.setblocking(True)
        write_all(self.fd, self._machine.send(ReleaseRQ()))
        assert isinstance(hear(self.socket, self._machine), ReleaseRP)
        self.socket.close()


def hear(sock: socket.socket, machine: UpperLayer) -> PDU:
    while (event := machine.next_event()) is None:
        machine.receive_data(sock.recv(MiB))
    assert isinstance(event, PDU)
    return event


def sockets(sending: Sending) -> None:
    for pieces in sending.messages():
        for buffers in pieces:
            write_all(sending.fd, buffers)
        hear_answer(sending.fd)


def hear_answer(fd: int) -> None:
    if len(os.read(fd, MiB)) < 12:  # the sink answers in one piece
        raise SystemExit("no answer")


async def write(fd: int, buffers: list[Buffer]) -> None:
    left = sum(map(len, buffers))
    while True:
        try:
            count = os.writev(fd, buffers)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(fd)
            continue
        left -= count
        if not left:
            return
        while count >= len(buffers[0]):
            count -= len(buffers.pop(0))
        buffers[0] = memoryview(buffers[0])[count:]


async def one_task(sending: Sending) -> None:
    for pieces in sending.messages():
        for buffers in pieces:
            await write(sending.fd, buffers)
        await trio.lowlevel.wait_readable(sending.fd)
        hear_answer(sending.fd)


async def tasks(sending: Sending) -> None:
    queue, batches = trio.open_memory_channel[list[Buffer]](0)
    waiting: list[trio.Event] = []

    async def write_on() -> None:
        async for buffers in batches:
            await write(sending.fd, buffers)

    async def read_on() -> None:
        while True:
            await trio.lowlevel.wait_readable(sending.fd)
            hear_answer(sending.fd)
            waiting.pop().set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        nursery.start_soon(read_on)
        for pieces in sending.messages():
            answered = trio.Event()
            waiting.append(answered)
            for buffers in pieces:
                await queue.send(buffers)
            await answered.wait()
        nursery.cancel_scope.cancel()


def send(form: str, port: int, folder: Path) -> None:
    sending = Sending(port, folder)
    sending.socket.setblocking(form == "sockets")
    start, cpu_start = time.perf_counter(), time.process_time()
    if form == "sockets":
        sockets(sending)
    else:
        trio.run({"trio": one_task, "tasks": tasks}[form], sending)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    sending.release()
    size = sum(os.path.getsize(path) for path in sending.paths) - sum(head.data_set_offset for head in sending.heads)
    print(json.dumps({"objects": len(sending.paths), "bytes": size, "seconds": seconds, "cpu": cpu}))


# --- receiving --------------------------------------------------------------------------------------------------------

Message = tuple[int, bytes, Sequence[memoryview]]  # context, command set, data set


class Receiving:
    """An association of a peer that puts one PDV in a PDU; objects of less than 4 MiB, each filed under its number."""

    def __init__(self, port: int, folder: Path, *, sync: bool) -> None:
        services = Services(StorageSCP(folder))  # which is asked for what it accepts, and nothing else
        with socket.create_server(("127.0.0.1", port)) as listener:
            self.socket, _ = listener.accept()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        machine = UpperLayer(Side.ACCEPTOR, SETTINGS.limits)
        machine.connected()
        request = hear(self.socket, machine)
        assert isinstance(request, AssociateRQ)
        write_all(self.fd, machine.send(answer(request, services.supported(request), SETTINGS)[0]))
        self.is_over = False
        self._folder = os.open(folder, os.O_RDONLY)
        self._sync = sync
        self._filed = 0
        self._begin = self._end = 0  # of what is unread in ROOM
        self._command, self._pieces = b"", list[memoryview]()

    @property
    def room(self) -> memoryview:
        return ROOM[self._end :]

    def take(self, count: int) -> Message | None:
        """So many bytes were received into the room; the message that they complete."""
        if not count:
            raise SystemExit("the peer has gone, or the object is larger than there is room")
        self._end += count
        while self._end - self._begin >= 10:
            pdu_type, length, context_id, control = struct.unpack_from(">BxL4xBB", ROOM, self._begin)
            if pdu_type != PDataTF.pdu_type:
                self.is_over = True
                return None
            end = self._begin + length + 6
            if end > self._end:
                return None
            data = ROOM[self._begin + 12 : end]
            self._begin = end
            if control & COMMAND:
                self._command, self._pieces = bytes(data), []
                continue
            self._pieces.append(data)
            if control & LAST:
                self._begin = self._end = 0  # the peer waits for the answer
                return context_id, self._command, self._pieces
        return None

    def file(self, message: Message) -> None:
        name = f"{self._filed}.dcm"
        self._filed += 1
        part = name + ".part"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
        write_all(fd, [bytes(400), *message[2]])  # as long as what goes before a data set
        if self._sync:
            os.fsync(fd)
        os.close(fd)
        os.rename(part, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        if self._sync:
            os.fsync(self._folder)

    def respond(self, message: Message) -> None:
        request = decode_command(message[1])
        assert isinstance(request, CStoreRQ)
        response = encode_command(response_to(request, 0))
        write_all(self.fd, fragment(response, message[0], 16384, is_command=True, is_last=True))

    def run(self) -> None:
        while not self.is_over:
            if (message := self.take(self.socket.recv_into(self.room))) is not None:
                self.file(message)
                self.respond(message)

    async def run_with_trio(self) -> None:
        self.socket.setblocking(False)
        while not self.is_over:
            await trio.lowlevel.wait_readable(self.fd)
            if (message := self.take(self.socket.recv_into(self.room))) is not None:
                await trio.to_thread.run_sync(self.file, message)
                self.respond(message)


def receive(form: str, port: int, folder: Path, *, sync: bool) -> None:
    receiving = Receiving(port, folder, sync=sync)
    if form == "receive":
        receiving.run()
    else:
        trio.run(receiving.run_with_trio)
    write_all(receiving.fd, ReleaseRP().encode())
    receiving.socket.close()


if __name__ == "__main__":
    form, port, folder, *options = sys.argv[1:]
    if form.startswith("receive"):
        receive(form, int(port), Path(folder), sync=not options)
    else:
        send(form, int(port), Path(folder))
