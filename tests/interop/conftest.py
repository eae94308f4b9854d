"""The peers of peers.py as fixtures: each is a function that starts one, and they all stop when the test ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop import peers


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., peers.Storescp]]:
    """`storescp(*options, ...)` starts DCMTK's storescp."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(peers.storescp(tmp_path, *args, **kwargs))


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[..., peers.Orthanc]]:
    """`orthanc(...)` starts Orthanc."""
    with contextlib.ExitStack() as stack:
        yield lambda **kwargs: stack.enter_context(peers.orthanc(tmp_path, **kwargs))


@pytest.fixture
def pynetdicom_scp() -> Iterator[Callable[..., peers.PynetdicomSCP]]:
    """`pynetdicom_scp(...)` starts pynetdicom."""
    with contextlib.ExitStack() as stack:
        yield lambda **kwargs: stack.enter_context(peers.pynetdicom_scp(**kwargs))
