"""SIGKILL of a receiver at random moments: what it answered with 0000 is there, whole, and no part of anything else."""

from __future__ import annotations

import io
import random
import signal
from pathlib import Path

import pytest
import trio

from services.receiver_process import ReceiverProcess, receiver_process
from trio_dicom import CStoreSCU, TrioDicomError, open_association
from trio_dicom.testing import instance_uid, make_instance_file

CT = "1.2.840.10008.5.1.4.1.1.2"
SIZES = (256, 20_000, 300_000, 3_000_000)
LONGEST_LIFE = 12  # objects


def make_object(size: int, number: int, sent: dict[str, bytes]) -> tuple[bytes, str]:
    """A file and its SOP Instance UID; what of it goes over the wire is noted in `sent`."""
    file, uid = make_instance_file(size, number=number), instance_uid(number)
    sent[uid] = file[file.index(b"\x08\x00\x16\x00UI") :]
    return file, uid


async def send_until_killed(receiver: ReceiverProcess, seed: int, sent: dict[str, bytes], stored: set[str]) -> None:
    """Send on two associations; the receiver is killed a moment after so many objects were answered."""
    moments = random.Random(seed)
    wanted = len(stored) + moments.randrange(LONGEST_LIFE)
    is_time = trio.Event()
    if len(stored) == wanted:  # before it has answered anything
        is_time.set()

    async def send(lane: int) -> None:
        try:
            async with open_association(receiver.address, [CT]) as association:
                scu = CStoreSCU(association)
                for number in range(1000):
                    size = SIZES[(number + lane) % len(SIZES)]
                    file, uid = make_object(size, 1_000_000 * seed + 10_000 * lane + number, sent)
                    response = await scu.send(io.BytesIO(file))
                    assert response.sop_instance_uid == uid
                    if response.is_success:
                        stored.add(uid)
                    if len(stored) >= wanted:
                        is_time.set()
        except TrioDicomError:
            pass  # as was to be expected

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, 0)
        nursery.start_soon(send, 1)
        with trio.move_on_after(30):
            await is_time.wait()
        await trio.sleep(moments.uniform(0.0, 0.02))
        receiver.process.send_signal(signal.SIGKILL)


def check(folder: Path, sent: dict[str, bytes], stored: set[str]) -> int:
    """How many temporary files a killed receiver left."""
    filed = {path.name.removesuffix(".dcm"): path for path in folder.iterdir() if not path.name.startswith(".")}
    assert stored <= set(filed)
    for uid, path in filed.items():
        assert path.read_bytes().endswith(sent[uid]), "a part of an object under a final name"
        assert path.read_bytes()[128:132] == b"DICM"
    return sum(path.name.startswith(".") for path in folder.iterdir())


async def kill(tmp_path: Path, times: int, *, first_seed: int = 1) -> tuple[int, int]:
    sent: dict[str, bytes] = {}
    stored: set[str] = set()
    left = 0
    for seed in range(first_seed, first_seed + times):
        with receiver_process(tmp_path) as receiver:
            await send_until_killed(receiver, seed, sent, stored)
        left += check(tmp_path, sent, stored)
    with receiver_process(
        tmp_path
    ) as receiver:  # the first object that it stores lets it sweep what its predecessors left
        async with open_association(receiver.address, [CT]) as association:
            file, _ = make_object(256, 999, sent)
            assert (await CStoreSCU(association).send(io.BytesIO(file))).is_success
    assert check(tmp_path, sent, stored) == 0
    return len(stored), left


@pytest.mark.fault_row(78, 116)
async def test_what_was_answered_with_0000_survives_a_few_kills(tmp_path: Path) -> None:
    assert (await kill(tmp_path, 5))[0] > 5


@pytest.mark.fault_row(78, 116)
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_what_was_answered_with_0000_survives_200_kills(tmp_path: Path) -> None:
    stored, left = await kill(tmp_path, 200)
    print(f"\n200 kills: {stored} objects answered with 0000, all there; {left} temporary files seen, all swept")
    assert stored > 200
    assert left > 5
