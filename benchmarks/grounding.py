"""Which object does a phrase mean? Perception and grounding alone, on settled scenes of the simulator, judged by truth.

Each scene is asked for the phrases of all its objects (colour + kind, apart by whether the pair was in the training pictures), the same in
other words (apart by whether those words were in training captions), kinds that occur once, and pairs that are absent though their colour
and their kind are both on the table. Where two or more objects of one kind clearly differ in size, it is asked for the largest, the
smallest, the tallest, ... of them: a phrase is then read as an instruction's would be, and the experts' answers are put together with the
perceived sizes by the policy's own reading (`noun_probabilities`).
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
import torch

from pcm_ros.evidence import Document, Estimate, rate, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.evidence.reliability import calibration_error, reliability_plot
from pcm_ros.sight.words import VOCABULARY, unfamiliar_words
from pcm_ros.sim.objects import HELD_OUT_PAIRS, ObjectSpec
from pcm_ros.sim.wording import reword
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_grounder, build_vision
from pcm_ros.tasks.manipulation.doubts import is_there
from pcm_ros.tasks.manipulation.goal import Measure, NounPhrase, Relation, size_word
from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of
from pcm_ros.tasks.manipulation.instruction import parse
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.policy_config import PolicyConfig
from pcm_ros.tasks.manipulation.relation_scorer import UNSEEN_LOGIT, noun_probabilities
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.vision import Vision
from pcm_ros.tasks.manipulation.world_model import WorldModel

Floats = npt.NDArray[np.float64]
NEAR = 0.03  # metres between a perceived and a true centre that count as the same object
CATEGORIES = ("seen_pair", "unseen_pair", "kind", "seen_words", "unseen_words", "absent")
ABSENT, NOT_PERCEIVED = -1, -2
SIZE = "size"
"""Name of the results about size words. They are no forecasts of calibrated log-odds, so they are not among CATEGORIES."""
CLEARLY = 1.15
"""Ratio of the measure of the one that is meant to the next one's (or the inverse) above which a phrase of size is asked."""
SIZE_WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("mug", "can", "bottle"), ("largest", "smallest", "tallest", "shortest")),
    **dict.fromkeys(("bowl", "plate"), ("largest", "smallest")),
    "block": ("largest", "smallest", "tallest", "shortest", "longest"),
}
"""Kind -> words that people use of it."""
HANDLE = 0.026
"""Metres that a mug's handle stands out."""


@dataclass(frozen=True)
class SizeQuestion:
    """A phrase with a word of size.

    Attributes:
        relation: of an instruction, its subject the phrase. right: as in SceneEvidence.
    """

    relation: Relation
    right: int


@dataclass(frozen=True)
class SceneEvidence:
    """What experts say of one scene's phrases, and the truth.

    Attributes:
        phrases: K phrases. categories: K of CATEGORIES.
        right: (K,) index of the perceived object that the phrase means (if it is in pieces, of the nearest one); ABSENT, NOT_PERCEIVED.
        views: expert -> log-odds (M, K) of each view, NaN for objects that it does not show.
        sizes: questions about size. texts: all that models are asked for them, without repetition. text_views: as views, (M, len(texts)).
        scene: as perceived. owners: true object of each perceived one, -1: none. objects: number of true ones.
    """

    phrases: tuple[str, ...]
    categories: tuple[str, ...]
    right: npt.NDArray[np.int64]
    views: Mapping[str, tuple[Floats, ...]]
    sizes: tuple[SizeQuestion, ...]
    texts: tuple[str, ...]
    text_views: Mapping[str, tuple[Floats, ...]]
    scene: Scene
    owners: tuple[int, ...]
    objects: int


def fused(views: Sequence[Floats]) -> Floats:
    """(M, K) mean log-odds over the views that see each object; -inf where none does."""
    stacked = np.stack(views)
    seen = np.isfinite(stacked)
    total = np.where(seen, stacked, 0.0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), -np.inf)


def true_measure(spec: ObjectSpec, measure: Measure) -> float:
    """What size words compare, metres, of an upright object of a kind of SIZE_WORDS: as `SceneObject.measure`, from true dimensions."""
    if spec.kind == "block":
        short, long = sorted(spec.dimensions[:2])
    else:
        short = 2 * spec.dimensions[0] * spec.narrowness
        long = short + (HANDLE if spec.kind == "mug" else 0.0)
    return {Measure.SIZE: float(np.cbrt(short * long * spec.height)), Measure.HEIGHT: spec.height, Measure.LENGTH: long}[measure]


def size_phrases(specs: Sequence[ObjectSpec]) -> list[tuple[str, int]]:
    """(phrase, number of the object that it means) wherever one of several objects of a kind is clearly the one of a word of size."""
    found = []
    for kind, words in SIZE_WORDS.items():
        numbers = [number for number, spec in enumerate(specs) if spec.kind == kind]
        for word in words if len(numbers) > 1 else ():
            measure, greatest = size_word(word) or (Measure.SIZE, True)
            sizes = sorted(((true_measure(specs[number], measure), number) for number in numbers), reverse=greatest)
            (first, meant), (second, _) = sizes[:2]
            if max(first, second) > CLEARLY * min(first, second):
                found.append((f"{word} {kind}", meant))
    return found


def _asked_as_instruction(phrase: str, specs: Sequence[ObjectSpec]) -> Relation:
    """The relation of an instruction about the phrase and another kind of object, or anything, as the policy gets it."""
    other = next((spec.phrase for spec in specs if spec.kind not in phrase.split()), "object")
    return parse(f"put the {phrase} next to the {other}").stages[0][0]


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
    middles = np.array([(body.low + body.high)[:2] / 2 for body in bodies])
    distances = np.array([np.linalg.norm(middles - thing.center[:2], axis=1) for thing in scene.objects])  # (perceived, true)
    owners = [int(row.argmin()) if row.min() < NEAR else -1 for row in distances]
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

    def perceived(number: int) -> int:
        pieces = [piece for piece, owner in enumerate(owners) if owner == number]
        return min(pieces, key=lambda piece: float(distances[piece, number])) if pieces else NOT_PERCEIVED

    right = [ABSENT if number < 0 else perceived(number) for _, _, number in asked]
    sizes = tuple(SizeQuestion(_asked_as_instruction(phrase, specs), perceived(number)) for phrase, number in size_phrases(specs))
    texts = tuple(dict.fromkeys(text for question in sizes for text in question.relation.texts))
    views: dict[str, tuple[Floats, ...]] = {}
    for name, expert in experts.items():
        found = []
        for view in observation.views:
            regions = regions_of(world.labels(view.name), scene.objects)
            logits = np.full((world.count, len(phrases) + len(texts)), np.nan)
            if regions:
                logits[[region.number for region in regions]] = expert.logits(view.rgb, regions, (*phrases, *texts)).double().numpy()
            found.append(logits)
        views[name] = tuple(found)
    categories = tuple(category for _, category, _ in asked)
    own, more = (
        {name: tuple(view[:, part] for view in some) for name, some in views.items()}
        for part in (slice(len(phrases)), slice(len(phrases), None))
    )
    return SceneEvidence(phrases, categories, np.array(right), own, sizes, texts, more, scene, tuple(owners), len(bodies))


def meant_by_size(found: SceneEvidence, expert: str) -> list[tuple[int, float]]:
    """For each question about size the object that the policy would take, were this expert its only one, and its probability."""
    logits = torch.from_numpy(fused(found.text_views[expert]))
    logits = torch.where(torch.isfinite(logits), logits, torch.full_like(logits, UNSEEN_LOGIT))  # as the policy's `fused_logits`
    chosen = []
    for question in found.sizes:
        columns = [found.texts.index(text) for text in question.relation.texts]
        probability = noun_probabilities(question.relation, logits[:, columns], found.scene)[:, 0]
        best = int(probability.argmax())
        chosen.append((best, float(probability[best])))
    return chosen


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
        "size_phrases": [question.relation.subject for question in found.sizes],
    }
    for name in prepared.experts:
        logits = fused(found.views[name])
        best = logits.argmax(axis=0)
        top = logits.max(axis=0)
        share = np.exp(logits - top)
        record[f"{name}.right"] = (best == found.right).tolist()
        record[f"{name}.share"] = np.round(1 / share.sum(axis=0), 4).tolist()
        record[f"{name}.log_odds"] = np.round(top, 3).tolist()
        by_size = meant_by_size(found, name)
        record[f"{name}.size_right"] = [best == question.right for (best, _), question in zip(by_size, found.sizes, strict=True)]
        record[f"{name}.size_probability"] = [round(probability, 4) for _, probability in by_size]
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
    """Shares, pooled over scenes. `EXPERT.size` is over all questions about size, `EXPERT.size.MEASURE` over those of one measure. Of
    a scene that raised it is not known how many phrases it had: it counts in `same_objects` and `errors` only. Intervals take a scene's
    phrases for independent of each other."""
    good = [record for record in records if "error" not in record]
    results = {"same_objects": rate([bool(record.get("matched", False)) for record in records])}
    names = dict.fromkeys(key.removesuffix(".right") for record in good for key in record if key.endswith(".right"))
    for name in names:
        for category in CATEGORIES[:-1]:
            if values := _pooled(good, f"{name}.right", [category]):
                results[f"{name}.{category}"] = rate(values)
        results |= _by_measure(good, name)
        there = np.array([category != "absent" for category in _pooled(good, "categories", CATEGORIES)])
        for what, probabilities, outcomes in _forecasts(good, name, there):
            results[f"{name}.{what}_calibration_error"] = calibration_error(probabilities, outcomes)
    for category in CATEGORIES:
        if values := _pooled(good, "accepted", [category]):
            results["policy.false_alarm" if category == "absent" else f"policy.accepted.{category}"] = rate(values)
    return results


def _by_measure(records: Sequence[Record], name: str) -> dict[str, Estimate]:
    by_measure: dict[str, list[bool]] = {}
    for record in records:
        for phrase, right in zip(record.get("size_phrases", ()), record.get(f"{name}.size_right", ()), strict=True):
            measure = NounPhrase.read(phrase).measure
            by_measure.setdefault(f"{name}.{SIZE}", []).append(right)
            by_measure.setdefault(f"{name}.{SIZE}.{measure}", []).append(right)
    return {key: rate(values) for key, values in by_measure.items()}


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
