"""What holds for every test: the patient of the test objects is nowhere to be seen."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from support.canary import watched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    with watched(folder, names=item.get_closest_marker("files_named_by_data") is None):
        yield
