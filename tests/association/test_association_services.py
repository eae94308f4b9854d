"""What a service may do with the association on which it is performed, and what is left of one that has ended."""

from __future__ import annotations

import gc
import io
import weakref

import pytest
import trio

from trio_dicom import (
    AssociationAborted,
    CStoreSCU,
    Instance,
    LocalProtocolError,
    Status,
    StorageSCP,
)
from trio_dicom.testing import SOPClass, make_instance_file, memory_link

CONTEXTS = [SOPClass.CT]


async def test_a_handler_that_aborts_does_not_wait_for_itself(autojump_clock: trio.testing.MockClock) -> None:
    ended_at = 0.0

    async def handler(instance: Instance) -> Status:
        nonlocal ended_at
        try:
            await instance.association.abort()
        finally:
            ended_at = trio.current_time()
        return Status(0)

    async with memory_link(CONTEXTS, StorageSCP(handler)) as (requestor, acceptor):
        with pytest.raises(AssociationAborted) as caught:
            await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))
        await acceptor.wait_closed()
    assert caught.value.by_peer
    assert ended_at == 0.0


async def test_a_handler_cannot_release_its_association(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(instance: Instance) -> Status:
        async with trio.open_nursery() as nursery:  # nor a task below it
            nursery.start_soon(close, instance)
        return Status(0)

    async def close(instance: Instance) -> None:
        with pytest.raises(LocalProtocolError, match="cannot release"):
            await instance.association.aclose()

    async with memory_link(CONTEXTS, StorageSCP(handler)) as (requestor, _):
        assert (await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))).is_success
    assert trio.current_time() == 0.0


async def test_an_association_that_has_ended_is_no_garbage_to_be_collected() -> None:
    async def handler(instance: Instance) -> Status:
        await instance.read()
        return Status(0)

    gc.collect()
    gc.disable()
    try:
        async with memory_link(CONTEXTS, StorageSCP(handler)) as (requestor, acceptor):
            assert (await CStoreSCU(requestor).send(io.BytesIO(make_instance_file()))).is_success
        await trio.testing.wait_all_tasks_blocked()
        ended = [weakref.ref(requestor), weakref.ref(acceptor)]
        del requestor, acceptor
        await trio.testing.wait_all_tasks_blocked()
        assert [each() for each in ended] == [None, None]
    finally:
        gc.enable()
