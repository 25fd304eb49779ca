"""A causal language model that proposes answers: the likeliest words, each continued to a short phrase."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from pcm_ros.consensus import Batch, BeamState
from pcm_ros.models.key_value_cache import Branches
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.video_qa.proposals import LONGEST_ANSWER, Inquiry, answers_batch, texts_of

PREAMBLE = """Question: What colour is the car that stops?
Answer: blue

Question: How many dogs are there?
Answer: three

Question: What is on the shelf at the end?
Answer: green vase

Question: Which animal runs first?
Answer: brown horse

Question: Is there a black hat?
Answer: no

Question: What kind of thing is the white object?
Answer: chair

Question: Does the old man sit down?
Answer: yes

"""
"""Worked examples: they show the form of short answers. Nothing of what is asked in benches is among them, colours and numbers aside."""

BREADTH: Mapping[str, tuple[int, int]] = {
    "yes_no": (6, 2),
    "count": (16, 2),
    "colour": (24, 3),
    "kind": (14, 3),
    "object": (14, 4),
    "open": (32, 5),
}
"""What is asked -> how many first words are looked at, and how many tokens may follow them, the end included."""
OPENED = 2
"""Places at which the best answers are re-opened in a later round."""


WORDS, PHRASES = 0, 1
"""Categories of proposals: the language model's own words, and phrases for what is seen in the clip."""


def prompt(question: str) -> str:
    """What follows the preamble."""
    return f"Question: {question}\nAnswer:"


def phrases_of(inquiry: Inquiry) -> list[str]:
    """What the things that are seen could be called, as answers to what is asked; none where it asks for something else."""
    if inquiry.reading.asks == "object":
        return list(dict.fromkeys(inquiry.told))
    if inquiry.reading.asks == "colour":
        return list(dict.fromkeys(" ".join(phrase.split()[:-1]) for phrase in inquiry.told))
    if inquiry.reading.asks == "kind":
        return list(dict.fromkeys(phrase.split()[-1] for phrase in inquiry.told))
    return []


@dataclass(eq=False)
class _Asked:
    """What was proposed for an inquiry: its question as it was read, answer -> log-likelihood and tokens, and the prefixes opened."""

    root: Branches
    met: dict[str, tuple[float, int]] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)


class AnswerGenerator:
    """Whole short answers, N at once.

    First round: the likeliest next words of the model, each continued by what is likeliest after it (category WORDS), and whole phrases
    for what is seen in the clip, where the question asks for a thing, its colour or its kind (category PHRASES; `Inquiry.told`). A later
    round re-opens the best answers so far at their words and proposes the `each` likeliest others there, continued likewise. What was
    proposed before is not proposed again. How many words are looked at, and how long they may get, depends on what is asked (`BREADTH`):
    for yes or no, few will do. The preamble is read once, a question once. Rounds of several inquiries may take turns: each has its own
    record, for as long as it lives.

    Args:
        model: any causal language model.
        share: of the numbers in BREADTH, > 0. each: how many at each opened place, >= 1.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, model: LanguageModel, share: float = 1.0, each: int = 4, preamble: str = PREAMBLE) -> None:
        if not share > 0 or each < 1:
            raise ValueError(f"share is {share} and each {each}; allowed: share > 0, each >= 1")
        self.model, self.share, self.each = model, share, each
        self._preamble = model.read([model.encode(preamble)])
        self._lock = threading.Lock()
        self._inquiries: weakref.WeakKeyDictionary[Inquiry, _Asked] = weakref.WeakKeyDictionary()

    def propose(self, context: Inquiry, state: BeamState | None, rng: torch.Generator) -> Batch:
        """Answers as `answers_batch` describes them. Nothing is drawn: the same question gets the same proposals.

        Raises:
            OutOfTime: the deadline came before the first word.
        """
        with self._lock, torch.inference_mode():
            asked = self._inquiries.get(context)
            if state is None or asked is None:
                context.check_time()
                asked = self._inquiries[context] = _Asked(self._after([self.model.encode(prompt(context.question))]))
            breadth, longest = BREADTH[context.reading.asks]
            if state is None:
                asked.opened.add("")
                own = self._continued(asked, asked.root, [("", 0.0)], max(2, round(self.share * breadth)), longest)
                seen = [phrase for phrase in phrases_of(context) if phrase not in own]
                return self._batch(asked, own, dict(zip(seen, self._likelihoods(asked.root, seen), strict=True)))
            prefixes = []
            for text in texts_of(state.beams):
                words = text.split()
                prefixes += [" ".join(words[:count]) for count in range(1, len(words) + 1)]
            new = [prefix for prefix in dict.fromkeys(prefixes) if prefix not in asked.opened][:OPENED]
            found: dict[str, tuple[float, int]] = {}
            if new and not context.late:
                asked.opened.update(new)
                rows, scores = self.model.feed(asked.root, [0] * len(new), [self.model.encode(f" {prefix}") for prefix in new])
                begun = [(prefix, sum(one)) for prefix, one in zip(new, scores, strict=True)]
                found = self._continued(asked, rows, begun, self.each, longest)
            return self._batch(asked, found or {text: asked.met[text] for text in texts_of(state.beams)})

    def _likelihoods(self, root: Branches, answers: Sequence[str]) -> list[tuple[float, int]]:
        """Log-likelihood and number of tokens of each answer with its end."""
        if not answers:
            return []
        _, scores = self.model.feed(root, [0] * len(answers), [self.model.encode(f" {answer}\n") for answer in answers])
        return [(sum(one), len(one)) for one in scores]

    def _after(self, texts: Sequence[Sequence[int]]) -> Branches:
        return self.model.feed(self._preamble, [0] * len(texts), texts, scored=False)[0]

    @staticmethod
    def _batch(asked: _Asked, words: dict[str, tuple[float, int]], phrases: dict[str, tuple[float, int]] | None = None) -> Batch:
        phrases = phrases or {}
        found = {**words, **phrases}
        asked.met.update(found)
        category = [WORDS] * len(words) + [PHRASES] * len(phrases)
        return answers_batch(list(found), [one for one, _ in found.values()], [tokens for _, tokens in found.values()], category)

    def _continued(
        self, asked: _Asked, rows: Branches, prefixes: Sequence[tuple[str, float]], most: int, longest: int
    ) -> dict[str, tuple[float, int]]:
        """Answers that begin with a prefix (text, log-likelihood): its `most` likeliest next words, each continued to the line's end."""
        top = torch.log_softmax(rows.logits, dim=-1).topk(min(4 * most, rows.logits.shape[1]), dim=1)
        places: list[int] = []
        starts: list[int] = []
        scores: list[float] = []
        for row, (_, before) in enumerate(prefixes):
            likely = [
                (token, score, piece)
                for token, score in zip(top.indices[row].tolist(), top.values[row].tolist(), strict=True)
                if (piece := self.model.piece(token)).strip().isprintable() and any(c.isalnum() for c in piece)
            ]
            # A word begins with a space; a model none of whose likeliest tokens does is taken as it is.
            words = [(token, score) for token, score, piece in likely if piece[:1] == " "] or [one[:2] for one in likely]
            words = words[:most]
            places += [row] * len(words)
            starts += [token for token, _ in words]
            scores += [before + score for _, score in words]
        if not starts:
            return {}
        fed, _ = self.model.feed(rows, places, [[token] for token in starts], scored=False)
        grown = self.model.write(fed, list(range(len(starts))), [0.0] * len(starts), longest, torch.Generator())
        found: dict[str, tuple[float, int]] = {}
        for row, token, score, tokens, likelihoods in zip(places, starts, scores, grown.tokens, grown.log_likelihoods, strict=True):
            line = self.model.decode([token, *tokens]).split("\n")[0]
            answer = " ".join(f"{prefixes[row][0]} {line}".split()).rstrip(".,;:!?\"'")
            if answer and answer not in asked.met and answer not in found and len(answer.encode()) <= LONGEST_ANSWER:
                found[answer] = (score + sum(likelihoods), 1 + len(tokens))
        return found
