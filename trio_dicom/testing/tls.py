"""TLS contexts for both sides, with certificates made for the occasion: right ones, and each wrong in one way.

Needs `trustme`, of the extra `testing`.
"""

from __future__ import annotations

import datetime
import enum
import ssl

import attrs


class TLSFault(enum.Enum):
    """What is wrong with the certificates, so that the handshake fails."""

    WRONG_HOST = "wrong host"  #: the server's certificate is another host's
    EXPIRED = "expired"  #: the server's certificate was good until 2001
    OTHER_AUTHORITY = "other authority"  #: the client trusts an authority that is not the server's
    NO_CLIENT_CERTIFICATE = "no client certificate"  #: the server asks for one, and the client has none
    OTHER_CLIENT_AUTHORITY = "other client authority"  #: the client's is of an authority that the server does not trust


@attrs.frozen
class TLSContexts:
    """A context for each side, TLS 1.2 and later; and in PEM, for what reads files, the certificates behind them.

    `authority_pem` is what the client trusts; the two certificates have their keys with them.
    """

    client: ssl.SSLContext
    server: ssl.SSLContext
    authority_pem: bytes = attrs.field(repr=False)
    server_certificate_pem: bytes = attrs.field(repr=False)
    server_key_pem: bytes = attrs.field(repr=False)
    client_certificate_pem: bytes = attrs.field(repr=False)
    client_key_pem: bytes = attrs.field(repr=False)


def tls_contexts(
    host: str = "127.0.0.1", *, client_certificate: bool = False, fault: TLSFault | None = None
) -> TLSContexts:
    """Contexts with which a client that connects to `host` and a server do trust each other, unless there is a `fault`.

    The client trusts the server's authority and no other. With `client_certificate`, the server asks for one and the
    client has it. Raises `ImportError` without trustme.
    """
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert(
        "elsewhere.invalid" if fault is TLSFault.WRONG_HOST else host,
        not_after=datetime.datetime(2001, 1, 1) if fault is TLSFault.EXPIRED else None,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.configure_cert(server)
    asks = client_certificate or fault in (TLSFault.NO_CLIENT_CERTIFICATE, TLSFault.OTHER_CLIENT_AUTHORITY)
    if asks:
        authority.configure_trust(server)
        server.verify_mode = ssl.CERT_REQUIRED

    trusted = trustme.CA() if fault is TLSFault.OTHER_AUTHORITY else authority
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    trusted.configure_trust(client)
    issuer = trustme.CA() if fault is TLSFault.OTHER_CLIENT_AUTHORITY else authority
    identity = issuer.issue_cert("client@example.org")
    if asks and fault is not TLSFault.NO_CLIENT_CERTIFICATE:
        identity.configure_cert(client)

    return TLSContexts(
        client,
        server,
        trusted.cert_pem.bytes(),
        certificate.cert_chain_pems[0].bytes(),
        certificate.private_key_pem.bytes(),
        identity.cert_chain_pems[0].bytes(),
        identity.private_key_pem.bytes(),
    )
