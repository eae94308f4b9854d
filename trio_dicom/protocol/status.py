"""DIMSE statuses (PS3.7 annex C) as C-STORE reads them (PS3.4 B.2.3).

1. A code's class is that of PS3.7 table C.1-1, whatever the service: `category`. What the table does not have is
   `UNKNOWN`.
2. A service lists the codes that it uses. The warnings of C-STORE are B000H, B006H and B007H and no others: a 0001H,
   0107H or 0116H, a warning by its class, says to a storage SCU nothing that it could rely on. So `is_success` and
   `is_warning`, by which an object counts as stored, are narrower than `category`, and all else `is_failure`: failures,
   warnings that the service does not list, and what is no final status of it (pending, cancel, unknown).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ..errors import Retry


class StatusCategory(enum.Enum):
    """The classes of PS3.7 annex C."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"
    UNKNOWN = "unknown"


# What differs from the rule for its range in `_category`.
_CATEGORIES: Mapping[int, StatusCategory] = {
    0x0000: StatusCategory.SUCCESS,
    0x0001: StatusCategory.WARNING,
    0x0107: StatusCategory.WARNING,
    0x0116: StatusCategory.WARNING,
    0xFE00: StatusCategory.CANCEL,
    0xFF00: StatusCategory.PENDING,
    0xFF01: StatusCategory.PENDING,
}

_STORAGE_WARNINGS = frozenset({0xB000, 0xB006, 0xB007})

_MEANINGS: Mapping[int, str] = {
    0x0000: "Success",
    0x0001: "Warning: Requested Optional Attributes Not Supported",
    0x0105: "No Such Attribute",
    0x0106: "Invalid Attribute Value",
    0x0107: "Warning: Attribute List Error",
    0x0110: "Processing Failure",
    0x0111: "Duplicate SOP Instance",
    0x0112: "No Such SOP Instance",
    0x0113: "No Such Event Type",
    0x0114: "No Such Argument",
    0x0115: "Invalid Argument Value",
    0x0116: "Warning: Attribute Value Out of Range",
    0x0117: "Invalid Object Instance",
    0x0118: "No Such SOP Class",
    0x0119: "Class-Instance Conflict",
    0x0120: "Missing Attribute",
    0x0121: "Missing Attribute Value",
    0x0122: "Refused: SOP Class Not Supported",
    0x0123: "No Such Action",
    0x0124: "Refused: Not Authorized",
    0x0210: "Duplicate Invocation",
    0x0211: "Unrecognized Operation",
    0x0212: "Mistyped Argument",
    0x0213: "Resource Limitation",
    0x0214: "Refused: Not Authorized",  # as PS3.2 N.7.3.2.5 has it
    0xB000: "Warning: Coercion of Data Elements",
    0xB006: "Warning: Elements Discarded",
    0xB007: "Warning: Data Set Does Not Match SOP Class",
    0xFE00: "Cancel",
    0xFF00: "Pending",
    0xFF01: "Pending: Optional Keys Not Supported",
}

# PS3.4 table B.2-1, by the bits that are fixed: mask, value, meaning.
_RANGES: tuple[tuple[int, int, str], ...] = (
    (0xFF00, 0xA700, "Refused: Out of Resources"),
    (0xFF00, 0xA900, "Error: Data Set Does Not Match SOP Class"),
    (0xF000, 0xC000, "Error: Cannot Understand"),
)

# When an object that got this status may be sent again; a policy, for the standard has none. Others: never.
_RETRIES: Mapping[int, Retry] = {
    0x0110: Retry.LATER,  # some peers say so of a full disk
    0x0112: Retry.AFTER_CONFIG,
    0x0118: Retry.AFTER_CONFIG,
    0x0122: Retry.AFTER_CONFIG,
    0x0124: Retry.AFTER_CONFIG,
    0x0210: Retry.NEW_ASSOCIATION,
    0x0213: Retry.LATER,
    0x0214: Retry.AFTER_CONFIG,
}


class Status(int):
    """The (0000,0900) of a response: an `int` of 16 bits that knows what it says to a storage SCU.

    Raises `ValueError` outside 0 to 65,535.
    """

    __slots__ = ()

    def __new__(cls, code: int) -> Status:
        if not 0 <= code <= 0xFFFF:
            raise ValueError(f"a status is 0 to 65,535, not {code}")
        return super().__new__(cls, code)

    @property
    def category(self) -> StatusCategory:
        """The class of the code by PS3.7 annex C, for any service."""
        if self in _CATEGORIES:
            return _CATEGORIES[self]
        if self >> 12 == 0xB:
            return StatusCategory.WARNING
        if self >> 12 in (0xA, 0xC) or self >> 8 in (0x01, 0x02):
            return StatusCategory.FAILURE
        return StatusCategory.UNKNOWN

    @property
    def meaning(self) -> str:
        """What the standard calls it, or else its category."""
        if self in _MEANINGS:
            return _MEANINGS[self]
        for mask, value, meaning in _RANGES:
            if self & mask == value:
                return meaning
        return f"{self.category.value.capitalize()}, not listed for the service"

    @property
    def is_success(self) -> bool:
        """0000H alone."""
        return self == 0

    @property
    def is_warning(self) -> bool:
        """Stored, but not quite as it was sent: B000H, B006H, B007H alone, whatever `category` says."""
        return self in _STORAGE_WARNINGS

    @property
    def is_failure(self) -> bool:
        """Neither success nor warning."""
        return not (self.is_success or self.is_warning)

    @property
    def retry(self) -> Retry:
        """When an object that got this status may be sent again."""
        return Retry.LATER if self >> 8 == 0xA7 else _RETRIES.get(self, Retry.NEVER)

    def __repr__(self) -> str:
        return f"Status(0x{self:04X}, {self.meaning!r})"


# What this library answers.
SUCCESS = Status(0x0000)
PROCESSING_FAILURE = Status(0x0110)
DUPLICATE_SOP_INSTANCE = Status(0x0111)
SOP_CLASS_NOT_SUPPORTED = Status(0x0122)
DUPLICATE_INVOCATION = Status(0x0210)
UNRECOGNIZED_OPERATION = Status(0x0211)
OUT_OF_RESOURCES = Status(0xA700)
DATA_SET_DOES_NOT_MATCH = Status(0xA900)
CANNOT_UNDERSTAND = Status(0xC000)
