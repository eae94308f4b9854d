"""The Verification service class user: one C-ECHO over an association of its own (PS3.4 annex A)."""

from __future__ import annotations

import ssl

from ..association.requestor import open_association
from ..peer import Peer
from ..settings import AssociationSettings
from ..uids import VERIFICATION


async def echo(
    peer: Peer | str,
    *,
    settings: AssociationSettings | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> float:
    """Ask `peer` whether it is there, and return the seconds from the C-ECHO to its answer.

    Opens an association and releases it. Raises what `open_association` and `Association.echo` raise; cancelled, it
    aborts.
    """
    opened = open_association(peer, [VERIFICATION], settings=settings, tls=tls, server_hostname=server_hostname)
    async with opened as association:
        return await association.echo()
