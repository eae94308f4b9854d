# DICOM networking for trio. Everything public is a name of this package; what it does is told in the docs, not here.

from ._version import __version__
from .association.association import Association
from .association.requestor import connect_association, open_association, wrap_client_stream
from .errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    ConnectFailed,
    ConnectionLost,
    DIMSEDecodeError,
    IdentityNotConfirmed,
    InternalError,
    InvalidObject,
    InvalidPDU,
    InvalidResponse,
    LocalProtocolError,
    NoAcceptedContexts,
    NoPresentationContext,
    ObjectChanged,
    OperationTimeout,
    PeerLimitUnusable,
    ProtocolViolation,
    ReadError,
    Retry,
    StatusError,
    TLSError,
    TLSVerifyError,
    TrioDicomError,
    UnexpectedMessageID,
    UnexpectedPDU,
    UnrecognisedPDU,
)
from .peer import Peer
from .protocol.command import Priority
from .protocol.negotiation import PresentationContext
from .protocol.status import Status, StatusCategory
from .sender.outcome import InstanceReport, Outcome
from .services.progress import TransferProgress, open_progress_channel
from .services.send_file import send_file
from .services.storage_scu import CStoreOptions, CStoreResponse, CStoreSCU
from .services.verification import echo
from .settings import AssociationSettings, Limits, Role, Timeouts, UserIdentity, UserIdentityType
from .sources.contexts import contexts_for
from .sources.pixels import ArrayPixelSource, PixelSource

__all__ = [
    "ArrayPixelSource",
    "Association",
    "AssociationAborted",
    "AssociationClosed",
    "AssociationError",
    "AssociationRejected",
    "AssociationSettings",
    "AssociationTimeout",
    "CStoreOptions",
    "CStoreResponse",
    "CStoreSCU",
    "ConnectFailed",
    "ConnectionLost",
    "DIMSEDecodeError",
    "IdentityNotConfirmed",
    "InstanceReport",
    "InternalError",
    "InvalidObject",
    "InvalidPDU",
    "InvalidResponse",
    "Limits",
    "LocalProtocolError",
    "NoAcceptedContexts",
    "NoPresentationContext",
    "ObjectChanged",
    "OperationTimeout",
    "Outcome",
    "Peer",
    "PeerLimitUnusable",
    "PixelSource",
    "PresentationContext",
    "Priority",
    "ProtocolViolation",
    "ReadError",
    "Retry",
    "Role",
    "Status",
    "StatusCategory",
    "StatusError",
    "TLSError",
    "TLSVerifyError",
    "Timeouts",
    "TransferProgress",
    "TrioDicomError",
    "UnexpectedMessageID",
    "UnexpectedPDU",
    "UnrecognisedPDU",
    "UserIdentity",
    "UserIdentityType",
    "__version__",
    "connect_association",
    "contexts_for",
    "echo",
    "open_association",
    "open_progress_channel",
    "send_file",
    "wrap_client_stream",
]
