"""The commands, with their help."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from .._version import __version__
from ..peer import Peer, check_ae_title
from .quantities import bytes_per_second
from .security import ClientSecurity, Identity, ServerSecurity

USAGE = 2
INTERRUPTED = 130
LONGEST_ACCEPTANCE = 30.0  # s for the answer to an association request, where that to an object may take longer

app = App(
    name="trio-dicom",
    version=__version__,
    help_format="plaintext",
    help="Verify DICOM peers, send objects to them, and receive theirs.\n\n"
    "PEER is AET@host:port, such as PACS@10.0.0.5:104.",
)

RETRYING = Group("Retrying and ending")
OBJECTS = Group("Objects")
OUTPUT = Group("Output")


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


def _title(kind: object, value: str | Sequence[str] | None) -> None:
    for title in (value,) if isinstance(value, str) else value or ():
        check_ae_title(title)


def _named(kind: object, value: str) -> None:
    if not value:
        raise ValueError("It must not be empty: . is the folder that this one runs in.")


def _port(kind: object, value: int) -> None:
    if not 0 <= value <= 65535:
        raise ValueError("It must be 1 to 65535, or 0 for any free port.")


def _one_or_more(kind: object, value: int) -> None:
    if value < 1:
        raise ValueError("It must be 1 or more.")


def _window(kind: object, value: int) -> None:
    if not 0 <= value <= 65535:
        raise ValueError("It must be 1 to 65535, or 0 for as many as we can (64).")


def _rate(kind: object, value: str | None) -> None:
    if value is not None:
        bytes_per_second(value)


def _above_zero(kind: object, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError("It must be a number of seconds above 0.")


def _zero_or_more(kind: object, value: int | None) -> None:
    if value is not None and value < 0:
        raise ValueError("It must be 0 or more.")


def _pdu_length(kind: object, value: int) -> None:
    if not 4096 <= value <= 1 << 20:
        raise ValueError("It must be 4096 to 1048576.")


PeerArgument = Annotated[str, Parameter(name="PEER", validator=_peer, help="AET@host:port")]
Calling = Annotated[str, Parameter(validator=_title, help="our own AE title")]
Timeout = Annotated[float, Parameter(validator=_above_zero, help="seconds that may pass without progress")]

Paths = Annotated[
    str,
    Parameter(
        name="PATH",
        validator=_path,
        allow_leading_hyphen=True,
        help="files, folders, ZIP archives, DICOMDIR files, or - for standard input",
    ),
]
StorageTimeout = Annotated[
    float, Parameter(validator=_above_zero, help="seconds that may pass without progress of an object")
]
MostAssociations = Annotated[
    int, Parameter(validator=_one_or_more, help="most associations at once; more are of use where a peer is slow")
]
ProposedWindow = Annotated[
    int,
    Parameter(
        validator=_window,
        help="objects that may wait for their answers together on an association, if the peer agrees; "
        "0 is as many as it likes (at most 64)",
    ),
]
MaxRate = Annotated[
    str | None,
    Parameter(validator=_rate, help="most bytes a second, all associations together, such as 500k, 10M or 1G"),
]
Retries = Annotated[
    int | None,
    Parameter(
        group=RETRYING,
        validator=_zero_or_more,
        help="further attempts for an object; if given, also for a first association [default: 4, and 0 for that]",
    ),
]
RetryDelay = Annotated[
    float,
    Parameter(
        group=RETRYING,
        validator=_above_zero,
        help="most seconds before the first of these; before each next, twice that",
    ),
]
Deadline = Annotated[
    float | None,
    Parameter(
        group=RETRYING,
        validator=_above_zero,
        help="seconds for all of it; then it is aborted; by default it has no end",
    ),
]
Drain = Annotated[
    float,
    Parameter(
        group=RETRYING,
        validator=_above_zero,
        help="seconds that objects under way have after a first Ctrl-C or SIGTERM",
    ),
]
SendLedger = Annotated[
    Path | None,
    Parameter(
        group=RETRYING,
        help="keep what became of each input in this file; with the same one again, only what is left is sent",
    ),
]
Transcode = Annotated[
    str,
    Parameter(
        group=OBJECTS,
        help="never; native: what is compressed is sent uncompressed; or the UID of the transfer syntax to send in. "
        "No pixel is changed by it",
    ),
]
OnSameInstance = Annotated[
    Literal["send", "skip"],
    Parameter(group=OBJECTS, help="a further input with the SOP Instance UID of one before it: send it, too, or not"),
]
AcceptPresent = Annotated[
    bool,
    Parameter(group=OBJECTS, negative="", help="what the peer has already, by its UID (status 0111), counts as stored"),
]
DryRun = Annotated[
    bool,
    Parameter(
        group=OUTPUT,
        negative="",
        help="read the heads, print what would be sent and what is invalid, connect to nobody",
    ),
]
LinesOfJSON = Annotated[
    bool,
    Parameter(
        group=OUTPUT, negative="", help="a line of JSON for each input on standard output, and one with the totals"
    ),
]
MaxPDU = Annotated[int, Parameter(validator=_pdu_length, help="largest PDU, in bytes, either way")]
Report = Annotated[
    Path | None,
    Parameter(group=OUTPUT, help="write what became of each input to this file, a new one, as NDJSON"),
]
NoWords = Annotated[bool, Parameter(group=OUTPUT, negative="", help="print nothing but errors")]
Quiet = Annotated[bool, Parameter(negative="", help="print nothing but errors")]

Port = Annotated[int, Parameter(validator=_port, help="TCP port to listen on; 0 is any free one")]
Output = Annotated[str, Parameter(validator=_named, help="folder to file the objects in; made if it is missing")]
Bind = Annotated[
    str, Parameter(help="address to listen on: 0.0.0.0 is all of IPv4, :: all of IPv6; by default only this machine")
]
Title = Annotated[
    str | None, Parameter(validator=_title, help="the AE title by which we must be called; by default any")
]
Callers = Annotated[
    tuple[str, ...],
    Parameter(
        validator=_title,
        negative="",
        show_default=False,
        help="an AE title that may call; repeat it for others; by default any may",
    ),
]
Window = Annotated[
    int,
    Parameter(
        validator=_window, help="most objects at once on an association, if the peer asks; 0 is as many as we can (64)"
    ),
]
Associations = Annotated[int, Parameter(validator=_one_or_more, help="most associations at once; others are rejected")]
PerHost = Annotated[int, Parameter(validator=_one_or_more, help="most of these from one address")]
Idle = Annotated[
    float, Parameter(validator=_above_zero, help="seconds for which a peer, or the disk, may keep us waiting")
]
Layout = Annotated[str, Parameter(help="path of an object within the folder, with fields in braces; see above")]
OnDuplicate = Annotated[
    Literal["replace", "keep", "refuse"], Parameter(help="of two objects with one name: the last, the first, or 0111")
]
MaxObjectSize = Annotated[int, Parameter(validator=_one_or_more, help="largest data set taken, in bytes")]
NoFsync = Annotated[
    bool,
    Parameter(name="--no-fsync", negative="", help="answer before the object is on the disk: a power cut can lose it"),
]
AcceptPrivate = Annotated[
    bool, Parameter(negative="", help="accept any SOP class and transfer syntax, not only the standard's for storage")
]
Once = Annotated[bool, Parameter(negative="", help="end with the first association, the only one that is let in")]
ArrivalReport = Annotated[
    Path | None, Parameter(help="append what became of each object to this file, as NDJSON; made if it is missing")
]

Ledger = Annotated[Path, Parameter(name="LEDGER", help="the file")]
AsJSON = Annotated[bool, Parameter(negative="", help="one JSON document, with all inputs")]
AsCSV = Annotated[bool, Parameter(negative="", help="a row for each input, below a row of names")]
Failed = Annotated[bool, Parameter(negative="", help="only what the peer does not have from us")]


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
    security: ClientSecurity = ClientSecurity(),  # noqa: B008
    identity: Identity = Identity(),  # noqa: B008
) -> int:
    """Verify that PEER answers, with C-ECHO.

    Exit codes: 0 it answered; 2 usage; 69 it refused for good; 75 trying
    again may help; 129, 130 and 143 after SIGHUP, SIGINT and SIGTERM.
    """
    from .connection import Connection
    from .echo import run_echo

    _imported()
    return run_echo(Connection.of(Peer.parse(peer), calling, timeout, security, identity))


@app.command(usage="Usage: trio-dicom send [OPTIONS] PEER PATH...")
def send(
    peer: PeerArgument,
    /,
    *paths: Paths,
    calling: Calling = "TRIO_DICOM",
    associations: MostAssociations = 1,
    window: ProposedWindow = 1,
    max_pdu: MaxPDU = 131_072,
    max_rate: MaxRate = None,
    timeout: StorageTimeout = 300.0,
    retries: Retries = None,
    retry_delay: RetryDelay = 1.0,
    deadline: Deadline = None,
    drain: Drain = 30.0,
    ledger: SendLedger = None,
    transcode: Transcode = "never",
    same_instance: OnSameInstance = "send",
    accept_present: AcceptPresent = False,
    dry_run: DryRun = False,
    json: LinesOfJSON = False,
    report: Report = None,
    quiet: NoWords = False,
    security: ClientSecurity = ClientSecurity(),  # noqa: B008
    identity: Identity = Identity(),  # noqa: B008
) -> int:
    """Send DICOM objects to PEER with C-STORE.

    Files go out as they lie on the disk, in their own transfer syntax, and
    folders with all that is below them. ZIP archives and DICOMDIR files stand
    for what is in them where they are named; those in a folder are no inputs.
    A name that begins with a hyphen goes after a --, or is given as ./-name.

    An object is tried again where that may help: its association was lost,
    or the peer is out of resources. A peer that was reached, and then takes
    nothing any more, is given up after 10 minutes; one that was never
    reached at once, unless --retries is given.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP: the first lets objects that are under
    way come to their end, and then releases the associations; the second
    aborts them. Either way, and after a deadline, every input is reported.

    Each line of the report, and of --json, has path, sop_class_uid,
    sop_instance_uid, transfer_syntax_uid, outcome (stored,
    stored_with_warning, already_present, refused, invalid, no_context,
    not_sent or in_doubt), status, attempts, bytes, reason, retry,
    was_in_doubt and earlier.

    Exit codes: 0 every input was stored; 1 some were not, for good; 2 usage;
    65 no input is a DICOM object; 69 the peer refused for good; 75 trying
    again may help, or another run is writing the ledger; 129, 130 and 143
    after SIGHUP, SIGINT and SIGTERM.
    """
    from .connection import Connection, usage_error

    if not paths:
        raise usage_error("no PATH is given: a file, a folder, or - for standard input")
    from .sending import Sending

    sending = Sending.of(
        timeout=timeout,
        retries=retries,
        retry_delay=retry_delay,
        max_rate=max_rate,
        same_instance=same_instance,
        transcode=transcode,
        deadline=deadline,
        associations=associations,
        window=window,
        ledger=ledger,
        drain=drain,
        accepts_present=accept_present,
        report=report,
        as_json=json,
        quiet=quiet,
    )
    if dry_run:
        from .plan import run_plan

        _imported()
        if ledger or report:
            raise usage_error("--dry-run sends nothing that --ledger or --report could tell of")
        return run_plan(Peer.parse(peer), paths, transcode, as_json=json)
    from .send import run_send

    _imported()
    connection = Connection.of(
        Peer.parse(peer),
        calling,
        timeout,
        security,
        identity,
        max_pdu,
        association_timeout=min(timeout, LONGEST_ACCEPTANCE),
    )
    return run_send(connection, sending, paths)


@app.command
def receive(
    *,
    port: Port = 11112,
    output: Output,
    bind: Bind = "127.0.0.1",
    ae: Title = None,
    calling: Callers = (),
    layout: Layout = "{sop_instance_uid}.dcm",
    duplicates: OnDuplicate = "replace",
    once: Once = False,
    report: ArrivalReport = None,
    quiet: Quiet = False,
    timeout: Idle = 60.0,
    associations: Associations = 64,
    per_host: PerHost = 8,
    max_pdu: MaxPDU = 131_072,
    window: Window = 1,
    max_object_size: MaxObjectSize = 16 << 30,
    accept_private: AcceptPrivate = False,
    no_fsync: NoFsync = False,
    security: ServerSecurity = ServerSecurity(),  # noqa: B008
) -> int:
    """Receive objects with C-STORE, and file them in a folder.

    Listens on 127.0.0.1 and so can be reached from this machine only: say
    --bind 0.0.0.0, or --bind :: for IPv6, to let others in, and then --ae,
    --calling and --tls to say whom. C-ECHO is answered, too.

    An object is answered as stored (0000) when it is on the disk under its
    final name. Nothing is left of one that was refused, or whose association
    ended in the middle of it. Prints "listening on HOST:PORT as TITLE", then
    a line for each object, and counts at the end; what was not stored, who
    was rejected and what went wrong go to standard error.

    Fields of the layout: {sop_instance_uid}, which must be there,
    {sop_class_uid}, {transfer_syntax_uid}, {calling_ae_title},
    {called_ae_title}, {study_instance_uid}, {series_instance_uid},
    {patient_id}, {modality}, {study_date} and {accession_number}. An
    example: {study_instance_uid}/{series_instance_uid}/{sop_instance_uid}.dcm

    Each line of the report has time, path, sop_class_uid, sop_instance_uid,
    transfer_syntax_uid, outcome (stored, kept, refused, incomplete or
    in_doubt), status, bytes, calling_ae_title, host and comment. A report
    that is there already goes on: lines are only ever added to it.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP end it: the first lets nobody in any
    more, and objects that are coming in have 5 seconds to end; the second cuts
    them off.

    Exit codes: 0 stopped, and no object was cut off by that (with --once: the
    association was released, and all of its objects were stored); 1 not so
    with --once, or the report is incomplete; 2 usage, or the folder, the
    address or the TLS files cannot be used; 75 the port is in use; 129, 130
    and 143 SIGHUP, SIGINT and SIGTERM cut objects off, or came before it
    listened.
    """
    from .filing import Filing
    from .receive import run_receive
    from .reception import Reception

    _imported()
    reception = Reception.of(
        bind,
        port,
        title=ae,
        calling=calling,
        max_pdu=max_pdu,
        window=window,
        associations=1 if once else associations,
        per_host=1 if once else per_host,
        timeout=timeout,
        security=security,
    )
    filing = Filing.of(output, layout, duplicates, sync=not no_fsync, max_object_size=max_object_size)
    return run_receive(reception, filing, accept_private=accept_private, once=once, report_path=report, quiet=quiet)


@app.command
def report(
    ledger: Ledger,
    /,
    *,
    json: AsJSON = False,
    csv: AsCSV = False,
    failed: Failed = False,
) -> int:
    """Say what became of the inputs of a ledger, which send --ledger writes.

    Prints how many inputs came to which outcome, how much was stored, in how
    many attempts and how fast; each run; what failed, by reason, with the
    first few names; and the rates of the last run as a small chart. That
    works while a run is writing, too, and after one that was killed: what it
    had begun and not settled is in doubt, for the peer may have it.

    With --failed there is a line for each input that the peer does not have
    from us: "outcome: name: reason". With --json or --csv, --failed leaves
    the others out.

    Each input of --json, and each row of --csv, has the fields of a line of
    send's report, and then retry (when it may be sent again), was_in_doubt,
    run, begun and settled (UTC), size and mtime_ns (of the file).

    What is left to do, as a table: trio-dicom report run.db --failed --csv

    Exit codes are those of send, had it been one run: 0 every input was
    stored; 1 some were not, for good; 65 no input is a DICOM object; 69 the
    peer refused for good; 75 trying again may help. 2 usage, or the file is
    no ledger, or one that cannot be read.
    """
    from .ledger_report import run_report

    _imported()
    return run_report(ledger, as_json=json, as_csv=csv, failed=failed)
