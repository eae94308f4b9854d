"""Cancellation at every moment: a scenario is run again and again, cut off one step of the scheduler later each time.

    def test_send():
        async def scenario(cut):
            async with scripted_link(...) as association:
                with cut:
                    await scu.send("ct.dcm")  # what is cancelled
                ...  # what must hold, wherever it was

        cancel_at_every_checkpoint(scenario)

What counts is each step of any task while the block runs: so the cancellation also comes between two steps of the task
in the block, when another one has just done something. Every run has a trio of its own, so a task that is left over
never lets it end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeAlias

import trio
import trio.testing


class Cut(trio.abc.Instrument):
    """A block that is cancelled after so many steps (`checkpoint`) of any task since it was entered; 0 is at once."""

    def __init__(self, checkpoint: int) -> None:
        self.checkpoint = checkpoint
        self.scope = trio.CancelScope()
        self.was_entered = False
        self._steps = 0
        self._counts = False

    @property
    def was_cancelled(self) -> bool:
        """The block was left by `Cancelled`."""
        return self.scope.cancelled_caught

    @property
    def came_too_late(self) -> bool:
        """The block ran through before its checkpoint came."""
        return not self.scope.cancel_called

    def __enter__(self) -> Cut:
        if self.was_entered:
            raise RuntimeError("a scenario has one block that is cut")
        self.scope.__enter__()
        self.was_entered = self._counts = True
        if not self.checkpoint:
            self.scope.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._counts = False
        return self.scope.__exit__(kind, error, trace)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._counts:
            self._steps += 1
            if self._steps == self.checkpoint:
                self.scope.cancel()


Scenario: TypeAlias = Callable[[Cut], Awaitable[object]]


def cancel_at_every_checkpoint(
    scenario: Scenario,
    *,
    check: Callable[[Cut], object] | None = None,
    virtual_clock: bool = True,
    timeout: float = 600.0,
    max_checkpoints: int = 2000,
    seed: int = 0,
) -> int:
    """Run `scenario` with a `Cut` at checkpoint 0, 1, 2 ... until it runs through, and return their number.

    The scenario asserts what must hold after its `with cut:` block. `check(cut)` is called after each run, when its
    trio has ended; file descriptors must be the same as before by then, where /proc tells. With `virtual_clock` time
    is `trio.testing.MockClock`'s, jumping whenever nothing can go on; scenarios with threads or sockets need the real
    one. A run is given `timeout` seconds of its clock. `seed` is that of the order in which tasks have their turns.

    What a run raises comes out as it is, with a note that tells the checkpoint. Raises `AssertionError` if a
    descriptor is left open, if the scenario has no `with cut:` block, or if it has not run through at
    `max_checkpoints`. It is to be called outside of trio.
    """
    for checkpoint in range(max_checkpoints):
        cut = Cut(checkpoint)
        try:
            _run(scenario, cut, check, timeout, seed, virtual_clock=virtual_clock)
        except BaseException as error:
            error.add_note(f"cut at checkpoint {checkpoint}, seed {seed}")
            raise
        if cut.came_too_late:
            return checkpoint
    raise AssertionError(
        f"the scenario did not run through with {max_checkpoints} steps: it goes on for ever, or max_checkpoints is "
        "to be raised"
    )


def _run(
    scenario: Scenario,
    cut: Cut,
    check: Callable[[Cut], object] | None,
    timeout: float,
    seed: int,
    *,
    virtual_clock: bool,
) -> None:
    async def within_time() -> None:
        with trio.fail_after(timeout):
            await scenario(cut)

    before = open_descriptors()
    clock = trio.testing.MockClock(autojump_threshold=0) if virtual_clock else None
    with _dice(seed):
        trio.run(within_time, clock=clock, instruments=[cut])
    if not cut.was_entered:
        raise AssertionError("the scenario has no `with cut:` block: nothing would be cancelled")
    if open_descriptors() != before:
        gc.collect()
        if left := open_descriptors() - before:
            raise AssertionError(f"file descriptors are left open: {sorted(left)}")
    if check is not None:
        check(cut)


@contextmanager
def _dice(seed: int) -> Iterator[None]:
    """The scheduler's dice, which trio has for tests and gives no public name: a sweep is to be the same every time."""
    scheduler: Any = trio._core._run
    if not hasattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING") or not hasattr(scheduler, "_r"):
        yield
        return
    was, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was
        scheduler._r.setstate(state)


def open_descriptors() -> set[tuple[str, str]]:
    """The open descriptors of this process and what they are, where /proc tells; else none."""
    if not os.path.isdir("/proc/self/fd"):
        return set()
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:  # the listing's own
            continue
    return found
