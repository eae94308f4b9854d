"""The TLS options, with certificates made for the occasion."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.command_line import CommandLine
from cli.conftest import Receiver, serving
from cli.receiving import receiving
from support.certificates import authority, certify, revocation_list
from trio_dicom.testing import ScriptedPeer, make_instance_file
from trio_dicom.tls import server_context

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
    assert ended.err.endswith(" (see --tls)\n")


def test_a_plain_peer_that_resets_the_connection(
    command_line: CommandLine, tls_files: dict[str, Path], file: Path
) -> None:
    """As storescp does when it reads a ClientHello: trouble of the network's, for all that we know."""

    def reset(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            connection.recv(1 << 16)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reset, args=(listener,), daemon=True)
        thread.start()
        address = f"PEER@127.0.0.1:{listener.getsockname()[1]}"
        for command in (("echo", address), ("send", address, file)):
            ended = command_line(*command, "--tls", "--ca", tls_files["ca"])
            assert (ended.code, "does the peer speak TLS on this port?" in ended.err) == (75, True), command
        thread.join(5)


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
        ({"cert": "ca"}, "--cert {cert}: there is no private key in it that can be used, in PEM: --key"),
        ({"cert": "server", "key": "ca"}, "--key {key}: there is no private key in it that can be used, in PEM"),
        ({"cert": "server", "key": "client key"}, "--key {key}: it is not the private key of the certificate"),
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


# --- what else may be asked for ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """PEM files by name; "encrypted" has the key of "client", and the password is in "password"."""
    folder = tmp_path_factory.mktemp("own")
    ours = authority()
    client = certify(["ct1.example"], ours)
    contents = {
        "ca": ours.pem,
        "server": certify(["archive.example"], ours).both,
        "client": client.pem,
        "encrypted": client.key_pem(b"pass phrase"),
        "password": b"pass phrase\n",
        "fingerprint": client.fingerprint.encode(),
        "revoked": revocation_list(ours, client),
        "self-signed": SELF.both,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder.joinpath


SELF = certify(["device.example"])


def serving_with(own: Callable[[str], Path], name: str, tmp_path: Path) -> contextlib.AbstractContextManager[str]:
    return serving(Receiver(tmp_path / "received").serve_stream, server_context(own(name)))


def test_a_certificate_that_is_pinned(
    command_line: CommandLine, own: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    with serving_with(own, "self-signed", tmp_path) as address:
        assert command_line("echo", address, "--tls").code == 69
        assert command_line("echo", address, "--tls", "--pin", SELF.fingerprint).code == 0
        assert command_line.send(address, file, "--tls", "--pin", "0" * 64, "--pin", SELF.fingerprint)[0].code == 0
        ended = command_line("echo", address, "--tls", "--pin", "0" * 64)
        assert ended.code == 69
        assert f"none of those that are pinned: SHA-256 {SELF.fingerprint}" in ended.err


def test_a_certificate_with_another_name(
    command_line: CommandLine, own: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    options = ("--tls", "--ca", own("ca"))
    with serving_with(own, "server", tmp_path) as address:
        assert command_line("echo", address, *options).code == 69
        for command in (("echo", address), ("send", address, file)):
            assert command_line(*command, *options, "--server-name", "archive.example").code == 0
            assert command_line(*command, *options, "--server-name", "other.example").code == 69


def test_no_verification_is_dangerous(
    command_line: CommandLine, own: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    with serving_with(own, "self-signed", tmp_path) as address:
        for command in (("echo", address), ("send", address, file)):
            ended = command_line(*command, "--tls", "--dangerous-no-verification")
            assert ended.code == 0
            assert "the certificate of a TLS peer is not verified" in ended.err


def test_a_receiver_that_knows_who_calls(
    command_line: CommandLine, own: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    receiving_tls = ("--tls", "--cert", own("server"), "--ca", own("ca"))
    certified = ("--certified", "ct1.example=CT1", "--certified", f"{own('fingerprint').read_text()}=CT2")
    tls = ("--tls", "--ca", own("ca"), "--server-name", "archive.example", "--cert", own("client"))
    tls += ("--key", own("encrypted"), "--key-password-file", own("password"))
    with receiving(tmp_path / "in", *receiving_tls, *certified) as receiver:
        assert receiver.title == "ANY"  # who may call says nothing of how we are called
    with receiving(tmp_path / "in", *receiving_tls, *certified, "--ae", "STORE") as receiver:
        assert receiver.title == "STORE"
        for title, code in (("CT1", 0), ("CT2", 0), ("CT3", 69)):
            assert command_line("echo", receiver.address, "--calling", title, *tls).code == code, title
    with receiving(tmp_path / "in", *receiving_tls, "--crl", own("revoked")) as receiver:
        assert command_line("echo", receiver.address, *tls).code in (69, 75)


def test_the_password_of_a_key(
    command_line: CommandLine, own: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("echo", "A@127.0.0.1:1", "--tls", "--cert", own("client"), "--key", own("encrypted"))
    ended = command_line(*command)
    assert ended.code == 2
    assert (
        f"--key {own('encrypted')}: the private key in it is encrypted, and no password is given: --key-" in ended.err
    )
    ended = command_line(*command, "--key-password-file", own("ca"))
    assert "the password of the private key in it is not the one that is given" in ended.err
    ended = command_line(*command, "--key-password-file", tmp_path / "none")
    assert (ended.code, ended.err) == (
        2,
        f"trio-dicom: the secret cannot be read: No such file or directory: {tmp_path / 'none'}\n",
    )
    monkeypatch.setenv("TRIO_DICOM_KEY_PASSWORD", "pass phrase")
    assert command_line(*command).code == 75  # nobody is there


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--pin", "00"), "not a SHA-256 fingerprint, which has 64 hexadecimal digits"),
        (("--pin", "0" * 64), "--pin needs --tls"),
        (("--server-name", "x"), "--server-name needs --tls"),
        (("--dangerous-no-verification",), "--dangerous-no-verification needs --tls"),
        (("--tls", "--key", "x"), "--key needs --cert"),
        (
            ("--tls", "--dangerous-no-verification", "--pin", "0" * 64),
            "these TLS options do not go together: dangerous_disable_verification leaves nothing to do",
        ),
        (("--tls", "--tls-profile", "old"), "--tls-profile"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_do_not_go_together(command_line: CommandLine, options: tuple[str, ...], text: str) -> None:
    ended = command_line("echo", "A@127.0.0.1:1", *options)
    assert ended.code == 2
    assert text in " ".join(ended.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--certified", "x=CT1"), "--certified needs --tls"),
        (("--tls", "--cert", "x", "--certified", "x=CT1"), "--certified needs --ca"),
        (("--certified", "CT1"), "CT1 is not NAME=AET."),
        (("--certified", "x=a title that is too long"), "AE title"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_options_of_a_receiver(command_line: CommandLine, options: tuple[str, ...], text: str) -> None:
    ended = command_line("receive", "--output", "/missing/folder", *options)
    assert ended.code == 2
    assert text in " ".join(ended.err.replace("│", " ").split())
