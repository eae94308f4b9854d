"""Instance: a SOP instance, read while it comes."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_dicom import CStoreResponse, CStoreSCU, Instance, InstanceFolder, Status, StorageSCP, StoreReply
from trio_dicom.protocol.command import CStoreRQ
from trio_dicom.protocol.pdu import PDV, PDataTF
from trio_dicom.testing import (
    ScriptedPeer,
    SOPClass,
    make_instance,
    make_instance_file,
    memory_link,
    scripted_requestor,
)

FILE = make_instance_file(100_000)
DATA_SET = FILE[FILE.index(b"\x08\x00\x16\x00UI") :]


async def stored_by(handler: Callable[[Instance], Awaitable[StoreReply | int]]) -> CStoreResponse:
    async with memory_link([SOPClass.CT], StorageSCP(handler)) as (requestor, _):
        return await CStoreSCU(requestor).send(io.BytesIO(FILE))


async def test_each_way_to_read_gives_all_of_it() -> None:
    read: list[bytes] = []

    async def whole(instance: Instance) -> Status:
        read.append(await instance.read())
        return Status(0)

    async def pieces(instance: Instance) -> Status:
        got = b""
        while some := await instance.receive_pieces():
            got += b"".join(some)
        read.append(got)
        return Status(0)

    async def iterated(instance: Instance) -> Status:
        read.append(b"".join([bytes(some) async for some in instance]))
        return Status(0)

    async def in_turns(instance: Instance) -> Status:
        got = await instance.receive_some(3)
        got += await instance.receive_some(20_000)
        got += b"".join(await instance.receive_pieces())
        got += await instance.receive_some(1)
        read.append(got + await instance.read())
        return Status(0)

    for handler in (whole, pieces, iterated, in_turns):
        assert (await stored_by(handler)).is_success
    assert read == [DATA_SET] * 4


async def test_what_was_begun_is_neither_filed_nor_parsed(tmp_path: Path) -> None:
    folder = InstanceFolder(tmp_path)

    async def peek_and_file(instance: Instance) -> StoreReply:
        await instance.receive_some(200)
        return await folder(instance)

    async def peek_and_parse(instance: Instance) -> Status:
        await instance.receive_some(200)
        await instance.dataset()
        return Status(0)

    for handler in (peek_and_file, peek_and_parse):
        assert (await stored_by(handler)).status == 0x0110
    assert os.listdir(tmp_path) == []


async def test_nothing_is_read_after_it_was_closed() -> None:
    async def handler(instance: Instance) -> Status:
        await instance.receive_some(4)
        await instance.aclose()
        for read in (instance.receive_some, instance.receive_pieces, instance.read):
            with pytest.raises(trio.ClosedResourceError):
                await read()
        return Status(0)

    assert (await stored_by(handler)).is_success


async def test_as_a_data_set() -> None:
    wanted = make_instance()
    got = []

    async def handler(instance: Instance) -> Status:
        got.append(await instance.dataset())
        return Status(0)

    async with memory_link([SOPClass.CT], StorageSCP(handler)) as (requestor, _):
        assert (await CStoreSCU(requestor).send(wanted)).is_success
    assert got == [wanted]
    assert got[0].file_meta.MediaStorageSOPInstanceUID == wanted.SOPInstanceUID


@pytest.mark.parametrize("limit", [len(DATA_SET), len(DATA_SET) - 1])
async def test_a_limit(limit: int) -> None:
    async def handler(instance: Instance) -> Status:
        await instance.read(limit)
        return Status(0)

    response = await stored_by(handler)
    assert response.status == (0x0000 if limit == len(DATA_SET) else 0xC000)


@pytest.mark.parametrize(
    ("comment", "heard"),
    [("gr\xf6\xdfe \u2013 ok", "gr??e ? ok"), ("x" * 100, "x" * 64), ("plain", "plain"), ("", None)],
)
async def test_a_comment_never_changes_the_answer(comment: str, heard: str | None) -> None:
    async def handler(instance: Instance) -> StoreReply:
        return StoreReply(Status(0), comment)

    response = await stored_by(handler)
    assert (response.status, response.error_comment) == (0x0000, heard)


async def test_tiny_pieces_cost_no_more_than_their_bytes(autojump_clock: trio.testing.MockClock) -> None:
    """Each view would take 184 bytes, and keep the PDU that it lies in."""
    held = 0

    async def handler(instance: Instance) -> Status:
        nonlocal held
        await trio.sleep(30)
        held = tracemalloc.get_traced_memory()[0]
        return Status(0) if len(await instance.read()) == 400_000 else Status(0xC000)

    async def script(peer: ScriptedPeer) -> None:
        await peer.associate([SOPClass.CT])
        await peer.send_message(1, CStoreRQ(1, SOPClass.CT.value, "1.2.3"))
        pdu = PDataTF(tuple(PDV(1, False, False, b"ab") for _ in range(1000)))
        for _ in range(200):
            await peer.send(pdu)
        await peer.send(PDataTF((PDV(1, False, True, b""),)))
        _, response, _ = await peer.receive_message()
        assert response.status == 0  # type: ignore[union-attr]
        await peer.release()

    tracemalloc.start()
    try:
        async with scripted_requestor(script, StorageSCP(handler)) as association:
            await association.wait_closed()
    finally:
        tracemalloc.stop()
    assert 0 < held < 8_000_000
