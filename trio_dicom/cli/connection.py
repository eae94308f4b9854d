"""Connection: the options by which every command reaches its peer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import attrs

from ..errors import ConnectionLost, TLSError, TLSFileError, TrioDicomError
from ..peer import Peer
from ..settings import AssociationSettings, Timeouts, UserIdentity, UserIdentityType
from ..tls import ENCRYPTED, NO_KEY, TLSContext, TLSProfile, client_context
from .exit_codes import ExitCode
from .security import ClientSecurity, Identity, ServerSecurity


def usage_error(text: str) -> SystemExit:
    """To be raised when the command line cannot be carried out: prints `text`, exits with 2."""
    print(f"trio-dicom: {text}", file=sys.stderr)
    return SystemExit(ExitCode.USAGE)


LONGEST_SECRET = 1 << 16  # bytes; more is no secret but another file

_SIGNS_OF_TLS = ("the peer speaks TLS", "does the peer want TLS on this port?")


@attrs.frozen
class Connection:
    """A peer, how to associate with it, and how to secure that."""

    peer: Peer
    settings: AssociationSettings
    timeout: float
    tls: TLSContext | None = None
    server_hostname: str | None = None
    has_certificate: bool = False

    def explain(self, error: TrioDicomError) -> str:
        """What to say of an association that did not come about."""
        if self.tls is None:
            return f"{error} (see --tls)" if str(error).endswith(_SIGNS_OF_TLS) else str(error)
        if self.has_certificate:
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
        security: ClientSecurity,
        identity: Identity,
        max_pdu: int = 131_072,
        *,
        association_timeout: float | None = None,
    ) -> Connection:
        """From the options as they were given; exits with 2 where they make no sense together.

        `association_timeout` is for the answer to an association request; `timeout`, if None.
        """
        check_together(security)
        settings = AssociationSettings(
            calling_ae_title=calling,
            max_pdu_length=max_pdu,
            send_pdu_length=max_pdu,
            user_identity=user_identity(identity),
            timeouts=Timeouts(
                connect=min(timeout, 10.0),
                tls_handshake=min(timeout, 10.0),
                association=association_timeout or timeout,
                response=timeout,
            ),
        )
        context = None
        if security.tls:
            pins, dangerous = security.pin, security.dangerous_no_verification
            context = tls_context(client_context, security, pins=pins, dangerous_disable_verification=dangerous)
        return cls(peer, settings, timeout, context, security.server_name, security.cert is not None)


def check_together(security: ClientSecurity | ServerSecurity) -> None:
    """Exit with 2 where these options make no sense together."""
    given = {field.name for field in fields(security) if getattr(security, field.name) != field.default}
    if not security.tls and given:
        raise usage_error(f"{_option(min(given))} needs --tls")
    if security.key and not security.cert:
        raise usage_error("--key needs --cert")


def user_identity(given: Identity) -> UserIdentity | None:
    """By these options; exits with 2 where they make no sense together."""
    if given.user is not None and given.token_type is not None:
        raise usage_error("--user and --token-type are two identities")
    if given.passcode_file and given.user is None:
        raise usage_error("--passcode-file needs --user")
    if given.token_file and given.token_type is None:
        raise usage_error("--token-file needs --token-type")
    if given.confirm_identity and given.user is None and given.token_type is None:
        raise usage_error("--confirm-identity needs --user or --token-type")
    try:
        if given.user is not None:
            passcode = secret(given.passcode_file, "TRIO_DICOM_PASSCODE")
            return UserIdentity.user(given.user, passcode, positive_response=given.confirm_identity)
        if given.token_type is not None:
            token, kind = secret(given.token_file, "TRIO_DICOM_TOKEN"), UserIdentityType[given.token_type.upper()]
            if token is None:
                raise usage_error("--token-type needs --token-file, or the variable TRIO_DICOM_TOKEN")
            return UserIdentity.token(kind, token, positive_response=given.confirm_identity)
    except ValueError as error:
        raise usage_error(f"the identity cannot be sent: {error}") from None
    return None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def secret(path: Path | None, variable: str) -> bytes | None:
    """What is in the file, but for the end of its line, or else in this variable of the environment."""
    if path is None:
        return os.fsencode(os.environ[variable]) if variable in os.environ else None
    try:
        with path.open("rb") as file:
            value = file.read(LONGEST_SECRET + 1)
    except OSError as error:
        raise usage_error(f"the secret cannot be read: {error.strerror}: {path}") from None
    if len(value) > LONGEST_SECRET:
        raise usage_error(f"the secret cannot be read: it has more than {LONGEST_SECRET} bytes: {path}")
    return value.removesuffix(b"\n").removesuffix(b"\r")


def tls_context(make: Callable[..., TLSContext], security: ClientSecurity | ServerSecurity, **more: Any) -> TLSContext:
    """What `make` makes of these options; exits with 2, and tells which file, if one cannot be used."""
    try:
        return make(
            ca=security.ca,
            certificate=security.cert,
            key=security.key,
            password=secret(security.key_password_file, "TRIO_DICOM_KEY_PASSWORD"),
            crl=security.crl,
            profile=TLSProfile(security.tls_profile),
            **more,
        )
    except ValueError as error:
        raise usage_error(f"these TLS options do not go together: {error}") from None
    except TLSFileError as error:
        option = "--cert" if error.role == "certificate" else f"--{error.role}"
        advice = _ADVICE.get((option, error.reason)) or _ADVICE.get(error.reason, "")
        raise usage_error(f"the TLS files cannot be used: {option} {error.path}: {error.reason}{advice}") from None


_ADVICE = {
    ("--cert", NO_KEY): ": --key names the file of one",
    ENCRYPTED: ": --key-password-file names the file of one",
}
