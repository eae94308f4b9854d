"""CodecProcesses: the processes in which pixels are converted, as many as are asked for at once.

Codecs in threads would hold the interpreter's lock, and with it every association, for as long as a frame takes. And a
codec that a damaged frame crashes takes with it a process that has nothing else to do.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any, cast

import attrs
import trio

from ..errors import InvalidObject, Retry
from ..sources.threads import run_abandonable, stand_still
from .codec_worker import LENGTHS, message
from .image_pixels import ImagePixels

log = logging.getLogger(__name__)

FRAME = 300.0  # s that one frame may take
_ENDING = 1.0  # s for a process that was killed
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 16
_LONGEST_BODY = 1 << 34

# Started without the program's own main module, but with its path.
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from trio_dicom.conversion.codec_worker import main
main()
"""


class CodecProcesses(trio.abc.AsyncResource):
    """Processes that are started when they are first needed, and kept until `aclose`.

    Where there is no interpreter to start (a frozen program), and under a virtual clock, which would not wait for
    another process, the codecs run in threads of this one.
    """

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter  # of the threads
        self._idle: list[_CodecProcess] = []
        self._is_closed = False

    async def convert(
        self, image: ImagePixels, own: str, target: str, data: bytes
    ) -> tuple[ImagePixels, bytes | bytearray]:
        """As `codecs.convert`, but for the error: `InvalidObject`. If cancelled, the process is ended."""
        if self._is_closed:
            raise trio.ClosedResourceError("this was closed")
        if stand_still.get() or not sys.executable or getattr(sys, "frozen", False):
            return await run_abandonable(_convert_here, image, own, target, data, limiter=self._limiter)
        process = await self._take()
        try:
            answer, body = await process.ask({"image": attrs.asdict(image), "own": own, "target": target}, data)
        except BaseException:
            await process.end()
            raise
        if self._is_closed:
            await process.end()
        else:
            self._idle.append(process)
        if "reason" in answer:
            raise _invalid(**answer)
        return ImagePixels(**answer["image"]), body

    async def _take(self) -> _CodecProcess:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            await process.end()
        return await _CodecProcess.start()

    async def aclose(self) -> None:
        self._is_closed = True
        while self._idle:
            await self._idle.pop().end()
        await trio.lowlevel.checkpoint()


class _CodecProcess:
    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._stdin = cast(trio.abc.SendStream, process.stdin)  # both are pipes: see `start`
        self._stdout = cast(trio.abc.ReceiveStream, process.stdout)

    @classmethod
    async def start(cls) -> _CodecProcess:
        options: dict[str, Any] = {"start_new_session": True}  # a Ctrl-C at the terminal is not for it
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)]
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
            )
        except OSError as error:
            failure = InvalidObject(f"no process to convert pixels in could be started: {error.strerror}")
            failure.retry = Retry.LATER
            raise failure from error
        return cls(process)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def ask(self, task: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        """The last answer to `task`. Raises `InvalidObject` if there is none."""
        scope = trio.move_on_after(FRAME)
        with scope:
            try:
                for piece in message(task, data):
                    await self._stdin.send_all(piece)
                while True:
                    scope.deadline = trio.current_time() + FRAME
                    header_length, body_length = LENGTHS.unpack(await self._receive(LENGTHS.size))
                    if header_length > _LONGEST_HEADER or body_length > _LONGEST_BODY:
                        raise EOFError
                    answer: dict[str, Any] = json.loads(await self._receive(header_length))
                    body = await self._receive(body_length)
                    if answer:
                        return answer, body
            except (EOFError, ValueError, trio.BrokenResourceError):
                raise _invalid("the codec crashed at these pixels", f"exit code {await self.end()}") from None
        raise _invalid(f"a frame was not converted within {FRAME:g} s", "")

    async def _receive(self, length: int) -> bytearray:
        received = bytearray()
        while len(received) < length:
            chunk = await self._stdout.receive_some(min(length - len(received), _CHUNK))
            if not chunk:
                raise EOFError
            received += chunk
        return received

    async def end(self) -> int | None:
        """At once, whatever it is doing; its exit code."""
        with trio.move_on_after(_ENDING, shield=True):
            if self.is_alive:
                self._process.kill()
            await self._stdin.aclose()
            await self._stdout.aclose()
            return await self._process.wait()
        return None


def _convert_here(image: ImagePixels, own: str, target: str, data: bytes) -> tuple[ImagePixels, bytes]:
    from .codecs import CodecError, convert

    try:
        return convert(image, own, target, data, lambda: None)
    except CodecError as error:
        raise _invalid(error.reason, error.detail, is_missing=error.is_missing) from None


def _invalid(reason: str, detail: str, *, is_missing: bool = False) -> InvalidObject:
    log.debug("pixels were not converted: %s (%s)", reason, detail or "no more is known")
    failure = InvalidObject(reason)
    if is_missing:
        failure.retry = Retry.AFTER_CONFIG
    return failure
