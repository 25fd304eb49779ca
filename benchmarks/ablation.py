"""What each part of the system is worth: the same episodes under variants of the configuration, paired by seed.

An axis is a way to vary the configuration, and its variants differ from the default in that alone. Variants that are the same in two axes
are run once. Every variant is compared with the default: difference of success with its interval, and the p-value of the exact McNemar
test, not corrected for the number of comparisons.

The axis `iterations` compares the optimiser at equal compute: k rounds of 64 proposals against one round of 64 k, which may show k times
as many finalists to the dear scorers. All rounds are made. (Consensus judges its leader anew in each round: k - 1 proposals more.) What
comes out of the first planning step of an episode is the answer to the same question in both, so the difference of its energy is a direct
test of the optimiser, whatever the robot makes of it afterwards.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pcm_ros.benchmarks import manipulation
from pcm_ros.benchmarks.manipulation import VIEW_ORDER, Prepared, run_episode
from pcm_ros.consensus.energies import AGGREGATES, NORMALISATIONS
from pcm_ros.evidence import Document, Estimate, mean, paired, quantile, rate, run_bench
from pcm_ros.evidence.document import Record, plain
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, clip_expert, feasibility_scorers

DEFAULT = "default"
ROUND = 64
ROUNDS = (1, 2, 4, 8)
SHARED_PLOTS = (".difference", ".plan_seconds.median", ".first_energy", ".energy_difference", ".energy_difference_median")
"""Endings of the results that are drawn together."""

Settings = Mapping[str, Any]
"""Fields of ManipulationConfig, and `views`, names of cameras; JSON-like values."""


@dataclass(frozen=True)
class Axis:
    """One way to vary the configuration.

    Attributes:
        description: one line for people.
        variants: default configuration -> label of a variant -> what it sets; nothing: the default itself.
    """

    description: str
    variants: Callable[[ManipulationConfig], Mapping[str, Settings]]


def _experts(config: ManipulationConfig) -> dict[str, Settings]:
    return {"all": {}, **{name: {"grounders": [name]} for name in config.grounders}}


def _scorers(config: ManipulationConfig) -> dict[str, Settings]:
    silent = [[scorer.name, 0.0] for scorer in feasibility_scorers()]
    return {
        "all": {},
        "no-twin": {"last_stage": [name for name in config.last_stage if name != "twin"]},
        "relations-only": {"last_stage": [], "weights": silent},
    }


def _views(config: ManipulationConfig) -> dict[str, Settings]:
    fewer = {str(count): {"views": VIEW_ORDER[:count]} for count in range(len(VIEW_ORDER), 0, -1)}
    return {**fewer, **{name: {"views": [name]} for name in VIEW_ORDER}}


def _iterations(config: ManipulationConfig) -> dict[str, Settings]:
    comparable = {"all_iterations": True, "normalise": "none", "aggregate": "sum"}

    def rounds(count: int, proposals: int, share: int) -> Settings:
        dear = {"finalists": config.finalists * share, "pictured": config.pictured * share}
        return {**comparable, "iterations": count, "proposals": proposals, **dear}

    found = {"0": rounds(1, 1, 1)}
    found |= {_iterative(count): rounds(count, ROUND, 1) for count in ROUNDS}
    return found | {_one_shot(count): rounds(1, ROUND * count, count) for count in ROUNDS}


def _iterative(count: int) -> str:
    return f"{count}x{ROUND}"


def _one_shot(count: int) -> str:
    return f"1x{ROUND * count}"


AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "experts": Axis("all vision-language experts together, and each alone", _experts),
        "scorers": Axis("all scorers, without the physics twin, and the relation scorers alone", _scorers),
        "views": Axis("5, 4, 3, 2, 1 cameras, and each camera alone", _views),
        "iterations": Axis(
            f"consensus of {', '.join(map(str, ROUNDS))} rounds of {ROUND} proposals, one-shot ranking of as many, one proposal (0)",
            _iterations,
        ),
        "aggregate": Axis(f"how energies are combined: {', '.join(AGGREGATES)}", lambda _: {n: {"aggregate": n} for n in AGGREGATES}),
        "normalise": Axis(
            f"how energies are scaled before: {', '.join(NORMALISATIONS)}", lambda _: {n: {"normalise": n} for n in NORMALISATIONS}
        ),
        "candidates": Axis("32, 64, 128, 256, 512 proposals a round", lambda _: {str(2**n): {"proposals": 2**n} for n in range(5, 10)}),
    }
)


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        default: all settings of the default. variants: name -> what differs from it, DEFAULT first.
        axes: axis -> label -> name of the variant.
    """

    default: Settings
    variants: Mapping[str, Settings]
    axes: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, axes: Sequence[str], config: ManipulationConfig | None = None) -> Plan:
        """The variants of some axes around a configuration (None: the default one). Raises ValueError for no axis or an unknown one."""
        config = config or ManipulationConfig()
        if not axes or set(axes) - set(AXES):
            raise ValueError(f"axes are '{', '.join(axes)}'; allowed: one or more of {', '.join(AXES)}")
        default = plain({**dataclasses.asdict(config), "views": VIEW_ORDER})
        variants: dict[str, Settings] = {DEFAULT: {}}
        named: dict[str, dict[str, str]] = {}
        for axis in axes:
            named[axis] = {}
            for label, settings in AXES[axis].variants(config).items():
                different = {name: value for name, value in plain(settings).items() if value != default[name]}
                same = next((name for name, other in variants.items() if other == different), None)
                named[axis][label] = same or f"{axis}={label}"
                variants.setdefault(named[axis][label], different)
        return cls(default, variants, named)


class _Bench:
    """One simulator for all variants; what a variant knows of an episode's images is forgotten before the next one, so that each pays for
    its own perception."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.workcell = SimWorkcell(config["suite"])
        self._default, self._variants = config["default"], config["variants"]

    def prepared(self, variant: str) -> Prepared:
        clip_expert.cache_clear()
        settings = {name: _frozen(value) for name, value in {**self._default, **self._variants[variant]}.items()}
        return Prepared(self.workcell, settings.pop("views"), ManipulationConfig(**settings))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def run_one(item: tuple[str, int], bench: _Bench) -> dict[str, Any]:
    """One episode (seed) of one variant (name)."""
    variant, seed = item
    return {"variant": variant, **run_episode(seed, bench.prepared(variant))}


def by_variant(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """Variant -> episode -> record, read from the ids VARIANT/EPISODE: records of items that raised have nothing else."""
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        variant, _, episode = record["id"].rpartition("/")
        found.setdefault(variant, {})[episode] = record
    return found


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Of each VARIANT: `VARIANT.success`, `.success_and_known` (the robot sees it too), `.plan_seconds.median`; `.difference` (success of
    the variant - success of the default) and `.p_value` (without interval) over the same episodes.

    Of the axis `iterations` also `.first_energy` and `.first_feasible` (first planning step), and with P = proposals in all, consensus -
    one-shot: `equal_compute=P.difference`, `.p_value` of success; `.energy_difference` and `.energy_difference_median` (nats, where both
    are feasible; below 0: consensus is better), `.lower_energy` (share of the episodes with different energies in which consensus is
    lower; infeasible is highest) and `.lower_energy_p_value` (two-sided sign test).
    """
    results: dict[str, Estimate] = {}
    variants = by_variant(records)
    for variant, episodes in variants.items():
        known = manipulation.summarise(list(episodes.values()))
        results |= {f"{variant}.{name}": known[name] for name in ("success", "success_and_known", "plan_seconds.median") if name in known}
        if variant.startswith("iterations="):
            results |= {f"{variant}.{name}": estimate for name, estimate in _first_step(episodes).items()}
        if variant != DEFAULT and DEFAULT in variants:
            results |= {f"{variant}.{name}": estimate for name, estimate in _success(episodes, variants[DEFAULT]).items()}
    for count in ROUNDS[1:]:
        both = [variants.get(f"iterations={label(count)}") for label in (_iterative, _one_shot)]
        if both[0] and both[1]:
            found = {**_success(both[0], both[1]), **_energies(both[0], both[1])}
            results |= {f"equal_compute={ROUND * count}.{name}": estimate for name, estimate in found.items()}
    return results


def _succeeded(record: Record) -> bool:
    return bool(record.get("success", False)) and "error" not in record


def _success(episodes: Mapping[str, Record], others: Mapping[str, Record]) -> dict[str, Estimate]:
    common = [name for name in episodes if name in others]
    if not common:
        return {}
    first, second = ({name: _succeeded(side[name]) for name in common} for side in (episodes, others))
    comparison = paired(first, second)
    return {"difference": comparison.difference, "p_value": Estimate(comparison.p_value, math.nan, math.nan, len(common))}


def _energy(record: Record) -> float | None:
    """Of the first planning step: +inf if nothing feasible was found, None if it did not come to planning."""
    if "error" in record or not record["first_iterations"]:
        return None
    return float(record["first_energy"]) if record["first_feasible"] else math.inf


def _first_step(episodes: Mapping[str, Record]) -> dict[str, Estimate]:
    energies = [energy for record in episodes.values() if (energy := _energy(record)) is not None]
    feasible = [energy for energy in energies if math.isfinite(energy)]
    return {"first_feasible": rate([math.isfinite(energy) for energy in energies]), "first_energy": mean(feasible)}


def _energies(episodes: Mapping[str, Record], others: Mapping[str, Record]) -> dict[str, Estimate]:
    pairs = {}
    for name in episodes:
        one, other = _energy(episodes[name]), _energy(others[name]) if name in others else None
        if one is not None and other is not None:
            pairs[name] = (one, other)
    lower = {name: one < other for name, (one, other) in pairs.items() if one != other}
    test = paired(lower, {name: not value for name, value in lower.items()})
    differences = [one - other for one, other in pairs.values() if math.isfinite(one) and math.isfinite(other)]
    return {
        "energy_difference": mean(differences),
        "energy_difference_median": quantile(differences, 0.5) if differences else Estimate(math.nan, math.nan, math.nan, 0),
        "lower_energy": rate(list(lower.values())),
        "lower_energy_p_value": Estimate(test.p_value, math.nan, math.nan, len(lower)),
    }


def headline(records: Sequence[Record]) -> str:
    done = by_variant(records).get(DEFAULT, {})
    shares = (len(records), len(done), sum(map(_succeeded, done.values())))
    return f"{shares[0]} episodes; default: {shares[2]} of {shares[1]} succeeded"


def figures(axes: Mapping[str, Mapping[str, str]], records: Sequence[Record]) -> dict[str, str]:
    """A plot of each axis, and of the energies at equal compute: title -> data URI.

    Args:
        axes: axis -> label -> variant, as in the configuration of the document.
    """
    from matplotlib.figure import Figure

    variants, pictures = by_variant(records), {}

    def success(variant: str) -> Estimate:
        return rate([_succeeded(record) for record in variants[variant].values()])

    for axis, labels in axes.items():
        shown = {label: success(name) for label, name in labels.items() if name in variants}
        figure = Figure(figsize=(6, 0.9 + 0.32 * len(shown)), layout="constrained")
        plot = figure.subplots()
        for row, (label, estimate) in enumerate(reversed(shown.items())):
            color = "#aa3377" if labels[label] == DEFAULT else "#4477aa"
            plot.plot([estimate.low, estimate.high], [row, row], color=color, linewidth=3, alpha=0.5, solid_capstyle="butt")
            plot.plot([estimate.value], [row], "o", color=color)
        if DEFAULT in variants:
            plot.axvline(success(DEFAULT).value, color="#aa3377", linestyle=":", linewidth=1)
        plot.set_yticks(range(len(shown)), [f"{label} (n = {shown[label].n})" for label in reversed(shown)])
        plot.set_ylim(-0.6, len(shown) - 0.4)
        plot.set_xlim(-0.02, 1.02)
        plot.set_xlabel("success, 95 % interval; purple: the default")
        plot.grid(axis="x", alpha=0.3)
        pictures[f"{axis}: {AXES[axis].description}"] = _picture(figure)
    if "iterations" in axes:
        pictures |= _compute(variants)
    return pictures


def _compute(variants: Mapping[str, Mapping[str, Record]]) -> dict[str, str]:
    """Success, and energy after the first planning step, against the number of proposals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    plots = figure.subplots(1, 2)
    for label, name, color in ((_iterative, f"consensus, rounds of {ROUND}", "#4477aa"), (_one_shot, "one shot", "#ccbb44")):
        counts = [count for count in ROUNDS if f"iterations={label(count)}" in variants]
        episodes = [variants[f"iterations={label(count)}"] for count in counts]
        rates = [rate([_succeeded(record) for record in some.values()]) for some in episodes]
        for plot, estimates in zip(plots, (rates, [_first_step(some)["first_energy"] for some in episodes]), strict=True):
            values = [estimate.value for estimate in estimates]
            below = [max(e.value - e.low, 0) if math.isfinite(e.low) else 0 for e in estimates]
            above = [max(e.high - e.value, 0) if math.isfinite(e.high) else 0 for e in estimates]
            plot.errorbar([ROUND * count for count in counts], values, (below, above), fmt="o-", capsize=3, label=name, color=color)
    for plot, title in zip(plots, ("success", "energy after the first planning step, nats"), strict=True):
        plot.set_xscale("log", base=2)
        plot.set_xticks([ROUND * count for count in ROUNDS], [str(ROUND * count) for count in ROUNDS])
        plot.set_xlabel("proposals in all")
        plot.set_title(title, fontsize=10)
        plot.grid(alpha=0.3)
    plots[0].legend(fontsize=8)
    return {"consensus against one-shot ranking of as many proposals": _picture(figure)}


def _picture(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def bench(
    json_path: Path,
    *,
    suite: str = "clutter",
    episodes: int = 50,
    seed: int = 43000,
    axes: Sequence[str] = tuple(AXES),
    jobs: int = 1,
    ray_address: str | None = None,
    fresh: bool = False,
) -> Document:
    """Run the episodes seed, seed + 1, ... of a suite under every variant of the axes.

    All variants of an episode are run before the next episode, in an order that is shifted by one from episode to episode: neither a busier
    hour nor what a process remembers favours one of them.

    Raises:
        ValueError: an argument out of its range; the message names it.
    """
    plan = Plan.of(axes)
    names = list(plan.variants)
    config = {"suite": suite, "seed": seed, "default": plan.default, "variants": plan.variants, "axes": plan.axes}
    items = {}
    for number in range(episodes):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            items[f"{name}/{suite}-{seed + number}"] = (name, seed + number)
    return run_bench(
        "ablation",
        config,
        items,
        run_one,
        summarise,
        json_path,
        prepare=_Bench,
        jobs=jobs,
        ray_address=ray_address,
        headline=headline,
        fresh=fresh,
    )
