"""Bytes to PDUs: however they are cut, the same PDUs come out; and what cannot be is refused from its header."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_dicom.errors import InvalidPDU, ProtocolViolation, UnrecognisedPDU
from trio_dicom.protocol import user_information as ui
from trio_dicom.protocol.pdu import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
)
from trio_dicom.protocol.receive_buffer import ReceiveBuffer
from trio_dicom.settings import Limits

LIMITS = Limits()

PDUS = (
    AssociateRQ("A", "B", (PresentationContextRQ(1, "1.2", ("1.3",)),), (ui.MaximumLength(16384),)),
    AssociateAC("A", "B", (PresentationContextAC(1, 0, ("1.3",)),), (ui.MaximumLength(16384),)),
    AssociateRJ(1, 1, 1),
    PDataTF((PDV(1, True, True, b"command."), PDV(1, False, False, b"data"))),
    PDataTF((PDV(1, False, True, bytes(range(200))),)),
    ReleaseRQ(),
    ReleaseRP(),
    Abort(2, 0),
)


def encode(*pdus: PDU) -> bytes:
    return b"".join(buffer for pdu in pdus for buffer in pdu.encode())


WRONG_INSIDE = bytes.fromhex("04 00 00000008 00000005 01 03 6162")  # the PDV is longer than its PDU
WRONG_LENGTH = bytes.fromhex("05 00 00000005 0000000000")
WRONG_TYPE = b"HTTP/1.1 400 Bad Request\r\n\r\n"
STREAMS = {
    "all-types": encode(*PDUS),
    "incomplete": encode(*PDUS)[:-1],
    "wrong-inside": encode(PDUS[3]) + WRONG_INSIDE + encode(PDUS[4], PDUS[7]),
    "wrong-length": encode(PDUS[3]) + WRONG_LENGTH + encode(PDUS[4]),
    "wrong-type": encode(PDUS[3], PDUS[4]) + WRONG_TYPE,
}


def read_one(buffer: ReceiveBuffer) -> list[object]:
    """The next PDU, what is known of the error in its place, or nothing."""
    try:
        pdu = buffer.next_pdu()
    except ProtocolViolation as error:
        return [(type(error), str(error), error.abort_source, error.abort_reason)]
    return [] if pdu is None else [pdu]


def read_all(buffer: ReceiveBuffer) -> list[object]:
    events: list[object] = []
    while event := read_one(buffer):
        events += event
    return events


def trace(stream: bytes, cuts: list[int]) -> list[object]:
    """The events of `stream` in pieces that end at `cuts`, read after each."""
    buffer = ReceiveBuffer(LIMITS)
    events: list[object] = []
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        buffer.feed(stream[start:end])
        events += read_all(buffer)
    return [*events, buffer.is_inside_pdu]


def test_all_types_come_out_as_they_went_in() -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(encode(*PDUS))
    assert read_all(buffer) == list(PDUS)
    assert not buffer.is_inside_pdu


@pytest.mark.fault_row(46)
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_byte_at_a_time_gives_the_same(stream: bytes) -> None:
    assert trace(stream, list(range(len(stream)))) == trace(stream, [])


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_cut_at_any_place_gives_the_same(stream: bytes) -> None:
    whole = trace(stream, [])
    for cut in range(len(stream)):
        assert trace(stream, [cut]) == whole


@pytest.mark.fault_row(46)
@given(st.data(), st.sampled_from(list(STREAMS)))
def test_random_cuts_give_the_same(data: st.DataObject, name: str) -> None:
    stream = STREAMS[name]
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert trace(stream, cuts) == trace(stream, [])


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=12), st.sampled_from(list(STREAMS)))
def test_chunks_may_be_fed_before_the_older_ones_are_read(steps: list[tuple[int, bool]], name: str) -> None:
    stream = STREAMS[name]
    buffer = ReceiveBuffer(LIMITS)
    events: list[object] = []
    at = 0
    for size, is_read in [*steps, (len(stream), False)]:
        buffer.feed(stream[at : at + size])
        at += size
        if is_read:
            events += read_one(buffer)
    events += read_all(buffer)
    assert [*events, buffer.is_inside_pdu] == trace(stream, [])


def test_bytes_stay_in_order_when_some_wait_behind_a_chunk_that_is_read_to_its_end() -> None:
    first, second = encode(PDUS[3]), encode(PDUS[4])
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(first)
    buffer.feed(second[:1])
    assert buffer.next_pdu() == PDUS[3]
    buffer.feed(second[1:])
    assert buffer.next_pdu() == PDUS[4]


def test_no_more_than_none_of_nothing() -> None:
    buffer = ReceiveBuffer(LIMITS)
    assert buffer.next_pdu() is None
    buffer.feed(b"")
    assert buffer.next_pdu() is None
    assert not buffer.is_inside_pdu
    assert buffer.longest_p_data == 0


def test_is_inside_pdu_from_the_first_byte_to_the_last() -> None:
    buffer = ReceiveBuffer(LIMITS)
    for byte in encode(ReleaseRQ())[:-1]:
        buffer.feed(bytes((byte,)))
        assert buffer.is_inside_pdu
        assert buffer.next_pdu() is None
        assert buffer.is_inside_pdu
    buffer.feed(b"\0")
    assert buffer.next_pdu() == ReleaseRQ()
    assert not buffer.is_inside_pdu


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_is_taken(kind: type[bytes]) -> None:
    raw = encode(PDUS[4])
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(kind(raw[:10]))
    assert buffer.next_pdu() is None
    buffer.feed(kind(raw[10:] + raw))
    assert read_all(buffer) == [PDUS[4], PDUS[4]]


def test_pdus_that_lie_in_one_chunk_are_not_copied() -> None:
    chunk = encode(PDUS[4]) * 3 + encode(PDUS[4])[:50]
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(chunk)
    for _ in range(3):
        pdu = buffer.next_pdu()
        assert isinstance(pdu, PDataTF)
        assert isinstance(pdu.pdvs[0].data, memoryview)
        assert pdu.pdvs[0].data.obj is chunk


def test_a_pdu_that_was_handed_out_is_left_alone_by_later_bytes() -> None:
    buffer = ReceiveBuffer(LIMITS)
    raw = encode(PDUS[4])
    kept = []
    for _ in range(3):
        buffer.feed(raw[:7])
        assert buffer.next_pdu() is None
        buffer.feed(raw[7:20])
        buffer.feed(raw[20:])
        kept.append(buffer.next_pdu())
    buffer.feed(b"\xff" * 3)
    assert kept == [PDUS[4]] * 3


# --- refused from the header ----------------------------------------------------------------------------------------

HEADERS = {
    **{
        f"fault15-type-{pdu_type:02X}-of-{length:X}H": bytes((pdu_type, 0)) + length.to_bytes(4, "big")
        for pdu_type in range(1, 8)
        for length in (0xFFFFFFFF, 0x80000000, 0)
    },
    **{
        f"fault16-type-{pdu_type:02X}-of-{length}": bytes((pdu_type, 0)) + length.to_bytes(4, "big")
        for pdu_type in (3, 5, 6, 7)
        for length in (1, 3, 5, 68)
    },
    "fault62-request-above-the-limit": b"\x01\0" + (LIMITS.pdu_length + 1).to_bytes(4, "big"),
    "fault62-request-of-67": bytes.fromhex("0100 00000043"),
    "acceptance-of-67": bytes.fromhex("0200 00000043"),
    "data-of-5": bytes.fromhex("0400 00000005"),
    "fault72-data-above-the-limit": b"\x04\0" + (LIMITS.pdu_length + 1).to_bytes(4, "big"),
}


@pytest.mark.fault_row(15, 16, 62, 72)
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_length_that_cannot_be_is_refused_from_the_header_alone(header: bytes) -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(header[:5])
    assert buffer.next_pdu() is None
    buffer.feed(header[5:])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPDU) as caught:
            buffer.next_pdu()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 6)
    assert peak < 100_000


@pytest.mark.fault_row(17)
@pytest.mark.parametrize(
    ("start", "hint"),
    [
        pytest.param(b"\x00\0\0\0\0\4", None, id="fault17-type-00"),
        pytest.param(b"\x08\0\0\0\0\4", None, id="fault17-type-08"),
        pytest.param(b"\xff" * 6, None, id="fault17-type-FF"),
        pytest.param(b"HTTP/1.1 400 Bad Request", "HTTP", id="fault17-http-answer"),
        pytest.param(b"GET / HTTP/1.1\r\n", "HTTP", id="fault17-http-get"),
        pytest.param(b"POST /x HTTP/1.1\r\n", "HTTP", id="fault17-http-post"),
        pytest.param(b"HEAD / HTTP/1.1\r\n", "HTTP", id="fault17-http-head"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\n", "HTTP", id="fault17-http-options"),
        pytest.param(b"\x15\x03\x03\0\2\2\x28", "TLS", id="fault17-tls-alert"),
        pytest.param(b"\x16\x03\x01\x02\0\1", "TLS", id="fault17-tls-hello"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "SSH", id="fault17-ssh"),
    ],
)
@pytest.mark.parametrize("step", [1, 6, 100])
def test_another_protocol_is_recognised(start: bytes, hint: str | None, step: int) -> None:
    buffer = ReceiveBuffer(LIMITS)
    for at in range(0, 6, step):
        assert buffer.next_pdu() is None
        buffer.feed(start[at : at + step])
    with pytest.raises(UnrecognisedPDU) as caught:
        buffer.next_pdu()
    assert (caught.value.abort_source, caught.value.abort_reason) == (2, 1)
    text = str(caught.value)
    assert ("the peer speaks" in text) == (hint is not None)
    assert text.endswith(f"the peer speaks {hint}" if hint else '"')
    assert text.isprintable()


@pytest.mark.parametrize("pdu", PDUS, ids=lambda pdu: type(pdu).__name__)
def test_a_header_with_one_wrong_byte_is_refused_or_leads_to_a_pdu_or_to_waiting(pdu: PDU) -> None:
    raw = encode(pdu)
    for at in range(6):
        for value in range(256):
            events = trace(raw[:at] + bytes((value,)) + raw[at + 1 :], [])
            if value == raw[at] or at == 1:
                assert events == [pdu, False]
            else:
                assert pdu not in events


def test_after_a_header_that_cannot_be_everything_is_dropped() -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(WRONG_TYPE[:3])
    assert buffer.next_pdu() is None
    buffer.feed(WRONG_TYPE[3:])
    buffer.feed(encode(*PDUS))
    with pytest.raises(UnrecognisedPDU):
        buffer.next_pdu()
    for _ in range(3):
        assert buffer.next_pdu() is None
        buffer.feed(encode(*PDUS))
        assert not buffer.is_inside_pdu


def test_after_a_pdu_that_is_wrong_inside_the_next_one_is_found() -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(WRONG_INSIDE + encode(Abort()))
    with pytest.raises(InvalidPDU):
        buffer.next_pdu()
    assert buffer.next_pdu() == Abort()


def test_a_pdu_of_exactly_the_limit_is_taken() -> None:
    limits = Limits(pdu_length=4096)
    buffer = ReceiveBuffer(limits)
    pdu = PDataTF((PDV(1, False, True, bytes(4090)),))
    buffer.feed(encode(pdu))
    assert buffer.next_pdu() == pdu


# --- memory and time ------------------------------------------------------------------------------------------------


@pytest.mark.fault_row(15)
def test_a_declared_length_takes_no_memory() -> None:
    buffer = ReceiveBuffer(LIMITS)
    tracemalloc.start()
    try:
        buffer.feed(b"\x01\0" + LIMITS.pdu_length.to_bytes(4, "big") + bytes(1000))
        assert buffer.next_pdu() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000


def test_a_megabyte_a_byte_at_a_time_takes_linear_time() -> None:
    # Were every byte to copy what came before it, this would be half a terabyte, and run into the time limit.
    pdu = PDataTF((PDV(1, False, True, bytes(LIMITS.pdu_length - 6)),))
    raw = encode(pdu)
    buffer = ReceiveBuffer(LIMITS)
    for byte in [raw[at : at + 1] for at in range(len(raw) - 1)]:
        buffer.feed(byte)
        assert buffer.next_pdu() is None
    buffer.feed(raw[-1:])
    assert buffer.next_pdu() == pdu


# --- data sets, many PDUs at once -------------------------------------------------------------------------------------

CONTEXT = 1
DATA_STREAM = encode(
    PDataTF((PDV(CONTEXT, True, True, b"command."),)),
    *(PDataTF((PDV(CONTEXT, False, False, bytes((number,)) * (number + 1)),)) for number in range(9)),
    PDataTF((PDV(CONTEXT, False, False, b""),)),
    PDataTF((PDV(CONTEXT, False, False, b"two"), PDV(CONTEXT, False, False, b"PDVs"))),
    PDataTF((PDV(CONTEXT, False, True, b"the end."),)),
    PDataTF((PDV(CONTEXT, True, True, b"command."),)),
    PDataTF((PDV(CONTEXT, False, True, b"of one fragment."),)),
    PDataTF((PDV(3, False, True, b"of another context"),)),
    PDataTF((PDV(CONTEXT, False, False, b"never ended"),)),
    Abort(2, 0),
)


def data_sets(stream: bytes, cuts: list[int], *, is_short: bool = True) -> list[object]:
    """The data sets on CONTEXT, and all else, with `next_data` where it `is_short`."""
    buffer = ReceiveBuffer(LIMITS)
    found: list[object] = [b""]

    def take(data: bytes, is_last: bool) -> None:
        found[-1] += data  # type: ignore[operator]
        found.extend([b""] if is_last else [])

    for start, end in itertools.pairwise([0, *sorted(cuts), len(stream)]):
        buffer.feed(stream[start:end])
        while True:
            pieces, is_last = buffer.next_data(CONTEXT) if is_short else ([], False)
            assert all(pieces)
            take(b"".join(pieces), is_last)
            event = read_one(buffer)
            if not event:
                break
            for item in getattr(event[0], "pdvs", event):
                if isinstance(item, PDV) and item.context_id == CONTEXT and not item.is_command:
                    take(bytes(item.data), item.is_last)
                else:
                    found += [item, b""]
    return [*found, buffer.is_inside_pdu, buffer.longest_p_data]


@pytest.mark.parametrize("stream", [DATA_STREAM, DATA_STREAM[:-3], DATA_STREAM + WRONG_INSIDE], ids=len)
def test_data_sets_are_the_same_by_the_short_way(stream: bytes) -> None:
    whole = data_sets(stream, [], is_short=False)
    assert len(whole) > 9
    assert data_sets(stream, []) == whole
    assert data_sets(stream, list(range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert data_sets(stream, [cut]) == whole


@given(st.lists(st.integers(0, len(DATA_STREAM)), max_size=12))
def test_data_sets_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    assert data_sets(DATA_STREAM, cuts) == data_sets(DATA_STREAM, [], is_short=False)


def plain(size: int, *, is_last: bool = False) -> bytes:
    return encode(PDataTF((PDV(CONTEXT, False, is_last, bytes(size)),)))


def test_data_is_handed_on_before_its_pdu_is_whole() -> None:
    buffer = ReceiveBuffer(LIMITS)
    raw = plain(1000, is_last=True)
    buffer.feed(raw[:100])
    pieces, is_last = buffer.next_data(CONTEXT)
    assert ([*map(len, pieces)], is_last, buffer.is_inside_pdu) == ([88], False, True)
    assert buffer.next_pdu() is None
    assert buffer.next_data(CONTEXT) == ([], False)
    buffer.feed(raw[100:])
    pieces, is_last = buffer.next_data(CONTEXT)
    assert ([*map(len, pieces)], is_last, buffer.is_inside_pdu) == ([912], True, False)


def test_the_rest_of_a_pdu_that_nobody_wants_any_more_is_passed_over() -> None:
    buffer = ReceiveBuffer(LIMITS)
    raw = plain(1000) + encode(Abort(2, 0))
    buffer.feed(raw[:100])
    assert buffer.next_data(CONTEXT)[0]
    buffer.feed(raw[100:500])
    assert buffer.next_pdu() is None
    buffer.feed(raw[500:])
    assert read_all(buffer) == [Abort(2, 0)]


@pytest.mark.parametrize(
    "raw",
    [
        encode(PDataTF((PDV(CONTEXT, True, False, b"a command"),))),
        encode(PDataTF((PDV(3, False, False, b"another context"),))),
        encode(PDataTF((PDV(CONTEXT, False, False, b"two"), PDV(CONTEXT, False, False, b"PDVs")))),
        encode(PDataTF((PDV(CONTEXT, False, False, b""), PDV(CONTEXT, False, False, b"data")))),
        WRONG_INSIDE + bytes(20),
        b"\x04\0"
        + (LIMITS.pdu_length + 1).to_bytes(4, "big")
        + LIMITS.pdu_length.to_bytes(4, "big")
        + b"\1\0"
        + bytes(9),
        b"\x05" + plain(4)[1:],
        plain(4)[:12],
    ],
)
def test_what_is_not_plain_is_left_alone(raw: bytes) -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(plain(20) + raw)
    pieces, is_last = buffer.next_data(CONTEXT)
    assert ([*map(len, pieces)], is_last) == ([20], False)
    assert buffer.next_data(CONTEXT) == ([], False)


def test_not_too_many_at_once() -> None:
    buffer = ReceiveBuffer(LIMITS)
    buffer.feed(plain(1) * 1000)
    counts = [len(buffer.next_data(CONTEXT)[0]) for _ in range(5)]
    assert counts == [256, 256, 256, 232, 0]
