"""Workshop: the folder with the corpus and the compiled programs, and the words of commands that stand for them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from . import corpus
from .processes import HERE, compiled, environment

# By full path: pynetdicom installs scripts under DCMTK's names.
DCMTK = {name: f"/usr/bin/{name}" for name in ("storescu", "storescp", "dcmsend")}


def default_folder() -> Path:
    """Not a folder for temporary files, which may be memory: what is received goes to a disk."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "trio_dicom-benchmarks")


@attrs.frozen
class Folder:
    """Some files of the corpus."""

    path: Path
    count: int
    bytes: int  # of their data sets
    head_bytes: int = 0  # of those of them that are sent before the clock starts


class Workshop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sizes: dict[Path, list[int]] = {}
        programs = {name: str(compiled(name, folder / "bin")) for name in ("sink", "yardstick")}
        self.words: Mapping[str, str] = {
            "python": sys.executable,
            "here": str(HERE),
            **programs,
            **{name: path for name, path in DCMTK.items() if os.access(path, os.X_OK)},
            **({"pynetdicom": sys.executable} if importlib.util.find_spec("pynetdicom") else {}),
            **(self._certificates() if importlib.util.find_spec("trustme") else {}),
        }

    @property
    def received(self) -> Path:
        return self.folder / "received"

    def has(self, words: Iterable[str]) -> bool:
        """Whether all that a command names is here."""
        known = self.words.keys() | {"port", "folder", "received"}
        return all(word[1:-1] in known for word in words if word.startswith("{") and word.endswith("}"))

    def _certificates(self) -> dict[str, str]:
        # In a process of its own, as the corpus is: what this one has in memory counts for its children until they
        # have become other programs.
        folder = self.folder / "tls"
        folder.mkdir(parents=True, exist_ok=True)
        self._python("certificates.py", str(folder))
        return {"authority": str(folder / "authority.pem"), "certificate": str(folder / "server.pem")}

    def objects(self, kind: str, count: int, rehearsed: int = 0) -> Folder:
        """The first `count` objects of a kind, or the big one of `count` MiB; made if need be."""
        path = self.folder / "corpus" / f"{kind}-{count}"
        if not path.exists():
            scratch = path.with_suffix(".part")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            self._python("corpus.py", kind, str(count), str(scratch))
            scratch.rename(path)
        if path not in self._sizes:
            self._sizes[path] = [corpus.data_set_length(file) for file in sorted(path.iterdir())]
        sizes = self._sizes[path]
        return Folder(path, len(sizes), sum(sizes), sum(sizes[:rehearsed]))

    def _python(self, script: str, *arguments: str) -> None:
        subprocess.run([sys.executable, str(HERE / script), *arguments], check=True, env=environment())


def read_all(folder: Path) -> None:
    """Into the page cache."""
    for path in folder.iterdir():
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
