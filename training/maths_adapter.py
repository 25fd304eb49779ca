"""Train the low-rank adapter that makes the embedded language model solve word problems in short steps with marked equations.

    python -m training.maths_adapter --data gsm8k/train.jsonl --work runs/maths

The model learns solutions in compact notation (`sold <<48/2=24>> clips`, one step per line, `#### 72` last) of GSM8K's train split and, for
about a quarter of the sequences, of one- to three-step problems from `maths_problems.py`, drawn anew in each epoch. The loss counts on
solutions only. Everything is drawn from the seed; the state is saved every few minutes, and the same command goes on from there.

A second round, on a GPU, learns right solutions of the first round's own as well (Yuan et al., arXiv 2308.01825):

    python -m training.maths_adapter --data gsm8k/train.jsonl --work runs/second --device cuda --per-step 32 --more runs/maths/samples.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pcm_ros.models.causal_loading import embedded_language_model, load_causal
from pcm_ros.models.low_rank import add_low_rank, low_rank_layers, save_adapter
from pcm_ros.tasks.mathematics.notation import EQUATION, compact, prompt, written
from training.learning_rate import set_learning_rate
from training.maths_problems import make_problem
from training.precision import training_precision

HELD_OUT = 300  # the last problems of the train split
MICRO = 8  # sequences that go through the network together, fewer if they are long:
MICRO_TOKENS = {"cpu": 1200, "cuda": 24000}  # what attention keeps for the backward pass grows with the square of the length


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and its solution; the loss counts from `start` on."""

    ids: tuple[int, ...]
    start: int


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]], most: int) -> list[Example]:
    """Prompts and solutions as tokens; those longer than `most` are left out (cut solutions would teach to stop anywhere)."""
    if not pairs:
        return []
    found = []
    heads = tokenizer([prompt(question) for question, _ in pairs], add_special_tokens=False)["input_ids"]
    solutions = tokenizer([solution for _, solution in pairs], add_special_tokens=False)["input_ids"]
    for head, solution in zip(heads, solutions, strict=True):
        ids = [*head, *solution, tokenizer.eos_token_id]
        if len(ids) <= most:
            found.append(Example(tuple(ids), len(head)))
    return found


def gsm8k(path: Path) -> list[tuple[str, str]]:
    """(question, solution in compact notation) of each line."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["question"], compact(line["answer"])) for line in lines]


def made_up(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """(question, solution) of generated problems."""
    problems = [make_problem(rng) for _ in range(count)]
    return [(problem.question, written(problem.steps, str(problem.answer))) for problem in problems]


def right_samples(path: Path, most: int) -> list[tuple[str, str]]:
    """(question, solution) of right samples of GSM8K's problems that are not held out.

    Args:
        path: made by maths_samples.py. most: solutions of a problem; of those with the same equations only the one drawn most often counts.
    """
    pairs = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["held_out"] or entry["source"] != "gsm8k":  # generated problems are new in every epoch anyway
            continue
        distinct: dict[tuple[str, ...], str] = {}
        for sample in sorted(entry["samples"], key=lambda sample: -sample["count"]):
            if sample["right"] and EQUATION.search(sample["text"]):
                distinct.setdefault(tuple(match[1].replace(" ", "") for match in EQUATION.finditer(sample["text"])), sample["text"])
        pairs += [(entry["question"], text) for text in list(distinct.values())[:most]]
    return pairs


def steps_of_epoch(
    lengths: Sequence[int], rng: np.random.Generator, group: int = 64, per_step: int = 16, micro: int = MICRO
) -> list[list[list[int]]]:
    """Rows of the examples by optimiser step and micro-batch: like lengths together in a micro-batch, unlike ones in a step."""
    order = rng.permutation(len(lengths))
    steps: list[list[list[int]]] = []
    for start in range(0, len(order) - group + 1, group):
        part = sorted(order[start : start + group].tolist(), key=lambda row: lengths[row])
        parts = [part[k : k + micro] for k in range(0, group, micro)]
        count = group // per_step
        steps += [parts[k::count] for k in range(count)]
    return [steps[k] for k in rng.permutation(len(steps))]


def padded(examples: Sequence[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B, T) ids, the N places among the B * T states that foretell a token of a solution, and those (N,) tokens.

    Padding is on the right, so a causal model needs no mask. All on the processor: a GPU that looked for the places would have to be
    waited for.
    """
    longest = max(len(example.ids) for example in examples)
    ids = np.full((len(examples), longest), pad)
    learnt = np.zeros((len(examples), longest), dtype=bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        learnt[row, example.start : len(example.ids)] = True
    places = np.flatnonzero(learnt)  # a prompt is never empty: place - 1 is of the same row
    return torch.from_numpy(ids), torch.from_numpy(places - 1), torch.from_numpy(ids.reshape(-1)[places])


def fitting(examples: Sequence[Any], device: torch.device) -> list[Sequence[Any]]:
    """Examples (with `ids`) in parts of at most MICRO_TOKENS padded tokens (or of one example)."""
    count = max(1, MICRO_TOKENS.get(device.type, MICRO_TOKENS["cpu"]) // max(len(example.ids) for example in examples))
    return [examples[start : start + count] for start in range(0, len(examples), count)]


def summed_loss(model: Any, ids: torch.Tensor, places: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies of the wanted tokens, in nats."""
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
    return torch.nn.functional.cross_entropy(model.lm_head(states[places]).float(), wanted, reduction="sum")


@torch.inference_mode()
def validation(model: Any, examples: Sequence[Example], pad: int) -> float:
    """Mean loss per solution token, in nats."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    total, count, device = 0.0, 0, model.device
    group = MICRO if device.type == "cpu" else 64
    for start in range(0, len(ordered), group):
        ids, places, wanted = (tensor.to(device) for tensor in padded(ordered[start : start + group], pad))
        total += float(summed_loss(model, ids, places, wanted))
        count += len(wanted)
    return total / count


def save_state(path: Path, model: Any, optimiser: torch.optim.Optimizer, position: dict[str, Any]) -> None:
    """Adapter, moments and position in one safetensors file, written whole or not at all."""
    tensors = {}
    for name, layer in low_rank_layers(model):
        for part in ("down", "up"):
            parameter = getattr(layer, part)
            tensors[f"{name}.{part}"] = parameter.detach()
            for moment, value in optimiser.state.get(parameter, {}).items():
                if moment in ("exp_avg", "exp_avg_sq"):
                    tensors[f"{name}.{part}.{moment}"] = value
    save_file(tensors, path.with_suffix(".part"), metadata={"position": json.dumps(position)})
    os.replace(path.with_suffix(".part"), path)


def load_state(path: Path, model: Any, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The position at which to go on; weights and moments are put in place."""
    with safe_open(path, framework="pt") as file:
        position = json.loads(file.metadata()["position"])
        for name, layer in low_rank_layers(model):
            for part in ("down", "up"):
                parameter = getattr(layer, part)
                parameter.data.copy_(file.get_tensor(f"{name}.{part}"))
                moments = {m: file.get_tensor(f"{name}.{part}.{m}").to(parameter.device) for m in ("exp_avg", "exp_avg_sq")}
                optimiser.state[parameter] = {"step": torch.tensor(float(position["step"]), device=parameter.device), **moments}
    return position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder of the state, the log and, at the end, adapter.safetensors")
    parser.add_argument("--epochs", type=float, default=2.5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of wall-clock time: ends by then, the rate falls accordingly")
    parser.add_argument("--model", type=Path, default=None, help="folder in transformers' format; default: the embedded model")
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--per-step", type=int, default=16, help="sequences of an optimiser step")
    parser.add_argument("--more", type=Path, help="samples of maths_samples.py: their right solutions are learnt too (arXiv 2308.01825)")
    parser.add_argument("--most-more", type=int, default=4, help="of a problem, distinct by their equations")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=64.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=60, help="optimiser steps")
    parser.add_argument("--generated", type=float, default=0.28, help="share of generated problems among the sequences")
    parser.add_argument("--longest", type=int, default=400, help="tokens; longer examples are left out")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="the last problems of the file, which are not learnt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=300, help="seconds")
    parser.add_argument("--validate-every", type=int, default=250, help="optimiser steps")
    options = parser.parse_args()
    begun = time.time()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    attention = "eager" if device.type == "cpu" else "sdpa"
    model, tokenizer = load_causal(options.model or embedded_language_model(), training_precision(device), attention=attention)
    add_low_rank(model, options.rank, options.alpha)
    model.to(device)
    parameters = [getattr(layer, part) for _, layer in low_rank_layers(model) for part in ("down", "up")]
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=device.type == "cuda")
    pairs = gsm8k(options.data)
    recorded = encode(tokenizer, pairs[: -options.held_out], options.longest)
    held_out = encode(tokenizer, pairs[-options.held_out :], options.longest)
    if options.more is not None:
        recorded = recorded + encode(tokenizer, right_samples(options.more, options.most_more), options.longest)
    easy = encode(tokenizer, made_up(np.random.default_rng([options.seed, 777]), 200), options.longest)
    count = round(len(recorded) * options.generated / (1 - options.generated))
    epochs, micro = [], min(MICRO, options.per_step) if device.type == "cpu" else options.per_step
    for epoch in range(math.ceil(options.epochs)):
        rng = np.random.default_rng([options.seed, epoch])
        examples = recorded + encode(tokenizer, made_up(rng, count), options.longest)
        lengths = [len(example.ids) for example in examples]
        epochs.append((examples, steps_of_epoch(lengths, rng, 4 * options.per_step, options.per_step, micro)))
    plan = [(examples, step) for examples, steps in epochs for step in steps][: round(options.epochs * len(epochs[0][1]))]
    if not plan:
        raise ValueError(f"{len(recorded)} recorded problems are fewer than an epoch needs; allowed: at least {4 * options.per_step}")
    tokens = sum(len(examples[row].ids) for examples, step in plan for rows in step for row in rows)
    print(f"{len(recorded)} recorded and {count} generated problems an epoch, {len(plan)} steps, {tokens} tokens", flush=True)
    state = options.work / "state.safetensors"
    position: dict[str, Any] = {"step": 0, "seconds": 0.0, "tokens": 0}
    if state.exists():
        position = load_state(state, model, optimiser)
    earlier = position["seconds"]
    saved, log, started = time.time(), (options.work / "log.jsonl").open("a"), time.time() - earlier
    losses: list[torch.Tensor] = []
    shown = 0.0
    halfway = False
    for index in range(position["step"], len(plan)):
        examples, step = plan[index]
        progress = max(index / len(plan), (earlier + time.time() - begun) / options.seconds)
        last = index + 1 == len(plan) or progress >= 1
        rate = set_learning_rate(optimiser, options.rate, index, progress, options.warmup, lowest=0.03)
        parts = [part for rows in step for part in fitting([examples[row] for row in rows], device)]
        batches = [padded(part, tokenizer.pad_token_id) for part in parts]
        count = sum(len(wanted) for _, _, wanted in batches)
        total = torch.zeros((), device=device)
        for batch in batches:
            ids, places, wanted = (tensor.to(device, non_blocking=True) for tensor in batch)
            loss = summed_loss(model, ids, places, wanted) / count
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(total)
        seen = position["tokens"] + sum(len(examples[row].ids) for rows in step for row in rows)
        position = {"step": index + 1, "seconds": round(time.time() - started, 2), "tokens": seen}
        if (index + 1) % 10 == 0 or last:
            mean = float(torch.stack(losses).mean())
            entry = {**position, "of": len(plan), "loss": round(mean, 4), "rate": rate, "norm": round(float(norm), 3)}
            if (index + 1) % options.validate_every == 0 or last:
                entry["held_out"] = round(validation(model, held_out, tokenizer.pad_token_id), 4)
                entry["generated"] = round(validation(model, easy, tokenizer.pad_token_id), 4)
            print(json.dumps(entry), file=log, flush=True)
            losses.clear()
            if last or time.time() - shown > 10:
                print(json.dumps(entry), flush=True)
                shown = time.time()
        if time.time() - saved > options.save_every or last or (progress >= 0.6 and not halfway):
            halfway = progress >= 0.6
            save_state(state, model, optimiser, position)
            save_adapter(model, options.work / "adapter.safetensors")
            saved = time.time()
        if last:
            break


if __name__ == "__main__":
    main()
