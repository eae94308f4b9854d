"""Every call to the disk fails once while an object is received, for all k: the association lives, and takes the next.

What becomes of the file itself is looked at closer in services/test_instance_folder_faults.py.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from faults.test_kth_call_sending import within
from support.failing_calls import FailingCalls, each_call, os_error
from support.fake_instance import names
from trio_dicom import CStoreSCU, StorageSCP
from trio_dicom.services.instance_folder import Duplicates, InstanceFolder
from trio_dicom.sources.threads import stand_still
from trio_dicom.testing import SOPClass, make_instance_file, memory_link
from trio_dicom.testing.cancel_sweep import open_descriptors

CALLS = ("open", "close", "dup", "writev", "fsync", "replace", "link", "unlink", "stat", "fstat", "mkdir", "scandir")
FIRST, SECOND = (f"2.25.1000.{number}.dcm" for number in (1, 2))


@pytest.mark.fault_row(82)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("duplicates", Duplicates, ids=lambda each: each.value)
@pytest.mark.parametrize("size", [64, 3 << 20], ids=["small", "large"])
def test_the_disk(tmp_path: Path, size: int, duplicates: Duplicates, error: int) -> None:
    files = [make_instance_file(size, number=number) for number in (1, 2)]
    statuses = set()

    async def main(root: Path, calls: FailingCalls) -> None:
        stand_still.set(True)
        folder = InstanceFolder(root, duplicates=duplicates)
        async with memory_link([SOPClass.CT], StorageSCP(folder)) as (association, _):
            with pytest.MonkeyPatch.context() as patch:
                calls.patch(patch, os, *CALLS)
                calls.patch(patch, fcntl, "flock")
                first = await CStoreSCU(association).send(io.BytesIO(files[0]))
            statuses.add(int(first.status))
            there = [name for name in names(root) if not name.endswith(".part")]
            assert there in ([FIRST], [FIRST] * first.is_success), calls.failed
            assert first.is_success or first.status == 0xA700, calls.failed
            assert (await CStoreSCU(association).send(io.BytesIO(files[1]))).is_success, calls.failed
        folder.sweep()  # where it was the removal that failed
        assert names(root) in ([FIRST, SECOND], [*there, SECOND]), calls.failed

    before = open_descriptors()
    for number, calls in enumerate(each_call(os_error(error), only=within(tmp_path))):
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(main, tmp_path / str(number), calls, clock=clock)
        assert open_descriptors() == before, calls.failed
    assert statuses == {0, 0xA700}
