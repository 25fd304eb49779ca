"""Train the two projections of a CLIP of frozen towers on regions of rendered scenes and their captions.

    python -m training.tower_clip --data training/data --regions 40000 --steps 600
    python -m training.tower_clip --data training/data --name pcm-clip-colors --regions 60000 --steps 4000

Features of all regions are computed once, those of the captions for many random wordings; then the projections are trained on them with
the losses of `training/clip.py`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from pcm_ros.models.color_statistics import ColorStatistics, jittered
from pcm_ros.models.image_tower import ImageTower, context_crop
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.models.tower_clip import Projections, RegionFeatures
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS
from training.card import LIMITS, write_card
from training.clip import LEAST_PIXELS, contrast, held_out_figures
from training.learning_rate import set_learning_rate
from training.lexicon import PAIRS, captions
from training.segmenter import Scenes, averaged, save


def features_of(
    scenes: Scenes, tower: RegionFeatures, count: int, rng: np.random.Generator, augment: bool
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """(N, F) half, kind (N,), colour (N,) of at least `count` regions, in the order in which they are met."""
    features, kinds, colours, started = [], [], [], time.time()
    while sum(len(part) for part in features) < count:
        shown = []
        for picture in scenes.sample(rng, 16):
            rgb, instance, truth = np.asarray(picture["rgb"]), np.asarray(picture["instance"]), picture["truth"]
            for k in range(len(truth)):
                mask = instance == k + 1
                if truth[k, 0] < 0 or mask.sum() < LEAST_PIXELS:
                    continue
                seen = rgb
                if augment:
                    gain = rng.normal(1.0, 0.08) * rng.normal(1, 0.03, 3)
                    seen = np.clip(rgb * gain + rng.normal(0, rng.uniform(0, 6), rgb.shape), 0, 255).astype(np.uint8)
                    if rng.random() < 0.4:  # perceived masks are not exact
                        mask = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
                        if not mask.any():
                            continue
                mirror = -1 if augment and rng.random() < 0.5 else 1
                shown.append((np.ascontiguousarray(seen[:, ::mirror]), np.ascontiguousarray(mask[:, ::mirror])))
                kinds.append(int(truth[k, 0]))
                colours.append(int(truth[k, 1]))
        if shown:
            features.append(described(tower, shown).half())
        if len(features) % 50 == 0:
            print(f"{sum(len(part) for part in features)} regions, {time.time() - started:.0f} s", flush=True)
    return torch.cat(features), np.array(kinds), np.array(colours)


def described(tower: RegionFeatures, shown: Sequence[tuple[np.ndarray, np.ndarray]]) -> torch.Tensor:
    """(N, F) of regions of different images: (rgb (H, W, 3), mask (H, W)) each; networks see them together."""
    if isinstance(tower, ImageTower):
        crops = [context_crop(rgb, mask) for rgb, mask in shown]
        return tower.features(np.stack([crop for crop, _ in crops]), np.stack([inside for _, inside in crops]))
    return torch.cat([tower.of_regions(rgb, [mask]) for rgb, mask in shown])


def color_contrast(logits: torch.Tensor, kind: np.ndarray, colour: np.ndarray) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of an expert on colours alone, of logits (N, 116) for all captions: which colour, asked with the right kind's name and without
    one; and no opinion, log-odds 0, on kinds."""
    rows, n, right = torch.arange(len(logits)), len(PAIRS), torch.from_numpy(colour)
    target = functional.one_hot(right, len(COLORS)).float()
    weight = torch.where(target > 0, 4.0, 1.0)
    asked = {
        "pairs": logits[:, :n].view(len(logits), len(COLORS), len(KINDS))[rows, :, torch.from_numpy(kind)],
        "colour": logits[:, n + len(KINDS) :],
    }
    losses = {name: functional.cross_entropy(part, right) for name, part in asked.items()}
    sigmoid = sum(functional.binary_cross_entropy_with_logits(part, target, weight=weight) for part in asked.values())
    opinion = logits[:, n : n + len(KINDS)].square().mean()
    total = sum(losses.values()) + sigmoid + 0.05 * opinion
    return total, {**{name: loss.item() for name, loss in losses.items()}, "sigmoid": sigmoid.item(), "opinion": opinion.item()}


@dataclass(frozen=True)
class Recipe:
    """How one CLIP of this kind is trained.

    Attributes:
        tower, what: makes its image tower, and says what it is. loss: of logits (N, 116), kinds and colours (N,). jitter: of a batch of
            features. figures: those held-out figures that mean something. limits: for the card.
    """

    tower: Callable[[], RegionFeatures]
    what: str
    loss: Callable[..., tuple[torch.Tensor, dict[str, float]]]
    jitter: Callable[[torch.Tensor], torch.Tensor] = lambda features: features
    figures: tuple[str, ...] = ("pair", "held_out_pair", "kind", "colour", "n")
    limits: str = LIMITS


RECIPES = {
    "pcm-clip-towers": Recipe(lambda: ImageTower(WEIGHTS / "efficientnet-lite0.safetensors"), "EfficientNet-Lite0", contrast),
    "pcm-clip-colors": Recipe(
        ColorStatistics,
        "statistics of colours (color_statistics.py)",
        color_contrast,
        lambda features: jittered(features, 2.0),
        ("colour", "n"),
        "Knows twelve colours of rendered things and nothing of their kinds: what it says of those is noise. Photographs were never seen.",
    ),
}


@torch.inference_mode()
def evaluate(model: Projections, features: torch.Tensor, kind: np.ndarray, colour: np.ndarray, texts: torch.Tensor) -> dict[str, float]:
    """`held_out_figures` of regions with held-out shades, meshes and pairs."""
    model.eval()
    logits = model.logits(features.float(), texts).numpy()
    model.train()
    return held_out_figures(logits, kind, colour)


def train_projections(
    model: Projections,
    steps: int,
    rate: float,
    decay: float,
    batch_loss: Callable[[], tuple[torch.Tensor, dict[str, float]]],
    held_out: Callable[[Projections], dict[str, float]],
) -> Projections:
    """Train projections in place; their moving average.

    Args:
        batch_loss: loss of the next batch, and its parts. held_out: figures of a model, shown on the way.
    """
    average = averaged(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    start, log = time.time(), list[dict[str, float]]()
    for step in range(steps):
        set_learning_rate(optimiser, rate, step, step / steps)
        loss, parts = batch_loss()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        with torch.no_grad():
            model.scale.clamp_(0, 4.0)
        average.update_parameters(model)
        log.append(parts)
        if step % 400 == 399:
            means = {name: round(float(np.mean([entry[name] for entry in log])), 3) for name in parts}
            print(f"step {step + 1}, {time.time() - start:.0f} s, {means}, held out {held_out(average.module)}", flush=True)
            log.clear()
    return average.module


def jittered_texts(texts: torch.Tensor) -> torch.Tensor:
    """Unit sentence vectors (K, 384) with a little noise, between the wordings that were encoded and those that were not."""
    return functional.normalize(texts + 0.01 * torch.randn(texts.shape), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--name", choices=sorted(RECIPES), default="pcm-clip-towers")
    parser.add_argument("--out", type=Path, help="default: NAME.safetensors beside the other weights")
    parser.add_argument("--cache", type=Path, help="safetensors file of features, to be made or read: saves time when trying settings")
    parser.add_argument("--regions", type=int, default=40_000)
    parser.add_argument("--wordings", type=int, default=150, help="random wordings of all captions")
    parser.add_argument("--steps", type=int, default=600, help="twice as many change little: 76 %% instead of 75 %% of the held-out pairs")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([options.seed, 11])
    recipe = RECIPES[options.name]
    tower = recipe.tower()
    out = options.out or WEIGHTS / f"{options.name}.safetensors"
    if options.cache and options.cache.exists():
        data = load_file(options.cache)
    else:
        encoder = sentence_encoder()
        scenes, held_out = Scenes(options.data, "train"), Scenes(options.data, "test")
        data = {"pictures": torch.tensor(len(scenes))}
        for name, part, count in (("train", scenes, options.regions), ("test", held_out, 1500)):
            features, kinds, colours = features_of(part, tower, count, rng, augment=name == "train")
            data |= {name: features, f"{name}_kind": torch.from_numpy(kinds), f"{name}_colour": torch.from_numpy(colours)}
        worded = [text for _ in range(options.wordings) for text in captions(rng)]
        data["texts"] = encoder.encode_together(worded).view(options.wordings, -1, 384)
        if options.cache:
            save_file(data, options.cache)
    features, kind, colour = data["train"], data["train_kind"].numpy(), data["train_colour"].numpy()
    test = (data["test"], data["test_kind"].numpy(), data["test_colour"].numpy(), data["texts"][0])
    model = Projections(tower).train()

    def batch_loss() -> tuple[torch.Tensor, dict[str, float]]:
        chosen = rng.integers(len(features), size=options.batch)
        texts = jittered_texts(data["texts"][rng.integers(options.wordings)])
        return recipe.loss(model.logits(recipe.jitter(features[chosen].float()), texts), kind[chosen], colour[chosen])

    trained = train_projections(model, options.steps, options.rate, options.decay, batch_loss, lambda average: evaluate(average, *test))
    save(trained, out)
    figures = evaluate(trained, *test)
    print("held out", figures, flush=True)
    write_card(
        out,
        "clip",
        f"pcm_ros.models.tower_clip: {recipe.what} and MiniLM, frozen; two-layer projections",
        f"python -m training.tower_clip --name {options.name} --regions {options.regions} --steps {options.steps} --seed {options.seed}",
        {name: figures[name] for name in recipe.figures},
        {"regions": len(features), "regions_seen": options.steps * options.batch, "pictures": int(data["pictures"]), "seed": options.seed},
        limits=recipe.limits,
    )


if __name__ == "__main__":
    main()
