"""The state machine of the upper layer (PS3.8 section 9.2) as data.

Theory of operation:

1. `TRANSITIONS` is table 9-10: what is to be done when an event meets a state. A pair that is not in it is a blank of
   the standard: the event cannot happen there, or the caller may not make it happen.
2. `ACTIONS` is tables 9-6 to 9-9: what an action does, and the state after it. Two actions have a choice: AE-6, between
   a request that is acceptable and one that is not; AR-8, between requestor and acceptor.
3. Whatever PDU the peer sends is an event in every state with a transport connection. It is expected where its line
   says so; before the association request it is answered by AA-1, after it by AA-8, and in Sta13 it is ignored.
4. The ARTIM timer runs in Sta2 and Sta13 and in no other state, for the effects of the actions start and stop it so.

Nothing here acts: `upper_layer` does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs


class State(enum.IntEnum):
    """PS3.8 tables 9-1 to 9-5. `meaning` is for messages."""

    meaning: str
    __hash__ = int.__hash__  # that of an Enum is Python code, and the table is looked up for each PDU

    def __new__(cls, number: int, meaning: str) -> State:
        state = int.__new__(cls, number)
        state._value_ = number
        state.meaning = meaning
        return state

    # No association: before the transport connection, and after it.
    STA1 = 1, "idle"
    # Acceptor: the connection is open, the A-ASSOCIATE-RQ is awaited. ARTIM runs.
    STA2 = 2, "awaiting the association request"
    # Acceptor: the local user is to accept or reject.
    STA3 = 3, "awaiting the local answer to the association request"
    # Requestor: the transport connection is being opened.
    STA4 = 4, "awaiting the transport connection"
    # Requestor: A-ASSOCIATE-RQ sent.
    STA5 = 5, "awaiting the answer to the association request"
    # Data transfer, both sides.
    STA6 = 6, "association established"
    # A-RELEASE-RQ sent; the peer may still send data.
    STA7 = 7, "awaiting the release response"
    # A-RELEASE-RQ received; the local user may still send data, then the response.
    STA8 = 8, "awaiting the local release response"
    # Release collision, requestor: the local user is to respond first.
    STA9 = 9, "release collision, requestor, awaiting the local release response"
    # Release collision, acceptor: the peer responds first.
    STA10 = 10, "release collision, acceptor, awaiting the release response"
    # Release collision, requestor: responded, now the peer is to.
    STA11 = 11, "release collision, requestor, awaiting the release response"
    # Release collision, acceptor: the peer has responded, now the local user is to.
    STA12 = 12, "release collision, acceptor, awaiting the local release response"
    # All is said; the peer is to close the transport connection. ARTIM runs.
    STA13 = 13, "awaiting the close of the transport connection"


class Event(enum.IntEnum):
    """The lines of PS3.8 table 9-10. `meaning` is for messages."""

    meaning: str
    __hash__ = int.__hash__

    def __new__(cls, number: int, meaning: str) -> Event:
        event = int.__new__(cls, number)
        event._value_ = number
        event.meaning = meaning
        return event

    EVT1 = 1, "A-ASSOCIATE request (local user)"
    EVT2 = 2, "transport connection confirmed"
    EVT3 = 3, "A-ASSOCIATE-AC received"
    EVT4 = 4, "A-ASSOCIATE-RJ received"
    EVT5 = 5, "transport connection indication"
    EVT6 = 6, "A-ASSOCIATE-RQ received"
    EVT7 = 7, "A-ASSOCIATE response, accept (local user)"
    EVT8 = 8, "A-ASSOCIATE response, reject (local user)"
    EVT9 = 9, "P-DATA request (local user)"
    EVT10 = 10, "P-DATA-TF received"
    EVT11 = 11, "A-RELEASE request (local user)"
    EVT12 = 12, "A-RELEASE-RQ received"
    EVT13 = 13, "A-RELEASE-RP received"
    EVT14 = 14, "A-RELEASE response (local user)"
    EVT15 = 15, "A-ABORT request (local user)"
    EVT16 = 16, "A-ABORT received"
    EVT17 = 17, "transport connection closed"
    EVT18 = 18, "ARTIM timer expired"
    EVT19 = 19, "unrecognized or invalid PDU received"


class Effect(enum.Enum):
    """The parts of which actions are made."""

    CONNECT_TRANSPORT = "ask for a transport connection"
    ACCEPT_TRANSPORT = "answer the transport connection indication"
    SEND = "send the PDU of the local user's primitive"
    INDICATE = "hand the PDU to the local user, as an indication or confirmation"
    SEND_REJECT = "send A-ASSOCIATE-RJ in the provider's name"
    SEND_ABORT = "send A-ABORT: the local user's own, or the answer to a violation"
    INDICATE_PROVIDER_ABORT = "tell the local user that there is no association any more"
    START_ARTIM = "start ARTIM, anew if it runs"
    STOP_ARTIM = "stop ARTIM if it runs"
    CLOSE_TRANSPORT = "close the transport connection"


class Action(enum.Enum):
    """The actions of PS3.8 tables 9-6 (association), 9-7 (data transfer), 9-8 (release) and 9-9 (abort)."""

    AE_1 = "AE-1"
    AE_2 = "AE-2"
    AE_3 = "AE-3"
    AE_4 = "AE-4"
    AE_5 = "AE-5"
    AE_6 = "AE-6"
    AE_7 = "AE-7"
    AE_8 = "AE-8"
    DT_1 = "DT-1"
    DT_2 = "DT-2"
    AR_1 = "AR-1"
    AR_2 = "AR-2"
    AR_3 = "AR-3"
    AR_4 = "AR-4"
    AR_5 = "AR-5"
    AR_6 = "AR-6"
    AR_7 = "AR-7"
    AR_8 = "AR-8"
    AR_9 = "AR-9"
    AR_10 = "AR-10"
    AA_1 = "AA-1"
    AA_2 = "AA-2"
    AA_3 = "AA-3"
    AA_4 = "AA-4"
    AA_5 = "AA-5"
    AA_6 = "AA-6"
    AA_7 = "AA-7"
    AA_8 = "AA-8"


@attrs.frozen
class ActionDef:
    """Effects in their order, and the state after them. `otherwise` is the second branch of AE-6 and AR-8."""

    effects: tuple[Effect, ...]
    next_state: State
    otherwise: ActionDef | None = None


ACTIONS: Mapping[Action, ActionDef] = {
    Action.AE_1: ActionDef((Effect.CONNECT_TRANSPORT,), State.STA4),
    Action.AE_2: ActionDef((Effect.SEND,), State.STA5),
    Action.AE_3: ActionDef((Effect.INDICATE,), State.STA6),
    Action.AE_4: ActionDef((Effect.INDICATE, Effect.CLOSE_TRANSPORT), State.STA1),
    Action.AE_5: ActionDef((Effect.ACCEPT_TRANSPORT, Effect.START_ARTIM), State.STA2),
    Action.AE_6: ActionDef(  # otherwise: the request is not acceptable to the provider
        (Effect.STOP_ARTIM, Effect.INDICATE),
        State.STA3,
        ActionDef((Effect.STOP_ARTIM, Effect.SEND_REJECT, Effect.START_ARTIM), State.STA13),
    ),
    Action.AE_7: ActionDef((Effect.SEND,), State.STA6),
    Action.AE_8: ActionDef((Effect.SEND, Effect.START_ARTIM), State.STA13),
    Action.DT_1: ActionDef((Effect.SEND,), State.STA6),
    Action.DT_2: ActionDef((Effect.INDICATE,), State.STA6),
    Action.AR_1: ActionDef((Effect.SEND,), State.STA7),
    Action.AR_2: ActionDef((Effect.INDICATE,), State.STA8),
    Action.AR_3: ActionDef((Effect.INDICATE, Effect.CLOSE_TRANSPORT), State.STA1),
    Action.AR_4: ActionDef((Effect.SEND, Effect.START_ARTIM), State.STA13),
    Action.AR_5: ActionDef((Effect.STOP_ARTIM,), State.STA1),
    Action.AR_6: ActionDef((Effect.INDICATE,), State.STA7),
    Action.AR_7: ActionDef((Effect.SEND,), State.STA8),
    Action.AR_8: ActionDef(  # otherwise: this side is the acceptor
        (Effect.INDICATE,), State.STA9, ActionDef((Effect.INDICATE,), State.STA10)
    ),
    Action.AR_9: ActionDef((Effect.SEND,), State.STA11),
    Action.AR_10: ActionDef((Effect.INDICATE,), State.STA12),
    Action.AA_1: ActionDef((Effect.SEND_ABORT, Effect.START_ARTIM), State.STA13),
    Action.AA_2: ActionDef((Effect.STOP_ARTIM, Effect.CLOSE_TRANSPORT), State.STA1),
    Action.AA_3: ActionDef((Effect.INDICATE, Effect.CLOSE_TRANSPORT), State.STA1),
    Action.AA_4: ActionDef((Effect.INDICATE_PROVIDER_ABORT,), State.STA1),
    Action.AA_5: ActionDef((Effect.STOP_ARTIM,), State.STA1),
    Action.AA_6: ActionDef((), State.STA13),
    Action.AA_7: ActionDef((Effect.SEND_ABORT,), State.STA13),
    Action.AA_8: ActionDef((Effect.SEND_ABORT, Effect.INDICATE_PROVIDER_ABORT, Effect.START_ARTIM), State.STA13),
}

# The states in which the association is requested, open or being released (Sta4 has no peer yet).
_WITH_PEER = (
    State.STA3, State.STA5, State.STA6, State.STA7, State.STA8, State.STA9, State.STA10, State.STA11, State.STA12,
)  # fmt: skip

# Rule 3: what meets a PDU that its state does not expect.
_UNEXPECTED = {State.STA2: Action.AA_1, **dict.fromkeys(_WITH_PEER, Action.AA_8), State.STA13: Action.AA_6}

_LINES: Mapping[Event, Mapping[State, Action]] = {
    Event.EVT1: {State.STA1: Action.AE_1},
    Event.EVT2: {State.STA4: Action.AE_2},
    Event.EVT3: {**_UNEXPECTED, State.STA5: Action.AE_3},
    Event.EVT4: {**_UNEXPECTED, State.STA5: Action.AE_4},
    Event.EVT5: {State.STA1: Action.AE_5},
    Event.EVT6: {**_UNEXPECTED, State.STA2: Action.AE_6, State.STA13: Action.AA_7},
    Event.EVT7: {State.STA3: Action.AE_7},
    Event.EVT8: {State.STA3: Action.AE_8},
    Event.EVT9: {State.STA6: Action.DT_1, State.STA8: Action.AR_7},
    Event.EVT10: {**_UNEXPECTED, State.STA6: Action.DT_2, State.STA7: Action.AR_6},
    Event.EVT11: {State.STA6: Action.AR_1},
    Event.EVT12: {**_UNEXPECTED, State.STA6: Action.AR_2, State.STA7: Action.AR_8},
    Event.EVT13: {
        **_UNEXPECTED, State.STA7: Action.AR_3, State.STA10: Action.AR_10, State.STA11: Action.AR_3,
    },
    Event.EVT14: {State.STA8: Action.AR_4, State.STA9: Action.AR_9, State.STA12: Action.AR_4},
    Event.EVT15: {State.STA4: Action.AA_2, **dict.fromkeys(_WITH_PEER, Action.AA_1)},
    Event.EVT16: {
        State.STA2: Action.AA_2, **dict.fromkeys(_WITH_PEER, Action.AA_3), State.STA13: Action.AA_2,
    },
    Event.EVT17: {
        State.STA2: Action.AA_5, State.STA4: Action.AA_4, **dict.fromkeys(_WITH_PEER, Action.AA_4),
        State.STA13: Action.AR_5,
    },
    Event.EVT18: {State.STA2: Action.AA_2, State.STA13: Action.AA_2},
    Event.EVT19: {**_UNEXPECTED, State.STA13: Action.AA_7},
}  # fmt: skip

TRANSITIONS: Mapping[tuple[Event, State], Action] = {
    (event, state): action for event, line in _LINES.items() for state, action in line.items()
}
