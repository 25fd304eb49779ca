"""Train the low-rank adapter that makes the embedded language model solve word problems in short steps with marked equations.

    python -m training.maths_adapter --data gsm8k/train.jsonl --work runs/maths

The model learns solutions in compact notation (`sold <<48/2=24>> clips`, one step per line, `#### 72` last) of GSM8K's train split and, for
about a quarter of the sequences, of one- to three-step problems from `maths_problems.py`, drawn anew in each epoch. The loss counts on
solutions only. Everything is drawn from the seed; the state is saved every few minutes, and the same command goes on from there.
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

from pcm_ros.models.language import embedded_language_model, load_causal
from pcm_ros.models.low_rank import add_low_rank, low_rank_layers, save_adapter
from pcm_ros.tasks.mathematics.notation import compact, prompt, written
from training.maths_problems import make_problem

HELD_OUT = 300  # the last problems of the train split
MICRO = 8  # sequences that go through the network together, fewer if they are long:
MICRO_TOKENS = 1200  # what attention keeps for the backward pass grows with the square of the length


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and its solution; the loss counts from `start` on."""

    ids: tuple[int, ...]
    start: int


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]], most: int) -> list[Example]:
    """Prompts and solutions as tokens; those longer than `most` are left out (cut solutions would teach to stop anywhere)."""
    found = []
    for question, solution in pairs:
        head = tokenizer(prompt(question), add_special_tokens=False)["input_ids"]
        ids = [*head, *tokenizer(solution, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
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


def steps_of_epoch(lengths: Sequence[int], rng: np.random.Generator, group: int = 64, per_step: int = 16) -> list[list[list[int]]]:
    """Rows of the examples by optimiser step and micro-batch: like lengths together in a micro-batch, unlike ones in a step."""
    order = rng.permutation(len(lengths))
    steps: list[list[list[int]]] = []
    for start in range(0, len(order) - group + 1, group):
        part = sorted(order[start : start + group].tolist(), key=lambda row: lengths[row])
        micro = [part[k : k + MICRO] for k in range(0, group, MICRO)]
        count = group // per_step
        steps += [micro[k::count] for k in range(count)]
    return [steps[k] for k in rng.permutation(len(steps))]


def padded(examples: Sequence[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids and (B, T) labels, -100 where nothing is to be learnt. Padding is on the right, so a causal model needs no mask."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), pad)
    labels = torch.full((len(examples), longest), -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, example.start : len(example.ids)] = ids[row, example.start : len(example.ids)]
    return ids, labels


def fitting(examples: Sequence[Any]) -> list[Sequence[Any]]:
    """Examples (with `ids`) in parts of at most MICRO_TOKENS padded tokens (or of one example)."""
    count = max(1, MICRO_TOKENS // max(len(example.ids) for example in examples))
    return [examples[start : start + count] for start in range(0, len(examples), count)]


def summed_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies of the labels, in nats."""
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    shown = wanted >= 0
    return torch.nn.functional.cross_entropy(model.lm_head(states[shown]).float(), wanted[shown], reduction="sum")


@torch.inference_mode()
def validation(model: Any, examples: Sequence[Example], pad: int) -> float:
    """Mean loss per solution token, in nats."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    total, count = 0.0, 0
    for start in range(0, len(ordered), MICRO):
        ids, labels = padded(ordered[start : start + MICRO], pad)
        total += float(summed_loss(model, ids, labels))
        count += int((labels >= 0).sum())
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
                moments = {moment: file.get_tensor(f"{name}.{part}.{moment}") for moment in ("exp_avg", "exp_avg_sq")}
                optimiser.state[parameter] = {"step": torch.tensor(float(position["step"])), **moments}
    return position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder of the state, the log and, at the end, adapter.safetensors")
    parser.add_argument("--epochs", type=float, default=2.5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=60, help="optimiser steps")
    parser.add_argument("--generated", type=float, default=0.28, help="share of generated problems among the sequences")
    parser.add_argument("--longest", type=int, default=400, help="tokens; longer examples are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=300, help="seconds")
    parser.add_argument("--validate-every", type=int, default=250, help="optimiser steps")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_causal(embedded_language_model(), torch.bfloat16, attention="eager")
    add_low_rank(model, options.rank, options.alpha)
    parameters = [getattr(layer, part) for _, layer in low_rank_layers(model) for part in ("down", "up")]
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0)
    pairs = gsm8k(options.data)
    recorded = encode(tokenizer, pairs[:-HELD_OUT], options.longest)
    held_out = encode(tokenizer, pairs[-HELD_OUT:], options.longest)
    easy = encode(tokenizer, made_up(np.random.default_rng([options.seed, 777]), 200), options.longest)
    count = round(len(recorded) * options.generated / (1 - options.generated))
    epochs = []
    for epoch in range(math.ceil(options.epochs)):
        rng = np.random.default_rng([options.seed, epoch])
        examples = recorded + encode(tokenizer, made_up(rng, count), options.longest)
        epochs.append((examples, steps_of_epoch([len(example.ids) for example in examples], rng)))
    plan = [(examples, step) for examples, steps in epochs for step in steps][: round(options.epochs * len(epochs[0][1]))]
    tokens = sum(len(examples[row].ids) for examples, step in plan for micro in step for row in micro)
    print(f"{len(recorded)} recorded and {count} generated problems an epoch, {len(plan)} steps, {tokens} tokens", flush=True)
    state = options.work / "state.safetensors"
    position = load_state(state, model, optimiser) if state.exists() else {"step": 0, "seconds": 0.0, "tokens": 0}
    saved, log, started = time.time(), (options.work / "log.jsonl").open("a"), time.time() - position["seconds"]
    losses: list[float] = []
    for index in range(position["step"], len(plan)):
        examples, step = plan[index]
        progress = index / len(plan)
        rate = options.rate * min(1.0, (index + 1) / options.warmup) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        parts = [part for micro in step for part in fitting([examples[row] for row in micro])]
        batches = [padded(part, tokenizer.pad_token_id) for part in parts]
        wanted = sum(int((labels >= 0).sum()) for _, labels in batches)
        total = 0.0
        for ids, labels in batches:
            loss = summed_loss(model, ids, labels) / wanted
            loss.backward()
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(total)
        position = {
            "step": index + 1,
            "seconds": time.time() - started,
            "tokens": position["tokens"] + sum(len(examples[row].ids) for micro in step for row in micro),
        }
        if (index + 1) % 10 == 0 or index + 1 == len(plan):
            entry = {**position, "of": len(plan), "loss": round(float(np.mean(losses)), 4), "rate": rate, "norm": round(norm, 3)}
            if (index + 1) % options.validate_every == 0 or index + 1 == len(plan):
                entry["held_out"] = round(validation(model, held_out, tokenizer.pad_token_id), 4)
                entry["generated"] = round(validation(model, easy, tokenizer.pad_token_id), 4)
            print(json.dumps(entry), file=log, flush=True)
            losses.clear()
        if time.time() - saved > options.save_every or index + 1 == len(plan):
            save_state(state, model, optimiser, position)
            save_adapter(model, options.work / "adapter.safetensors")
            saved = time.time()


if __name__ == "__main__":
    main()
