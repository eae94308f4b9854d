"""One run inside a process that has imported everything: `in_process.py send|sender PORT FOLDER [options]`.

Prints a line of JSON: objects, bytes, and the seconds and CPU seconds that sending took. The first few objects are sent
before the clock starts, over an association of their own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import trio

from trio_dicom import AssociationSettings, CStoreSCU, contexts_for, open_association, open_sender


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Clock:
    def __init__(self) -> None:
        self.start, self.cpu_start = time.perf_counter(), cpu_seconds()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.start, cpu_seconds() - self.cpu_start


Timing = tuple[int, int, float, float]  # objects, bytes, seconds, CPU seconds


async def send(peer: str, paths: list[str], arguments: argparse.Namespace) -> Timing:
    """With `CStoreSCU.send`, one after another, over an open association."""
    size = 0
    async with open_association(peer, await contexts_for(paths)) as association:
        scu = CStoreSCU(association)
        clock = Clock()
        for path in paths:
            response = await scu.send(path)
            response.raise_for_status()
            size += response.bytes_sent
        return len(paths), size, *clock.read()


async def sender(peer: str, paths: list[str], arguments: argparse.Namespace) -> Timing:
    """With `open_sender`, from before its block to after it: associations are opened and released in that time."""

    def inputs() -> Iterator[str]:
        for _ in range(arguments.times):
            yield from paths

    settings = AssociationSettings(operations_window=arguments.window)
    clock = Clock()
    async with (
        open_sender(peer, associations=arguments.associations, settings=settings) as many,
        many.send_many(inputs()) as reports,
    ):
        async for report in reports:
            assert report.is_delivered, report
    total = many.report
    assert total.is_all_delivered, total
    return total.inputs, total.bytes_sent, *clock.read()


FORMS: dict[str, Callable[[str, list[str], argparse.Namespace], Awaitable[Timing]]] = {"send": send, "sender": sender}


async def main(arguments: argparse.Namespace) -> None:
    peer = f"SINK@127.0.0.1:{arguments.port}"
    paths = sorted(str(path) for path in arguments.folder.iterdir())
    form = FORMS[arguments.form]
    if arguments.rehearse:
        await form(peer, paths[: arguments.rehearse], argparse.Namespace(**vars(arguments) | {"times": 1}))
    objects, size, seconds, cpu = await form(peer, paths, arguments)
    print(json.dumps({"objects": objects, "bytes": size, "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--associations", type=int, default=1)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--times", type=int, default=1, help="of a sender: the folder, so many times over")
    parser.add_argument("--rehearse", type=int, default=0, metavar="OBJECTS")
    trio.run(main, parser.parse_args())
