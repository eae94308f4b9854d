"""The scenes of a soak: what becomes of one association or a few, how often, and how its objects may end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from random import Random

import attrs
import trio

from trio_dicom import (
    AssociationError,
    AssociationRejected,
    AssociationSettings,
    ConnectFailed,
    ConnectionLost,
    CStoreOptions,
    NoAcceptedContexts,
    Outcome,
    Timeouts,
    TLSError,
    TrioDicomError,
    UnrecognisedPDU,
)
from trio_dicom.sender.outcome import report_of_failure
from trio_dicom.uids import VERIFICATION

from .parcel import Treatment
from .relay import RESET, Cut, relay
from .stage import CANCELLED, LARGE, MIDDLE, Stage
from .world import IMPATIENT, World

LONGEST = 60.0  # s of one scene; more is a hang
TLS_SHARE = 0.2
SOON = 120_000  # bytes, within which a connection is cut

STORED, NOT_SENT, IN_DOUBT = Outcome.STORED, Outcome.NOT_SENT, Outcome.IN_DOUBT
ANY = (STORED, NOT_SENT, IN_DOUBT)
QUICK = AssociationSettings(timeouts=IMPATIENT)
FOUR_AT_ONCE = AssociationSettings(operations_window=4)


@attrs.frozen
class Scene:
    """`weight` is how often it is played; it may raise `errors`, and its objects end as one of `may_end`."""

    name: str
    weight: int
    play: Callable[[Stage], Awaitable[None]]
    may_end: tuple[Outcome, ...] = (STORED,)
    errors: tuple[type[TrioDicomError], ...] = ()


async def play(world: World, seed: int, number: int) -> None:
    """The `number`th association of a soak, or the first of several: the same scene for the same seed."""
    dice = Random(f"{seed} {number}")
    scene = dice.choices(SCENES, WEIGHTS)[0]
    stage = Stage(world, scene.name, frozenset(scene.may_end), dice, dice.random() < TLS_SHARE)
    world.count(scene.name)
    failure: TrioDicomError | None = None
    try:
        with trio.fail_after(LONGEST):
            await scene.play(stage)
    except scene.errors as error:
        failure = error
    except trio.TooSlowError:
        world.trouble(f"{scene.name}: no end after {LONGEST:g} s")
    except Exception as error:
        world.trouble(f"{scene.name}: {type(error).__name__}: {error}")
    for parcel in stage.parcels:
        parcel.left.set()
        if failure is not None and not parcel.reports:
            parcel.note(report_of_failure(None, None, failure))


# --- nothing goes wrong -----------------------------------------------------------------------------------------------


async def one_object(stage: Stage) -> None:
    async with stage.association() as association:
        await stage.send(association, stage.parcel())


async def several_objects(stage: Stage) -> None:
    """One after another, or four at once."""
    parcels = stage.some(2, 8)
    settings = stage.dice.choice((None, FOUR_AT_ONCE))
    async with stage.association(settings=settings) as association, trio.open_nursery() as nursery:
        for parcel in parcels:
            nursery.start_soon(stage.send, association, parcel)


async def large_object(stage: Stage) -> None:
    async with stage.association() as association:
        await stage.send(association, stage.parcel(sizes=LARGE))


async def echo(stage: Stage) -> None:
    async with stage.association(contexts=[VERIFICATION]) as association:
        for _ in range(stage.dice.randint(1, 3)):
            await association.echo()


async def sender(stage: Stage) -> None:
    stage.some(1, 12)
    await stage.send_all(associations=stage.dice.randint(1, 3))


async def sender_with_ledger(stage: Stage) -> None:
    parcels = stage.some(1, 6)
    ledger = stage.world.outbox / f"{parcels[0].number}.db"
    await stage.send_all(ledger=ledger)


# --- the receiver says no ---------------------------------------------------------------------------------------------


async def refusal(stage: Stage) -> None:
    parcels = [stage.parcel(status) for status in stage.dice.choices((0xA900, 0xC000, 0x0111, 0xB000, 0x0110), k=3)]
    async with stage.association() as association:
        for parcel in parcels:
            await stage.send(association, parcel)


async def busy_receiver(stage: Stage) -> None:
    """A700 once or twice, or more often than it is tried again."""
    options = CStoreOptions(max_retries=2, retry_delay=0.005)
    async with stage.association() as association:
        await stage.send(association, stage.parcel(*[0xA700] * stage.dice.randint(1, 3)), options)


async def sender_and_busy_receiver(stage: Stage) -> None:
    stage.some(1, 4, *[0xA700] * stage.dice.randint(1, 3))
    await stage.send_all()


async def failing_receiver(stage: Stage) -> None:
    async with stage.association() as association:
        await stage.send(association, stage.parcel(Treatment.RAISE))
        await stage.send(association, stage.parcel())


async def wrong_title(stage: Stage) -> None:
    stage.parcel()
    if stage.dice.random() < 0.5:
        async with stage.association(title="ELSEWHERE"):
            pass
    async with stage.association(settings=AssociationSettings(calling_ae_title="NOBODY")):
        pass


async def full_receiver(stage: Stage) -> None:
    """Two at once, where there is room for one."""

    async def store() -> None:
        with contextlib.suppress(AssociationRejected):
            parcel = stage.parcel()
            async with stage.association(port=stage.world.small.port, tls=None) as association:
                await stage.send(association, parcel)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store)
        nursery.start_soon(store)
    for parcel in stage.parcels:
        if not parcel.reports:
            parcel.note(report_of_failure(None, None, AssociationRejected(2, 3, 2)))


async def no_context(stage: Stage) -> None:
    stage.parcel()
    async with stage.association(contexts=["1.2.840.10008.5.1.4.1.2.2.1"]):  # a query
        pass


async def nobody_there(stage: Stage) -> None:
    stage.parcel()
    async with stage.association(port=stage.world.closed_port, tls=None):
        pass


# --- an end before the end --------------------------------------------------------------------------------------------


async def cancelled_in_the_middle(stage: Stage) -> None:
    parcel = stage.parcel(Treatment.PAUSE, sizes=LARGE)
    async with stage.association() as association, trio.open_nursery() as nursery:
        nursery.start_soon(stage.send, association, parcel)
        await parcel.begun.wait()
        nursery.cancel_scope.cancel()


async def cancelled_before_the_answer(stage: Stage) -> None:
    """The association stays usable."""
    parcel, another = stage.parcel(Treatment.LATE), stage.parcel()
    async with stage.association() as association:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.send, association, parcel)
            await parcel.stored.wait()
            nursery.cancel_scope.cancel()
        await stage.send(association, another)
    if another.outcome is not STORED:
        stage.world.trouble(f"{stage.scene}: the next object was {another.outcome}")


async def cancelled_anywhere(stage: Stage) -> None:
    parcels = stage.some(1, 4)
    with trio.move_on_after(stage.dice.uniform(0, 0.03)):
        async with stage.association() as association:
            for parcel in parcels:
                await stage.send(association, parcel)
    for parcel in parcels:
        if not parcel.reports:
            parcel.note(report_of_failure(None, None, CANCELLED))


async def sender_cancelled(stage: Stage) -> None:
    """All of a sender, at any moment. What it had not even taken was not sent."""
    parcels = stage.some(3, 12)
    await stage.send_all(associations=2, cancel_after=stage.dice.uniform(0, 0.05))
    for parcel in parcels:
        if not parcel.reports:
            parcel.note(report_of_failure(None, None, CANCELLED))


async def aborted_by_the_sender(stage: Stage) -> None:
    parcel = stage.parcel(Treatment.PAUSE, sizes=stage.dice.choice((MIDDLE, LARGE)))
    async with stage.association() as association, trio.open_nursery() as nursery:
        nursery.start_soon(stage.send, association, parcel)
        await parcel.begun.wait()
        await association.abort()


async def aborted_by_the_receiver(stage: Stage) -> None:
    when = stage.dice.choice((Treatment.ABORT_BEFORE, Treatment.ABORT_MIDDLE, Treatment.ABORT_AFTER))
    parcels = [stage.parcel(when, sizes=stage.dice.choice((MIDDLE, LARGE))), stage.parcel()]
    async with stage.association() as association:
        for parcel in parcels:
            await stage.send(association, parcel)


async def sender_and_aborts(stage: Stage) -> None:
    """One of its objects is aborted, once; all arrive."""
    stage.parcel(stage.dice.choice((Treatment.ABORT_BEFORE, Treatment.ABORT_AFTER)))
    stage.some(1, 4)
    await stage.send_all(associations=2)


async def reset(stage: Stage) -> None:
    """By what is between the two, after any number of bytes."""
    parcels = stage.some(1, 4)
    cut = Cut(stage.dice.randint(0, SOON))
    async with relay(stage.port, cut) as port, stage.association(port=port) as association:
        for parcel in parcels:
            await stage.send(association, parcel)


async def sender_and_reset(stage: Stage) -> None:
    """It comes again, and all arrive."""
    stage.some(2, 6)
    async with relay(stage.port, Cut(stage.dice.randint(0, SOON))) as port:
        await stage.send_all(port=port)


async def visitor(stage: Stage) -> None:
    """Who connects, says something else than DICOM or nothing, and resets or closes."""
    words = stage.dice.choice((b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\0\xff\xff\xff\xff", b"\x16\3\1\2\0", b"\x01\0"))
    with contextlib.suppress(trio.BrokenResourceError):
        async with await trio.open_tcp_stream("127.0.0.1", stage.port) as stream:
            if stage.dice.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await stream.send_all(words)


# --- time runs out ----------------------------------------------------------------------------------------------------


async def stalled(stage: Stage) -> None:
    """What is between the two lets nothing through any more; both are impatient."""
    port = stage.port if stage.is_tls else stage.world.impatient.port
    parcels = stage.some(1, 2)
    cut = Cut(stage.dice.randint(0, 6_000), stall=1.0)
    async with relay(port, cut) as through, stage.association(port=through, settings=QUICK) as association:
        for parcel in parcels:
            await stage.send(association, parcel, CStoreOptions(timeout=0.3))


async def late_answer(stage: Stage) -> None:
    async with stage.association() as association:
        await stage.send(association, stage.parcel(Treatment.LATE), CStoreOptions(timeout=0.5))


async def hanging_receiver(stage: Stage) -> None:
    """It is answered for, if the sender waits so long."""
    patience = stage.dice.choice((0.2, 30.0))
    async with stage.association(port=stage.world.impatient.port, tls=None) as association:
        await stage.send(association, stage.parcel(Treatment.MUTE), CStoreOptions(timeout=patience))


async def idle_sender(stage: Stage) -> None:
    """It is aborted."""
    async with stage.association(port=stage.world.impatient.port, tls=None) as association:
        await association.wait_closed()


# --- TLS --------------------------------------------------------------------------------------------------------------


async def tls_refused(stage: Stage) -> None:
    """Another authority, or TLS on one side alone."""
    world, dice = stage.world, stage.dice
    stage.parcel()
    port, context = dice.choice(
        (
            (world.over_tls.port, world.distrustful),
            (world.over_tls.port, None),
            (world.plain.port, world.tls_1_3),
        )
    )
    async with stage.association(port=port, tls=context, settings=AssociationSettings(timeouts=Timeouts())):
        pass


LOST = (AssociationError, ConnectFailed, TLSError)  # by who is impatient, or cut
SCENES = (
    Scene("one object", 200, one_object),
    Scene("several objects", 130, several_objects),
    Scene("a large object", 10, large_object),
    Scene("C-ECHO", 100, echo),
    Scene("a sender of many", 60, sender),
    Scene("a sender of many, with a ledger", 15, sender_with_ledger),
    Scene(
        "refused with a status", 40, refusal, (Outcome.REFUSED, Outcome.ALREADY_PRESENT, Outcome.STORED_WITH_WARNING)
    ),
    Scene("A700, and tried again", 40, busy_receiver, (STORED, Outcome.REFUSED)),
    Scene("A700, to a sender of many", 20, sender_and_busy_receiver),
    Scene("the receiver's handler raises", 10, failing_receiver, (STORED, Outcome.REFUSED)),
    Scene("rejected: a wrong title", 30, wrong_title, (NOT_SENT,), (AssociationRejected,)),
    Scene("rejected: full", 20, full_receiver, (STORED, NOT_SENT)),
    Scene("no context accepted", 15, no_context, (Outcome.NO_CONTEXT,), (NoAcceptedContexts,)),
    Scene("connection refused", 10, nobody_there, (NOT_SENT,), (ConnectFailed,)),
    Scene("cancelled in the middle", 40, cancelled_in_the_middle, (NOT_SENT, IN_DOUBT)),
    Scene("cancelled before the answer", 30, cancelled_before_the_answer, (STORED, IN_DOUBT)),
    Scene("cancelled at any moment", 40, cancelled_anywhere, ANY),
    Scene("a sender of many, cancelled", 15, sender_cancelled, ANY),
    Scene("aborted by the sender", 30, aborted_by_the_sender, (NOT_SENT, IN_DOUBT)),
    Scene("aborted by the receiver", 30, aborted_by_the_receiver, (NOT_SENT, IN_DOUBT)),
    Scene("aborted, to a sender of many", 20, sender_and_aborts),
    Scene("reset on the way", 50, reset, ANY, LOST),
    Scene("reset, to a sender of many", 20, sender_and_reset),
    Scene("no DICOM", 15, visitor),
    Scene("stalled on the way", 15, stalled, ANY, LOST),
    Scene("answered too late", 10, late_answer, (NOT_SENT, IN_DOUBT)),
    Scene("the receiver's handler hangs", 10, hanging_receiver, (NOT_SENT, IN_DOUBT, Outcome.REFUSED), LOST),
    Scene("an idle sender", 5, idle_sender, errors=LOST),
    Scene("TLS refused", 20, tls_refused, (NOT_SENT,), (TLSError, ConnectionLost, UnrecognisedPDU)),
)
WEIGHTS = [scene.weight for scene in SCENES]
