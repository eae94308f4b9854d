"""The commands, with their help."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Group, Parameter

from .._version import __version__
from ..peer import Peer, check_ae_title

USAGE = 2
INTERRUPTED = 130

app = App(
    name="trio-dicom",
    version=__version__,
    help_format="plaintext",
    help="Verify DICOM peers, and send objects with C-STORE.\n\nPEER is AET@host:port, such as PACS@10.0.0.5:104.",
)

TLS = Group("TLS")


def run(arguments: list[str] | None = None) -> int:
    """Carry out a command line, by default that of the process; gives the exit code."""
    try:
        code = app(arguments, exit_on_error=False)
    except CycloptsError:  # it is printed
        return USAGE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:  # before or after what can be left in order
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _path(kind: object, value: str) -> None:
    # Hyphens are let through for the sake of - and of files after a --: what is left is a mistyped option.
    if value.startswith("-") and value != "-" and not os.path.lexists(value):
        raise ValueError(f"{value} is neither an option nor a file.")


def _imported() -> None:
    """All of the modules are there, and stay: the garbage collector need never look at them again."""
    if not gc.isenabled():  # as it is in a process of ours
        gc.freeze()
        gc.enable()


def _peer(kind: object, value: str) -> None:
    Peer.parse(value)


def _title(kind: object, value: str) -> None:
    check_ae_title(value)


def _above_zero(kind: object, value: float) -> None:
    if not value > 0:
        raise ValueError("It must be a number of seconds above 0.")


def _zero_or_more(kind: object, value: int) -> None:
    if value < 0:
        raise ValueError("It must be 0 or more.")


def _pdu_length(kind: object, value: int) -> None:
    if not 4096 <= value <= 1 << 20:
        raise ValueError("It must be 4096 to 1048576.")


PeerArgument = Annotated[str, Parameter(name="PEER", validator=_peer, help="AET@host:port")]
Calling = Annotated[str, Parameter(validator=_title, help="our own AE title")]
Timeout = Annotated[float, Parameter(validator=_above_zero, help="seconds that may pass without progress")]
UseTLS = Annotated[bool, Parameter(group=TLS, negative="", help="connect with TLS; the peer's certificate is checked")]
CA = Annotated[Path | None, Parameter(group=TLS, help="PEM file of the authorities to trust, in place of the system's")]
Cert = Annotated[Path | None, Parameter(group=TLS, help="PEM file of our own certificate")]
Key = Annotated[Path | None, Parameter(group=TLS, help="PEM file of its private key, if not in the certificate's file")]

Paths = Annotated[
    str,
    Parameter(
        name="PATH",
        validator=_path,
        allow_leading_hyphen=True,
        help="files, directories (recursively), or - for standard input",
    ),
]
Retries = Annotated[int, Parameter(validator=_zero_or_more, help="how often an object is sent again")]
MaxPDU = Annotated[int, Parameter(validator=_pdu_length, help="largest PDU, in bytes, either way")]
Report = Annotated[Path | None, Parameter(help="write what became of each input to this file, as NDJSON")]
Quiet = Annotated[bool, Parameter(negative="", help="print nothing but errors")]


@app.command
def demo() -> int:
    """Send real objects to a receiver on this machine, and show what arrived.

    Starts a receiver on a free port of the loopback interface, sends it the
    sample objects that the pydicom package ships (several SOP classes and
    transfer syntaxes) and compares what it stored, byte for byte.

    Exit codes: 0 all were stored and agree; 1 some do not.
    """
    from .demo import run_demo

    _imported()
    return run_demo()


@app.command
def echo(
    peer: PeerArgument,
    /,
    *,
    calling: Calling = "TRIO_DICOM",
    timeout: Timeout = 30.0,
    tls: UseTLS = False,
    ca: CA = None,
    cert: Cert = None,
    key: Key = None,
) -> int:
    """Verify that PEER answers, with C-ECHO.

    Exit codes: 0 it answered; 2 usage; 69 it refused for good; 75 trying
    again may help; 130 and 143 after SIGINT and SIGTERM.
    """
    from .connection import Connection
    from .echo import run_echo

    _imported()
    return run_echo(Connection.of(Peer.parse(peer), calling, timeout, tls=tls, ca=ca, cert=cert, key=key))


@app.command(usage="Usage: trio-dicom send [OPTIONS] PEER PATH...")
def send(
    peer: PeerArgument,
    /,
    *paths: Paths,
    calling: Calling = "TRIO_DICOM",
    timeout: Timeout = 30.0,
    retries: Retries = 0,
    max_pdu: MaxPDU = 131_072,
    report: Report = None,
    quiet: Quiet = False,
    tls: UseTLS = False,
    ca: CA = None,
    cert: Cert = None,
    key: Key = None,
) -> int:
    """Send DICOM objects to PEER with C-STORE.

    Files go out as they lie on the disk, in their own transfer syntax;
    pixels are never transcoded. A name that begins with a hyphen goes after
    a --, or is given as ./-name.

    Each line of the report has path, sop_class_uid, sop_instance_uid,
    transfer_syntax_uid, outcome (stored, stored_with_warning,
    already_present, refused, invalid, no_context, not_sent or in_doubt),
    status, attempts, bytes and reason. It is written however the command
    ends.

    Exit codes: 0 every input was stored; 1 some were not, for good; 2 usage;
    65 no input is a DICOM object; 69 the peer refused for good; 75 trying
    again may help; 130 and 143 after SIGINT and SIGTERM.
    """
    from .connection import Connection, usage_error
    from .send import run_send

    _imported()
    if not paths:
        raise usage_error("no PATH is given: a file, a directory, or - for standard input")
    connection = Connection.of(Peer.parse(peer), calling, timeout, max_pdu, tls=tls, ca=ca, cert=cert, key=key)
    return run_send(connection, paths, retries=retries, report_path=report, quiet=quiet)
