"""Questions about clips: what the ensemble answers, against the language model alone and each expert alone.

Two sources: clips rendered by the simulator, whose answers come from physics (`pcm_ros.sim.clips`; numbers from TEST_FROM on are for
tests), or any JSON of questions in the manner of ActivityNet-QA with a folder of clips.

Per question the search is run once. `language_model` is the model's own first choice among its own words, blind to the clip. Each scorer
alone chooses from all answers that were proposed in that search, equals in the order of the proposals (the language model's likeliest first
words come first); so does the ensemble. `oracle` is the share of questions whose answer was proposed at all, `oracle.words` by the language
model itself. With strategy "gradient" each question is asked a second time, of an answerer that writes by gradients: `gradient` is its
answer, made of nothing but the language model's words, so that only a run with its words alone compares like with like.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcm_ros.evidence import Document, Estimate, mean, paired, quantile, rate, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.sight.frames import Clip, UnusableClip, clip_of, read_clip
from pcm_ros.sim.clips import TEST_FROM, clip
from pcm_ros.tasks.video_qa.answerer import Answer, Answerer, Judged
from pcm_ros.tasks.video_qa.assembly import CLIPS, FRAMES, SCORERS, STRATEGIES, Strategy, build
from pcm_ros.tasks.video_qa.generator import WORDS
from pcm_ros.tasks.video_qa.reading import bare, normalised

METRICS = ("exact", "normalised", "similar")
SIMILAR = 0.85
"""Cosine of MiniLM's vectors of two answers from which they count as the same."""
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


@dataclass(frozen=True)
class Item:
    """A clip, by number or path, and its questions: (kind, text, answer)."""

    source: int | str
    questions: tuple[tuple[str, str, str], ...] = ()


def matches(answer: str, truth: str) -> dict[str, bool]:
    """By each of METRICS. exact: the same characters. normalised: bare words in lower case, numbers as digits. similar: normalised, or
    sentence similarity from SIMILAR on, except of numbers and of yes and no."""
    one, other = normalised(answer), normalised(truth)
    same = one == other
    alike = same
    if not same and one and not {one, other} & {"yes", "no"} and not other.isdigit():
        vectors = sentence_encoder().encode([bare(answer), bare(truth)])
        alike = float(vectors[0] @ vectors[1]) >= SIMILAR
    return {"exact": answer == truth, "normalised": same, "similar": alike}


def read_questions(questions: Path, clips: Path, limit: int | None) -> dict[str, Item]:
    """Items of a JSON list of objects with `question`, `answer` and `video` (or `video_name`), and a folder of videos of these names.

    ActivityNet-QA keeps answers in a second list with the same `question_id`: a file of the same name with `_a` in place of `_q` beside it
    is read where objects have no answer.

    Raises:
        ValueError: a file is missing or not what is needed.
    """
    try:
        listed = json.loads(questions.read_text(encoding="utf-8"))
        beside = questions.with_name(questions.name.replace("_q", "_a"))
        answers = {}
        if beside != questions and beside.is_file():
            answers = {one["question_id"]: one for one in json.loads(beside.read_text(encoding="utf-8"))}
        by_video: dict[str, list[tuple[str, str, str]]] = {}
        for one in listed[:limit]:
            told = {**answers.get(one.get("question_id"), {}), **one}
            kind = str(told.get("type", told.get("kind", "all")))
            by_video.setdefault(str(told.get("video", told.get("video_name"))), []).append(
                (kind, str(told["question"]), str(told["answer"]))
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{questions}' is no JSON list of objects with question, answer and video ({error!r})") from error
    items = {}
    for name, asked in by_video.items():
        found = [
            path
            for stem in (name, f"v_{name}")
            for path in (clips / stem, *(clips / f"{stem}{s}" for s in VIDEO_SUFFIXES))
            if path.is_file()
        ]
        if not found:
            raise ValueError(f"no video '{name}' ({', '.join(VIDEO_SUFFIXES)}) in '{clips}'")
        items[name] = Item(str(found[0]), tuple(asked))
    if not items:
        raise ValueError(f"'{questions}' holds no question")
    return items


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        model = Path(config["model"]) if config["model"] else None
        scorers = tuple(config["scorers"])
        self.answerer: Answerer = build(scorers, model, told=bool(config["told"]))
        self.writer = build(scorers, model, strategy="gradient") if config["strategy"] == "gradient" else None
        self.frames, self.policy, self.most = int(config["frames"]), config["policy"], config["questions_per_clip"]


def run_one(item: Item, prepared: _Prepared) -> dict[str, Any]:
    """All questions of one clip."""
    frames: Clip | Exception
    if isinstance(item.source, int):
        made = clip(item.source)
        frames = clip_of(made.frames, made.times.tolist(), prepared.frames, prepared.policy)
        questions: Sequence[tuple[str, str, str]] = [(one.kind, one.text, one.answer) for one in made.questions]
    else:
        questions = item.questions
        try:
            frames = read_clip(item.source, prepared.frames, prepared.policy)
        except UnusableClip as error:
            frames = error
    return {"answers": [_answered(prepared, frames, *one) for one in questions[: prepared.most]]}


def _answered(prepared: _Prepared, frames: Clip | Exception, kind: str, question: str, truth: str) -> dict[str, Any]:
    """A question whose clip cannot be read, or that raises, was asked all the same: nobody's answer is right."""
    try:
        if isinstance(frames, Exception):
            raise frames
        return _asked(prepared.answerer, prepared.writer, frames, kind, question, truth)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        return {"kind": kind, "question": question, "truth": truth, "failure": failure, "answers": {}, "matches": {}} | dict.fromkeys(
            ("proposed", "proposed_in_words"), False
        )


def _asked(answerer: Answerer, writer: Answerer | None, frames: Clip, kind: str, question: str, truth: str) -> dict[str, Any]:
    judged: list[Judged] = []
    found: Answer | None = None
    for result in answerer.iterate(frames, question, observe=judged.append):
        if isinstance(result, Answer):
            found = result
    assert found is not None
    record: dict[str, Any] = {"kind": kind, "question": question, "truth": truth, "answer_seconds": found.seconds, "rounds": found.rounds}
    record |= {"agreement": found.agreement, "dropped": sorted(found.dropped), "things": list(found.things)}
    (one,) = judged
    chosen = {"ensemble": found.text}
    names, energies = list(one.table.names), one.table.energies.numpy()
    words = [row for row, category in enumerate(one.categories) if category == WORDS]
    for column, name in enumerate(names):
        if name not in found.dropped:
            chosen[f"scorer.{name}"] = one.answers[int(np.nanargmin(energies[:, column]))]
        if name == "language":
            chosen["language_model"] = one.answers[min(words, key=lambda row: energies[row, column])]
    if writer is not None:
        written = writer.answer(frames, question)
        chosen["gradient"] = written.text
        record |= {"gradient_seconds": written.seconds, "gradient_steps": written.rounds}
    record["answers"] = chosen
    record["matches"] = {name: matches(answer, truth) for name, answer in chosen.items()}
    proposed = {normalised(answer) for answer in one.answers}
    record["proposed"] = normalised(truth) in proposed
    record["proposed_in_words"] = normalised(truth) in {normalised(one.answers[row]) for row in words}
    record["candidates"] = len(one.answers)
    return record


def _answers(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [
        {**one, "id": f"{record['id']}.{number}"}
        for record in records
        if "error" not in record
        for number, one in enumerate(record["answers"])
    ]


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Shares of right answers over all questions: `NAME` by normalised match, `NAME.exact`, `NAME.similar`, `NAME.kind.KIND`; paired
    differences of the ensemble, whose p-values take the questions of a clip for independent; seconds; `failures`, questions that raised."""
    asked = _answers(records)
    results: dict[str, Estimate] = {}
    if not asked:
        return results
    names = list(dict.fromkeys(name for one in asked for name in one["matches"]))
    right = {name: {one["id"]: one["matches"].get(name, {}).get("normalised", False) for one in asked} for name in names}
    for name in names:
        results[name] = rate(list(right[name].values()))
        if name in ("ensemble", "language_model"):
            for metric in METRICS:
                results[f"{name}.{metric}"] = rate([one["matches"].get(name, {}).get(metric, False) for one in asked])
    results["oracle"] = rate([one["proposed"] for one in asked])
    results["oracle.words"] = rate([one["proposed_in_words"] for one in asked])
    best = max((name for name in names if name.removeprefix("scorer.") in CLIPS), key=lambda name: results[name].value, default=None)
    for label, name, other in (
        ("ensemble.minus.language_model", "ensemble", "language_model"),
        ("ensemble.minus.best_clip", "ensemble", best),
        ("ensemble.minus.gradient", "ensemble", "gradient"),
        ("gradient.minus.language_model", "gradient", "language_model"),
    ):
        if name in right and other in right:
            pair = paired(right[name], right[other])
            results[label] = pair.difference
            results[f"{label}.p"] = Estimate(pair.p_value, math.nan, math.nan, len(asked))
    for kind in sorted({one["kind"] for one in asked}):
        for name in names:
            results[f"{name}.kind.{kind}"] = rate([right[name][one["id"]] for one in asked if one["kind"] == kind])
    results["failures"] = rate(["failure" in one for one in asked])
    seconds = [float(one["answer_seconds"]) for one in asked if "failure" not in one]
    results["seconds_per_answer"] = mean(seconds)
    results["seconds_per_answer.median"] = quantile(seconds, 0.5)
    if written := [float(one["gradient_seconds"]) for one in asked if "gradient_seconds" in one]:
        results["seconds_per_answer.gradient"] = mean(written)
    answered = [record["answers"] for record in records if record.get("answers")]
    firsts = [float(answers[0]["answer_seconds"]) for answers in answered if "failure" not in answers[0]]
    results["seconds_per_answer.first_of_clip"] = mean(firsts)
    return results


def bench(
    json_path: Path,
    *,
    questions: int = 300,
    seed: int = TEST_FROM,
    frames: int = FRAMES,
    policy: str = "uniform",
    scorers: Sequence[str] = SCORERS,
    told: bool = True,
    strategy: Strategy = "words",
    model: Path | None = None,
    data: Path | None = None,
    clips: Path | None = None,
    jobs: int = 1,
    fresh: bool = False,
) -> Document:
    """At least `questions` questions about clips from number `seed` on (six or so a clip), or the first `questions` of a file.

    Raises:
        ValueError: an argument out of its range, or a file that is not what is needed.
    """
    if (data is None) != (clips is None):
        raise ValueError("data and clips belong together: a JSON of questions, and the folder of its videos")
    if questions < 1:
        raise ValueError(f"questions is {questions}; allowed: >= 1")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is '{strategy}'; allowed: {', '.join(STRATEGIES)}")
    config = {
        "seed": seed if data is None else None,
        "frames": frames,
        "policy": policy,
        "scorers": list(scorers),
        "told": told,
        "strategy": strategy,
        "model": model,
        "data": data,
        "contents": [content_digest(path) for path in (data, model) if path is not None and path.exists()],
        "questions_per_clip": 6 if data is None else None,
        "questions": None if data is None else questions,  # they cut a clip's list
        "clips": None if clips is None else str(clips.resolve()),
    }
    if data is not None and clips is not None:
        items = read_questions(data, clips, questions)
    else:
        items = {f"clip-{number}": Item(number) for number in range(seed, seed + math.ceil(questions / 5.5))}
    return run_bench("video", config, items, run_one, summarise, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh, headline=_headline)


def _headline(records: Sequence[Record]) -> str:
    asked = _answers(records)
    hits = [one["matches"].get("ensemble", {}).get("normalised", False) for one in asked]
    return f"{sum(hits)} of {len(hits)} right" if hits else ""
