"""The command that runs the fuzz targets; see `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from .minimise import minimised, outcome_of
from .targets import SEEDS, TARGETS, check_of

ROOT = Path(__file__).parents[2]
SLOWEST = 20  # s of one input
LONGEST = 8192  # bytes of one
_FIGURES = {
    "executions": r"stat::number_of_executed_units: +(\d+)",
    "a second": r"stat::average_exec_per_sec: +(\d+)",
    "new inputs": r"stat::new_units_added: +(\d+)",
    "MB at most": r"stat::peak_rss_mb: +(\d+)",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Feeds the library with bytes made to break it, by atheris (pip install '.[fuzz]', Linux). A "
        "finding is an exception that is not documented, a hang, too much memory, or a lie about what arrived: it is "
        "minimised, told, and the exit code is 1.",
    )
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all if there is none")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=512, help="MB that one may use (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what was learnt, for the next time")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give this to the one target, and do no more")
    arguments = parser.parse_args()
    targets = arguments.target or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.replay is not None:
        if len(targets) != 1:
            parser.error("--replay is for one target")
        check_of(targets[0])(arguments.replay.read_bytes())
        return
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        findings = trio.run(_run_all, targets, arguments, Path(scratch))
        for target, found in findings:
            _tell(target, found)
    sys.exit(bool(findings))


async def _run_all(
    targets: Sequence[str], arguments: argparse.Namespace, scratch: Path
) -> list[tuple[str, Path | None]]:
    """What was found, by target: files, or None where there is none to tell of it."""
    limit = trio.CapacityLimiter(arguments.jobs)
    findings: list[tuple[str, Path | None]] = []

    async def run(target: str) -> None:
        async with limit:
            findings.extend((target, found) for found in await _run_one(target, arguments, scratch / target))

    async with trio.open_nursery() as nursery:
        for target in targets:
            nursery.start_soon(run, target)
    return findings


async def _run_one(target: str, arguments: argparse.Namespace, scratch: Path) -> list[Path | None]:
    corpus = (arguments.corpus or scratch).resolve() / target
    temporary = scratch / "tmp"  # libFuzzer ends a process without tidying up
    for folder in (corpus, temporary):
        folder.mkdir(parents=True, exist_ok=True)
    findings = scratch / "findings"
    findings.mkdir()
    command = [
        *(sys.executable, "-m", f"{__package__}.drive", target, str(corpus), str(SEEDS / target)),
        *(f"-max_total_time={arguments.seconds}", f"-rss_limit_mb={arguments.memory}", f"-timeout={SLOWEST}"),
        *(f"-max_len={LONGEST}", f"-artifact_prefix={findings}/", "-print_final_stats=1"),
    ]
    done = await trio.run_process(
        command,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    figures = {name: found[1] for name, pattern in _FIGURES.items() if (found := re.search(pattern, text))}
    print(f"{target}: {', '.join(f'{value} {name}' for name, value in figures.items())}", flush=True)
    if not done.returncode:
        return []
    print("\n".join(text.splitlines()[-40:]))
    return [*sorted(findings.iterdir())] or [None]


def _tell(target: str, found: Path | None) -> None:
    """Minimise it, and keep it in the current folder."""
    if found is None:
        print(f"{target}: it ended, and told no reason")
        return
    data, check = found.read_bytes(), check_of(target)
    if (outcome := outcome_of(check, data)) is not None:
        data = minimised(check, data)
    kept = Path(f"found-{target}-{found.name}")
    kept.write_bytes(data)
    print(f"{target}: {outcome or 'not seen a second time'}")
    print(f"see it by: {sys.executable} -m {__package__} {target} --replay {kept}", flush=True)


if __name__ == "__main__":
    main()
