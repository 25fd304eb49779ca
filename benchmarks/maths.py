"""Word problems: does the ensemble choose better than the majority and than each scorer, and does consensus solve more than its baselines?

Three modes. `select`: given solutions are ranked, no generator takes part. `solve`: the language model solves, by greedy decoding, by
consensus, and by plain samples that cost as many tokens as the consensus: by their majority, and by what each scorer and the ensemble would
choose of them; correct = the final answer is the recorded one. `speed`: tokens a second of batched proposals
with the shared prefix, against reading the whole text again for each.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pcm_ros.benchmarks.plain_samples import as_drawn, merged, of_samples, samples_for, shared
from pcm_ros.benchmarks.word_problems import Item, is_right, read_items
from pcm_ros.evidence import Document, Estimate, mean, paired, rate, ratio, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.key_value_cache import Branches, Grown
from pcm_ros.models.language import COLDEST, LanguageModel, language_precision
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import usual_tokens
from pcm_ros.tasks.mathematics.scorers import Agreement, GeneratorLikelihood
from pcm_ros.tasks.mathematics.solver import Solution, Solver, checked_question

MODES = ("select", "solve", "speed")
ROUNDS = 5
"""Of proposals whose speed is measured: worked solutions of GSM8K's train split have 4.6 lines (mean), the answer's among them."""


class _Prepared:
    """The solvers of a configuration; paths in it are texts, "" = none, those of shipped files relative to their folder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        model, adapter, sentence, hidden, weights = (
            WEIGHTS / config[key] if config[key] else None for key in ("model", "adapter", "sentence", "hidden", "weights")
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
            self.ensemble = Solver(StepGenerator(self.generating, 1, 1), asked, assembly.expert_weighing(weights, asked))
            return
        weighing = assembly.expert_weighing(weights, experts)
        count, heat = self.beam * self.proposals, config["temperature"]
        self._make = functools.partial(StepGenerator, self.generating, preamble=self.preamble, temperature=heat)
        greedy = StepGenerator(self.generating, 1, 1, preamble=self.preamble, temperature=0, stop_here=False)
        self.greedy = Solver(greedy, [GeneratorLikelihood()], width=1)
        self.consensus = Solver(self._make(count, self.proposals), experts, weighing, width=self.beam)
        self.narrow = Solver(self._make(count, count), experts, weighing, width=1)

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
    credit["ensemble"] = shared(list(ranking.answer_energies), right)
    record = {"credit": credit, "energies": energies, "totals": list(ranking.totals), "correct": list(item.correct)}
    record["answer_energies"] = list(ranking.answer_energies)
    return record | {"scorers": list(names), "dropped": dropped} | successes(credit)


def successes(credit: Mapping[str, float]) -> dict[str, bool]:
    """Of each way that chooses one answer whether it is right for certain, no tie left, and `success`, the ensemble's: for paired runs."""
    return {name: worth == 1 for name, worth in credit.items() if name not in ("random", "sample")} | {"success": credit["ensemble"] == 1}


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
    samples, drawn = samples_for(item, prepared.plain, found["ensemble"].tokens, found["greedy"].tokens)
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
        "samples": [as_drawn(sample) for sample in samples],
        "samples_drawn": drawn,
        "scorers": list(prepared.consensus.ensemble.names),
        "dropped": sorted(found["ensemble"].dropped),
    }


def _timed(solver: Solver, question: str, tokens: int, seed: int) -> Solution:
    return solver.solve(question, seed, max_tokens=tokens)


def measure_speed(model: LanguageModel, preamble: str, item: Item, beam: int, proposals: int, longest: int = 40) -> dict[str, Any]:
    """A search's step proposals, from the same draws both ways, in turn: with the prefix shared, and with every text read as a whole again.

    Naively, each of the beam * proposals texts is read from its first token on in each round, in one batch, and then written on with its
    own cache: what a call of a text-generation interface for each round does.
    """
    head = model.encode(preamble + prompt(checked_question(item.question)))
    count = beam * proposals

    def written(branches: Branches, rows: list[int], turn: int) -> Grown:
        return model.write(branches, rows, [0.7] * count, longest, torch.Generator().manual_seed(item.seed + turn))

    def parents(grown: Grown) -> list[int]:
        """Of the next texts: the first `beam` that a line ended, as often as proposals are drawn for each; if too few did, others."""
        kept = sorted(range(count), key=lambda row: grown.ended[row] != "line")[:beam]
        return [row for row in kept for _ in range(proposals)]

    def prefix() -> int:
        branches, rows, total = model.read([head]), [0] * count, 0
        for turn in range(ROUNDS):
            grown = written(branches, rows, turn)
            total += sum(map(len, grown.tokens))
            branches, rows = grown.branches, parents(grown)
        return total

    def naive() -> int:
        texts, total = [head] * count, 0
        for turn in range(ROUNDS):
            grown = written(model.read(texts), list(range(count)), turn)
            total += sum(map(len, grown.tokens))
            texts = [texts[row] + list(grown.tokens[row]) for row in parents(grown)]
        return total

    seconds, processor, tokens = {}, {}, {}
    ways = (("prefix", prefix), ("naive", naive))
    for name, way in ways if item.seed % 2 else ways[::-1]:
        start, busy = time.perf_counter(), time.process_time()
        tokens[name] = way()
        seconds[name], processor[name] = time.perf_counter() - start, time.process_time() - busy
    return {"tokens": tokens, "write_seconds": seconds, "processor_seconds": processor, "prompt_tokens": len(head)}


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Accuracies, the ensemble's differences to each of the others (`paired`, its p-value as `NAME.p`), how often
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
    results |= {name: rate(values) for name, values in credit.items()}
    worth = {name: {str(place): value for place, value in enumerate(values)} for name, values in credit.items()}
    for name in names:
        if name not in ("ensemble", "any"):
            compared = paired(worth["ensemble"], worth[name])
            results[f"ensemble - {name}"] = compared.difference
            results[f"ensemble - {name}.p"] = Estimate(compared.p_value, math.nan, math.nan, len(records))
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


def headline(records: Sequence[Record]) -> str:
    """A few words for the progress bar."""
    done = [record["credit"] for record in records if "credit" in record]
    if not done:
        return f"{len(records)} problems"
    ensemble, majority = (sum(credit.get(name, 0.0) for credit in done) / len(done) for name in ("ensemble", "majority"))
    return f"ensemble {100 * ensemble:.1f} %, majority {100 * majority:.1f} %"


def _named(path: Path) -> str:
    """A shipped file's name, another one's path: a run is the same wherever the package lies."""
    whole = path.resolve()
    return whole.name if whole.parent == WEIGHTS.resolve() else str(whole)


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
    dtype, eight_bits = language_precision(typical=True)
    config = {
        "mode": mode,
        "precision": "eight bits" if eight_bits else str(dtype),  # a run can't go on in another one
        "data": data.name,
        "contents": [content_digest(path) for path in (data, *paths.values()) if path is not None and path.exists()],
        "seed": seed,
        "beam": beam,
        "proposals": proposals,
        "temperature": temperature,
        "max_tokens": usual_tokens(beam * proposals) if max_tokens is None else max_tokens,
        **{name: "" if path is None else _named(path) for name, path in paths.items()},
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
