"""The DIMSE messages of all services but storage and verification (PS3.7 sections 9.3 and 10.3): see `command`.

`command` imports them when one is met; who sends or performs such a service imports them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import attrs

from .command import CommandField, Priority, Response


@attrs.frozen
class _IdentifierRequest:
    message_id: int
    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM
    has_data_set: bool = True


class CFindRQ(_IdentifierRequest):
    """C-FIND-RQ, PS3.7 9.3.2.1."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_FIND_RQ


class CGetRQ(_IdentifierRequest):
    """C-GET-RQ, PS3.7 9.3.3.1."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_GET_RQ


@attrs.frozen
class CMoveRQ:
    """C-MOVE-RQ, PS3.7 9.3.4.1."""

    command_field: ClassVar[CommandField] = CommandField.C_MOVE_RQ
    message_id: int
    affected_sop_class_uid: str
    move_destination: str
    priority: int = Priority.MEDIUM
    has_data_set: bool = True


@attrs.frozen
class NEventReportRQ:
    """N-EVENT-REPORT-RQ, PS3.7 10.3.1.1."""

    command_field: ClassVar[CommandField] = CommandField.N_EVENT_REPORT_RQ
    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    event_type_id: int
    has_data_set: bool = False


@attrs.frozen
class NGetRQ:
    """N-GET-RQ, PS3.7 10.3.2.1. An attribute identifier is a tag: group << 16 | element."""

    command_field: ClassVar[CommandField] = CommandField.N_GET_RQ
    message_id: int
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    attribute_identifier_list: tuple[int, ...] = ()
    has_data_set: bool = False


@attrs.frozen
class NSetRQ:
    """N-SET-RQ, PS3.7 10.3.3.1."""

    command_field: ClassVar[CommandField] = CommandField.N_SET_RQ
    message_id: int
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    has_data_set: bool = True


@attrs.frozen
class NActionRQ:
    """N-ACTION-RQ, PS3.7 10.3.4.1."""

    command_field: ClassVar[CommandField] = CommandField.N_ACTION_RQ
    message_id: int
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    action_type_id: int
    has_data_set: bool = False


@attrs.frozen
class NCreateRQ:
    """N-CREATE-RQ, PS3.7 10.3.5.1. Without an instance UID the performer makes one."""

    command_field: ClassVar[CommandField] = CommandField.N_CREATE_RQ
    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str | None = None
    has_data_set: bool = False


@attrs.frozen
class NDeleteRQ:
    """N-DELETE-RQ, PS3.7 10.3.6.1."""

    command_field: ClassVar[CommandField] = CommandField.N_DELETE_RQ
    message_id: int
    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    has_data_set: bool = False


@attrs.frozen
class _SubOperationsResponse(Response):
    """The counts are cumulative, and None where the peer gave none."""

    number_of_remaining_sub_operations: int | None = None
    number_of_completed_sub_operations: int | None = None
    number_of_failed_sub_operations: int | None = None
    number_of_warning_sub_operations: int | None = None


class CFindRSP(Response):
    """C-FIND-RSP, PS3.7 9.3.2.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_FIND_RSP


class CGetRSP(_SubOperationsResponse):
    """C-GET-RSP, PS3.7 9.3.3.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_GET_RSP


class CMoveRSP(_SubOperationsResponse):
    """C-MOVE-RSP, PS3.7 9.3.4.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.C_MOVE_RSP


@attrs.frozen
class NEventReportRSP(Response):
    """N-EVENT-REPORT-RSP, PS3.7 10.3.1.2."""

    command_field: ClassVar[CommandField] = CommandField.N_EVENT_REPORT_RSP
    event_type_id: int | None = None


@attrs.frozen
class _AttributeListResponse(Response):
    attribute_identifier_list: tuple[int, ...] = ()


class NGetRSP(_AttributeListResponse):
    """N-GET-RSP, PS3.7 10.3.2.2; with the attribute identifiers of status 0107H (annex C.4.2)."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.N_GET_RSP


class NSetRSP(_AttributeListResponse):
    """N-SET-RSP, PS3.7 10.3.3.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.N_SET_RSP


@attrs.frozen
class NActionRSP(Response):
    """N-ACTION-RSP, PS3.7 10.3.4.2."""

    command_field: ClassVar[CommandField] = CommandField.N_ACTION_RSP
    action_type_id: int | None = None


class NCreateRSP(_AttributeListResponse):
    """N-CREATE-RSP, PS3.7 10.3.5.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.N_CREATE_RSP


class NDeleteRSP(Response):
    """N-DELETE-RSP, PS3.7 10.3.6.2."""

    __slots__ = ()
    command_field: ClassVar[CommandField] = CommandField.N_DELETE_RSP


OtherRequest: TypeAlias = (
    CFindRQ | CGetRQ | CMoveRQ | NEventReportRQ | NGetRQ | NSetRQ | NActionRQ | NCreateRQ | NDeleteRQ
)
OtherResponse: TypeAlias = (
    CFindRSP | CGetRSP | CMoveRSP | NEventReportRSP | NGetRSP | NSetRSP | NActionRSP | NCreateRSP | NDeleteRSP
)

_MESSAGES: tuple[type[OtherRequest | OtherResponse], ...] = (
    CFindRQ, CFindRSP, CGetRQ, CGetRSP, CMoveRQ, CMoveRSP, NEventReportRQ, NEventReportRSP, NGetRQ, NGetRSP,
    NSetRQ, NSetRSP, NActionRQ, NActionRSP, NCreateRQ, NCreateRSP, NDeleteRQ, NDeleteRSP,
)  # fmt: skip
MESSAGES: Mapping[int, type[OtherRequest | OtherResponse]] = {
    int(message.command_field): message for message in _MESSAGES
}
