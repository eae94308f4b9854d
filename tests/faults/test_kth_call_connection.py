"""Every call to the system of both sides of a connection fails once, for all k: name look-up, connection, handshake,
reading, writing, the settings of sockets.

What is told of each object is so, errors are documented ones, nothing is left open, and the server serves the next.
Sockets and the clock are real ones.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio

from support.failing_calls import FailingCalls, each_call, os_error
from support.fake_instance import names
from trio_dicom import (
    AssociationError,
    AssociationSettings,
    ConnectFailed,
    CStoreOptions,
    StorageSCP,
    Timeouts,
    TLSError,
    echo,
    open_association,
    serve_associations,
)
from trio_dicom.services.storage_scu import StoreDelivery
from trio_dicom.testing import SOPClass, make_instance_file, tls_contexts
from trio_dicom.testing.cancel_sweep import open_descriptors

SIZES = {1: 64, 2: 300_000}
FILES = [make_instance_file(size, number=number) for number, size in SIZES.items()]
SETTINGS = AssociationSettings(
    timeouts=Timeouts(
        **dict.fromkeys(("connect", "tls_handshake", "association", "response", "artim"), 3.0),
        **dict.fromkeys(("release", "abort_grace", "abort_linger"), 0.05),
    )
)
# Not those of the listener: a server that cannot listen promises nothing.
SOCKET_CALLS = ("connect", "setsockopt", "getsockopt", "getpeername", "shutdown")


def patch_all(calls: FailingCalls, patch: pytest.MonkeyPatch) -> None:
    calls.patch(patch, os, "read", "writev")
    calls.patch(patch, socket.socket, *SOCKET_CALLS)
    calls.patch(patch, socket, "getaddrinfo")


def reset(name: str) -> Exception:
    return os_error(errno.ECONNRESET)(name)


def is_of_a_connection(subject: Any = None, *_: Any) -> bool:
    return not isinstance(subject, int) or os.readlink(f"/proc/self/fd/{subject}").startswith("socket:")


class Meeting:
    """A server, a client that sends two objects to it, and what came of it."""

    def __init__(self, folder: Path, server_tls: ssl.SSLContext | None, client_tls: ssl.SSLContext | None) -> None:
        self.folder = folder
        self.failure: Exception | None = None
        self._tls = server_tls, client_tls
        self._deliveries: list[StoreDelivery] = []

    async def run(self, calls: FailingCalls) -> None:
        scp, (server_tls, client_tls) = StorageSCP(self.folder), self._tls
        async with trio.open_nursery() as nursery:
            server = await nursery.start(_serve, scp, server_tls)
            with pytest.MonkeyPatch.context() as patch:
                patch_all(calls, patch)
                try:
                    await self._send(server.port, client_tls)
                except (AssociationError, ConnectFailed, TLSError) as failure:
                    self.failure = failure
            await echo(f"X@127.0.0.1:{server.port}", settings=SETTINGS, tls=client_tls)
            await server.drain(0.2)

    async def _send(self, port: int, tls: ssl.SSLContext | None) -> None:
        async with open_association(f"X@127.0.0.1:{port}", [SOPClass.CT], settings=SETTINGS, tls=tls) as association:
            for file in FILES:
                delivery = StoreDelivery(association, CStoreOptions(timeout=3), io.BytesIO(file))
                self._deliveries.append(delivery)
                try:
                    await delivery.run()
                except AssociationError as failure:
                    self.failure = failure

    def check(self, why: object) -> None:
        filed = names(self.folder)
        assert set(filed) <= {f"2.25.1000.{number}.dcm" for number in SIZES}, why
        for number, delivery in enumerate(self._deliveries, 1):
            is_filed = f"2.25.1000.{number}.dcm" in filed
            if delivery.status is None:
                assert delivery.in_doubt or not is_filed, why
                assert self.failure is not None, why
            else:
                assert delivery.status.is_success is is_filed, why


async def _serve(scp: StorageSCP, tls: ssl.SSLContext | None, *, task_status: Any) -> None:
    await serve_associations(scp, 0, settings=SETTINGS, tls=tls, task_status=task_status)


@pytest.mark.fault_row(1, 44)
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
def test_a_connection(tmp_path: Path, is_tls: bool) -> None:
    made = tls_contexts() if is_tls else None
    tls = (made.server, made.client) if made is not None else (None, None)
    failed, failures = set(), set()
    before = open_descriptors()
    for number, calls in enumerate(each_call(reset, only=is_of_a_connection)):
        meeting = Meeting(tmp_path / str(number), *tls)
        trio.run(meeting.run, calls)
        meeting.check(calls.failed)
        assert open_descriptors() == before, calls.failed
        failed.add(calls.failed)
        failures.add(type(meeting.failure))
    assert failed >= {"getaddrinfo", "connect", "setsockopt", "read", "writev"}
    assert failures >= {type(None), ConnectFailed}
