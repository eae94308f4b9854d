"""Stage: what one scene of a soak has: its dice, its parcels, and the ways to a receiver."""

from __future__ import annotations

import contextlib
import io
import math
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
import trio

from trio_dicom import (
    Association,
    AssociationAborted,
    AssociationSettings,
    CStoreOptions,
    CStoreSCU,
    InstanceReport,
    Peer,
    RetryPolicy,
    Sender,
    SenderOptions,
    TransferReport,
    TrioDicomError,
    open_association,
    open_sender,
)
from trio_dicom.sender.outcome import report_of_failure, report_of_response
from trio_dicom.testing import SOPClass
from trio_dicom.uids import VERIFICATION

from .parcel import Parcel, Treatment
from .world import AE_TITLE, World

CONTEXTS = (SOPClass.CT, VERIFICATION)
SMALL, MIDDLE, LARGE = (0, 4_000), (20_000, 400_000), (5_000_000, 9_000_000)  # bytes of pixels
CANCELLED = AssociationAborted(0, 0, by_peer=False, detail="cancelled")
RETRY = RetryPolicy(base_delay=0.005, max_delay=0.05)


@attrs.define(eq=False)
class Stage:
    """For one scene. With `is_tls`, it speaks TLS with the usual receiver."""

    world: World
    scene: str
    may_end: frozenset[Any]
    dice: Random
    is_tls: bool
    parcels: list[Parcel] = attrs.field(factory=list)

    @property
    def port(self) -> int:
        return (self.world.over_tls if self.is_tls else self.world.plain).port

    @property
    def tls(self) -> ssl.SSLContext | None:
        """TLS 1.3, one time in ten 1.2, or none.

        OpenSSL keeps the last 20,480 sessions of TLS 1.2, 1 KB each, and Python cannot tell it not to.
        """
        if not self.is_tls:
            return None
        return self.world.tls_1_2 if self.dice.random() < 0.1 else self.world.tls_1_3

    def parcel(self, *treatments: Treatment | int, sizes: tuple[int, int] | None = None) -> Parcel:
        """One more object that is to be sent, mostly a small one."""
        least, most = sizes or (MIDDLE if self.dice.random() < 0.1 else SMALL)
        size = self.dice.randint(least, most) & ~1
        parcel = Parcel(self.world.next_number(), size, self.scene, self.may_end, list(treatments))
        self.parcels.append(parcel)
        self.world.enter(parcel)
        return parcel

    def some(self, least: int, most: int, *treatments: Treatment | int) -> list[Parcel]:
        """A few more."""
        return [self.parcel(*treatments) for _ in range(self.dice.randint(least, most))]

    def source(self, parcel: Parcel) -> Path | io.BytesIO:
        """Its file, on the disk or in memory."""
        if self.dice.random() < 0.5:
            return io.BytesIO(parcel.file)
        path = self.world.outbox / f"{parcel.number}.dcm"
        path.write_bytes(parcel.file)
        return path

    @asynccontextmanager
    async def association(
        self,
        *,
        port: int | None = None,
        title: str = AE_TITLE,
        contexts: Iterable[str] = CONTEXTS,
        settings: AssociationSettings | None = None,
        **more: Any,
    ) -> AsyncIterator[Association]:
        """With the usual receiver, unless another `port` is asked for, which is that of a relay or speaks plain TCP."""
        peer = Peer(title, "127.0.0.1", port or self.port)
        async with open_association(peer, contexts, settings=settings, **{"tls": self.tls} | more) as association:
            yield association

    async def send(self, association: Association, parcel: Parcel, options: CStoreOptions | None = None) -> None:
        """Send it, and note what came of it. Raises nothing but `Cancelled`."""
        delivery = CStoreSCU(association, options).delivery(self.source(parcel))
        failure: TrioDicomError = CANCELLED
        response = None
        try:
            response = await delivery.run()
        except TrioDicomError as error:
            failure = error
        finally:
            if response is not None:
                parcel.note(report_of_response(None, delivery, response))
            else:
                parcel.note(report_of_failure(None, delivery, failure))
            parcel.left.set()

    async def send_all(
        self,
        *,
        port: int | None = None,
        ledger: Path | None = None,
        associations: int = 1,
        cancel_after: float = math.inf,
    ) -> None:
        """All parcels by a sender; what it says of each is noted, and its sums are looked at."""
        opened = open_sender(
            Peer(AE_TITLE, "127.0.0.1", port or self.port),
            associations=associations,
            options=SenderOptions(retry=RETRY, random=self.dice, linger=0.5),
            ledger=ledger,
            tls=self.tls,
        )
        sources = [self.source(parcel) for parcel in self.parcels]
        sender: Sender | None = None
        reports: AsyncIterable[InstanceReport] | None = None
        with trio.move_on_after(cancel_after):
            async with opened as sender, sender.send_many(sources) as reports:
                async for report in reports:
                    self.parcels[report.number].note(report)
        if reports is not None:
            with contextlib.suppress(trio.ClosedResourceError):  # which it is if all were received
                async for report in reports:
                    self.parcels[report.number].note(report)
        if sender is not None:
            self._check_sums(sender.report)

    def _check_sums(self, report: TransferReport) -> None:
        self.world.count(self.scene, report.associations - 1)
        noted = sum(parcel.reports for parcel in self.parcels)
        if report.pending or {sum(report.counts.values()), report.inputs} != {noted}:
            self.world.trouble(f"{self.scene}: {noted} reports, and sums of {report}")
