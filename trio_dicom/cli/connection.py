"""Connection: the options by which every command reaches its peer."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import attrs

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

    @classmethod
    def of(
        cls,
        peer: Peer,
        calling: str,
        timeout: float,
        max_pdu: int = 131_072,
        *,
        tls: bool,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
    ) -> Connection:
        """From the options as they were given; exits with 2 where they make no sense together."""
        if not tls and (ca or cert or key):
            raise usage_error("--ca, --cert and --key need --tls")
        settings = AssociationSettings(
            calling_ae_title=calling,
            max_pdu_length=max_pdu,
            send_pdu_length=max_pdu,
            timeouts=Timeouts(
                connect=min(timeout, 10.0), tls_handshake=min(timeout, 10.0), association=timeout, response=timeout
            ),
        )
        return cls(peer, settings, timeout, _context(ca, cert, key) if tls else None)


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    if key and not cert:
        raise usage_error("--key needs --cert")
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise usage_error(f"the TLS files cannot be used: {error}") from None
    return context
