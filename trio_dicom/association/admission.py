"""Admission: whom an acceptor lets in, and how many at once. No I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

import attrs

from ..peer import check_ae_title
from ..protocol.negotiation import rejection
from ..protocol.pdu import AssociateRJ, AssociateRQ
from ..protocol.user_information import UserIdentityRQ
from ..tls import PeerCertificate, fingerprint_of, is_fingerprint

CALLING_AE_TITLE_NOT_RECOGNIZED = AssociateRJ(1, 1, 3)
CALLED_AE_TITLE_NOT_RECOGNIZED = AssociateRJ(1, 1, 7)
IDENTITY_REFUSED = AssociateRJ(1, 1, 1)  # PS3.7 D.3.3.7.3 has no reason of its own for it
LOCAL_LIMIT_EXCEEDED = AssociateRJ(2, 3, 2)
TEMPORARY_CONGESTION = AssociateRJ(2, 3, 1)

IdentityCheck = Callable[[UserIdentityRQ | None], Awaitable[bytes | None]]


def _titles(value: Collection[str] | str | None) -> frozenset[str] | None:
    if isinstance(value, str):
        raise TypeError(f"calling_ae_titles are a collection of AE titles, not one: write [{value!r}]")
    return None if value is None else frozenset(check_ae_title(title).strip(" ") for title in value)


def _title(value: str | None) -> str | None:
    return None if value is None else check_ae_title(value).strip(" ")


def _by_certificate(value: Mapping[str, Collection[str] | str] | None) -> dict[str, frozenset[str]] | None:
    if value is None:
        return None
    of_key = fingerprint_of, str.lower
    return {
        of_key[not is_fingerprint(key)](key): _titles((titles,) if isinstance(titles, str) else titles) or frozenset()
        for key, titles in value.items()
    }


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{attribute.name} must be a whole number, at least 1, not {value!r}")


@attrs.frozen(kw_only=True)
class Admission:
    """Whom an acceptor lets in.

    - `ae_title`: the title by which it must be called; None for any.
    - `calling_ae_titles`: those that may call; None for any. A title is no proof of who calls; a certificate is.
    - `certificate_titles`: the titles by which the owner of a certificate may call, one or several; None for any. A
      certificate is known by its SHA-256 fingerprint, or by a name that it is made out to: one of its alternative
      names, or its common name. Who has none that is listed is not let in.
    - `check_identity`: an async function of the `UserIdentityRQ` of PS3.7 D.3.3.7 (its `type`, and `primary` and
      `secondary`, each a `Secret`: `reveal()` gives the bytes), or of None where the request has none. It returns the
      server's response, possibly `b""`, or None to refuse. It must answer within `timeouts.association`; an error
      refuses for now.
    - `associations`, `associations_per_host`: how many there may be at once; more are rejected, for now.
    - `connections_waiting`: connections without an association yet, a quarter of them from one host. Those that have
      waited longest are closed to make room.
    """

    ae_title: str | None = attrs.field(default=None, converter=_title)
    calling_ae_titles: Collection[str] | None = attrs.field(default=None, converter=_titles)
    certificate_titles: Mapping[str, Collection[str] | str] | None = attrs.field(
        default=None, converter=_by_certificate
    )
    check_identity: IdentityCheck | None = None
    associations: int = attrs.field(default=64, validator=_count)
    associations_per_host: int = attrs.field(default=8, validator=_count)
    connections_waiting: int = attrs.field(default=128, validator=_count)

    def objection(self, request: AssociateRQ) -> AssociateRJ | None:
        """What there is to say against `request` by its titles and application context (PS3.8 table 9-21)."""
        if (objection := rejection(request)) is not None:
            return objection
        if not _is_title(request.called_ae_title) or self.ae_title not in (None, request.called_ae_title):
            return CALLED_AE_TITLE_NOT_RECOGNIZED
        calling, allowed = request.calling_ae_title, self.calling_ae_titles
        if not _is_title(calling) or (allowed is not None and calling not in allowed):
            return CALLING_AE_TITLE_NOT_RECOGNIZED
        return None

    def doubt(self, request: AssociateRQ, certificate: PeerCertificate | None) -> str | None:
        """Why the calling title is not that of who calls; it is answered as one that is not recognised."""
        if self.certificate_titles is None:
            return None
        if certificate is None:
            return "who called has no certificate"
        known = {certificate.fingerprint, *certificate.names} & self.certificate_titles.keys()
        if not known:
            return f"the certificate is not listed (SHA-256 {certificate.fingerprint})"
        if not any(request.calling_ae_title in self.certificate_titles[each] for each in known):
            return f"the certificate is for another AE title (SHA-256 {certificate.fingerprint})"
        return None


def _is_title(title: str) -> bool:
    try:
        check_ae_title(title)
    except ValueError:
        return False
    return True
