"""A Storage SCP for tests: what came is there to look at, and what it answers is scripted."""

from __future__ import annotations

import io
import math
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio
import trio.testing

from ..association.acceptor import AssociationServer, serve_associations, wrap_server_stream
from ..association.admission import Admission
from ..association.association import Association
from ..association.requestor import wrap_client_stream
from ..errors import TrioDicomError
from ..protocol.negotiation import PresentationContext
from ..protocol.status import Status
from ..services.instance import Instance, StoreReply
from ..services.storage_scp import StorageSCP
from ..settings import AssociationSettings, Timeouts
from .plain_nursery import open_plain_nursery, released_after
from .scripted_links import LINGER

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


@attrs.frozen
class ReceivedInstance:
    """A SOP instance that came whole: who it is, its data set as it came, and the status that was scripted for it.

    `status` is None where nothing was to be answered.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    data_set: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    file_head: bytes = attrs.field(repr=False)
    status: Status | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the status says that it was stored."""
        return self.status is not None and (self.status.is_success or self.status.is_warning)

    @property
    def file(self) -> bytes:
        """The bytes of the DICOM file (PS3.10) that a receiver would make of it."""
        return self.file_head + self.data_set

    def dataset(self) -> FileDataset:
        """The data set, read by pydicom."""
        import pydicom

        return pydicom.dcmread(io.BytesIO(self.file))


Condition = Callable[[Instance], bool]


@attrs.define(eq=False)
class ScriptedReply:
    """What was scripted for some of the requests to come; `calls` are the SOP Instance UIDs of those that met it."""

    status: Status | None  #: None where nothing is answered
    times: float  #: how many requests it is for
    comment: str | None = None
    delay: float = 0.0
    when: Condition | None = None
    aborts: bool = False
    after_bytes: int | None = None
    required: bool = True
    calls: list[str] = attrs.field(factory=list)

    def matches(self, instance: Instance) -> bool:
        return len(self.calls) < self.times and (self.when is None or self.when(instance))

    @property
    def is_missed(self) -> bool:
        """It was required, and was not met as often as it was scripted for."""
        return self.required and len(self.calls) < (1 if self.times == math.inf else self.times)

    def __str__(self) -> str:
        what = "an abort" if self.aborts else "no answer" if self.status is None else f"{int(self.status):04X}"
        times = "any number of requests" if self.times == math.inf else f"{self.times:g}"
        advice = "" if self.calls else "; `required=False` allows that"
        return f"{what} was scripted for {times}, and met by {len(self.calls)}{advice}"


class ScriptedStorageSCP:
    """What `storage_scp` gives: a Storage SCP that keeps in memory what comes.

    `received` has each `ReceivedInstance` in the order in which they came whole.
    """

    def __init__(self, ae_title: str) -> None:
        self.ae_title = ae_title
        self.received: list[ReceivedInstance] = []
        self._replies: list[ScriptedReply] = []
        self._arrival = trio.Event()
        self._service: StorageSCP
        self._settings: AssociationSettings
        self._admission: Admission | None = None
        self._server: AssociationServer
        self._nursery: trio.Nursery

    # --- where it is

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 on which it listens."""
        return self._server.port

    @property
    def address(self) -> str:
        """What to send to: AE title, host and port."""
        return f"{self.ae_title}@127.0.0.1:{self.port}"

    @property
    def associations(self) -> frozenset[Association]:
        """Those that are open over its port."""
        return self._server.associations

    def stream(self, *, backpressure: bool = False) -> trio.abc.HalfCloseableStream:
        """A connection to it in memory, for `wrap_client_stream`; goes with a virtual clock.

        A writer never waits, unless `backpressure` is asked for: then nothing is taken before it is read.
        """
        ours, theirs = trio.testing.lockstep_stream_pair() if backpressure else trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    @asynccontextmanager
    async def link(
        self,
        contexts: Iterable[PresentationContext | str],
        *,
        settings: AssociationSettings | None = None,
        stream: trio.abc.Stream | None = None,
    ) -> AsyncIterator[Association]:
        """An association with it in memory, for an `async with` block; over `stream()`, or one that wraps such.

        Left well, it is released; left by an exception, aborted. Exceptions come out as they are.
        """
        async with open_plain_nursery() as nursery:
            association = await wrap_client_stream(
                nursery, stream or self.stream(), contexts, called_ae_title=self.ae_title, settings=settings
            )
            try:
                async with released_after(association):
                    yield association
            finally:
                nursery.cancel_scope.deadline = trio.current_time() + LINGER

    # --- what came

    @property
    def stored(self) -> list[FileDataset]:
        """The data sets that were, or are about to be, answered with success or a warning, read by pydicom."""
        return [each.dataset() for each in self.received if each.is_stored]

    async def wait_for(self, count: int, *, timeout: float = 5.0) -> None:
        """Wait until `count` instances have been received in all.

        Raises `AssertionError` if that takes more than `timeout` seconds.
        """
        with trio.move_on_after(timeout) as scope:
            while len(self.received) < count:
                await self._arrival.wait()
        if scope.cancelled_caught:
            raise AssertionError(f"{len(self.received)} of {count} instances came within {timeout:g} s")

    # --- what it answers

    def reply(
        self,
        status: int = 0x0000,
        *,
        times: float = 1,
        comment: str | None = None,
        delay: float = 0.0,
        when: Condition | None = None,
        sop_instance_uid: str | None = None,
        required: bool = True,
    ) -> ScriptedReply:
        """Answer the next C-STORE with `status`, and an error comment (0000,0902), `delay` seconds after it came whole.

        Replies are used in the order in which they were scripted, each for as many requests as `times` says (`math.inf`
        for all to come); what meets none of them is answered with 0000 at once. With `sop_instance_uid`, or a condition
        `when`, which is given the `Instance` before its data set is read, it is for those requests alone. A reply that
        is `required`, and was not used as often as that (`math.inf`: once), makes `storage_scp` raise `AssertionError`
        at its end.
        """
        if not isinstance(status, int):
            raise TypeError(f"a status is a number, such as 0xA700, not {status!r}")
        reply = ScriptedReply(Status(status), times, comment, delay, _condition(when, sop_instance_uid))
        reply.required = required
        return self._script(reply)

    def reply_nothing(
        self,
        *,
        times: float = 1,
        when: Condition | None = None,
        sop_instance_uid: str | None = None,
        required: bool = True,
    ) -> ScriptedReply:
        """Receive the next instance, and never answer. Otherwise as `reply`."""
        condition = _condition(when, sop_instance_uid)
        return self._script(ScriptedReply(None, times, when=condition, required=required))

    def abort(
        self,
        *,
        after_bytes: int | None = None,
        times: float = 1,
        when: Condition | None = None,
        sop_instance_uid: str | None = None,
        required: bool = True,
    ) -> ScriptedReply:
        """Answer the next C-STORE by an A-ABORT, when it came whole or `after_bytes` of its data set. Else as `reply`.

        With `after_bytes`, it does not count as received.
        """
        condition = _condition(when, sop_instance_uid)
        reply = ScriptedReply(None, times, when=condition, required=required, aborts=True, after_bytes=after_bytes)
        return self._script(reply)

    def _script(self, reply: ScriptedReply) -> ScriptedReply:
        if not reply.times >= 1:
            raise ValueError(f"a reply is for one request at least, not {reply.times!r}")
        self._replies.append(reply)
        return reply

    def assert_all_used(self) -> None:
        """Raise `AssertionError` if a reply that is required was not used as often as it was scripted for."""
        missed = [str(reply) for reply in self._replies if reply.is_missed]
        if missed:
            raise AssertionError("; ".join(missed))

    # --- how it does that

    async def _handle(self, instance: Instance) -> StoreReply:
        reply = next((each for each in self._replies if each.matches(instance)), ScriptedReply(Status(0), math.inf))
        reply.calls.append(instance.sop_instance_uid)
        if reply.after_bytes is not None:
            while instance.bytes_received < reply.after_bytes and await instance.receive_pieces():
                pass
        else:
            data_set = await instance.read(1 << 62)
            self.received.append(_received(instance, data_set, reply.status))
            self._arrival.set()
            self._arrival = trio.Event()
        if reply.aborts:
            self._nursery.start_soon(instance.association.abort)  # which waits for this task
        if reply.status is None:
            await trio.sleep_forever()
        else:
            await trio.sleep(reply.delay)
        return StoreReply(reply.status, reply.comment)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        with suppress(TrioDicomError):  # the other side is told
            async with open_plain_nursery() as nursery:
                await wrap_server_stream(
                    nursery, stream, self._service, settings=self._settings, admission=self._admission
                )


def _condition(when: Condition | None, sop_instance_uid: str | None) -> Condition | None:
    if sop_instance_uid is None:
        return when
    return lambda instance: instance.sop_instance_uid == sop_instance_uid and (when is None or when(instance))


def _received(instance: Instance, data_set: bytes, status: Status | None) -> ReceivedInstance:
    return ReceivedInstance(
        instance.sop_class_uid,
        instance.sop_instance_uid,
        instance.transfer_syntax_uid,
        instance.calling_ae_title,
        instance.called_ae_title,
        data_set,
        instance.file_head(),
        status,
    )


@asynccontextmanager
async def storage_scp(
    *,
    ae_title: str = "TEST_SCP",
    sop_classes: Iterable[str] | None = None,
    transfer_syntaxes: Iterable[str] | None = None,
    settings: AssociationSettings | None = None,
    admission: Admission | None = None,
    tls: ssl.SSLContext | None = None,
    assert_all_used: bool = True,
) -> AsyncIterator[ScriptedStorageSCP]:
    """A Storage SCP on a port of 127.0.0.1 that the system chooses, for an `async with` block::

        async with storage_scp() as scp:
            scp.reply(0xA700, times=2)
            await my_sender(scp.address)
            await scp.wait_for(3)
        assert [each.PatientID for each in scp.stored] == ["CANARY-PHI"]

    It can be reached in memory, too: `ScriptedStorageSCP.link` and `stream`. It takes every SOP class and transfer
    syntax, unless `sop_classes` or `transfer_syntaxes` (UIDs) are given, and answers C-ECHO. `settings` are those of
    its associations, by default such that it never tires of a silent peer; `timeouts.handler` is off. `admission` tells
    who is let in, by default all who call it by whatever title. With `tls`, its port speaks TLS.

    Leaving the block ends all associations, and raises `AssertionError` if a reply that is required was not used,
    unless `assert_all_used` is False or the body itself raised. Exceptions of the body come out as they are.
    """
    scp = ScriptedStorageSCP(ae_title)
    scp._service = StorageSCP(
        scp._handle, sop_classes=sop_classes, transfer_syntaxes=transfer_syntaxes, accept_private=sop_classes is None
    )
    settings = settings or AssociationSettings(timeouts=Timeouts(idle=math.inf))
    scp._settings = attrs.evolve(settings, timeouts=attrs.evolve(settings.timeouts, handler=math.inf))
    scp._admission = admission
    async with open_plain_nursery() as scp._nursery:
        scp._server = await scp._nursery.start(_serve_port, scp, tls)
        yield scp
        scp._nursery.cancel_scope.cancel()
    if assert_all_used:
        scp.assert_all_used()


async def _serve_port(
    scp: ScriptedStorageSCP, tls: ssl.SSLContext | None, task_status: trio.TaskStatus[AssociationServer]
) -> None:
    await serve_associations(
        scp._service, 0, settings=scp._settings, admission=scp._admission, tls=tls, task_status=task_status
    )
