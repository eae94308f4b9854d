"""Inputs: what the arguments of a command name, what kind of object each is, and opening them ahead of the sending."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import attrs
import trio

from ..errors import InvalidObject, TrioDicomError
from ..services.storage_scu import StoreDelivery
from ..sources.contexts import contexts_of
from ..sources.file import open_files, read_head
from ..sources.open import open_source
from ..sources.source import Source

STANDARD_INPUT = "-"
HEADS_A_HOP = 64
OPENED_A_HOP = 32
MOST_CONTEXTS = 128  # PS3.8 7.1.1.13: the odd numbers of a byte


@attrs.define(eq=False)
class Input:
    """One thing to be sent, and how it stands with it."""

    path: str
    size: int = 0  # bytes of the file
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    invalid: InvalidObject | None = None  # why it cannot be sent
    source: Source | None = None  # opened ahead
    attempts: int = 0
    failure: TrioDicomError | None = None  # of the last attempt
    was_in_doubt: bool = False  # after an attempt
    is_under_way: bool = False  # an attempt
    delivery: StoreDelivery | None = None  # begun and not settled

    @property
    def kind(self) -> tuple[str, str]:
        """What decides its presentation contexts."""
        return self.sop_class_uid, self.transfer_syntax_uid

    async def aclose(self) -> None:
        """Close what was opened ahead."""
        if self.source is not None:
            await self.source.aclose()


def expand(paths: Iterable[str]) -> list[Input]:
    """An input for each path, and for each file in folders and the folders in them, in the order of the names."""
    return [Input(path) for path in _files(paths)]


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if path == STANDARD_INPUT or not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))


async def identify(inputs: Sequence[Input]) -> None:
    """Read the heads; an input that cannot be sent is marked `invalid`."""
    files = [each for each in inputs if each.path != STANDARD_INPUT]
    for start in range(0, len(files), HEADS_A_HOP):
        some = files[start : start + HEADS_A_HOP]
        await trio.to_thread.run_sync(_identify_files, some, abandon_on_cancel=True)
    for each in inputs:
        if each.path == STANDARD_INPUT:
            await _identify_standard_input(each)


def _identify_files(files: Sequence[Input]) -> None:
    for each in files:
        try:
            head = read_head(each.path)
            each.sop_class_uid, each.sop_instance_uid = head.sop_class_uid, head.sop_instance_uid
            each.transfer_syntax_uid = head.transfer_syntax_uid
            each.size = os.stat(each.path).st_size
        except InvalidObject as error:
            each.invalid = error
        except OSError:
            pass  # it has gone since; opening it will say so


async def _identify_standard_input(each: Input) -> None:
    try:
        # Unbuffered: a thread that is left behind in a read must hold no lock that Python's shutdown wants.
        each.source = source = await open_source(open(0, "rb", buffering=0, closefd=False))  # noqa: ASYNC230, SIM115
        each.sop_class_uid, each.sop_instance_uid = source.sop_class_uid, source.sop_instance_uid
        each.transfer_syntax_uid = source.transfer_syntaxes[0]
    except InvalidObject as error:
        each.invalid = error


def by_contexts(inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
    """The inputs in as few batches as their presentation contexts, of which an association has at most 128, allow."""
    if len(contexts_of(each.kind for each in inputs)) <= MOST_CONTEXTS:
        if inputs:
            yield inputs
        return
    batch: list[Input] = []
    kinds: set[tuple[str, str]] = set()
    for each in sorted(inputs, key=lambda each: each.kind):
        if each.kind not in kinds and len(contexts_of({*kinds, each.kind})) > MOST_CONTEXTS:
            yield batch
            batch, kinds = [], set()
        batch.append(each)
        kinds.add(each.kind)
    yield batch


async def open_ahead(inputs: Sequence[Input], opened: trio.MemorySendChannel[Sequence[Input]]) -> None:
    """Pass the inputs on, opened, several files for each thread hop, and as far ahead as the channel has room."""
    with opened:
        for start in range(0, len(inputs), OPENED_A_HOP):
            some = inputs[start : start + OPENED_A_HOP]
            files = [each for each in some if each.source is None]
            for each, source in zip(files, await open_files([each.path for each in files]), strict=True):
                if isinstance(source, InvalidObject):
                    each.invalid = source
                else:
                    each.source = source
            await opened.send(some)
