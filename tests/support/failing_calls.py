"""The k-th call that can fail fails, once: for each k, until a run makes no so many calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

Error = Callable[[str], BaseException]  # given the name of the call
MOST_CALLS = 2000


def os_error(number: int = errno.EIO) -> Error:
    return lambda name: OSError(number, os.strerror(number))


class FailingCalls:
    """`made` are the calls by their names. The one with the number `failing`, which counts from 0, is not made, and
    `error` raised; what closes something is made all the same, as Linux does. `failed` is its name.

    With `instead`, that is called in place of it, with the real function before its arguments: a short read, say.
    `only` calls for whose arguments it returns True count.
    """

    def __init__(
        self,
        failing: int,
        error: Error,
        *,
        only: Callable[..., bool] = lambda *args: True,
        instead: Callable[..., Any] | None = None,
    ) -> None:
        self.made: list[str] = []
        self.failed: str | None = None
        self._failing = failing
        self._error = error
        self._only = only
        self._instead = instead

    def patch(self, patch: pytest.MonkeyPatch, owner: Any, *names: str) -> None:
        """Have the functions or methods `names` of `owner` counted, those that there are."""
        for name in names:
            if hasattr(owner, name):
                patch.setattr(owner, name, self.counted(name, getattr(owner, name)))

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if not self._only(*args):
                return real(*args, **options)
            self.made.append(name)
            if self._failing != len(self.made) - 1:
                return real(*args, **options)
            self.failed = name
            if self._instead is not None:
                return self._instead(real, *args, **options)
            if name == "close":
                real(*args, **options)
            raise self._error(name)

        return call

    def counted_method(self, name: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same, of what is awaited."""
        step = self.counted(name, lambda: None)

        async def call(*args: Any, **options: Any) -> Any:
            try:
                step()
            except BaseException:
                if name == "aclose":
                    await real(*args, **options)
                await trio.lowlevel.checkpoint()
                raise
            return await real(*args, **options)

        return call


def each_call(error: Error, *, first: int = 0, step: int = 1, **how: Any) -> Iterator[FailingCalls]:
    """One `FailingCalls` after another, until nothing has failed any more, which is the last.

    Raises `AssertionError` if the calls of the last do not show that there was something to fail.
    """
    for failing in range(first, MOST_CALLS, step):
        calls = FailingCalls(failing, error, **how)
        yield calls
        if calls.failed is None:
            assert calls.made, "no call was made that could fail"
            return
    raise AssertionError(f"{MOST_CALLS} calls, and still more")
