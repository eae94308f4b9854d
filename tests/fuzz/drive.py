"""One target under atheris, as `python -m tests.fuzz.drive TARGET`, with the options of libFuzzer behind it."""

from __future__ import annotations

import sys

import atheris

from .targets import check_of


def main() -> None:
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["trio_dicom"], enable_loader_override=False):
        check = check_of(target)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
