"""States: the tables of moves are complete, and nothing moves but by them."""

from __future__ import annotations

import ast
from typing import get_args

import pytest

from detray.core import states
from detray.core.lifecycle import move_object, move_task
from detray.core.stimuli import TaskSubmitted
from detray.core.tables import Object, Task
from detray.ids import ClientID, JobNumber, TemplateID, child_task, return_object, root_task
from tests.house.source import ROOT, modules, name_of, parse

TASK = child_task(root_task(JobNumber(1))[:12], 0)
SPEC = TaskSubmitted(ClientID(-1), TASK, TemplateID(0), root_task(JobNumber(1)), 1, 0)
TASK_STATES = (
    states.WAITING, states.READY, states.Placing(1), states.Assigned(1), states.FETCHING,
    states.Delivered(1),
)  # fmt: skip
OBJECT_STATES = (
    states.PENDING, states.Inline(5), states.Stored(0, 0, 5), states.Failed(1, "no"),
    states.Elsewhere(5), states.GONE,
)  # fmt: skip


def test_every_state_has_its_moves() -> None:
    assert set(states.MOVES) == set(get_args(states.TaskState)) == set(map(type, TASK_STATES))
    assert set(states.OBJECT_MOVES) == set(get_args(states.ObjectState))
    assert set(states.OBJECT_MOVES) == set(map(type, OBJECT_STATES))


def test_every_state_can_be_reached() -> None:
    for moves, first in ((states.MOVES, states.Waiting), (states.OBJECT_MOVES, states.Pending)):
        reached = {first, *(target for targets in moves.values() for target in targets)}
        assert reached == set(moves)


@pytest.mark.parametrize("source", TASK_STATES, ids=str)
@pytest.mark.parametrize("target", TASK_STATES, ids=str)
def test_a_task_moves_only_by_the_table(source: states.TaskState, target: states.TaskState) -> None:
    task = Task(SPEC, 0, 1, source, 0)
    if type(target) in states.MOVES[type(source)]:
        move_task(task, target)
        assert task.state is target
    else:
        with pytest.raises(AssertionError, match=TASK.hex()):
            move_task(task, target)
        assert task.state is source


@pytest.mark.parametrize("source", OBJECT_STATES, ids=str)
@pytest.mark.parametrize("target", OBJECT_STATES, ids=str)
def test_an_object_moves_only_by_the_table(
    source: states.ObjectState, target: states.ObjectState
) -> None:
    row = Object(return_object(TASK, 0), source, ClientID(-1), 1)
    if type(target) in states.OBJECT_MOVES[type(source)]:
        move_object(row, target)
        assert row.state is target
    else:
        with pytest.raises(AssertionError, match=row.id.hex()):
            move_object(row, target)
        assert row.state is source


def test_only_the_lifecycle_assigns_a_state() -> None:
    """`snapshot.py` puts shared instances back, which is no move."""
    wrong = []
    for path in modules(ROOT / "detray" / "core"):
        for node in ast.walk(parse(path)):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Attribute) and t.attr == "state" for t in targets):
                wrong.append(name_of(path))
    assert set(wrong) <= {"detray/core/lifecycle.py", "detray/core/snapshot.py"}
