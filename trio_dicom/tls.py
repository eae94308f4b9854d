"""TLS contexts by the profiles of PS3.15 annex B, safe as they come: `client_context` and `server_context`.

    from trio_dicom import open_association, tls

    context = tls.client_context(ca="hospital-ca.pem", certificate="sender.pem")
    async with open_association(peer, contexts, tls=context) as association: ...

Any `ssl.SSLContext` will do for `tls=` of the library; these are for who does not want to know each of its switches.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
import os
import re
import ssl
import stat
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from .errors import TLSFileError

log = logging.getLogger(__name__)

Source = str | os.PathLike[str] | bytes  # of PEM: the path of a file, or what is in it


class TLSProfile(enum.Enum):
    """A secure transport connection profile of PS3.15."""

    BCP_195 = "bcp-195"  #: B.12: BCP 195 as RFC 8996 and 9325 have it
    MODIFIED_BCP_195 = "modified-bcp-195"  #: B.13: also the cipher suites with AES-CCM that it asks for


# Of TLS 1.2; those of TLS 1.3 are OpenSSL's own, all with AEAD and forward secrecy. Level 2 refuses RSA and DH keys
# below 2,048 bits and signatures with SHA-1, in certificates, too. B.13 would also have suites with Camellia-GCM, which
# OpenSSL lacks, and with DHE, where the length of the peer's key can be set, which Python does not let us.
_CIPHERS = {
    TLSProfile.BCP_195: "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2",
    TLSProfile.MODIFIED_BCP_195: "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:@SECLEVEL=2",
}


def client_context(
    *,
    ca: Source | None = None,
    certificate: Source | None = None,
    key: Source | None = None,
    password: str | bytes | None = None,
    crl: Source | None = None,
    pins: Collection[str] = (),
    profile: TLSProfile = TLSProfile.BCP_195,
    dangerous_disable_verification: bool = False,
) -> TLSContext:
    """A context for `open_association`, `open_sender`, `send_file` and `echo`.

    TLS 1.2 or 1.3, cipher suites with forward secrecy and AEAD, no renegotiation, no compression. The peer's
    certificate must be of an authority that is trusted, and be made out to the host.

    - `ca`: the authorities to trust, in place of the system's: a file, or a folder of files. A certificate that is its
      own authority may be among them.
    - `certificate`, `key`: our own, for a peer that asks for one; `key` may be in the file of `certificate`, `password`
      is that of the key.
    - `crl`: a file of certificate revocation lists. All issuers of peers must have one in it, and one that is current.
    - `pins`: SHA-256 fingerprints of the certificates that the peer may have. They replace the check of the host name
      and, without `ca`, of authority and dates: the certificate is known, and that is all.
    - `dangerous_disable_verification`: anybody may be the peer. Each use is logged as a warning.

    Files are PEM; in place of a path, their content may be given as bytes. Raises `TLSFileError` for a file that cannot
    be used, and `ValueError` for arguments that make no sense together.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, profile)
    context.pins = frozenset(map(fingerprint_of, pins))
    if dangerous_disable_verification:
        if ca is not None or crl is not None or pins:
            raise ValueError("dangerous_disable_verification leaves nothing to do for ca, crl and pins")
        context.is_unverified = True
    if crl is not None and pins and ca is None:
        raise ValueError("crl needs ca where there are pins: without it no authority is checked")
    if pins or dangerous_disable_verification:
        context.check_hostname = False
    if ca is not None:
        _trust(context, ca)
    elif context.check_hostname:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.verify_mode = ssl.CERT_NONE
    _revoke(context, crl)
    _identify(context, certificate, key, password)
    return context


def server_context(
    certificate: Source,
    key: Source | None = None,
    *,
    password: str | bytes | None = None,
    ca: Source | None = None,
    crl: Source | None = None,
    profile: TLSProfile = TLSProfile.BCP_195,
) -> TLSContext:
    """A context for `serve_associations`, with the server's `certificate`.

    With `ca`, who connects must have a certificate of one of these authorities, which must not be in `crl`, if that is
    given: see `Admission.certificate_titles` for which AE title it stands for. Otherwise as `client_context`. There
    are no session tickets, and no data before the handshake is done. In TLS 1.2 alone can a client resume a session:
    OpenSSL keeps the last 20,480, of 1 KB each, for two hours at most, and Python has no way to stop that.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, profile)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, ca)
    elif crl is not None:
        raise ValueError("crl needs ca: without it nobody is asked for a certificate")
    _revoke(context, crl)
    _identify(context, certificate, key, password)
    return context


class _Checking:
    """A TLS connection, and what its context asks of the peer's certificate besides."""

    context: ssl.SSLContext

    def do_handshake(self, *args: Any) -> None:
        super().do_handshake(*args)  # type: ignore[misc]
        if isinstance(self.context, TLSContext):
            self.context.check(self.getpeercert(binary_form=True))  # type: ignore[attr-defined]


class _Object(_Checking, ssl.SSLObject):
    pass


class _Socket(_Checking, ssl.SSLSocket):
    pass


class TLSContext(ssl.SSLContext):
    """An `ssl.SSLContext`, and what is asked of the peer's certificate besides, whoever does the handshake."""

    sslobject_class = _Object
    sslsocket_class = _Socket
    pins: frozenset[str] = frozenset()
    is_unverified = False

    def check(self, certificate: bytes | None) -> None:
        """Look at the peer's certificate, in DER, once the handshake is done.

        Raises `ssl.SSLCertVerificationError` if there are pins, and it is none of them.
        """
        if self.is_unverified:
            log.warning(
                "the certificate of a TLS peer is not verified (dangerous_disable_verification): it may be anybody"
            )
        found = hashlib.sha256(certificate or b"").hexdigest()
        if self.pins and found not in self.pins:
            text = f"the certificate is none of those that are pinned: SHA-256 {found}"
            error = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, text)
            error.verify_message = text
            raise error


@attrs.frozen
class PeerCertificate:
    """A certificate that was verified: its `fingerprint`, and the `names` that it is made out to, in lower case.

    What is no text, and what looks like a fingerprint, is no name; where one cannot be decoded, there are none.
    """

    fingerprint: str
    names: frozenset[str]

    @classmethod
    def of(cls, stream: Any) -> PeerCertificate | None:
        """That of the peer of an SSL stream; None if it has none."""
        certificate = stream.getpeercert(binary_form=True)
        if certificate is None:
            return None
        try:
            fields: dict[str, Any] = stream.getpeercert() or {}  # empty if it was not verified
        except (ssl.SSLError, ValueError):  # UnicodeDecodeError among them
            fields = {}
        found = [value for _, value in fields.get("subjectAltName", ())]
        found += [value for part in fields.get("subject", ()) for kind, value in part if kind == "commonName"]
        names = (name.lower() for name in found if isinstance(name, str) and not is_fingerprint(name))
        return cls(hashlib.sha256(certificate).hexdigest(), frozenset(names))


def fingerprint_of(text: str) -> str:
    """`text` as 64 hexadecimal digits in lower case. Raises `ValueError` if it is no SHA-256 fingerprint."""
    if not isinstance(text, str) or not is_fingerprint(text):
        raise ValueError(f"not a SHA-256 fingerprint, which has 64 hexadecimal digits: {text!r}")
    return text.replace(":", "").lower()


def is_fingerprint(text: str) -> bool:
    """Whether it is one, with colons or without."""
    return re.fullmatch(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}", text) is not None


# --- the parts of a context -------------------------------------------------------------------------------------------


def _context(protocol: int, profile: TLSProfile) -> TLSContext:
    context = TLSContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS[TLSProfile(profile)])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _trust(context: TLSContext, ca: Source) -> None:
    if not isinstance(ca, bytes) and os.path.isdir(ca):
        with _failures_of("ca", ca):
            paths: Sequence[Source] = sorted(path for path in Path(ca).iterdir() if path.is_file())
    else:
        paths = [ca]
    for path in paths:
        _load(context, "ca", path)
    if not context.cert_store_stats()["x509"]:
        raise TLSFileError("ca", _shown(ca), "there is no certificate in it, in PEM")


def _revoke(context: TLSContext, crl: Source | None) -> None:
    if crl is None:
        return
    _load(context, "crl", crl)
    if not context.cert_store_stats()["crl"]:
        raise TLSFileError("crl", _shown(crl), "there is no certificate revocation list in it, in PEM")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _load(context: ssl.SSLContext, role: str, source: Source) -> bool:
    """Certificates and revocation lists; False if it holds none."""
    with _as_file(role, source) as path:
        try:
            context.load_verify_locations(path)
        except ssl.SSLError:
            return False
    return True


def _identify(
    context: TLSContext, certificate: Source | None, key: Source | None, password: str | bytes | None
) -> None:
    if certificate is None:
        if key is not None:
            raise ValueError("key needs certificate")
        return
    asked = False

    def ask() -> str | bytes:  # else OpenSSL would ask at the terminal
        nonlocal asked
        asked = True
        return password or b""

    with _as_file("certificate", certificate) as path, _as_file("key", certificate if key is None else key) as key_path:
        try:
            context.load_cert_chain(path, key_path, ask)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None)
        else:
            return
    if not _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "certificate", certificate):
        raise TLSFileError("certificate", _shown(certificate), "there is no certificate in it, in PEM")
    if reason in _WEAK:
        raise TLSFileError("certificate", _shown(certificate), _WEAK[reason])
    if asked:
        trouble = WRONG_PASSWORD if password else ENCRYPTED
    elif reason == "KEY_VALUES_MISMATCH":
        trouble = NOT_ITS_KEY
    else:
        trouble = NO_KEY
    role, source = ("certificate", certificate) if key is None else ("key", key)
    raise TLSFileError(role, _shown(source), trouble)


NO_KEY = "there is no private key in it that can be used, in PEM"
NOT_ITS_KEY = "it is not the private key of the certificate"
ENCRYPTED = "the private key in it is encrypted, and no password is given"
WRONG_PASSWORD = "the password of the private key in it is not the one that is given"
_WEAK = {
    "EE_KEY_TOO_SMALL": "its key is too short: RSA takes 2048 bits, elliptic curves 224",
    "CA_KEY_TOO_SMALL": "the key of one of its authorities is too short: RSA takes 2048 bits, elliptic curves 224",
    "CA_MD_TOO_WEAK": "it is signed with an algorithm that is broken, such as SHA-1",
}


@contextlib.contextmanager
def _failures_of(role: str, source: Source) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TLSFileError(role, _shown(source), error.strerror or type(error).__name__) from None


@contextlib.contextmanager
def _as_file(role: str, source: Source) -> Iterator[str]:
    """The path of a file with what `source` is, which can be read: `ssl` takes nothing else."""
    if not isinstance(source, bytes):
        with _failures_of(role, source):
            if not stat.S_ISFIFO(os.stat(source).st_mode):  # which can be opened but once
                open(source, "rb").close()
        yield os.fspath(source)
    elif hasattr(os, "memfd_create"):  # a private key is not written to a disk
        with os.fdopen(os.memfd_create(role), "wb") as file:
            file.write(source)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory() as folder:  # for its owner only
            path = Path(folder, "pem")
            path.write_bytes(source)
            yield str(path)


def _shown(source: Source) -> str:
    return "(given as bytes)" if isinstance(source, bytes) else os.fspath(source)
