"""What the runs were made on, and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path

PACKAGES = ("trio-dicom", "trio", "pydicom", "pynetdicom")


def machine(folder: Path) -> dict[str, str]:
    """Facts by name; `folder` is where the files are, sent and received."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = {
        "Date": time.strftime("%Y-%m-%d", time.gmtime()),
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{memory / 1e9:.0f} GB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "File system": _file_system(folder),
        "Load before": f"{os.getloadavg()[0]:.2f}",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        facts[package] = _version(package)
    facts["DCMTK"] = _first_line("/usr/bin/storescu", "--version")
    facts["C compiler"] = _first_line("cc", "--version") + ", -O2"
    return facts


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _file_system(folder: Path) -> str:
    """Its type: that of the longest mount point which `folder` is below."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point))[1]


def _version(package: str) -> str:
    if package == "trio-dicom":
        from trio_dicom._version import __version__

        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    line = done.stdout.partition("\n")[0]
    version = re.search(r"v(\d+\.\d+\.\d+)", line)
    return version[1] if version else line
