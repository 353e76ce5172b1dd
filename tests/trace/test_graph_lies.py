"""Messages that lie: a graph that can be measured and written, or an error that is expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from detray.core.stimuli import TemplateDefined
from detray.trace.drawings.drawing import text_of
from detray.trace.format import TraceError
from detray.trace.graphs.computation import computation
from detray.trace.graphs.graph import build
from detray.trace.graphs.summary import summary_of
from detray.trace.reading import RecordedStep, Trace
from detray.trace.replaying import replay
from tests.trace.lies import LyingTrace
from tests.trace.programs import dots, recorded, troubles
from tests.trace.test_parts import seed_trace

SHARES = (0.005, 0.02, 0.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A session, and two clusters in which much goes wrong."""
    folder: Path = tmp_path_factory.mktemp("lies")
    recorded(folder / "run.trace", dots, troubles)
    for seed in (10, 24):
        seed_trace(seed, folder / f"seed{seed}.trace")
    return [path.read_bytes() for path in sorted(folder.glob("*.trace"))]


@pytest.mark.parametrize("seed", range(40))
def test_no_lie_makes_a_graph_crash(files, seed):
    """Ids of other lengths, returns without end, waits for less than nothing."""
    for data in files:
        try:
            graph = build(LyingTrace(data, seed, SHARES[seed % len(SHARES)]))
            path = summary_of(computation(graph)).path
            assert all(text_of(graph, form, path) for form in ("dot", "json", "graphml"))
        except TraceError:
            continue


class ManyReturns(Trace):
    """A trace whose templates promise two thousand million values a call."""

    def steps(self) -> Iterator[RecordedStep]:
        """The steps, lies in place."""
        tag = TemplateDefined.__struct_config__.tag
        for step in super().steps():
            metas = []
            for blob in step.metas:
                messages = msgspec.msgpack.decode(blob)
                for message in messages:
                    if message[0] == tag:
                        message[5] = 1 << 31
                metas.append(msgspec.msgpack.encode(messages))
            yield step._replace(metas=tuple(metas))


def test_returns_without_end_are_no_work_without_end(files):
    """Neither for a graph nor for the cores of a replay: they refuse the template."""
    trace = ManyReturns(files[0])
    with pytest.raises(TraceError, match="too many to draw"):
        build(trace)
    assert not replay(trace).is_same
