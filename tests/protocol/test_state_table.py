"""PS3.8 table 9-10, cell by cell, and tables 9-6 to 9-9, action by action, against a transcription of the standard."""

from __future__ import annotations

import pytest

from trio_dicom.protocol.state import ACTIONS, TRANSITIONS, Action, Effect, Event, State

# Columns are Sta1 to Sta13; a cell is action/next state, "." is a blank of the standard.
TABLE_9_10 = """
 1  AE-1/4  .        .        .       .       .       .          .       .        .         .       .        .
 2  .       .        .        AE-2/5  .       .       .          .       .        .         .       .        .
 3  .       AA-1/13  AA-8/13  .       AE-3/6  AA-8/13 AA-8/13    AA-8/13 AA-8/13  AA-8/13   AA-8/13 AA-8/13  AA-6/13
 4  .       AA-1/13  AA-8/13  .       AE-4/1  AA-8/13 AA-8/13    AA-8/13 AA-8/13  AA-8/13   AA-8/13 AA-8/13  AA-6/13
 5  AE-5/2  .        .        .       .       .       .          .       .        .         .       .        .
 6  .       AE-6/3|13 AA-8/13 .       AA-8/13 AA-8/13 AA-8/13    AA-8/13 AA-8/13  AA-8/13   AA-8/13 AA-8/13  AA-7/13
 7  .       .        AE-7/6   .       .       .       .          .       .        .         .       .        .
 8  .       .        AE-8/13  .       .       .       .          .       .        .         .       .        .
 9  .       .        .        .       .       DT-1/6  .          AR-7/8  .        .         .       .        .
10  .       AA-1/13  AA-8/13  .       AA-8/13 DT-2/6  AR-6/7     AA-8/13 AA-8/13  AA-8/13   AA-8/13 AA-8/13  AA-6/13
11  .       .        .        .       .       AR-1/7  .          .       .        .         .       .        .
12  .       AA-1/13  AA-8/13  .       AA-8/13 AR-2/8  AR-8/9|10  AA-8/13 AA-8/13  AA-8/13   AA-8/13 AA-8/13  AA-6/13
13  .       AA-1/13  AA-8/13  .       AA-8/13 AA-8/13 AR-3/1     AA-8/13 AA-8/13  AR-10/12  AR-3/1  AA-8/13  AA-6/13
14  .       .        .        .       .       .       .          AR-4/13 AR-9/11  .         .       AR-4/13  .
15  .       .        AA-1/13  AA-2/1  AA-1/13 AA-1/13 AA-1/13    AA-1/13 AA-1/13  AA-1/13   AA-1/13 AA-1/13  .
16  .       AA-2/1   AA-3/1   .       AA-3/1  AA-3/1  AA-3/1     AA-3/1  AA-3/1   AA-3/1    AA-3/1  AA-3/1   AA-2/1
17  .       AA-5/1   AA-4/1   AA-4/1  AA-4/1  AA-4/1  AA-4/1     AA-4/1  AA-4/1   AA-4/1    AA-4/1  AA-4/1   AR-5/1
18  .       AA-2/1   .        .       .       .       .          .       .        .         .       .        AA-2/1
19  .       AA-1/13  AA-8/13  .       AA-8/13 AA-8/13 AA-8/13    AA-8/13 AA-8/13  AA-8/13   AA-8/13 AA-8/13  AA-7/13
"""

# Tables 9-6 to 9-9: what the action sends, tells, times and closes, in the order of the standard's words.
ACTION_TABLE = """
AE-1   connect-transport
AE-2   send
AE-3   indicate
AE-4   indicate close
AE-5   accept-transport start-artim
AE-6   stop-artim indicate | stop-artim reject start-artim
AE-7   send
AE-8   send start-artim
DT-1   send
DT-2   indicate
AR-1   send
AR-2   indicate
AR-3   indicate close
AR-4   send start-artim
AR-5   stop-artim
AR-6   indicate
AR-7   send
AR-8   indicate | indicate
AR-9   send
AR-10  indicate
AA-1   abort start-artim
AA-2   stop-artim close
AA-3   indicate close
AA-4   p-abort
AA-5   stop-artim
AA-6
AA-7   abort
AA-8   abort p-abort start-artim
"""

WORDS = {
    Effect.CONNECT_TRANSPORT: "connect-transport",
    Effect.ACCEPT_TRANSPORT: "accept-transport",
    Effect.SEND: "send",
    Effect.INDICATE: "indicate",
    Effect.SEND_REJECT: "reject",
    Effect.SEND_ABORT: "abort",
    Effect.INDICATE_PROVIDER_ABORT: "p-abort",
    Effect.START_ARTIM: "start-artim",
    Effect.STOP_ARTIM: "stop-artim",
    Effect.CLOSE_TRANSPORT: "close",
}


def grid() -> dict[tuple[int, int], str]:
    cells = {}
    for line in TABLE_9_10.strip().splitlines():
        event, *columns = line.split()
        assert len(columns) == 13, line
        for state, cell in enumerate(columns, 1):
            cells[int(event), state] = cell
    return cells


GRID = grid()


def test_the_grid_has_every_cell() -> None:
    assert len(GRID) == 19 * 13 == len(Event) * len(State)
    assert len(TRANSITIONS) == sum(cell != "." for cell in GRID.values())


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_cell(event: Event, state: State) -> None:
    cell = GRID[int(event), int(state)]
    if cell == ".":
        assert (event, state) not in TRANSITIONS
        return
    name, _, next_states = cell.partition("/")
    action = TRANSITIONS[event, state]
    definition = ACTIONS[action]
    branches = [definition] if definition.otherwise is None else [definition, definition.otherwise]
    assert action.value == name
    assert [int(branch.next_state) for branch in branches] == [int(number) for number in next_states.split("|")]


def test_the_actions_do_what_the_standard_says() -> None:
    expected = {}
    for line in ACTION_TABLE.strip().splitlines():
        name, *words = line.split()
        expected[name] = " ".join(words)
    found = {}
    for action in Action:
        definition = ACTIONS[action]
        branches = [definition] if definition.otherwise is None else [definition, definition.otherwise]
        found[action.value] = " | ".join(" ".join(WORDS[effect] for effect in branch.effects) for branch in branches)
    assert found == expected


def test_every_action_is_used_and_no_branch_has_a_branch() -> None:
    assert set(TRANSITIONS.values()) == set(Action) == set(ACTIONS)
    assert all(action.otherwise is None or action.otherwise.otherwise is None for action in ACTIONS.values())


def test_states_and_events_have_distinct_meanings() -> None:
    assert len({state.meaning for state in State}) == 13
    assert len({event.meaning for event in Event}) == 19


def test_artim_runs_in_the_two_states_that_wait_for_the_peer() -> None:
    for (_, state), action in TRANSITIONS.items():
        definition = ACTIONS[action]
        for branch in (definition, definition.otherwise):
            if branch is None:
                continue
            runs = state in (State.STA2, State.STA13)
            for effect in branch.effects:
                if effect in (Effect.START_ARTIM, Effect.STOP_ARTIM):
                    runs = effect is Effect.START_ARTIM
            assert runs == (branch.next_state in (State.STA2, State.STA13)), (state, action)
