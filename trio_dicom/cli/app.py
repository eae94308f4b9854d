"""The commands, with their help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from .._version import __version__
from ..peer import Peer, check_ae_title

app = App(
    name="trio-dicom",
    version=__version__,
    help_format="plaintext",
    help="DICOM networking: verify peers and send objects with C-STORE. PEER is AET@host:port, such as PACS@10.0.0.5:104.",
)

TLS = Group("TLS")


def _peer(kind: type[object], tokens: object) -> Peer:
    return Peer.parse(tokens[0].value)  # type: ignore[index]


def _title(kind: type[object], value: str) -> None:
    check_ae_title(value)


def _above_zero(kind: type[object], value: float) -> None:
    if not value > 0:
        raise ValueError("must be a number of seconds above 0")


def _zero_or_more(kind: type[object], value: int) -> None:
    if value < 0:
        raise ValueError("must be 0 or more")


def _pdu_length(kind: type[object], value: int) -> None:
    if not 4096 <= value <= 1 << 20:
        raise ValueError("must be 4096 to 1048576")


PeerArgument = Annotated[Peer, Parameter(converter=_peer, accepts_keys=False, n_tokens=1, help="AET@host:port")]
Calling = Annotated[str, Parameter(validator=_title, help="our own AE title")]
Timeout = Annotated[float, Parameter(validator=_above_zero, help="seconds that may pass without progress")]
UseTLS = Annotated[bool, Parameter(group=TLS, negative="", help="connect with TLS; the peer's certificate is checked")]
CA = Annotated[Path | None, Parameter(group=TLS, help="PEM file of the authorities to trust, in place of the system's")]
Cert = Annotated[Path | None, Parameter(group=TLS, help="PEM file of our own certificate")]
Key = Annotated[Path | None, Parameter(group=TLS, help="PEM file of its private key, if not in the certificate's file")]


@app.command
def demo() -> None:
    """Send real objects to a receiver on this machine, and show what arrived.

    Starts a receiver on a free port of the loopback interface, sends it the sample objects that the pydicom package ships (several SOP
    classes and transfer syntaxes) and compares what it stored, byte for byte. The exit code is 0 only if all of it agrees.
    """
    from .demo import run_demo

    sys.exit(run_demo())


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
) -> None:
    """Verify that PEER answers, with C-ECHO.

    Exit codes: 0 it answered; 2 usage; 69 it refused for good; 75 trying again may help.
    """
    from .connection import Connection
    from .echo import run_echo

    sys.exit(run_echo(Connection.of(peer, calling, timeout, tls=tls, ca=ca, cert=cert, key=key)))


@app.command
def send(
    peer: PeerArgument,
    paths: Annotated[list[str], Parameter(help="files, directories (recursively), or - for standard input", allow_leading_hyphen=True)],
    /,
    *,
    calling: Calling = "TRIO_DICOM",
    timeout: Timeout = 30.0,
    retries: Annotated[int, Parameter(validator=_zero_or_more, help="how often an object is sent again")] = 0,
    max_pdu: Annotated[int, Parameter(validator=_pdu_length, help="largest PDU, in bytes, either way")] = 131_072,
    report: Annotated[Path | None, Parameter(help="write what became of each input to this file, as NDJSON")] = None,
    quiet: Annotated[bool, Parameter(negative="", help="print nothing but errors")] = False,
    tls: UseTLS = False,
    ca: CA = None,
    cert: Cert = None,
    key: Key = None,
) -> None:
    """Send DICOM objects to PEER with C-STORE.

    Files go out as they lie on the disk, in their own transfer syntax; pixels are never transcoded.

    Each line of the report has path, sop_class_uid, sop_instance_uid, transfer_syntax_uid, outcome (stored, stored_with_warning,
    already_present, refused, invalid, no_context, not_sent or in_doubt), status, attempts, bytes and reason. It is written
    however the command ends.

    Exit codes: 0 every input was stored; 1 some were not, for good; 2 usage; 65 no input is a DICOM object; 69 the peer refused for
    good; 75 trying again may help; 130 and 143 after SIGINT and SIGTERM.
    """
    from .connection import Connection
    from .send import run_send

    connection = Connection.of(peer, calling, timeout, max_pdu, tls=tls, ca=ca, cert=cert, key=key)
    sys.exit(run_send(connection, paths, retries=retries, report_path=report, quiet=quiet))
