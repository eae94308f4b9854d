"""One association's upper layer (PS3.8 section 9.2) without I/O: bytes in, PDUs out; PDUs in, bytes out.

Theory of operation:

1. The driver owns the transport connection. It says when there is one (`connected`), hands over what it received
   (`receive_data`), takes what came of it (`next_event` until None), and writes what `send` and `reply` give it.
2. What happens is decided by the tables of `state` and by nothing else. The PDUs are the events. A PDU that the local
   user may not send now is a `LocalProtocolError`, and leaves everything as it was.
3. A violation by the peer makes its transition first, to Sta13, and is raised then; the A-ABORT that answers it waits
   in `reply`. After every call of `next_event`, whatever it gave or raised, `reply` is to be asked.
4. `must_close` is true once the machine is back in Sta1: nothing more is to be written or read. In Sta13 nothing more
   is to be written but `reply`; the driver reads until the peer closes, or `artim_expired`.
5. `send` makes the transition before the bytes leave. If they never do, or only in part, the driver says `send_failed`,
   and the association is over.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeAlias

import attrs

from ..errors import LocalProtocolError, ProtocolViolation, UnexpectedPDU
from ..settings import Limits
from .pdu import PDU, Abort, AssociateAC, AssociateRJ, AssociateRQ, Buffer, PDataTF, ReleaseRP, ReleaseRQ
from .receive_buffer import ReceiveBuffer
from .state import ACTIONS, TRANSITIONS, Effect, Event, State


class Side(enum.Enum):
    """Who asked for the association."""

    REQUESTOR = "requestor"
    ACCEPTOR = "acceptor"


@attrs.frozen
class ConnectionClosed:
    """The peer closed the transport connection; `inside_pdu` if in the middle of a PDU, which is lost."""

    inside_pdu: bool = False


UpperLayerEvent: TypeAlias = PDU | ConnectionClosed

_NAMES: Mapping[type[PDU], str] = {
    AssociateRQ: "A-ASSOCIATE-RQ",
    AssociateAC: "A-ASSOCIATE-AC",
    AssociateRJ: "A-ASSOCIATE-RJ",
    PDataTF: "P-DATA-TF",
    ReleaseRQ: "A-RELEASE-RQ",
    ReleaseRP: "A-RELEASE-RP",
    Abort: "A-ABORT",
}
_RECEIVED: Mapping[type[PDU], Event] = {
    AssociateRQ: Event.EVT6,
    AssociateAC: Event.EVT3,
    AssociateRJ: Event.EVT4,
    PDataTF: Event.EVT10,
    ReleaseRQ: Event.EVT12,
    ReleaseRP: Event.EVT13,
    Abort: Event.EVT16,
}
_SENT: Mapping[type[PDU], Event] = {
    AssociateRQ: Event.EVT2,
    AssociateAC: Event.EVT7,
    AssociateRJ: Event.EVT8,
    PDataTF: Event.EVT9,
    ReleaseRQ: Event.EVT11,
    ReleaseRP: Event.EVT14,
    Abort: Event.EVT15,
}
_PROTOCOL_VERSION_1 = 0x01  # PS3.8 9.3.2: this bit and no other is tested
VERSION_NOT_SUPPORTED = AssociateRJ(result=1, source=2, reason=2)  #: how `reply` rejects another version


class UpperLayer:
    """The machine of one association, at one `side` of it: made in Sta1, and not used again once it is back there."""

    def __init__(self, side: Side, limits: Limits) -> None:
        self._side = side
        self._state = State.STA1
        self._limits = limits
        self._buffer = ReceiveBuffer(limits)
        self._reply: list[Buffer] = []
        self._artim_running = False
        self._is_connected = False
        self._is_at_end = False
        self._is_end_told = False

    @property
    def side(self) -> Side:
        return self._side

    @property
    def state(self) -> State:
        return self._state

    @property
    def artim_running(self) -> bool:
        """Whether `artim_expired` is to be called in due time. It starts anew with each change to Sta2 or Sta13."""
        return self._artim_running

    @property
    def must_close(self) -> bool:
        """The association is over: the driver is to close the transport connection now."""
        return self._is_connected and self._state is State.STA1

    @property
    def is_inside_pdu(self) -> bool:
        """Whether the beginning of a PDU has come in and its end has not."""
        return self._buffer.is_inside_pdu

    @property
    def longest_p_data(self) -> int:
        """The length of the longest P-DATA-TF PDU that has come, as the maximum length counts it."""
        return self._buffer.longest_p_data

    # --- the transport connection

    def connected(self) -> None:
        """There is a transport connection: Evt5 for the acceptor. Raises `LocalProtocolError` the second time.

        For the requestor it is Evt1: Sta4 lasts until the request is sent, for the connection that this waits for is
        confirmed (Evt2) by a request that can be written to it.
        """
        if self._is_connected:
            raise LocalProtocolError("a machine serves one transport connection, and this one had it")
        self._is_connected = True
        self._transition(Event.EVT1 if self._side is Side.REQUESTOR else Event.EVT5)

    def receive_data(self, data: Buffer) -> None:
        """Take bytes that came in; none (`b""`) says that the peer closed the transport connection (Evt17).

        Raises `LocalProtocolError` for bytes before there is a connection or after its end.
        """
        if not self._is_connected:
            raise LocalProtocolError("nothing can be received before there is a connection")
        if not data:
            self._is_at_end = True
        elif self._is_at_end:
            raise LocalProtocolError("nothing can be received after the end of the connection")
        else:
            self._buffer.feed(data)

    def next_event(self) -> UpperLayerEvent | None:
        """The next thing that happened, or None if more bytes are needed, or if nothing more can happen.

        The end of the connection is told once. In Sta13 only it and an A-ABORT are told. An A-ASSOCIATE-RQ of another
        protocol version is never told: it is rejected by `reply`, in Sta13.

        Raises `ProtocolViolation` for what the peer may not send: `InvalidPDU` and `UnrecognisedPDU` (Evt19), and
        `UnexpectedPDU`, A-ABORT (2, 2), for a PDU that the state does not allow. The A-ABORT is in `reply`.
        """
        # Bytes that come too early wait in Sta4 for the request that they do not answer, and are judged then.
        while self._state is not State.STA1 and self._state is not State.STA4:
            try:
                pdu = self._buffer.next_pdu()
            except ProtocolViolation as error:
                self._refuse(Event.EVT19, error)
                continue
            if pdu is None:
                break
            if (type(pdu) is PDataTF and self._state is State.STA6) or self._is_told(pdu):  # DT-2 changes nothing
                return pdu
        if self._is_at_end and not self._is_end_told:
            self._is_end_told = True
            inside_pdu = self._buffer.is_inside_pdu
            self._end_of_transport()
            return ConnectionClosed(inside_pdu)
        return None

    def next_data(self, context_id: int) -> tuple[list[memoryview], bool]:
        """The short way for the plain case, many at once: see `ReceiveBuffer.next_data`. The rest is for `next_event`.

        For a message that `next_event` has told the command of.
        """
        return self._buffer.next_data(context_id) if self._state is State.STA6 else ([], False)  # DT-2

    def reply(self) -> list[Buffer]:
        """What the machine itself has to say to the peer: given once, to be written before anything else."""
        reply, self._reply = self._reply, []
        return reply

    # --- the local user

    def send(self, pdu: PDU) -> list[Buffer]:
        """The buffers to write for `pdu`. Raises `LocalProtocolError` where it cannot be sent; nothing changes then.

        An A-ABORT in Sta4 gives no buffers: there is nobody to tell, and the connection is to be closed.
        """
        event = _SENT[type(pdu)]
        if (event, self._state) not in TRANSITIONS:
            raise self._not_now(_NAMES[type(pdu)])
        buffers = pdu.encode()
        effects = self._transition(event)
        return buffers if Effect.SEND in effects or Effect.SEND_ABORT in effects else []

    @property
    def can_send_data(self) -> bool:
        """Whether P-DATA may be sent: for PDUs that were made without `send`."""
        return self._state is State.STA6 or self._state is State.STA8

    def check_can_send_data(self) -> None:
        """Raise `LocalProtocolError` unless P-DATA may be sent."""
        if not self.can_send_data:
            raise self._not_now("P-DATA-TF")

    def send_failed(self) -> None:
        """Bytes that `send` or `reply` gave never left, or not all of them: the connection is as good as closed."""
        self._end_of_transport()

    def forget(self) -> None:
        """Drop what was received and not asked for: nobody will."""
        self._buffer = ReceiveBuffer(self._limits)

    def artim_expired(self) -> None:
        """Evt18: close the transport connection. Raises `LocalProtocolError` if the timer does not run."""
        if (Event.EVT18, self._state) not in TRANSITIONS:
            raise self._not_now("an expired ARTIM timer")
        self._transition(Event.EVT18)

    # --- the machine

    def _not_now(self, what: str) -> LocalProtocolError:
        return LocalProtocolError(f"no {what} in Sta{self._state:d} ({self._state.meaning})")

    def _end_of_transport(self) -> None:
        self._reply = []
        if self._state is not State.STA1:
            self._transition(Event.EVT17)

    def _is_told(self, pdu: PDU) -> bool:
        """Make the transition of `pdu`; whether the local user is to know of it."""
        event = _RECEIVED[type(pdu)]
        planned = ACTIONS[TRANSITIONS[event, self._state]].effects
        if Effect.SEND_ABORT in planned:
            detail = f"{_NAMES[type(pdu)]} in Sta{self._state:d} ({self._state.meaning})"
            self._refuse(event, UnexpectedPDU(detail, 2, 2))
            return False
        acceptable = not isinstance(pdu, AssociateRQ) or bool(pdu.protocol_version & _PROTOCOL_VERSION_1)
        effects = self._transition(event, acceptable=acceptable)
        if Effect.SEND_REJECT in effects:
            self._reply += VERSION_NOT_SUPPORTED.encode()
        # AA-2 has no indication, for nobody has the association; but the driver waits for just this A-ABORT.
        return Effect.INDICATE in effects or Effect.CLOSE_TRANSPORT in effects

    def _refuse(self, event: Event, error: ProtocolViolation) -> None:
        """Answer a violation, and raise it, unless this side has done with the peer already (AA-7)."""
        was_closing = self._state is State.STA13
        self._transition(event)
        # Also for AA-1, which the standard signs as the service user: so the peer learns what was wrong.
        self._reply += Abort(error.abort_source, error.abort_reason).encode()
        if not was_closing:
            try:
                raise error
            finally:
                del error  # which holds this frame, and so what was received, until the next garbage collection

    def _transition(self, event: Event, *, acceptable: bool = True) -> tuple[Effect, ...]:
        action = ACTIONS[TRANSITIONS[event, self._state]]
        if action.otherwise is not None:
            first = acceptable if event is Event.EVT6 else self._side is Side.REQUESTOR
            action = action if first else action.otherwise
        for effect in action.effects:
            if effect is Effect.START_ARTIM:
                self._artim_running = True
            elif effect is Effect.STOP_ARTIM:
                self._artim_running = False
        self._state = action.next_state
        return action.effects
