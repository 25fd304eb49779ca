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
from collections.abc import Callable, Sequence
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
from pcm_ros.models.causal_loading import embedded_language_model, load_causal, round_weights
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.low_rank import add_low_rank, low_rank_layers, merge_adapter, save_adapter
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import Problem, solutions_batch
from pcm_ros.tasks.mathematics.verifiers import HiddenStateVerifier
from training.card import write_card
from training.maths_adapter import MICRO, fitting, steps_of_epoch
from training.maths_labels import Sampled, held_out_figures, sampled, shares_right, stopped
from training.maths_samples import right
from training.maths_sentence_verifier import DATA
from training.precision import training_precision


@dataclass(frozen=True)
class Labelled:
    """Token ids, and a target for each token; NaN where there is none."""

    ids: tuple[int, ...]
    targets: tuple[float, ...]


def labelled(problem: Sampled, encoded: Callable[[str], list[int]], early: float, rng: np.random.Generator, most: int) -> list[Labelled]:
    """The samples of a problem, and a share `early` of them cut after a step, with the result there as the answer.

    Args:
        encoded: the tokens of a prompt or of a line. most: tokens; longer ones are left out.
    """
    shares = shares_right(problem)
    head = encoded(prompt(problem.question))
    nothing = float("nan")
    found = []
    for text, _, _ in problem.samples:
        lines = text.splitlines(keepends=True)
        pieces = [encoded(line) for line in lines]
        targets, so_far = [nothing] * len(head), ""
        for line, piece in zip(lines, pieces, strict=True):
            so_far += line
            targets += [shares[so_far][0]] * len(piece)
        found.append(Labelled((*head, *itertools.chain(*pieces)), tuple(targets)))
        if rng.random() < early and len(lines) > 2:
            kept = int(rng.integers(1, len(lines) - 1))
            before = "".join(lines[:kept])
            if (cut := stopped(before)) is not None:
                last = encoded(cut[len(before) :])
                ids = (*head, *itertools.chain(*pieces[:kept]), *last)
                ahead = (nothing,) * (len(ids) - len(last))
                found.append(Labelled(ids, ahead + (float(right(cut, problem.answer)),) * len(last)))
    return [example for example in found if len(example.ids) <= most]


def whole(problem: Sampled, encoded: Callable[[str], list[int]]) -> list[Labelled]:
    """The samples of a problem in their order, judged at their last token only."""
    head = encoded(prompt(problem.question))
    found = []
    for text, _, good in problem.samples:
        ids = (*head, *itertools.chain(*(encoded(line) for line in text.splitlines(keepends=True))))
        found.append(Labelled(ids, (float("nan"),) * (len(ids) - 1) + (float(good),)))
    return found


def line_tokens(tokenizer: Any, problems: Sequence[Sampled]) -> Callable[[str], list[int]]:
    """The tokens of prompts and lines: of all that these problems hold made at once, of others when they are met."""
    texts = {prompt(problem.question) for problem in problems}
    texts |= {line for problem in problems for text, _, _ in problem.samples for line in text.splitlines(keepends=True)}
    ordered = sorted(texts)
    known = dict(zip(ordered, tokenizer(ordered, add_special_tokens=False)["input_ids"], strict=True)) if ordered else {}

    def encoded(text: str) -> list[int]:
        if text not in known:
            known[text] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return known[text]

    return encoded


def padded(examples: Sequence[Labelled]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T) ids, the N places among the B * T states that are judged, and their (N,) float32 targets; all on the processor."""
    longest = max(len(example.ids) for example in examples)
    ids = np.zeros((len(examples), longest), dtype=np.int64)
    targets = np.full((len(examples), longest), np.nan, dtype=np.float32)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        targets[row, : len(example.ids)] = example.targets
    places = np.flatnonzero(~np.isnan(targets))
    return torch.from_numpy(ids), torch.from_numpy(places), torch.from_numpy(targets.reshape(-1)[places])


def judgements(model: Any, head: nn.Linear, ids: Tensor, places: Tensor) -> Tensor:
    """(N,) float32 log-odds that the solution is right, at these places."""
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
    return head(states[places].float()).squeeze(1)


@torch.inference_mode()
def quick_figures(model: Any, head: nn.Linear, problems: Sequence[Sampled], encoded: Callable[[str], list[int]]) -> dict[str, float]:
    """`held_out_figures` of these problems, computed in batches on the model's device."""
    examples = [
        (problem.number, text, example)
        for problem in problems
        for (text, _, _), example in zip(problem.samples, whole(problem, encoded), strict=True)
    ]
    examples.sort(key=lambda entry: len(entry[2].ids))
    energies: dict[tuple[int, str], float] = {}
    group = MICRO if model.device.type == "cpu" else 64
    for start in range(0, len(examples), group):
        part = examples[start : start + group]
        ids, places, _ = padded([example for _, _, example in part])
        found = functional.softplus(-judgements(model, head, ids.to(model.device), places.to(model.device))).tolist()
        energies |= {(number, text): energy for (number, text, _), energy in zip(part, found, strict=True)}
    return held_out_figures(energies, problems)


def evaluated(adapter: Path, weights: Path, problems: list[Sampled], model: Path | None = None) -> dict[str, float]:
    """Figures on held-out problems, by the scorer that the product uses."""
    scorer = HiddenStateVerifier(LanguageModel(model, adapter=adapter, pack=False), weights)
    energies: dict[tuple[int, str], float] = {}
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
    parser.add_argument("--model", type=Path, default=None, help="folder in transformers' format; default: the embedded model")
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of wall-clock time: ends by then, the rate falls accordingly")
    parser.add_argument("--per-step", type=int, default=16, help="sequences of an optimiser step")
    parser.add_argument("--evaluate-only", action="store_true", help="take the weights in --work, measure, and write the card")
    parser.add_argument("--no-evaluation", action="store_true", help="leave that out, for a later --evaluate-only")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--layers", type=int, default=12, help="upper layers that are tuned")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--early", type=float, default=0.4, help="share of samples that are also shown cut after a step")
    parser.add_argument("--longest", type=int, default=400, help="tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=300, help="seconds")
    options = parser.parse_args()
    begun = time.time()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    weights = options.work / "maths-hidden-verifier.safetensors"
    problems = sampled(options.samples)
    if options.evaluate_only:
        describe(options, weights, problems)
        return
    device = torch.device(options.device)
    attention = "eager" if device.type == "cpu" else "sdpa"
    model, tokenizer = load_causal(options.model or embedded_language_model(), torch.float32, attention=attention)
    merge_adapter(model, options.adapter)
    round_weights(model, training_precision(device))
    layers = int(model.config.num_hidden_layers)
    upper = "|".join(str(layer) for layer in range(max(0, layers - options.layers), layers))
    add_low_rank(model, options.rank, 2.0 * options.rank, within=rf"\.layers\.({upper})\.")
    model.to(device)
    head = nn.Linear(int(model.config.hidden_size), 1).to(device)
    nn.init.zeros_(head.weight)
    trained = {f"{name}.{part}": getattr(layer, part) for name, layer in low_rank_layers(model) for part in ("down", "up")}
    trained |= {f"head.{name}": parameter for name, parameter in head.named_parameters()}
    optimiser = torch.optim.AdamW(trained.values(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")
    rng = np.random.default_rng([options.seed, 31])
    learnt = [problem for problem in problems if not problem.held_out]
    encoded = line_tokens(tokenizer, problems)
    examples = list(itertools.chain(*(labelled(problem, encoded, options.early, rng, options.longest) for problem in learnt)))
    lengths = [len(example.ids) for example in examples]
    plan: list[list[list[int]]] = []
    group, micro = 4 * options.per_step, min(MICRO, options.per_step) if device.type == "cpu" else options.per_step
    if len(examples) < group:
        raise ValueError(f"{len(examples)} examples of {len(learnt)} problems; allowed: at least {group} ({options.per_step} a step)")
    while len(plan) < options.epochs * (len(examples) // group) * 4:
        plan += steps_of_epoch(lengths, rng, group, options.per_step, micro)
    plan = plan[: max(1, round(options.epochs * (len(examples) // group) * 4))]
    print(f"{len(examples)} examples of {len(learnt)} problems, {len(plan)} steps, {sum(lengths)} tokens an epoch", flush=True)
    state, done, before = options.work / "state.safetensors", 0, 0.0
    if state.exists():
        with safe_open(state, framework="pt") as file:
            done, before = json.loads(file.metadata()["position"])
            for name, parameter in trained.items():
                parameter.data.copy_(file.get_tensor(name))
                moments = {m: file.get_tensor(f"{name}.{m}").to(device) for m in ("exp_avg", "exp_avg_sq")}
                optimiser.state[parameter] = {"step": torch.tensor(float(done), device=device), **moments}
    started = saved = time.time()
    shown, halfway = 0.0, False
    losses: list[Tensor] = []
    with (options.work / "log.jsonl").open("a") as log:
        for index in range(done, len(plan)):
            progress = max(index / len(plan), (time.time() - begun) / options.seconds)
            last = index + 1 == len(plan) or progress >= 1
            rate = options.rate * min(1.0, (index + 1) / 50) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
            for settings in optimiser.param_groups:
                settings["lr"] = rate
            batches = [padded(part) for rows in plan[index] for part in fitting([examples[row] for row in rows], device)]
            judged = sum(len(targets) for _, _, targets in batches)
            total = torch.zeros((), device=device)
            for batch in batches:
                ids, places, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
                odds = judgements(model, head, ids, places)
                loss = functional.binary_cross_entropy_with_logits(odds, targets, reduction="sum") / judged
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(total)
            seconds = before + time.time() - started
            if (index + 1) % 10 == 0 or last:
                mean = float(torch.stack(losses).mean())
                entry: dict[str, Any] = {"step": index + 1, "of": len(plan), "loss": round(mean, 4), "seconds": round(seconds, 1)}
                losses.clear()
                print(json.dumps(entry), file=log, flush=True)
                if last or time.time() - shown > 10:
                    print(json.dumps(entry), flush=True)
                    shown = time.time()
            if time.time() - saved > options.save_every or last or (progress >= 0.6 and not halfway):
                halfway = progress >= 0.6
                tensors = {name: parameter.detach().contiguous() for name, parameter in trained.items()}
                for name, parameter in trained.items():
                    tensors |= {f"{name}.{moment}": optimiser.state[parameter][moment] for moment in ("exp_avg", "exp_avg_sq")}
                save_file(tensors, state.with_suffix(".part"), metadata={"position": json.dumps([index + 1, seconds])})
                os.replace(state.with_suffix(".part"), state)
                more = {"head.weight": head.weight.detach()[0].contiguous(), "head.bias": head.bias.detach()}
                save_adapter(model, weights, more=more)
                done, before = index + 1, seconds
                saved = started = time.time()
            if last:
                break
    training = {"problems": len(learnt), "examples": len(examples), "steps": done, "seconds": round(before), "seed": options.seed}
    (options.work / "training.json").write_text(json.dumps(training) + "\n")
    held_out = [problem for problem in problems if problem.held_out]
    print(f"held out, roughly (in batches): {quick_figures(model, head, held_out, encoded)}", flush=True)
    if not options.no_evaluation:
        describe(options, weights, problems)


def describe(options: argparse.Namespace, weights: Path, problems: list[Sampled]) -> None:
    """Measure the weights on held-out problems, as the product uses them, and write the card beside them."""
    figures = evaluated(options.adapter, weights, [problem for problem in problems if problem.held_out], options.model)
    print(figures, flush=True)
    write_card(
        weights,
        "verifier",
        f"SmolLM2-135M-Instruct, maths-adapter, low-rank adapter (rank {options.rank}) of the upper {options.layers} layers, linear head",
        f"python -m training.maths_hidden_verifier --samples SAMPLES --adapter ADAPTER --work WORK --epochs {options.epochs}",
        figures,
        json.loads((options.work / "training.json").read_text()),
        DATA,
        "Word problems like GSM8K's, in steps as the generator writes them. A small model: it misses what needs knowledge of the world.",
    )


if __name__ == "__main__":
    main()
