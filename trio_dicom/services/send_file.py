"""One file over an association of its own."""

from __future__ import annotations

import os
import ssl

from ..association.requestor import open_association
from ..peer import Peer
from ..settings import AssociationSettings
from ..sources.contexts import contexts_for
from .storage_scu import CStoreOptions, CStoreResponse, CStoreSCU, ProgressChannel


async def send_file(
    peer: Peer | str,
    path: str | os.PathLike[str],
    *,
    options: CStoreOptions | None = None,
    settings: AssociationSettings | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    progress: ProgressChannel | None = None,
) -> CStoreResponse:
    """Send the DICOM file at `path` to `peer` with C-STORE, and return the peer's answer.

    The presentation contexts are inferred from the head of the file; the association is opened for it and released.
    Raises what `open_association` and `CStoreSCU.send` raise. Cancelled, it aborts the association; what
    `CStoreSCU.send` says of the object holds.
    """
    contexts = await contexts_for([path])
    async with open_association(
        peer, contexts, settings=settings, tls=tls, server_hostname=server_hostname
    ) as association:
        return await CStoreSCU(association, options).send(path, progress=progress)
