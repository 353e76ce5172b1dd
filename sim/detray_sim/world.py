"""The world of one seed: a cluster, a program, faults and a schedule, all drawn from one tape.

Swarm testing (Groce and others, 2012): a seed first draws which features it has at all, so that
some worlds are pure storms of one kind. Every knob has its production value as the simplest choice,
and a chance to be absurd: arenas of two blocks, batches of one message, reports with every change.
"""

from __future__ import annotations

import msgspec

from detray.core.config import Policy
from detray.core.placement import POLICIES
from detray.core.session import SessionPolicy
from detray_sim.costs import FREE, Costs
from detray_sim.faults import KINDS as FAULTS
from detray_sim.faults import Fault, plan_faults
from detray_sim.lengths import expected_ns
from detray_sim.programs import Bounds, draw_features, draw_program
from detray_sim.scripts import CPU, Program
from detray_sim.tape import Tape
from detray_sim.wishes import LABELS

KIB, US, MS, SECOND = 1024, 1_000, 1_000_000, 1_000_000_000


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How large worlds are. `nodes` and `cpus` are ranges, `faults` the most there are."""

    name: str
    nodes: tuple[int, int]
    cpus: tuple[int, int]
    tasks: tuple[int, int]
    faults: int
    fault_permille: int = 350
    """Chance of each kind of fault to be there at all; never more than 500."""
    faults_min: int = 0
    kinds_min: int = 0
    span_max_ns: int = 2 * SECOND
    """Faults strike while the program is expected to run, within this time at most."""
    duration_ns: int = 100 * US
    """How long runs compute, in the mean; in some worlds `scales` times as much."""
    scales: tuple[int, ...] = (1,)
    checks_every: int = 8
    """A core's invariants are checked after every so many steps: what is broken stays broken."""
    looks_every: int = 50
    """And what must hold between nodes after so many steps of all."""
    kinds: tuple[str, ...] = ()
    """Kinds of programs (none: all)."""
    strikes: tuple[str, ...] = ()
    """Kinds of faults that each world knows (none: by lot)."""


SMALL = Profile(
    name="small", nodes=(1, 6), cpus=(1, 3), tasks=(1, 16), faults=8, scales=(1, 1, 10, 50)
)
MEDIUM = Profile(
    name="medium",
    nodes=(8, 8),
    cpus=(8, 8),
    tasks=(300, 300),
    faults=24,
    fault_permille=500,
    faults_min=14,
    kinds_min=6,
    duration_ns=2 * MS,
    checks_every=97,
    looks_every=1500,
    kinds=("layers", "layers", "broadcast", "mixed"),
)
LARGE = Profile(
    name="large",
    nodes=(1000, 1000),
    cpus=(8, 8),
    tasks=(100_000, 100_000),
    faults=40,
    faults_min=30,
    span_max_ns=20 * SECOND,
    duration_ns=50 * MS,
    checks_every=20_011,
    looks_every=1_000_003,
    kinds=("layers",),
    strikes=("nodes_roll", "node_slow", "node_restarts", "node_crashes", "worker_killed"),
)
PROFILES = {profile.name: profile for profile in (SMALL, MEDIUM, LARGE)}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One machine: totals in 1/10,000 units, sorted; `speed_permille` of a machine of speed 1."""

    totals: tuple[tuple[str, int], ...]
    arena_bytes: int
    speed_permille: int = 1000
    labels: tuple[tuple[str, str], ...] = ()


class World(msgspec.Struct, frozen=True, kw_only=True):
    """All of one seed."""

    seed: int
    profile: Profile
    nodes: tuple[Shape, ...]
    policy: Policy
    costs: Costs
    placement: str
    sessions: bool
    session: SessionPolicy
    jitter_ns: int
    """Each packet takes up to so much longer (0: links are as regular as clockwork)."""
    features: tuple[str, ...]
    program: Program
    kinds: tuple[str, ...]
    """Of faults that this world knows."""
    faults: tuple[Fault, ...]

    def describe(self) -> list[str]:
        """The world in a few lines, for the header of a report."""
        plain = Policy()
        knobs = [
            f"{name}={value}"
            for name in Policy.__struct_fields__
            if (value := getattr(self.policy, name)) != getattr(plain, name)
        ]
        shapes = [
            ",".join(f"{name}={amount / CPU:g}" for name, amount in shape.totals)
            + f" arena={shape.arena_bytes // KIB}KiB"
            + (f" speed={shape.speed_permille / 1000:g}" if shape.speed_permille != 1000 else "")
            for shape in self.nodes[:8]
        ]
        more = f" and {len(self.nodes) - 8} more" if len(self.nodes) > 8 else ""
        program = self.program
        return [
            f"seed {self.seed}, {self.profile.name}: {len(self.nodes)} nodes: "
            + "; ".join(shapes)
            + more,
            f"program: {program.kind}, {program.tasks} tasks of {len(program.scripts) - 1} scripts,"
            f" features {' '.join(self.features) or 'none'}",
            f"policy: {' '.join(knobs) or 'as in production'}; placement {self.placement};"
            f" sessions {'on' if self.sessions else 'off'}; jitter {self.jitter_ns / US:g}us",
            f"faults of {len(self.kinds)} kinds: "
            + ("; ".join(str(fault) for fault in self.faults[:12]) or "none")
            + (f"; and {len(self.faults) - 12} more" if len(self.faults) > 12 else ""),
        ]


def draw_world(tape: Tape, profile: Profile = SMALL, *, ablate: tuple[str, ...] = ()) -> World:
    """The world of a tape. `ablate` names safeguards of `Policy` to turn off."""
    nodes = tape.between("world/nodes", *profile.nodes)
    features = draw_features(tape)
    is_tight = tape.flag("world/tight", 200)
    if is_tight:
        features |= {"large"}
    off = {name: True for name in ablate if name in Policy.__struct_fields__}
    policy = msgspec.structs.replace(_draw_policy(tape), **off)
    large_bytes = tape.pick("world/large_bytes", (200_000, 110_000, 400_000))
    arenas = TIGHT if is_tight else ARENAS
    shapes = tuple(_draw_shape(tape, number, nodes, profile, arenas) for number in range(nodes))
    least, most = profile.tasks
    tasks = least + tape.plenty("program/tasks", most - least + 1)
    scale = tape.pick("world/durations", profile.scales)
    bounds = Bounds(
        tasks=tasks,
        nodes=nodes,
        places=tuple(f"node{number}" for number in range(min(nodes, 8))) if nodes > 1 else (),
        scarce=("GPU", "door"),
        large_bytes=large_bytes,
        large_permille=900 if is_tight else 300,
        duration_ns=profile.duration_ns * scale,
        law=tape.pick("world/law", ("constant", "uniform", "heavy")),
    )
    sessions = tape.flag("world/sessions", 800)
    kinds = _draw_kinds(tape, profile, sessions=sessions)
    if is_tight and kinds:
        kinds = tuple(dict.fromkeys((*kinds, *DISKS)))
    costs = _draw_costs(tape)
    program = draw_program(tape, bounds, features, profile.kinds)
    return World(
        seed=tape.seed,
        profile=profile,
        nodes=shapes,
        policy=policy,
        costs=costs,
        placement=tape.pick("policy/placement", PLACEMENTS),
        sessions=sessions,
        session=_draw_session(tape, ablate),
        jitter_ns=tape.pick("schedule/jitter", (0, 0, 20 * US, 300 * US, 5 * MS)),
        features=tuple(sorted(features)),
        program=program,
        kinds=kinds,
        faults=_draw_faults(tape, profile, kinds, program, costs, shapes),
    )


ARENAS = (64 << 20, 1 << 20, 512 * KIB, 4 << 20)
TIGHT = (512 * KIB, 256 * KIB, 768 * KIB)
"""Worlds that are tight have room for a few values, nearly all of them are large, and disks fail:
what is spilled, refused, corrupt or late comes up there."""
DISKS = ("disk_lies", "disk_fails", "disk_full", "transfer_corrupt")
PLACEMENTS = tuple(POLICIES)
"""Placement policies of the head that worlds may have."""
FINAL = ("driver_killed",)
"""Kinds that end a world early: in few worlds, or few would see their end."""
HOME_AT_RISK = 80
"""In so many of 1000 worlds the driver's machine may die like any other."""


def _draw_kinds(tape: Tape, profile: Profile, *, sessions: bool) -> tuple[str, ...]:
    """Which kinds of faults a world knows at all."""
    kinds = profile.strikes or tuple(
        name
        for name in FAULTS
        if tape.flag(f"kinds/{name}", 60 if name in FINAL else profile.fault_permille)
    )
    if len(kinds) < profile.kinds_min:
        kinds = tuple(dict.fromkeys((*kinds, *tuple(FAULTS)[: profile.kinds_min])))
    if not sessions:
        kinds = tuple(name for name in kinds if not FAULTS[name].needs_sessions)
    return kinds


def _draw_faults(
    tape: Tape,
    profile: Profile,
    kinds: tuple[str, ...],
    program: Program,
    costs: Costs,
    shapes: tuple[Shape, ...],
) -> tuple[Fault, ...]:
    """What strikes while the program runs: by magnitude of time, from a thirtieth of it on."""
    cpus = sum(dict(shape.totals)["CPU"] for shape in shapes) // CPU
    length_ns = min(expected_ns(program, costs, cpus), profile.span_max_ns)
    most = tape.choose("faults/most", profile.faults + 1)
    return plan_faults(
        tape,
        kinds,
        most=max(profile.faults_min, most),
        span_ns=length_ns,
        first_ns=max(10 * US, length_ns // 30),
        nodes=len(shapes),
        spares_home=not tape.flag("faults/home", HOME_AT_RISK),
    )


def _draw_shape(
    tape: Tape, number: int, nodes: int, profile: Profile, arenas: tuple[int, ...]
) -> Shape:
    """A machine: nodes are alike as a rule, each with a place of its own and some scarce things."""
    label = f"world/node{number}" if nodes <= 8 else "world/node"
    totals = {"CPU": CPU * tape.between(f"{label}/cpus", *profile.cpus)}
    if nodes > 1 and number < 8:
        totals[f"node{number}"] = 64 * CPU
    for name in ("GPU", "door"):
        if tape.flag(f"{label}/{name}", 400):
            totals[name] = CPU * (1 + tape.choose(f"{label}/{name}/n", 2))
    arena = tape.pick(f"{label}/arena", arenas)
    speed = tape.pick("world/speeds", (1000, 1000, 500)) if number % 3 == 1 else 1000
    zone = tape.pick(f"{label}/zone", ("", *LABELS))
    return Shape(
        totals=tuple(sorted(totals.items())),
        arena_bytes=arena,
        speed_permille=speed,
        labels=(("zone", zone),) if zone else (),
    )


_KNOBS: tuple[tuple[str, tuple[int | str | bool, ...]], ...] = (
    ("inline_bytes_max", (1000, 100)),
    ("inline_total_bytes_max", (500, 5_000)),
    ("answer_bytes_max", (50, 1_000)),
    ("pipeline_depth_max", (1, 2, 8)),
    ("pipeline_ns", (0, 20 * MS)),
    ("stall_check_ns", (1 * MS, 100 * MS)),
    ("idle_worker_ns", (1 * MS, 20 * MS)),
    ("worker_starts_max", (1, 2)),
    ("workers_max", (3, 6)),
    ("infeasible_grace_ns", (1 * MS,)),
    ("deadlock_check_ns", (5 * MS,)),
    ("starvation_passes", (1, 3)),
    ("hand_over", ("always", "surplus", "never")),
    ("surplus_rounds", (1, 4)),
    ("asks_max", (1, 3)),
    ("locality_bytes", (0, 1 << 40)),
    ("queue_rounds", (0, 4)),
    ("placement_interval_ns", (1 * MS, 20 * MS)),
    ("report_interval_ns", (0, 50 * MS)),
    ("death_ns", (100 * MS, 700 * MS)),
    ("unreachable_grace_ns", (50 * MS,)),
    ("in_flight_ns", (5 * MS, 50 * MS)),
    ("lease_ns", (0, 10 * SECOND)),
    ("pull_share_permille", (1, 1000)),
    ("pull_retry_ns", (0, 2 * SECOND)),
    ("lineage_bytes_max", (0, 2_000)),
    ("rebalance", (True,)),
)
"""Knobs of the policy and what a world may turn them to, instead of the production value."""


def _draw_policy(tape: Tape) -> Policy:
    """The production policy; in half of the worlds a quarter of its knobs are turned."""
    changes: dict[str, int | str | bool] = {}
    if tape.flag("policy/turned", 600):
        for name, values in _KNOBS:
            turn = tape.choose(f"policy/{name}", 4 * len(values))
            # The last quarter of the range turns the knob: 0 leaves it.
            if turn >= 3 * len(values):
                changes[name] = values[turn - 3 * len(values)]
    if changes.get("death_ns"):
        # Fewer signs of life than in production: most worlds would do little else.
        changes["heartbeat_ns"] = int(changes["death_ns"]) // 4
    return msgspec.structs.replace(Policy(), **changes)


def _draw_session(tape: Tape, ablate: tuple[str, ...]) -> SessionPolicy:
    """Sessions as in production, or with windows of a few messages."""
    changes: dict[str, int | bool] = {
        name: True for name in ablate if name in SessionPolicy.__struct_fields__
    }
    if tape.flag("policy/session", 300):
        changes["window"] = tape.pick("policy/session/window", (4096, 1, 3))
        changes["frame_messages_max"] = tape.pick("policy/session/frame", (512, 1))
        changes["ack_messages_max"] = tape.pick("policy/session/acks", (64, 1))
        changes["reorder_max"] = tape.pick("policy/session/reorder", (4096, 0, 2))
        changes["resend_ns"] = tape.pick("policy/session/resend", (200 * MS, 5 * MS))
    return msgspec.structs.replace(SessionPolicy(), **changes)


def _draw_costs(tape: Tape) -> Costs:
    """What things cost: nothing, as on real machines, or as on slow ones."""
    kind = tape.pick("schedule/costs", ("free", "real", "real", "slow"))
    short = tape.flag("schedule/patience", 500)
    silence_ns = 20 * MS if short else 1 * SECOND
    stall_ns = 50 * MS if short else 5 * SECOND
    rejoin_ns = 10 * MS if short else 1 * SECOND
    if kind == "free":
        return msgspec.structs.replace(
            FREE, silence_ns=silence_ns, stall_ns=stall_ns, rejoin_ns=rejoin_ns
        )
    spread = tape.pick("schedule/starts", (0, 10 * MS, 100 * US))
    gone = tape.pick("schedule/gone", (0, 3 * MS))
    slow = 10 if kind == "slow" else 1
    plain = Costs()
    return msgspec.structs.replace(
        plain,
        ipc_ns=plain.ipc_ns * slow,
        flush_ns=plain.flush_ns * tape.pick("schedule/flush", (1, 10)),
        worker_start_spread_ns=spread,
        gone_ns=gone,
        latency_ns=plain.latency_ns * slow,
        bandwidth_bytes_per_s=plain.bandwidth_bytes_per_s // slow**2,
        disk_bytes_per_s=plain.disk_bytes_per_s // slow**2,
        silence_ns=silence_ns,
        stall_ns=stall_ns,
        rejoin_ns=rejoin_ns,
    )
