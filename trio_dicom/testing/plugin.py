"""Fixtures for pytest, over what `trio_dicom.testing` has as context managers.

pytest loads this module in every project of an environment where trio_dicom is installed, so it imports nothing but
pytest. Fixtures that are async need pytest-trio, and a trio test: one with `@pytest.mark.trio`, or any async one with
`trio_mode = true`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .storage_double import ScriptedStorageSCP
    from .tls import TLSContexts


_SCP = pytest.StashKey["ScriptedStorageSCP"]()


@pytest.fixture
async def dicom_scp(request: pytest.FixtureRequest) -> AsyncIterator[ScriptedStorageSCP]:
    """A Storage SCP on a port of loopback, as `trio_dicom.testing.storage_scp` makes it: `.address`, `.stored`."""
    from .storage_double import storage_scp

    async with storage_scp(assert_all_used=False) as scp:
        request.node.stash[_SCP] = scp
        yield scp


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Looks for replies that were not used only after a test that passed: a fixture cannot know whether it did."""
    yield
    if _SCP in item.stash:
        item.stash[_SCP].assert_all_used()


@pytest.fixture(scope="session")
def dicom_tls() -> TLSContexts:
    """TLS contexts for both sides, as `trio_dicom.testing.tls_contexts` makes them, for 127.0.0.1; needs trustme."""
    from .tls import tls_contexts

    return tls_contexts()
