"""Fine-tune the generator itself into a verifier: a low-rank adapter of its upper layers and a linear head on its last state.

    python -m training.maths_hidden_verifier --samples runs/maths/samples.jsonl --adapter runs/maths/adapter.safetensors --work runs/v

The head judges at every token of a step, as in Cobbe et al., arXiv 2110.14168: the target is the share of samples with that beginning that
were right, or for next steps (`maths_samples.py --next-steps`) whether that one is. Besides, of the samples of one problem the right ones
are to have the highest odds: only that counts where proposals for one problem are compared. Saved every few minutes; the same command goes
on. With `--begin`, it starts from the weights of an earlier training, such as one on fewer samples, or from the mean of several
of one descent: trained on from the same weights, or one from another (Wortsman et al., "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pcm_ros.models.causal_loading import embedded_language_model, load_causal, round_weights
from pcm_ros.models.eight_bit_linear import use_eight_bits
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import load_safetensors
from pcm_ros.models.low_rank import add_low_rank, additions, merge_adapter, save_adapter
from pcm_ros.tasks.mathematics.notation import EXAMPLES, prompt
from pcm_ros.tasks.mathematics.verifiers import HiddenStateVerifier
from training.card import write_card
from training.learning_rate import set_learning_rate
from training.maths_adapter import MICRO, fitting, steps_of_epoch
from training.maths_labels import Sampled, energies_by, held_out_figures, sampled
from training.maths_sentence_verifier import DATA
from training.maths_trees import Padded, Tree, early_ends, padded, sample_branches, trees, trunk_of, verifier_loss
from training.precision import training_precision, typical_inputs

SETTINGS = ("epochs", "layers", "rank", "rate", "per_step", "early", "ranking", "seed")
LONGEST_TREE = 640  # tokens of a sequence that holds several samples


def line_tokens(tokenizer: Any, problems: Sequence[Sampled]) -> Callable[[str], list[int]]:
    """The tokens of prompts and lines: of all that these problems hold made at once, of others when they are met."""
    texts = {prompt(problem.question) for problem in problems}
    written = [text for problem in problems for text in (problem.before, *(sample for sample, _, _ in problem.samples))]
    texts |= {line for text in written for line in text.splitlines(keepends=True)}
    ordered = sorted(texts)
    known = dict(zip(ordered, tokenizer(ordered, add_special_tokens=False)["input_ids"], strict=True)) if ordered else {}

    def encoded(text: str) -> list[int]:
        if text not in known:
            known[text] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return known[text]

    return encoded


def judgements(model: Any, head: nn.Linear, batch: Padded) -> Tensor:
    """(B * T,) float32 log-odds that the text up to each token is right, or on the way."""
    found = model.base_model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False)
    return head(found.last_hidden_state.flatten(0, 1).float()).squeeze(1)


@torch.no_grad()
def begin_from(files: Sequence[Path], model: Any, head: nn.Linear) -> None:
    """Put the weights of earlier trainings, the mean of them, into the low-rank layers and the head.

    Nothing is put there where one cannot be used.

    Raises:
        ModelUnavailable: one is missing or damaged.
        ValueError: one is of other layers, or of another rank.
    """
    wanted: dict[str, Tensor] = {**additions(model), "head.weight": head.weight[0], "head.bias": head.bias}
    earlier: list[dict[str, Tensor]] = []
    for file in files:
        earlier.append(load_safetensors(file))
        if {name: tensor.shape for name, tensor in earlier[-1].items()} != {name: tensor.shape for name, tensor in wanted.items()}:
            raise ValueError(f"'{file}' is of other layers or another rank; remedy: --layers and --rank as its card says")
    for name, tensor in wanted.items():
        tensor.copy_(torch.stack([tensors[name] for tensors in earlier]).mean(0))


def evaluated(adapter: Path, weights: Path, problems: list[Sampled], model: Path | None = None) -> dict[str, float]:
    """Figures on held-out problems, by the scorer that the product uses."""
    scorer = HiddenStateVerifier(LanguageModel(model, adapter=adapter, pack=False, typical=EXAMPLES), weights)
    return held_out_figures(energies_by(scorer, problems), problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, nargs="+", help="made by training/maths_samples.py: solutions, next steps")
    parser.add_argument("--worked", type=Path, help="GSM8K's train.jsonl: partial solutions are judged by its solutions too")
    parser.add_argument("--adapter", type=Path, required=True, help="the generator's")
    parser.add_argument("--work", type=Path, required=True, help="folder of the state, the log and maths-hidden-verifier.safetensors")
    parser.add_argument("--model", type=Path, default=None, help="folder in transformers' format; default: the embedded model")
    parser.add_argument(
        "--begin", type=Path, nargs="+", help="weights to start from, the mean of them, of the same rank and layers; default: the generator"
    )
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of wall-clock time: ends by then, the rate falls accordingly")
    parser.add_argument("--per-step", type=int, default=8, help="problems of an optimiser step, about")
    parser.add_argument("--evaluate-only", action="store_true", help="take the weights in --work, measure, and write the card")
    parser.add_argument("--no-evaluation", action="store_true", help="leave that out, for a later --evaluate-only")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--layers", type=int, default=12, help="upper layers that are tuned")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--early", type=float, default=0.4, help="share of samples that are also shown cut after a step")
    parser.add_argument("--ranking", type=float, default=1.0, help="weight of ranking the samples of a problem, beside cross-entropy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=300, help="seconds")
    options = parser.parse_args()
    begun = time.time()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    weights = options.work / "maths-hidden-verifier.safetensors"
    problems = sampled(options.samples, options.worked)
    if options.evaluate_only:
        describe(options, weights, problems)
        return
    device = torch.device(options.device)
    attention = "eager" if device.type == "cpu" else "sdpa"
    model, tokenizer = load_causal(options.model or embedded_language_model(), torch.float32, attention=attention)
    merge_adapter(model, options.adapter)
    round_weights(model, training_precision(device))
    layers = int(model.config.num_hidden_layers)
    frozen = max(0, layers - options.layers)
    if typical := typical_inputs(model, tokenizer, device):  # as the product computes them
        lower = tuple(f"model.layers.{layer}." for layer in range(frozen))
        use_eight_bits(model, typical.of([name for name in typical.last if name.startswith(lower)]))
    upper = "|".join(str(layer) for layer in range(frozen, layers))
    add_low_rank(model, options.rank, 2.0 * options.rank, within=rf"\.layers\.({upper})\.")
    model.to(device)
    head = nn.Linear(int(model.config.hidden_size), 1).to(device)
    nn.init.zeros_(head.weight)
    if options.begin:
        begin_from(options.begin, model, head)
    trained = additions(model)
    trained |= {f"head.{name}": parameter for name, parameter in head.named_parameters()}
    optimiser = torch.optim.AdamW(trained.values(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda")
    rng = np.random.default_rng([options.seed, 31])
    learnt = [problem for problem in problems if not problem.held_out]
    encoded = line_tokens(tokenizer, learnt)
    examples: list[Tree] = []
    for problem in learnt:
        cut = [] if problem.steps else early_ends(problem, encoded, options.early, rng)
        branches = [*sample_branches(problem, encoded), *cut]
        mixed = [branches[number] for number in rng.permutation(len(branches)).tolist()]  # right and wrong ones in the same trees
        examples += trees(trunk_of(problem, encoded), mixed, LONGEST_TREE)
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
    earlier = before
    shown, halfway = 0.0, False
    losses: list[Tensor] = []
    with (options.work / "log.jsonl").open("a") as log:
        for index in range(done, len(plan)):
            progress = max(index / len(plan), (earlier + time.time() - begun) / options.seconds)
            last = index + 1 == len(plan) or progress >= 1
            set_learning_rate(optimiser, options.rate, index, progress, warm_up=50, lowest=0.03)
            batches = [padded(part) for rows in plan[index] for part in fitting([examples[row] for row in rows], device)]
            judged, shared = sum(len(batch.places) for batch in batches), sum(len(batch.ids) for batch in batches)
            total = torch.zeros((), device=device)
            for batch in batches:
                there = batch.to(device)
                plain, ranked = verifier_loss(judgements(model, head, there), there)
                loss = plain / judged + options.ranking * ranked / shared
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
    made = {"command": command(options), "rank": options.rank, "layers": options.layers, "training": training}
    (options.work / "training.json").write_text(json.dumps(made) + "\n")
    if not options.no_evaluation:
        describe(options, weights, problems)


def command(options: argparse.Namespace) -> str:
    """The command that trains such weights, with what decides how they come out."""
    worked = " --worked gsm8k/train.jsonl" if options.worked else ""
    ended = f" --seconds {options.seconds:g}" if math.isfinite(options.seconds) else ""
    begun = " --begin" + " BEGUN" * len(options.begin) if options.begin else ""
    kept = " ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in SETTINGS)
    return f"python -m training.maths_hidden_verifier --samples SAMPLES{worked} --adapter ADAPTER --work WORK{begun} {kept}{ended}"


def describe(options: argparse.Namespace, weights: Path, problems: list[Sampled]) -> None:
    """Measure the weights on held-out problems, as the product uses them, and write the card beside them."""
    figures = evaluated(options.adapter, weights, [problem for problem in problems if problem.held_out], options.model)
    print(figures, flush=True)
    made = json.loads((options.work / "training.json").read_text())  # what the training was called with, not this call
    write_card(
        weights,
        "verifier",
        f"SmolLM2-135M-Instruct, maths-adapter, low-rank adapter (rank {made['rank']}) of the upper {made['layers']} layers, linear head",
        made["command"],
        figures,
        made["training"],
        DATA,
        "Word problems like GSM8K's, in steps as the generator writes them. A small model: it misses what needs knowledge of the world.",
    )


if __name__ == "__main__":
    main()
