"""Fit what several image-text models together call the things in small pictures, on renders that no bench and no other training uses.

    python -m training.picture_names --worlds 40 --seed 910000

Each render's things are matched with the regions that the segmenter finds in it, by where a camera of mean pose would see them; renders in
which that is not clear (things in or on others, more or fewer regions than things) are left out. Then softmax over twelve colours,
and over seven kinds, of the weighed sum of the models' log-odds and a bias for each name is fitted (log loss, LBFGS). Three quarters of the
renders serve for fitting; the figures are of the others. 40 worlds take about ten minutes on one busy core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pybullet
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from pcm_ros.models.embedded import embedded_segmenter
from pcm_ros.models.loading import set_threads
from pcm_ros.sight.words import colour_question
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.pictures import KINDS, Placed, mean_camera, pictures
from pcm_ros.tasks.image_generation.assembly import naming_experts
from pcm_ros.tasks.image_generation.names import NAMES
from pcm_ros.tasks.image_generation.readers import Regions

CAMERA = mean_camera()
AWAY = 0.08  # share of the picture's side, from where a thing would be seen to the middle of its region
FITTING = 0.75
DECAY = 1e-3  # of weights and biases, squared


def seen_at(thing: Placed, height: float = 0.03) -> npt.NDArray[np.float64]:
    """(2,) shares of the picture's width and height at which the mean camera sees a thing's middle, `height` metres above the table."""
    x, y, depth = CAMERA.intrinsics @ CAMERA.rotation.T @ (np.array([thing.x, thing.y, height]) - CAMERA.eye)
    return (np.array([x, y]) / depth + 0.5) / [CAMERA.width, CAMERA.height]


def matched(things: Sequence[Placed], middles: npt.NDArray[np.float64]) -> list[int] | None:
    """The region of each thing, or None where that is not clear; middles (M, 2)."""
    if len(things) != len(middles) or any(thing.host >= 0 for thing in things):
        return None
    away = np.linalg.norm(np.stack([seen_at(thing) for thing in things])[:, None] - middles[None], axis=2)
    rows, columns = linear_sum_assignment(away)
    return columns.tolist() if away[rows, columns].max() < AWAY else None


def fit(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (E,) and biases (K,) of log-odds (E, N, K) and the right names (N,)."""
    x = torch.zeros(len(logits) + logits.shape[2], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([x], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        weights, biases = functional.softplus(x[: len(logits)]), x[len(logits) :]
        loss = functional.cross_entropy(torch.tensordot(weights, logits, 1) + biases, right) + DECAY * x.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        return functional.softplus(x[: len(logits)]), x[len(logits) :].clone()


def fitted(logits: Tensor, right: Tensor, names: Sequence[str], experts: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """A `Vocabulary` as JSON, and the held-out share of right names: of each model alone, fitted alike, and of all together."""
    count = round(FITTING * len(right))

    def share(rows: list[int]) -> float:
        weights, biases = fit(logits[rows, :count], right[:count])
        best = (torch.tensordot(weights, logits[rows, count:], 1) + biases).argmax(dim=1)
        return round(float((best == right[count:]).double().mean()), 3)

    held_out = {expert: share([row]) for row, expert in enumerate(experts)} | {"together": share(list(range(len(experts))))}
    weights, biases = fit(logits[:, :count], right[:count])
    found = {
        "weights": {expert: round(float(weight), 4) for expert, weight in zip(experts, weights, strict=True)},
        "biases": {name: round(float(bias), 4) for name, bias in zip(names, biases, strict=True)},
    }
    return found, held_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=910_000)
    parser.add_argument("--out", type=Path, default=NAMES)
    options = parser.parse_args()
    set_threads()
    regions, experts = Regions(embedded_segmenter()), naming_experts()
    colours, kinds, right = list[Tensor](), list[Tensor](), list[tuple[int, int]]()
    shown = 0
    client = pybullet.connect(pybullet.DIRECT)
    for world in range(options.worlds):
        for rgb, things in pictures(client, options.seed, world, "train"):
            sight = regions.of(rgb)
            shown += 1
            order = matched(things, sight.middles[0])
            if order is None:
                continue
            asked = [colour_question(color) for color in COLORS]
            colours.append(torch.stack([expert.logits(sight, asked, False)[0][order] for expert in experts]))
            kinds.append(torch.stack([expert.logits(sight, KINDS, True)[0][order] for expert in experts]))
            right += [(COLORS.index(thing.color), KINDS.index(thing.kind)) for thing in things]
        print(f"world {world + 1} of {options.worlds}: {len(right)} things of {shown} renders", flush=True)
    pybullet.disconnect(client)
    names = [expert.name for expert in experts]
    truth = torch.tensor(right)
    of_colours, colours_held_out = fitted(torch.cat(colours, dim=1).double(), truth[:, 0], COLORS, names)
    of_kinds, kinds_held_out = fitted(torch.cat(kinds, dim=1).double(), truth[:, 1], KINDS, names)
    source = {"worlds": options.worlds, "seed": options.seed, "renders": shown, "things": len(right)}
    content = {
        "source": source,
        "held_out": {"colour": colours_held_out, "kind": kinds_held_out},
        "colours": of_colours,
        "kinds": of_kinds,
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["held_out"], indent=1))


if __name__ == "__main__":
    main()
