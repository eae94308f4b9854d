"""What waits, who takes it, and in which order. No association is involved."""

from __future__ import annotations

import pytest
import trio

from trio_dicom.sender.agenda import ENOUGH_WAITING, MOST_CONTEXTS, MOST_WAITING, PATIENCE, Agenda
from trio_dicom.sender.work import Kind, Work
from trio_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

JPEG = "1.2.840.10008.1.2.4.50"
CT, MR, SR = (Kind(f"1.2.{number}", JPEG) for number in (2, 4, 88))


class Maker:
    """Works without inputs."""

    def __init__(self):
        self.order = 0

    def __call__(self, kind=CT, job="one"):
        self.order += 1
        return Work(None, job, self.order, self.order, kind)


@pytest.fixture
def work():
    return Maker()


@pytest.fixture
def agenda():
    return Agenda()


def fill(agenda, *works):
    for each in works:
        agenda.add(each, 0.0)
    return works


def taken(agenda, assignment):
    found = []
    while (each := agenda.take(assignment)) is not None:
        found.append(each.order)
    return found


async def test_first_come_first_served_whatever_the_kind(agenda, work):
    fill(agenda, work(CT), work(MR), work(CT), work(SR), work(MR))
    assert taken(agenda, agenda.assign()) == [1, 2, 3, 4, 5]
    assert agenda.size == 0


async def test_what_comes_back_keeps_its_place(agenda, work):
    fill(agenda, work(), work(), work())
    assignment = agenda.assign()
    first = agenda.take(assignment)
    agenda.add(first, 1.0)
    assert taken(agenda, assignment) == [1, 2, 3]


async def test_a_lane_takes_only_what_its_association_was_opened_for(agenda, work):
    fill(agenda, work(CT))
    assignment = agenda.assign()
    fill(agenda, work(MR), work(CT))
    assert taken(agenda, assignment) == [1, 3]
    assert agenda.has_unserved(0.0)


async def test_a_further_lane_takes_on_first_what_nobody_serves(agenda, work):
    kinds = [Kind(f"1.2.{number}", JPEG) for number in range(300)]
    fill(agenda, *(work(kind) for kind in kinds))
    first, second, third = agenda.assign(), agenda.assign(), agenda.assign()
    assert [len(each.contexts) for each in (first, second, third)] == [MOST_CONTEXTS] * 3
    assert first.kinds == set(kinds[:128])
    assert second.kinds == set(kinds[128:256])
    assert third.kinds >= set(kinds[256:])
    assert not agenda.has_unserved(1e9)
    agenda.resign(second)
    assert agenda.has_unserved(1e9)


async def test_contexts_for_the_other_native_encodings_count(agenda, work):
    kinds = [
        Kind(f"1.2.{number}", syntax)
        for number in range(200)
        for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, JPEG)
    ]
    fill(agenda, *(work(kind) for kind in kinds))
    assignment = agenda.assign()
    assert 120 < len(assignment.contexts) <= MOST_CONTEXTS
    assert assignment.kinds == set(kinds[: len(assignment.kinds)])


async def test_kinds_that_were_seen_are_proposed_again_though_none_waits(agenda, work):
    fill(agenda, work(CT), work(MR))
    first = agenda.assign()
    taken(agenda, first)
    agenda.resign(first)
    fill(agenda, work(SR))
    assert agenda.assign().kinds == {CT, MR, SR}


async def test_suspects_go_alone(agenda, work):
    suspect = work(CT)
    suspect.is_suspect = True
    fill(agenda, suspect, work(CT))
    for_suspects, usual = agenda.assign(), agenda.assign()
    assert (for_suspects.is_for_suspects, usual.is_for_suspects) == (True, False)
    assert taken(agenda, usual) == [2]
    assert taken(agenda, for_suspects) == [1]


async def test_one_lane_is_enough_for_suspects(agenda, work):
    suspects = [work(), work()]
    for each in suspects:
        each.is_suspect = True
    fill(agenda, *suspects)
    assert agenda.assign().is_for_suspects
    assert agenda.assign() is None


async def test_a_lane_is_wanted_for_what_those_under_way_will_not_take(agenda, work):
    assert not agenda.wants_another(0)
    fill(agenda, work(), work())
    assert agenda.wants_another(1)
    assert not agenda.wants_another(2)


async def test_only_patience_takes_a_busy_lane_from_its_own_kinds(agenda, work):
    fill(agenda, work(CT))
    agenda.assign()
    agenda.add(work(MR), 10.0)
    assert not agenda.has_unserved(10.0 + PATIENCE / 2, PATIENCE)
    assert agenda.has_unserved(10.0 + PATIENCE, PATIENCE)


async def test_works_are_withdrawn_by_job_and_by_kind(agenda, work, autojump_clock):
    fill(agenda, work(CT, "one"), work(MR, "two"), work(CT, "two"), work(MR, "one"))
    agenda.add_later(work(CT, "one"), 5.0)
    assert [each.order for each in agenda.withdraw("one")] == [1, 4, 5]
    assert [each.order for each in agenda.withdraw(kinds={MR})] == [2]
    assert agenda.size == 1
    assert [each.order for each in agenda.withdraw()] == [3]
    assert agenda.size == 0
    assert agenda.assign() is None


async def test_works_for_later_come_when_they_are_due(agenda, work, autojump_clock):
    start = trio.current_time()
    for delay in (30.0, 10.0, 20.0):
        agenda.add_later(work(), start + delay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agenda.run)
        times = []
        while len(times) < 3:
            assignment = agenda.assign()
            if assignment is None:
                await agenda.wait_news()
                continue
            agenda.resign(assignment)
            while (each := agenda.take(assignment)) is not None:
                times.append((each.order, trio.current_time() - start))
        nursery.cancel_scope.cancel()
    assert times == [(2, 10), (3, 20), (1, 30)]


async def test_one_arrival_wakes_one_who_can_take_it(agenda, work):
    fill(agenda, work(CT))
    for_ct = agenda.assign()
    taken(agenda, for_ct)
    woken = []

    async def wait(name, assignment):
        await agenda.wait_news(assignment)
        woken.append(name)

    async with trio.open_nursery() as nursery:
        for name, assignment in (("ct", for_ct), ("ct too", for_ct), ("new", None)):
            nursery.start_soon(wait, name, assignment)
            await trio.testing.wait_all_tasks_blocked()
        agenda.add(work(MR), 0.0)  # nobody serves it
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["new"]
        agenda.add(work(CT), 0.0)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["new", "ct"]
        agenda.wake()


async def test_more_is_read_while_little_waits_or_a_lane_finds_nothing(agenda, work):
    fill(agenda, *(work(CT) for _ in range(ENOUGH_WAITING - 1)))
    assert agenda.wants_more
    for_ct = agenda.assign()
    fill(agenda, *(work(MR) for _ in range(2)))
    assert not agenda.wants_more
    taken(agenda, for_ct)
    fill(agenda, *(work(MR) for _ in range(ENOUGH_WAITING)))
    assert not agenda.wants_more
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agenda.wait_news, for_ct)
        await trio.testing.wait_all_tasks_blocked()
        assert agenda.wants_more
        fill(agenda, *(work(MR) for _ in range(MOST_WAITING)))
        assert not agenda.wants_more
        agenda.wake()


async def test_readers_of_input_are_woken_when_there_is_room(agenda, work):
    fill(agenda, *(work() for _ in range(ENOUGH_WAITING)))
    assignment = agenda.assign()
    has_room = trio.Event()

    async def read():
        await agenda.wait_room()
        has_room.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert not has_room.is_set()
        agenda.take(assignment)
        await trio.testing.wait_all_tasks_blocked()
        assert has_room.is_set()
