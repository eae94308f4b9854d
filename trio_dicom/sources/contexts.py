"""The presentation contexts that a set of files needs, from their heads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..errors import InvalidObject
from ..protocol.negotiation import PresentationContext
from ..uids import NATIVE_LITTLE_ENDIAN
from .file import Path, read_head
from .part10 import Head
from .threads import run_abandonable

_FILES_IN_A_HOP = 64


async def contexts_for(paths: Path | Iterable[Path], *, skip_invalid: bool = False) -> tuple[PresentationContext, ...]:
    """The presentation contexts in which the files at `paths` can be sent, directories walked.

    First, in the order of the files, one context for each SOP class and transfer syntax that occurs: so the peer
    accepts each for itself. Then one for each SOP class with native files, of the other native transfer syntaxes into
    which those can be encoded anew. There may be more than the 128 that one association holds.

    Raises `InvalidObject` or `ReadError` for the first file that cannot be sent, unless `skip_invalid`, and `TypeError`
    for what is no path.
    """
    if isinstance(paths, str | bytes | os.PathLike):
        paths = (paths,)
    found: dict[tuple[str, str], None] = {}
    files = _walk(paths)
    while heads := await run_abandonable(_some_heads, files, skip_invalid):
        found.update(((head.sop_class_uid, head.transfer_syntax_uid), None) for head in heads if head is not None)
    return contexts_of(found)


def contexts_of(kinds: Iterable[tuple[str, str]]) -> tuple[PresentationContext, ...]:
    """The presentation contexts for objects of these SOP classes and transfer syntaxes: see `contexts_for`."""
    found = dict.fromkeys(kinds)
    contexts = [PresentationContext(sop_class, (syntax,)) for sop_class, syntax in found]
    native = dict.fromkeys(sop_class for sop_class, syntax in found if syntax in NATIVE_LITTLE_ENDIAN)
    for sop_class in native:
        others = tuple(syntax for syntax in NATIVE_LITTLE_ENDIAN if (sop_class, syntax) not in found)
        if others:
            contexts.append(PresentationContext(sop_class, others))
    return tuple(contexts)


def _some_heads(files: Iterator[Path], skip_invalid: bool) -> list[Head | None]:
    heads: list[Head | None] = []
    for path in files:
        try:
            heads.append(read_head(path))
        except InvalidObject:
            if not skip_invalid:
                raise
            heads.append(None)
        if len(heads) == _FILES_IN_A_HOP:
            break
    return heads


def _walk(paths: Iterable[Path]) -> Iterator[Path]:
    """The files at `paths`, those of directories in the order of their names; links to directories are not followed."""
    for path in paths:
        if not isinstance(path, str | os.PathLike):  # bytes may well be those of the file
            kind = type(path).__name__
            raise TypeError(
                f"a path is wanted, not {kind}: CStoreSCU.send and open_sender send other things than files"
            )
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                yield os.path.join(folder, name)
