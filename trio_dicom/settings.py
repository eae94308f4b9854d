"""What an association is asked to be: deadlines, limits and the proposal, with safe defaults."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import attrs

from .peer import check_ae_title
from .secret import Secret
from .uids import is_valid_uid

Value = TypeVar("Value")


def _seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{attribute.name} must be a number of seconds above 0 (math.inf for none), not {value!r}")


def _finite_seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    _seconds(instance, attribute, value)
    if value == math.inf:
        raise ValueError(f"{attribute.name} must be finite: it bounds the clean-up")


def _at_least(least: int, most: int | None = None) -> Callable[[object, attrs.Attribute[int], int], None]:
    def check(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"{least} to {most}"
            raise ValueError(f"{attribute.name} must be a whole number, {bounds}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Timeouts:
    """Deadlines in seconds; `math.inf` switches one off. Each is absolute: a dripping peer does not extend it."""

    connect: float = attrs.field(default=10.0, validator=_seconds)  #: name look-up and TCP, all addresses together
    tls_handshake: float = attrs.field(default=10.0, validator=_seconds)
    association: float = attrs.field(default=30.0, validator=_seconds)  #: A-ASSOCIATE-RQ to its answer
    response: float = attrs.field(default=30.0, validator=_seconds)  #: an echo without a timeout of its own
    pdu: float = attrs.field(default=30.0, validator=_seconds)  #: first to last byte of a PDU that is coming in
    release: float = attrs.field(default=10.0, validator=_seconds)  #: operations in flight, then A-RELEASE
    artim: float = attrs.field(default=10.0, validator=_seconds)  #: acceptor: connection to A-ASSOCIATE-RQ
    idle: float = attrs.field(default=60.0, validator=_seconds)  #: acceptor: from one message to the next
    handler: float = attrs.field(default=60.0, validator=_seconds)  #: acceptor: a service's work without progress
    abort_grace: float = attrs.field(default=1.0, validator=_finite_seconds)  #: the PDUs in hand
    abort_linger: float = attrs.field(default=1.0, validator=_finite_seconds)  #: A-ABORT to the close of the transport


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on what a peer may make this side hold in memory; each is checked before anything is allocated."""

    pdu_length: int = attrs.field(default=1 << 20, validator=_at_least(4096))  #: any PDU, from its 6-byte header
    user_items: int = attrs.field(default=256, validator=_at_least(1))
    transfer_syntaxes: int = attrs.field(default=128, validator=_at_least(1))  #: in one presentation context
    pdvs: int = attrs.field(default=1024, validator=_at_least(2))  #: in one PDU
    command_set: int = attrs.field(default=16 << 10, validator=_at_least(256))  #: bytes
    command_fragments: int = attrs.field(default=256, validator=_at_least(1))
    empty_pdvs: int = attrs.field(default=64, validator=_at_least(0))  #: in a row
    response_data_set: int = attrs.field(default=1 << 20, validator=_at_least(0))  #: bytes discarded after a response
    operations_window: int = attrs.field(default=64, validator=_at_least(1))  #: our cap where the peer's is unlimited
    minimum_rate: int = attrs.field(default=1024, validator=_at_least(0))  #: bytes/s of a message that comes, over 60 s


@attrs.frozen(kw_only=True)
class Role:
    """The roles proposed for an abstract syntax (PS3.7 D.3.3.4)."""

    scu: bool = True
    scp: bool = False


class UserIdentityType(enum.IntEnum):
    """PS3.7 table D.3-14."""

    USERNAME = 1
    USERNAME_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


MOST_IDENTITY = 65_000  # bytes; with what else the user information has in it, 65,535


def _secret(value: str | bytes | Secret) -> Secret:
    return Secret(value.encode() if isinstance(value, str) else value)


@attrs.frozen(kw_only=True)
class UserIdentity:
    """Who the requestor is (PS3.7 D.3.3.7): `UserIdentity.user("alice", passcode)`, or `UserIdentity.token(...)`.

    `primary` and `secondary` are secrets, which show nowhere. Text is given in UTF-8. Raises `ValueError` if there is
    nothing in `primary`, or more than 65,000 bytes in both: an association request has no room for it.
    """

    type: UserIdentityType = attrs.field(converter=UserIdentityType)
    primary: Secret = attrs.field(converter=_secret)
    secondary: Secret = attrs.field(default=Secret(b""), converter=_secret)
    positive_response: bool = False  #: ask the peer to confirm; without its confirmation the association is aborted

    @secondary.validator
    def _fits(self, attribute: attrs.Attribute[Secret], value: Secret) -> None:
        if not self.primary:
            raise ValueError("there is nothing in primary")
        size = len(self.primary.reveal()) + len(value.reveal())
        if size > MOST_IDENTITY:
            raise ValueError(f"an identity of {size} bytes, where {MOST_IDENTITY} are the most that can be sent")
        if value and self.type is not UserIdentityType.USERNAME_PASSCODE:
            raise ValueError(f"{self.type.name} has no secondary field: that is for a passcode")

    @classmethod
    def user(
        cls, name: str, passcode: str | bytes | Secret | None = None, *, positive_response: bool = False
    ) -> UserIdentity:
        """A user name, and a passcode if there is one."""
        kind = UserIdentityType.USERNAME if passcode is None else UserIdentityType.USERNAME_PASSCODE
        return cls(type=kind, primary=name, secondary=passcode or b"", positive_response=positive_response)

    @classmethod
    def token(
        cls, type: UserIdentityType, token: str | bytes | Secret, *, positive_response: bool = False
    ) -> UserIdentity:
        """A Kerberos service ticket, a SAML assertion or a JSON web token."""
        if type in (UserIdentityType.USERNAME, UserIdentityType.USERNAME_PASSCODE):
            raise ValueError(f"{UserIdentityType(type).name} is no token: see UserIdentity.user")
        return cls(type=type, primary=token, positive_response=positive_response)


def _uids(instance: object, attribute: attrs.Attribute[Mapping[str, Value]], value: Mapping[str, Value]) -> None:
    for uid in value:
        if not is_valid_uid(uid):
            raise ValueError(f"{attribute.name}: not a UID: {uid!r}")


@attrs.frozen(kw_only=True)
class AssociationSettings:
    """How associations are proposed and kept.

    `calling_ae_title` is our own. `max_pdu_length` (bytes, 4,096 to 1,048,576) is what we tell the peer that it may
    send to us. `send_pdu_length` caps what we send where the peer's own maximum is larger or unlimited.
    `operations_window` proposes how many requests may wait for their responses together (PS3.7 D.3.3.3): 1 is the
    standard's default, 0 asks for no limit. `roles` and `extended_negotiation` are by SOP class UID.
    """

    calling_ae_title: str = attrs.field(default="TRIO_DICOM", converter=check_ae_title)
    max_pdu_length: int = attrs.field(default=131_072, validator=_at_least(4096, 1 << 20))
    send_pdu_length: int = attrs.field(default=131_072, validator=_at_least(8, 1 << 20))
    operations_window: int = attrs.field(default=1, validator=_at_least(0, 65_535))
    roles: Mapping[str, Role] = attrs.field(factory=dict, validator=_uids)
    extended_negotiation: Mapping[str, bytes] = attrs.field(factory=dict, validator=_uids, repr=False)
    user_identity: UserIdentity | None = None
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    limits: Limits = attrs.field(factory=Limits)

    def __attrs_post_init__(self) -> None:
        if self.max_pdu_length > self.limits.pdu_length:
            raise ValueError(
                f"max_pdu_length of {self.max_pdu_length} is more than limits.pdu_length, {self.limits.pdu_length}: "
                "what the peer is told that it may send would be refused"
            )
