"""What eight-bit integers change for the word problems' generator: how well it knows worked solutions, and how fast it writes and reads.

Quality is compared with float32, speed with what the processor is fast in without them, float32 or bfloat16.

python benchmarks/eight_bits.py --data gsm8k/train.jsonl             # the last 60 problems, which the adapter was not trained on
python benchmarks/eight_bits.py --data gsm8k/train.jsonl --limit 300 --json eight_bits.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from pcm_ros.benchmarks.word_problems import SOURCES
from pcm_ros.evidence import mean, ratio
from pcm_ros.models.eight_bit_linear import fast_in_eight_bits
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import fast_precision, set_threads
from pcm_ros.tasks.mathematics.assembly import shipped_adapter
from pcm_ros.tasks.mathematics.notation import EXAMPLES, compact, prompt

ROWS, TOKENS, TURNS = 20, 24, 4  # lines that are written at the same time, their length, and how often each model writes them
READ = 8  # solutions that are read at the same time


def nats_per_token(model: LanguageModel, question: str, solution: str) -> float:
    """Minus the mean log-likelihood of the solution's tokens."""
    _, (found,) = model.feed(model.read([model.encode(prompt(question))]), [0], [model.encode(solution)])
    return -sum(found) / len(found)


def writing_seconds(model: LanguageModel, question: str, seed: int) -> float:
    """For a token of all rows."""
    start = model.read([model.encode(prompt(question))])
    begun = time.perf_counter()
    grown = model.write(start, [0] * ROWS, [0.7] * ROWS, TOKENS, torch.Generator().manual_seed(seed))
    return (time.perf_counter() - begun) / max(map(len, grown.tokens))


def reading_seconds(model: LanguageModel, question: str, solution: str) -> float:
    """For the solution behind the question, in several rows at once, as the experts read."""
    start, rows = model.read([model.encode(prompt(question))]), [model.encode(solution)] * READ
    begun = time.perf_counter()
    model.feed(start, [0] * READ, rows, scored=False)
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--limit", type=int, default=60, help="problems, the last ones of the file")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    if not fast_in_eight_bits():
        print("error: this processor has no VNNI, so eight-bit integers are not used on it", file=sys.stderr)
        return 2
    if not options.data.is_file():
        parser.error(f"--data: '{options.data}' does not exist; {SOURCES}")
    if options.limit < 2:
        parser.error(f"--limit is {options.limit}; allowed: >= 2")
    lines = [json.loads(line) for line in options.data.read_text().splitlines()][-options.limit :]
    set_threads()
    adapter = shipped_adapter()
    exact = LanguageModel(None, adapter, torch.float32)
    rounded = LanguageModel(None, adapter, torch.float32, typical=EXAMPLES)
    quick = exact if fast_precision() == torch.float32 else LanguageModel(None, adapter)
    figures: dict[str, list[float]] = {"exact": [], "rounded": []}
    for number, line in enumerate(lines, start=1):
        for name, model in (("exact", exact), ("rounded", rounded)):
            figures[name].append(nats_per_token(model, line["question"], compact(line["answer"])))
        print(f"\r{number} of {len(lines)} problems", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    turns = list(enumerate(lines[:TURNS] * 2))
    written = [[writing_seconds(model, line["question"], turn) for model in (quick, rounded)] for turn, line in turns][1:]
    read = [[reading_seconds(model, line["question"], compact(line["answer"])) for model in (quick, rounded)] for _, line in turns][1:]
    results = {
        "nats_per_token.float32": mean(figures["exact"]),
        "nats_per_token.eight_bits": mean(figures["rounded"]),
        "nats_per_token.difference": mean([b - a for a, b in zip(figures["exact"], figures["rounded"], strict=True)]),
        f"writing: {_name(quick)} / eight bits, seconds": ratio([a for a, _ in written], [b for _, b in written]),
        f"reading: {_name(quick)} / eight bits, seconds": ratio([a for a, _ in read], [b for _, b in read]),
    }
    for name, found in results.items():
        print(f"{name:40} {found.value:.4f} ({found.low:.4f} to {found.high:.4f}, n = {found.n})")
    if options.json:
        plain = {name: found.as_json() for name, found in results.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 0


def _name(model: LanguageModel) -> str:
    return str(model.dtype).removeprefix("torch.")


if __name__ == "__main__":
    sys.exit(main())
