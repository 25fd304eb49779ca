"""Train a small CLIP (open_clip format) on regions of rendered scenes and their captions.

    python -m training.clip --data training/data --config pcm_ros/models/weights/pcm-clip-resnet.json --minutes 25 \\
        --out pcm_ros/models/weights/pcm-clip-resnet.safetensors

Each step compares a batch of regions with one new wording of all 116 captions: cross entropy over pairs, kinds and colours (InfoNCE with
the whole caption set as negatives) and a sigmoid loss (SigLIP, arXiv 2303.15343), so that absent phrases score low.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from pcm_ros.models.clip import build, normalise_crops, region_crop
from pcm_ros.models.loading import load_safetensors
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import HELD_OUT_PAIRS, KINDS
from training.card import write_card
from training.learning_rate import set_learning_rate
from training.lexicon import PAIRS, captions, matches
from training.precision import mixed_precision
from training.segmenter import ALLOWED, Scenes, averaged, save

LEAST_PIXELS = 60


def regions(
    rng: np.random.Generator, scenes: Scenes, count: int, size: int, augment: bool = True
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """crops (N, 3, S, S) float, kind (N,), colour (N,)."""
    crops, kinds, colours = [], [], []
    while len(crops) < count:
        for picture in scenes.sample(rng, 16):
            rgb, instance, truth = np.asarray(picture["rgb"]), np.asarray(picture["instance"]), picture["truth"]
            for k in range(len(truth)):
                mask = instance == k + 1
                if truth[k, 0] < 0 or mask.sum() < LEAST_PIXELS:
                    continue
                if augment:
                    change = rng.integers(5)  # perceived masks are not exact
                    if change == 0:
                        mask = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
                    elif change == 1:
                        eroded = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
                        mask = eroded if eroded.any() else mask
                    elif change == 2:  # holes and ragged edges, as masks projected from points have them
                        noise = cv2.resize(rng.random((mask.shape[0] // 4, mask.shape[1] // 4)).astype(np.float32), mask.shape[::-1])
                        ragged = mask & (noise > 0.25)
                        mask = ragged if ragged.sum() > LEAST_PIXELS / 2 else mask
                    picture_rgb = rgb
                    if rng.random() < 0.3:  # low resolution
                        scale = rng.uniform(0.4, 0.9)
                        picture_rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                        small = cv2.resize(mask.astype(np.uint8), picture_rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
                        mask = (
                            small
                            if small.sum() > 20
                            else cv2.resize(mask.astype(np.uint8), picture_rgb.shape[1::-1], interpolation=cv2.INTER_AREA) > 0
                        )
                    if not mask.any():
                        continue
                    crop = region_crop(picture_rgb, mask, size)
                    if rng.random() < 0.5:
                        crop = crop[:, ::-1]
                else:
                    crop = region_crop(rgb, mask, size)
                crops.append(crop)
                kinds.append(int(truth[k, 0]))
                colours.append(int(truth[k, 1]))
    order = rng.permutation(len(crops))[:count]
    image = normalise_crops(torch.from_numpy(np.stack([crops[i] for i in order])))
    if augment:
        gain = torch.from_numpy(rng.normal(1.0, 0.10, (count, 1, 1, 1)) * rng.normal(1, 0.035, (count, 3, 1, 1))).float()
        ground = (image - normalise_crops(torch.full((1, 1, 1, 3), 128, dtype=torch.uint8))).abs().amax(1, keepdim=True) < 1e-3
        image = torch.where(ground, image, (image + 2) * gain - 2) + torch.randn(image.shape) * float(rng.uniform(0, 0.08))
    return image, np.array([kinds[i] for i in order]), np.array([colours[i] for i in order])


def loss_of(
    model: torch.nn.Module, image: torch.Tensor, text: torch.Tensor, kind: np.ndarray, colour: np.ndarray
) -> tuple[torch.Tensor, dict[str, float]]:
    with mixed_precision(torch.device("cpu")):
        features = model.encode_image(image.contiguous(memory_format=torch.channels_last))
        texts = model.encode_text(text)
    logits = (
        functional.normalize(features.float(), dim=-1) @ functional.normalize(texts.float(), dim=-1).T * model.logit_scale.exp()
        + model.logit_bias
    )
    return contrast(logits, kind, colour)


def contrast(logits: torch.Tensor, kind: np.ndarray, colour: np.ndarray) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of logits (N, 116) of regions of these kinds and colours (N,) against all captions, and its parts."""
    target, allowed = torch.from_numpy(matches(kind, colour)), torch.from_numpy(ALLOWED)
    n, k = len(PAIRS), len(KINDS)
    pairs = functional.cross_entropy(logits[:, :n].masked_fill(~allowed[:n], -1e4), target[:, :n].long().argmax(1))
    by_kind = functional.cross_entropy(logits[:, n : n + k], torch.from_numpy(kind))
    by_colour = functional.cross_entropy(logits[:, n + k :], torch.from_numpy(colour))
    sigmoid = functional.binary_cross_entropy_with_logits(logits, target.float(), weight=torch.where(target, 8.0, 1.0) * allowed)
    hit = (logits[:, n : n + k].argmax(1) == torch.from_numpy(kind)).float().mean()
    return pairs + by_kind + 0.5 * by_colour + 2 * sigmoid, {
        "pairs": pairs.item(),
        "kind": by_kind.item(),
        "colour": by_colour.item(),
        "sigmoid": sigmoid.item(),
        "kind_right": hit.item(),
    }


@torch.inference_mode()
def evaluate(model: torch.nn.Module, scenes: Scenes, tokenizer, size: int, count: int = 1500, seed: int = 0) -> dict[str, float]:
    """On held-out shades, meshes and pairs: which of 96 pairs, 8 kinds, 12 colours a region is."""
    model.eval()
    rng = np.random.default_rng(seed)
    image, kind, colour = regions(rng, scenes, count, size, augment=False)
    features = torch.cat([model.encode_image(part, normalize=True) for part in image.split(256)])
    logits = (features @ model.encode_text(tokenizer(captions(rng)), normalize=True).T).numpy()
    model.train()
    return held_out_figures(logits, kind, colour)


def held_out_figures(logits: np.ndarray, kind: np.ndarray, colour: np.ndarray) -> dict[str, float]:
    """Shares of regions (N,) whose pair (of 96; trained and held-out ones apart), kind (of 8) and colour (of 12) is named right.

    Args:
        logits: (N, 116) of the regions for all `captions`.
    """
    n, k = len(PAIRS), len(KINDS)
    pair = np.array([PAIRS.index((COLORS[c], KINDS[i])) for c, i in zip(colour, kind, strict=True)])
    held = np.array([PAIRS[p] in HELD_OUT_PAIRS for p in pair])
    right = logits[:, :n].argmax(1) == pair
    return {
        "pair": float(right[~held].mean()),
        "held_out_pair": float(right[held].mean()),
        "kind": float((logits[:, n : n + k].argmax(1) == kind).mean()),
        "colour": float((logits[:, n + k :].argmax(1) == colour).mean()),
        "n": len(kind),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([options.seed, 3])
    model = build(options.config)
    if options.start:
        model.load_state_dict(load_safetensors(options.start))
    import open_clip

    tokenizer = open_clip.get_tokenizer(options.config.stem)
    size = json.loads(options.config.read_text())["vision_cfg"]["image_size"]
    scenes, held_out = Scenes(options.data, "train"), Scenes(options.data, "test")
    model.to(memory_format=torch.channels_last)
    average = averaged(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.02)
    start, step, log = time.time(), 0, []
    while (progress := (time.time() - start) / 60 / options.minutes) < 1:
        set_learning_rate(optimiser, options.rate, step, progress)
        image, kind, colour = regions(rng, scenes, options.batch, size)
        loss, parts = loss_of(model, image, tokenizer(captions(rng)), kind, colour)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.0)
        average.update_parameters(model)
        step += 1
        log.append(parts)
        if step % 50 == 0:
            scenes.refresh()
            held_out.refresh()
            means = {name: round(float(np.mean([entry[name] for entry in log])), 3) for name in parts}
            print(f"step {step} minutes {(time.time() - start) / 60:.1f} {means}", flush=True)
            log.clear()
        if step % 300 == 0:
            save(average.module, options.out)
            print("held out", evaluate(average.module, held_out, tokenizer, size, 600), flush=True)
    save(average.module, options.out)
    figures = evaluate(average.module, held_out, tokenizer, size)
    print("held out", figures, flush=True)
    training = {
        "regions_seen": step * options.batch,
        "pictures": len(scenes),
        "minutes": options.minutes,
        "seed": options.seed,
        "started_from": str(options.start or ""),
    }
    write_card(
        options.out,
        "clip",
        f"open_clip, {options.config.name}",
        f"python -m training.clip --config {options.config.name} --minutes {options.minutes:g} --seed {options.seed}",
        figures,
        training,
    )


if __name__ == "__main__":
    main()
