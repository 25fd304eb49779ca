"""Questions about clips: what the ensemble answers, against the language model alone and each expert alone.

Two sources: clips rendered by the simulator, whose answers come from physics (`pcm_ros.sim.clips`; numbers from TEST_FROM on are for
tests), or any JSON of questions in the manner of ActivityNet-QA with a folder of clips.

Per question the search is run once. `language_model` is the model's own first choice among its own words, blind to the clip. Each scorer
alone chooses from all answers that were proposed in that search, equals in the order of the proposals (the language model's likeliest first
words come first); so does the ensemble. `oracle` is the share of questions whose answer was proposed at all, `oracle.words` by the language
model itself. With strategy "gradient" each question is asked a second time, of an answerer that writes by gradients: `gradient` is its
answer, made of nothing but the language model's words, so that only a run with its words alone compares like with like.

A clip's questions share what was seen of it, so clips are what is drawn anew in intervals and what has its sign flipped in tests. What
raises is a wrong answer: a question, all of a clip that cannot be made or read, and those that were planned where a worker died.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcm_ros.evidence import Document, Estimate, quantile, rate, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.sight.frames import Clip, check_selection, clip_of, read_clip
from pcm_ros.sim.clips import TEST_FROM, clip
from pcm_ros.tasks.video_qa.answerer import Answer, Answerer, Judged
from pcm_ros.tasks.video_qa.assembly import CLIPS, FRAMES, SCORERS, Strategy, build, check
from pcm_ros.tasks.video_qa.generator import WORDS
from pcm_ros.tasks.video_qa.reading import bare, normalised

METRICS = ("exact", "normalised", "similar")
SIMILAR = 0.85
"""Cosine of MiniLM's vectors of two answers from which they count as the same."""
QUESTIONS = 6
"""At most, of a rendered clip. Most have as many: where a clip cannot be made, so many are taken for asked."""
UNKNOWN = ""
"""Kind of a question of which nothing is known."""
RESAMPLES, FLIPS, BLOCK = 5000, 10_000, 500
"""Draws of clips, of signs, and how many are made at once, so that many clips need little memory."""
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


@dataclass(frozen=True)
class Item:
    """A clip, by number or path, and its questions: (kind, text, answer); none of a rendered clip, which brings its own."""

    source: int | str
    questions: tuple[tuple[str, str, str], ...] = ()

    @property
    def planned(self) -> tuple[str, ...]:
        """Kinds of the questions that are to be asked, as far as they are known before the clip is there."""
        return (UNKNOWN,) * QUESTIONS if isinstance(self.source, int) else tuple(kind for kind, _, _ in self.questions)


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
    """All questions of one clip; those that were planned where it cannot be made or read."""
    frames: Clip | Exception
    questions: Sequence[tuple[str, str, str]] = item.questions or [(kind, "", "") for kind in item.planned]
    try:
        if isinstance(item.source, int):
            made = clip(item.source)
            questions = [(one.kind, one.text, one.answer) for one in made.questions]
            frames = clip_of(made.frames, made.times.tolist(), prepared.frames, prepared.policy)
        else:
            frames = read_clip(item.source, prepared.frames, prepared.policy)
    except Exception as error:
        frames = error
    return {"answers": [_answered(prepared, frames, *one) for one in questions[: prepared.most]]}


def _answered(prepared: _Prepared, frames: Clip | Exception, kind: str, question: str, truth: str) -> dict[str, Any]:
    """A question whose clip cannot be read, or that raises, was asked all the same: nobody's answer is right."""
    try:
        if isinstance(frames, Exception):
            raise frames
        return _asked(prepared.answerer, prepared.writer, frames, kind, question, truth)
    except Exception as error:
        return _failed(kind, question, truth, f"{type(error).__name__}: {error}")


def _failed(kind: str, question: str, truth: str, failure: str) -> dict[str, Any]:
    wrong = dict.fromkeys(("proposed", "proposed_in_words"), False)
    return {"kind": kind, "question": question, "truth": truth, "failure": failure, "answers": {}, "matches": {}, **wrong}


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


def _answers(records: Sequence[Record], planned: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """All questions with "id" and "clip"; of a record that is an error those that were planned, as failures."""
    found = []
    for record in records:
        identity = str(record["id"])
        asked = record.get("answers", [])
        if "error" in record:
            kinds = planned.get(identity, (UNKNOWN,) * QUESTIONS)
            asked = [_failed(kind, "", "", str(record["error"]).strip().rpartition("\n")[2]) for kind in kinds]
        found += [{**one, "id": f"{identity}.{number}", "clip": identity} for number, one in enumerate(asked)]
    return found


class _Clips:
    """Sums by clip of values of questions, for statistics that take clips for independent and the questions of a clip for alike.

    Args:
        clips: of each question, the clip's name.
    """

    def __init__(self, clips: Sequence[str], seed: int = 0) -> None:
        names, self._clip = np.unique(np.array(clips, dtype=str), return_inverse=True)
        self.n, self._seed = len(names), seed
        self._counts = np.bincount(self._clip, minlength=self.n).astype(np.float64)

    def _sums(self, values: Sequence[float]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(self._clip, weights=np.asarray(values, dtype=np.float64), minlength=self.n), dtype=np.float64)

    def mean(self, values: Sequence[float], share: bool = False) -> Estimate:
        """Mean over questions with a percentile bootstrap over clips; n = number of clips. What is alike in all clips has no width.

        Args:
            share: values are outcomes, 0 or 1. Where all are alike the interval is Wilson's of that many clips: that no draw differs does
                not say that other clips would not.
        """
        sums = self._sums(values)
        if self.n == 0:
            return Estimate(math.nan, 0.0 if share else math.nan, 1.0 if share else math.nan, 0, share)
        value = float(sums.sum() / self._counts.sum())
        if share and value in (0.0, 1.0):
            return rate([bool(value)] * self.n)
        if self.n == 1:
            return Estimate(value, math.nan, math.nan, 1, share)
        rng, means = np.random.default_rng(self._seed), []
        for _ in range(0, RESAMPLES, BLOCK):
            drawn = rng.multinomial(self.n, np.full(self.n, 1 / self.n), BLOCK)
            means.append((drawn @ sums) / (drawn @ self._counts))
        low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
        return Estimate(value, float(low), float(high), self.n, share)

    def p_value(self, differences: Sequence[float]) -> Estimate:
        """Two-sided: how often the sum of paired differences is as far from 0 as it is, if each clip's sign is drawn, itself counted.

        At least 1 / (FLIPS + 1).
        """
        sums = self._sums(differences)
        rng, as_far = np.random.default_rng(self._seed), 0
        for _ in range(0, FLIPS, BLOCK):
            signs = rng.integers(0, 2, (BLOCK, self.n)) * 2.0 - 1
            as_far += int((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).sum())
        return Estimate((1 + as_far) / (1 + FLIPS), math.nan, math.nan, self.n)


def summarise(records: Sequence[Record], planned: Mapping[str, Sequence[str]] | None = None) -> dict[str, Estimate]:
    """Shares of right answers over all questions: `NAME` by normalised match, `NAME.exact`, `NAME.similar`, `NAME.kind.KIND`; paired
    differences of the ensemble; seconds; `failures`, questions that raised. n is the number of clips, see `_Clips`.

    Args:
        planned: id -> kinds of the questions that a record was to have; QUESTIONS of unknown kind, which are of no KIND, where it is not
            named.
    """
    asked = _answers(records, planned or {})
    results: dict[str, Estimate] = {}
    names = list(dict.fromkeys(name for one in asked for name in one["matches"]))
    if not asked:
        return results
    every = _Clips([one["clip"] for one in asked])
    right = {name: [float(one["matches"].get(name, {}).get("normalised", False)) for one in asked] for name in names}
    for name in names:
        results[name] = every.mean(right[name], share=True)
        if name in ("ensemble", "language_model"):
            for metric in METRICS:
                results[f"{name}.{metric}"] = every.mean([one["matches"].get(name, {}).get(metric, False) for one in asked], share=True)
    results["oracle"] = every.mean([one["proposed"] for one in asked], share=True)
    results["oracle.words"] = every.mean([one["proposed_in_words"] for one in asked], share=True)
    best = max((name for name in names if name.removeprefix("scorer.") in CLIPS), key=lambda name: results[name].value, default=None)
    for label, name, other in (
        ("ensemble.minus.language_model", "ensemble", "language_model"),
        ("ensemble.minus.best_clip", "ensemble", best),
        ("ensemble.minus.gradient", "ensemble", "gradient"),
        ("gradient.minus.language_model", "gradient", "language_model"),
    ):
        if name in right and other in right:
            differences = [a - b for a, b in zip(right[name], right[other], strict=True)]
            results[label] = every.mean(differences)
            results[f"{label}.p"] = every.p_value(differences)
    for kind in sorted({one["kind"] for one in asked} - {UNKNOWN}):
        rows = [row for row, one in enumerate(asked) if one["kind"] == kind]
        of_kind = _Clips([asked[row]["clip"] for row in rows])
        for name in names:
            results[f"{name}.kind.{kind}"] = of_kind.mean([right[name][row] for row in rows], share=True)
    results["failures"] = every.mean(["failure" in one for one in asked], share=True)
    done = [one for one in asked if "failure" not in one]
    results["seconds_per_answer"] = _Clips([one["clip"] for one in done]).mean([float(one["answer_seconds"]) for one in done])
    results["seconds_per_answer.median"] = quantile([float(one["answer_seconds"]) for one in done], 0.5)
    if written := [one for one in done if "gradient_seconds" in one]:
        seconds = [float(one["gradient_seconds"]) for one in written]
        results["seconds_per_answer.gradient"] = _Clips([one["clip"] for one in written]).mean(seconds)
    firsts = [one for one in done if one["id"] == f"{one['clip']}.0"]
    results["seconds_per_answer.first_of_clip"] = _Clips([one["clip"] for one in firsts]).mean(
        [float(one["answer_seconds"]) for one in firsts]
    )
    return results


def _digest_of(items: Mapping[str, Item]) -> str:
    """Of the videos of items: their names alone do not say what was seen. Raises OSError: one cannot be read."""
    videos = sorted({str(item.source) for item in items.values()})
    return hashlib.sha256("".join(f"{Path(video).name} {content_digest(Path(video))}\n" for video in videos).encode()).hexdigest()[:16]


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
    for name, value, least in (("questions", questions, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; allowed: >= {least}")
    check_selection(frames, policy)
    check(scorers, strategy)
    if data is not None and clips is not None:
        items = read_questions(data, clips, questions)
    else:
        items = {f"clip-{number}": Item(number) for number in range(seed, seed + math.ceil(questions / 5.5))}
    contents = [content_digest(path) for path in (data, model) if path is not None and path.exists()]
    config = {
        "seed": seed if data is None else None,
        "frames": frames,
        "policy": policy,
        "scorers": list(scorers),
        "told": told,
        "strategy": strategy,
        "model": model,
        "data": data,
        "contents": contents if data is None else [*contents, _digest_of(items)],
        "questions_per_clip": QUESTIONS if data is None else None,
        "questions": None if data is None else questions,  # they cut a clip's list
        "clips": None if clips is None else str(clips.resolve()),
    }
    summary = functools.partial(summarise, planned={name: item.planned for name, item in items.items()})
    return run_bench("video", config, items, run_one, summary, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh, headline=_headline)


def _headline(records: Sequence[Record]) -> str:
    asked = _answers(records, {})
    hits = [one["matches"].get("ensemble", {}).get("normalised", False) for one in asked]
    return f"{sum(hits)} of {len(hits)} right" if hits else ""
