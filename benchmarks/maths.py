"""Word problems: does the ensemble choose better than the majority and than each scorer, and does consensus solve more than its baselines?

Three modes. `select`: given solutions are ranked, no generator takes part. `solve`: the language model solves, by greedy decoding, by
consensus, and by plain samples that cost as many tokens as the consensus: by their majority, and by what each scorer and the ensemble would
choose of them; correct = the final answer is the recorded one. `speed`: tokens a second of batched proposals
with the shared prefix, against reading the whole text again for each.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcm_ros.consensus import mixed_seed
from pcm_ros.evidence import Document, Estimate, mean, rate, ratio, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.language import COLDEST, LanguageModel
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.arithmetic import NoArithmetic, evaluate
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import usual_tokens
from pcm_ros.tasks.mathematics.scorers import Agreement, GeneratorLikelihood
from pcm_ros.tasks.mathematics.solver import Candidate, Drawn, Solution, Solver, checked_question

MODES = ("select", "solve", "speed")
MOST_LOTS = 5
"""So many times plain samples are drawn for one problem, at most, until they cost what the consensus did."""
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
    # only "\n" ends a line: JSON may have U+2028 and the like within a text
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    order = np.random.default_rng(seed).permutation(len(lines)).tolist()[:limit]
    items = {}
    for row in sorted(order):
        try:
            data = json.loads(lines[row])
            identity = str(data.get("id", f"{row:05d}"))
            question, given = str(data["question"]), data["answer"]
            solutions, correct = _given(data) if mode == "select" else ((), ())
            answer = recorded_answer(given) if isinstance(given, str) else Fraction(str(given))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"line {row + 1} of '{path}' can't be used ({error!r}); {SOURCES}") from error
        if mode == "select" and not solutions:
            raise ValueError(f"line {row + 1} of '{path}' has no solutions; remedy: leave such problems out, there is nothing to select")
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


def _given(data: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """The solutions of a problem, and which are right. Raises KeyError, TypeError."""
    solutions, correct = data["solutions"], data["correct"]
    if not isinstance(solutions, list) or not isinstance(correct, list) or not all(isinstance(mark, bool) for mark in correct):
        raise TypeError("`solutions` is a list of texts, `correct` one of as many true or false")
    return tuple(map(str, solutions)), tuple(correct)


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
        model, adapter, sentence, hidden, weights = (
            Path(config[key]) if config[key] else None for key in ("model", "adapter", "sentence", "hidden", "weights")
        )
        self.mode = config["mode"]
        self.beam, self.proposals, self.tokens = config["beam"], config["proposals"], config["max_tokens"]
        self.preamble = assembly.preamble(adapter)
        self.generating = assembly.language_model(model, adapter)
        if self.mode == "speed":
            return
        experts = assembly.scorers(model, adapter, sentence, hidden)
        if self.mode == "select":
            # no generator made the given solutions: it has nothing to say, and is never asked
            asked = [expert for expert in experts if expert.name != "generator"]
            self.ensemble = Solver(StepGenerator(self.generating, 1, 1), asked, assembly.expert_weights(weights, asked))
            return
        counts = assembly.expert_weights(weights, experts)
        count, heat = self.beam * self.proposals, config["temperature"]
        self._make = functools.partial(StepGenerator, self.generating, preamble=self.preamble, temperature=heat)
        greedy = StepGenerator(self.generating, 1, 1, preamble=self.preamble, temperature=0, stop_here=False)
        self.greedy = Solver(greedy, [GeneratorLikelihood()], width=1)
        self.consensus = Solver(self._make(count, self.proposals), experts, counts, width=self.beam)
        self.narrow = Solver(self._make(count, count), experts, counts, width=1)

    def plain(self, count: int) -> Solver:
        """A solver that draws so many plain samples: nothing is pruned, and what experts say of them is not asked."""
        return Solver(self._make(count, 1, by_votes=True, stop_here=False), [Agreement()], width=count)


def run_one(item: Item, prepared: _Prepared) -> dict[str, Any]:
    """The record of a problem: what each way of answering it is worth, 0..1 (ties are shared), and what it cost."""
    if prepared.mode == "select":
        return _select(item, prepared.ensemble)
    if prepared.mode == "speed":
        return measure_speed(prepared.generating, prepared.preamble, item, prepared.beam, prepared.proposals)
    return _solve(item, prepared)


def _select(item: Item, ensemble: Solver) -> dict[str, Any]:
    ranking = ensemble.rank(item.question, item.solutions)
    right = [float(mark) for mark in item.correct]
    names, dropped = ranking.table.names, sorted(ranking.table.dropped)
    energies = {name: ranking.table.energies[:, column].tolist() for column, name in enumerate(names) if name not in dropped}
    credit = {"random": sum(right) / len(right), "any": max(right)}
    if "agreement" in energies:
        credit["majority"] = shared(energies["agreement"], right)
    credit |= {f"scorer.{name}": shared(values, right) for name, values in energies.items()}
    credit["ensemble"] = shared(list(ranking.totals), right)
    record = {"credit": credit, "energies": energies, "totals": list(ranking.totals), "correct": list(item.correct)}
    return record | {"scorers": list(names), "dropped": dropped} | successes(credit)


def successes(credit: Mapping[str, float]) -> dict[str, bool]:
    """Of each way that chooses one answer whether it is right for certain, no tie left, and `success`, the ensemble's: for paired runs."""
    return {name: worth == 1 for name, worth in credit.items() if name not in ("random", "sample")} | {"success": credit["ensemble"] == 1}


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
    cost = {name: (float(solution.tokens), solution.seconds) for name, solution in found.items()}
    started = time.perf_counter()
    samples, drawn = samples_for(item, prepared, found["ensemble"].tokens, found["greedy"].tokens)
    cost["majority"] = (sum(sample.tokens for sample in samples), time.perf_counter() - started)
    distinct = merged(samples)
    credit |= of_samples(prepared.consensus.judged(item.question, distinct) if distinct else (), item.answer, len(samples))
    return {
        "credit": credit,
        **successes(credit),
        "tokens": {name: count for name, (count, _) in cost.items()},
        "solve_seconds": {name: spent for name, (_, spent) in cost.items()},
        "answers": answers,
        "expected": None if item.answer is None else str(item.answer),
        "samples": [_as_drawn(sample) for sample in samples],
        "samples_drawn": drawn,
        "scorers": list(prepared.consensus.ensemble.names),
        "dropped": sorted(found["ensemble"].dropped),
    }


def _timed(solver: Solver, question: str, tokens: int, seed: int) -> Solution:
    return solver.solve(question, seed, max_tokens=tokens)


@dataclass(frozen=True)
class Sample:
    """One plain sample. solution: None = it came to no end. tokens: what it cost (of those without an end the mean)."""

    solution: Drawn | None
    tokens: float


def _as_drawn(sample: Sample) -> dict[str, Any]:
    answer = None if sample.solution is None else final_answer(sample.solution.text)
    return {"answer": None if answer is None else str(answer), "tokens": sample.tokens}


def samples_for(item: Item, prepared: _Prepared, budget: float, guess: float) -> tuple[list[Sample], int]:
    """Plain samples until they cost as many tokens as the consensus, at least one, and how many were drawn for that.

    The last one may go beyond: a sample is whole. guess: tokens of a sample, before the first is drawn.
    """
    samples: list[Sample] = []
    spent, drawn, each = 0.0, 0, max(guess, 1.0)
    for turn in range(MOST_LOTS):
        missing = budget - spent
        count = min(max(1, math.ceil(missing / each)), assembly.MOST_DRAWS)
        solver = prepared.plain(count)
        try:
            # room for twice what is expected, and for a last line of each: a limit would lose the long ones
            limit = math.ceil(2 * max(missing, each)) + solver.generator.longest * count
            found, tokens = solver.drawn(item.question, mixed_seed(item.seed, 1 + turn), limit)
        finally:
            solver.close()
        for sample in in_turn(found, count, tokens, mixed_seed(item.seed, 1000 + turn)):
            if samples and spent >= budget:
                break
            samples.append(sample)
            spent += sample.tokens
        drawn += count
        if spent >= budget:
            break
        each = max(spent / drawn, 1.0)
    return samples, drawn


def in_turn(found: Sequence[Drawn], count: int, tokens: int, seed: int) -> list[Sample]:
    """A lot of `count` samples that cost so many tokens one by one, those that came to no end among them, in an order that the seed draws:
    the search returns them by text."""
    each = [Sample(one, float(one.tokens)) for one in found for _ in range(round(one.votes))]
    lost = max(0, count - len(each))
    over = max(0.0, tokens - sum(sample.tokens for sample in each))
    each += [Sample(None, over / max(lost, 1))] * lost
    return [each[place] for place in np.random.default_rng(seed).permutation(len(each)).tolist()]


def merged(samples: Sequence[Sample]) -> list[Drawn]:
    """Their distinct solutions, each with its votes in these samples; of one that several lots have, the first lot's shares."""
    votes = Counter(sample.solution.text for sample in samples if sample.solution is not None)
    first: dict[str, Drawn] = {}
    for sample in samples:
        if sample.solution is not None:
            first.setdefault(sample.solution.text, sample.solution)
    return [replace(one, votes=float(votes[text])) for text, one in first.items()]


def of_samples(candidates: Sequence[Candidate], expected: Fraction | None, count: int) -> dict[str, float]:
    """What `count` plain samples, merged to these candidates, are worth: one of them, the majority, and what each scorer would choose.

    Samples without an answer are wrong.
    """
    answered = [candidate for candidate in candidates if candidate.answer is not None]
    worth = {candidate.answer: float(is_right(candidate.answer, expected)) for candidate in answered}
    tally: dict[str | None, float] = {}
    for candidate in answered:
        tally[candidate.answer] = tally.get(candidate.answer, 0.0) + candidate.votes
    credit = {
        "sample": sum(number * worth[answer] for answer, number in tally.items()) / count,
        "any": max(worth.values(), default=0.0),
        "majority": shared([-number for number in tally.values()], [worth[answer] for answer in tally]) if tally else 0.0,
    }
    if answered:
        right, votes = [worth[candidate.answer] for candidate in answered], [candidate.votes for candidate in answered]
        for name in sorted({name for candidate in answered for name in candidate.energies}):
            credit[f"scorer.{name}"] = shared([candidate.energies.get(name, math.inf) for candidate in answered], right, votes)
        credit["samples.ensemble"] = shared([candidate.total for candidate in answered], right, votes)
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
    """Accuracies, the ensemble's differences to each of the others (paired: Newcombe's interval, `NAME.p` of an exact sign test), how often
    a scorer was dropped (`dropped.NAME`), what it cost, and speeds."""
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
    # an item that raised is wrong in every way: it was asked, and there is no answer; so is one of a scorer that was dropped there
    names = sorted({name for record in whole for name in record["credit"]})
    credit = {name: [float(record["credit"].get(name, 0.0)) if "error" not in record else 0.0 for record in records] for name in names}
    results |= {name: share(values) for name, values in credit.items()}
    for name, values in credit.items():
        if name not in ("ensemble", "any"):
            results[f"ensemble - {name}"] = difference(credit["ensemble"], values)
            results[f"ensemble - {name}.p"] = Estimate(p_value(credit["ensemble"], values), math.nan, math.nan, len(records))
    for name in sorted({name for record in whole for name in record["scorers"]}):
        results[f"dropped.{name}"] = rate([name in record["dropped"] for record in whole])
    if whole and "tokens" in whole[0]:
        for name in whole[0]["tokens"]:
            results[f"tokens.{name}"] = mean([record["tokens"][name] for record in whole])
        ratios = [record["tokens"]["majority"] / max(record["tokens"]["ensemble"], 1) for record in whole]
        results["tokens.majority / tokens.ensemble"] = mean(ratios)
        results["samples"] = mean([len(record["samples"]) for record in whole])
        spent = [record["solve_seconds"]["ensemble"] for record in whole]
        results["tokens_per_second"] = mean([record["tokens"]["ensemble"] / max(s, 1e-9) for record, s in zip(whole, spent, strict=True)])
        results["seconds"] = mean(spent)
    return results


def share(values: Sequence[float]) -> Estimate:
    """Of problems solved, with Wilson's score interval; a tie between answers counts as a part of one, which makes the interval a little
    too wide: such a count varies less."""
    low, high = _wilson(sum(values), len(values))
    return Estimate(sum(values) / len(values) if values else math.nan, low, high, len(values), share=True)


def _wilson(count: float, n: int) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927), for counts that need not be whole."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    p = count / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(max(p * (1 - p), 0.0) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of first - second, what two ways are worth on the same problems, with Newcombe's interval (1998, method 10: that of `paired`),
    whose counts need not be whole here: of worths a and b, min(a, b) is common to both."""
    n = len(first)
    if n == 0:
        return Estimate(math.nan, -1.0, 1.0, 0)
    one, other = sum(first), sum(second)
    both = sum(map(min, first, second))
    only_first, only_second = one - both, other - both
    neither = n - both - only_first - only_second
    product = one * (n - one) * other * (n - other)
    cross = both * neither - only_first * only_second
    if cross > 0:
        cross = max(cross - n / 2, 0.0)  # corrected for continuity
    correlation = cross / math.sqrt(product) if product > 1e-9 else 0.0
    (low, high), (other_low, other_high) = _wilson(one, n), _wilson(other, n)

    def spread(a: float, b: float) -> float:
        return math.sqrt(max(a**2 - 2 * correlation * a * b + b**2, 0.0))

    value = (one - other) / n
    return Estimate(value, value - spread(one / n - low, other_high - other / n), value + spread(high - one / n, other / n - other_low), n)


def p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided exact sign test of the differences; of outcomes 0 and 1 that is McNemar's exact test."""
    from scipy.stats import binomtest  # takes a second: not in every worker

    better, worse = (sum(1 for a, b in zip(*pair, strict=True) if a > b + 1e-9) for pair in ((first, second), (second, first)))
    return float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0


def headline(records: Sequence[Record]) -> str:
    """A few words for the progress bar."""
    done = [record["credit"] for record in records if "credit" in record]
    if not done:
        return f"{len(records)} problems"
    ensemble, majority = (sum(credit.get(name, 0.0) for credit in done) / len(done) for name in ("ensemble", "majority"))
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
    max_tokens: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> Document:
    """Run the problems of a file.

    Args:
        adapter: None = the shipped one, if there is one, for the embedded model. sentence, hidden: weights of trained verifiers; None = the
            shipped ones, with the shipped adapter. verifiers: whether they take part.
        max_tokens: that a solution may cost; None = `usual_tokens` of beam * proposals.
        seed: chooses the problems where there is a limit, and their draws.

    Raises:
        ValueError: an argument out of its range, or a file that can't be used. The message names the remedy.
    """
    if mode not in MODES:
        raise ValueError(f"--mode is '{mode}'; allowed: {', '.join(MODES)}")
    if not COLDEST <= temperature <= 5:
        raise ValueError(f"--temperature is {temperature}; allowed: {COLDEST}..5")
    if beam * proposals > assembly.MOST_DRAWS:
        raise ValueError(f"--beam times --proposals is {beam * proposals}; allowed: at most {assembly.MOST_DRAWS}")
    if not verifiers and (sentence is not None or hidden is not None):
        raise ValueError("--no-verifiers leaves out what --sentence and --hidden bring in; allowed: one or the other")
    tuned = assembly.chosen_adapter(model, adapter)
    if hidden is not None and tuned is None:
        raise ValueError("--hidden belongs to an adapter; remedy: give --adapter too")
    items = read_items(data, mode, limit, seed)
    if verifiers:
        shipped = assembly.shipped_verifiers(tuned)
        sentence, hidden = sentence or shipped[0], hidden or shipped[1]
    paths = {"model": model, "adapter": tuned, "sentence": sentence, "hidden": hidden, "weights": assembly.shipped_weights(tuned)}
    config = {
        "mode": mode,
        "data": str(data),
        "contents": [content_digest(path) for path in (data, *paths.values()) if path is not None and path.exists()],
        "seed": seed,
        "beam": beam,
        "proposals": proposals,
        "temperature": temperature,
        "max_tokens": usual_tokens(beam * proposals) if max_tokens is None else max_tokens,
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
