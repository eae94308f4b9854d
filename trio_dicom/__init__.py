# DICOM networking for trio. Everything public is a name of this package; what it does is told in the docs, not here.
# Names are imported when they are first asked for: `trio-dicom --help` needs none of them, and no trio either.

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .association.acceptor import AssociationServer, serve_associations, wrap_server_stream
    from .association.admission import Admission
    from .association.association import Association
    from .association.requestor import connect_association, open_association, wrap_client_stream
    from .association.service import Service
    from .association.service_request import ServiceRequest
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
        LedgerError,
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
        TLSFileError,
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
    from .secret import Secret
    from .sender.options import SameInstance, SenderOptions
    from .sender.outcome import InstanceReport, Outcome
    from .sender.reports import TransferReport
    from .sender.retry import RetryPolicy
    from .sender.sender import Sender, open_sender
    from .services.instance import Instance, StoreReply
    from .services.instance_folder import Duplicates, InstanceFolder, StoredInstance
    from .services.progress import TransferProgress, open_progress_channel
    from .services.send_file import send_file
    from .services.storage_scp import StorageSCP
    from .services.storage_scu import CStoreOptions, CStoreResponse, CStoreSCU, StoreDelivery
    from .services.verification import echo
    from .settings import AssociationSettings, Limits, Role, Timeouts, UserIdentity, UserIdentityType
    from .sources.contexts import contexts_for
    from .sources.pixels import ArrayPixelSource, PixelSource
    from .tls import TLSProfile

_HOMES = {
    ".association.acceptor": ("AssociationServer", "serve_associations", "wrap_server_stream"),
    ".association.admission": ("Admission",),
    ".association.association": ("Association",),
    ".association.service": ("Service",),
    ".association.service_request": ("ServiceRequest",),
    ".association.requestor": ("connect_association", "open_association", "wrap_client_stream"),
    ".errors": (
        "AssociationAborted",
        "AssociationClosed",
        "AssociationError",
        "AssociationRejected",
        "AssociationTimeout",
        "ConnectFailed",
        "ConnectionLost",
        "DIMSEDecodeError",
        "IdentityNotConfirmed",
        "InternalError",
        "InvalidObject",
        "InvalidPDU",
        "InvalidResponse",
        "LedgerError",
        "LocalProtocolError",
        "NoAcceptedContexts",
        "NoPresentationContext",
        "ObjectChanged",
        "OperationTimeout",
        "PeerLimitUnusable",
        "ProtocolViolation",
        "ReadError",
        "Retry",
        "StatusError",
        "TLSError",
        "TLSFileError",
        "TLSVerifyError",
        "TrioDicomError",
        "UnexpectedMessageID",
        "UnexpectedPDU",
        "UnrecognisedPDU",
    ),
    ".peer": ("Peer",),
    ".protocol.command": ("Priority",),
    ".protocol.negotiation": ("PresentationContext",),
    ".protocol.status": ("Status", "StatusCategory"),
    ".secret": ("Secret",),
    ".sender.options": ("SameInstance", "SenderOptions"),
    ".sender.outcome": ("InstanceReport", "Outcome"),
    ".sender.reports": ("TransferReport",),
    ".sender.retry": ("RetryPolicy",),
    ".sender.sender": ("Sender", "open_sender"),
    ".services.instance": ("Instance", "StoreReply"),
    ".services.instance_folder": ("Duplicates", "InstanceFolder", "StoredInstance"),
    ".services.progress": ("TransferProgress", "open_progress_channel"),
    ".services.send_file": ("send_file",),
    ".services.storage_scp": ("StorageSCP",),
    ".services.storage_scu": ("CStoreOptions", "CStoreResponse", "CStoreSCU", "StoreDelivery"),
    ".services.verification": ("echo",),
    ".settings": ("AssociationSettings", "Limits", "Role", "Timeouts", "UserIdentity", "UserIdentityType"),
    ".sources.contexts": ("contexts_for",),
    ".sources.pixels": ("ArrayPixelSource", "PixelSource"),
    ".tls": ("TLSProfile",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Admission",
    "ArrayPixelSource",
    "Association",
    "AssociationAborted",
    "AssociationClosed",
    "AssociationError",
    "AssociationRejected",
    "AssociationServer",
    "AssociationSettings",
    "AssociationTimeout",
    "CStoreOptions",
    "CStoreResponse",
    "CStoreSCU",
    "ConnectFailed",
    "ConnectionLost",
    "DIMSEDecodeError",
    "Duplicates",
    "IdentityNotConfirmed",
    "Instance",
    "InstanceFolder",
    "InstanceReport",
    "InternalError",
    "InvalidObject",
    "InvalidPDU",
    "InvalidResponse",
    "LedgerError",
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
    "RetryPolicy",
    "Role",
    "SameInstance",
    "Secret",
    "Sender",
    "SenderOptions",
    "Service",
    "ServiceRequest",
    "Status",
    "StatusCategory",
    "StatusError",
    "StorageSCP",
    "StoreDelivery",
    "StoreReply",
    "StoredInstance",
    "TLSError",
    "TLSFileError",
    "TLSProfile",
    "TLSVerifyError",
    "Timeouts",
    "TransferProgress",
    "TransferReport",
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
    "open_sender",
    "send_file",
    "serve_associations",
    "wrap_client_stream",
    "wrap_server_stream",
]


def __getattr__(name: str) -> object:
    try:
        home = _HOME_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(home, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
