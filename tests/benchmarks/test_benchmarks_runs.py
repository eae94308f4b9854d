"""The benchmarks on a handful of files: that they run, and that a run counts only if all arrived. Nothing is timed."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from pydicom import dcmread

from benchmarks import contests
from benchmarks.contests import RECEIVERS, SINK_TLS, TLS_PROCESSES, Contest, Contestant, inside, sink
from benchmarks.processes import Failed, Process
from benchmarks.receivers import Storing, listening
from benchmarks.rounds import play, prepare, rounds
from benchmarks.run import Run
from benchmarks.workshop import Workshop

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux"),
]

COUNT = 6


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("benchmarks"))


def played(workshop: Workshop, contest: Contest) -> dict[str, Run]:
    contest = attrs.evolve(contest, most_runs=1)
    prepare(contest, workshop)
    return {turn.contestant.name: play(turn, workshop) for turn in rounds(contest, 1)}


def sending(*contestants: Contestant, options: tuple[str, ...] = (), limit: str = "16k") -> Contest:
    return Contest("sending", "", "tiny", COUNT, sink(limit, *options), contestants)


@pytest.mark.parametrize("limit", ["16k", "128k", "0"])
def test_c_sends_all_to_the_sink(workshop: Workshop, limit: str) -> None:
    assert played(workshop, sending(contests.C_SENDER, limit=limit))["C"].objects == COUNT


def test_c_sends_with_a_window_to_a_sink_that_is_slow(workshop: Workshop) -> None:
    run = played(workshop, sending(contests.C_WINDOW, options=("-w", "8", "-d", "1")))["C, window 8"]
    assert run.objects == COUNT


def test_a_large_object_has_many_pdus(workshop: Workshop) -> None:
    contest = Contest("big", "", "big", 9, sink("16k"), (contests.C_SENDER,))  # more than two writes of 256 PDUs
    assert played(workshop, contest)["C"].bytes > 9 << 20


def test_both_forms_within_a_process(workshop: Workshop) -> None:
    runs = played(
        workshop,
        sending(
            inside("send", "send", rehearsed=2),
            inside("sender", "sender", "--window", "8", times=2, rehearsed=2),
            options=("-w", "8"),
        ),
    )
    assert [runs[name].objects for name in ("send", "sender")] == [COUNT, 2 * COUNT]
    assert all(run.cpu > 0 and run.seconds > 0 and run.peak_memory > 10**7 for run in runs.values())
    assert runs["send"].start_up is None  # what was rehearsed was first


@pytest.mark.parametrize("kind", ["tiny", "big"])
def test_bare_python_sends_the_same(workshop: Workshop, kind: str) -> None:
    contest = Contest("bare", "", kind, COUNT, sink("16k"), contests.BY_BARE)  # of 6 MiB, each buffer is used again
    runs = played(workshop, contest)
    assert {run.objects for run in runs.values()} == {COUNT if kind == "tiny" else 1}
    assert not any(run.has_other_bytes for run in runs.values())


def test_the_command_over_tls(workshop: Workshop) -> None:
    contest = Contest("tls", "", "tiny", COUNT, SINK_TLS, TLS_PROCESSES[:1])
    run = played(workshop, contest)["trio-dicom send"]
    assert run.cipher == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert run.start_up is not None
    assert 0 < run.start_up < run.seconds


OF_PYTHON = [each for each in RECEIVERS if each.needs == "{python}"]


@pytest.mark.parametrize("receiver", OF_PYTHON, ids=[each.name for each in OF_PYTHON])
def test_receivers_file_each_object(workshop: Workshop, receiver: Contestant) -> None:
    run = played(workshop, Contest("receiving", "", "tiny", COUNT, None, (receiver,)))[receiver.name]
    assert run.objects == COUNT
    assert {path.stat().st_size for path in workshop.received.glob("*/*.dcm")} == {0}


def test_a_run_in_which_not_all_arrived_does_not_count(workshop: Workshop) -> None:
    fewer = workshop.objects("tiny", COUNT - 1).path
    sender = attrs.evolve(contests.C_SENDER, command=("{yardstick}", "{port}", str(fewer)))
    with pytest.raises(Failed, match=f"{COUNT - 1} of {COUNT} objects arrived"):
        played(workshop, sending(sender))


def test_a_run_with_other_bytes_counts_for_who_may_encode_anew(workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.objects("tiny", COUNT).path, tmp_path / "longer")
    with open(next((tmp_path / "longer").iterdir()), "ab") as file:
        file.write(bytes(2))
    sender = attrs.evolve(contests.C_SENDER, command=("{yardstick}", "{port}", str(tmp_path / "longer")))
    with pytest.raises(Failed, match="bytes arrived"):
        played(workshop, sending(sender))
    assert played(workshop, sending(attrs.evolve(sender, encodes_anew=True)))["C"].has_other_bytes


def test_who_ends_with_an_error_is_told_of(workshop: Workshop) -> None:
    with pytest.raises(Failed, match=r"exit code 1: .*no-such-folder"):
        played(workshop, sending(attrs.evolve(contests.C_SENDER, command=("{yardstick}", "{port}", "no-such-folder"))))


def test_a_receiver_that_does_not_listen_is_told_of(workshop: Workshop) -> None:
    receiver = attrs.evolve(sink("16k"), command=("{sink}", "-x"))
    with (
        pytest.raises(Failed, match=r"does not listen: (.|\n)*usage"),
        listening(receiver, workshop.words, workshop.received),
    ):
        pass


def test_a_process_that_hangs_is_killed() -> None:
    assert Process(["sleep", "600"]).wait(0.1).exit_code == -9


def test_the_corpus_is_valid_and_the_same_every_time(workshop: Workshop, tmp_path: Path) -> None:
    first = workshop.objects("tiny", COUNT)
    again = Workshop(tmp_path).objects("tiny", COUNT)
    pairs = [*zip(sorted(first.path.iterdir()), sorted(again.path.iterdir()), strict=True)]
    assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)
    data_sets = [dcmread(one) for one, _ in pairs]
    assert len({each.SOPInstanceUID for each in data_sets}) == COUNT
    assert all(len(each.PixelData) == 2 * each.Rows * each.Columns for each in data_sets)


# --- the sink is strict -----------------------------------------------------------------------------------------------

CONTEXT = 1
SOP_CLASS, INSTANCE = b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.3.4\0"


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def pdu(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(value)) + value


def association_request() -> bytes:
    syntaxes = item(0x30, SOP_CLASS.rstrip(b"\0")) + item(0x40, b"1.2.840.10008.1.2.1")
    contexts = b"".join(item(0x20, bytes((number, 0, 0, 0)) + syntaxes) for number in (CONTEXT, 5))
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    fixed = struct.pack(">HH16s16s32x", 1, 0, b"ANY-SCP".ljust(16), b"TEST".ljust(16))
    return pdu(1, fixed + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + item(0x50, user))


def fragment(control: int, data: bytes, context: int = CONTEXT) -> bytes:
    return pdu(4, struct.pack(">IBB", len(data) + 2, context, control) + data)


def request(
    group_length_error: int = 0, data_set_type: int = 1, instance: bytes = INSTANCE, left_out: int | None = None
) -> bytes:
    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    numbers = {0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: data_set_type}
    body = element(0x0002, SOP_CLASS)
    body += b"".join(
        element(number, struct.pack("<H", value)) for number, value in numbers.items() if number != left_out
    )
    body += element(0x1000, instance)
    return element(0x0000, struct.pack("<I", len(body) + group_length_error)) + body


RELEASE = pdu(5, bytes(4))
DATA = bytes(100)
BROKEN = {  # by what the sink says of it
    "the group length of a command set": fragment(3, request(group_length_error=2)),
    "neither a C-STORE-RQ with a data set": fragment(3, request(data_set_type=0x0101)),
    "a UID in a command set": fragment(3, request(instance=b"1.2.x\0")),
    "a command set without what it must have": fragment(3, request(left_out=0x0110)),
    "a fragment out of its turn": fragment(3, request()) + fragment(0, DATA) + fragment(3, request()),
    "a data set of no or of odd length": fragment(3, request()) + fragment(2, DATA[:99]),
    "the message control header or the context": fragment(3, request(), context=3),
    "a message in two contexts": fragment(3, request()) + fragment(2, DATA, context=5),
    "a PDU above the maximum length": fragment(3, request()) + fragment(2, bytes(16384)),
    "a PDV is longer than its PDU": pdu(4, struct.pack(">IBB", 1000, CONTEXT, 3) + bytes(50)),
    "a release in the middle": fragment(3, request()) + RELEASE,
    "the stream ends without a release": fragment(3, request()) + fragment(2, DATA),
    "the stream ends in a data set": fragment(3, request()) + fragment(2, DATA)[:-1],
    "a PDU out of its turn": association_request(),
    "it aborted": fragment(3, request()) + fragment(2, DATA) + pdu(7, bytes(4)),
}


def converse(workshop: Workshop, text: bytes) -> tuple[bytes, Failed | None, int | None]:
    """What the sink answers to it, behind an association that it accepts; why it complains; objects it counted."""
    with listening(sink("16k"), workshop.words, workshop.received) as peer:
        with socket.create_connection(("127.0.0.1", peer.port), timeout=10) as connection:
            connection.sendall(association_request() + text)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(pieces(connection))
        try:
            return answer, None, peer.end()[1].objects
        except Failed as failure:
            return answer, failure, None


def pieces(connection: socket.socket) -> Iterator[bytes]:
    try:
        while data := connection.recv(1 << 16):
            yield data
    except ConnectionResetError:
        pass  # it hung up with something of ours unread


def test_the_sink_takes_a_whole_conversation(workshop: Workshop) -> None:
    assert sink("16k").storing is Storing.COUNTED
    answer, failure, objects = converse(workshop, fragment(3, request()) + fragment(2, DATA) + RELEASE)
    assert (failure, objects) == (None, 1)
    assert answer[0] == 2
    assert answer.endswith(pdu(6, bytes(4)))


def test_the_sink_does_not_mind_an_association_that_was_not_needed(workshop: Workshop) -> None:
    _, failure, objects = converse(workshop, pdu(7, bytes(4)))
    assert (failure, objects) == (None, 0)


@pytest.mark.parametrize("reason", BROKEN)
def test_the_sink_aborts_who_breaks_the_protocol(workshop: Workshop, reason: str) -> None:
    _, failure, _ = converse(workshop, BROKEN[reason])
    assert failure is not None
    assert f"the peer broke the protocol: {reason}" in str(failure)
