"""Draw solutions of training problems from the tuned generator and label them by their answers: what verifiers are trained on.

    python -m training.maths_samples --data gsm8k/train.jsonl --adapter runs/maths/adapter.safetensors --out runs/maths/samples.jsonl

One line of JSON for each problem: where it comes from, the question, the answer, and the distinct samples with how often each was drawn.
Problems are begun in a fixed order, so that the first ones are a fair sample: those that the adapter was not trained on, then the others of
GSM8K's train split mixed with generated ones. The same command goes on with the problems that the file does not hold yet. Two cores are
used by two processes (`--part 1/2`, `--part 2/2`), whose files are then joined by `cat`.

With `--stories` the problems are of stories that the adapter does not know (`maths_stories.py`), and no data are needed.

With `--next-steps` only one step is drawn, behind a beginning of the problem's worked solution (`before` in the file): where whole samples
of hard problems are nearly all wrong, of these steps many are right, and right and wrong ones differ in nothing else. Right: its
results are among those that the worked solution still has to come to; an answer: it is the problem's. Steps without a result are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcm_ros.consensus import mixed_seed
from pcm_ros.models.causal_loading import embedded_language_model, load_causal, round_weights
from pcm_ros.models.low_rank import merge_adapter
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.arithmetic import evaluate
from pcm_ros.tasks.mathematics.equations import results_of
from pcm_ros.tasks.mathematics.notation import ANSWER, compact, prompt
from training.maths_adapter import HELD_OUT
from training.maths_drawing import LONGEST_STEP, MOST_STEPS, Drawing, Solutions
from training.maths_problems import make_problem
from training.maths_stories import story_problem
from training.precision import training_precision, typical_inputs

NEXT_STEPS = "steps"
"""Ends the source of problems of which the next step was drawn."""


@dataclass(frozen=True)
class Labelled:
    """A problem and its answer; held_out = the adapter was not trained on it (generated ones are always new).

    before: what is written already, whole lines.
    """

    source: str
    index: int
    question: str
    answer: str
    held_out: bool
    before: str = ""


def problems(path: Path, generated: float, seed: int, held_out: int = HELD_OUT) -> Iterator[Labelled]:
    """All problems in their order; `generated` = share of generated ones, `held_out` = how many of the file's last ones come first."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    recorded = [
        Labelled("gsm8k", row, line["question"], line["answer"].rpartition("####")[2].strip(), False) for row, line in enumerate(lines)
    ]
    rng = np.random.default_rng([seed, 4242])
    learnt = len(recorded) - held_out
    order = [*range(learnt, len(recorded)), *rng.permutation(learnt).tolist()]
    made = 0
    for place, row in enumerate(order):
        while made < (place + 1) * generated / (1 - generated):
            new = make_problem(rng)
            yield Labelled("generated", made, new.question, str(new.answer), place < held_out)
            made += 1
        yield Labelled("gsm8k", row, recorded[row].question, recorded[row].answer, row >= learnt)


def story_problems(seed: int) -> Iterator[Labelled]:
    """Problems of stories that the adapter does not know, without end; held_out = of stories kept for measuring."""
    rng = np.random.default_rng([seed, 5151])
    for number in count():
        new = story_problem(rng)
        yield Labelled("stories", number, new.question, str(new.answer), new.held_out)


def right(text: str, answer: str) -> bool:
    """Whether a solution ends with this answer."""
    found = final_answer(text) if ANSWER.strip() in text else None
    return found is not None and abs(found - evaluate(answer)) < Fraction(1, 1000)


def right_step(step: str, before: str, worked: str) -> bool | None:
    """Whether a step leads on from a beginning of a worked solution to its answer; None = it has no result to judge by."""
    if step.startswith(ANSWER.strip()):
        return right(step, worked.rpartition(ANSWER.strip())[2].strip())
    if not (results := Counter(results_of(step))):
        return None
    return results <= Counter(results_of(worked)) - Counter(results_of(before))  # two steps may come to the same number


def begun(problem: Labelled, worked: str, rng: np.random.Generator) -> Labelled:
    """The problem with so many of the worked solution's steps, none and all of them included."""
    steps = worked.splitlines(keepends=True)[:-1]
    return replace(problem, source=f"{problem.source} {NEXT_STEPS}", before="".join(steps[: rng.integers(len(steps) + 1)]))


def line_of(problem: Labelled, found: Solutions, judged: Callable[[str], bool | None]) -> dict[str, Any]:
    """What the file says of a problem. judged: of a text that was drawn; what it does not know is left out."""
    samples = [
        {
            "text": text,
            "count": count,
            "right": verdict,
            "likelihood": round(found.scores[text][0], 4),
            "tokens": found.scores[text][1],
        }
        for text, count in found.counts.items()
        if text and (verdict := judged(text)) is not None
    ]
    return asdict(problem) | {"samples": samples}


def part_of(problem: Labelled) -> str:
    """The words under which shares are reported; generated problems and stories are always new to the adapter."""
    if problem.source in ("generated", "stories"):
        return problem.source
    return f"{problem.source}, {'held out' if problem.held_out else 'trained on'}"


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """What an earlier run left in a file of JSON lines, to go on from; a last line that was cut off is taken out. No file: nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    whole = before[: before.rfind(b"\n") + 1]
    path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def share_of_work(text: str) -> tuple[int, int]:
    """(K, N) of "K/N", 1 <= K <= N."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: K/N with 1 <= K <= N, such as 1/2")
    return int(part), int(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="GSM8K's train.jsonl; needed but with --stories")
    parser.add_argument("--model", type=Path, help="folder in transformers' format; default: the embedded model")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of wall-clock time; problems not done by then are left out")
    parser.add_argument("--count", type=int, default=8, help="samples a problem")
    parser.add_argument("--problems", type=int, default=4000, help="problems at most")
    parser.add_argument("--rows", type=int, default=64, help="drawn at the same time: 64 suit a processor, 1536 a GPU (25 GB)")
    parser.add_argument("--most", type=int, default=320, help="tokens of a solution")
    parser.add_argument("--longest", type=int, default=400, help="tokens of a problem and of what is written; longer ones are left out")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--generated", type=float, default=0.4, help="share of generated problems")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="the last problems of the file, as when the adapter was trained")
    parser.add_argument("--stories", action="store_true", help="problems of stories that the adapter does not know, and no others")
    parser.add_argument("--next-steps", action="store_true", help="one step behind a worked beginning, of GSM8K's problems")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--part",
        type=share_of_work,
        default="1/1",
        help="K/N: the K-th of N processes that share the problems, each with an --out of its own",
    )
    options = parser.parse_args()
    part, parts = options.part
    if options.stories == bool(options.data) or (options.stories and options.next_steps):
        parser.error("either --data is needed, with --next-steps or without, or --stories")
    started = time.monotonic()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device(options.device)
    share = 0.0 if options.next_steps else options.generated
    found = story_problems(options.seed) if options.stories else problems(options.data, share, options.seed, options.held_out)
    todo = list(islice(found, options.problems))[part - 1 :: parts]
    worked: list[str] = []
    if options.next_steps:
        worked = [compact(json.loads(line)["answer"]) for line in options.data.read_text().splitlines()]
        todo = [begun(problem, worked[problem.index], np.random.default_rng([options.seed, 71, problem.index])) for problem in todo]

    def judged(problem: Labelled) -> Callable[[str], bool | None]:
        if options.next_steps:
            return lambda text: right_step(text, problem.before, worked[problem.index])
        return lambda text: right(text, problem.answer)

    done = {(entry["source"], entry["index"]) for entry in whole_lines(options.out)}
    model, tokenizer = load_causal(options.model or embedded_language_model(), torch.float32)
    merge_adapter(model, options.adapter)
    typical = typical_inputs(model, tokenizer, device)
    largest = None if typical is None else typical.largest
    round_weights(model, training_precision(device))
    model.to(device)
    todo = [problem for problem in todo if (problem.source, problem.index) not in done]
    texts = [prompt(problem.question) + problem.before for problem in todo]
    prompts = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    short = [row for row, ids in enumerate(prompts) if len(ids) <= options.longest]
    todo, prompts = [todo[row] for row in short], [prompts[row] for row in short]
    print(f"{len(todo)} problems to draw for, ready after {time.monotonic() - started:.0f} s", flush=True)
    if not todo:
        return
    seed = mixed_seed(options.seed, parts * len(done) + part)
    lines = 1 if options.next_steps else MOST_STEPS + 1
    most = min(options.most, LONGEST_STEP) if options.next_steps else options.most
    drawing = Drawing(
        model, tokenizer, options.count, options.temperature, seed, options.rows, most, max(map(len, prompts)), lines, largest
    )
    hits: defaultdict[str, list[float]] = defaultdict(list)
    first = shown = time.monotonic()
    finished = 0

    def report() -> None:
        seconds = time.monotonic() - first
        shares = ", ".join(f"{part} {np.mean(rows):.4f} (of {len(rows)} problems)" for part, rows in sorted(hits.items()))
        pace = drawing.tokens / max(seconds, 1e-9)
        print(f"{finished} of {len(todo)}, {seconds:.0f} s, {drawing.steps} steps, {pace:.0f} tokens/s, right: {shares}", flush=True)

    with options.out.open("a") as out:
        for number, drawn in drawing.draw(prompts, started + options.seconds):
            entry = line_of(todo[number], drawn, judged(todo[number]))
            hits[part_of(todo[number])].append(sum(sample["count"] for sample in entry["samples"] if sample["right"]) / options.count)
            out.write(json.dumps(entry) + "\n")
            finished += 1
            if time.monotonic() - shown > 10:
                out.flush()
                report()
                shown = time.monotonic()
    report()


if __name__ == "__main__":
    main()
