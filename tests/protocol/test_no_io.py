"""The floors of the house: none imports one above it, and the protocol does no I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_dicom

PACKAGE = Path(trio_dicom.__file__).parent
# From the bottom; the names of one line are one floor. `__init__` is the façade, and stands outside.
FLOORS = [
    {"_version", "errors", "uids", "peer", "secret", "settings", "tls"},
    {"protocol"},
    {"plain_nursery"},
    {"association"},
    {"sources"},
    {"services"},
    {"inputs", "conversion"},
    {"sender"},
    {"cli", "__main__"},
    {"testing"},
]
HEIGHTS = {name: height for height, names in enumerate(FLOORS) for name in names}
IO_MODULES = {"trio", "socket", "ssl", "select", "selectors", "asyncio", "anyio", "threading", "subprocess", "time"}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imports(source: str, path: Path) -> Iterator[str]:
    """The absolute name of each import, wherever in the file it stands."""
    package = ["trio_dicom", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            # `from . import pdu` names a module, `from .pdu import PDU` something in one: both are good to know.
            yield from (".".join([*module, alias.name]) for alias in node.names)


def floor(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def too_high(source: str, path: Path) -> list[str]:
    height = HEIGHTS[floor(path)]
    found = []
    for name in imports(source, path):
        parts = name.split(".")
        if parts[0] == "trio_dicom" and (len(parts) == 1 or HEIGHTS.get(parts[1], 99) > height):
            found.append(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_floor_imports_one_above_it(path: Path) -> None:
    assert floor(path) in HEIGHTS, "a module on no floor: give it one"
    assert too_high(path.read_text("utf-8"), path) == []


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "protocol").rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_protocol_does_no_io(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path.read_text("utf-8"), path)}
    assert roots.isdisjoint(IO_MODULES | {"pydicom", "numpy", "os", "io", "pathlib"})


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("protocol/x.py", "from ..association import transport", ["trio_dicom.association.transport"]),
        ("protocol/x.py", "from .. import sender", ["trio_dicom.sender"]),
        ("protocol/x.py", "from .pdu import PDU\nfrom ..errors import printable\nimport struct", []),
        ("services/x.py", "def f():\n    import trio_dicom.cli.main", ["trio_dicom.cli.main"]),
        ("services/x.py", "import trio_dicom", ["trio_dicom"]),
        ("errors.py", "from .protocol import pdu", ["trio_dicom.protocol.pdu"]),
        ("testing/x.py", "from ..sender import lanes", []),
        ("sender/x.py", "from ..testing import peers", ["trio_dicom.testing.peers"]),
    ],
)
def test_the_walk_sees_what_it_is_to_see(module: str, source: str, expected: list[str]) -> None:
    assert too_high(source, PACKAGE / module) == expected
