"""The TLS options, with certificates made for the occasion."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.command_line import CommandLine
from cli.conftest import Receiver, serving
from trio_dicom.testing import ScriptedPeer, make_instance_file

Scripted = Callable[..., str]


@pytest.fixture
def server(tls_files: dict[str, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls_files["ca"])
    context.load_cert_chain(tls_files["server"], tls_files["server key"])
    return context


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object.dcm"
    path.write_bytes(make_instance_file(1 << 20))
    return path


def test_sent_over_tls(
    command_line: CommandLine, tls_files: dict[str, Path], server: ssl.SSLContext, file: Path, tmp_path: Path
) -> None:
    peer = Receiver(tmp_path / "received")
    with serving(peer.serve_stream, server) as address:
        ended, report = command_line.send(address, file, "--tls", "--ca", tls_files["ca"])
        assert (ended.code, report[0]["outcome"]) == (0, "stored")
        assert command_line("echo", address, "--tls", "--ca", tls_files["ca"]).code == 0
    (stored,) = peer.stored
    assert file.read_bytes().endswith(stored.path.read_bytes()[stored.data_set_offset :])


def test_an_authority_that_is_not_trusted(
    command_line: CommandLine, scripted_peer: Scripted, tls_files: dict[str, Path], server: ssl.SSLContext, file: Path
) -> None:
    heard = bytearray()

    async def script(peer: ScriptedPeer) -> None:
        peer.received = heard
        await peer.receive_pdu()

    address = scripted_peer(script, tls=server)
    for options in (("--ca", tls_files["other ca"]), ()):
        ended, report = command_line.send(address, file, "--tls", *options)
        assert (ended.code, report[0]["outcome"]) == (69, "not_sent")
        assert "TLS handshake" in report[0]["reason"]
        assert "certificate" in report[0]["reason"]
    assert heard == b""


def test_plain_and_tls_do_not_mix(
    command_line: CommandLine, scripted_peer: Scripted, tls_files: dict[str, Path], server: ssl.SSLContext, file: Path
) -> None:
    async def plain(peer: ScriptedPeer) -> None:
        await peer.accept()

    ended, report = command_line.send(scripted_peer(plain), file, "--tls", "--ca", tls_files["ca"])
    assert (ended.code, report[0]["outcome"]) in ((69, "not_sent"), (75, "not_sent"))
    ended, report = command_line.send(scripted_peer(plain, tls=server), file)
    assert report[0]["outcome"] == "not_sent"
    assert ended.code in (69, 75)


def test_a_client_certificate(
    command_line: CommandLine, tls_files: dict[str, Path], server: ssl.SSLContext, file: Path, tmp_path: Path
) -> None:
    server.verify_mode = ssl.CERT_REQUIRED
    with serving(Receiver(tmp_path).serve_stream, server) as address:
        tls = ("--tls", "--ca", tls_files["ca"])
        ended, _ = command_line.send(
            address, file, *tls, "--cert", tls_files["client"], "--key", tls_files["client key"]
        )
        assert ended.code == 0
        ended, report = command_line.send(address, file, *tls)
        assert report[0]["outcome"] == "not_sent"
        assert ended.code in (69, 75)


def test_a_client_certificate_that_is_asked_for_after_the_handshake(
    command_line: CommandLine, tls_files: dict[str, Path], server: ssl.SSLContext, file: Path
) -> None:
    """In TLS 1.3. A blocking server tells why, in an alert."""
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.verify_mode = ssl.CERT_REQUIRED

    def refuse(listener: socket.socket) -> None:
        for _ in range(2):
            with server.wrap_socket(listener.accept()[0], server_side=True, do_handshake_on_connect=False) as stream:
                with contextlib.suppress(ssl.SSLError):
                    stream.do_handshake()
                while os.read(stream.fileno(), 1 << 16):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,), daemon=True)
        thread.start()
        address = f"PEER@127.0.0.1:{listener.getsockname()[1]}"
        for command in (("echo", address), ("send", address, file)):
            ended = command_line(*command, "--tls", "--ca", tls_files["ca"])
            assert ended.code == 69
            assert "TLSV13_ALERT_CERTIFICATE_REQUIRED; a peer that asks for a certificate needs --cert" in ended.err
        thread.join(5)


def test_files_that_are_no_pem(
    command_line: CommandLine, tls_files: dict[str, Path], server: ssl.SSLContext, file: Path
) -> None:
    ended = command_line("echo", "PACS@host:104", "--tls", "--ca", tls_files["ca"], "--cert", file)
    assert ended.code == 2
    assert f"TLS files cannot be used: --cert {file}: there is no certificate in it" in ended.err


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"ca": "server key"}, "--ca {ca}: there is no certificate in it"),
        ({"cert": "server key"}, "--cert {cert}: there is no certificate in it"),
        ({"cert": "ca"}, "--cert {cert}: there is no private key in it that can be used: --key"),
        ({"cert": "server", "key": "ca"}, "--key {key}: there is no private key in it that can be used, in PEM"),
        ({"cert": "server", "key": "client key"}, "--key {key}: it is not the private key of --cert {cert}"),
        ({"cert": "server", "key": "/missing.pem"}, "--key {key}: No such file or directory"),
    ],
    ids=str,
)
def test_which_file_cannot_be_used(
    command_line: CommandLine, tls_files: dict[str, Path], names: dict[str, str], text: str
) -> None:
    paths = {option: os.fspath(tls_files.get(name, Path(name))) for option, name in names.items()}
    options = [word for option, path in paths.items() for word in (f"--{option}", path)]
    ended = command_line("echo", "PACS@host:104", "--tls", *options)
    assert ended.code == 2
    assert ended.err.startswith(f"trio-dicom: the TLS files cannot be used: {text.format(**paths)}")
    if "cert" in paths:
        ended = command_line("receive", "--output", "/missing/folder", "--tls", *options)
        assert ended.code == 2
        assert ended.err.startswith(f"trio-dicom: the TLS files cannot be used: {text.format(**paths)}")
