# Helpers for testing DICOM code with trio. Everything public is a name of this package.
# Names are imported when they are first asked for: the pytest plugin is loaded in projects that need none of them.

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cancel_sweep import Cut, cancel_at_every_checkpoint
    from .direction import Direction
    from .faulty_stream import Corrupt, Drip, Fault, FaultyStream, HalfClose, Reset, Split, Stall
    from .identity import SOPClass, frame_of_reference_uid, instance_uid, series_uid, study_uid
    from .instances import file_bytes, make_instance, make_instance_file, make_study
    from .links import loopback_link, memory_link, scripted_requestor
    from .recording import RecordedChunk, RecordedPDU, RecordedStream, Recording, replay
    from .scripted_links import ScriptedListener, scripted_link, scripted_listener
    from .scripted_peer import (
        Script,
        ScriptedPeer,
        acceptance,
        answering,
        association_request,
        encoded,
        instead_of_accept,
        instead_of_response,
        message,
        response_to,
        whole_pdus,
    )
    from .storage_double import ReceivedInstance, ScriptedReply, ScriptedStorageSCP, storage_scp
    from .streams import loopback_streams, socket_pair_streams
    from .tls import TLSContexts, TLSFault, tls_contexts

_HOMES = {
    ".cancel_sweep": ("Cut", "cancel_at_every_checkpoint"),
    ".direction": ("Direction",),
    ".faulty_stream": ("Corrupt", "Drip", "Fault", "FaultyStream", "HalfClose", "Reset", "Split", "Stall"),
    ".identity": ("SOPClass", "frame_of_reference_uid", "instance_uid", "series_uid", "study_uid"),
    ".instances": ("file_bytes", "make_instance", "make_instance_file", "make_study"),
    ".links": ("loopback_link", "memory_link", "scripted_requestor"),
    ".recording": ("RecordedChunk", "RecordedPDU", "RecordedStream", "Recording", "replay"),
    ".scripted_links": ("ScriptedListener", "scripted_link", "scripted_listener"),
    ".scripted_peer": (
        "Script",
        "ScriptedPeer",
        "acceptance",
        "answering",
        "association_request",
        "encoded",
        "instead_of_accept",
        "instead_of_response",
        "message",
        "response_to",
        "whole_pdus",
    ),
    ".storage_double": ("ReceivedInstance", "ScriptedReply", "ScriptedStorageSCP", "storage_scp"),
    ".streams": ("loopback_streams", "socket_pair_streams"),
    ".tls": ("TLSContexts", "TLSFault", "tls_contexts"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Corrupt",
    "Cut",
    "Direction",
    "Drip",
    "Fault",
    "FaultyStream",
    "HalfClose",
    "ReceivedInstance",
    "RecordedChunk",
    "RecordedPDU",
    "RecordedStream",
    "Recording",
    "Reset",
    "SOPClass",
    "Script",
    "ScriptedListener",
    "ScriptedPeer",
    "ScriptedReply",
    "ScriptedStorageSCP",
    "Split",
    "Stall",
    "TLSContexts",
    "TLSFault",
    "acceptance",
    "answering",
    "association_request",
    "cancel_at_every_checkpoint",
    "encoded",
    "file_bytes",
    "frame_of_reference_uid",
    "instance_uid",
    "instead_of_accept",
    "instead_of_response",
    "loopback_link",
    "loopback_streams",
    "make_instance",
    "make_instance_file",
    "make_study",
    "memory_link",
    "message",
    "replay",
    "response_to",
    "scripted_link",
    "scripted_listener",
    "scripted_requestor",
    "series_uid",
    "socket_pair_streams",
    "storage_scp",
    "study_uid",
    "tls_contexts",
    "whole_pdus",
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
