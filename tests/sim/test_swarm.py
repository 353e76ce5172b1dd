"""Swarms: many worlds, all well; a planted bug is noticed; reports are the same wherever made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from detray_sim.ablation import SESSION_SWITCHES, SWITCHES, AblationRow, ablate, as_table, main
from detray_sim.coverage import UNREACHABLE, Coverage
from detray_sim.faults import KINDS
from detray_sim.swarm import SwarmReport, catch_canary, swarm
from detray_sim.tape import Tape
from detray_sim.trial import run_trial
from detray_sim.world import LARGE, MEDIUM, SMALL, draw_world

SEEDS = range(120)


def test_small_worlds_are_well() -> None:
    """Each world is played twice; nothing fails, and the two runs are one."""
    report = swarm(SEEDS)
    assert report.failures == (), [found.text for found in report.failures]
    assert report.seeds == len(SEEDS) and report.stimuli > 1_000
    assert set(report.ends) <= {"done", "stuck", "lost"}


def test_a_report_does_not_depend_on_who_played() -> None:
    """Two processes come to the same digest as one, and the report is one JSON object."""
    alone, shared = swarm(range(60), twice=False), swarm(range(60), twice=False, jobs=2)
    assert alone.digest == shared.digest
    assert alone.faults == shared.faults
    assert msgspec.json.decode(msgspec.json.encode(shared), type=SwarmReport) == shared


CAUGHT = range(40)
"""Seeds, some of which show that nobody cleans up after the dead."""
SWITCH = "burial_cleanup_off"


def test_the_canary_dies() -> None:
    """A cluster whose owners miscount grants is caught: the oracles can see."""
    assert catch_canary()


def test_a_swarm_without_a_safeguard_tells_the_first_seed_of_each_kind_of_failure() -> None:
    """Failures of one signature are told once, with a command that plays the first again."""
    report = swarm(CAUGHT, ablate=(SWITCH,), twice=False)
    assert report.failures
    first = report.failures[0]
    assert str(first.seed) in first.command
    verdict = run_trial(Tape(first.seed), ablate=(SWITCH,))
    assert str(verdict.signature) == first.signature


def test_an_ablation_names_the_seed_and_the_oracle(capsys: pytest.CaptureFixture[str]) -> None:
    """What the table says can be played again."""
    row = ablate(SWITCH, seeds=CAUGHT)
    assert row.caught_by and row.seeds == row.seed + 1 - CAUGHT[0]
    *_, told = as_table([row, AblationRow(switch="x", seeds=1)])
    assert told == "| `x` | 1 | **nothing** | - |"
    assert main([SWITCH, "--seeds", "1"]) == 0
    assert f"| `{SWITCH}` | 1 |" in capsys.readouterr().out


def test_there_are_many_kinds_of_faults_and_each_can_be_switched_off() -> None:
    """A world knows about a third of the kinds; no kind is in most worlds."""
    assert len(KINDS) >= 22
    counts = dict.fromkeys(KINDS, 0)
    for seed in range(200):
        for name in draw_world(Tape(seed)).kinds:
            counts[name] += 1
    assert all(0 < count <= 110 for count in counts.values()), counts


def test_a_world_prints_itself_in_a_few_lines() -> None:
    """The header of a report says what the world is."""
    lines = draw_world(Tape(3)).describe()
    assert len(lines) <= 8 and lines[0].startswith("seed 3, small: ")


def test_coverage_lists_what_never_came() -> None:
    """Nothing seen: everything is missing, but for what no world can show."""
    missing = Coverage().missing
    assert "RunTask" in missing["messages"]
    assert not set(missing["messages"]) & UNREACHABLE.keys()
    assert missing["faults"] == sorted(KINDS)


def test_profiles_draw_worlds_of_their_size() -> None:
    """Medium: 8 nodes, 64 CPUs, ten faults or more of four kinds or more; large: a thousand."""
    for seed in range(5):
        world = draw_world(Tape(seed), MEDIUM)
        assert len(world.nodes) == 8
        assert sum(dict(shape.totals)["CPU"] for shape in world.nodes) == 64 * 10_000
        assert len(world.kinds) >= 4 and len(world.faults) >= 10
        times = [fault.at_ns for fault in world.faults]
        assert times == sorted(times) and times[-1] >= 4 * times[0], "spread over the program"
    assert LARGE.nodes == (1000, 1000) and SMALL.nodes == (1, 6)


@pytest.mark.slow
def test_medium_worlds_are_well() -> None:
    """Eight nodes, three hundred tasks, storms of faults."""
    report = swarm(range(8), MEDIUM, jobs=2)
    assert report.failures == (), [found.text for found in report.failures]


def test_the_page_lists_every_kind_of_fault_and_every_safeguard() -> None:
    """docs/simulation-safety.md: a row for each, and the failures that it explains."""
    page = (Path(__file__).parents[2] / "docs" / "simulation-safety.md").read_text()
    for kind in KINDS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind.name}` |"))
        if len(kind.excuses) <= 8:
            assert row.endswith(f"| {', '.join(f.name for f in kind.excuses) or '-'} |"), row
    assert f"There are {len(KINDS)} kinds" in page
    assert all(f"| `{name}` |" in page for name in (*SWITCHES, *SESSION_SWITCHES))
