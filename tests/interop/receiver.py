"""`trio-dicom receive` as its own process, and what it has stored."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from interop.peers import Program, start
from interop.tap import Instance, instance_of

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "trio_dicom", "receive"]


class TrioDicomReceive(Program):
    """The command line's receiver."""

    @property
    def files(self) -> list[Path]:
        """All the files in its folder and below, sorted by name; hidden and temporary ones too."""
        return sorted(path for path in (self.folder / "received").rglob("*") if not path.is_dir())

    def take(self) -> list[Instance]:
        """What it has stored, which is deleted there. Each file bears the name of its instance."""
        instances = {path: instance_of(path) for path in self.files}
        for path, instance in instances.items():
            if path.name != f"{instance.sop_instance_uid}.dcm":
                raise ValueError(f"{path} has {instance}")
            path.unlink()
        return list(instances.values())


@contextlib.contextmanager
def trio_dicom_receive(tmp_path: Path, *options: str, ae_title: str | None = None) -> Iterator[TrioDicomReceive]:
    """`trio-dicom receive` with `options`, of which `--port` and `--output` are given; ready when entered."""
    folder = Path(tempfile.mkdtemp(prefix="receive-", dir=tmp_path))
    (folder / "received").mkdir()
    command = [*COMMAND, "--port", "0", "--output", str(folder / "received")]
    command += ["--ae", ae_title] if ae_title else []
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = start([*command, *options], folder, {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"})
    peer = TrioDicomReceive(ae_title or "ANY-SCP", 0, folder, process)
    try:
        peer.wait_until(lambda: "listening on " in peer.log)
        peer.port = int(re.findall(r"listening on \S+:(\d+)", peer.log)[0])
        yield peer
    finally:
        peer.stop()
        print(f"--- log of trio-dicom receive\n{peer.log[-8_000:]}")
