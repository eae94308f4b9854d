"""Several requests at once: rows 51 to 53 of the fault table."""

from __future__ import annotations

import io

import pytest
import trio
import trio.testing

from trio_dicom import (
    AssociationSettings,
    CStoreSCU,
    UnexpectedMessageID,
)
from trio_dicom.testing import ScriptedPeer, make_instance_file, message, response_to, scripted_link


@pytest.mark.fault_row(51)
@pytest.mark.parametrize(
    ("proposed", "answered", "window"),
    [
        pytest.param(4, 9, 4, id="fault51-more_than_proposed"),
        pytest.param(4, 2, 2, id="fault51-less"),
        pytest.param(4, None, 1, id="fault51-absent"),
        pytest.param(4, 0, 4, id="fault51-unlimited_of_4"),
        pytest.param(0, 0, 64, id="fault51-unlimited"),
        pytest.param(1, 5, 1, id="fault51-not_proposed"),
    ],
)
async def test_the_operations_window(proposed, answered, window, autojump_clock):
    most = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal most
        await peer.accept(window=answered)
        waiting = []
        with trio.move_on_after(1):
            while True:
                waiting.append(await peer.receive_message())
        most = len(waiting)
        for context_id, request, _ in waiting:
            await peer.answer(context_id, request)
        await peer.serve_requests()

    settings = AssociationSettings(operations_window=proposed)
    link = scripted_link(script, ["1.2.840.10008.1.1"], settings=settings)
    async with link as association, trio.open_nursery() as nursery:
        for _ in range(window + 2):
            nursery.start_soon(association.echo)
    assert most == window
    assert association.failure is None


async def send_all(association, numbers, results):
    async def send(number):
        try:
            response = await CStoreSCU(association).send(io.BytesIO(make_instance_file(number=number)))
            results[number] = int(response.status)
        except Exception as error:
            results[number] = type(error), error.in_doubt

    async with trio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(send, number)


def number_of(request) -> int:
    return int(request.affected_sop_instance_uid.rpartition(".")[2])


@pytest.mark.fault_row(52)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids="fault52-{}".format)
async def test_responses_in_another_order(order, autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=4)
        requests = [await peer.receive_message() for _ in order]
        responses = [
            message(context_id, response_to(request, 0xA700 + number_of(request)))
            for context_id, request, _ in (requests[place] for place in order)
        ]
        await peer.send(*responses)

    results = {}
    async with scripted_link(script, settings=AssociationSettings(operations_window=4)) as association:
        await send_all(association, range(1, 5), results)
    assert results == {number: 0xA700 + number for number in range(1, 5)}


@pytest.mark.fault_row(52)
async def test_fault52_a_violation_leaves_what_was_answered_and_dooms_the_rest(autojump_clock):
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=3)
        requests = [await peer.receive_message() for _ in range(3)]
        context_id, second, _ = requests[1]
        await peer.answer(context_id, second)
        await peer.answer(context_id, second)

    results = {}
    async with scripted_link(script, settings=AssociationSettings(operations_window=3)) as association:
        await send_all(association, range(1, 4), results)
    stored = [number for number, result in results.items() if result == 0]
    assert len(stored) == 1
    assert [results[number] for number in results if number not in stored] == [(UnexpectedMessageID, True)] * 2


@pytest.mark.fault_row(53)
async def test_fault53_message_ids_wrap_and_skip_those_in_use(autojump_clock):
    seen = []
    two_answered = trio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=3)
        waiting = {}
        for _ in range(3):
            context_id, request, _ = await peer.receive_message()
            waiting[request.message_id] = context_id, request
        seen.extend(waiting)
        await peer.answer(*waiting.pop(65_534))
        await peer.answer(*waiting.pop(65_535))
        two_answered.set()
        for _ in range(2):
            context_id, request, _ = await peer.receive_message()
            seen.append(request.message_id)
            waiting[request.message_id] = context_id, request
        for each in waiting.values():
            await peer.answer(*each)

    results = {}
    async with scripted_link(script, settings=AssociationSettings(operations_window=3)) as association:
        association._in_flight._last_message_id = 65_533
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, association, range(1, 4), results)
            await two_answered.wait()
            await trio.testing.wait_all_tasks_blocked()
            association._in_flight._last_message_id = 65_535  # once round, the request with ID 1 still unanswered
            nursery.start_soon(send_all, association, range(4, 6), results)
    assert seen == [65_534, 65_535, 1, 2, 3]
    assert results == dict.fromkeys(range(1, 6), 0)


@pytest.mark.fault_row(53)
async def test_fault53_the_id_of_a_request_whose_caller_has_gone_stays_in_use(autojump_clock):
    seen = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(window=2)
        context_id, first, _ = await peer.receive_message()
        _, second, _ = await peer.receive_message()
        seen.extend((first.message_id, second.message_id))
        await peer.answer(context_id, first, 0xC000)  # late, and the object's own
        await peer.answer(context_id, second)

    async with scripted_link(script, settings=AssociationSettings(operations_window=2)) as association:
        with trio.move_on_after(1) as scope:
            await CStoreSCU(association).send(io.BytesIO(make_instance_file(number=1)))
        assert scope.cancelled_caught
        association._in_flight._last_message_id = 0
        response = await CStoreSCU(association).send(io.BytesIO(make_instance_file(number=2)))
    assert seen == [1, 2]
    assert response.is_success


@pytest.mark.fault_row(53)
async def test_fault53_the_place_of_a_request_whose_caller_has_gone_stays_taken(autojump_clock):
    """Until the late response, a window of 1 lets no other request out; then the association is as good as before."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept()
        context_id, first, _ = await peer.receive_message()
        with trio.move_on_after(10) as silence:
            await peer.receive_message()
        assert silence.cancelled_caught
        await peer.answer(context_id, first, 0xC000)
        await peer.serve_requests()

    async with scripted_link(script) as association:
        with trio.move_on_after(1):
            await CStoreSCU(association).send(io.BytesIO(make_instance_file(number=1)))
        response = await CStoreSCU(association).send(io.BytesIO(make_instance_file(number=2)))
    assert response.is_success
    assert association.failure is None
