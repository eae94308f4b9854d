"""`trio-dicom echo`."""

from __future__ import annotations

import logging

import trio

from ..errors import Retry, TrioDicomError
from ..services.verification import echo
from .connection import Connection
from .display import print_line
from .exit_codes import ExitCode
from .signals import cancel_on_signals


def run_echo(connection: Connection) -> int:
    """Verify the peer, print the time that it took, and give the exit code."""
    logger, shown = logging.getLogger("trio_dicom"), logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    shown.setFormatter(logging.Formatter("trio-dicom: %(message)s"))
    logger.addHandler(shown)
    try:
        return trio.run(_echo, connection)
    finally:
        logger.removeHandler(shown)


async def _echo(connection: Connection) -> int:
    async with cancel_on_signals() as signals:
        try:
            seconds = await echo(
                connection.peer,
                settings=connection.settings,
                tls=connection.tls,
                server_hostname=connection.server_hostname,
            )
        except TrioDicomError as error:
            print_line(f"trio-dicom: {connection.explain(error)}", to_errors=True)
            return code_of_failure(error)
        print_line(f"{connection.peer} answered in {1000 * seconds:.1f} ms")
        return ExitCode.OK
    return signals.exit_code


def code_of_failure(error: TrioDicomError) -> ExitCode:
    """The exit code for an association that did not come about."""
    return ExitCode.TRY_AGAIN if error.retry in (Retry.LATER, Retry.NEW_ASSOCIATION) else ExitCode.REFUSED
