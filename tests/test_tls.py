"""trio_dicom.tls: what its contexts are set to, and what it says of files that cannot be used."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from support.certificates import authority, certify, revocation_list, rsa_key
from trio_dicom import Admission, StorageSCP, TLSFileError, TLSProfile, serve_associations, tls
from trio_dicom.errors import Retry
from trio_dicom.tls import client_context, server_context

OURS = authority()
SERVER = certify(["archive.example"], OURS)
PROFILES = list(TLSProfile)


def both(profile: TLSProfile) -> list[ssl.SSLContext]:
    return [client_context(ca=OURS.pem, profile=profile), server_context(SERVER.both, profile=profile)]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda each: each.value)
def test_what_both_sides_are_set_to(profile: TLSProfile) -> None:
    for context in both(profile):
        assert isinstance(context, ssl.SSLContext)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.maximum_version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.MAXIMUM_SUPPORTED)
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.security_level == 2
        for cipher in context.get_ciphers():
            assert cipher["aead"], cipher["name"]
            assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-"), cipher["name"]
            assert cipher["strength_bits"] >= 128
        assert context.get_ciphers()[0]["protocol"] == "TLSv1.3"


def test_the_modified_profile_adds_what_it_asks_for() -> None:
    (ours, _), (modified, _) = both(TLSProfile.BCP_195), both(TLSProfile.MODIFIED_BCP_195)
    names = [{each["name"] for each in context.get_ciphers()} for context in (ours, modified)]
    assert names[1] - names[0] == {f"ECDHE-ECDSA-AES{size}-CCM{short}" for size in (128, 256) for short in ("", "8")}
    assert names[0] < names[1]


def test_a_client_verifies() -> None:
    context = client_context(ca=OURS.pem)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}


def test_without_authorities_they_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "system.pem").write_bytes(OURS.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    context = client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] == 1
    assert client_context(ca=certify(["self.example"]).pem).cert_store_stats()["x509"] == 1


def test_pins_take_the_place_of_the_name_and_alone_of_the_authority() -> None:
    alone, besides = client_context(pins=["A" * 64]), client_context(ca=OURS.pem, pins=["AB:" * 31 + "AB"])
    assert (alone.verify_mode, alone.check_hostname, alone.pins) == (ssl.CERT_NONE, False, {"a" * 64})
    assert (besides.verify_mode, besides.check_hostname, besides.pins) == (ssl.CERT_REQUIRED, False, {"ab" * 32})


def test_a_server_asks_for_a_certificate_if_it_knows_of_which_authority() -> None:
    assert server_context(SERVER.both).verify_mode == ssl.CERT_NONE
    asking = server_context(SERVER.both, ca=OURS.pem)
    assert asking.verify_mode == ssl.CERT_REQUIRED
    assert asking.num_tickets == 0
    assert asking.options & ssl.OP_NO_TICKET
    assert asking.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_a_revocation_list_is_looked_at() -> None:
    for context in (
        client_context(ca=OURS.pem, crl=revocation_list(OURS)),
        server_context(SERVER.both, ca=OURS.pem, crl=revocation_list(OURS)),
    ):
        assert context.verify_flags & ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        assert context.cert_store_stats()["crl"] == 1


def test_what_is_dangerous_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    context = client_context(dangerous_disable_verification=True)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    context.check(b"anybody")
    assert [(record.levelname, record.name) for record in caplog.records] == [("WARNING", "trio_dicom.tls")]
    assert "not verified (dangerous_disable_verification)" in caplog.messages[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"key": SERVER.key_pem()}, "key needs certificate"),
        ({"crl": b"", "pins": ["a" * 64]}, "crl needs ca where there are pins"),
        ({"pins": ["a" * 63]}, "64 hexadecimal digits"),
        ({"pins": [b"a" * 64]}, "64 hexadecimal digits"),
        ({"dangerous_disable_verification": True, "ca": OURS.pem}, "leaves nothing to do"),
        ({"dangerous_disable_verification": True, "pins": ["a" * 64]}, "leaves nothing to do"),
        ({"dangerous_disable_verification": True, "crl": b""}, "leaves nothing to do"),
        ({"profile": "b-1"}, "'b-1' is not a valid TLSProfile"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments_that_make_no_sense(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        client_context(**arguments)


def test_a_revocation_list_without_authorities() -> None:
    with pytest.raises(ValueError, match="crl needs ca: without it nobody is asked"):
        server_context(SERVER.both, crl=revocation_list(OURS))


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pem")
    short, old = certify(["short"], OURS, key=rsa_key(1024)), certify(["other"], OURS)
    contents = {
        "ca": OURS.pem,
        "certificate": SERVER.pem,
        "key": SERVER.key_pem(),
        "both": SERVER.both,
        "encrypted": SERVER.key_pem(b"pass phrase"),
        "other-key": old.key_pem(),
        "short": short.both,
        "crl": revocation_list(OURS),
        "empty": b"",
        "der": SERVER.der,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "authorities").mkdir()
    (folder / "authorities" / "README").write_text("They are all here.")
    (folder / "authorities" / "ours.crt").write_bytes(OURS.pem)
    (folder / "authorities" / "theirs.pem").write_bytes(authority("Another").pem)
    return folder


NO_PEM = "there is no certificate in it, in PEM"
TROUBLES = [
    ({"ca": "nowhere"}, "ca", "No such file or directory"),
    ({"ca": "empty"}, "ca", NO_PEM),
    ({"ca": "der"}, "ca", NO_PEM),
    ({"ca": "key"}, "ca", NO_PEM),
    ({"ca": "crl"}, "ca", NO_PEM),
    ({"ca": "folder"}, "ca", NO_PEM),
    ({"crl": "nowhere"}, "crl", "No such file or directory"),
    ({"crl": "ca"}, "crl", "there is no certificate revocation list in it, in PEM"),
    ({"crl": "empty"}, "crl", "there is no certificate revocation list in it, in PEM"),
    ({"crl": "folder"}, "crl", "Is a directory"),
    ({"certificate": "nowhere"}, "certificate", "No such file or directory"),
    ({"certificate": "folder"}, "certificate", "Is a directory"),
    ({"certificate": "empty"}, "certificate", NO_PEM),
    ({"certificate": "key"}, "certificate", NO_PEM),
    ({"certificate": "certificate"}, "certificate", "there is no private key in it that can be used, in PEM"),
    ({"certificate": "short"}, "certificate", "its key is too short: RSA takes 2048 bits, elliptic curves 224"),
    ({"certificate": "certificate", "key": "nowhere"}, "key", "No such file or directory"),
    ({"certificate": "certificate", "key": "empty"}, "key", "there is no private key in it that can be used, in PEM"),
    ({"certificate": "certificate", "key": "ca"}, "key", "there is no private key in it that can be used, in PEM"),
    ({"certificate": "certificate", "key": "other-key"}, "key", "it is not the private key of the certificate"),
    ({"certificate": "certificate", "key": "encrypted"}, "key", "the private key in it is encrypted, and no password"),
    (
        {"certificate": "certificate", "key": "encrypted", "password": "wrong"},
        "key",
        "the password of the private key in it is not the one that is given",
    ),
]  # fmt: skip


@pytest.mark.parametrize("form", ["paths", "bytes"])
@pytest.mark.parametrize(("given", "role", "reason"), TROUBLES, ids=lambda value: str(value)[:60])
def test_files_that_cannot_be_used(files: Path, given: dict[str, str], role: str, reason: str, form: str) -> None:
    paths = {name: value if name == "password" else files / value for name, value in given.items()}
    if form == "bytes":
        if not all(path.is_file() for path in paths.values() if isinstance(path, Path)):
            return
        paths = {name: path.read_bytes() if isinstance(path, Path) else path for name, path in paths.items()}
    arguments = {"ca": files / "ca"} | paths if "crl" in given else paths
    with pytest.raises(TLSFileError) as caught:
        client_context(**arguments)
    error = caught.value
    assert (error.role, error.retry) == (role, Retry.AFTER_CONFIG)
    assert error.reason.startswith(reason)
    shown = "(given as bytes)" if form == "bytes" else str(paths[role])
    assert str(error) == f"{role} {shown}: {error.reason}"
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_file_that_may_not_be_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:  # root may read all files
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(tls, "open", refuse, raising=False)
    with pytest.raises(TLSFileError, match="certificate: Permission denied"):
        client_context(certificate=files / "certificate")


@pytest.mark.parametrize(
    ("certificate", "key", "password"),
    [
        ("both", None, None),
        ("certificate", "key", None),
        ("certificate", "encrypted", "pass phrase"),
        ("certificate", "encrypted", b"pass phrase"),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["paths", "bytes", "no memfd"])
def test_files_that_can_be_used(
    files: Path, certificate: str, key: str | None, password: str | None, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "no memfd":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    sources = [files / certificate, None if key is None else files / key]
    if form != "paths":
        sources = [None if path is None else path.read_bytes() for path in sources]
    assert isinstance(server_context(*sources, password=password), tls.TLSContext)
    assert isinstance(client_context(certificate=sources[0], key=sources[1], password=password), tls.TLSContext)


def test_a_folder_of_authorities(files: Path) -> None:
    assert client_context(ca=files / "authorities").cert_store_stats()["x509_ca"] == 2
    assert server_context(SERVER.both, ca=str(files / "authorities")).cert_store_stats()["x509_ca"] == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_key_from_a_pipe(files: Path, tmp_path: Path) -> None:
    """As `--key <(pass show key)` has it: it can be opened once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(SERVER.key_pem(),), daemon=True)
    writer.start()
    assert isinstance(server_context(files / "certificate", pipe), tls.TLSContext)
    writer.join(5)


# --- whose certificate ------------------------------------------------------------------------------------------------


def test_fingerprints() -> None:
    colons = ":".join(SERVER.fingerprint[at : at + 2] for at in range(0, 64, 2)).upper()
    assert tls.fingerprint_of(colons) == tls.fingerprint_of(SERVER.fingerprint) == SERVER.fingerprint
    assert not tls.is_fingerprint("ct1.example")
    context = client_context(pins=[colons])
    context.check(SERVER.der)
    for other in (b"x", None):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"none of those that are pinned: SHA-256 [0-9a-f]{64}"):
            context.check(other)


PINNED = pytest.mark.parametrize(
    ("pin", "is_known"), [(SERVER.fingerprint, True), ("a" * 64, False)], ids=["known", "another"]
)


@PINNED
async def test_pins_count_in_a_tls_stream_of_ones_own(pin: str, is_known: bool) -> None:
    """Without them there would be nothing left that is checked."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = trio.SSLStream(ours, client_context(pins=[pin]))
    server = trio.SSLStream(theirs, server_context(SERVER.both), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        if is_known:
            await client.do_handshake()
        else:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await client.do_handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
            nursery.cancel_scope.cancel()


@PINNED
def test_pins_count_in_a_socket(pin: str, is_known: bool) -> None:
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=shake_hands, args=(theirs,))
    server.start()
    with ours:
        if is_known:
            client_context(pins=[pin]).wrap_socket(ours).close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="none of those that are pinned"):
                client_context(pins=[pin]).wrap_socket(ours)
    server.join()


def shake_hands(plain: socket.socket) -> None:
    with plain, contextlib.suppress(OSError):
        server_context(SERVER.both).wrap_socket(plain, server_side=True).close()


def test_titles_by_certificate_are_checked_when_they_are_given() -> None:
    titles = Admission(certificate_titles={"CT1.Example": "CT1", "AA:" * 31 + "AA": ["MR1 ", "MR2"]}).certificate_titles
    assert titles == {"ct1.example": {"CT1"}, "aa" * 32: {"MR1", "MR2"}}
    with pytest.raises(ValueError, match="AE title"):
        Admission(certificate_titles={"ct1.example": "far too long a title"})


@pytest.mark.parametrize("context", [None, server_context(SERVER.both)], ids=["plain", "asks for none"])
async def test_titles_by_certificate_need_certificates(context: ssl.SSLContext | None) -> None:
    admission = Admission(certificate_titles={"ct1.example": "CT1"})
    with pytest.raises(ValueError, match="asks for certificates: give it a ca"):
        await serve_associations(StorageSCP(lambda instance: None), 0, tls=context, admission=admission)
