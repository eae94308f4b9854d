"""Rounds: each contestant of a contest once, in turn, so that what slows the machine falls on all of them alike."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import attrs

from .contests import FEW, Clock, Contest, Contestant
from .processes import Failed, Process, Usage
from .receivers import Received, Receiver, Storing, listening
from .run import Run
from .workshop import Folder, Workshop, read_all

LONGEST = 600.0  # s that a run may take
SENDER = ("{yardstick}", "{port}", "{folder}")  # to receivers


@attrs.frozen
class Round:
    """One contestant's turn."""

    contest: Contest
    contestant: Contestant
    number: int  # 0 is not counted


def quicker(contest: Contest) -> Contest:
    """The same with few objects."""
    few = FEW[contest.kind]
    contestants = tuple(
        attrs.evolve(each, objects=each.objects and min(each.objects, few)) for each in contest.contestants
    )
    return attrs.evolve(contest, count=min(contest.count, few), contestants=contestants)


def present(contest: Contest, workshop: Workshop) -> Contest | None:
    """The contest with those contestants, and goals, whose programs are here; None if there are none."""
    contestants = tuple(each for each in contest.contestants if workshop.has(each.command))
    if not contestants or (contest.receiver is not None and not workshop.has(contest.receiver.command)):
        return None
    names = {each.name for each in contestants}
    goals = tuple(goal for goal in contest.goals if names.issuperset(goal.contestants))
    return attrs.evolve(contest, contestants=contestants, goals=goals)


def rounds(contest: Contest, runs: int) -> Iterator[Round]:
    """A turn for each in each of `runs` rounds, after one round that is not counted."""
    if contest.most_runs is not None:
        runs = min(runs, contest.most_runs)
    numbers = range(runs + 1) if contest.most_runs is None else range(1, runs + 1)
    for number in numbers:
        shift = number % len(contest.contestants)
        for contestant in contest.contestants[shift:] + contest.contestants[:shift]:
            yield Round(contest, contestant, number)


def prepare(contest: Contest, workshop: Workshop) -> None:
    """Make the objects that it takes, and have them in memory."""
    for count in {each.objects or contest.count for each in contest.contestants}:
        read_all(workshop.objects(contest.kind, count).path)


def play(turn: Round, workshop: Workshop) -> Run:
    """Raises `Failed` if something did not arrive."""
    contest, contestant = turn.contest, turn.contestant
    folder = workshop.objects(contest.kind, contestant.objects or contest.count, contestant.rehearsed)
    receives = contest.receiver is None
    receiver = contest.receiver or Receiver(contestant.command, Storing.FILED, contestant.variables)
    command, variables = (SENDER, {}) if receives else (contestant.command, contestant.variables)
    os.sync()  # what was written before is on the disk
    with listening(receiver, workshop.words, workshop.received) as peer:
        words = {**workshop.words, "port": peer.port, "folder": folder.path}
        sent = Process([word.format_map(words) for word in command], variables).wait(LONGEST)
        if sent.exit_code:
            raise Failed(f"exit code {sent.exit_code}: {_last_line(sent.errors)}")
        receiver_took, received = peer.end()
    if receives:
        seconds = json.loads(sent.output)["since_connecting"]
        usage = attrs.evolve(receiver_took, seconds=seconds)
    else:
        usage = _by_its_own_clock(sent) if contestant.clock is Clock.OWN else sent
    has_other_bytes = _check(contestant, folder, received)
    return Run(
        contest=contest.name,
        contestant=contestant.name,
        number=turn.number,
        objects=folder.count * contestant.times,
        bytes=folder.bytes * contestant.times,
        seconds=usage.seconds,
        cpu=usage.cpu,
        peak_memory=usage.peak_memory,
        start_up=_start_up(contestant, sent, received),
        cipher=received.cipher,
        has_other_bytes=has_other_bytes,
    )


def _by_its_own_clock(sent: Usage) -> Usage:
    printed = json.loads(sent.output)
    return attrs.evolve(sent, seconds=printed["seconds"], cpu=printed["cpu"])


def _start_up(contestant: Contestant, sent: Usage, received: Received) -> float | None:
    """Of a whole process, to a receiver that can tell."""
    if contestant.clock is Clock.OWN or received.first_byte is None:
        return None
    return received.first_byte - sent.started


def _check(contestant: Contestant, folder: Folder, received: Received) -> bool:
    """Whether all arrived, and with other bytes than the files'."""
    objects = folder.count * contestant.times + min(contestant.rehearsed, folder.count)
    size = folder.bytes * contestant.times + folder.head_bytes
    if received.objects not in (objects, None):
        raise Failed(f"{received.objects} of {objects} objects arrived")
    if received.bytes in (size, None):
        return False
    if not contestant.encodes_anew:
        raise Failed(f"{received.bytes} of {size} bytes arrived")
    return True


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "it said nothing"
