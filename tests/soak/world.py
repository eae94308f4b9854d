"""The world of a soak, in one process: the receiver on its ports, what is under way, and what went wrong."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_dicom import Admission, AssociationServer, AssociationSettings, StorageSCP, Timeouts, serve_associations, tls
from trio_dicom.testing import TLSFault, tls_contexts

from .parcel import Parcel
from .receiver import Receiver

AE_TITLE, CALLING = "SOAK", "TRIO_DICOM"
ON_PURPOSE = "OnPurpose|made no progress"  # what is logged of a receiver that is told to raise, or to hang
MOST_TROUBLES = 50  # that are kept
MANY = 500  # associations at a time: more than there ever are
IMPATIENT = Timeouts(
    tls_handshake=0.4,
    association=0.4,
    response=0.4,
    pdu=0.4,
    release=0.4,
    artim=0.4,
    idle=0.4,
    handler=0.4,
)


class World:
    """What scenes play in."""

    def __init__(self, scratch: Path, nursery: trio.Nursery) -> None:
        self.receiver = Receiver(scratch / "incoming")
        self.outbox = scratch / "outbox"
        self.outbox.mkdir()
        self.troubles: list[str] = []
        self.associations = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()  # by scene and outcome
        self.played: Counter[str] = Counter()  # associations by scene
        self.plain: AssociationServer
        self.over_tls: AssociationServer
        self.impatient: AssociationServer
        self.small: AssociationServer
        self.closed_port = 0
        self._nursery = nursery
        self._last_number = 0
        self._make_contexts()

    def _make_contexts(self) -> None:
        made, wrong = tls_contexts(), tls_contexts(fault=TLSFault.OTHER_AUTHORITY)
        self._server_tls = tls.server_context(made.server_certificate_pem, made.server_key_pem)
        self.tls_1_3 = tls.client_context(ca=made.authority_pem)
        self.tls_1_2 = tls.client_context(ca=made.authority_pem)
        self.tls_1_2.maximum_version = ssl.TLSVersion.TLSv1_2
        self.distrustful = tls.client_context(ca=wrong.authority_pem)

    async def start(self) -> None:
        """Listen on all ports."""
        usual = Admission(
            ae_title=AE_TITLE, calling_ae_titles=(CALLING,), associations=MANY, associations_per_host=MANY
        )
        small = Admission(associations_per_host=1)
        impatient = AssociationSettings(timeouts=IMPATIENT, operations_window=4)
        patient = AssociationSettings(operations_window=4)
        self.plain = await self._serve(usual, patient)
        self.over_tls = await self._serve(usual, patient, self._server_tls)
        self.impatient = await self._serve(usual, impatient)
        self.small = await self._serve(small, patient)

    async def _serve(
        self, admission: Admission, settings: AssociationSettings, tls: ssl.SSLContext | None = None
    ) -> AssociationServer:
        async def serve(task_status: trio.TaskStatus[AssociationServer]) -> None:
            scp = StorageSCP(self.receiver)
            await serve_associations(scp, 0, settings=settings, admission=admission, tls=tls, task_status=task_status)

        return await self._nursery.start(serve)

    # --- what is under way --------------------------------------------------------------------------------------------

    def enter(self, parcel: Parcel) -> None:
        self.receiver.parcels[parcel.uid] = parcel

    def count(self, scene: str, more: int = 1) -> None:
        """So many associations of this scene more."""
        self.associations += max(0, more)
        self.played[scene] += max(0, more)

    def next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    @property
    def is_quiet(self) -> bool:
        """No association is open at the receiver."""
        return not any(server.associations for server in (self.plain, self.over_tls, self.impatient, self.small))

    def trouble(self, what: str) -> None:
        """Something is not as it must be; the soak fails."""
        self.troubles.append(what) if len(self.troubles) < MOST_TROUBLES else None

    def settle_accounts(self) -> None:
        """When all is quiet: compare what was said of each parcel with what lies in the folder, and empty both."""
        parcels = self.receiver.parcels
        for parcel in list(parcels.values()):
            lie = parcel.lie(self.receiver.filed(parcel.uid))
            if lie is not None:
                self.trouble(f"{parcel.scene}: object {parcel.number}: {lie}")
            outcome = "missing" if parcel.outcome is None else parcel.outcome.value
            self.outcomes[parcel.scene, "false or missing" if lie is not None else outcome] += 1
            self.receiver.forget(parcel.uid)
        for folder in (self.receiver.folder, self.outbox):
            for path in folder.iterdir():
                if path.is_file() and folder is self.receiver.folder:
                    self.trouble(f"{path.name} was left in the receiver's folder")
                if path.is_file():
                    path.unlink()


@asynccontextmanager
async def open_world(scratch: Path) -> AsyncIterator[World]:
    """A world with its ports open, and the log of the library watched: an error in it is a trouble."""
    with contextlib.closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # and not listened on
        async with trio.open_nursery() as nursery:
            world = World(scratch, nursery)
            world.closed_port = unused.getsockname()[1]
            with _watched_log(world):
                await world.start()
                yield world
                nursery.cancel_scope.cancel()


@contextlib.contextmanager
def _watched_log(world: World) -> Iterator[None]:
    logger, handler = logging.getLogger("trio_dicom"), logging.Handler(logging.ERROR)

    def emit(record: logging.LogRecord) -> None:
        if not re.search(ON_PURPOSE, text := record.getMessage()):
            world.trouble(f"an error was logged: {text}")

    handler.emit = emit  # type: ignore[method-assign]
    was_propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_propagated
