"""Policies beside each other: on every workload and cluster, over all seeds.

The 95 % confidence intervals are Student's t (see `intervals`, exact, no table). Paired numbers
compare a policy with the best of its group seed by seed: both had the same draws, so the noise that
they share is gone. The p-values are not corrected for looking at many pairs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import msgspec

from detray_sim.report.intervals import Pairing, compare_pairs, estimate
from detray_sim.report.tables import cluster_label
from detray_sim.report.text import ReportError, text_table
from detray_sim.result import RunResult
from detray_sim.workload import SECOND_NS


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """A policy against the best of its group, over the seeds that both ran. Seconds."""

    against: str
    seeds: int
    mean_difference_s: float
    """Positive: slower than the best."""
    ci95_s: float | None
    faster: int
    """On so many seeds the policy was faster than the best."""
    equal: int
    slower: int
    sign_p: float
    wilcoxon_p: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one workload and cluster: makespans in seconds over its seeds."""

    workload: str
    cluster: str
    network: str
    policy: str
    n: int
    mean_s: float
    ci95_s: float | None
    """Half the width of the confidence interval; None for one seed."""
    min_s: float
    max_s: float
    ratio: float
    """Mean over the smallest mean of the group; 1 is the best."""
    paired: Paired | None = None
    """None for the best itself, and where no seed is shared."""


class Comparison(msgspec.Struct, frozen=True):
    """All of them: groups in the order of their first run, so do policies within."""

    rows: tuple[Compared, ...]

    @property
    def policies(self) -> list[str]:
        """In the order of their first appearance."""
        return list(dict.fromkeys(row.policy for row in self.rows))

    @property
    def groups(self) -> dict[tuple[str, str, str], list[Compared]]:
        """By (workload, cluster, network)."""
        groups: dict[tuple[str, str, str], list[Compared]] = {}
        for row in self.rows:
            groups.setdefault((row.workload, row.cluster, row.network), []).append(row)
        return groups


_Seeds = dict[int, float]


def compare(results: Iterable[RunResult]) -> Comparison:
    """Runs that differ in policy, cluster, network, workload or seed, put together.

    Raises ReportError if one combination is there twice with different makespans.
    """
    groups: dict[tuple[str, str, str], dict[str, _Seeds]] = {}
    for result in results:
        key = (result.workload, cluster_label(result), result.network)
        seeds = groups.setdefault(key, {}).setdefault(result.policy, {})
        makespan = result.makespan_ns / SECOND_NS
        if seeds.setdefault(result.seed, makespan) != makespan:
            raise ReportError(
                f"{' / '.join(key)}, policy {result.policy}: two runs of seed {result.seed} took"
                f" {seeds[result.seed]} s and {makespan} s; give each variant its own policy name"
            )
    order = list(dict.fromkeys(policy for group in groups.values() for policy in group))
    rows: list[Compared] = []
    for key, group in groups.items():
        known = {policy: group[policy] for policy in order if policy in group}
        rows += _group(key, known)
    return Comparison(tuple(rows))


def _group(key: tuple[str, str, str], policies: dict[str, _Seeds]) -> list[Compared]:
    samples = {policy: estimate(list(seeds.values())) for policy, seeds in policies.items()}
    best = min(samples, key=lambda policy: samples[policy].mean)
    least = samples[best].mean
    workload, cluster, network = key
    return [
        Compared(
            workload=workload,
            cluster=cluster,
            network=network,
            policy=policy,
            n=sample.n,
            mean_s=sample.mean,
            ci95_s=sample.half_width,
            min_s=sample.least,
            max_s=sample.most,
            ratio=sample.mean / least if least else 1.0,
            paired=_paired(policies[policy], best, policies[best]) if policy != best else None,
        )
        for policy, sample in samples.items()
    ]


def _paired(own: _Seeds, best: str, others: _Seeds) -> Paired | None:
    shared = sorted(own.keys() & others.keys())
    if not shared:
        return None
    pairs: Pairing = compare_pairs(
        [own[seed] for seed in shared], [others[seed] for seed in shared]
    )
    return Paired(
        against=best,
        seeds=len(shared),
        mean_difference_s=pairs.difference.mean,
        ci95_s=pairs.difference.half_width,
        faster=pairs.lower,
        equal=pairs.equal,
        slower=pairs.higher,
        sign_p=pairs.sign_p,
        wilcoxon_p=pairs.wilcoxon_p,
    )


# ------------------------------------------------------------------------------ output

COLUMNS = ("policy", "n", "mean s", "± 95 %", "min s", "max s", "ratio", "paired with the best")


def comparison_text(comparison: Comparison) -> str:
    """A table per workload and cluster, the policies from best to worst."""
    parts = []
    for (workload, cluster, network), rows in comparison.groups.items():
        cells = [
            (
                row.policy,
                row.n,
                row.mean_s,
                row.ci95_s,
                row.min_s,
                row.max_s,
                f"{row.ratio:.3f}",
                paired_note(row),
            )
            for row in sorted(rows, key=lambda row: row.ratio)
        ]
        parts.append(f"{workload} on {cluster}, network {network}\n{text_table(COLUMNS, cells)}")
    return "\n\n".join(parts) + "\n" if parts else "nothing to compare\n"


def paired_note(row: Compared) -> str:
    """The paired comparison in words, for one who has ten seconds."""
    pair = row.paired
    if pair is None:
        return "best" if row.ratio == 1.0 else "no seed in common"
    if pair.equal == pair.seeds:
        return f"equal on {_seeds(pair.seeds)}"
    width = f" ± {pair.ci95_s:.3g}" if pair.ci95_s is not None else ""
    return (
        f"{pair.mean_difference_s:+.3g}{width} s, slower on {pair.slower} of {_seeds(pair.seeds)}"
        f" (sign p {pair.sign_p:.2g}, Wilcoxon p {pair.wilcoxon_p:.2g})"
    )


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


_FLAT = (*(name for name in Compared.__struct_fields__ if name != "paired"),)
_PAIR = Paired.__struct_fields__


def comparison_csv(comparison: Comparison) -> str:
    """One line per policy and group; paired numbers in columns `paired_...`, empty for the best."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FLAT, *(f"paired_{name}" for name in _PAIR)])
    for row in comparison.rows:
        cells = [getattr(row, name) for name in _FLAT]
        writer.writerow(cells + [getattr(row.paired, name, None) for name in _PAIR])
    return text.getvalue()


def comparison_json(comparison: Comparison) -> bytes:
    """The comparison as JSON, read back by `read_comparison`."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"


def read_comparison(data: bytes) -> Comparison:
    """What `comparison_json` wrote. Raises msgspec.ValidationError on something else."""
    return msgspec.json.decode(data, type=Comparison)
