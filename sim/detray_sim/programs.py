"""Random programs: scripts (`scripts.py`) of many kinds, drawn from a tape."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from detray.core.strategy import Strategy
from detray_sim.scripts import (
    CPU,
    Await,
    Call,
    Let,
    Nap,
    Program,
    Read,
    Script,
    Spend,
    Step,
    Stop,
    Store,
)
from detray_sim.tape import Tape
from detray_sim.wishes import draw_strategy

US, MS = 1_000, 1_000_000


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may ask of its world."""

    tasks: int
    """About so many tasks."""
    nodes: int = 1
    places: tuple[str, ...] = ()
    """Resources of which single nodes have plenty: asking for one says where to run."""
    scarce: tuple[str, ...] = ()
    """Resources of which there is one or two: asking for one may mean waiting long."""
    small_bytes: int = 64
    large_bytes: int = 200_000
    large_permille: int = 300
    """So many of 1000 values are large, in programs that have large ones."""
    duration_ns: int = 100 * US
    law: str = "constant"


class Pen:
    """Writes scripts: what all kinds of programs have in common."""

    def __init__(self, tape: Tape, bounds: Bounds, features: frozenset[str]) -> None:
        self.tape = tape
        self.bounds = bounds
        self.features = features

    # -------------------------------------------------------------------------- choices

    def chance(self, label: str, feature: str, permille: int) -> bool:
        """True now and then, if the program has this feature at all."""
        return feature in self.features and self.tape.flag(f"program/{label}", permille)

    def size(self, label: str) -> int:
        """Bytes of a value: small, or large enough for a block."""
        large = "large" in self.features and self.tape.flag(
            f"program/{label}/large", self.bounds.large_permille
        )
        return self.bounds.large_bytes if large else self.bounds.small_bytes

    def duration(self, label: str) -> int:
        """How long a run computes, by the world's law (integers: shrinks to the shortest)."""
        mean = self.bounds.duration_ns
        label = f"program/{label}/ns"
        if self.bounds.law == "constant":
            return mean
        if self.bounds.law == "heavy":  # most are short, a few a hundred times as long
            return self.tape.log_between(label, max(1, mean // 30), mean * 100)
        return self.tape.between(label, max(1, mean // 10), mean * 2)

    def demand(self, label: str) -> tuple[tuple[str, int], ...]:
        """What a run asks for: most ask for a CPU, some for a certain node or a scarce thing."""
        tape, bounds = self.tape, self.bounds
        parts = {"CPU": tape.pick(f"program/{label}/cpu", (CPU, CPU, CPU, CPU // 2, 0))}
        if bounds.places and self.chance(f"{label}/placed", "places", 500):
            parts[tape.pick(f"program/{label}/place", bounds.places)] = CPU
        if bounds.scarce and self.chance(f"{label}/scarce", "scarce", 200):
            parts[tape.pick(f"program/{label}/which", bounds.scarce)] = CPU
        return tuple(sorted((name, amount) for name, amount in parts.items() if amount))

    def script(
        self,
        label: str,
        steps: list[Step],
        *,
        returns: int = 1,
        carries: tuple[int, ...] = (),
        demand: tuple[tuple[str, int], ...] | None = None,
    ) -> Script:
        """A script with random options."""
        tape = self.tape
        sturdy = "sturdy" in self.features
        retries = -1 if sturdy else tape.pick(f"program/{label}/retries", (3, 3, 0, 1, -1))
        fails = 0
        if not sturdy and self.chance(f"{label}/fails", "errors", 150):
            fails = tape.pick(f"program/{label}/fails/how", (-1, 1, 2))
        return Script(
            name=label,
            steps=tuple(steps),
            returns=tuple(self.size(f"{label}/return{i}") for i in range(returns)),
            carries=carries,
            demand=self.demand(label) if demand is None else demand,
            retries=retries,
            retries_errors=fails > 0 and tape.flag(f"program/{label}/again", 700),
            fails=fails,
            max_calls=1 + tape.choose(f"program/{label}/calls", 3)
            if self.chance(f"{label}/max_calls", "max_calls", 300)
            else 0,
            is_fickle=self.chance(f"{label}/fickle", "fickle", 200),
            strategy=self.strategy(label),
        )

    def strategy(self, label: str) -> Strategy | None:
        """Where a script wants to run: as a rule it does not say."""
        if not self.chance(f"{label}/strategy", "strategies", 400):
            return None
        return draw_strategy(self.tape, f"program/{label}/strategy", self.bounds.nodes)

    def place(self, label: str) -> tuple[tuple[str, int], ...]:
        """A demand that says where to run, as a rule; anything else now and then."""
        places = self.bounds.places
        if not places or self.tape.flag(f"program/{label}/anywhere", 150):
            return self.demand(label)
        place = self.tape.pick(f"program/{label}/place", places)
        return tuple(sorted((("CPU", CPU), (place, CPU))))

    def some(self, label: str, count: int, most: int) -> tuple[int, ...]:
        """Up to `most` distinct slots of the last dozen of `count`."""
        if count <= 0:
            return ()
        tape = self.tape
        window = min(count, 12)
        picked: dict[int, None] = {}
        for place in range(tape.count(f"program/{label}/n", most)):
            picked[count - 1 - tape.choose(f"program/{label}/{place}", window)] = None
        return tuple(picked)


FEATURES = (
    "large", "places", "scarce", "errors", "fickle", "max_calls", "nesting", "reads", "waits",
    "puts", "drops", "cancels", "timeouts", "catches", "closures", "handing", "carrying", "returns",
    "sturdy", "smuggling", "strategies",
)  # fmt: skip
"""What a program may have at all; each seed has about half of them."""


def draw_features(tape: Tape) -> frozenset[str]:
    """The features of one seed."""
    return frozenset(name for name in FEATURES if tape.flag(f"features/{name}", 500))


def draw_program(
    tape: Tape, bounds: Bounds, features: frozenset[str], kinds: tuple[str, ...] = ()
) -> Program:
    """A program of a random kind, of `kinds` if there are any."""
    kind = tape.pick("program/kind", kinds or tuple(KINDS))
    main, *others = KINDS[kind](Pen(tape, bounds, features))
    if tape.flag("program/rests", 400):
        # Values lie where they were made meanwhile, and what dies there takes them along.
        rest = Nap(tape.log_between("program/rest", 1 * MS, 100 * MS))
        main = msgspec.structs.replace(main, steps=(*main.steps, rest))
    return Program(kind=kind, scripts=(main, *others))


# ---------------------------------------------------------------------------------- kinds


def _mixed(pen: Pen) -> list[Script]:
    """Anything: scripts of random steps that call each other, at most four deep."""
    tape, bounds = pen.tape, pen.bounds
    count = 2 + tape.choose("program/scripts", 6)
    scripts: list[Script] = []
    sizes: list[int] = []
    for number in range(count - 1, 0, -1):
        script, size = _random_script(pen, number, sizes, max(1, bounds.tasks // 3))
        scripts.insert(0, script)
        sizes.insert(0, size)
    steps: list[Step] = []
    slots, spent = 0, 0
    for place in range(4 + bounds.tasks * 2):
        label = f"program/main/{place}"
        if not tape.flag(f"{label}/is", 900):
            continue
        step, more = _random_step(pen, f"main/{place}", slots, count, main=True)
        if type(step) is Call:
            weight = sizes[step.script - 1]
            if spent + weight > bounds.tasks:
                continue
            spent += weight
            more = len(scripts[step.script - 1].returns)
        slots = max(0, slots + more)
        steps.append(step)
    return [Script(name="main", steps=tuple(steps)), *scripts]


def _random_script(pen: Pen, number: int, below: list[int], budget: int) -> tuple[Script, int]:
    """A script that may call those below it (`below`: sizes of their trees); and its own size."""
    tape = pen.tape
    label = f"s{number}"
    steps: list[Step] = []
    slots, size = 1, 1
    for place in range(6):
        if not tape.flag(f"program/{label}/{place}/is", 600):
            continue
        first = number + 1
        step, more = _random_step(pen, f"{label}/{place}", slots, first + len(below), first=first)
        if type(step) is Call:
            weight = below[step.script - first]
            if "nesting" not in pen.features or size + weight > budget:
                continue
            size += weight
        slots = max(0, slots + more)
        steps.append(step)
    returns = 1
    if pen.chance(f"{label}/returns", "returns", 400):
        returns = tape.pick(f"program/{label}/count", (2, 3, 0))
    carries = pen.some(f"{label}/carries", slots, 2) if "carrying" in pen.features else ()
    return pen.script(label, steps, returns=returns, carries=carries), size


_MOVES = ("spend", "call", "read", "store", "await", "let", "stop", "nap")


def _random_step(
    pen: Pen, label: str, slots: int, count: int, *, first: int = 1, main: bool = False
) -> tuple[Step, int]:
    """A step, and how many slots it is likely to add."""
    tape = pen.tape
    moves = [move for move in _MOVES if _is_on(pen, move, main)]
    if first < count:
        moves += ["call"] * (6 if main else 2)
    else:
        moves.remove("call")
    match tape.pick(f"program/{label}/move", moves):
        case "call":
            script = first + tape.choose(f"program/{label}/script", count - first)
            nested = pen.some(f"{label}/nested", slots, 2) if "handing" in pen.features else ()
            closure = (
                pen.some(f"{label}/captured", slots, 1)
                if pen.chance(f"{label}/closure", "closures", 150)
                else ()
            )
            hidden = (
                pen.some(f"{label}/smuggled", slots, 2)
                if pen.chance(f"{label}/by_hand", "smuggling", 300)
                else ()
            )
            args = pen.some(f"{label}/args", slots, 3)
            return Call(script, args, nested, closure, smuggled=hidden), 1
        case "read":
            return _random_read(pen, label, slots), 0
        case "store":
            return Store(pen.size(label), pen.some(f"{label}/refs", slots, 2)), 1
        case "await":
            items = pen.some(f"{label}/slots", slots, 4)
            timeout = tape.pick(f"program/{label}/timeout", (-1, 0, 500 * US))
            return Await(items, 1 + tape.choose(f"program/{label}/needed", 3), timeout), 0
        case "let":
            return Let(tape.choose(f"program/{label}/slot", max(1, slots))), -1
        case "stop":
            force = tape.flag(f"program/{label}/force", 250)
            deep = tape.flag(f"program/{label}/deep", 500)
            return Stop(tape.choose(f"program/{label}/slot", max(1, slots)), force, deep), 0
        case "nap":
            return Nap(pen.duration(label)), 0
        case _:
            return Spend(pen.duration(label)), 0


def _is_on(pen: Pen, move: str, main: bool) -> bool:
    feature = {
        "read": "reads", "store": "puts", "await": "waits", "let": "drops", "stop": "cancels",
    }.get(move)  # fmt: skip
    if main and move in ("read", "spend"):
        return "waits" in pen.features
    return feature is None or feature in pen.features


def _random_read(pen: Pen, label: str, slots: int) -> Read:
    timeout = -1
    if pen.chance(f"{label}/timed", "timeouts", 300):
        timeout = pen.tape.pick(f"program/{label}/timeout", (500 * US, 0, 5 * MS))
    catches = timeout >= 0 or pen.chance(f"{label}/catches", "catches", 400)
    return Read(pen.some(f"{label}/slots", slots, 3), timeout, catches)


def _layers(pen: Pen) -> list[Script]:
    """A layered graph, all of it submitted by the driver."""
    tape, tasks = pen.tape, pen.bounds.tasks
    kinds = 1 + tape.choose("program/kinds", 4)
    scripts = [pen.script(f"k{kind}", [Spend(pen.duration(f"k{kind}"))]) for kind in range(kinds)]
    width = 1 + tape.choose("program/width", max(1, min(64, tasks // 2)))
    steps: list[Step] = []
    made = 0
    for place in range(tasks):
        label = f"call{place}"
        if not tape.flag(f"program/{label}/is", 970):
            continue
        layer = made // width
        args: dict[int, None] = {}
        if layer:
            for turn in range(tape.count(f"program/{label}/fan", 4)):
                back = tape.choose(f"program/{label}/{turn}", width)
                args[(layer - 1) * width + back] = None
        steps.append(Call(1 + tape.choose(f"program/{label}/kind", kinds), tuple(args)))
        made += 1
    return [Script(name="main", steps=tuple(steps)), *scripts]


def _tree(pen: Pen) -> list[Script]:
    """Nested submissions: each level calls the next a few times and reads the results."""
    tape, tasks = pen.tape, pen.bounds.tasks
    depth = 1 + tape.choose("program/depth", 4)
    fan = 1 + tape.choose("program/fan", 3)
    scripts: list[Script] = []
    size = 1
    for level in range(depth, 0, -1):
        calls: list[Step] = []
        width = 0
        if level < depth:
            for place in range(fan):
                if size * (width + 1) < tasks and tape.flag(f"program/l{level}/{place}/is", 800):
                    calls.append(Call(level + 1))
                    width += 1
        steps: list[Step] = [Spend(pen.duration(f"l{level}")), *calls]
        # The children's references come after those that the script was given: none here.
        steps += _read_all(pen, f"l{level}", width)
        scripts.insert(0, pen.script(f"l{level}", steps))
        size = 1 + size * width
    roots = max(1, min(tasks // size, 1 + tape.plenty("program/roots", max(8, tasks // 4))))
    return [Script(name="main", steps=tuple([Call(1)] * roots)), *scripts]


def _read_all(pen: Pen, label: str, count: int) -> list[Step]:
    """Read all slots: at once, or one after the other."""
    if not count:
        return []
    if pen.tape.flag(f"program/{label}/single", 400):
        return [Read((slot,)) for slot in range(count)]
    return [Read(tuple(range(count)))]


def _chain(pen: Pen) -> list[Script]:
    """A lineage chain: each task takes the last one's value, large as a rule; early ones go."""
    tape, tasks = pen.tape, pen.bounds.tasks
    kinds = 1 + tape.choose("program/kinds", 3)
    scripts = [pen.script(f"k{kind}", [Spend(pen.duration(f"k{kind}"))]) for kind in range(kinds)]
    steps: list[Step] = [Call(1)]
    length = 1 + tape.plenty("program/length", max(1, tasks - 1))
    keeps = tape.flag("program/keeps", 300)
    for place in range(length):
        if not tape.flag(f"program/call{place}/is", 950):
            continue
        steps.append(Call(1 + tape.choose(f"program/call{place}/kind", kinds), (-1,)))
        if not keeps:
            steps.append(Let(0))
    return [Script(name="main", steps=tuple(steps)), *scripts]


def _broadcast(pen: Pen) -> list[Script]:
    """One value that many tasks on many nodes take, then one that takes all of theirs."""
    tape, tasks = pen.tape, pen.bounds.tasks
    readers = 1 + tape.plenty("program/readers", max(1, tasks - 2))
    kinds = 1 + tape.choose("program/kinds", 4)
    scripts = [pen.script("source", [Spend(pen.duration("source"))])]
    scripts += [pen.script(f"k{kind}", [Spend(pen.duration(f"k{kind}"))]) for kind in range(kinds)]
    if tape.flag("program/is_put", 500):
        first: Step = Store(pen.bounds.large_bytes)
    else:
        first = Call(1)
    steps: list[Step] = [first]
    for place in range(readers):
        steps.append(Call(2 + tape.choose(f"program/call{place}/kind", kinds), (0,)))
    if tape.flag("program/joins", 500):
        steps.append(Call(2, tuple(range(1, min(readers, 30) + 1))))
    if tape.flag("program/lets", 500):
        steps.append(Let(0))
    return [Script(name="main", steps=tuple(steps)), *scripts]


def _shuffle(pen: Pen) -> list[Script]:
    """m tasks of n returns each, then n tasks that take one return of each."""
    tape, tasks = pen.tape, pen.bounds.tasks
    most = max(1, min(8, tasks // 2))
    m, n = 1 + tape.plenty("program/m", most), 1 + tape.plenty("program/n", most)
    scripts = [
        pen.script("map", [Spend(pen.duration("map"))], returns=n),
        pen.script("reduce", [Spend(pen.duration("reduce"))]),
    ]
    steps: list[Step] = [Call(1)] * m
    steps += [Call(2, tuple(row * n + column for row in range(m))) for column in range(n)]
    if tape.flag("program/lets", 600):
        steps += [Let(0)] * (m * n)
    return [Script(name="main", steps=tuple(steps)), *scripts]


def _borrows(pen: Pen) -> list[Script]:
    """References handed on from node to node: inside arguments, results and closures (N4).

    Script i gets a reference to a value, hands it to i + 1 and drops its own; the last one reads.
    """
    tape = pen.tape
    length = 2 + tape.choose("program/length", 4)
    scripts: list[Script] = []
    for place in range(1, length + 1):
        label = f"h{place}"
        steps: list[Step] = []
        if tape.flag(f"program/{label}/spends", 500):
            steps.append(Spend(pen.duration(label)))
        if place == length:
            steps.append(Read((0,)))
            carries: tuple[int, ...] = (0,) if tape.flag(f"program/{label}/back", 500) else ()
        else:
            how = tape.pick(f"program/{label}/how", ("nested", "put", "closure"))
            if pen.chance(f"{label}/by_hand", "smuggling", 400):
                steps.append(Call(place + 1, smuggled=(0,)))
            elif how == "put":
                steps += [Store(pen.size(label), (0,)), Call(place + 1, (), (1,))]
            elif how == "closure":
                steps.append(Call(place + 1, (), (), (0,)))
            else:
                steps.append(Call(place + 1, (), (0,)))
            if tape.flag(f"program/{label}/lets", 600):
                steps.append(Let(0))
            elif tape.flag(f"program/{label}/reads", 300):
                steps.append(Read((1,)))
            # The result may carry the child's reference on: the owner must learn of it in time.
            carries = (0,) if tape.flag(f"program/{label}/carries", 500) else ()
        scripts.append(pen.script(label, steps, carries=carries, demand=pen.place(label)))
    scripts.append(pen.script("source", [Spend(pen.duration("source"))]))
    main: list[Step] = []
    chains = 1 + tape.plenty("program/chains", max(1, pen.bounds.tasks // length))
    for chain in range(chains):
        # The newest is slot 0 while the chain begins: drops make room for it.
        source = Call(length + 1) if tape.flag(f"program/c{chain}/task", 500) else None
        main.append(source or Store(pen.size(f"c{chain}")))
        main.append(Call(1, (), (-1,)))
        if tape.flag(f"program/c{chain}/lets", 600):
            main.append(Let(-2))
    return [Script(name="main", steps=tuple(main)), *scripts]


def _explosion(pen: Pen) -> list[Script]:
    """Many parents that block on their children (N10)."""
    tape, tasks = pen.tape, pen.bounds.tasks
    fan = 1 + tape.choose("program/fan", 4)
    parents = max(1, tasks // (fan + 1))
    parent: list[Step] = [Call(2)] * fan + _read_all(pen, "parent", fan)
    scripts = [
        pen.script("parent", parent),
        pen.script("child", [Spend(pen.duration("child"))]),
    ]
    return [Script(name="main", steps=tuple([Call(1)] * parents)), *scripts]


def _storm(pen: Pen) -> list[Script]:
    """Submissions and cancellations in turn, of trees and of single tasks."""
    tape, tasks = pen.tape, pen.bounds.tasks
    leaf = pen.script("leaf", [Spend(pen.duration("leaf"))])
    branch = pen.script("branch", [Call(2), Call(2), *_read_all(pen, "branch", 2)])
    steps: list[Step] = []
    made = slots = 0
    place = 0
    while made < tasks and place < 4 * tasks:
        label = f"program/main/{place}"
        place += 1
        match tape.choose(f"{label}/move", 5):
            case 0 | 1:
                is_tree = tape.flag(f"{label}/tree", 300)
                args = (slots - 1,) if slots and tape.flag(f"{label}/arg", 300) else ()
                steps.append(Call(1 if is_tree else 2, args))
                made += 3 if is_tree else 1
                slots += 1
            case 2 if slots:
                force, deep = tape.flag(f"{label}/force", 300), tape.flag(f"{label}/deep", 500)
                steps.append(Stop(tape.choose(f"{label}/slot", slots), force, deep))
            case 3:
                steps.append(Nap(pen.duration(f"main/{place}")))
            case _ if slots:
                steps.append(Await((tape.choose(f"{label}/slot", slots),), 1, 300 * US))
    return [Script(name="main", steps=tuple(steps)), branch, leaf]


def _circle(pen: Pen) -> list[Script]:
    """Runs that hold a scarce resource while their children need the same: may deadlock (N20)."""
    scarce = pen.bounds.scarce[:1]
    if not scarce:
        return _explosion(pen)
    demand = tuple(sorted((("CPU", CPU), (scarce[0], CPU))))
    parent: list[Step] = [Spend(pen.duration("parent")), Call(2), Read((0,), catches=True)]
    scripts = [
        pen.script("parent", parent, demand=demand),
        pen.script("child", [Spend(pen.duration("child"))], demand=demand),
    ]
    parents = 1 + pen.tape.plenty("program/parents", max(1, min(8, pen.bounds.tasks // 2)))
    return [Script(name="main", steps=tuple([Call(1)] * parents)), *scripts]


def _relay(pen: Pen) -> list[Script]:
    """A value's owner is two nodes away: its reference comes up through results (N4).

    The last script puts a value and returns its reference, each one above reads what its child
    returned and hands that reference on; the driver reads it in the end.
    """
    tape = pen.tape
    length = 2 + tape.choose("program/length", 3)
    leaf: list[Step] = [Spend(pen.duration("leaf")), Store(pen.size("leaf/value"))]
    scripts = [pen.script(f"r{length}", leaf, carries=(0,), demand=pen.place("leaf"))]
    for place in range(length - 1, 0, -1):
        label = f"r{place}"
        steps: list[Step] = [Call(place + 1), Read((0,))]
        if tape.flag(f"program/{label}/lets", 700):
            steps.append(Let(0))
        scripts.insert(0, pen.script(label, steps, carries=(-1,), demand=pen.place(label)))
    chains = 1 + tape.plenty("program/chains", max(1, pen.bounds.tasks // length))
    return [Script(name="main", steps=tuple([Call(1)] * chains)), *scripts]


def _again(pen: Pen) -> list[Script]:
    """One reference is lent to the same nodes over and over while they give it back (N3).

    The borrower's child outlives it, and reads the reference when nobody else has it any more.
    """
    tape = pen.tape
    late: list[Step] = [Nap(pen.duration("late") * 4), Read((0,))]
    scripts = [
        pen.script("lender", [Call(2, (), (0,))], demand=pen.place("lender")),
        pen.script("late", late, demand=pen.place("late")),
    ]
    steps: list[Step] = [Store(pen.size("value"))]
    for turn in range(1 + tape.plenty("program/turns", max(1, pen.bounds.tasks // 2))):
        steps.append(Call(1, (), (0,)))
        if tape.flag(f"program/t{turn}/waits", 500):
            steps.append(Nap(tape.log_between(f"program/t{turn}/ns", 1 * US, 10 * MS)))
    steps.append(Let(0))
    return [Script(name="main", steps=tuple(steps)), *scripts]


def _behind(pen: Pen) -> list[Script]:
    """A run blocks on one that was sent to the same worker after it (N11)."""
    tape = pen.tape
    demand = pen.place("all")
    scripts = [
        pen.script("first", [Spend(pen.duration("first"))], demand=demand),
        pen.script("asker", [Read((0,))], demand=demand),
        pen.script("giver", [Spend(pen.duration("giver"))], demand=demand),
    ]
    steps: list[Step] = []
    for turn in range(1 + tape.plenty("program/turns", max(6, pen.bounds.tasks // 3))):
        at = 3 * turn
        # The giver waits for the first, so the asker stands before it in the queue.
        steps += [Call(1), Call(3, (at,)), Call(2, (), (at + 1,))]
    return [Script(name="main", steps=tuple(steps)), *scripts]


KINDS: dict[str, Callable[[Pen], list[Script]]] = {
    "layers": _layers,
    "mixed": _mixed,
    "tree": _tree,
    "chain": _chain,
    "broadcast": _broadcast,
    "shuffle": _shuffle,
    "borrows": _borrows,
    "explosion": _explosion,
    "relay": _relay,
    "again": _again,
    "behind": _behind,
    "storm": _storm,
    "circle": _circle,
}
"""How a program of each kind is written; the simplest first."""
