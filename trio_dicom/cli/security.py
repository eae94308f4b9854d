"""The options by which connections are secured, of those who connect and of those who are connected to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

TLS = Group("TLS")
USER = Group("User identity")

Profile = Annotated[
    Literal["bcp-195", "modified-bcp-195"],
    Parameter(group=TLS, help="profile of PS3.15: B.12, or B.13; for peers of our own time they make no difference"),
]
Cert = Annotated[Path | None, Parameter(group=TLS, help="PEM file of our own certificate")]
Key = Annotated[Path | None, Parameter(group=TLS, help="PEM file of its private key, if not in the certificate's file")]
KeyPasswordFile = Annotated[
    Path | None,
    Parameter(
        group=TLS,
        help="file with the password of an encrypted private key; else it is the variable TRIO_DICOM_KEY_PASSWORD",
    ),
]
CRL = Annotated[
    Path | None,
    Parameter(group=TLS, help="PEM file of certificate revocation lists, one of each authority, and current"),
]


def _fingerprint(kind: object, value: tuple[str, ...]) -> None:
    from ..tls import fingerprint_of

    for text in value:
        fingerprint_of(text)


def _certified(kind: object, value: tuple[str, ...]) -> None:
    from ..peer import check_ae_title

    for text in value:
        name, sign, title = text.rpartition("=")
        if not (name and sign):
            raise ValueError(f"{text} is not NAME=AET.")
        check_ae_title(title)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClientSecurity:
    """Of who connects."""

    tls: Annotated[
        bool, Parameter(group=TLS, negative="", help="connect with TLS; the peer's certificate is checked")
    ] = False
    ca: Annotated[
        Path | None,
        Parameter(group=TLS, help="PEM file, or folder of such, of the authorities to trust, in place of the system's"),
    ] = None
    cert: Cert = None
    key: Key = None
    key_password_file: KeyPasswordFile = None
    server_name: Annotated[
        str | None, Parameter(group=TLS, help="name in the peer's certificate, if it is not the host that is called")
    ] = None
    pin: Annotated[
        tuple[str, ...],
        Parameter(
            group=TLS,
            negative="",
            show_default=False,
            validator=_fingerprint,
            help="SHA-256 fingerprint of the peer's certificate, in place of the check of its name and, without --ca, "
            "of its authority and dates; repeat it for others",
        ),
    ] = ()
    crl: CRL = None
    tls_profile: Profile = "bcp-195"
    dangerous_no_verification: Annotated[
        bool,
        Parameter(group=TLS, negative="", help="take any certificate: anybody may be the peer; warns each time"),
    ] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who we are."""

    user: Annotated[
        str | None, Parameter(group=USER, help="user name; a passcode is in --passcode-file, or TRIO_DICOM_PASSCODE")
    ] = None
    passcode_file: Annotated[
        Path | None,
        Parameter(group=USER, help="file with the passcode of --user; else it is the variable TRIO_DICOM_PASSCODE"),
    ] = None
    token_type: Annotated[
        Literal["kerberos", "saml", "jwt"] | None, Parameter(group=USER, help="send a token, which is of this type")
    ] = None
    token_file: Annotated[
        Path | None, Parameter(group=USER, help="file with the token; else it is the variable TRIO_DICOM_TOKEN")
    ] = None
    confirm_identity: Annotated[
        bool, Parameter(group=USER, negative="", help="abort unless the peer confirms the identity")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerSecurity:
    """Of who is connected to."""

    tls: Annotated[bool, Parameter(group=TLS, negative="", help="TLS 1.2 or later, and nothing else")] = False
    ca: Annotated[
        Path | None,
        Parameter(
            group=TLS, help="PEM file, or folder of such, of authorities: a peer must have a certificate of one of them"
        ),
    ] = None
    cert: Cert = None
    key: Key = None
    key_password_file: KeyPasswordFile = None
    crl: CRL = None
    certified: Annotated[
        tuple[str, ...],
        Parameter(
            group=TLS,
            negative="",
            show_default=False,
            validator=_certified,
            help="NAME=AET: a certificate with this name, or SHA-256 fingerprint, may call by this AE title; repeat it "
            "for others, and nobody else may call",
        ),
    ] = ()
    tls_profile: Profile = "bcp-195"
