"""Calibrations find what was planted, predictions follow them, and the study runs for real."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from detray_sim.bench import workflows
from detray_sim.bench.dags import LONGEST_MS, MS, ORDERS, SHORTEST_MS, study_dags
from detray_sim.bench.prediction import Ranking, Row, percentile_95, ranking
from detray_sim.bench.real_runs import Micro
from detray_sim.bench.simulated_runs import (
    NAP_NS,
    Machine,
    batch_s,
    link_s,
    machine_of,
    one_s,
    scaled,
    simulate,
)
from detray_sim.calibration import TYPICAL, Calibration, estimate, fit, play, predict
from detray_sim.costs import FREE
from detray_sim.workload import SECOND_NS, Workload, WorkloadError
from detray_sim.workloads import b_levels, generate
from tests.sim.data import ROOT, data_folder

PLANTED = Calibration(start_s=12.0, dispatch_s=0.4, bandwidth=20e6)


def recorded(kind: str, nodes: tuple[int, ...] = (8, 8), **parameters: object) -> Workload:
    """A made-up workload that says where it ran."""
    made = generate(kind, **{"seed": 1, "duration_ns": 20 * SECOND_NS, **parameters})  # type: ignore[arg-type]
    return msgspec.structs.replace(made, recorded_nodes=nodes)


def family() -> list[Workload]:
    """Workflows of one system: few and many tasks, shallow and deep, with and without data."""
    return [
        recorded("chain", length=6, size_bytes=1_000),
        recorded("bag", tasks=120, size_bytes=1_000, duration_ns=SECOND_NS),
        recorded("fork_join", width=40, size_bytes=200_000_000),
        recorded("layered", layers=5, width=12, size_bytes=1_000_000_000, duration_law="uniform"),
        recorded("map_reduce", maps=12, reduces=6, size_bytes=30_000_000, nodes=(8,)),
    ]


# ---------------------------------------------------------------------------- calibration


def test_planted_parameters_are_recovered() -> None:
    """From makespans that the model itself made, each within a few percent."""
    workloads = family()
    found = fit(workloads, [estimate(workload, PLANTED) for workload in workloads])
    for name in Calibration.__struct_fields__:
        assert getattr(found, name) == pytest.approx(getattr(PLANTED, name), rel=0.06), name


def test_a_held_out_workflow_is_predicted() -> None:
    """What was planted also explains a workflow that was not looked at."""
    workloads = family()
    found = fit(workloads[:-1], [estimate(workload, PLANTED) for workload in workloads[:-1]])
    truth = estimate(workloads[-1], PLANTED)
    assert predict(workloads[-1], found) == pytest.approx(truth, rel=0.05)


def test_one_absurd_makespan_is_outvoted() -> None:
    """Absolute errors: one recording of a bad day does not bend the others."""
    workloads = family()
    measured = [estimate(workload, PLANTED) for workload in workloads]
    measured[3] *= 4
    found = fit(workloads, measured)
    others = [estimate(w, found) / m for w, m in zip(workloads, measured, strict=True) if m]
    assert sum(abs(ratio - 1) < 0.1 for ratio in others) >= 3


def test_what_the_data_leave_open_stays_as_believed() -> None:
    """A workflow without data says nothing about bandwidth."""
    silent = recorded("bag", tasks=50, size_bytes=0)
    belief = Calibration(start_s=5.0, dispatch_s=2.0, bandwidth=7e6)
    found = fit([silent], [estimate(silent, belief)], belief=belief)
    for name in Calibration.__struct_fields__:
        assert getattr(found, name) == pytest.approx(getattr(belief, name), rel=0.02), name


def test_a_chain_adds_up() -> None:
    """Every link pays everything; in the loop and through the schedulers."""
    chain = recorded("chain", length=4, size_bytes=40_000_000)
    moved = 7 * 40_000_000  # four outputs, three inputs
    by_hand = 12.0 + 4 * (12.0 + 0.4 + 20.0) + moved / (2 * 20e6)
    assert estimate(chain, PLANTED) == pytest.approx(by_hand)
    assert predict(chain, PLANTED) == pytest.approx(by_hand)


@pytest.mark.parametrize("kind", ["bag", "fork_join", "tree_reduce"])
def test_predictions_are_monotone(kind: str) -> None:
    """Slower dispatchers, slower storage and longer starts never help."""
    small = {"bag": {"tasks": 30}, "tree_reduce": {"leaves": 16}, "fork_join": {"width": 12}}
    workload = recorded(kind, size_bytes=50_000_000, nodes=(64, 64), **small[kind])
    for name, values in (
        ("start_s", (0.01, 1.0, 30.0)),
        ("dispatch_s", (0.01, 0.5, 3.0)),
        ("bandwidth", (1e9, 1e8, 1e7)),
    ):
        changed = [msgspec.structs.replace(PLANTED, **{name: value}) for value in values]
        for times in (
            [estimate(workload, calibration) for calibration in changed],
            [predict(workload, calibration) for calibration in changed],
        ):
            assert times == sorted(times), name
            assert times[-1] > times[0], name


def test_loop_and_schedulers_agree() -> None:
    """Also where cores are scarce and tasks differ; ties may be broken otherwise."""
    for workload in family():
        assert predict(workload, PLANTED) == pytest.approx(estimate(workload, PLANTED), rel=0.05)


def test_tasks_run_on_recorded_cores_only() -> None:
    """The workflow system's own machine computes nothing, and no machine more than it has."""
    workload = recorded("bag", tasks=30, nodes=(2, 3))
    result = play(workload, msgspec.structs.replace(PLANTED, dispatch_s=0.001))
    spans = [(t.node, t.started_ns, t.finished_ns) for t in result.tasks if t.name == "task"]
    assert {node for node, _, _ in spans} == {1, 2}
    for node, cores in ((1, 2), (2, 3)):
        for _, at, _ in spans:
            assert sum(n == node and begun <= at < ended for n, begun, ended in spans) <= cores


def test_a_workflow_without_machines_is_refused() -> None:
    """In one line that names it; so is one without a makespan."""
    with pytest.raises(WorkloadError, match="bag: the cores"):
        fit([generate("bag", tasks=3)], [1.0])
    with pytest.raises(WorkloadError, match="bag: no makespan"):
        fit([recorded("bag", tasks=3)])


def test_the_baseline_is_exact() -> None:
    """Planted weights come back; none is below 0."""
    terms = [(1.0, float(n), float(n * n % 17 + 1)) for n in range(3, 12)]
    pairs = [(term, 40.0 + 2.0 * term[1] + 0.5 * term[2]) for term in terms]
    assert workflows.baseline(pairs) == pytest.approx((40.0, 2.0, 0.5))
    assert min(workflows.baseline([(terms[0], 9.0), (terms[1], 2.0)])) >= 0


def test_a_real_system_is_predicted_from_its_other_runs() -> None:
    """A recording of Nextflow, from three others: nearer than the baseline."""
    files = [f for f in workflows.load(data_folder("wfinstances")) if f.system == "Nextflow"]
    files.sort(key=lambda f: f.name != "rnaseq-dirt02-001")
    held = next(workflows.leave_one_out(files))
    assert (held.name, held.trained_on) == ("rnaseq-dirt02-001", 3)
    assert held.error < min(0.1, held.baseline_error)


# --------------------------------------------------------------------- the same programs


def test_the_programs_are_those_of_the_seed() -> None:
    """Equal seeds, equal programs; tasks of 10 to 60 ms; both orders are orders."""
    dags = study_dags(20, seed=3)
    assert dags == study_dags(20, seed=3) != study_dags(20, seed=4)
    for dag in dags:
        for task in dag.workload.tasks:
            assert SHORTEST_MS * MS <= task.duration_ns <= LONGEST_MS * MS
        for name in ORDERS:
            place = {number: at for at, number in enumerate(dag.order(name))}
            for number, task in enumerate(dag.workload.tasks):
                assert all(place[producer] < place[number] for producer, _ in task.inputs)


def test_without_costs_a_program_takes_what_theory_says() -> None:
    """One worker: all the work. Many: the critical path, when nothing queues."""
    machine = Machine(costs=FREE)
    dag = study_dags(5)[3].workload
    order = list(range(len(dag.tasks)))
    assert simulate(machine, dag, order, 1) * SECOND_NS == pytest.approx(
        sum(task.duration_ns for task in dag.tasks)
    )
    assert simulate(machine, dag, order, 64) * SECOND_NS == pytest.approx(max(b_levels(dag)))


def test_a_machine_is_found_from_its_small_programs() -> None:
    """Costs that were scaled by two factors are found again, near enough; the rest is rested."""
    truth = scaled(3.0, 1.5)
    micro = Micro(
        one_s=one_s(truth),
        link_s=0.0,
        batch_s=batch_s(truth),
        gap_s=link_s(truth, 15, NAP_NS) + 0.0005,
        next_s=batch_s(truth, 15, NAP_NS) + 0.0005,
        sleep_extra_s=0.0001,
        compute_stretch=1.5,
        compute_stretch_alone=1.0,
        start_s=0.004,
    )
    found = machine_of(micro, 4)
    assert found.costs.ipc_ns == pytest.approx(truth.ipc_ns, rel=0.05)
    assert found.costs.stimulus_ns == pytest.approx(truth.stimulus_ns, rel=0.05)
    assert found.rested_ns == pytest.approx(500_000, rel=0.05)
    assert found.task_ns("sleep", 1_000_000, 1) == 1_100_000
    assert found.task_ns("compute", 1_000_000, 8) == 1_500_000


def row(workers: int, measured_s: float, vary_s: float, predicted_s: float) -> Row:
    """A row of one DAG."""
    return Row(
        dag="d",
        kind="sleep",
        tasks=1,
        workers=workers,
        order="given",
        measured_s=measured_s,
        lowest_s=measured_s,
        highest_s=measured_s + vary_s,
        predicted_s=predicted_s,
        error=0.0,
        error_knowing=0.0,
    )


def test_only_pairs_that_differ_are_ranked() -> None:
    """By more than either varied."""
    rows = [row(1, 4.0, 0.1, 4.1), row(2, 2.0, 0.1, 2.5), row(4, 1.95, 0.1, 2.6)]
    assert ranking(rows, "order") == Ranking(2, 2)
    assert ranking([*rows, row(8, 1.0, 0.1, 9.0)], "order") == Ranking(5, 2)
    assert percentile_95(list(range(100))) == 94


_PROGRAM = """
import msgspec
from detray_sim.bench.dags import study_dags
from detray_sim.bench.prediction import report, study

dags = [msgspec.structs.replace(dag, workers=dag.workers[-1:]) for dag in study_dags(2)]
found = study(dags, rounds=1, cores=1, samples=4)
print(report(found))
print(msgspec.json.encode(found).decode())
"""


@pytest.mark.slow
def test_the_study_runs_on_this_machine() -> None:
    """Two DAGs, really and simulated. A machine may be slow: nothing is asked of its times but
    that a run is no shorter than its longest path."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT / "sim",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    longest = {dag.name: max(b_levels(dag.workload)) / SECOND_NS for dag in study_dags(2)}
    assert len(found["rows"]) == 4
    for measured in found["rows"]:
        assert measured["measured_s"] >= longest[measured["dag"]]
        assert measured["predicted_s"] >= longest[measured["dag"]]


def test_typical_is_a_calibration() -> None:
    """All above 0: it is the origin of a logarithmic grid."""
    assert all(getattr(TYPICAL, name) > 0 for name in Calibration.__struct_fields__)
