"""Connection: the options by which every command reaches its peer."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import attrs

from ..errors import ConnectionLost, TLSError, TrioDicomError
from ..peer import Peer
from ..settings import AssociationSettings, Timeouts
from .exit_codes import ExitCode


def usage_error(text: str) -> SystemExit:
    """To be raised when the command line cannot be carried out: prints `text`, exits with 2."""
    print(f"trio-dicom: {text}", file=sys.stderr)
    return SystemExit(ExitCode.USAGE)


@attrs.frozen
class Connection:
    """A peer, how to associate with it, and how to secure that."""

    peer: Peer
    settings: AssociationSettings
    timeout: float
    tls: ssl.SSLContext | None = None
    has_certificate: bool = False

    def explain(self, error: TrioDicomError) -> str:
        """What to say of an association that did not come about."""
        if self.tls is None or self.has_certificate:
            return str(error)
        is_likely = isinstance(error, TLSError) and ("certificate of ours" in error.reason or "ALERT" in error.reason)
        if is_likely or isinstance(error, ConnectionLost):  # in TLS 1.3, a server looks at it after the handshake
            return f"{error}; a peer that asks for a certificate needs --cert"
        return str(error)

    @classmethod
    def of(
        cls,
        peer: Peer,
        calling: str,
        timeout: float,
        max_pdu: int = 131_072,
        *,
        association_timeout: float | None = None,
        tls: bool,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
    ) -> Connection:
        """From the options as they were given; exits with 2 where they make no sense together.

        `association_timeout` is for the answer to an association request; `timeout`, if None.
        """
        if not tls and (ca or cert or key):
            raise usage_error("--ca, --cert and --key need --tls")
        settings = AssociationSettings(
            calling_ae_title=calling,
            max_pdu_length=max_pdu,
            send_pdu_length=max_pdu,
            timeouts=Timeouts(
                connect=min(timeout, 10.0),
                tls_handshake=min(timeout, 10.0),
                association=association_timeout or timeout,
                response=timeout,
            ),
        )
        if key and not cert:
            raise usage_error("--key needs --cert")
        context = tls_context(ssl.Purpose.SERVER_AUTH, ca, cert, key) if tls else None
        return cls(peer, settings, timeout, context, cert is not None)


def tls_context(purpose: ssl.Purpose, ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later, with these files; exits with 2, and tells which, if one cannot be used."""
    for option, path in (("--ca", ca), ("--cert", cert), ("--key", key)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise _unusable(option, path, error.strerror or str(error)) from None
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
    except ssl.SSLError:
        raise _unusable("--ca", ca, _NO_CERTIFICATE) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise _unusable(*_culprit(cert, key, error)) from None
    return context


_NO_CERTIFICATE = "there is no certificate in it, in PEM"


def _unusable(option: str, path: Path | None, why: str) -> SystemExit:
    return usage_error(f"the TLS files cannot be used: {option} {path}: {why}")


def _culprit(cert: Path, key: Path | None, error: ssl.SSLError) -> tuple[str, Path, str]:
    """Option, path, and what is wrong there."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except ssl.SSLError:
        return "--cert", cert, _NO_CERTIFICATE
    if key is None:
        return "--cert", cert, "there is no private key in it that can be used: --key names the file of one"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "--key", key, f"it is not the private key of --cert {cert}"
    return "--key", key, "there is no private key in it that can be used, in PEM"
