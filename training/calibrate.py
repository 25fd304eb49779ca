"""Bring the log-odds of the vision-language experts to one scale, on scenes that no bench and no training uses.

    python -m training.calibrate --scenes 60 --seed 900000

For each expert: a scale s that makes softmax(s * logits) over the objects of a scene, in one view, the probability that the chosen object
is the right one (temperature scaling, Guo et al., arXiv 1706.04599), then a bias b that makes sigmoid(s * logit + b) of the best object,
fused over the views, the probability that what the phrase says is there at all. Both are written to weights/calibration.json and applied by
`pcm_ros.tasks.manipulation.grounding.Calibrated`; after that, energies of different experts are nats of one currency and can be summed.
The file also holds the weights of the ensemble, and the words that the experts know from their training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar

from pcm_ros.benchmarks.grounding import NOT_PERCEIVED, Floats, SceneEvidence, evidence, fused
from pcm_ros.models.registry import CALIBRATION
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_vision, ensemble_name, uncalibrated_experts
from pcm_ros.tasks.manipulation.grounding import GrounderEnsemble
from training.lexicon import known_words

LEAST_WEIGHT = 0.1  # what an expert is worth on other scenes than these is not known: none is left out
SCALES, BIASES = (0.05, 5.0), (-10.0, 10.0)
Views = Sequence[tuple[Floats, ...]]
"""Of each scene, and each of its views: log-odds (M, K), NaN where unseen."""



def choice_loss(scale: float, scenes: Sequence[SceneEvidence], views: Views) -> float:
    """Mean of -log softmax(scale * logits)[right object] over views and phrases whose object the view sees, nats."""
    losses = []
    for scene, logits in zip(scenes, views, strict=True):
        asked = np.flatnonzero(scene.right >= 0)
        for view in logits:
            column = scale * np.where(np.isfinite(view), view, -np.inf)[:, asked]
            chosen = column[scene.right[asked], np.arange(len(asked))]
            seen = np.isfinite(chosen)
            losses.append(np.logaddexp.reduce(column, axis=0)[seen] - chosen[seen])
    return float(np.concatenate(losses).mean())


def presence_loss(bias: float, logits: Floats, there: npt.NDArray[np.bool_]) -> float:
    """Mean log loss of sigmoid(logits + bias), both classes of the same weight."""
    losses = np.where(there, np.logaddexp(0, -logits - bias), np.logaddexp(0, logits + bias))
    return float((losses[there].mean() + losses[~there].mean()) / 2)


def fit(scenes: Sequence[SceneEvidence], views: Views) -> dict[str, float]:
    """Scale and bias of one expert, and what they are worth."""
    found = minimize_scalar(lambda scale: choice_loss(scale, scenes, views), bounds=SCALES, method="bounded")
    scale = float(found.x)
    bias, there = presence(scale, scenes, views)
    return {
        "scale": round(scale, 4),
        "bias": round(bias, 4),
        "choice_nats_before": round(choice_loss(1.0, scenes, views), 4),
        "choice_nats": round(float(found.fun), 4),
        "presence_nats": round(there, 4),
        "phrases": sum(len(scene.phrases) for scene in scenes),
    }


def presence(scale: float, scenes: Sequence[SceneEvidence], views: Views) -> tuple[float, float]:
    """The best bias, and the presence loss with it."""
    there = np.concatenate([scene.right >= 0 for scene in scenes])
    known = np.concatenate([scene.right != NOT_PERCEIVED for scene in scenes])
    best = np.concatenate([scale * fused(logits).max(axis=0) for logits in views])
    found = minimize_scalar(lambda bias: presence_loss(bias, best[known], there[known]), bounds=BIASES, method="bounded")
    return float(found.x), float(found.fun)


def fit_weights(scenes: Sequence[SceneEvidence], experts: Mapping[str, Views]) -> dict[str, float]:
    """Weights, sum 1, each at least LEAST_WEIGHT, of calibrated experts that make the choice of objects and their presence most likely."""

    def weights(x: Floats) -> dict[str, float]:
        share = np.exp(x - np.logaddexp.reduce(x))
        return dict(zip(experts, (LEAST_WEIGHT + (1 - LEAST_WEIGHT * len(experts)) * share).tolist(), strict=True))

    def loss(x: Floats) -> float:
        views, scale = combined(experts, weights(x[1:])), float(np.exp(x[0]))
        return choice_loss(scale, scenes, views) + presence(scale, scenes, views)[1]

    size = 1 + len(experts)
    corners = np.concatenate([np.zeros((1, size)), np.eye(size)])
    found = minimize(loss, corners[0], method="Nelder-Mead", options={"initial_simplex": corners, "xatol": 0.02, "fatol": 1e-4})
    return {name: round(weight, 3) for name, weight in weights(found.x[1:]).items()}


def combined(experts: Mapping[str, Views], weights: Mapping[str, float]) -> list[tuple[Floats, ...]]:
    """Weighted mean of the experts' log-odds, view by view."""
    total = sum(weights.values())
    shares = [weights[name] / total for name in experts]
    return [
        tuple(sum(share * view for share, view in zip(shares, same_view, strict=True)) for same_view in zip(*of_scene, strict=True))
        for of_scene in zip(*experts.values(), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", default=["relations-1", "clutter"])
    parser.add_argument("--scenes", type=int, default=30, help="of each suite")
    parser.add_argument("--seed", type=int, default=900_000)
    parser.add_argument("--experts", nargs="+", default=list(ManipulationConfig.grounders))
    parser.add_argument("--out", type=Path, default=CALIBRATION)
    options = parser.parse_args()
    vision = build_vision()
    experts = {expert.name: expert for expert in uncalibrated_experts(options.experts, vision)}
    namer, scenes = GrounderEnsemble(list(experts.values())), list[SceneEvidence]()
    for suite in options.suites:
        cell = SimWorkcell(suite)
        for seed in range(options.seed, options.seed + options.scenes):
            cell.reset(seed)
            found = evidence(cell, vision, experts, namer, np.random.default_rng([seed, 2]))
            if found is not None:
                scenes.append(found)
            print(f"{suite} {seed}", flush=True)
        cell.close()
    fitted, calibrated = dict[str, dict[str, Any]](), dict[str, Views]()
    for name in experts:
        views = [scene.views[name] for scene in scenes]
        values = fitted[name] = fit(scenes, views)
        calibrated[name] = [tuple(values["scale"] * view + values["bias"] for view in logits) for logits in views]
    if len(experts) > 1:
        weights = fit_weights(scenes, calibrated)
        print("equal weights", fit(scenes, combined(calibrated, dict.fromkeys(experts, 1.0))))
        fitted[ensemble_name(list(experts))] = {**fit(scenes, combined(calibrated, weights)), "weights": weights}
    for name, values in fitted.items():
        print(name, values)
    source = {"suites": options.suites, "scenes": options.scenes, "seed": options.seed}
    content = {"source": source, "experts": fitted, "words": known_words()}
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
