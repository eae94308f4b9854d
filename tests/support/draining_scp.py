"""A Storage SCP that throws data sets away, for large objects: one association, in a thread, on a port of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trio_dicom import Limits
from trio_dicom.protocol.message import CommandReceived, DataFragment, MessageAssembler
from trio_dicom.protocol.pdu import AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.testing import acceptance, encoded, message, response_to


class DrainingSCP:
    """`address` is what to send to; `data_set_bytes` are those that came. With `stop_after`, it reads no further."""

    def __init__(self, stop_after: int | None) -> None:
        self.data_set_bytes = 0
        self._stop_after = stop_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        return f"DRAIN@127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        buffer, assembler = ReceiveBuffer(Limits()), MessageAssembler(Limits())
        request = None
        while data := connection.recv(1 << 18):
            buffer.feed(data)
            while (pdu := buffer.next_pdu()) is not None:
                if isinstance(pdu, AssociateRQ):
                    connection.sendall(encoded(acceptance(pdu)))
                elif isinstance(pdu, ReleaseRQ):
                    connection.sendall(encoded(ReleaseRP()))
                elif isinstance(pdu, PDataTF):
                    for item in map(assembler.receive, pdu.pdvs):
                        if isinstance(item, CommandReceived):
                            request = item.command
                        elif isinstance(item, DataFragment):
                            self.data_set_bytes += len(item.data)
                            if item.is_last and request is not None:
                                connection.sendall(message(item.context_id, response_to(request, 0)))
            if self._stop_after is not None and self.data_set_bytes >= self._stop_after:
                self._over.wait()
                return


@contextmanager
def draining_scp(stop_after: int | None = None) -> Iterator[DrainingSCP]:
    """One that runs, for the length of the block."""
    scp = DrainingSCP(stop_after)
    scp.start()
    try:
        yield scp
    finally:
        scp.stop()
