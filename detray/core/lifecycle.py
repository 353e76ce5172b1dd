"""The only place that assigns a State; anything not in the table of moves is a bug."""

from __future__ import annotations

from detray.core.states import MOVES, OBJECT_MOVES, PENDING, ObjectState, TaskState
from detray.core.tables import Object, Task


def move_task(task: Task, state: TaskState) -> None:
    """Task to its next state."""
    assert type(state) in MOVES[type(task.state)], (
        f"{task.spec.task.hex()}: {task.state} -> {state}"
    )
    task.state = state


def move_object(item: Object, state: ObjectState) -> None:
    """Object to its next state."""
    assert type(state) in OBJECT_MOVES[type(item.state)], (
        f"{item.id.hex()}: {item.state} -> {state}"
    )
    item.state = state


def seal_object(item: Object, state: ObjectState) -> None:
    """Object from pending to what it will be."""
    assert item.state is PENDING, f"{item.id.hex()}: {item.state} -> {state}"
    item.state = state
