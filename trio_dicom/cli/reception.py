"""Reception: where a receiver listens, whom it lets in, and how."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Collection

import attrs

from ..association.admission import Admission
from ..peer import host_and_port
from ..settings import AssociationSettings, Timeouts
from ..tls import server_context
from .connection import check_together, tls_context, usage_error
from .exit_codes import ExitCode
from .security import ServerSecurity

FIRST_FREE_FOR_ALL = 1024  # ports below it are for those with rights


@attrs.frozen
class Reception:
    """Options of a receiver, as the library wants them."""

    host: str
    port: int
    settings: AssociationSettings
    admission: Admission
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(
        cls,
        host: str,
        port: int,
        *,
        title: str | None,
        calling: Collection[str],
        max_pdu: int,
        window: int,
        associations: int,
        per_host: int,
        timeout: float,
        security: ServerSecurity,
    ) -> Reception:
        """From the options as they were given; exits with 2 where they make no sense together."""
        check_together(security)
        settings = AssociationSettings(
            max_pdu_length=max_pdu,
            send_pdu_length=max_pdu,
            operations_window=window,
            timeouts=Timeouts(
                idle=timeout,
                handler=timeout,
                pdu=min(timeout, 30.0),
                response=min(timeout, 30.0),
                artim=min(timeout, 10.0),
                tls_handshake=min(timeout, 10.0),
            ),
        )
        if security.tls and security.cert is None:
            raise usage_error("--tls needs --cert, and --key if the key is in a file of its own")
        if security.certified and security.ca is None:
            raise usage_error("--certified needs --ca: without it nobody is asked for a certificate")
        titles: dict[str, set[str]] = {}
        for text in security.certified:
            name, _, may_call = text.rpartition("=")
            titles.setdefault(name, set()).add(may_call)
        context = tls_context(server_context, security) if security.tls else None
        admission = Admission(
            ae_title=title,
            calling_ae_titles=calling or None,
            certificate_titles=titles or None,
            associations=associations,
            associations_per_host=per_host,
        )
        return cls(host, port, settings, admission, context)

    def explain(self, error: OSError) -> tuple[str, ExitCode]:
        """What to say, and to exit with, when it cannot listen."""
        where = f"cannot listen on {host_and_port(self.host, self.port)}"
        if error.errno == errno.EADDRINUSE:
            advice = "stop what listens there, or choose another --port (0 is any free one)"
            return f"{where}: the port is in use; {advice}", ExitCode.TRY_AGAIN
        if error.errno in (errno.EACCES, errno.EPERM) and 0 < self.port < FIRST_FREE_FOR_ALL:
            advice = (
                f"choose a --port from {FIRST_FREE_FOR_ALL} on, such as 11112, or run it with the right to use this one"
            )
            return f"{where}: ports below {FIRST_FREE_FOR_ALL} need special rights; {advice}", ExitCode.USAGE
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            advice = "--bind takes one, or 0.0.0.0 for all of IPv4, or :: for all of IPv6"
            return f"{where}: that is no address of this machine; {advice}", ExitCode.USAGE
        return f"{where}: {error.strerror or error}", ExitCode.USAGE
