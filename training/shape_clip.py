"""Train the expert on shapes: projections of the statistics of objects' points and of the sentences of their captions.

    python -m training.shape_clip --data training/shapes/a0.npz training/shapes/a1.npz

Losses as for the expert on colours (`tower_clip.py`), of kinds in the place of colours: which kind, asked with the right colour's name and
without one; and no opinion on colours. Each object is shown several times: with fewer points, with noise, larger or smaller than it is,
its lower part hidden or one side of it not seen. Scenes held out: the last tenth of each file.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pcm_ros.models.registry import SHAPES, WEIGHTS
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.models.shape_statistics import ShapeStatistics, shape_statistics
from pcm_ros.models.tower_clip import Projections
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS
from training.card import write_card
from training.lexicon import PAIRS, captions
from training.segmenter import save
from training.tower_clip import jittered_texts, train_projections

HELD_OUT = 0.1
LEAST = 30  # points that are left of an object


def clouds_of(path: Path) -> list[tuple[np.ndarray, int, int]]:
    """(points (P, 3) float32, kind, colour) of the objects of a file of `shape_points.py`."""
    data = np.load(path)
    parts = np.split(data["points"].astype(np.float32), np.cumsum(data["counts"])[:-1])
    return [(points, int(kind), int(color)) for points, kind, color in zip(parts, data["kind"], data["color"], strict=True)]


def shown_otherwise(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The points as another look at another such object might have them."""
    scale = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.05, 3))
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    seen = (points * scale[[0, 0, 2]]) @ rotation.T + rng.normal(0, rng.uniform(0.0005, 0.002), points.shape)
    kept = np.ones(len(seen), dtype=bool)
    if rng.random() < 0.25:  # something stands in front of its lower part, or it stands in something
        low, high = seen[:, 2].min(), seen[:, 2].max()
        kept &= seen[:, 2] > low + rng.uniform(0.05, 0.5) * (high - low)
    if rng.random() < 0.15:  # one side is not seen
        side = seen[:, 0]
        kept &= side > np.quantile(side, rng.uniform(0.05, 0.4))
    if rng.random() < 0.5:
        kept &= rng.random(len(seen)) < rng.uniform(0.2, 1.0)
    return (seen[kept] if kept.sum() >= LEAST else seen).astype(np.float32)


def kind_contrast(logits: torch.Tensor, kind: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Loss of logits (N, 116) for all captions."""
    rows, n = torch.arange(len(logits)), len(PAIRS)
    target = functional.one_hot(kind, len(KINDS)).float()
    weight = torch.where(target > 0, 4.0, 1.0)
    asked = (logits[:, :n].view(len(logits), len(COLORS), len(KINDS))[rows, color], logits[:, n : n + len(KINDS)])
    total = logits.new_zeros(())
    for part in asked:
        total = total + functional.cross_entropy(part, kind) + functional.binary_cross_entropy_with_logits(part, target, weight=weight)
    return total + 0.05 * logits[:, n + len(KINDS) :].square().mean()


@torch.inference_mode()
def right_kinds(model: Projections, features: torch.Tensor, kind: torch.Tensor, texts: torch.Tensor) -> dict[str, float]:
    """Share of objects whose kind (of 8) is named right, of all and by kind."""
    model.eval()
    named = model.logits(features, texts)[:, len(PAIRS) : len(PAIRS) + len(KINDS)].argmax(dim=1)
    model.train()
    figures = {"kind": float((named == kind).float().mean()), "n": float(len(kind))}
    return figures | {name: float((named == kind)[kind == k].float().mean()) for k, name in enumerate(KINDS) if (kind == k).any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files of shape_points.py")
    parser.add_argument("--out", type=Path, default=WEIGHTS / f"{SHAPES}.safetensors")
    parser.add_argument("--copies", type=int, default=6, help="looks at each object")
    parser.add_argument("--wordings", type=int, default=150, help="random wordings of all captions")
    parser.add_argument("--steps", type=int, default=1000, help="more make it surer of shapes that it never saw, and no better")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.3, help="weight decay")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([options.seed, 13])
    learnt, held_out = [], []
    for path in options.data:
        clouds = clouds_of(path)
        until = round((1 - HELD_OUT) * len(clouds))
        learnt += clouds[:until]
        held_out += clouds[until:]
    looks = [(points if copy == 0 else shown_otherwise(points, rng), k, c) for points, k, c in learnt for copy in range(options.copies)]
    features, apart = (torch.from_numpy(np.stack([shape_statistics(points) for points, *_ in some])) for some in (looks, held_out))
    kind, color = (torch.tensor([look[number] for look in looks]) for number in (1, 2))
    held_kind = torch.tensor([k for _, k, _ in held_out])
    worded = [text for _ in range(options.wordings) for text in captions(rng)]
    texts = sentence_encoder().encode_together(worded).view(options.wordings, -1, 384)
    model = Projections(ShapeStatistics()).train()

    def batch_loss() -> tuple[torch.Tensor, dict[str, float]]:
        chosen = torch.from_numpy(rng.integers(len(features), size=options.batch))
        logits = model.logits(features[chosen], jittered_texts(texts[rng.integers(options.wordings)]))
        loss = kind_contrast(logits, kind[chosen], color[chosen])
        return loss, {"loss": loss.item()}

    def held_out_kinds(average: Projections) -> dict[str, float]:
        return right_kinds(average, apart, held_kind, texts[0])

    trained = train_projections(model, options.steps, options.rate, options.decay, batch_loss, held_out_kinds)
    save(trained, options.out)
    write_card(
        options.out,
        "shape",
        "pcm_ros.models.tower_clip: statistics of points (shape_statistics.py) and MiniLM, frozen; projections of three and two layers",
        f"python -m training.shape_clip --data DATA --copies {options.copies} --steps {options.steps} --decay {options.decay} "
        f"--seed {options.seed}",
        {name: round(value, 4) for name, value in held_out_kinds(trained).items()},
        {"objects": len(learnt), "looks": len(looks), "looks_seen": options.steps * options.batch, "seed": options.seed},
        "Points of objects of simulated scenes as perception finds them (training/shape_points.py): no real depth camera was ever seen.",
        "Knows eight kinds of things by their shape and nothing of their colours: what it says of those is noise.",
    )


if __name__ == "__main__":
    main()
