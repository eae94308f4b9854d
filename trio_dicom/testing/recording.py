"""What went over a stream, kept: to look at, to put into a file, and to play one side of it to the other.

A recording in a file is text, in lines:

    trio_dicom recording 1
    # whatever follows a hash is a comment
    > 0.000000 0100000000cd...
    < 0.001251 0200000000b8...
    < 0.014000

`>` is what was sent by the one who held the stream, `<` what was received; then the seconds since the first line; then
the bytes in hexadecimal, as many as went at once, whole PDUs or not. Without bytes, that side has closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

from ..errors import InvalidPDU, UnrecognisedPDU
from ..protocol.pdu import HEADER_LENGTH, PDU, PDataTF
from .direction import Direction
from .scripted_peer import Script, ScriptedPeer, whole_pdus

_TITLE = "trio_dicom recording 1"
_SIGNS = {Direction.SENDING: ">", Direction.RECEIVING: "<"}
_DIRECTIONS = {sign: direction for direction, sign in _SIGNS.items()}


@attrs.frozen
class RecordedChunk:
    """Bytes that went at once; none, if that side has closed. `seconds` are those since the recording began."""

    direction: Direction
    seconds: float
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen
class RecordedPDU:
    """The bytes from one PDU header to the next, in the place where the last of them went.

    What is cut off at the end of a recording is one too, with `is_whole` False.
    """

    direction: Direction
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    is_whole: bool = True

    def decode(self) -> PDU:
        """The PDU. Raises `InvalidPDU` or `UnrecognisedPDU` if it is none."""
        pdus = whole_pdus(self.data) if self.is_whole else []
        if not pdus:
            raise InvalidPDU(f"a PDU is cut off after {len(self.data)} bytes", 2, 6)
        return pdus[0]


@attrs.define
class Recording:
    """What went over a stream, as the one who held it saw it, in the order in which it went."""

    chunks: list[RecordedChunk] = attrs.field(factory=list)

    def data(self, direction: Direction) -> bytes:
        """All bytes that went this way."""
        return b"".join(chunk.data for chunk in self.chunks if chunk.direction is direction)

    def split(self) -> list[RecordedPDU]:
        """The PDUs of both directions, found by the lengths in their headers and not decoded."""
        return list(self._split())

    def pdus(self, direction: Direction | None = None) -> list[PDU]:
        """The PDUs that went this way, or both ways, decoded. Raises `InvalidPDU` or `UnrecognisedPDU`."""
        return [each.decode() for each in self.split() if direction in (None, each.direction)]

    def _split(self) -> Iterator[RecordedPDU]:
        pending = {direction: bytearray() for direction in Direction}
        for chunk in self.chunks:
            buffer = pending[chunk.direction]
            buffer += chunk.data
            while len(buffer) >= HEADER_LENGTH:
                end = HEADER_LENGTH + int.from_bytes(buffer[2:HEADER_LENGTH], "big")
                if len(buffer) < end:
                    break
                yield RecordedPDU(chunk.direction, bytes(buffer[:end]))
                del buffer[:end]
        for direction, buffer in pending.items():
            if buffer:
                yield RecordedPDU(direction, bytes(buffer), is_whole=False)

    # --- as text

    def dumps(self) -> str:
        """The recording as text, in the format that the module tells."""
        lines = [_TITLE]
        for chunk in self.chunks:
            lines.append(f"{_SIGNS[chunk.direction]} {chunk.seconds:.6f} {chunk.data.hex()}".rstrip())
        return "\n".join(lines) + "\n"

    @classmethod
    def loads(cls, text: str) -> Recording:
        """The recording that `text` is. Raises `ValueError` naming the line that is wrong."""
        title, *lines = text.splitlines() or [""]
        if title.strip() != _TITLE:
            raise ValueError(f"line 1: not {_TITLE!r}")
        chunks = []
        for number, line in enumerate(lines, 2):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                sign, seconds, *data = words
                chunks.append(RecordedChunk(_DIRECTIONS[sign], float(seconds), bytes.fromhex("".join(data))))
            except (KeyError, ValueError):
                raise ValueError(f"line {number}: not '>' or '<', seconds and hexadecimal bytes") from None
        return cls(chunks)

    def dump(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a file."""
        Path(path).write_text(self.dumps(), "ascii")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """The recording in a file. Raises `ValueError` if it is none, and `OSError`."""
        return cls.loads(Path(path).read_text("ascii"))


class RecordedStream(trio.abc.HalfCloseableStream):
    """`stream`, with all that goes over it noted in `recording`. It owns `stream`, and closes it.

    What is sent is noted when it is handed over: of a `send_all` that fails or is cancelled, the recording has all.
    """

    def __init__(self, stream: trio.abc.Stream, recording: Recording | None = None) -> None:
        self.stream = stream
        self.recording = Recording() if recording is None else recording
        self._start: float | None = None

    def _note(self, direction: Direction, data: bytes) -> None:
        now = trio.current_time()
        if self._start is None:
            self._start = now
        self.recording.chunks.append(RecordedChunk(direction, now - self._start, data))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._note(Direction.SENDING, bytes(data))
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self.stream.receive_some(max_bytes))
        self._note(Direction.RECEIVING, data)
        return data

    async def send_eof(self) -> None:
        """As of the stream within. Raises `TypeError` if that cannot close one direction alone."""
        if not isinstance(self.stream, trio.abc.HalfCloseableStream):
            raise TypeError(f"{type(self.stream).__name__} cannot close one direction alone")
        await self.stream.send_eof()
        self._note(Direction.SENDING, b"")

    async def aclose(self) -> None:
        if self._start is not None:
            self._note(Direction.SENDING, b"")
        await self.stream.aclose()


# --- replay -----------------------------------------------------------------------------------------------------------


def replay(recording: Recording, direction: Direction = Direction.RECEIVING) -> Script:
    """A script for a `ScriptedPeer` that says again what went in this direction, waiting for the other side in between.

    RECEIVING plays the peer of the one who made the recording, SENDING that one itself. It waits for a PDU of the same
    kind as the one that came then; for P-DATA-TF, until as many parts of messages are whole, however they are cut into
    PDUs. Raises `AssertionError` when another kind of PDU comes, or none. Message IDs are those of the recording: what
    is tested must ask in the same order.
    """
    steps = list(_steps(recording, direction))

    async def script(peer: ScriptedPeer) -> None:
        for step in steps:
            await step(peer)

    return script


@attrs.frozen
class _Say:
    data: bytes

    async def __call__(self, peer: ScriptedPeer) -> None:
        await peer.send(self.data)


@attrs.frozen
class _Close:
    async def __call__(self, peer: ScriptedPeer) -> None:
        await peer.close()


@attrs.frozen
class _Await:
    """One PDU that is not P-DATA-TF."""

    kind: type[PDU]

    async def __call__(self, peer: ScriptedPeer) -> None:
        came = await peer.receive_pdu()
        if not isinstance(came, self.kind):
            raise AssertionError(f"the recording goes on with {self.kind.__name__}, and {came} came")


@attrs.frozen
class _AwaitData:
    """P-DATA-TF in which so many parts of messages end, and so many bytes of a further one come."""

    parts: int
    further_bytes: int

    async def __call__(self, peer: ScriptedPeer) -> None:
        parts = further = 0
        while parts < self.parts or (parts == self.parts and further < self.further_bytes):
            pdv = await peer.receive_pdv()
            parts, further = (parts + 1, 0) if pdv.is_last else (parts, further + len(pdv.data))


_Step = _Say | _Close | _Await | _AwaitData


def _steps(recording: Recording, direction: Direction) -> Iterator[_Step]:
    parts = further = 0
    for recorded in recording.split():
        pdu = None if recorded.direction is direction else _decoded(recorded)
        if isinstance(pdu, PDataTF):
            for pdv in pdu.pdvs:
                parts, further = (parts + 1, 0) if pdv.is_last else (parts, further + len(pdv.data))
            continue
        if parts or further:
            yield _AwaitData(parts, further)
            parts = further = 0
        if pdu is not None:
            yield _Await(type(pdu))
        elif recorded.direction is direction:
            yield _Say(recorded.data)
    if parts or further:
        yield _AwaitData(parts, further)
    if any(chunk.direction is direction and not chunk.data for chunk in recording.chunks):
        yield _Close()


def _decoded(recorded: RecordedPDU) -> PDU | None:
    try:
        return recorded.decode()
    except (InvalidPDU, UnrecognisedPDU):
        return None  # nothing to wait for
