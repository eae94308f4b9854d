"""The peers of peers.py as fixtures: each is a function that starts one, and they all stop when the test ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop import peers
from interop.receiver import TrioDicomReceive, trio_dicom_receive


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


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[Callable[..., TrioDicomReceive]]:
    """`receive(*options, ae_title=...)` starts `trio-dicom receive`."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(trio_dicom_receive(tmp_path, *args, **kwargs))


@pytest.fixture(scope="session")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrioDicomReceive]:
    """One `trio-dicom receive` for all: each test takes what it had stored there."""
    with trio_dicom_receive(tmp_path_factory.mktemp("receiver"), "--per-host", "32", "--window", "8") as peer:
        yield peer


@pytest.fixture(scope="session")
def sending_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Orthanc]:
    """One Orthanc for all that have it send: each test deletes what it had stored there."""
    with peers.orthanc(tmp_path_factory.mktemp("orthanc"), ConcurrentJobs=4, DicomAssociationCloseDelay=0) as peer:
        yield peer
