"""Train the text-conditioned segmenter on rendered scenes.

    python -m training.segmenter --data training/data --minutes 60 --out pcm_ros/models/weights/segmenter.safetensors

Losses on the stride-4 grid: (1) which of all captions describe this pixel's object: cross entropy over the 96 pairs, the 8 kinds and
the 12 colours (dense supervision of kind and colour from the first step), (2) binary cross entropy of each caption's mask, background
included (absent phrases stay silent), (3) objectness, (4) votes. Captions are worded anew at each step; MiniLM stays frozen.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pcm_ros.models.segmentation import STRIDE, VOTE_SCALE, SegmentationNetwork, normalise_image
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import HELD_OUT_PAIRS, KINDS
from training.card import write_card
from training.learning_rate import set_learning_rate
from training.lexicon import PAIRS, captions, matches
from training.precision import mixed_precision

CROP_H, CROP_W = 192, 256
ALLOWED = np.array([pair not in HELD_OUT_PAIRS for pair in PAIRS] + [True] * (len(KINDS) + len(COLORS)))


class Scenes:
    """Memory-mapped shards; new shards are picked up while the renderer is still at work."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split, self.shards = folder, split, {}
        self.refresh()

    def refresh(self) -> None:
        for path in sorted(self._folder.glob(f"{self._split}-*/done.json")):
            if path.parent.name not in self.shards:
                self.shards[path.parent.name] = {
                    n: np.load(path.parent / f"{n}.npy", mmap_mode="r") for n in ("rgb", "instance", "depth", "truth", "intrinsics")
                }

    def __len__(self) -> int:
        return sum(len(s["rgb"]) for s in self.shards.values())

    def sample(self, rng: np.random.Generator, count: int) -> list[dict[str, np.ndarray]]:
        names = list(self.shards)
        chosen = []
        for _ in range(count):
            shard = self.shards[names[rng.integers(len(names))]]
            i = rng.integers(len(shard["rgb"]))
            chosen.append({name: shard[name][i] for name in shard})
        return chosen


def batch(rng: np.random.Generator, pictures: list[dict[str, np.ndarray]], augment: bool = True) -> tuple[torch.Tensor, ...]:
    """rgb (B, 3, h, w); per stride-4 pixel: kind, colour (-1: background), vote target (3), all numpy-made tensors."""
    images, kinds, colours, votes = [], [], [], []
    for picture in pictures:
        rgb, instance = np.asarray(picture["rgb"]), np.asarray(picture["instance"])
        height, width = instance.shape
        if augment:
            scale = rng.uniform(0.75, 1.35)
            h, w = min(height, int(CROP_H / scale)), min(width, int(CROP_W / scale))
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            if instance.any() and rng.random() < 0.7:  # centre on an object
                rows, columns = np.nonzero(instance)
                pick = rng.integers(len(rows))
                top, left = int(np.clip(rows[pick] - h // 2, 0, height - h)), int(np.clip(columns[pick] - w // 2, 0, width - w))
            flip = rng.random() < 0.5
        else:
            h, w, top, left, flip = height, width, 0, 0, False
        out_h, out_w = (CROP_H, CROP_W) if augment else (height, width)
        x = torch.from_numpy(rgb[top : top + h, left : left + w].copy())[None]
        image = normalise_image(x)
        if (h, w) != (out_h, out_w):
            image = functional.interpolate(image, (out_h, out_w), mode="bilinear", antialias=h > out_h, align_corners=False)
        rows = np.clip((top + (np.arange(out_h // STRIDE) + 0.5) * STRIDE * h / out_h).astype(int), 0, height - 1)
        columns = np.clip((left + (np.arange(out_w // STRIDE) + 0.5) * STRIDE * w / out_w).astype(int), 0, width - 1)
        index = instance[rows[:, None], columns].astype(int) - 1
        truth = picture["truth"]
        kind = np.where(index >= 0, truth[index, 0], -1).astype(np.int64)
        colour = np.where(index >= 0, truth[index, 1], -1).astype(np.int64)
        depth = picture["depth"][np.clip(rows // 4, 0, height // 4 - 1)[:, None], np.clip(columns // 4, 0, width // 4 - 1)].astype(
            np.float32
        )
        focal, cx, cy = picture["intrinsics"]
        point = np.stack([(columns[None] - cx) / focal * depth, (rows[:, None] - cy) / focal * depth, depth])
        vote = np.moveaxis(truth[index, 2:5], -1, 0) - point
        vote[:, np.abs(vote).max(axis=0) > 0.25] = np.nan  # depth of another surface at the edge
        if flip:
            image, kind, colour, vote = (
                image.flip(-1),
                kind[:, ::-1],
                colour[:, ::-1],
                vote[:, :, ::-1] * np.array([-1, 1, 1])[:, None, None],
            )
        if augment:
            gain = torch.from_numpy(rng.normal(1.0, 0.10) * rng.normal(1, 0.035, (1, 3, 1, 1))).float()
            image = (image + 2) * gain - 2 + float(rng.normal(0, 0.06))
            if rng.random() < 0.5:
                image = image + torch.randn(image.shape) * float(rng.uniform(0, 0.12))
            if rng.random() < 0.25:
                image = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
        images.append(image)
        kinds.append(kind.copy())
        colours.append(colour.copy())
        votes.append(vote.astype(np.float32).copy())
    return torch.cat(images), torch.from_numpy(np.stack(kinds)), torch.from_numpy(np.stack(colours)), torch.from_numpy(np.stack(votes))


class Sentences:
    """Frozen MiniLM vectors of the captions: a pool of wordings of each, renewed while training goes on."""

    def __init__(self, rng: np.random.Generator, pool: int = 24) -> None:
        self._encoder = sentence_encoder()
        self._pool = torch.stack([self._encoder.encode(captions(rng)) for _ in range(pool)]).clone()
        self._calls = 0

    def __call__(self, rng: np.random.Generator) -> torch.Tensor:
        """(116, 384): a wording of each caption, drawn independently."""
        self._calls += 1
        if self._calls % 15 == 0:
            self._pool[rng.integers(len(self._pool))] = self._encoder.encode(captions(rng))
        return self._pool[torch.from_numpy(rng.integers(len(self._pool), size=self._pool.shape[1])), torch.arange(self._pool.shape[1])]


def loss_of(
    network: SegmentationNetwork, data: tuple[torch.Tensor, ...], sentences: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    images, kind, colour, vote = data
    with mixed_precision(torch.device("cpu")):
        out = network(images.contiguous(memory_format=torch.channels_last))
    text = network.embed_text(sentences)
    embedding = out.embedding.permute(0, 2, 3, 1).reshape(-1, out.embedding.shape[1])
    kind, colour = kind.reshape(-1), colour.reshape(-1)
    inside = (kind >= 0).nonzero()[:, 0]
    if len(inside) > 6000:
        inside = inside[torch.from_numpy(rng.choice(len(inside), 6000, replace=False))]
    background = (kind < 0).nonzero()[:, 0]
    background = background[torch.from_numpy(rng.choice(len(background), min(3000, len(background)), replace=False))]
    allowed = torch.from_numpy(ALLOWED)
    logits = embedding[inside] @ text.T * network.log_scale.exp() + network.bias
    target = torch.from_numpy(matches(kind[inside].numpy(), colour[inside].numpy()))
    pair_logits = logits[:, : len(PAIRS)].masked_fill(~allowed[: len(PAIRS)], -1e4)
    pairs = functional.cross_entropy(pair_logits, target[:, : len(PAIRS)].long().argmax(1))
    by_kind = functional.cross_entropy(logits[:, len(PAIRS) : len(PAIRS) + len(KINDS)], kind[inside])
    by_colour = functional.cross_entropy(logits[:, len(PAIRS) + len(KINDS) :], colour[inside])
    weight = torch.where(target, 8.0, 1.0) * allowed
    masks = functional.binary_cross_entropy_with_logits(logits, target.float(), weight=weight)
    silent = embedding[background] @ text[allowed].T * network.log_scale.exp() + network.bias
    masks = masks + functional.softplus(silent).mean() * 2.0
    objectness = functional.binary_cross_entropy_with_logits(out.objectness.reshape(-1), (kind >= 0).float(), pos_weight=torch.tensor(3.0))
    error = (out.vote.permute(0, 2, 3, 1).reshape(-1, 3) - vote.permute(0, 2, 3, 1).reshape(-1, 3))[inside] / VOTE_SCALE
    votes = error[error.isfinite().all(1)].abs().mean()
    total = pairs + by_kind + 0.5 * by_colour + 2.0 * masks + objectness + 0.5 * votes
    accuracy = (logits[:, len(PAIRS) : len(PAIRS) + len(KINDS)].argmax(1) == kind[inside]).float().mean()
    return total, {
        "loss": total.item(),
        "pairs": pairs.item(),
        "kind": by_kind.item(),
        "colour": by_colour.item(),
        "masks": masks.item(),
        "object": objectness.item(),
        "vote_cm": votes.item() * 5,
        "kind_pixels": accuracy.item(),
    }


@torch.inference_mode()
def evaluate(network: SegmentationNetwork, scenes: Scenes, sentences: Sentences, count: int, seed: int = 0) -> dict[str, float]:
    """Grounding by region on held-out pictures: the region's mean logit picks its pair among all 96, its kind among 8, its colour among 12;
    and the object that a phrase means among those in view."""
    network.eval()
    rng, hits = np.random.default_rng(seed), {name: [] for name in ("pair", "held_out_pair", "kind", "colour", "pick", "absent")}
    for picture in scenes.sample(rng, count):
        images, *_ = batch(rng, [picture], augment=False)
        height, width = images.shape[-2] // 32 * 32, images.shape[-1] // 32 * 32
        out = network(images[:, :, :height, :width])
        logits = network.logits(out.embedding, network.embed_text(sentences(rng)))[0]
        instance = np.asarray(picture["instance"])[2::4, 2::4][: height // 4, : width // 4]
        regions = [
            (k, torch.from_numpy(instance == k + 1))
            for k in range(len(picture["truth"]))
            if picture["truth"][k, 0] >= 0 and (instance == k + 1).sum() >= 12
        ]
        scores = [(int(picture["truth"][k, 0]), int(picture["truth"][k, 1]), logits[:, mask].mean(1)) for k, mask in regions]
        for k, c, score in scores:
            pair = PAIRS.index((COLORS[c], KINDS[k]))
            hits["held_out_pair" if PAIRS[pair] in HELD_OUT_PAIRS else "pair"].append(int(score[: len(PAIRS)].argmax()) == pair)
            hits["kind"].append(int(score[len(PAIRS) : len(PAIRS) + len(KINDS)].argmax()) == k)
            hits["colour"].append(int(score[len(PAIRS) + len(KINDS) :].argmax()) == c)
            best = max(scores, key=lambda s: float(s[2][pair]))
            hits["pick"].append((best[0], best[1]) == (k, c))
        seen = {(c, k) for k, c, _ in scores}
        for c, k in [(c, k) for c, _ in seen for _, k in seen if (c, k) not in seen]:  # colour present, kind present, pair absent
            hits["absent"].append(max(float(s[2][PAIRS.index((COLORS[c], KINDS[k]))]) for s in scores) > 0)
    network.train()
    return {name: float(np.mean(values)) if values else float("nan") for name, values in hits.items()} | {"n": len(hits["kind"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    scenes, held_out, sentences = Scenes(options.data, "train"), Scenes(options.data, "test"), Sentences(rng)
    network = SegmentationNetwork()
    if options.start:
        from pcm_ros.models.loading import load_safetensors

        network.load_state_dict(load_safetensors(options.start))
    network.to(memory_format=torch.channels_last)
    average = averaged(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-3)
    start, step, seen, log = time.time(), 0, 0, []
    while (progress := (time.time() - start) / 60 / options.minutes) < 1:
        set_learning_rate(optimiser, options.rate, step, progress)
        loss, parts = loss_of(network, batch(rng, scenes.sample(rng, options.batch)), sentences(rng), rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        average.update_parameters(network)
        step, seen = step + 1, seen + options.batch
        log.append(parts)
        if step % 100 == 0:
            scenes.refresh()
            held_out.refresh()
            mean = {name: round(float(np.mean([p[name] for p in log])), 3) for name in parts}
            print(f"step {step} pictures {seen} of {len(scenes)} minutes {(time.time() - start) / 60:.1f} {mean}", flush=True)
            log.clear()
        if step % 500 == 0:
            save(average.module, options.out)
            print("held out", evaluate(average.module, held_out, sentences, 60), flush=True)
    save(average.module, options.out)
    figures = evaluate(average.module, held_out, sentences, 400)
    print("held out", figures, flush=True)
    training = {
        "pictures_seen": seen,
        "pictures": len(scenes),
        "minutes": options.minutes,
        "seed": options.seed,
        "started_from": str(options.start or ""),
    }
    write_card(
        options.out,
        "segmenter",
        " ".join((SegmentationNetwork.__doc__ or "").split()),
        f"python -m training.segmenter --minutes {options.minutes:g} --seed {options.seed}",
        figures,
        training,
    )


def averaged(network: torch.nn.Module) -> torch.optim.swa_utils.AveragedModel:
    """Exponential moving average of weights and buffers, whose memory grows with the steps (to 500): a short run must not be averaged with
    its random start."""

    def update(average: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        decay = min(0.998, (1 + float(count)) / (20 + float(count)))
        for old, new in zip(average, current, strict=True):
            if old.is_floating_point() and bool(torch.isfinite(old).all()):  # attention masks hold -inf
                old.lerp_(new.to(old.dtype), 1 - decay)
            else:
                old.copy_(new)

    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def save(network: torch.nn.Module, path: Path) -> None:
    """Write the weights as fp16 safetensors (counters stay integers)."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in network.state_dict().items()}, path)


if __name__ == "__main__":
    main()
