"""Train the detector that judges generated pictures.

    python -m training.picture_judge --data training/diffusion_data training/judge_data --held-out training/diffusion_data \\
        --device cuda --seconds 80 --work runs/judge --out pcm_ros/models/weights/picture-judge.safetensors

It must know all colours of all kinds: the folders hold pictures of the train split, and others of the test split than it is measured on.

Slots are assigned to things by the cheapest of the six permutations (arXiv 2005.12872). Pictures are mildly blurred, tinted and made noisy.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from pcm_ros.benchmarks.picture_judge import SLOTS, JudgeNetwork, PictureJudge
from pcm_ros.sim.pictures import KINDS, relation
from training.card import write_card
from training.diffusion_data import Progress, as_input, average_into, pictures, placed, shards, shuffled, truths
from training.learning_rate import set_learning_rate
from training.precision import mixed_precision

DATA = "Pictures of training/diffusion_scenes.py of both splits, and their mirror images; no captions."
LIMITS = "One to three things of seven kinds and twelve colours, at 64 x 64. For judging pictures like those it learnt from, and no others."
PERMUTATIONS = tuple(itertools.permutations(range(SLOTS)))


def loss_of(outputs: tuple[Tensor, Tensor, Tensor, Tensor], truth: Tensor) -> Tensor:
    """Mean loss over pictures; truth (N, 3, 5): kind (-1 none), colour, x, y, host."""
    kinds, colors, places, hosts = (part.float() for part in outputs)
    kind, there = truth[..., 0].long(), (truth[..., 0] >= 0).float()
    kind = torch.where(kind < 0, len(KINDS), kind)
    by_kind = (
        -kinds.log_softmax(dim=2)[:, :, None, :]
        .expand(-1, -1, SLOTS, -1)
        .gather(3, kind[:, None, :, None].expand(-1, SLOTS, -1, 1))[..., 0]
    )
    color = truth[..., 1].long().clamp_min(0)
    by_color = (
        -colors.log_softmax(dim=2)[:, :, None, :]
        .expand(-1, -1, SLOTS, -1)
        .gather(3, color[:, None, :, None].expand(-1, SLOTS, -1, 1))[..., 0]
    )
    away = (places[:, :, None] - 10 * truth[:, None, :, 2:4]).abs().sum(dim=3)
    cost = by_kind + there[:, None] * (by_color + 2 * away)  # (N, slot, thing)
    table = torch.tensor(PERMUTATIONS, device=truth.device)  # (6, slot): the thing of each slot
    slots = torch.arange(SLOTS, device=truth.device)
    totals = torch.stack([cost[:, slots, things].sum(dim=1) for things in table], dim=1)
    best, choice = totals.min(dim=1)
    things = table[choice]  # (N, slot)
    slot_of = things.argsort(dim=1)  # (N, thing)
    host = truth[..., 4].long().gather(1, things)
    target = torch.where(host >= 0, 1 + slot_of.gather(1, host.clamp_min(0)), 0)
    resting = functional.cross_entropy(hosts.flatten(0, 1), target.flatten(), reduction="none").view(-1, SLOTS)
    return (best + (resting * there.gather(1, things)).sum(dim=1)).mean()


def evaluate(network: Any, rgb: np.ndarray, truth: np.ndarray, out: Path) -> dict[str, float]:
    """On held-out renders: share of pictures with exactly the right (colour, kind) set, of things found, and of clear relations right."""
    tensors = {
        name: tensor.half().cpu().contiguous() if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in network.state_dict().items()
    }
    save_file(tensors, out, metadata={"format": "pt"})
    judged = [found for start in range(0, len(rgb), 200) for found in PictureJudge(out).judge(rgb[start : start + 200])]
    sets, things, relations = list[bool](), list[bool](), list[bool]()
    for found, row in zip(judged, truth, strict=True):
        real = placed(row)
        left = [(thing.color, thing.kind) for thing in found]
        sets.append(sorted(left) == sorted((thing.color, thing.kind) for thing in real))
        for thing in real:
            things.append((thing.color, thing.kind) in left)
            if things[-1]:
                left.remove((thing.color, thing.kind))
        if sets[-1] and len({(thing.color, thing.kind) for thing in real}) == len(real):
            place = [next(i for i, s in enumerate(found) if (s.color, s.kind) == (thing.color, thing.kind)) for thing in real]
            for a, b in itertools.permutations(range(len(real)), 2):
                if (how := relation(a, b, real)) is not None:
                    relations.append(relation(place[a], place[b], found) == how)
    return {
        "sets": round(float(np.mean(sets)), 4),
        "things": round(float(np.mean(things)), 4),
        "relations": round(float(np.mean(relations)) if relations else 0.0, 4),
        "n": len(rgb),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders; shards of the first one's train split and all of others"
    )
    parser.add_argument("--held-out", type=Path, required=True, help="folder whose test split it is measured on")
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--work", type=Path, required=True, help="folder of log.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--shards", type=int, default=100, help="at most so many are read")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    paths = shards(options.data[0], "train")[: options.shards]
    paths += [path for folder in options.data[1:] for split in ("train", "test") for path in folder.glob(f"{split}-*.safetensors")]
    rgb = torch.from_numpy(np.concatenate([pictures(path) for path in paths])).to(device)
    truth = torch.from_numpy(np.concatenate([truths(path) for path in paths])).to(device)
    test = shards(options.held_out, "test")[:2]
    held_rgb, held_truth = np.concatenate([pictures(p) for p in test]), np.concatenate([truths(p) for p in test])
    torch.manual_seed(options.seed)
    network = JudgeNetwork().to(device, memory_format=torch.channels_last)
    if options.start is not None:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(options.start).items()})
    average = JudgeNetwork().to(device)
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.02, fused=device.type == "cuda")
    generator = torch.Generator(device).manual_seed(options.seed)
    progress, losses, step = Progress(options.work, options.seconds), list[Tensor](), 0
    saved = 0.0

    def measure() -> dict[str, float]:
        for old, new in zip(average.buffers(), network.buffers(), strict=True):
            old.copy_(new)
        figures = evaluate(average, held_rgb, held_truth, options.out)
        progress.log(step=step, held_out=figures)
        return figures

    for rows in shuffled(generator, len(rgb), options.batch):
        if progress.share >= 1:
            break
        if progress.seconds - saved > 300:
            saved = progress.seconds
            measure()
        set_learning_rate(optimiser, options.rate, step, progress.share, warm_up=200)
        x, wanted = as_input(rgb[rows]), truth[rows].clone()
        draw = torch.rand(4, len(rows), 1, 1, 1, generator=generator, device=device)
        mirrored = draw[0] < 0.5
        x = torch.where(mirrored, x.flip(3), x)
        wanted[..., 2] = torch.where(mirrored[:, :, 0, 0], -wanted[..., 2], wanted[..., 2])
        coarse = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
        x = torch.lerp(x, coarse, draw[1] * (draw[1] < 0.5))
        x = x * (0.95 + 0.1 * draw[2]) + 0.06 * draw[3] * torch.randn(x.shape, generator=generator, device=device)
        with mixed_precision(device):
            outputs = network(x.contiguous(memory_format=torch.channels_last))
        loss = loss_of(outputs, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        average_into(average, network, step, 0.998)
        losses.append(loss.detach())
        if step % 100 == 0:
            progress.log(step=step, loss=round(float(torch.stack(losses).mean()), 4))
            losses.clear()
    figures = measure()
    training = {"pictures": len(rgb), "steps": step, "batch": options.batch, "seconds": round(progress.seconds), "seed": options.seed}
    begun = "" if options.start is None else " --start EARLIER"
    command = f"python -m training.picture_judge --device {options.device}{begun} --seconds {options.seconds:g} --seed {options.seed}"
    kind = "JudgeNetwork, see pcm_ros/benchmarks/picture_judge.py"
    write_card(options.out, "judge of the image benchmark", kind, command, figures, training, DATA, LIMITS)


if __name__ == "__main__":
    main()
