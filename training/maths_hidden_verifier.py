"""Fine-tune the generator itself into a verifier: a low-rank adapter of its upper layers and a linear head on its last state.

    python -m training.maths_hidden_verifier --samples runs/maths/samples.jsonl --adapter runs/maths/adapter.safetensors --work runs/v

The head judges at every token of a step, as in Cobbe et al., arXiv 2110.14168: the target is the share of samples with that beginning that
were right. Saved every few minutes; the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
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
from torch import Tensor, nn
from torch.nn import functional

from pcm_ros.consensus import Batch
from pcm_ros.models.language import LanguageModel, embedded_language_model, load_causal
from pcm_ros.models.low_rank import add_low_rank, low_rank_layers, merge_adapter, save_adapter
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import Problem, solutions_batch
from pcm_ros.tasks.mathematics.verifiers import HiddenStateVerifier
from training.card import write_card
from training.maths_adapter import fitting, steps_of_epoch
from training.maths_labels import Sampled, beginnings, held_out_figures, sampled, stopped
from training.maths_samples import right
from training.maths_sentence_verifier import DATA


@dataclass(frozen=True)
class Labelled:
    """Token ids, and a target for each token; NaN where there is none."""

    ids: tuple[int, ...]
    targets: tuple[float, ...]


def labelled(tokenizer: Any, problem: Sampled, early: float, rng: np.random.Generator, most: int) -> list[Labelled]:
    """The samples of a problem, and a share `early` of them cut after a step, with the result there as the answer."""
    shares = {beginning.text: beginning.right for beginning in beginnings(problem)}
    head = tokenizer(prompt(problem.question), add_special_tokens=False)["input_ids"]
    nothing = float("nan")

    def whole(text: str, last_only: float | None) -> Labelled | None:
        ids, targets, so_far = list(head), [nothing] * len(head), ""
        lines = text.splitlines(keepends=True)
        for line in lines:
            so_far += line
            piece = tokenizer(line, add_special_tokens=False)["input_ids"]
            ids += piece
            if last_only is None:
                targets += [shares[so_far]] * len(piece)
            else:
                targets += [last_only if so_far == text else nothing] * len(piece)
        return Labelled(tuple(ids), tuple(targets)) if len(ids) <= most else None

    found = []
    for text, _, _ in problem.samples:
        found.append(whole(text, None))
        lines = text.splitlines(keepends=True)
        if rng.random() < early and len(lines) > 2:
            cut = stopped("".join(lines[: int(rng.integers(1, len(lines) - 1))]))
            if cut is not None:
                found.append(whole(cut, float(right(cut, problem.answer))))
    return [example for example in found if example is not None]


def padded(examples: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    """(B, T) ids and targets."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.tensor([[*example.ids, *[0] * (longest - len(example.ids))] for example in examples])
    targets = torch.tensor([[*example.targets, *[float("nan")] * (longest - len(example.ids))] for example in examples])
    return ids, targets


def summed_loss(model: Any, head: nn.Linear, ids: Tensor, targets: Tensor) -> Tensor:
    """Sum over judged tokens of the binary cross-entropy, nats."""
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    judged = ~targets.isnan()
    return functional.binary_cross_entropy_with_logits(head(states[judged].float()).squeeze(1), targets[judged], reduction="sum")


def evaluated(adapter: Path, weights: Path, problems: list[Sampled]) -> dict[str, float]:
    """Figures on held-out problems, by the scorer that the product uses."""
    scorer = HiddenStateVerifier(LanguageModel(adapter=adapter, pack=False), weights)
    energies = {}
    for problem in problems:
        texts = [text for text, _, _ in problem.samples]
        count = len(texts)
        batch: Batch = solutions_batch(texts, [True] * count, [1.0] * count, [0.0] * count, [0] * count)
        found = scorer.energy(batch, Problem(" ".join(problem.question.split()))).tolist()
        energies |= {(problem.number, text): energy for text, energy in zip(texts, found, strict=True)}
    return held_out_figures(energies, problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="made by training/maths_samples.py")
    parser.add_argument("--adapter", type=Path, required=True, help="the generator's")
    parser.add_argument("--work", type=Path, required=True, help="folder of the state, the log and maths-hidden-verifier.safetensors")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--layers", type=int, default=12, help="upper layers that are tuned")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--early", type=float, default=0.4, help="share of samples that are also shown cut after a step")
    parser.add_argument("--longest", type=int, default=400, help="tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=300, help="seconds")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_causal(embedded_language_model(), torch.float32, attention="eager")
    merge_adapter(model, options.adapter)
    model.to(torch.bfloat16)
    layers = int(model.config.num_hidden_layers)
    upper = "|".join(str(layer) for layer in range(max(0, layers - options.layers), layers))
    add_low_rank(model, options.rank, 2.0 * options.rank, within=rf"\.layers\.({upper})\.")
    head = nn.Linear(int(model.config.hidden_size), 1)
    nn.init.zeros_(head.weight)
    trained = {f"{name}.{part}": getattr(layer, part) for name, layer in low_rank_layers(model) for part in ("down", "up")}
    trained |= {f"head.{name}": parameter for name, parameter in head.named_parameters()}
    optimiser = torch.optim.AdamW(trained.values(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    problems = sampled(options.samples)
    rng = np.random.default_rng([options.seed, 31])
    learnt = [problem for problem in problems if not problem.held_out]
    examples = list(itertools.chain(*(labelled(tokenizer, problem, options.early, rng, options.longest) for problem in learnt)))
    lengths = [len(example.ids) for example in examples]
    plan: list[list[list[int]]] = []
    while len(plan) < options.epochs * (len(examples) // 64) * 4:
        plan += steps_of_epoch(lengths, rng)
    plan = plan[: max(1, round(options.epochs * (len(examples) // 64) * 4))]
    print(f"{len(examples)} examples of {len(learnt)} problems, {len(plan)} steps, {sum(lengths)} tokens an epoch", flush=True)
    state, done, before = options.work / "state.safetensors", 0, 0.0
    if state.exists():
        with safe_open(state, framework="pt") as file:
            done, before = json.loads(file.metadata()["position"])
            for name, parameter in trained.items():
                parameter.data.copy_(file.get_tensor(name))
                moments = {moment: file.get_tensor(f"{name}.{moment}") for moment in ("exp_avg", "exp_avg_sq")}
                optimiser.state[parameter] = {"step": torch.tensor(float(done)), **moments}
    weights = options.work / "maths-hidden-verifier.safetensors"
    started = saved = time.time()
    losses: list[float] = []
    with (options.work / "log.jsonl").open("a") as log:
        for index in range(done, len(plan)):
            for group in optimiser.param_groups:
                group["lr"] = options.rate * min(1.0, (index + 1) / 50) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * index / len(plan))))
            batches = [padded(part) for micro in plan[index] for part in fitting([examples[row] for row in micro])]
            judged = sum(int((~targets.isnan()).sum()) for _, targets in batches)
            total = 0.0
            for ids, targets in batches:
                loss = summed_loss(model, head, ids, targets) / judged
                loss.backward()
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(total)
            seconds = before + time.time() - started
            if (index + 1) % 10 == 0:
                entry = {"step": index + 1, "of": len(plan), "loss": round(float(np.mean(losses)), 4), "seconds": round(seconds)}
                print(json.dumps(entry), file=log, flush=True)
                losses.clear()
            if time.time() - saved > options.save_every or index + 1 == len(plan):
                tensors = {name: parameter.detach().contiguous() for name, parameter in trained.items()}
                for name, parameter in trained.items():
                    tensors |= {f"{name}.{moment}": optimiser.state[parameter][moment] for moment in ("exp_avg", "exp_avg_sq")}
                save_file(tensors, state.with_suffix(".part"), metadata={"position": json.dumps([index + 1, seconds])})
                os.replace(state.with_suffix(".part"), state)
                more = {"head.weight": head.weight.detach()[0].contiguous(), "head.bias": head.bias.detach()}
                save_adapter(model, weights, more=more)
                saved = time.time()
    figures = evaluated(options.adapter, weights, [problem for problem in problems if problem.held_out])
    print(figures, flush=True)
    write_card(
        weights,
        "verifier",
        f"SmolLM2-135M-Instruct, maths-adapter, low-rank adapter (rank {options.rank}) of the upper {options.layers} layers, linear head",
        f"python -m training.maths_hidden_verifier --samples SAMPLES --adapter ADAPTER --work WORK --epochs {options.epochs}",
        figures,
        {"problems": len(learnt), "examples": len(examples), "steps": len(plan), "seed": options.seed},
        DATA,
        "Word problems like GSM8K's, in steps as the generator writes them. A small model: it misses what needs knowledge of the world.",
    )


if __name__ == "__main__":
    main()
