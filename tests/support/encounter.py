"""Objects sent to a scripted peer, and all that can be known of it afterwards."""

from __future__ import annotations

import io
from collections.abc import Iterable

import attrs
import pytest
import trio
import trio.testing

from trio_dicom import (
    Association,
    AssociationError,
    AssociationSettings,
    CStoreOptions,
    InstanceReport,
    Outcome,
    PresentationContext,
    ProtocolViolation,
    TrioDicomError,
)
from trio_dicom.protocol.pdu import PDU, Abort, PDataTF
from trio_dicom.sender.outcome import report_of_failure, report_of_response
from trio_dicom.services.storage_scu import StoreDelivery
from trio_dicom.testing import (
    Script,
    ScriptedPeer,
    SOPClass,
    make_instance_file,
    scripted_link,
    socket_pair_streams,
    whole_pdus,
)


@attrs.define
class Encounter:
    """What came of it."""

    peer: ScriptedPeer | None = None
    association: Association | None = None
    reports: list[InstanceReport] = attrs.field(factory=list)
    errors: list[TrioDicomError | None] = attrs.field(factory=list)  # of each object; of the association, if none came
    seconds: float = 0.0  # until the first object had its end

    @property
    def outcomes(self) -> list[Outcome]:
        return [report.outcome for report in self.reports]

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self.outcomes
        return outcome

    @property
    def error(self) -> TrioDicomError | None:
        return self.errors[0]

    @property
    def pdus(self) -> list[PDU]:
        """What the peer got; raises `ValueError` unless these are whole PDUs."""
        assert self.peer is not None
        return self.peer.pdus

    @property
    def data_sets_completed(self) -> int:
        """How many last fragments of a data set the peer got, whatever came after."""
        assert self.peer is not None
        pdus = whole_pdus(self.peer.received, may_be_cut=True)
        pdvs = [pdv for pdu in pdus if isinstance(pdu, PDataTF) for pdv in pdu.pdvs]
        return sum(pdv.is_last and not pdv.is_command for pdv in pdvs)

    @property
    def aborted_with(self) -> tuple[int, int] | None:
        """Source and reason of the A-ABORT that was the last that the peer got."""
        last = self.pdus[-1]
        return (last.source, last.reason) if isinstance(last, Abort) else None

    def check_violation(
        self, kind: type[ProtocolViolation], source: int, reason: int, outcome: Outcome = Outcome.IN_DOUBT
    ) -> None:
        """The peer was answered with this A-ABORT, the caller with `kind`, and the object counts as `outcome`."""
        assert type(self.error) is kind
        assert isinstance(self.error, ProtocolViolation)
        assert (self.error.abort_source, self.error.abort_reason) == (source, reason)
        assert self.error.in_doubt == (outcome is Outcome.IN_DOUBT)
        assert self.aborted_with == (source, reason)
        assert self.outcomes == [outcome]


async def meet(
    script: Script,
    *,
    files: int = 1,
    size: int = 1000,
    inputs: Iterable[object] | None = None,
    contexts: Iterable[PresentationContext | str] = (SOPClass.CT,),
    settings: AssociationSettings | None = None,
    options: CStoreOptions | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> Encounter:
    """Send `inputs`, or `files` objects of `size` bytes of pixels, one after another, to a peer that follows `script`.

    Whatever happened, no task is left, and the stream is closed.
    """
    met = Encounter()

    async def follow(peer: ScriptedPeer) -> None:
        met.peer = peer
        await script(peer)

    if inputs is None:
        inputs = [io.BytesIO(make_instance_file(size, number=number + 1)) for number in range(files)]
    inputs = list(inputs)
    ours, theirs = streams or trio.testing.memory_stream_pair()
    start = trio.current_time()
    try:
        async with scripted_link(follow, contexts, settings=settings, streams=(ours, theirs)) as association:
            met.association = association
            for each in inputs:
                delivery = StoreDelivery(association, options or CStoreOptions(), each)
                error = None
                try:
                    report = report_of_response(None, delivery, await delivery.run())
                except TrioDicomError as failure:
                    error, report = failure, report_of_failure(None, delivery, failure)
                met.seconds = met.seconds or trio.current_time() - start
                met.errors.append(error)
                met.reports.append(report)
    except AssociationError as failure:
        assert met.association is None
        met.seconds = trio.current_time() - start
        met.errors.append(failure)
        met.reports += [report_of_failure(None, None, failure)] * len(inputs)
    for stream in (ours, theirs):
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some(1)
    return met


# Each blocks a writer whose peer does not read: the way of TLS and of streams of the caller's, and that of TCP.
BLOCKING = pytest.mark.parametrize(
    "streams", [trio.testing.lockstep_stream_pair, socket_pair_streams], ids=["stream", "socket"]
)
