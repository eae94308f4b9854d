"""What receiving one object costs, in calls of Python functions on the event loop: a guard, for it creeps up unseen.

The limits are a tenth above what was counted last. Where less is needed than a limit says, lower it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from support.acceptor_link import data_set_of, store_rq
from support.call_counter import Counter
from trio_dicom import Instance, InstanceFolder, StorageSCP, serve_associations
from trio_dicom.testing import association_request, encoded, make_instance_file, message

OBJECTS = 300
WARM_UP = 100
SIZES = {"one PDU": 10_000, "32 PDUs": 500_000}


async def drop(instance: Instance) -> int:
    while await instance.receive_pieces(1 << 20):
        pass
    return 0x0000


class Peer:
    """A requestor in a thread, where no calls are counted."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._received = b""
        self._exchange(encoded(association_request()))

    def _exchange(self, data: bytes) -> None:
        """Send it, and await a PDU."""
        self._socket.sendall(data)
        while len(self._received) < 6 or len(self._received) < 6 + int.from_bytes(self._received[2:6], "big"):
            self._received += self._socket.recv(4096)
        self._received = b""

    def send(self, messages: list[bytes]) -> None:
        for each in messages:
            self._exchange(each)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads are of other sizes elsewhere")
@pytest.mark.skipif(sys.gettrace() is not None, reason="something else looks at the calls")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("handler", "limit"),
    [(lambda path: drop, 370), (lambda path: InstanceFolder(path, sync=False), 500)],
    ids=["dropped", "filed"],
)
async def test_calls_for_one_object(
    handler: Callable[[Path], Callable[[Instance], object]], limit: int, size: int, tmp_path: Path
) -> None:
    file = make_instance_file(size)
    messages = [message(1, store_rq(file, number + 1), data_set_of(file)) for number in range(OBJECTS + WARM_UP)]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_associations, StorageSCP(handler(tmp_path)), 0)  # type: ignore[arg-type]
        peer = await trio.to_thread.run_sync(Peer, server.port)
        await trio.to_thread.run_sync(peer.send, messages[:WARM_UP])
        with Counter() as counter:
            await trio.to_thread.run_sync(peer.send, messages[WARM_UP:])
        peer.close()
        nursery.cancel_scope.cancel()
    cost = counter.calls / OBJECTS
    print(f"{cost:.0f} calls an object, {limit} at most")
    assert cost <= limit
