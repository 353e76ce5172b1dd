"""`detray-sim whatif`: a recorded program on other clusters, and what stops it there."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from itertools import product
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from detray.trace.names import short
from detray_sim.cli.output import Ticker, folder_for
from detray_sim.cli.refusal import Refused
from detray_sim.cli.scenarios import JOBS_MAX, check_out, whole_numbers
from detray_sim.policies import CATALOGUE
from detray_sim.report.text import format_bytes, text_table
from detray_sim.scenario import NetworkChoice, PolicyChoice
from detray_sim.units import bytes_per_s, duration_ns, size_bytes
from detray_sim.whatif_costs import PRESETS
from detray_sim.workload import UNIT
from detray_sim.workloads.from_trace import FOLLOW

if TYPE_CHECKING:
    from detray_sim.whatif import Bound, Question, Row
    from detray_sim.whatif_play import Cluster, Progress

NETWORK, LATENCY = "10Gbit", "100us"
NODES_MAX = 2_000
"""Each knows all others: beyond, memory and patience end before the answer comes."""
CPUS_MAX = 100_000
RUNS_MAX = 1_000
"""Clusters times seeds that are played for one question."""
LATENCY_NS_MAX = 60 * 10**9
FUNCTIONS_MAX = 12
"""So many functions --profile tries, those that compute most."""

_ABOUT = """\
Play a recorded program on simulated clusters: how long it would have taken, and what stops it.

TRACE is what detray.init(record=...), detray start --record and detray trace collect write, or
detray-sim run --out. Every decision is taken by the real schedulers; tasks take as long as they
did, waiting takes as long as it takes there. What is not said is as in the recording."""
_EXAMPLES = """\
examples:
  detray-sim whatif run.trace --nodes 8 --cpus 16 --network 10Gbit --policy locality
  detray-sim whatif run.trace --nodes 1,2,4,8,16 --out answer      table and plot, knee and bound
  detray-sim whatif run.trace --nodes 8 --function tokenize=0.5    what if it took half as long?
  detray-sim whatif run.trace --nodes 8 --profile                  and which function matters most
  detray-sim whatif run.trace --nodes 4 --speed 2 --memory 4GB --resource GPU=2

--follow causes (the default): the program itself is played. Its driver and tasks submit, put and
wait as they did, and compute in between for as long as they did, so what was submitted late because
something was waited for is submitted earlier where that comes earlier. Right for other clusters.
--follow times: every task is submitted when it was in the recording, whatever came before. Right
for a service whose requests come from outside, when they come.

The first line says how well the simulator reproduces the recorded cluster itself: believe the rest
as much. Exit status 1: some task never ran."""


class Asked(NamedTuple):
    """The command line, read."""

    nodes: list[int]
    cpus: list[int]
    """0: as recorded."""
    networks: list[NetworkChoice]
    policies: list[str]
    """"" : as recorded."""
    speed_permille: int
    store_bytes: int
    resources: dict[str, int]
    factors: dict[str, Fraction]
    seeds: list[int]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = commands.add_parser(
        "whatif",
        help="a recorded program on other clusters",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", metavar="TRACE")
    add = parser.add_argument
    add("--nodes", default="", help=f"numbers of nodes up to {NODES_MAX:,}, as 8 or 1,2,4,8"
        " (default: as recorded)")  # fmt: skip
    add("--cpus", default="", help="CPUs of each node, as 16 or 2,4,8")
    add("--network", default="", help="each node's bandwidth, as 10Gbit or 1Gbit,10Gbit;"
        " or instant (default: 10Gbit)")  # fmt: skip
    add("--latency", default="", help="of the network, one way (default: 100us)")
    add("--policy", default="", help="names with commas (detray-sim list); those that know the"
        " workload beforehand are not for recordings")  # fmt: skip
    add("--speed", default="1", help="machines so many times as fast, as 2 or 0.5")
    add("--memory", default="", help="object store of each node, as 4GB")
    add("--resource", action="append", default=[], metavar="NAME=AMOUNT",
        help="of each node, as GPU=2; may be given several times")  # fmt: skip
    add("--function", action="append", default=[], metavar="NAME=FACTOR",
        help="as if this function, or (driver), took FACTOR times as long")  # fmt: skip
    add("--profile", action="store_true", help="which function to make faster: each is halved")
    add("--follow", choices=FOLLOW, default="causes", help="see below (default: causes)")
    add("--costs", choices=PRESETS, default="recorded",
        help="what the runtime itself takes: as in the recording, as docs/performance.md measured,"
        " or nothing (default: recorded)")  # fmt: skip
    add("--seeds", type=int, default=1, help="runs of each cluster, for policies that draw lots")
    add("--jobs", type=int, default=1, help="so many processes (default: 1)")
    add("--out", metavar="DIR", help="a new folder for table, plot and JSON")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    check_out(options.out)
    asked = _read(options)
    _check_sweep(asked)
    question = _open(options)
    _check_functions(asked.factors, question)
    clusters = list(_clusters(asked, options.costs, question))
    if options.profile and len(clusters) > 1:
        raise Refused("--profile is about one cluster: give one number of --nodes and --cpus")
    own, rows, profile = _answers(options, asked, question, clusters)
    notes = list(_notes(options, asked, question, clusters))
    report = _Report(options.trace, question, own, rows, profile, notes)
    with folder_for(options.out) as folder:
        if folder is not None:
            report.write(folder)
    print(report.json() if options.json else report.text(), end="\n" if options.json else "")
    return 1 if any(row.never_ran for row in rows) else 0


# ----------------------------------------------------------------- the command line


def _read(options: argparse.Namespace) -> Asked:
    if options.seeds < 1 or not 1 <= options.jobs <= JOBS_MAX:
        raise Refused(f"--seeds is from 1 on, --jobs from 1 to {JOBS_MAX}")
    nodes = whole_numbers(options.nodes, "--nodes") if options.nodes else [0]
    cpus = whole_numbers(options.cpus, "--cpus") if options.cpus else [0]
    for name, numbers, most in (("--nodes", nodes, NODES_MAX), ("--cpus", cpus, CPUS_MAX)):
        if max(numbers) > most:
            raise Refused(f"{name}: at most {most:,}, not {max(numbers):,}")
    latency_ns = _quantity(duration_ns, options.latency or LATENCY, "--latency")
    if latency_ns > LATENCY_NS_MAX:
        raise Refused(f"--latency: at most 1 min, not {options.latency}: nodes would take each"
                      " other for dead")  # fmt: skip
    store_bytes = _quantity(size_bytes, options.memory, "--memory") if options.memory else 0
    if options.memory and not store_bytes:
        raise Refused("--memory: a store of 0 bytes holds nothing; say as 4GB, 512MiB")
    return Asked(
        nodes=nodes,
        cpus=cpus,
        networks=[
            _network(word, latency_ns) for word in _words(options.network or NETWORK, "--network")
        ],
        policies=[_policy(word) for word in _words(options.policy, "--policy")]
        if options.policy
        else [""],
        speed_permille=round(_factor(options.speed, "--speed", "2 or 0.5") * 1000) or 1,
        store_bytes=store_bytes,
        resources={
            name: round(_factor(value, f"--resource {name}", "2", least=0) * UNIT)
            for name, value in _pairs(options.resource, "--resource", "GPU=2")
        },
        factors={
            name: _factor(value, f"--function {name}", "0.5", least=0)
            for name, value in _pairs(options.function, "--function", "tokenize=0.5")
        },
        seeds=list(range(options.seeds)),
    )


def _check_sweep(asked: Asked) -> None:
    """Refuse what nobody would wait for."""
    axes: dict[str, Sequence[object]] = {
        "--nodes": asked.nodes,
        "--cpus": asked.cpus,
        "--network": asked.networks,
        "--policy": asked.policies,
        "--seeds": asked.seeds,
    }
    runs = prod(map(len, axes.values()))
    if runs > RUNS_MAX:
        told = " x ".join(f"{len(values):,} {name}" for name, values in axes.items() if values[1:])
        raise Refused(
            f"{told} is {runs:,} runs; at most {RUNS_MAX:,} are played at once: ask about fewer"
        )


def _notes(
    options: argparse.Namespace, asked: Asked, question: Question, clusters: Sequence[Cluster]
) -> Iterator[str]:
    """What was asked for and changes nothing, or not what one would think."""
    if asked.store_bytes and (found := question.oversized(asked.store_bytes)):
        largest = found[0]
        others = f"; {len(found):,} objects are" if len(found) > 1 else ""
        yield (
            f"--memory {options.memory}: {largest.origin} ({short(largest.id)}) has"
            f" {format_bytes(largest.size_bytes)}, more than such a store can hold{others};"
            " what does not fit gets a file of its own, and is written there as fast as to memory"
        )
    if all(len(cluster.nodes) == 1 for cluster in clusters):
        for name in ("network", "latency"):
            if getattr(options, name):
                yield f"--{name} changes nothing: one node has nobody to send to"
    elif options.latency and all(network.model == "instant" for network in asked.networks):
        yield "--latency changes nothing: in an instant network nothing takes time"
    wanted = {name for task in question.recording.tasks for name, _ in task.demand}
    for name in asked.resources:
        if name not in wanted:
            yield f"--resource {name} changes nothing: no task asks for it"


def _words(text: str, what: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise Refused(f"{what}: names with commas between, not {text!r}")
    return list(dict.fromkeys(words))


def _pairs(given: Sequence[str], what: str, like: str) -> Iterator[tuple[str, str]]:
    for text in given:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise Refused(f"{what} {text!r}: it is like {like}")
        if name == "CPU":
            raise Refused(f"{what} {text!r}: CPUs are given with --cpus")
        yield name, value


def _factor(text: str, what: str, like: str, least: float = 0.001) -> Fraction:
    try:
        factor = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise Refused(f"{what}: a number like {like}, not {text!r}") from None
    if not least <= factor <= 1_000_000:
        raise Refused(f"{what}: from {least:g} to 1000000, not {text}")
    return factor


def _quantity(read: Callable[[object], int], text: str, what: str) -> int:
    try:
        return read(text) if not text.isdecimal() else read(int(text))
    except ValueError as error:
        raise Refused(f"{what}: {error}") from None


def _network(word: str, latency_ns: int) -> NetworkChoice:
    if word == "instant":
        return NetworkChoice()
    rate = _quantity(bytes_per_s, word, "--network")
    if not rate:
        raise Refused(f"--network: {word} moves nothing; instant is the network without limits")
    return NetworkChoice(model="maxmin", bandwidth_bytes_per_s=rate, latency_ns=latency_ns)


def _policy(word: str) -> str:
    playable = [name for name, entry in CATALOGUE.items() if entry.kind is None]
    if word in playable:
        return word
    if word in CATALOGUE:
        raise Refused(
            f"--policy: {word} knows the whole workload beforehand, and a program that submits as"
            f" it goes has none; play its graph: detray-sim run with [workload] trace = ..."
            f" ({', '.join(playable)} decide as they go)"
        )
    close = get_close_matches(word, playable, 1, 0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise Refused(f"--policy: {word!r} is none of {', '.join(playable)}{hint}")


def _open(options: argparse.Namespace) -> Question:
    from detray.trace.format import TraceError
    from detray.trace.reading import open_trace
    from detray_sim.whatif import Question
    from detray_sim.whatif_script import read_recording

    try:
        trace = open_trace(options.trace)
        return Question(read_recording(trace, Path(options.trace).stem, options.follow))
    except TraceError as error:
        raise Refused(str(error)) from None


def _check_functions(factors: Mapping[str, Fraction], question: Question) -> None:
    names = [name for name, _ in question.functions()]
    for name in factors:
        if name not in names:
            close = get_close_matches(name, names, 1, 0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names[:10])}"
            raise Refused(f"--function: no task of the recording is called {name!r}; {hint}")


def _clusters(asked: Asked, costs: str, question: Question) -> Iterator[Cluster]:
    """All that the sweep asks for."""
    if not asked.nodes[0] and not asked.cpus[0] and not asked.resources:
        # Nothing was said of the machines: the recorded ones, unequal as they may be.
        recorded = question.recorded_cluster(costs=costs)
        shapes = tuple(
            msgspec.structs.replace(
                shape,
                speed_permille=asked.speed_permille,
                store_bytes=asked.store_bytes or shape.store_bytes,
            )
            for shape in recorded.nodes
        )
        for network, policy in product(asked.networks, asked.policies):
            choice = PolicyChoice(name=policy) if policy else recorded.policy
            yield msgspec.structs.replace(recorded, nodes=shapes, network=network, policy=choice)
        return
    for cpus, network, policy, nodes in product(
        asked.cpus, asked.networks, asked.policies, asked.nodes
    ):
        yield question.cluster(
            nodes or len(question.recording.nodes),
            cpus,
            network=network,
            policy=PolicyChoice(name=policy) if policy else None,
            costs=costs,
            store_bytes=asked.store_bytes,
            speed_permille=asked.speed_permille,
            resources=asked.resources,
        )


# ------------------------------------------------------------------------- playing

Profile = list[tuple[str, float, float]]
"""By function: what it computes in all, and the makespan if that were half as long; seconds."""


def _answers(
    options: argparse.Namespace, asked: Asked, question: Question, clusters: list[Cluster]
) -> tuple[Row, list[Row], Profile]:
    """The recorded cluster itself, the others, and functions made faster."""
    from detray_sim.whatif import Question
    from detray_sim.whatif_script import scaled

    recorded = question.recorded_cluster(asked.networks[0], options.costs)
    changed = Question(scaled(question.recording, asked.factors)) if asked.factors else question
    jobs = [Job(question, recorded)]
    jobs += [Job(changed, cluster, asked.seeds) for cluster in clusters]
    spent = dict(changed.functions())
    names = [name for name, s in spent.items() if s > 0][:FUNCTIONS_MAX] if options.profile else []
    for name in names:
        half = scaled(changed.recording, {name: Fraction(1, 2)})
        jobs.append(Job(Question(half), clusters[0]))
    rows = _all(jobs, options.jobs)
    count = 1 + len(clusters)
    halved = [
        (name, spent[name], row.makespan_s) for name, row in zip(names, rows[count:], strict=True)
    ]
    return rows[0], rows[1:count], sorted(halved, key=lambda each: each[2])


class Job(NamedTuple):
    """One cluster to ask about."""

    question: Question
    cluster: Cluster
    seeds: Sequence[int] = (0,)

    def row(self, progress: Progress | None = None) -> Row:
        """The answer."""
        return self.question.predict(self.cluster, self.seeds, progress)


_JOBS: list[Job] = []
"""For child processes: they are forked, and have the recording already."""


def _all(jobs: list[Job], processes: int) -> list[Row]:
    """Run all, in so many processes; a line on the terminal says how far it is."""
    rows: list[Row] = []
    if processes == 1:
        total = sum(len(job.question.recording.tasks) * len(job.seeds) for job in jobs)
        with Ticker(f"{len(jobs)} clusters, tasks") as ticker:
            done = 0
            for job in jobs:
                tasks = len(job.question.recording.tasks)
                rows.append(job.row(lambda now, _, done=done: ticker.tell(done + now, total)))  # type: ignore[misc]  # a default
                done += tasks * len(job.seeds)
        return rows
    _JOBS[:] = jobs
    processes = min(processes, len(jobs))
    with (
        Ticker(f"{len(jobs)} clusters") as ticker,
        get_context("fork").Pool(processes) as pool,
    ):
        for row in pool.imap(_row, range(len(jobs))):
            rows.append(row)
            ticker.tell(len(rows), len(jobs))
    return rows


def _row(number: int) -> Row:
    return _JOBS[number].row()


# ------------------------------------------------------------------------- telling


def _short(*seconds: float) -> Iterator[str]:
    return (f"{value:.4g}" for value in seconds)


class _Report:
    """Everything that is told."""

    def __init__(
        self, trace: str, question: Question, own: Row, rows: list[Row], profile: Profile,
        notes: list[str],
    ) -> None:  # fmt: skip
        self.trace = trace
        self.question = question
        self.own = own
        self.rows = rows
        self.profile = profile
        self.notes = notes

    def write(self, folder: Path) -> None:
        """Text, JSON and the plot."""
        from detray_sim.report.scaling import whatif_chart
        from detray_sim.whatif_text import points

        (folder / "whatif.txt").write_text(self.text(), encoding="utf-8")
        (folder / "whatif.json").write_text(self.json() + "\n", encoding="utf-8")
        recording = self.question.recording
        axis, lines = points(self.rows)
        chart = whatif_chart(recording.name, axis, lines, recording.makespan_ns / 1e9)
        chart.write(folder / "whatif")

    def text(self) -> str:
        """For people."""
        from detray_sim.whatif_text import TABLE, answer, cells, opening

        recording = self.question.recording
        parts = [*opening(recording, self.own), *(f"note: {note}" for note in self.notes), ""]
        parts += [text_table(TABLE, [cells(row) for row in self.rows]), ""]
        if self.profile:
            parts += [self._profile_text(), ""]
        lost = dict.fromkeys(what for row in self.rows for what in row.lost)
        parts += [f"not as recorded: {what}" for what in lost]
        parts += [
            f"{row.never_ran:,} tasks never ran on {row.nodes} nodes: no node has what they ask for"
            for row in self.rows
            if row.never_ran
        ]
        parts.append(answer(self.rows, recording.makespan_ns / 1e9))
        return "\n".join(parts) + "\n"

    def _profile_text(self) -> str:
        whole_s = self.rows[0].makespan_s
        lines = [
            (name, *_short(spent_s, half_s, whole_s - half_s), f"{1 - half_s / whole_s:.1%}")
            for name, spent_s, half_s in self.profile
            if whole_s
        ]
        return text_table(("if it took half", "computes s", "makespan s", "gain s", "gain"), lines)

    def json(self) -> str:
        """For programs."""
        from detray.trace.documents import document, in_house_units
        from detray_sim.whatif_text import answer, knees

        recording = self.question.recording
        recorded_s = recording.makespan_ns / 1e9
        data = in_house_units(
            {
                "trace": self.trace,
                "tasks": len(recording.tasks),
                "recorded_s": recorded_s,
                "reproduced_s": self.own.makespan_s,
                "left_out": recording.left_out,
                "notes": self.notes,
                "rows": [_row_data(row) for row in self.rows],
                "knees": knees(self.rows),
                "profile": [
                    {"name": name, "computes_s": spent_s, "halved_makespan_s": half_s}
                    for name, spent_s, half_s in self.profile
                ],
                "answer": answer(self.rows, recorded_s),
            }
        )
        return document("detray-sim whatif", data)


def _row_data(row: Row) -> dict[str, object]:
    """A row for programs."""
    data = msgspec.structs.asdict(row)
    data["bound"] = _bound_data(row.bound)
    data["bounds"] = [_bound_data(bound) for bound in row.bounds]
    data["chain"] = [{"name": name, "length_s": length_s} for name, length_s in row.chain]
    return data


def _bound_data(bound: Bound) -> dict[str, object]:
    return {"kind": bound.kind, "length_s": bound.s, "text": bound.text, "label": bound.short}
