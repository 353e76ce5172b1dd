"""Arguments of a call as bytes: what leaves for the top-level references, and what comes back."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from detray.object_ref import ObjectRef
from detray.serialization.calls import decode_call, encode_call
from tests.surface.conftest import QuietClient, ref_id


def test_a_call_without_arguments_needs_no_bytes() -> None:
    """Nor does one with nothing but references."""
    assert encode_call((), {}) == (None, ())
    assert decode_call(None, []) == ((), {})


def test_references_only_need_no_bytes(client: QuietClient) -> None:
    """The values are the arguments, in order."""
    a, b = ObjectRef(ref_id(1)), ObjectRef(ref_id(2))
    assert encode_call((b, a, b), {}) == (None, (ref_id(2), ref_id(1), ref_id(2)))
    assert decode_call(None, ["B", "A", "B"]) == (("B", "A", "B"), {})


def test_references_leave_their_place_to_their_value(client: QuietClient) -> None:
    """Positional ones first, then those by keyword; others stay where they are."""
    a, b = ObjectRef(ref_id(1)), ObjectRef(ref_id(2))
    blob, items = encode_call((1, a, [b]), {"x": b, "y": 2})
    assert items == (ref_id(1), ref_id(2))
    assert blob is not None and blob.refs == (ref_id(2),)
    assert decode_call(blob.to_bytes(), ["A", "B"]) == ((1, "A", [b]), {"y": 2, "x": "B"})


arguments = (
    st.lists(st.integers() | st.just("ref")),
    st.dictionaries(st.text(max_size=3), st.integers() | st.just("ref"), max_size=4),
)


@given(*arguments)
def test_every_call_comes_back(positional: list[Any], named: dict[str, Any]) -> None:
    """Whatever mixture of references and values."""

    def with_ref(value: Any) -> Any:
        return ObjectRef(ref_id(7)) if value == "ref" else value

    from detray import object_ref

    object_ref.bind(QuietClient())
    try:
        blob, items = encode_call(
            tuple(map(with_ref, positional)), {key: with_ref(v) for key, v in named.items()}
        )
    finally:
        object_ref.unbind()
    args, kwargs = decode_call(blob.to_bytes() if blob else None, ["ref"] * len(items))
    assert (list(args), kwargs) == (positional, named)
