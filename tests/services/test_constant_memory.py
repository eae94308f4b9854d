"""However large the object, and whether the peer reads or not, a sender stays small; and so does a receiver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.receiver_process import receiver_process
from support.draining_scp import draining_scp
from trio_dicom import send_file

PEAK = 80_000  # KB

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")

SENDER = """
import sys
sys.modules["gdcm"] = None  # pydicom would import it where it is installed: 20 MB that are not to be weighed
import trio
from pydicom.dataset import Dataset
import trio_dicom

CT = "1.2.840.10008.5.1.4.1.1.2"

class Zeros:
    transfer_syntax_uid = None
    def __init__(self, length):
        self.length = length
    async def chunks(self):
        piece = bytes(1 << 20)
        for _ in range(self.length >> 20):
            yield piece

def dataset():
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CT, "1.2.3"
    made.Rows = made.Columns = 1024
    made.BitsAllocated = 16
    return made

async def main(address, form, path, size, timeout):
    contexts = await trio_dicom.contexts_for(path)
    async with trio_dicom.open_association(address, contexts) as association:
        scu = trio_dicom.CStoreSCU(association, trio_dicom.CStoreOptions(timeout=timeout))
        try:
            if form == "path":
                response = await scu.send(path)
            elif form == "stream":
                with open(path, "rb") as file:
                    response = await scu.send(file)
            else:
                response = await scu.send(dataset(), Zeros(size))
            print(response.status.meaning, end=" ")
        except trio_dicom.OperationTimeout as error:
            print(error.phase, end=" ")
    status = open("/proc/self/status").read()  # ru_maxrss would have that of the parent before the exec
    print(status.partition("VmHWM:")[2].split()[0])

trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
"""


def large_file(folder: Path, size: int) -> Path:
    """A CT with `size` bytes of Pixel Data, all zero: a sparse file."""
    from trio_dicom.testing import make_instance_file

    path = folder / "large.dcm"
    head = make_instance_file(size=0)[:-12]  # without its own Pixel Data
    header = b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little")
    path.write_bytes(head + header)
    os.truncate(path, len(head) + len(header) + size)
    return path


def send(address: str, form: str, path: Path, size: int, timeout: float) -> tuple[str, int]:
    """What the sender came to, and its peak resident set size in KB."""
    command = [sys.executable, "-c", SENDER, address, form, str(path), str(size), str(timeout)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    outcome, _, peak = done.stdout.rpartition(" ")
    return outcome, int(peak)


@pytest.mark.fault_row(109)
@pytest.mark.parametrize("form", ["path", "stream", "pixels"])
@pytest.mark.parametrize("size", [128 << 20, pytest.param(1 << 30, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_a_large_object_is_sent_in_constant_memory(tmp_path: Path, form: str, size: int) -> None:
    path = large_file(tmp_path, size)
    with draining_scp() as scp:
        outcome, peak = send(scp.address, form, path, size, 30)
    print(f"{form}, {size >> 20} MiB: {outcome}, peak {peak} KB")
    assert outcome == "Success"
    assert scp.data_set_bytes >= size
    assert peak < PEAK


@pytest.mark.fault_row(48)
@pytest.mark.parametrize("form", ["path", "stream", "pixels"])
def test_a_peer_that_stops_reading_costs_no_memory(tmp_path: Path, form: str) -> None:
    size = 1 << 30
    path = large_file(tmp_path, size)
    with draining_scp(stop_after=8 << 20) as scp:
        outcome, peak = send(scp.address, form, path, size, 2)
    print(f"{form}, stalled: {outcome}, peak {peak} KB")
    assert outcome == "writing"
    assert peak < PEAK


@pytest.mark.parametrize("size", [128 << 20, pytest.param(1 << 30, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
async def test_a_large_object_is_received_in_constant_memory(tmp_path: Path, size: int) -> None:
    path = large_file(tmp_path, size)
    with receiver_process(tmp_path / "received") as receiver:
        response = await send_file(receiver.address, path)
        peak = receiver.peak()
    print(f"received, {size >> 20} MiB: {response.status.meaning}, peak {peak} KB")
    assert response.is_success
    (filed,) = (tmp_path / "received").iterdir()
    assert filed.stat().st_size >= size
    assert peak < PEAK
