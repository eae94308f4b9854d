"""Writes the seeds, as `python -m tests.fuzz.seeding`: small, valid and a little wrong, made by the library itself."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import attrs

from trio_dicom.protocol.command import CCancelRQ, CEchoRQ, Command, CStoreRQ, encode_command
from trio_dicom.protocol.negotiation import PresentationContext, as_presentation_contexts, propose
from trio_dicom.protocol.other_services import CFindRQ, CMoveRQ, NEventReportRQ
from trio_dicom.protocol.pdu import Abort, AssociateRJ, AssociateRQ, ReleaseRP, ReleaseRQ
from trio_dicom.settings import AssociationSettings, Role, UserIdentity
from trio_dicom.sources.part10 import MEDIA_STORAGE_DIRECTORY, parse_head
from trio_dicom.testing import (
    SOPClass,
    acceptance,
    association_request,
    encoded,
    file_bytes,
    make_instance,
    make_instance_file,
    message,
    response_to,
)
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)

from .targets import SEEDS

CT = SOPClass.CT
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
NATIVE = {
    "explicit": EXPLICIT_VR_LITTLE_ENDIAN,
    "implicit": IMPLICIT_VR_LITTLE_ENDIAN,
    "big-endian": EXPLICIT_VR_BIG_ENDIAN,
    "deflated": DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
}
Seeds = Mapping[str, bytes]


def main() -> None:
    for target, seeds in _all().items():
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / name).write_bytes(data)


def _all() -> dict[str, Seeds]:
    return {
        "pdu": _pdus(),
        "command_set": {name: encode_command(command) for name, command in _commands().items()},  # type: ignore[arg-type]
        "file_head": _files(),
        "requestor": _acceptors(),
        "acceptor": _requestors(),
        "archive": _archives(),
        "dicomdir": _directories(),
    }


# --- messages


def _request(**more: object) -> AssociateRQ:
    settings = AssociationSettings(
        operations_window=8,
        roles={CT: Role(scp=True)},
        extended_negotiation={CT: b"\2\0\0\0\0\0"},
        user_identity=UserIdentity(type=2, primary=b"somebody", secondary=b"secret", positive_response=True),
    )
    return attrs.evolve(propose(as_presentation_contexts([CT, VERIFICATION]), "PACS", settings), **more)


def _store(file: bytes, message_id: int = 1, context_id: int = 1, **how: int) -> bytes:
    head = parse_head(file, at_end=True)
    if head is None:
        raise ValueError("no DICOM file")
    command = CStoreRQ(message_id, head.sop_class_uid, head.sop_instance_uid)
    return message(context_id, command, file[head.data_set_offset :], **how)


def _stored(message_id: int, status: int = 0, number: int | None = None, comment: str | None = None) -> bytes:
    request = CStoreRQ(message_id, CT, f"2.25.1000.{number or message_id}")
    return message(1, response_to(request, status, comment))


def _commands() -> dict[str, Command]:
    store = CStoreRQ(1, CT, "2.25.1000.1", 2, "MOVER", 7)
    requests = {
        "store": store,
        "echo": CEchoRQ(65_535, VERIFICATION),
        "find": CFindRQ(3, "1.2.840.10008.5.1.4.1.2.1.1"),
        "move": CMoveRQ(4, "1.2.840.10008.5.1.4.1.2.2.2", "ELSEWHERE"),
        "event-report": NEventReportRQ(5, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 1),
    }
    responses = {f"{name}-response": response_to(each, 0xB000, "a comment") for name, each in requests.items()}
    return {**requests, **responses, "cancel": CCancelRQ(3)}


def _pdus() -> Seeds:
    request = _request()
    file = make_instance_file(64)
    return {
        "request": encoded(request),
        "request-version": encoded(attrs.evolve(request, protocol_version=2)),
        "acceptance": encoded(acceptance(request, window=(3, 1))),
        "rejection": encoded(AssociateRJ(2, 3, 2)),
        "release": encoded(ReleaseRQ()) + encoded(ReleaseRP()),
        "abort": encoded(Abort(2, 6)),
        "store": _store(file),
        "store-in-pieces": _store(file, max_pdu_length=32),
        "session": encoded(request) + _store(file) + encoded(ReleaseRQ()),
        "http": b"GET / HTTP/1.1\r\n\r\n",
    }


def _acceptors() -> Seeds:
    accepted = encoded(acceptance(association_request([CT, VERIFICATION]), window=(2, 1)))
    echoed = message(3, response_to(CEchoRQ(3, VERIFICATION)))
    released = encoded(ReleaseRP())
    all_well = accepted + _stored(1) + _stored(2) + echoed + released
    words = {
        "all-well": all_well,
        "warning": accepted + _stored(1, 0xB000, comment="coerced") + _stored(2, 0x0111) + echoed + released,
        "refused": accepted + _stored(1, 0xA700) + _stored(2, 0xC001, comment="no") + echoed + released,
        "twice": accepted + _stored(1) + _stored(1) + echoed,
        "other-instance": accepted + _stored(1, number=2),
        "pending": accepted + _stored(1, 0xFF00),
        "rejected": encoded(AssociateRJ(1, 1, 7)),
        "aborted": accepted + _stored(1) + encoded(Abort(0, 0)),
        "release-collision": accepted + _stored(1) + _stored(2) + echoed + encoded(ReleaseRQ()) + released,
        "with-data-set": accepted
        + message(1, attrs.evolve(response_to(CStoreRQ(1, CT, "2.25.1000.1")), has_data_set=True), b"\0" * 16),
        "small-pdus": encoded(acceptance(association_request([CT, VERIFICATION]), max_pdu_length=128)) + _stored(1),
    }
    ways = {
        f"{name}-step-by-step": bytes((1 + (number & 2),)) + said for number, (name, said) in enumerate(words.items())
    }
    return {
        **ways,
        "all-at-once": b"\2" + all_well,
        "found-refused-before-it-was-sent": b"\2" + accepted + _stored(1, 0xC000),
    }


def _requestors() -> Seeds:
    request = encoded(association_request([CT, VERIFICATION]))
    release = encoded(ReleaseRQ())
    one, two = (make_instance_file(64, number=number) for number in (1, 2))
    echo = message(3, CEchoRQ(9, VERIFICATION))
    uid = {"affected_sop_instance_uid": "../../etc/passwd"}
    hostile = message(1, attrs.evolve(CStoreRQ(1, CT, "1"), **uid), b"\0" * 32)
    whole = file_bytes(make_instance(CT, rows=4, columns=4))
    words = {
        "store": request + _store(one) + release,
        "store-two": request + _store(one) + _store(two, 2) + echo + release,
        "store-in-pieces": request + _store(one, max_pdu_length=32) + release,
        "store-object": request + _store(whole) + release,
        "same-twice": request + _store(one) + _store(one, 2) + release,
        "path": request + hostile + release,
        "cut": request + _store(one)[:-20],
        "aborted": request + _store(one) + encoded(Abort(0, 0)),
        "cancel": request + message(1, CCancelRQ(1)) + _store(one) + release,
        "find": request + message(1, CFindRQ(3, CT), b"\0" * 8) + release,
        "two-requests": request + request,
        "identity": encoded(_request()) + _store(one),
    }
    seeds = {name: bytes((number % 8,)) + said for number, (name, said) in enumerate(words.items())}
    for name, syntax in NATIVE.items():
        file = make_instance_file(64, CT, syntax)
        offered = encoded(association_request([PresentationContext(CT, (syntax,))]))
        seeds[f"store-{name}"] = b"\1" + offered + _store(file) + release
    return seeds


# --- files


def _files() -> Seeds:
    small = {name: make_instance_file(32, CT, syntax) for name, syntax in NATIVE.items()}
    whole = {
        f"object-{name}": file_bytes(make_instance(CT, syntax, rows=4, columns=4)) for name, syntax in NATIVE.items()
    }
    explicit = small["explicit"]
    return {
        **small,
        **whole,
        "encapsulated": make_instance_file(32, CT, JPEG_BASELINE),
        "no-preamble": explicit[128:],
        "odd": explicit + b"\0",
        "found-nothing-but-a-group-length": _head_of(explicit) + struct.pack("<HH2sHL", 8, 0, b"UL", 4, 0),
        "head-only": explicit[:300],
        "group-length-wrong": explicit[:140] + b"\xff\xff\xff\xff" + explicit[144:],
    }


def _archives() -> Seeds:
    object_, text = make_instance_file(32), b"no object"
    seeds = {
        "stored": _zip({"a.dcm": object_, "folder/text": text}, zipfile.ZIP_STORED),
        "deflated": _zip({"a.dcm": object_, "b/": b"", "b/c.dcm": make_instance_file(8)}, zipfile.ZIP_DEFLATED),
        "bzip2": _zip({"a.dcm": object_}, zipfile.ZIP_BZIP2),
        "lzma": _zip({"a.dcm": object_}, zipfile.ZIP_LZMA),
        "large": _zip({"a.dcm": make_instance_file(1_200_000)}, zipfile.ZIP_DEFLATED),
        "zip64": _zip({"a.dcm": object_}, zipfile.ZIP_STORED, force_zip64=True),
        "implicit": _zip({"a.dcm": make_instance_file(8, CT, IMPLICIT_VR_LITTLE_ENDIAN)}, zipfile.ZIP_DEFLATED),
        "nested": _zip({"a.zip": _zip({"a.dcm": object_}, zipfile.ZIP_STORED)}, zipfile.ZIP_STORED),
        "empty": _zip({}, zipfile.ZIP_STORED),
    }
    return {
        **seeds,
        "behind-a-program": b"#!/bin/sh\nexit\n" + seeds["stored"],
        "comment": seeds["stored"][:-2] + b"\3\0abc",
    }


def _zip(files: Mapping[str, bytes], method: int, *, force_zip64: bool = False) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)  # of 1980
            member.compress_type = method
            with archive.open(member, "w", force_zip64=force_zip64) as stream:
                stream.write(data)
    return made.getvalue()


def _directories() -> Seeds:
    names = [b"A ", b"D\\B ", b"..\\outside", b"L ", b"U\\outside ", b"a ", b"D/B ", b"GONE"]
    records = [_record(name) for name in names]
    undefined = [_record(name, undefined=True) for name in names]
    whole = _element(4, 0x1220, b"SQ", b"".join(records))
    return {
        "explicit": _directory(whole),
        "undefined-lengths": _directory(_sequence(undefined)),
        "not-in-use": _directory(_element(4, 0x1220, b"SQ", _record(b"A ", in_use=False) + _record(b"A "))),
        "nested": _directory(_sequence([_item(_sequence([_item(b"")]) + _element(4, 0x1500, b"CS", b"A "))])),
        "no-records": _directory(_element(4, 0x1130, b"CS", b"SET ")),
        "cut": _directory(whole)[:-30],
    }


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"SQ":
        return struct.pack("<HH2sHL", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if length is None else length) + content


def _sequence(items: list[bytes]) -> bytes:
    head = struct.pack("<HH2sHL", 4, 0x1220, b"SQ", 0, 0xFFFFFFFF)
    return head + b"".join(items) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def _record(file_id: bytes, *, in_use: bool = True, undefined: bool = False) -> bytes:
    content = _element(4, 0x1410, b"US", b"\xff\xff" if in_use else b"\0\0") + _element(4, 0x1500, b"CS", file_id)
    if undefined:
        return _item(content, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    return _item(content)


def _directory(data_set: bytes) -> bytes:
    return _head_of(make_instance_file(0, MEDIA_STORAGE_DIRECTORY)) + data_set


def _head_of(file: bytes) -> bytes:
    head = parse_head(file, at_end=True, directory=True)
    if head is None:
        raise ValueError("no DICOM file")
    return file[: head.data_set_offset]


if __name__ == "__main__":
    main()
