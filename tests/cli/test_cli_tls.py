"""The TLS options, with certificates made for the occasion."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trustme

from cli.command_line import CommandLine
from cli.conftest import serving
from support.scripted import ScriptedPeer, make_data_set_file
from trio_dicom.cli.receiver import Receiver

Scripted = Callable[..., str]


@attrs.frozen
class Certificates:
    """The PEM files of an authority that the peer's certificate is from, and of one that is not."""

    ca: Path
    other_ca: Path
    cert: Path
    key: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    ours = authority.issue_cert("client@example.org")
    ours.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    ours.private_key_pem.write_to_path(str(folder / "key.pem"))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    paths = (folder / name for name in ("ca.pem", "other.pem", "cert.pem", "key.pem"))
    return Certificates(*paths, server)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object.dcm"
    path.write_bytes(make_data_set_file(1 << 20))
    return path


def test_sent_over_tls(command_line: CommandLine, certificates: Certificates, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    peer = Receiver(folder)
    with serving(peer.serve_stream, certificates.server) as address:
        ended, report = command_line.send(address, file, "--tls", "--ca", certificates.ca)
        assert (ended.code, report[0]["outcome"]) == (0, "stored")
        assert command_line("echo", address, "--tls", "--ca", certificates.ca).code == 0
    (stored,) = peer.stored
    assert file.read_bytes().endswith(stored.path.read_bytes()[stored.data_set_offset :])


def test_an_authority_that_is_not_trusted(
    command_line: CommandLine, scripted_peer: Scripted, certificates: Certificates, file: Path
) -> None:
    heard = bytearray()

    async def script(peer: ScriptedPeer) -> None:
        peer.received = heard
        await peer.receive_pdu()

    address = scripted_peer(script, tls=certificates.server)
    for options in (("--ca", certificates.other_ca), ()):
        ended, report = command_line.send(address, file, "--tls", *options)
        assert (ended.code, report[0]["outcome"]) == (69, "not_sent")
        assert "TLS handshake" in report[0]["reason"]
        assert "certificate" in report[0]["reason"]
    assert heard == b""


def test_plain_and_tls_do_not_mix(
    command_line: CommandLine, scripted_peer: Scripted, certificates: Certificates, file: Path
) -> None:
    async def plain(peer: ScriptedPeer) -> None:
        await peer.accept()

    ended, report = command_line.send(scripted_peer(plain), file, "--tls", "--ca", certificates.ca)
    assert (ended.code, report[0]["outcome"]) in ((69, "not_sent"), (75, "not_sent"))
    ended, report = command_line.send(scripted_peer(plain, tls=certificates.server), file)
    assert report[0]["outcome"] == "not_sent"
    assert ended.code in (69, 75)


def test_a_client_certificate(
    command_line: CommandLine, certificates: Certificates, file: Path, tmp_path: Path
) -> None:
    certificates.server.verify_mode = ssl.CERT_REQUIRED
    try:
        with serving(Receiver(tmp_path).serve_stream, certificates.server) as address:
            tls = ("--tls", "--ca", certificates.ca)
            ended, _ = command_line.send(address, file, *tls, "--cert", certificates.cert, "--key", certificates.key)
            assert ended.code == 0
            ended, report = command_line.send(address, file, *tls)
            assert report[0]["outcome"] == "not_sent"
            assert ended.code in (69, 75)
    finally:
        certificates.server.verify_mode = ssl.CERT_NONE


def test_files_that_are_no_pem(command_line: CommandLine, certificates: Certificates, file: Path) -> None:
    ended = command_line("echo", "PACS@host:104", "--tls", "--ca", certificates.ca, "--cert", file)
    assert ended.code == 2
    assert "TLS files cannot be used" in ended.err
