"""Which object does a phrase mean? Perception and grounding alone, on settled scenes of the simulator, judged by truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcm_ros.evidence import Document, Estimate, rate, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import VOCABULARY, ManipulationConfig, build_grounder, build_vision
from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.policy import PolicyConfig, is_there
from pcm_ros.tasks.manipulation.world_model import WorldModel

NEAR = 0.03  # metres between a perceived and a true centre that count as the same object


_RATES = ("pair", "pair_found", "kind", "false_alarm", "present_accepted", "absent_accepted")


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.workcell = SimWorkcell(config["suite"])
        self.vision = build_vision()
        names = list(config["experts"])
        self.experts: dict[str, Grounder] = {name: build_grounder([name], self.vision) for name in names}
        self.all = build_grounder(names, self.vision)
        if len(names) > 1:
            self.experts["ensemble"] = self.all
        self.present = config["present"]


def _fused(expert: Grounder, world: WorldModel, phrases: Sequence[str]) -> np.ndarray:
    """(M, K) mean log-odds over the views that see each object; -inf where none does."""
    total = torch.zeros(world.count, len(phrases), dtype=torch.float64)
    seen = torch.zeros(world.count, 1, dtype=torch.float64)
    assert world.observation is not None
    for view in world.observation.views:
        regions = regions_of(world.labels(view.name))
        if regions:
            numbers = torch.tensor([region.number for region in regions])
            total[numbers] += expert.logits(view.rgb, regions, phrases).double()
            seen[numbers] += 1
    return torch.where(seen > 0, total / seen.clamp(min=1), -torch.inf).numpy()


def run_one(item: int, prepared: _Prepared) -> dict[str, Any]:
    """One scene: all its objects' phrases, kinds that occur once, and pairs that are absent though colour and kind are there."""
    cell = prepared.workcell
    cell.reset(item)
    observation = cell.observe()
    scene = Perception(prepared.vision, cell.limits, grounder=prepared.all, vocabulary=VOCABULARY).perceive(observation)
    world = WorldModel(scene, observation)
    bodies = cell.world.bodies()
    owner = []  # true object of each perceived one, or -1
    for thing in scene.objects:
        distances = [float(np.linalg.norm(((body.low + body.high) / 2 - thing.center)[:2])) for body in bodies]
        owner.append(int(np.argmin(distances)) if min(distances) < NEAR else -1)
    specs = [body.spec for body in bodies]
    pairs = [spec.phrase for spec in specs]
    kinds = [spec.kind for spec in specs]
    single = sorted({kind for kind in kinds if kinds.count(kind) == 1})
    absent = sorted({f"{a.shade.name} {b.kind}" for a in specs for b in specs} - set(pairs))
    record: dict[str, Any] = {
        "objects": len(bodies),
        "perceived": len(scene.objects),
        "matched": sorted(set(owner) - {-1}) == list(range(len(bodies))),
    }
    if not scene.objects:
        return record
    for name, expert in prepared.experts.items():
        logits = _fused(expert, world, [*pairs, *single, *absent])
        best = logits.argmax(axis=0)
        record[f"{name}.pair"] = [owner[best[k]] == k for k in range(len(pairs))]
        record[f"{name}.pair_found"] = [bool(logits[:, k].max() >= prepared.present) for k in range(len(pairs))]
        record[f"{name}.kind"] = [
            kinds[owner[best[len(pairs) + k]]] == kind and owner[best[len(pairs) + k]] >= 0 for k, kind in enumerate(single)
        ]
        record[f"{name}.false_alarm"] = [
            bool(logits[:, len(pairs) + len(single) + k].max() >= prepared.present) for k in range(len(absent))
        ]
        record[f"{name}.logits_present"] = [float(logits[:, k].max()) for k in range(len(pairs))]
        record[f"{name}.logits_absent"] = [float(logits[:, len(pairs) + len(single) + k].max()) for k in range(len(absent))]
        if expert is prepared.all:  # what the policy would do before its first action
            verdicts = [
                is_there(float(logits[best[k], k]), scene.objects[best[k]].label_confidence, PolicyConfig()) for k in range(logits.shape[1])
            ]
            record["policy.present_accepted"] = verdicts[: len(pairs)]
            record["policy.absent_accepted"] = verdicts[len(pairs) + len(single) :]
    return record


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Shares, pooled over scenes."""
    good = [record for record in records if "error" not in record]
    results = {"same_objects": rate([bool(record["matched"]) for record in good])}
    for key in sorted({key for record in good for key in record if key.rsplit(".", 1)[-1] in _RATES and "." in key}):
        values = [bool(value) for record in good for value in record.get(key, [])]
        if values:
            results[key] = rate(values)
    return results


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
    config = {"suite": suite, "seed": seed, "experts": list(experts), "present": ManipulationConfig.present}
    items = {f"{suite}-{number}": number for number in range(seed, seed + scenes)}
    return run_bench("grounding", config, items, run_one, summarise, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh)
