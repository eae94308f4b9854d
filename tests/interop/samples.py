"""The DICOM files that pydicom ships and that can be sent, and how a data set is compared with itself encoded anew."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from interop.peers import split_part10
from trio_dicom.errors import InvalidObject
from trio_dicom.sources.file import read_head

DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"


@attrs.frozen
class Sample:
    """A file. Several have the same SOP Instance UID."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes = attrs.field(repr=False)

    @property
    def name(self) -> str:
        return self.path.relative_to(FOLDER).as_posix()

    def read(self) -> Dataset:
        return decoded(self.path.read_bytes())


def _samples() -> Iterator[Sample]:
    for path in sorted(FOLDER.rglob("*")):
        if not path.is_file():
            continue
        try:
            head = read_head(path)
        except InvalidObject:
            continue
        data_set = split_part10(path.read_bytes())[1]
        yield Sample(path, head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid, data_set)


SAMPLES = tuple(_samples())


def rounds(samples: Iterable[Sample]) -> list[list[Sample]]:
    """`samples` in groups in none of which an instance occurs twice."""
    groups: list[dict[str, Sample]] = []
    for sample in samples:
        group = next((each for each in groups if sample.sop_instance_uid not in each), None)
        if group is None:
            groups.append(group := {})
        group[sample.sop_instance_uid] = sample
    return [list(group.values()) for group in groups]


def part10(data_set: bytes, transfer_syntax_uid: str) -> bytes:
    """A file with no more File Meta Information than reading it takes."""
    uid = transfer_syntax_uid.encode() + b"\0" * (len(transfer_syntax_uid) % 2)
    element = b"\2\0\x10\0UI" + len(uid).to_bytes(2, "little") + uid
    length = b"\2\0\0\0UL\4\0" + len(element).to_bytes(4, "little")
    return bytes(128) + b"DICM" + length + element + data_set


def decoded(file: bytes) -> Dataset:
    """The data set of a file; the samples are full of what pydicom warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(file), force=True)


def plain(dataset: Dataset) -> dict[int, Any]:
    """What `dataset` says, however it is encoded.

    Not compared: group lengths, which are an encoding's own, and the VRs of values that are the same, since Implicit VR
    has none and DCMTK makes encapsulated Pixel Data OB. Private values, whose VR nobody knows then, are compared as
    they are encoded. Padding does not count.
    """
    tags = [tag for tag in sorted(dataset.keys()) if tag.element != 0 and tag != DATA_SET_TRAILING_PADDING]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {int(tag): _value(dataset, tag) for tag in tags}


def _value(dataset: Dataset, tag: BaseTag) -> Any:
    raw = dataset.get_item(tag)
    if tag.is_private and isinstance(raw, RawDataElement) and raw.VR != "SQ":
        return (raw.value or b"").rstrip(b"\0 ") or ""
    value = dataset[tag].value
    if isinstance(value, pydicom.Sequence):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    if value is None:
        return ""
    return list(map(str, value)) if isinstance(value, list | pydicom.multival.MultiValue) else str(value)
