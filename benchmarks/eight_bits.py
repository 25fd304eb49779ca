"""What eight-bit integers change for the word problems' generator: how well it knows worked solutions, and how fast it writes.

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
    if fast_precision() != torch.float32:
        print("note: this processor is fast in bfloat16: the product computes in that on it, in neither of these two", file=sys.stderr)
    lines = [json.loads(line) for line in options.data.read_text().splitlines()][-options.limit :]
    set_threads()
    adapter = shipped_adapter()
    exact = LanguageModel(None, adapter, torch.float32)
    rounded = LanguageModel(None, adapter, torch.float32, typical=EXAMPLES)
    figures: dict[str, list[float]] = {"exact": [], "rounded": []}
    for number, line in enumerate(lines, start=1):
        for name, model in (("exact", exact), ("rounded", rounded)):
            figures[name].append(nats_per_token(model, line["question"], compact(line["answer"])))
        print(f"\r{number} of {len(lines)} problems", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    pairs = [
        (writing_seconds(exact, line["question"], turn), writing_seconds(rounded, line["question"], turn))
        for turn, line in enumerate(lines[:TURNS] * 2)
    ][1:]  # the first one warms up
    results = {
        "nats_per_token.float32": mean(figures["exact"]),
        "nats_per_token.eight_bits": mean(figures["rounded"]),
        "nats_per_token.difference": mean([b - a for a, b in zip(figures["exact"], figures["rounded"], strict=True)]),
        "writing: float32 / eight bits, seconds": ratio([a for a, _ in pairs], [b for _, b in pairs]),
    }
    for name, found in results.items():
        print(f"{name:40} {found.value:.4f} ({found.low:.4f} to {found.high:.4f}, n = {found.n})")
    if options.json:
        plain = {name: found.as_json() for name, found in results.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
