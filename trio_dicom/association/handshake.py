"""What both sides do before there is an association: take turns, and part from a peer where none comes about."""

from __future__ import annotations

from contextlib import suppress

import trio

from ..errors import AssociationAborted, AssociationRejected, ConnectionLost, ProtocolViolation
from ..protocol.pdu import PDU, Abort
from ..protocol.state import State
from ..protocol.upper_layer import VERSION_NOT_SUPPORTED, ConnectionClosed, UpperLayer
from ..settings import Timeouts
from .transport import Buffer, Transport

_CAN_BE_TOLD = (State.STA3, State.STA5, State.STA6)
_HAS_SPOKEN = (State.STA7, State.STA13)


async def say(transport: Transport, buffers: list[Buffer]) -> None:
    """Write whole PDUs."""
    await transport.write(buffers)


async def hear(transport: Transport, machine: UpperLayer) -> PDU:
    """The peer's next PDU.

    Raises `AssociationAborted`, `ConnectionLost`, `ProtocolViolation`, or `AssociationRejected` for what the machine
    rejects by itself.
    """
    while (event := machine.next_event()) is None:
        if machine.state is State.STA13:
            objection = VERSION_NOT_SUPPORTED
            raise AssociationRejected(
                objection.result, objection.source, objection.reason, objection.text, by_peer=False
            )
        machine.receive_data(await transport.read())
    if isinstance(event, Abort):
        raise AssociationAborted(event.source, event.reason)
    if isinstance(event, ConnectionClosed):
        raise ConnectionLost("the peer closed the connection before there was an association")
    return event


async def hang_up(transport: Transport, machine: UpperLayer, farewell: PDU | None, timeouts: Timeouts) -> None:
    """Say what the machine has to say itself, or else `farewell` if the peer can be told, wait for its end, and close.

    Takes `timeouts.abort_linger` at most, also when cancelled. Whatever fails, the transport is closed.
    """
    with trio.move_on_after(timeouts.abort_linger, shield=True):
        try:
            if await transport.finish():
                words = machine.reply()
                if not words and farewell is not None and machine.state in _CAN_BE_TOLD:
                    words = machine.send(farewell)
                await say(transport, words)
                while machine.state in _HAS_SPOKEN:  # closed at once, the peer might lose what it has yet to read
                    machine.receive_data(await transport.read())
                    while machine.next_event() is not None:
                        pass
                    machine.reply()
        except (ConnectionLost, ProtocolViolation):
            pass
        finally:
            with suppress(ConnectionLost):
                await transport.aclose()
