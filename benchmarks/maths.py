"""Word problems: does the ensemble choose better than the majority and than each scorer, and does consensus solve more than its baselines?

Three modes. `select`: given solutions are ranked, no generator takes part. `solve`: the language model solves, by greedy decoding, by plain
samples and their majority, and by consensus; correct = the final answer is the recorded one. `speed`: tokens a second of batched proposals
with the shared prefix, against reading the whole text again for each.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcm_ros.consensus import mixed_seed
from pcm_ros.evidence import Document, Estimate, mean, paired, rate, ratio, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.arithmetic import NoArithmetic, evaluate
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.scorers import Agreement, GeneratorLikelihood
from pcm_ros.tasks.mathematics.solver import Candidate, Solution, Solver, checked_question

MODES = ("select", "solve", "speed")
MOST_LOTS = 5
"""So many times beam * proposals plain samples are compared with the consensus, at most."""
SOURCES = (
    "remedy: GSM8K is at https://github.com/openai/grade-school-math, SVAMP at https://github.com/arkilpatel/SVAMP (both MIT); one JSON "
    "object a line with `question` and `answer` (a number, or a solution that ends in '#### number'); for select also `solutions` (texts) "
    "and `correct` (true or false each)"
)


@dataclass(frozen=True)
class Item:
    """A problem. solutions and correct: empty unless they are given. seed: of the draws."""

    question: str
    answer: Fraction | None
    solutions: tuple[str, ...]
    correct: tuple[bool, ...]
    seed: int


def read_items(path: Path, mode: str, limit: int | None, seed: int) -> dict[str, Item]:
    """The problems of a file by id; `limit` of them, chosen by the seed.

    Raises:
        ValueError: the file is missing, or a line is not what the mode needs.
    """
    if not path.is_file():
        raise ValueError(f"the data file '{path}' does not exist; {SOURCES}")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    order = np.random.default_rng(seed).permutation(len(lines)).tolist()[:limit]
    items = {}
    for row in sorted(order):
        try:
            data = json.loads(lines[row])
            identity = str(data.get("id", f"{row:05d}"))
            question, given = str(data["question"]), data["answer"]
            solutions = tuple(map(str, data["solutions"])) if mode == "select" else ()
            correct = tuple(map(bool, data["correct"])) if mode == "select" else ()
            answer = recorded_answer(given) if isinstance(given, str) else Fraction(str(given))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"line {row + 1} of '{path}' can't be used ({error!r}); {SOURCES}") from error
        if len(solutions) != len(correct):
            raise ValueError(f"line {row + 1} of '{path}' has {len(solutions)} solutions and {len(correct)} marks; as many are needed")
        if answer is None and mode == "solve":
            raise ValueError(f"line {row + 1} of '{path}' has the answer '{str(given)[:60]}', which ends in no number; {SOURCES}")
        if identity in items:
            raise ValueError(f"line {row + 1} of '{path}' has the id '{identity}' of an earlier line; {SOURCES}")
        items[identity] = Item(question, answer, solutions, correct, mixed_seed(seed, row))
    if not items:
        raise ValueError(f"the data file '{path}' holds no problem; {SOURCES}")
    return items


def recorded_answer(text: str) -> Fraction | None:
    """The answer in a data file: a number or an expression (-3/4, -$5), else what a solution ends in; None if that is no number."""
    try:
        # "50%" is 50, as in what solutions say
        return final_answer(text) if "%" in text else evaluate(text.strip())
    except NoArithmetic:
        return final_answer(text)


def is_right(answer: str | None, expected: Fraction | None) -> bool:
    """Whether an answer is the recorded one: whole numbers exactly, others to half a hundredth, below 1 to half a hundredth of them."""
    value = None if answer is None else final_answer(answer)
    if value is None or expected is None:
        return False
    return value == expected if expected.denominator == 1 else abs(value - expected) <= Fraction(1, 200) * min(Fraction(1), abs(expected))


class _Prepared:
    """The solvers of a configuration; paths in it are texts, "" = none."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        model, adapter, sentence, hidden = (
            Path(config[key]) if config[key] else None for key in ("model", "adapter", "sentence", "hidden")
        )
        self.beam, self.proposals, self.tokens = config["beam"], config["proposals"], config["max_tokens"]
        self.preamble = assembly.preamble(adapter)
        self.generating = assembly.language_model(model, adapter)
        if config["mode"] == "speed":
            return
        experts = assembly.scorers(model, adapter, sentence, hidden)
        if config["mode"] == "select":
            # no generator made the given solutions: it has nothing to say, and is never asked
            self.ensemble = Solver(StepGenerator(self.generating, 1, 1), [expert for expert in experts if expert.name != "generator"])
            return
        count, heat = self.beam * self.proposals, config["temperature"]
        make = functools.partial(StepGenerator, self.generating, preamble=self.preamble)
        self.greedy = Solver(make(1, 1, temperature=0, stop_here=False), [GeneratorLikelihood()], width=1)
        # plain samples: nothing is pruned, and the experts judge what comes of them
        plain = functools.partial(make, each=1, by_votes=True, temperature=heat, stop_here=False)
        self.samples = Solver(plain(count), experts, width=count)
        # more of them that only vote, in lots of `count`: what experts say of them is not asked
        most = min(MOST_LOTS, 1 + assembly.MOST_DRAWS // count)
        self.more_samples = [Solver(plain(count * lots), [Agreement()], width=count * lots) for lots in range(1, most)]
        self.consensus = Solver(make(count, self.proposals, temperature=heat), experts, width=self.beam)
        self.narrow = Solver(make(count, count, temperature=heat), experts, width=1)


def run_one(item: Item, prepared: _Prepared) -> dict[str, Any]:
    """The record of a problem: what each way of answering it is worth, 0..1 (ties are shared), and what it cost."""
    if item.solutions:
        return _select(item, prepared.ensemble)
    if not hasattr(prepared, "greedy"):
        return measure_speed(prepared.generating, prepared.preamble, item, prepared.beam, prepared.proposals)
    return _solve(item, prepared)


def _select(item: Item, ensemble: Solver) -> dict[str, Any]:
    ranking = ensemble.rank(item.question, item.solutions)
    right = [float(mark) for mark in item.correct]
    energies = {name: ranking.table.energies[:, column].tolist() for column, name in enumerate(ranking.table.names)}
    credit = {"random": sum(right) / len(right), "majority": shared(energies["agreement"], right), "any": max(right)}
    credit |= {f"scorer.{name}": shared(values, right) for name, values in energies.items()}
    credit["ensemble"] = shared(list(ranking.totals), right)
    return {"credit": credit, "energies": energies, "totals": list(ranking.totals), "correct": list(item.correct)}


def shared(energies: Sequence[float], worth: Sequence[float], votes: Sequence[float] | None = None) -> float:
    """What taking the least energy is worth: the mean over those that are tied (weighed by votes where there are any)."""
    counts = [1.0] * len(worth) if votes is None else votes
    least = min(energies)
    tied = [row for row, energy in enumerate(energies) if energy <= least + 1e-9]
    mass = sum(counts[row] for row in tied)
    return sum(counts[row] * worth[row] for row in tied) / mass if mass > 0 else sum(worth[row] for row in tied) / len(tied)


def _solve(item: Item, prepared: _Prepared) -> dict[str, Any]:
    ways: dict[str, Callable[[int], Solution]] = {
        name: functools.partial(_timed, solver, item.question, prepared.tokens)
        for name, solver in (("greedy", prepared.greedy), ("ensemble", prepared.consensus), ("beam_1", prepared.narrow))
    }
    found = {name: way(item.seed) for name, way in ways.items()}
    credit = {name: float(is_right(solution.answer, item.answer)) for name, solution in found.items()}
    answers: dict[str, str | None] = {name: solution.answer for name, solution in found.items()}
    cost = {name: (solution.tokens, solution.seconds) for name, solution in found.items()}
    # as many samples as cost about what the consensus did or more, as the first lot's cost tells
    draws = [_timed(prepared.samples, item.question, prepared.tokens, mixed_seed(item.seed, 1))]
    wanted = math.ceil(found["ensemble"].tokens / max(draws[0].tokens, 1))
    if (more := min(wanted - 1, len(prepared.more_samples))) > 0:
        draws.append(_timed(prepared.more_samples[more - 1], item.question, prepared.tokens * more, mixed_seed(item.seed, 2)))
    cost["majority"] = (sum(each.tokens for each in draws), sum(each.seconds for each in draws))
    drawn = (1 + max(more, 0)) * prepared.samples.generator.first
    credit |= of_samples([each.candidates for each in draws], item.answer, drawn)
    return {
        "credit": credit,
        "tokens": {name: count for name, (count, _) in cost.items()},
        "solve_seconds": {name: spent for name, (_, spent) in cost.items()},
        "answers": answers,
        "expected": None if item.answer is None else str(item.answer),
        "samples": drawn,
    }


def _timed(solver: Solver, question: str, tokens: int, seed: int) -> Solution:
    return solver.solve(question, seed, max_tokens=tokens)


def of_samples(lots: Sequence[Sequence[Candidate]], expected: Fraction | None, count: int) -> dict[str, float]:
    """What `count` plain samples are worth: one of them, the majority, and what each scorer would choose of the first lot.

    Samples without an answer are wrong. (Totals of different lots are on different scales.)
    """
    answered = [[candidate for candidate in lot if candidate.answer is not None] for lot in lots]
    everything = [candidate for lot in answered for candidate in lot]
    worth = {candidate.answer: float(is_right(candidate.answer, expected)) for candidate in everything}
    tally: dict[str | None, float] = {}
    for candidate in everything:
        tally[candidate.answer] = tally.get(candidate.answer, 0.0) + candidate.votes
    credit = {
        "sample": sum(number * worth[answer] for answer, number in tally.items()) / count,
        "any": max(worth.values(), default=0.0),
        "majority": shared([-number for number in tally.values()], [worth[answer] for answer in tally]) if tally else 0.0,
    }
    if first := answered[0]:
        right, votes = [worth[candidate.answer] for candidate in first], [candidate.votes for candidate in first]
        for name in sorted({name for candidate in first for name in candidate.energies}):
            credit[f"scorer.{name}"] = shared([candidate.energies.get(name, math.inf) for candidate in first], right, votes)
        credit["samples.ensemble"] = shared([candidate.total for candidate in first], right, votes)
    return credit


def measure_speed(model: LanguageModel, preamble: str, item: Item, beam: int, proposals: int, longest: int = 40) -> dict[str, Any]:
    """Two rounds of step proposals, the same tokens both ways, in turn: with the prefix shared, and with every text read as a whole again.

    Naively, each of the beam * proposals texts is read from its first token on in each round, in one batch, and then written on with its
    own cache: what a call of a text-generation interface for each round does.
    """
    head = model.encode(preamble + prompt(checked_question(item.question)))
    count = beam * proposals

    def prefix() -> int:
        branches, rows, written = model.read([head]), [0] * count, 0
        for turn in range(2):
            grown = model.write(branches, rows, [0.7] * count, longest, torch.Generator().manual_seed(item.seed + turn))
            written += sum(map(len, grown.tokens))
            texts[:] = [before + list(tokens) for before, tokens in zip(texts, grown.tokens, strict=True)]
            kept = [number * proposals for number in range(beam)]
            texts[:] = [texts[row] for row in kept for _ in range(proposals)]
            branches, rows = grown.branches, [row for row in kept for _ in range(proposals)]
        return written

    def naive() -> int:
        written = 0
        for turn in range(2):
            branches = model.read([head + text for text in texts])
            rows = list(range(count))
            grown = model.write(branches, rows, [0.7] * count, longest, torch.Generator().manual_seed(item.seed + turn))
            written += sum(map(len, grown.tokens))
            texts[:] = [before + list(tokens) for before, tokens in zip(texts, grown.tokens, strict=True)]
            texts[:] = [texts[number * proposals] for number in range(beam) for _ in range(proposals)]
        return written

    seconds, processor, tokens = {}, {}, {}
    ways = (("prefix", prefix), ("naive", naive))
    for name, way in ways if item.seed % 2 else ways[::-1]:
        texts: list[list[int]] = [[] for _ in range(count)]
        start, busy = time.perf_counter(), time.process_time()
        tokens[name] = way()
        seconds[name], processor[name] = time.perf_counter() - start, time.process_time() - busy
    return {"tokens": tokens, "write_seconds": seconds, "processor_seconds": processor, "prompt_tokens": len(head)}


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Accuracies, the ensemble's differences to each of the others (paired: Newcombe's interval, bootstrap where ties count as parts), and
    speeds."""
    whole = [record for record in records if "error" not in record]
    results: dict[str, Estimate] = {}
    if whole and "write_seconds" in whole[0]:
        speeds, busy = (
            {name: [record["tokens"][name] / record[clock][name] for record in whole] for name in ("prefix", "naive")}
            for clock in ("write_seconds", "processor_seconds")
        )
        results["ratio"] = ratio(speeds["prefix"], speeds["naive"])
        results["ratio.processor_time"] = ratio(busy["prefix"], busy["naive"])  # what else the machine does spoils it less
        results["tokens_per_second"], results["tokens_per_second.naive"] = mean(speeds["prefix"]), mean(speeds["naive"])
        results["prompt_tokens"] = mean([record["prompt_tokens"] for record in whole])
        return results
    # an item that raised is wrong in every way: it was asked, and there is no answer
    names = sorted({name for record in whole for name in record["credit"]})
    credit = {name: [float(record["credit"].get(name, 0.0)) if "error" not in record else 0.0 for record in records] for name in names}
    results |= {name: _share(values) for name, values in credit.items()}
    for name, values in credit.items():
        if name not in ("ensemble", "any"):
            results[f"ensemble - {name}"] = _difference(credit["ensemble"], values)
    if whole and "tokens" in whole[0]:
        for name in whole[0]["tokens"]:
            results[f"tokens.{name}"] = mean([record["tokens"][name] for record in whole])
        spent = [record["solve_seconds"]["ensemble"] for record in whole]
        results["tokens_per_second"] = mean([record["tokens"]["ensemble"] / max(s, 1e-9) for record, s in zip(whole, spent, strict=True)])
        results["seconds"] = mean(spent)
    return results


def _share(values: Sequence[float]) -> Estimate:
    """Of problems solved; a tie between answers may count as a part of one."""
    return rate([value == 1 for value in values]) if set(values) <= {0.0, 1.0} else mean(values)


def _difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    if {*first, *second} <= {0.0, 1.0}:
        outcomes = [{str(row): value == 1 for row, value in enumerate(values)} for values in (first, second)]
        return paired(*outcomes).difference
    return mean([a - b for a, b in zip(first, second, strict=True)])


def headline(records: Sequence[Record]) -> str:
    """A few words for the progress bar."""
    done = [record["credit"] for record in records if "credit" in record]
    if not done:
        return f"{len(records)} problems"
    ensemble, majority = (sum(credit[name] for credit in done) / len(done) for name in ("ensemble", "majority"))
    return f"ensemble {100 * ensemble:.1f} %, majority {100 * majority:.1f} %"


def bench(
    json_path: Path,
    *,
    mode: str,
    data: Path,
    limit: int | None = None,
    model: Path | None = None,
    adapter: Path | None = None,
    sentence: Path | None = None,
    hidden: Path | None = None,
    verifiers: bool = True,
    beam: int = 5,
    proposals: int = 4,
    temperature: float = 0.7,
    max_tokens: int = 4000,
    seed: int = 0,
    jobs: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> Document:
    """Run the problems of a file.

    Args:
        adapter: None = the shipped one, if there is one, for the embedded model. sentence, hidden: weights of trained verifiers; None = the
            shipped ones, with the shipped adapter. verifiers: whether they take part.
        seed: chooses the problems where there is a limit, and their draws.

    Raises:
        ValueError: an argument out of its range, or a file that can't be used. The message names the remedy.
    """
    if mode not in MODES:
        raise ValueError(f"--mode is '{mode}'; allowed: {', '.join(MODES)}")
    if not 0 < temperature <= 5:
        raise ValueError(f"--temperature is {temperature}; allowed: above 0, at most 5")
    if beam * proposals > assembly.MOST_DRAWS:
        raise ValueError(f"--beam times --proposals is {beam * proposals}; allowed: at most {assembly.MOST_DRAWS}")
    if hidden is not None and adapter is None and assembly.shipped_adapter() is None:
        raise ValueError("--hidden belongs to an adapter: give --adapter too")
    if not verifiers and (sentence is not None or hidden is not None):
        raise ValueError("--no-verifiers leaves out what --sentence and --hidden bring in; allowed: one or the other")
    items = read_items(data, mode, limit, seed)
    tuned = assembly.chosen_adapter(model, adapter)
    if verifiers:
        shipped = assembly.shipped_verifiers(tuned)
        sentence, hidden = sentence or shipped[0], hidden or shipped[1]
    paths = {"model": model, "adapter": tuned, "sentence": sentence, "hidden": hidden}
    config = {
        "mode": mode,
        "data": str(data),
        "contents": [content_digest(path) for path in (data, *paths.values()) if path is not None and path.exists()],
        "seed": seed,
        "beam": beam,
        "proposals": proposals,
        "temperature": temperature,
        "max_tokens": max_tokens,
        **{name: "" if path is None else str(path.resolve()) for name, path in paths.items()},
    }
    try:
        for path in (sentence, hidden, tuned):
            if path is not None and not path.is_file():
                raise ModelUnavailable(f"'{path}' does not exist")
        return run_bench(
            "maths",
            config,
            items,
            run_one,
            summarise,
            json_path,
            prepare=_Prepared,
            jobs=jobs,
            headline=headline,
            progress=progress,
            fresh=fresh,
        )
    except ModelUnavailable as error:
        raise ValueError(str(error)) from error
