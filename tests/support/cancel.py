"""Cancellation at every moment: a scenario is run again and again, cut off one step of the scheduler later each time.

    async def scenario(cut: Cut) -> None:
        async with scripted_link(...) as association:
            with cut:
                await scu.send(...)  # what is cancelled
            ...  # what must hold, wherever it was

    moments = cancel_at_every_checkpoint(scenario)

Every run has a trio of its own, so a task that is left over never lets it end. Descriptors and temporary files are
compared before and after.
"""

from __future__ import annotations

import gc
import os
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from types import TracebackType

import pytest
import trio
import trio.testing
from trio._core import _run  # the scheduler's dice: a sweep is to be the same every time

MOST = 2000


class Cut(trio.abc.Instrument):
    """A cancel scope that is cancelled after the `moment`th step of any task since it was entered."""

    def __init__(self, moment: int) -> None:
        self.moment = moment
        self.steps = 0
        self.scope = trio.CancelScope()
        self._counts = False

    @property
    def was_cancelled(self) -> bool:
        """The block was left by `Cancelled`."""
        return self.scope.cancelled_caught

    @property
    def came_too_late(self) -> bool:
        """The block ran through before its moment came."""
        return not self.scope.cancel_called

    def __enter__(self) -> Cut:
        self.scope.__enter__()
        self._counts = True
        if not self.moment:
            self.scope.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._counts = False
        return self.scope.__exit__(kind, error, trace)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._counts:
            self.steps += 1
            if self.steps == self.moment:
                self.scope.cancel()


Scenario = Callable[[Cut], Awaitable[None]]


def cancel_at_every_checkpoint(scenario: Scenario, *, clock: bool = True, seed: int = 0, most: int = MOST) -> int:
    """Run `scenario` with a `Cut` at moment 0, 1, 2 ... until it runs through; the number of moments.

    With `clock`, time is virtual; without, real: for scenarios that use threads.
    """
    before = descriptors()
    files = temporary_files()
    for moment in range(most):
        cut = Cut(moment)
        _run._ALLOW_DETERMINISTIC_SCHEDULING, deterministic = True, _run._ALLOW_DETERMINISTIC_SCHEDULING
        _run._r.seed(seed)
        try:
            virtual = trio.testing.MockClock(autojump_threshold=0) if clock else None
            trio.run(scenario, cut, clock=virtual, instruments=[cut])
        except BaseException as error:
            error.add_note(f"cut at moment {moment}, seed {seed}")
            raise
        finally:
            _run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic
        if cut.came_too_late:
            gc.collect()
            assert descriptors() == before
            assert temporary_files() == files
            return moment
    pytest.fail(f"the scenario did not run through in {most} steps")


def descriptors() -> set[tuple[str, str]]:
    """The open descriptors of this process and what they are, where /proc tells."""
    if not os.path.isdir("/proc/self/fd"):
        return set()
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:  # the listing's own
            continue
    return found


def temporary_files() -> list[str]:
    """What lies where temporary files are made; a test gives itself a place of its own."""
    return sorted(str(path) for path in pathlib.Path(tempfile.gettempdir()).rglob("*"))
