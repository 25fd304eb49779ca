"""Which object does a phrase mean? Perception and grounding alone, on settled scenes of the simulator, judged by truth.

Each scene is asked for the phrases of all its objects (colour + kind, apart by whether the pair was in the training pictures), the same in
other words (apart by whether those words were in training captions), kinds that occur once, and pairs that are absent though their colour
and their kind are both on the table.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcm_ros.evidence import Document, Estimate, rate, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.evidence.reliability import calibration_error, reliability_plot
from pcm_ros.sim.objects import HELD_OUT_PAIRS
from pcm_ros.sim.wording import reword
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import VOCABULARY, ManipulationConfig, build_grounder, build_vision
from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of, unfamiliar_words
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.policy import PolicyConfig, is_there
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.vision import Vision
from pcm_ros.tasks.manipulation.world_model import WorldModel

Floats = npt.NDArray[np.float64]
NEAR = 0.03  # metres between a perceived and a true centre that count as the same object
CATEGORIES = ("seen_pair", "unseen_pair", "kind", "seen_words", "unseen_words", "absent")
ABSENT, NOT_PERCEIVED = -1, -2


@dataclass(frozen=True)
class SceneEvidence:
    """What experts say of one scene's phrases, and the truth.

    Attributes:
        phrases: K phrases. categories: K of CATEGORIES.
        right: (K,) index of the perceived object that the phrase means; ABSENT, NOT_PERCEIVED.
        views: expert -> log-odds (M, K) of each view, NaN for objects that it does not show.
        scene: as perceived. owners: true object of each perceived one, -1: none. objects: number of true ones.
    """

    phrases: tuple[str, ...]
    categories: tuple[str, ...]
    right: npt.NDArray[np.int64]
    views: Mapping[str, tuple[Floats, ...]]
    scene: Scene
    owners: tuple[int, ...]
    objects: int


def fused(views: Sequence[Floats]) -> Floats:
    """(M, K) mean log-odds over the views that see each object; -inf where none does."""
    stacked = np.stack(views)
    seen = np.isfinite(stacked)
    total = np.where(seen, stacked, 0.0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), -np.inf)


def evidence(
    cell: SimWorkcell, vision: Vision, experts: Mapping[str, Grounder], namer: Grounder, rng: np.random.Generator
) -> SceneEvidence | None:
    """Look at the scene that the cell holds now; None: nothing was perceived.

    Args:
        namer: gives perception its names for the objects. rng: draws the other words.
    """
    observation = cell.observe()
    scene = Perception(vision, cell.limits, grounder=namer, vocabulary=VOCABULARY).perceive(observation)
    if not scene.objects:
        return None
    world = WorldModel(scene, observation)
    bodies = cell.world.bodies()
    owners = []
    for thing in scene.objects:
        distances = [float(np.linalg.norm(((body.low + body.high) / 2 - thing.center)[:2])) for body in bodies]
        owners.append(int(np.argmin(distances)) if min(distances) < NEAR else -1)
    specs = [body.spec for body in bodies]
    pairs, kinds = [spec.phrase for spec in specs], [spec.kind for spec in specs]
    asked: list[tuple[str, str, int]] = []  # phrase, category, true object
    for number, spec in enumerate(specs):
        if pairs.count(spec.phrase) > 1:
            continue
        asked.append((spec.phrase, "unseen_pair" if (spec.shade.name, spec.kind) in HELD_OUT_PAIRS else "seen_pair", number))
        for held_out in (False, True):
            words, changed = reword(rng, spec, specs, held_out)
            if changed:
                asked.append((words, "unseen_words" if held_out else "seen_words", number))
        if kinds.count(spec.kind) == 1:
            asked.append((spec.kind, "kind", number))
    asked += [(phrase, "absent", -1) for phrase in sorted({f"{a.shade.name} {b.kind}" for a in specs for b in specs} - set(pairs))]
    phrases = tuple(phrase for phrase, _, _ in asked)
    right = [ABSENT if number < 0 else owners.index(number) if number in owners else NOT_PERCEIVED for _, _, number in asked]
    views: dict[str, tuple[Floats, ...]] = {}
    for name, expert in experts.items():
        found = []
        for view in observation.views:
            regions = regions_of(world.labels(view.name))
            logits = np.full((world.count, len(phrases)), np.nan)
            if regions:
                logits[[region.number for region in regions]] = expert.logits(view.rgb, regions, phrases).double().numpy()
            found.append(logits)
        views[name] = tuple(found)
    categories = tuple(category for _, category, _ in asked)
    return SceneEvidence(phrases, categories, np.array(right), views, scene, tuple(owners), len(bodies))


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.workcell = SimWorkcell(config["suite"])
        self.vision = build_vision()
        names = list(config["experts"])
        self.namer = build_grounder(names, self.vision)
        self.experts: dict[str, Grounder] = {name: build_grounder([name], self.vision) for name in names}
        if len(names) > 1:
            self.experts["ensemble"] = self.namer


def run_one(item: int, prepared: _Prepared) -> dict[str, Any]:
    """One scene: for each expert and phrase whether the right object was chosen, with the chosen one's share of belief and log-odds."""
    prepared.workcell.reset(item)
    found = evidence(prepared.workcell, prepared.vision, prepared.experts, prepared.namer, np.random.default_rng([item, 1]))
    if found is None:
        return {"objects": len(prepared.workcell.world.bodies()), "perceived": 0, "matched": False}
    record: dict[str, Any] = {
        "objects": found.objects,
        "perceived": len(found.scene.objects),
        "matched": sorted(set(found.owners) - {-1}) == list(range(found.objects)),
        "phrases": list(found.phrases),
        "categories": list(found.categories),
    }
    for name in prepared.experts:
        logits = fused(found.views[name])
        best = logits.argmax(axis=0)
        top = logits.max(axis=0)
        share = np.exp(logits - top)
        record[f"{name}.right"] = (best == found.right).tolist()
        record[f"{name}.share"] = np.round(1 / share.sum(axis=0), 4).tolist()
        record[f"{name}.log_odds"] = np.round(top, 3).tolist()
    last = list(prepared.experts)[-1]
    logits = fused(found.views[last])
    best, config = logits.argmax(axis=0), PolicyConfig()
    record["name_confidence"] = [round(found.scene.objects[i].label_confidence, 4) for i in best]
    record["accepted"] = [
        is_there(float(logit) + config.unfamiliar * bool(unfamiliar_words(phrase)), found.scene.objects[number].label_confidence, config)
        for logit, number, phrase in zip(logits.max(axis=0), best, found.phrases, strict=True)
    ]
    return record


def _pooled(records: Sequence[Record], key: str, categories: Sequence[str]) -> list[Any]:
    return [
        value
        for record in records
        if "error" not in record and key in record
        for value, category in zip(record[key], record["categories"], strict=True)
        if category in categories
    ]


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Shares, pooled over scenes."""
    good = [record for record in records if "error" not in record]
    results = {"same_objects": rate([bool(record["matched"]) for record in good])}
    names = [key.removesuffix(".right") for record in good[:1] for key in record if key.endswith(".right")]
    for name in names:
        for category in CATEGORIES[:-1]:
            if values := _pooled(good, f"{name}.right", [category]):
                results[f"{name}.{category}"] = rate(values)
        there = np.array([category != "absent" for category in _pooled(good, "categories", CATEGORIES)])
        for what, probabilities, outcomes in _forecasts(good, name, there):
            results[f"{name}.{what}_calibration_error"] = calibration_error(probabilities, outcomes)
    for category in CATEGORIES:
        if values := _pooled(good, "accepted", [category]):
            results["policy.false_alarm" if category == "absent" else f"policy.accepted.{category}"] = rate(values)
    return results


def _forecasts(records: Sequence[Record], name: str, there: npt.NDArray[np.bool_]) -> list[tuple[str, Floats, npt.NDArray[np.bool_]]]:
    """What was forecast with which probability and came true or not: that the chosen object is the right one; that the thing is there."""
    share = np.array(_pooled(records, f"{name}.share", CATEGORIES))
    right = np.array(_pooled(records, f"{name}.right", CATEGORIES))
    log_odds = np.array(_pooled(records, f"{name}.log_odds", CATEGORIES))
    return [("choice", share[there], right[there]), ("presence", 1 / (1 + np.exp(-log_odds)), there)]


def figures(records: Sequence[Record]) -> dict[str, str]:
    """Reliability plots as data URIs, by title."""
    good = [record for record in records if "error" not in record and "categories" in record]
    if not good:
        return {}
    there = np.array([category != "absent" for category in _pooled(good, "categories", CATEGORIES)])
    names = [key.removesuffix(".right") for key in good[0] if key.endswith(".right")]
    curves: dict[str, dict[str, tuple[Floats, npt.NDArray[np.bool_]]]] = {}
    for name in names:
        for what, probabilities, outcomes in _forecasts(good, name, there):
            curves.setdefault(what, {})[name] = (probabilities, outcomes)
    titles = {"choice": "the chosen object is the right one", "presence": "what the phrase says is there"}
    pictures = {}
    for what, by_name in curves.items():
        stream = io.BytesIO()
        reliability_plot(by_name, titles[what]).savefig(stream, format="png", dpi=110, metadata={"Software": None})
        pictures[f"Reliability: {titles[what]}"] = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    return pictures


def bench(
    json_path: Path,
    *,
    suite: str = "relations-1",
    scenes: int = 50,
    seed: int = 5000,
    experts: Sequence[str] = ManipulationConfig.grounders,
    jobs: int = 1,
    fresh: bool = False,
) -> Document:
    """`scenes` scenes of a suite."""
    config = {"suite": suite, "seed": seed, "experts": list(experts)}
    items = {f"{suite}-{number}": number for number in range(seed, seed + scenes)}
    return run_bench("grounding", config, items, run_one, summarise, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh)
