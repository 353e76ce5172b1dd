"""What theory says an experiment must or may give: bounds, waiting times, a reference scheduler."""

from detray_sim.theory.bounds import (
    Bounds,
    bounds,
    graham_bound_ns,
    resource_bound_ns,
    transfer_bound_ns,
    work_ns,
)
from detray_sim.theory.graphs import (
    TaskGraph,
    bottom_levels,
    critical_path_ns,
    critical_tasks,
    graph_of,
    plain_graph,
    top_levels,
)
from detray_sim.theory.queueing import (
    erlang_b,
    erlang_c,
    little_number,
    md1_wait,
    mg1_wait,
    mmc_wait,
    mmc_wait_tail,
    power_of_two_tail,
)
from detray_sim.theory.reference import (
    ListSchedule,
    hlfet,
    list_schedule,
    reference_run,
    result_of,
)

__all__ = [
    # graphs
    "TaskGraph",
    "bottom_levels",
    "critical_path_ns",
    "critical_tasks",
    "graph_of",
    "plain_graph",
    "top_levels",
    # bounds
    "Bounds",
    "bounds",
    "graham_bound_ns",
    "resource_bound_ns",
    "transfer_bound_ns",
    "work_ns",
    # waiting
    "erlang_b",
    "erlang_c",
    "little_number",
    "md1_wait",
    "mg1_wait",
    "mmc_wait",
    "mmc_wait_tail",
    "power_of_two_tail",
    # a scheduler to compare with
    "ListSchedule",
    "hlfet",
    "list_schedule",
    "reference_run",
    "result_of",
]
