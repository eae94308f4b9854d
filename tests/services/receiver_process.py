"""A receiver in a process of its own, to be killed or weighed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

PROGRAM = """
import sys
sys.modules["gdcm"] = None  # pydicom would import it where it is installed: 20 MB that are not to be weighed
import trio
from trio_dicom import InstanceFolder, StorageSCP, serve_associations

async def main():
    async with trio.open_nursery() as nursery:
        service = StorageSCP(InstanceFolder(sys.argv[1]))
        server = await nursery.start(serve_associations, service, 0)
        print(server.port, flush=True)

trio.run(main)
"""


@attrs.frozen
class ReceiverProcess:
    """It files in a folder what it is sent."""

    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> str:
        return f"ANY@127.0.0.1:{self.port}"

    def peak(self) -> int:
        """Its peak resident set size in KB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])


@contextmanager
def receiver_process(folder: Path) -> Iterator[ReceiverProcess]:
    """It is killed at the end."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield ReceiverProcess(process, int(process.stdout.readline()))
        finally:
            process.kill()
