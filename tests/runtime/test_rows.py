"""Rows of status: filters as people write them, and what several nodes say as one list."""

from __future__ import annotations

from typing import Any

import pytest

from detray.runtime.rows import Filter, Row, join, read_filters, select

TASKS: list[Row] = [
    {"id": "00aa", "name": "index", "state": "running", "attempt": 0, "size_bytes": 10 << 20,
     "demand": {"CPU": 10_000}, "waits_for": [], "running_ns": 2_000_000_000, "worker": 1,
     "cancelled": False},
    {"id": "00ab", "name": "reduce", "state": "waiting", "attempt": 2, "size_bytes": 0,
     "demand": {"CPU": 5_000, "GPU": 10_000}, "waits_for": ["c1", "c2"], "running_ns": None,
     "worker": None, "cancelled": True},
]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("", "aa ab"),
        ("state=running", "aa"),
        ("state!=running", "ab"),
        ("state = waiting", "ab"),
        ("name=ind", ""),
        ("name~ind", "aa"),
        ("id=00", "aa ab"),
        ("id=00AB", "ab"),
        ("id!=00aa", "ab"),
        ("attempt>0", "ab"),
        ("attempt>=0", "aa ab"),
        ("attempt<=1", "aa"),
        ("attempt=2", "ab"),
        ("size_bytes>=10MiB", "aa"),
        ("size>10MB", "aa"),
        ("size<10 mib", "ab"),
        ("size>10.5MiB", ""),
        ("running_ns>1.5s", "aa"),
        ("running>1m", ""),
        ("running<1h", "aa"),
        ("running=none", "ab"),
        ("worker!=none", "aa"),
        ("worker=1", "aa"),
        ("demand.CPU=0.5", "ab"),
        ("demand.GPU>=1", "ab"),
        ("demand.GPU=none", "aa"),
        ("demand~GPU", "ab"),
        ("waits_for~c2", "ab"),
        ("cancelled=yes", "ab"),
        ("cancelled=false", "aa"),
        ("state=waiting and attempt=2 and name=reduce", "ab"),
        ("state=waiting and attempt=1 and nonsense=1", ""),
    ],
)
def test_filters_keep_what_they_say(filters: str, ids: str) -> None:
    """All of them must hold."""
    texts = filters.split(" and ") if filters else []
    assert [row["id"][2:] for row in select(TASKS, read_filters(texts))] == ids.split()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("running", "no filter.*state=running"),
        ("=3", "no filter"),
        ("", "no filter"),
        ("colour=red", "'colour' is no column; columns are id, name, state"),
        ("w=1", "may be waits_for or worker"),
        ("size>big", "may end in b, kb.*'big' is none"),
        ("size>1s", "'1s' is none"),
        ("attempt>1MB", "attempt is a number; '1MB' is none"),
        ("name>1", "name is no number"),
        ("cancelled=maybe", "true or false, not 'maybe'"),
        ("cancelled>0", "no number"),
        ("demand=1", "use ~ or a part of it"),
        ("waits_for=c1", "use ~"),
    ],
)
def test_filters_that_make_no_sense_say_what_does(text: str, problem: str) -> None:
    """In one line, with what there is."""
    with pytest.raises(ValueError, match=problem):
        select(TASKS, read_filters([text]))


def test_what_was_read_can_be_said_again() -> None:
    """For messages."""
    assert read_filters(["a >= 3"]) == (Filter("a", ">=", "3"),)
    assert str(Filter("a", ">=", "3")) == "a>=3"
    assert read_filters(["name=a=b"]) == (Filter("name", "=", "a=b"),)


def test_no_rows_need_no_columns() -> None:
    """An empty cluster is no mistake."""
    assert select([], read_filters(["colour=red"])) == []


def test_a_task_is_told_of_by_the_node_that_has_it() -> None:
    """The owner only knows where it sent the task; in whatever order they answer."""

    def row(node: int, state: str, **more: Any) -> Row:
        return {"node": node, "id": "aa", "state": state, **more}

    sent, runs = row(0, "delivered"), row(1, "running")
    assert join("tasks", [sent, runs]) == join("tasks", [runs, sent]) == [runs]
    assert join("tasks", [sent]) == [sent]
    assert join("workers", [sent, runs]) == [sent, runs]


def test_an_object_is_told_of_by_its_owner() -> None:
    """With all nodes that know it; by anybody, if the owner says nothing."""
    borrowed, owned = (
        {"node": node, "id": "aa", "owner": 2, "state": state}
        for node, state in ((1, "pending"), (2, "inline"))
    )
    assert join("objects", [borrowed, owned]) == [{**owned, "known_at": [1, 2]}]
    assert join("objects", [borrowed]) == [{**borrowed, "known_at": [1]}]
