"""Files that are not as they should be, or do not stay so while they are sent: rows 95, 99 to 104, 107 and 108."""

from __future__ import annotations

import errno
import io
import os
import pathlib

import pytest
import trio
import trio.testing

from sources.source_helpers import data_set, decoded, meta
from support.draining_scp import draining_scp
from support.encounter import BLOCKING, Encounter, meet
from support.sending import outcomes, send_all, sender_to
from trio_dicom import (
    CStoreSCU,
    InvalidObject,
    NoPresentationContext,
    ObjectChanged,
    Outcome,
    PresentationContext,
    ReadError,
    Retry,
    open_association,
)
from trio_dicom.protocol.pdu import AssociateRQ, ReleaseRQ
from trio_dicom.sources.part10 import parse_head
from trio_dicom.testing import ScriptedPeer, SOPClass, make_instance_file, socket_pair_streams, storage_scp
from trio_dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

JPEG = "1.2.840.10008.1.2.4.50"
INVALID, NOT_SENT, NO_CONTEXT, STORED = Outcome.INVALID, Outcome.NOT_SENT, Outcome.NO_CONTEXT, Outcome.STORED
LARGE = 5 << 20  # of which no more than a batch or two fit into what lies between
GOOD = make_instance_file(1000, number=9)


class Shelf:
    """A peer that stores what comes, and keeps the data sets."""

    def __init__(self) -> None:
        self.data_sets: list[bytes] = []

    async def __call__(self, peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, request, data = await peer.receive_message()
        self.data_sets.append(data)
        await peer.answer(context_id, request)


async def store_all(peer: ScriptedPeer) -> None:
    await peer.accept()
    await peer.serve_requests()


def body_of(file: bytes) -> bytes:
    head = parse_head(file, at_end=True)
    assert head is not None
    return file[head.data_set_offset :]


def check_abort(met: Encounter, streams: object) -> None:
    """At once; of a stream nobody knows how far a cancelled write came: it is only closed."""
    assert trio.current_time() <= 3
    if streams is socket_pair_streams:
        assert met.aborted_with == (0, 0)


def put(folder: pathlib.Path, data: bytes) -> pathlib.Path:
    path = folder / "image.dcm"
    path.write_bytes(data)
    return path


# --- 95: the group length ---------------------------------------------------------------------------------------------


@pytest.mark.fault_row(95)
@pytest.mark.parametrize("length", [None, 0, 2, 10_000, 0xFFFFFFFF], ids="fault95-{}".format)
async def test_the_group_length_is_not_relied_upon(length, tmp_path, autojump_clock):
    shelf = Shelf()
    path = put(tmp_path, meta(group_length=length) + data_set())
    assert (await meet(shelf, inputs=[path])).outcome is STORED
    assert shelf.data_sets == [data_set()]


# --- 99, 100: not whole ----------------------------------------------------------------------------------------------


@pytest.mark.fault_row(99, 100)
@pytest.mark.parametrize(
    "cut", [2, 500, -1, 1000 + 4], ids=["fault99-pixels", "fault99-more", "fault100-odd", "fault99-header"]
)
async def test_a_file_that_is_not_whole_is_not_begun(cut, tmp_path, autojump_clock):
    path = put(tmp_path, GOOD[:-cut] if cut > 0 else GOOD + b"x")
    met = await meet(store_all, inputs=[path, io.BytesIO(GOOD)])
    assert type(met.error) is InvalidObject
    assert met.outcomes == [INVALID, STORED]
    assert met.association.failure is None
    assert met.data_sets_completed == 1


class Drip(trio.abc.ReceiveStream):
    """A stream whose end nobody knows beforehand."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self.data, self.error = data, error

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        if not self.data and self.error:
            raise self.error
        chunk, self.data = self.data[:30_001], self.data[30_001:]
        return chunk

    async def aclose(self):
        pass


@pytest.mark.fault_row(99, 100, 115)
@BLOCKING
@pytest.mark.parametrize(
    ("file", "cause"),
    [
        pytest.param(make_instance_file(LARGE)[:-2], None, id="fault99-by_a_word"),
        pytest.param(make_instance_file(LARGE)[: -LARGE // 2], None, id="fault99-by_half"),
        pytest.param(make_instance_file(LARGE, transfer_syntax=JPEG)[:-8], None, id="fault99-without_delimiter"),
        pytest.param(make_instance_file(LARGE) + b"x", None, id="fault100-odd"),
        pytest.param(make_instance_file(LARGE), RuntimeError("a bug"), id="fault115-raises"),
    ],
)
async def test_a_stream_that_is_not_whole_is_not_completed(file, cause, streams, autojump_clock):
    contexts = [PresentationContext(SOPClass.CT, [syntax]) for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, JPEG)]
    inputs = [Drip(file, cause), io.BytesIO(GOOD)]
    met = await meet(store_all, inputs=inputs, contexts=contexts, streams=streams())
    assert type(met.error) is (InvalidObject if cause is None else ReadError)
    assert met.error.__cause__ is cause
    assert not met.error.in_doubt
    assert met.outcomes == [INVALID if cause is None else NOT_SENT, NOT_SENT]
    assert met.data_sets_completed == 0
    check_abort(met, streams)


# --- 102 to 104: transfer syntaxes ----------------------------------------------------------------------------------


def only(transfer_syntax: str) -> list[PresentationContext]:
    return [PresentationContext(SOPClass.CT, [transfer_syntax])]


@pytest.mark.fault_row(102, 103, 104)
@pytest.mark.parametrize("syntax", [DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, JPEG, EXPLICIT_VR_BIG_ENDIAN,
                                    IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])  # fmt: skip
async def test_a_file_goes_out_in_its_own_transfer_syntax_as_it_lies(syntax, tmp_path, autojump_clock):
    shelf = Shelf()
    file = make_instance_file(1000, transfer_syntax=syntax)
    assert (await meet(shelf, inputs=[put(tmp_path, file)], contexts=only(syntax))).outcome is STORED
    assert shelf.data_sets == [body_of(file)]


@pytest.mark.fault_row(102, 103, 104)
@pytest.mark.parametrize(
    ("own", "accepted", "as_stream"),
    [
        pytest.param(JPEG, EXPLICIT_VR_LITTLE_ENDIAN, False, id="fault103-compressed"),
        pytest.param(EXPLICIT_VR_LITTLE_ENDIAN, JPEG, False, id="fault103-to_be_compressed"),
        pytest.param(EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, False, id="fault104-big_endian"),
        pytest.param(IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, False, id="fault104-to_big_endian"),
        pytest.param(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, True, id="fault102-stream"),
    ],
)
async def test_what_is_not_converted_has_no_context(own, accepted, as_stream, tmp_path, autojump_clock):
    file = make_instance_file(1000, transfer_syntax=own)
    item = io.BytesIO(file) if as_stream else put(tmp_path, file)
    met = await meet(store_all, inputs=[item], contexts=only(accepted))
    assert type(met.error) is NoPresentationContext
    assert met.outcome is NO_CONTEXT
    assert [type(pdu) for pdu in met.pdus] == [AssociateRQ, ReleaseRQ]


NATIVE = [DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]


@pytest.mark.fault_row(102, 104)
@pytest.mark.parametrize(("own", "accepted"), [(own, other) for own in NATIVE for other in NATIVE if own != other])
async def test_what_is_encoded_anew_has_the_same_values(own, accepted, tmp_path, autojump_clock):
    shelf = Shelf()
    file = make_instance_file(1000, transfer_syntax=own)
    assert (await meet(shelf, inputs=[put(tmp_path, file)], contexts=only(accepted))).outcome is STORED
    (sent,) = shelf.data_sets
    assert len(sent) % 2 == 0
    assert decoded(sent, accepted) == decoded(body_of(file), own)


# --- 109: large ones ------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(109)
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("as_stream", [False, True], ids=["fault109-path", "fault109-stream"])
async def test_more_than_four_gigabytes(as_stream, tmp_path):
    """Two fragments of more than 2 GiB each, in a sparse file."""
    path, size = tmp_path / "video.dcm", (2 << 30) + 1000
    head = make_instance_file(0, transfer_syntax=JPEG)[:-16]  # to the Basic Offset Table; an empty fragment, the end
    with path.open("wb") as file:
        file.write(head)
        for _ in range(2):
            file.write(b"\xfe\xff\0\xe0" + size.to_bytes(4, "little"))
            file.seek(size, os.SEEK_CUR)
        file.write(b"\xfe\xff\xdd\xe0\0\0\0\0")
    with draining_scp() as scp, path.open("rb") as stream:
        async with open_association(scp.address, only(JPEG)) as association:
            response = await CStoreSCU(association).send(stream if as_stream else path)
    assert response.is_success
    assert scp.data_set_bytes == response.bytes_sent == path.stat().st_size - len(head) + len(body_of(head))


# --- 107, 108: while it is sent -------------------------------------------------------------------------------------


def grow(path):
    with path.open("ab") as stream:
        stream.write(b"xx")


def shrink(path):
    os.truncate(path, path.stat().st_size - 2)


def rewrite(path):
    with path.open("r+b") as stream:
        stream.write(b"\0")
    os.utime(path, ns=(1, 1))


def replace(path):
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


@pytest.mark.fault_row(108)
@BLOCKING
@pytest.mark.parametrize("change", [grow, shrink, rewrite, replace, pathlib.Path.unlink],
                         ids=lambda change: f"fault108-{change.__name__}")  # fmt: skip
async def test_a_file_that_changes_while_it_is_sent(change, streams, tmp_path, autojump_clock):
    path = put(tmp_path, make_instance_file(LARGE))

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.receive_command()
        await peer.receive_pdv()
        change(path)
        await peer.hold()

    met = await meet(script, inputs=[path, io.BytesIO(GOOD)], streams=streams())
    assert type(met.error) is ObjectChanged
    assert not met.error.in_doubt
    assert met.outcomes == [NOT_SENT, NOT_SENT]
    assert met.data_sets_completed == 0
    check_abort(met, streams)


class Disk:
    """Reads of the file's second MiB fail, `times` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, times: float) -> None:
        self.real, self.code, self.left = os.preadv, code, times
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, fd, buffers, offset, *flags):
        if offset >= 1 << 20 and self.left > 0:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))
        return self.real(fd, buffers, offset, *flags)


@pytest.mark.fault_row(107)
@BLOCKING
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE], ids=lambda code: f"fault107-{errno.errorcode[code]}")
async def test_a_disk_that_fails_in_the_middle(code, streams, tmp_path, autojump_clock, monkeypatch):
    path = put(tmp_path, make_instance_file(LARGE))
    Disk(monkeypatch, code, 1)
    met = await meet(store_all, inputs=[path, io.BytesIO(GOOD)], streams=streams())
    assert type(met.error) is ReadError
    assert met.error.retry is Retry.LATER
    assert met.error.__cause__.errno == code
    assert met.outcomes == [NOT_SENT, NOT_SENT]
    assert met.data_sets_completed == 0
    check_abort(met, streams)


@pytest.mark.fault_row(107)
@pytest.mark.parametrize(
    ("times", "end"),
    [(1, {STORED: 3}), (1_000_000, {STORED: 2, NOT_SENT: 1})],
    ids=["fault107-once", "fault107-always"],
)
async def test_a_disk_that_fails_in_the_middle_costs_the_others_nothing(
    times, end, tmp_path, autojump_clock, monkeypatch
):
    path = put(tmp_path, make_instance_file(LARGE))
    disk = Disk(monkeypatch, errno.EIO, times)
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        reports = await send_all(
            sender, [io.BytesIO(make_instance_file(100, number=2)), path, io.BytesIO(make_instance_file(100, number=3))]
        )
    assert outcomes(reports) == end
    assert sender.report.associations > 1
    assert disk.left < times
    assert len(scp.received) == end[STORED]


@pytest.mark.fault_row(99)
async def test_fault99_a_stream_that_is_cut_off_costs_the_others_nothing(autojump_clock):
    """It shows when most of it has gone: the association is aborted, the others go over another one."""
    cut = make_instance_file(LARGE, number=2)[:-2]
    inputs = [io.BytesIO(make_instance_file(100)), Drip(cut), io.BytesIO(cut), io.BytesIO(GOOD)]
    async with storage_scp() as scp, sender_to(scp, associations=1) as sender:
        reports = await send_all(sender, inputs)
    assert [report.outcome for report in sorted(reports, key=lambda each: each.number)] == [
        STORED,
        INVALID,
        INVALID,
        STORED,
    ]
    assert len(scp.received) == 2
