"""Failures: the inputs that were not stored, by how they failed. However many there are, it holds a few names."""

from __future__ import annotations

import re

import attrs

from ..sender.outcome import Outcome

NAMES_KEPT = 3  # of each group
MOST_GROUPS = 200


@attrs.define
class Failures:
    """Inputs that failed alike: with the same outcome and status, and for one reason, numbers in it apart."""

    outcome: Outcome
    status: int | None
    reason: str  # of the first
    inputs: int = 0
    names: list[str] = attrs.field(factory=list)  # of the first few


@attrs.define
class FailureGroups:
    """See above. Further groups than `most` have no names."""

    most: float = MOST_GROUPS
    others: int = 0  # inputs of further groups than there is room for
    _groups: dict[tuple[Outcome, int | None, str], Failures] = attrs.field(factory=dict)

    def add(self, outcome: Outcome, status: int | None, reason: str, name: str) -> None:
        """One more input."""
        kind = (outcome, status, re.sub(r"\d+", "0", reason))
        found = self._groups.get(kind)
        if found is None:
            if len(self._groups) >= self.most:
                self.others += 1
                return
            found = self._groups[kind] = Failures(outcome, status, reason)
        found.inputs += 1
        if len(found.names) < NAMES_KEPT:
            found.names.append(name)

    def largest_first(self) -> list[Failures]:
        """All groups."""
        return sorted(self._groups.values(), key=lambda each: -each.inputs)
