"""`trio-dicom receive`, how it ends: told by a signal, or after one association. Nothing is ever left half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.command_line import ROOT, CommandLine, finish
from cli.receiving import Caller, Receiving, ended_with_the_test, first_pdus, receiving, store_request
from trio_dicom.protocol.pdu import Abort, ReleaseRP, ReleaseRQ
from trio_dicom.testing import make_instance_file

each = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])

WHOLE = store_request(4 << 20)
PART = first_pdus(WHOLE, 3 << 20)
REST = WHOLE[len(PART) :]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "incoming"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object.dcm"
    path.write_bytes(make_instance_file())
    return path


# --- signals ----------------------------------------------------------------------------------------------------------


@each
def test_with_nothing_under_way_it_ends_at_once(folder: Path, number: int, code: int) -> None:
    with receiving(folder) as receiver:
        caller = Caller(receiver)  # who says nothing does not hold it up
        begin = time.monotonic()
        ended = receiver.stop(number)
        assert time.monotonic() - begin < 4
        assert caller.hear() == Abort(0, 0)
    assert (ended.code, ended.out) == (0, "0 objects\n")


@each
def test_an_object_under_way_may_end(command_line: CommandLine, folder: Path, number: int, code: int) -> None:
    with receiving(folder) as receiver:
        caller = Caller(receiver)
        caller.say(PART)
        receiver.wait_until_arriving()
        receiver.process.send_signal(number)
        assert receiver.err() == "trio-dicom: stopping when 1 object has come, within 5 s"
        assert command_line("echo", receiver.address).code == 75  # nobody else is let in
        caller.say(REST)
        caller.hear()
        assert receiver.out().startswith("stored 2.25.1000.1 ")
        caller.say(*ReleaseRQ().encode())
        assert caller.hear() == ReleaseRP()
        ended = finish(receiver.process)
    assert ended.code == 0
    assert ended.out.startswith("1 object: 1 stored; ")
    assert receiver.files() == ["2.25.1000.1.dcm"]


@each
def test_a_second_signal_cuts_it_off(folder: Path, number: int, code: int) -> None:
    with receiving(folder) as receiver:
        caller = Caller(receiver)
        caller.say(PART)
        receiver.wait_until_arriving()
        receiver.process.send_signal(number)
        assert receiver.err().startswith("trio-dicom: stopping")
        begin = time.monotonic()
        ended = receiver.stop(number)
        assert time.monotonic() - begin < 4
    assert ended.code == code
    assert "incomplete 2.25.1000.1 " in ended.err
    assert "status none: the receiver was stopped" in ended.err
    assert ended.out.startswith("1 object: 1 incomplete; ")
    assert receiver.files() == []


@contextmanager
def altered(folder: Path, alteration: str, *options: str) -> Iterator[Receiving]:
    """A receiver in which something is otherwise."""
    arguments = ["trio-dicom", "receive", "--port", "0", "--output", str(folder), *options]
    program = (
        f"import sys, time\nfrom trio_dicom.cli import main, receive\n{alteration}\nsys.argv = {arguments}\nmain()"
    )
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
    with ended_with_the_test(process, folder) as receiver:
        yield receiver


@each
def test_an_object_under_way_has_not_for_ever(folder: Path, number: int, code: int) -> None:
    with altered(folder, "receive.DRAIN = 0.1") as receiver:
        caller = Caller(receiver)
        caller.say(PART)
        receiver.wait_until_arriving()
        ended = receiver.stop(number)
    assert ended.code == code
    assert "incomplete 2.25.1000.1 " in ended.err
    assert receiver.files() == []


def test_a_disk_that_hangs_does_not_hold_it_up(folder: Path) -> None:
    hang = "receive.DRAIN = 0.1; receive.InstanceFolder._finish = lambda *_: time.sleep(60)"
    with altered(folder, hang) as receiver:
        caller = Caller(receiver)
        caller.say(WHOLE)
        receiver.wait_until_arriving()
        begin = time.monotonic()
        ended = receiver.stop(signal.SIGTERM)
        assert time.monotonic() - begin < 5
    assert ended.code == 143
    assert "in doubt 2.25.1000.1 " in ended.err


@pytest.mark.parametrize(
    ("what", "fate", "comment"), [("time.sleep(5)", "in doubt", "took too long"), ("1 / 0", "refused", "failed")]
)
def test_what_goes_wrong_here_is_answered(folder: Path, what: str, fate: str, comment: str) -> None:
    alteration = f"receive.InstanceFolder._finish = lambda *_: {what}"
    with altered(folder, alteration, "--timeout", "1") as receiver:
        Caller(receiver).say(WHOLE)
        lines = [receiver.err(), receiver.err()]
        told = f" from CALLER status 0110: Processing Failure; the receiver {comment}"
        assert sum(line.startswith(f"{fate} 2.25.1000.1 ") and line.endswith(told) for line in lines) == 1
        assert sum(line.startswith("trio-dicom: ArrivalSCP ") for line in lines) == 1
        receiver.callers[0].hear()
        receiver.callers[0].close()
        ended = receiver.stop()
    assert ended.code == 0
    assert receiver.files() == []


def test_a_signal_before_it_listens(folder: Path) -> None:
    hang = (
        "receive.InstanceFolder.sweep = lambda _: print('listening on nothing:0 as yet', flush=True) or time.sleep(60)"
    )
    with altered(folder, hang) as receiver:
        ended = receiver.stop(signal.SIGTERM)
    assert (ended.code, ended.out, ended.err) == (143, "", "")


# --- once -------------------------------------------------------------------------------------------------------------


def test_once(command_line: CommandLine, folder: Path, file: Path) -> None:
    with receiving(folder, "--once") as receiver:
        assert command_line("send", receiver.address, file).code == 0
        ended = finish(receiver.process)
    assert (ended.code, ended.err) == (0, "")
    assert receiver.files() == ["2.25.1000.1.dcm"]


def test_once_lets_one_in(command_line: CommandLine, folder: Path) -> None:
    with receiving(folder, "--once", "--ae", "STORE") as receiver:
        assert command_line("echo", f"OTHER@127.0.0.1:{receiver.port}").code == 69  # this is none
        receiver.err()
        caller = Caller(receiver)
        assert command_line("echo", receiver.address).code == 75
        caller.say(*ReleaseRQ().encode())
        assert caller.hear() == ReleaseRP()
        assert finish(receiver.process).code == 0


@pytest.mark.parametrize(
    "said",
    [
        [store_request(uid="2.25.7"), *ReleaseRQ().encode()],
        [*Abort(0, 0).encode()],
        [PART],
    ],
    ids=["refused", "aborted", "cut off"],
)
def test_once_that_does_not_end_well(folder: Path, said: list[bytes]) -> None:
    with receiving(folder, "--once") as receiver:
        caller = Caller(receiver)
        caller.say(*said)
        caller.socket.shutdown(1)
        ended = finish(receiver.process)
    assert ended.code == 1
    assert ended.err != ""


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_tls(command_line: CommandLine, folder: Path, file: Path, tls_files: dict[str, Path]) -> None:
    ours = ("--tls", "--cert", tls_files["server"], "--key", tls_files["server key"])
    trusting = ("--tls", "--ca", tls_files["ca"])
    with receiving(folder, *ours) as receiver:
        assert command_line("send", receiver.address, file, *trusting).code == 0
        assert receiver.out().startswith("stored ")
        assert command_line("echo", receiver.address).code in (69, 75)
        assert receiver.err().startswith("trio-dicom: connection from 127.0.0.1: the TLS handshake failed: ")
        assert command_line("echo", receiver.address, *trusting).code == 0
        assert receiver.stop().code == 0


def test_a_client_certificate(command_line: CommandLine, folder: Path, file: Path, tls_files: dict[str, Path]) -> None:
    ours = ("--tls", "--cert", tls_files["server"], "--key", tls_files["server key"], "--ca", tls_files["ca"])
    trusting = ("--tls", "--ca", tls_files["ca"])
    with receiving(folder, *ours) as receiver:
        refused = command_line("send", receiver.address, file, *trusting)
        assert refused.code in (69, 75)
        assert "a peer that asks for a certificate needs --cert" in refused.err
        assert receiver.err().endswith("the TLS handshake failed: the peer sent no certificate")
        other = ("--cert", tls_files["stranger"], "--key", tls_files["stranger key"])
        assert command_line("send", receiver.address, file, *trusting, *other).code in (69, 75)
        assert "certificate" in receiver.err().lower()
        assert receiver.files() == []
        known = ("--cert", tls_files["client"], "--key", tls_files["client key"])
        assert command_line("send", receiver.address, file, *trusting, *known).code == 0
        assert receiver.stop().code == 0
    assert receiver.files() == ["2.25.1000.1.dcm"]


def test_tls_older_than_1_2_is_refused(folder: Path, tls_files: dict[str, Path]) -> None:
    import ssl
    import warnings

    ours = ("--tls", "--cert", tls_files["server"], "--key", tls_files["server key"])
    with receiving(folder, *ours) as receiver:
        client = ssl.create_default_context(cafile=tls_files["ca"])
        client.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
        import socket

        with socket.create_connection(("127.0.0.1", receiver.port), 5) as stream, pytest.raises(ssl.SSLError):
            client.wrap_socket(stream, server_hostname="127.0.0.1")
        assert "TLS handshake" in receiver.err()
