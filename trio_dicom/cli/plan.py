"""`trio-dicom send --dry-run`: what would be sent, from the heads of the files. Nobody is connected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

import attrs
import trio

from ..conversion.transcoding import Transcoding
from ..errors import InvalidObject, printable
from ..inputs.inputs import Inputs
from ..inputs.item import StreamItem, open_items
from ..peer import Peer
from ..sender.agenda import within_limit
from ..sender.work import Kind
from ..sources.threads import run_abandonable
from .arguments import STANDARD_INPUT, inputs_of
from .display import print_line
from .exit_codes import ExitCode
from .signals import cancel_on_signals
from .wording import plural, size_of

AT_ONCE = 64  # inputs, opened in one thread hop


@attrs.define
class Objects:
    """Those of one kind."""

    count: int = 0
    size: int = 0  # bytes of data sets, as far as they are known


@attrs.define
class Plan:
    """What would be sent."""

    kinds: dict[Kind, Objects] = attrs.field(factory=dict)
    invalid: int = 0

    def add(self, kind: Kind, size: int) -> None:
        """One more object."""
        found = self.kinds.setdefault(kind, Objects())
        found.count += 1
        found.size += size

    @property
    def count(self) -> int:
        """Of objects."""
        return sum(each.count for each in self.kinds.values())

    @property
    def size(self) -> int:
        """Bytes of data sets."""
        return sum(each.size for each in self.kinds.values())

    @property
    def associations(self) -> list[int]:
        """The presentation contexts proposed on each that it takes."""
        left, proposed = list(self.kinds), []
        while left:
            kinds, contexts = within_limit(left)
            proposed.append(len(contexts))
            left = [kind for kind in left if kind not in kinds]
        return proposed

    @property
    def exit_code(self) -> ExitCode:
        """As that of sending, if the peer took it all."""
        if not self.kinds:
            return ExitCode.NO_INPUT
        return ExitCode.NOT_STORED if self.invalid else ExitCode.OK


class PlanText:
    """Prints it for people: what is invalid at once, on standard error."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def invalid(self, name: str, reason: str) -> None:
        """An input that cannot be sent."""
        print_line(f"invalid: {printable(name, 400)}: {printable(reason, 400)}", to_errors=True)

    def show(self, plan: Plan) -> None:
        """All of it."""
        for kind, objects in sorted(plan.kinds.items()):
            what = f"{_named(kind.sop_class_uid)} in {_named(kind.transfer_syntax_uid)}"
            print_line(f"{what}: {plural(objects.count, 'object')}, {size_of(objects.size)}")
        proposed = plan.associations
        contexts = ", ".join(f"{count}" for count in proposed) or "no"
        for_them = f"{plural(len(proposed), 'association')} with {contexts} presentation contexts"
        total = f"{plural(plan.count, 'object')}, {size_of(plan.size)}"
        invalid = f"; {plural(plan.invalid, 'input')} invalid" if plan.invalid else ""
        print_line(f"to {self._peer}: {total}, over at least {for_them}{invalid}; nothing was sent")


class PlanJSON:
    """Prints it as one document; what is invalid at once, a line each: there may be too many of them to be held."""

    def __init__(self, peer: Peer) -> None:
        print_line(f'{{"peer": {json.dumps(str(peer))},\n "invalid": [', end="")
        self._separator = "\n  "

    def invalid(self, name: str, reason: str) -> None:
        """An input that cannot be sent."""
        print_line(self._separator + json.dumps({"path": name, "reason": reason}), end="")
        self._separator = ",\n  "

    def show(self, plan: Plan) -> None:
        """All of it."""
        contexts = [
            {
                "abstract_syntax": _name(kind.sop_class_uid),
                "abstract_syntax_uid": kind.sop_class_uid,
                "transfer_syntax": _name(kind.transfer_syntax_uid),
                "transfer_syntax_uid": kind.transfer_syntax_uid,
                "objects": objects.count,
                "bytes": objects.size,
            }
            for kind, objects in sorted(plan.kinds.items())
        ]
        rest = {
            "contexts": contexts,
            "proposed_contexts": plan.associations,
            "associations": len(plan.associations),
            "objects": plan.count,
            "bytes": plan.size,
            "invalid_count": plan.invalid,
            "exit_code": int(plan.exit_code),
        }
        print_line("\n ],\n" + json.dumps(rest, indent=1)[2:])


def run_plan(peer: Peer, paths: Sequence[str], transcode: str, *, as_json: bool) -> int:
    """Print it, and give the exit code."""
    items = inputs_of(paths)
    return trio.run(_run, PlanJSON(peer) if as_json else PlanText(peer), items, Transcoding.parse(transcode))


async def _run(output: PlanText | PlanJSON, items: Sequence[str | BinaryIO], transcoding: Transcoding) -> int:
    plan = Plan()
    async with cancel_on_signals() as signals, Inputs(items) as inputs:
        while some := await inputs.take(AT_ONCE):
            for item, source in zip(some, await open_items(some), strict=True):
                if isinstance(source, InvalidObject):
                    plan.invalid += 1
                    output.invalid(STANDARD_INPUT if isinstance(item, StreamItem) else item.name, source.reason)
                    continue
                syntax = transcoding.target_for(source.transfer_syntaxes[0])
                plan.add(Kind(source.sop_class_uid, syntax), source.size or 0)
                source.discard()
        await run_abandonable(output.show, plan)  # which imports pydicom
        return plan.exit_code
    return signals.exit_code


def _named(uid: str) -> str:
    name = _name(uid)
    return f"{name} ({uid})" if name else uid


def _name(uid: str) -> str | None:
    """None for one that the standard does not have."""
    from pydicom.uid import UID

    name = UID(uid).name
    return name if name != uid else None
