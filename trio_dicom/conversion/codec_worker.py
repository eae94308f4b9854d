"""The process in which the codecs run: it reads tasks from its standard input, and writes what came of them.

A message is the lengths of a header and of a body, the header in JSON, and the body. A task has `image`, `own` and
`target`, and Pixel Data for its body. It is answered by a message without anything for each frame that is done, and at
the end by one with `image` and the new Pixel Data, or with `reason`, `detail` and `is_missing`. The process ends with
its input.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import struct
import sys
import warnings
from typing import Any, BinaryIO

import attrs

LENGTHS = struct.Struct("<LQ")


def message(header: dict[str, Any], body: bytes = b"") -> tuple[bytes, bytes]:
    """A message, in two pieces: what comes before the body, and the body."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text, body


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    # Codecs print as they like, and pydicom warns and logs: none of that is for the pipe, or for anybody.
    warnings.simplefilter("ignore")
    logging.disable()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        while serve(sys.stdin.buffer, answers):
            pass
    except BrokenPipeError:
        pass


def serve(tasks: BinaryIO, answers: BinaryIO) -> bool:
    """Do one task. False if there is none."""
    from .codecs import CodecError, convert
    from .image_pixels import ImagePixels

    lengths = tasks.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return False
    header_length, body_length = LENGTHS.unpack(lengths)
    header, body = tasks.read(header_length), tasks.read(body_length)
    if len(header) < header_length or len(body) < body_length:
        return False

    def answer(header: dict[str, Any], body: bytes = b"") -> None:
        for piece in message(header, body):
            answers.write(piece)
        answers.flush()

    task = json.loads(header)
    try:
        image, result = convert(ImagePixels(**task["image"]), task["own"], task["target"], body, lambda: answer({}))
    except CodecError as error:
        answer({"reason": error.reason, "detail": error.detail, "is_missing": error.is_missing})
    except MemoryError:
        answer({"reason": "there is not enough memory to convert the pixels", "detail": "", "is_missing": False})
    else:
        answer({"image": attrs.asdict(image)}, result)
    return True
