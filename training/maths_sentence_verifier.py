"""Train the verifier on sentence embeddings and structure features.

python -m training.maths_sentence_verifier --samples runs/maths/samples.jsonl runs/maths/steps.jsonl

Cross-entropy on beginnings, and ranking of the samples of each problem, as in maths_hidden_verifier.py.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from pcm_ros.models.registry import WEIGHTS
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.tasks.mathematics.verifiers import SentenceNetwork, SentenceVerifier, sentence_inputs
from training.card import write_card
from training.learning_rate import set_learning_rate
from training.maths_labels import Sampled, beginnings, energies_by, held_out_figures, ranking_loss, sampled

DATA = (
    "Solutions and steps that the generator (SmolLM2-135M with maths-adapter) drew for problems of GSM8K's train split, generated ones "
    "and problems of stories, and GSM8K's solutions beside copies in which one step is wrong."
)
LIMITS = "Word problems like GSM8K's. It compares topics and counts; it does no sums and does not tell who gives whom."


def sample_inputs(problems: Sequence[Sampled]) -> Tensor:
    """What the network sees of the samples of these problems, in their order."""
    pairs = [(problem.question, problem.before + text) for problem in problems for text, _, _ in problem.samples]
    return sentence_inputs(sentence_encoder(), [question for question, _ in pairs], [text for _, text in pairs], together=True)


def evaluated(network: SentenceNetwork, problems: Sequence[Sampled], inputs: Tensor) -> dict[str, float]:
    """Figures on held-out problems of the last line's judgement, for the log; inputs: their `sample_inputs`."""
    pairs = [(problem, text) for problem in problems for text, _, _ in problem.samples]
    network.eval()
    with torch.inference_mode():
        energies = functional.softplus(-network(inputs)).tolist()
    network.train()
    return held_out_figures({(p.number, text): energy for (p, text), energy in zip(pairs, energies, strict=True)}, problems)


def figures_of(weights: Path, problems: Sequence[Sampled]) -> dict[str, float]:
    """Figures on held-out problems, by the scorer that the product uses."""
    return held_out_figures(energies_by(SentenceVerifier(sentence_encoder(), weights), problems), problems)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, nargs="+", help="made by training/maths_samples.py: solutions, next steps")
    parser.add_argument("--worked", type=Path, help="GSM8K's train.jsonl: partial solutions are judged by its solutions too")
    parser.add_argument("--out", type=Path, default=WEIGHTS / "maths-sentence-verifier.safetensors")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--ranking", type=float, default=1.0, help="weight of ranking the samples of a problem, beside cross-entropy")
    parser.add_argument("--problems", type=int, default=96, help="whose samples are ranked in a step")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(options.seed)
    started = time.time()
    problems = sampled(options.samples, options.worked)
    held_out = [problem for problem in problems if problem.held_out]
    learnt = [beginning for problem in problems if not problem.held_out for beginning in beginnings(problem)]
    texts = [beginning.text for beginning in learnt]
    inputs = sentence_inputs(sentence_encoder(), [beginning.question for beginning in learnt], texts, together=True).half()
    labels = torch.tensor([beginning.right for beginning in learnt])
    weights = torch.tensor([float(beginning.count) for beginning in learnt]).sqrt()
    apart = sample_inputs(held_out)
    print(f"{len(learnt)} beginnings of {len(problems) - len(held_out)} problems, {time.time() - started:.0f} s", flush=True)
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, beginning in enumerate(learnt):
        if beginning.complete or beginning.step:
            rows_of[beginning.problem].append(row)
    mixed = [rows for rows in rows_of.values() if 0 < float(labels[rows].mean()) < 1]
    if not mixed:
        raise ValueError(f"none of {len(rows_of)} problems has right and wrong samples; remedy: draw more samples of more problems")
    network = SentenceNetwork().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=options.decay)
    steps = options.epochs * (len(learnt) // options.batch + 1)
    rng = np.random.default_rng(options.seed)
    for step in range(steps):
        set_learning_rate(optimiser, options.rate, step, step / steps, warm_up=50, lowest=0)
        rows = torch.from_numpy(rng.integers(len(learnt), size=options.batch))
        losses = functional.binary_cross_entropy_with_logits(network(inputs[rows].float()), labels[rows], reduction="none")
        loss = (losses * weights[rows]).sum() / weights[rows].sum()
        chosen = [mixed[k] for k in rng.integers(len(mixed), size=options.problems).tolist()]
        ends = torch.tensor([row for part in chosen for row in part])
        owner = torch.repeat_interleave(torch.tensor(list(map(len, chosen))))
        loss = loss + options.ranking * ranking_loss(network(inputs[ends].float()), labels[ends], owner) / options.problems
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % max(steps // 6, 1) == 0 or step + 1 == steps:
            print(
                f"step {step + 1} of {steps}, loss {float(loss.detach()):.4f}, held out {evaluated(network, held_out, apart)}", flush=True
            )
    worked = " --worked gsm8k/train.jsonl" if options.worked else ""
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, options.out)
    write_card(
        options.out,
        "verifier",
        "pcm_ros.tasks.mathematics.verifiers.SentenceNetwork on MiniLM embeddings and counts",
        f"python -m training.maths_sentence_verifier --samples SAMPLES{worked} --epochs {options.epochs} --seed {options.seed}",
        figures_of(options.out, held_out),
        {"problems": len(problems) - len(held_out), "beginnings": len(learnt), "minutes": round((time.time() - started) / 60, 1)},
        DATA,
        LIMITS,
    )


if __name__ == "__main__":
    main()
