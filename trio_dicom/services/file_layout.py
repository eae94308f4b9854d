"""FileLayout: where in a folder an instance is filed, from values that its sender chose.

No value gets into a name as it came, unless it is a UID of digits and dots. Others keep A-Z, a-z, 0-9, "_" and "-", and
each other byte becomes %XX. So no value can be "..", begin or end with a dot, or hold a separator; and two values share
a name only where the file system folds upper and lower case. The SOP Instance UID can be read back from the path, so no
two instances get the same one, however their other values were chosen.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from typing import TypeGuard

from ..uids import is_valid_uid

# Where the value of a field is in the data set; None: the request or the association has it.
FIELDS: Mapping[str, int | None] = {
    "sop_instance_uid": None,
    "sop_class_uid": None,
    "transfer_syntax_uid": None,
    "calling_ae_title": None,
    "called_ae_title": None,
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "patient_id": 0x00100020,
    "modality": 0x00080060,
    "study_date": 0x00080020,
    "accession_number": 0x00080050,
}

EMPTY = "unknown"  # stands for a value that is absent or empty
LONGEST_VALUE = 64  # characters in a name
LONGEST_NAME = 255

_KEPT = frozenset((string.ascii_letters + string.digits + "_-").encode())
_ENCODED = [chr(byte) if byte in _KEPT else f"%{byte:02X}" for byte in range(256)]
_NOT_IN_NAMES = re.compile(r'[^ -~]|[<>:"\\|?*%~{}]')  # of any system; "%" and "~" mark what was changed
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9]|CONIN\$|CONOUT\$) *(\..*)?", re.IGNORECASE)

_Part = str | tuple[str]  # of a name: text, or (field,)


def encode_value(value: bytes) -> str:
    """`value` as a name or a part of one. Where it would be too long, "~" and a hash stand for the rest."""
    name = "".join(map(_ENCODED.__getitem__, value))
    if len(name) > LONGEST_VALUE:
        name = f"{name[:31]}~{hashlib.sha256(value).hexdigest()[:32]}"
    return name or EMPTY


class FileLayout:
    """A template of a relative path with "/" between names, such as "{study_instance_uid}/{sop_instance_uid}.dcm".

    Fields are those of `FIELDS`, in braces and nothing else with them. Raises `ValueError` if the template is not a
    relative path of names that every system can have, or if it does not tell instances apart.
    """

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise TypeError(f"a layout is a str, not {type(template).__name__}")
        try:
            self._names = _parse(template)
            for name in self._names:
                _check(name)
            if not any(map(_tells_instances_apart, self._names)):
                raise ValueError(
                    "{sop_instance_uid} must be there, as the first or the last field of a name, "
                    "with more than digits and dots between it and the next field"
                )
        except ValueError as error:
            fields = ", ".join(FIELDS)
            raise ValueError(f"the layout {template!r} cannot be used: {error}. The fields are {fields}") from None
        used = {part[0] for name in self._names for part in name if _is_field(part)}
        #: of the data set, by field
        self.tags: Mapping[str, int] = {field: tag for field in used if (tag := FIELDS[field]) is not None}

    def names(self, values: Mapping[str, bytes]) -> tuple[str, ...]:
        """The names of the folders and the file for an instance with these values; what is absent counts as empty."""
        return tuple(_fill(name, values) for name in self._names)


def _is_field(part: _Part) -> TypeGuard[tuple[str]]:
    return not isinstance(part, str)


def _parse(template: str) -> list[list[_Part]]:
    names: list[list[_Part]] = [[]]
    for text, field, form, conversion in string.Formatter().parse(template):
        first, *others = text.split("/")
        names[-1] += [first] if first else []
        names += [[other] if other else [] for other in others]
        if field is None:
            continue
        if field not in FIELDS:
            raise ValueError(f"there is no field {{{field}}}")
        if form or conversion:
            raise ValueError(f"{{{field}}} can have no format")
        names[-1].append((field,))
    return names


def _check(name: list[_Part]) -> None:
    """That `name` is one on every system, whatever the values are."""
    texts = [part for part in name if isinstance(part, str)]
    if not name:
        raise ValueError('it must be a relative path without empty names, with "/" only between them')
    if any(map(_NOT_IN_NAMES.search, texts)):
        raise ValueError('names are of ASCII without control characters and any of <>:"\\|?*%~{}')
    if isinstance(name[0], str) and name[0][0] in ". ":
        raise ValueError('a name, ".." too, must not begin with a dot or a space')
    if isinstance(name[-1], str) and name[-1][-1] in ". ":
        raise ValueError("a name must not end with a dot or a space")
    if len(texts) == len(name) and any(map(_DEVICE.fullmatch, texts)):
        raise ValueError("a name must not be that of a device")
    # Two more: the first character may have to be encoded.
    if sum(map(len, texts)) + LONGEST_VALUE * (len(name) - len(texts)) + 2 > LONGEST_NAME:
        raise ValueError(f"a name could become longer than {LONGEST_NAME} characters")


def _tells_instances_apart(name: list[_Part]) -> bool:
    """Whether the SOP Instance UID can be read back: a run of digits and dots, which ends where the text begins."""
    for parts in (name, name[::-1]):
        parts = parts[not _is_field(parts[0]) :]
        if parts[:1] == [("sop_instance_uid",)]:
            between = parts[1:2]
            if len(parts) <= 2 and not any(map(_is_field, between)):
                return True
            if isinstance(between[0], str) and between[0].strip("0123456789."):
                return True
    return False


def _fill(name: list[_Part], values: Mapping[str, bytes]) -> str:
    filled = "".join([part if isinstance(part, str) else _value(part[0], values) for part in name])
    if _DEVICE.fullmatch(filled):
        return f"%{ord(filled[0]):02X}{filled[1:]}"
    return filled


def _value(field: str, values: Mapping[str, bytes]) -> str:
    value = values.get(field, b"")
    if field.endswith("_uid"):
        text = value.decode("latin-1")
        if is_valid_uid(text):
            return text
    return encode_value(value)
