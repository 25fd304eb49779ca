"""Draw solutions of training problems from the tuned generator and label them by their answers: what verifiers are trained on.

    python -m training.maths_samples --data gsm8k/train.jsonl --adapter runs/maths/adapter.safetensors --out runs/maths/samples.jsonl

One line of JSON for each problem: where it comes from, the question, the answer, and the distinct samples with how often each was drawn.
Problems come in a fixed order: first those that the adapter was not trained on, then the others of GSM8K's train split mixed with
generated ones. The same command goes on behind the last whole line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from pcm_ros.consensus import mixed_seed
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics.arithmetic import calculator, evaluate, final_answer
from pcm_ros.tasks.mathematics.notation import ANSWER, prompt
from training.maths_adapter import HELD_OUT
from training.maths_problems import make_problem

MOST_STEPS = 10
LONGEST_STEP = 80


@dataclass(frozen=True)
class Labelled:
    """A problem and its answer; held_out = the adapter was not trained on it (generated ones are always new)."""

    source: str
    index: int
    question: str
    answer: str
    held_out: bool


def problems(path: Path, generated: float, seed: int) -> Iterator[Labelled]:
    """All problems in their order; `generated` = share of generated ones."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    recorded = [
        Labelled("gsm8k", row, line["question"], line["answer"].rpartition("####")[2].strip(), False) for row, line in enumerate(lines)
    ]
    rng = np.random.default_rng([seed, 4242])
    order = [*range(len(recorded) - HELD_OUT, len(recorded)), *rng.permutation(len(recorded) - HELD_OUT).tolist()]
    made = 0
    for place, row in enumerate(order):
        while made < (place + 1) * generated / (1 - generated):
            new = make_problem(rng)
            yield Labelled("generated", made, new.question, str(new.answer), place < HELD_OUT)
            made += 1
        held_out = row >= len(recorded) - HELD_OUT
        yield Labelled("gsm8k", row, recorded[row].question, recorded[row].answer, held_out)


def drawn(
    model: LanguageModel, questions: Sequence[str], count: int, temperature: float, rng: torch.Generator
) -> list[tuple[Counter[str], dict[str, tuple[float, int]]]]:
    """For each question: how often each solution was drawn, and each one's log-likelihood (nats) and tokens."""
    branches = model.read([model.encode(prompt(question)) for question in questions])
    rows = [row for row in range(len(questions)) for _ in range(count)]
    owners, texts = list(rows), [""] * len(rows)
    scores = [(0.0, 0)] * len(rows)
    results: list[tuple[Counter[str], dict[str, tuple[float, int]]]] = [(Counter(), {}) for _ in questions]
    for step in range(MOST_STEPS + 1):
        grown = model.write(branches, rows, [temperature] * len(rows), LONGEST_STEP, rng, filled_in=calculator)
        left = []
        for i, tokens in enumerate(grown.tokens):
            line = model.decode(tokens)
            texts[i] += line.rstrip("\n") + "\n"
            scores[i] = (scores[i][0] + sum(grown.log_likelihoods[i]), scores[i][1] + len(tokens))
            over = grown.ended[i] != "line" or line.startswith(ANSWER.strip()) or not line.strip() or step == MOST_STEPS
            if over:
                results[owners[i]][0][texts[i].strip()] += 1
                results[owners[i]][1][texts[i].strip()] = scores[i]
            else:
                left.append(i)
        if not left:
            break
        branches, rows = grown.branches, left
        owners, texts, scores = [owners[i] for i in left], [texts[i] for i in left], [scores[i] for i in left]
    return results


def right(text: str, answer: str) -> bool:
    """Whether a solution ends with this answer."""
    found = final_answer(text) if ANSWER.strip() in text else None
    return found is not None and abs(found - evaluate(answer)) < Fraction(1, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8, help="samples a problem")
    parser.add_argument("--problems", type=int, default=4000, help="problems at most")
    parser.add_argument("--together", type=int, default=8, help="problems whose samples go through the model together")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--generated", type=float, default=0.4, help="share of generated problems")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    todo = [problem for problem, _ in zip(problems(options.data, options.generated, options.seed), range(options.problems), strict=False)]
    written = options.out.read_bytes() if options.out.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    done = whole.count(b"\n") // options.together * options.together  # a batch is drawn as one, from one seed
    whole = b"".join(line + b"\n" for line in whole.split(b"\n")[:done])
    options.out.write_bytes(whole)
    model = LanguageModel(adapter=options.adapter)
    started, tokens, hits = time.time(), 0, []
    with options.out.open("a") as out:
        for first in range(done, len(todo), options.together):
            part = todo[first : first + options.together]
            rng = torch.Generator().manual_seed(mixed_seed(options.seed, first))
            found = drawn(model, [problem.question for problem in part], options.count, options.temperature, rng)
            for problem, (counts, scores) in zip(part, found, strict=True):
                samples = [
                    {
                        "text": text,
                        "count": count,
                        "right": right(text, problem.answer),
                        "likelihood": scores[text][0],
                        "tokens": scores[text][1],
                    }
                    for text, count in counts.items()
                ]
                tokens += sum(sample["tokens"] * sample["count"] for sample in samples)
                hits.append(sum(sample["count"] for sample in samples if sample["right"]) / options.count)
                out.write(json.dumps(asdict(problem) | {"samples": samples}) + "\n")
            out.flush()
            if first // options.together % 10 == 0:
                pace = tokens / (time.time() - started)
                print(f"{first + len(part)} of {len(todo)}, right {np.mean(hits[-400:]):.3f}, {pace:.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
