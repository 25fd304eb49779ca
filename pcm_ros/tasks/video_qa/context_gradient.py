"""Answers written word by word, the experts' gradients moving what the language model remembers of the question.

The paper's strategy for questions about clips (Li et al., arXiv 2210.11522, section 3) on the engine: keys and values of the question,
which the model keeps (its context), are shifted at each step so that the next word pleases the experts, and pulled back towards what the
model says by itself (ZeroCap: Tewel et al., arXiv 2111.14447, equations 2 to 5). Each step starts from the unshifted context.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcm_ros.consensus import Batch, Consensus, Ensemble, Gradient, GradientState, QuorumError, Scorer, Stop
from pcm_ros.models.key_value_cache import Branches
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.video_qa.generator import BREADTH, PREAMBLE, prompt
from pcm_ros.tasks.video_qa.proposals import Inquiry, answers_batch, sequence_of, shortened, text_of

ROUNDS = 6
STEP = 0.3
"""Share of the way that would content each expert: they agree in part, and their steps add up."""
PUSH = 0.3
FLUENCY = 0.2
"""Weight of the pull back to what the model says by itself, ZeroCap's."""
INDIFFERENT = 1e-6
MARKS = ".,;:!?\"'"
Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, eq=False)
class Opening:
    """What was written so far, and the words that may come next.

    Attributes:
        layers: keys and values of the question and of what was written, but for the last token; (1, G, S, D) both, of each layer.
        prefix: those of the preamble, as in `Branches`. last: the token that is read with the shifted context.
        tokens: K that may come next, likeliest first. texts: what the answer is so far with each of them. answers: what the model, left
            alone, would make of each: the experts judge whole answers, for half of one says little.
        plain: (1, V) logarithms of probabilities of the model by itself.
    """

    layers: Layers
    prefix: Layers
    last: int
    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    plain: Tensor

    @property
    def size(self) -> int:
        """D, how many numbers a shift has."""
        return sum(part.numel() for pair in self.layers for part in pair)

    @property
    def length(self) -> float:
        """Of all keys and values as one vector."""
        return float(sum(part.double().square().sum() for pair in self.layers for part in pair)) ** 0.5

    def shifted(self, shift: Tensor) -> Layers:
        """Keys and values with a shift (D,) added."""
        parts, start, layers = shift.to(self.layers[0][0].dtype), 0, []
        for pair in self.layers:
            moved = []
            for tensor in pair:
                moved.append(tensor + parts[start : start + tensor.numel()].view_as(tensor))
                start += tensor.numel()
            layers.append((moved[0], moved[1]))
        return tuple(layers)


class ContextGenerator:
    """One proposal: a shift of the context, from which the next word's probabilities follow.

    Parameters (1, D). Extras: said (1, V) logarithms of probabilities under the shifted context, plain (1, V) the model's own,
    tokens (1, K) that may come next, sequence (1, K, 96) uint8 the answers that they lead to, in UTF-8.

    Args:
        model: not packed, since gradients must pass.
    """

    def __init__(self, model: LanguageModel, opening: Opening) -> None:
        self._model, self._opening = model, opening

    def propose(self, context: Any, state: GradientState | None, rng: torch.Generator) -> Batch:
        """Where the last step led; no shift at first. Nothing is drawn."""
        opening = self._opening
        start = torch.zeros(1, opening.size, dtype=torch.float64) if state is None else state.parameters.detach().clone()
        parameters = start.requires_grad_()
        with torch.enable_grad():
            logits = self._model.logits_after(opening.shifted(parameters[0]), opening.last, opening.prefix)
        extras = {
            "said": torch.log_softmax(logits, dim=1),
            "plain": opening.plain,
            "tokens": torch.tensor([opening.tokens]),
            "sequence": torch.stack([sequence_of(answer) for answer in opening.answers])[None],
        }
        return Batch(parameters, torch.zeros(1, dtype=torch.int64), extras)


class WordExpert:
    """An expert on answers, as one on the next word.

    Energy: the Kullback-Leibler divergence, nats, of the shifted model's probabilities of the words that may come next, from those that
    the model's own would be if it heard the expert: p(word) exp(-E(answer that the word leads to)), normalised. (ZeroCap's equation 4
    leaves p out; an expert that is nearly indifferent then drives the model to say anything.) Range: 0 (the model says what the expert
    would) to about 20. An expert that finds all answers alike has nothing to say: 0, and no gradient. Wrong when: the model, left alone,
    makes a wrong answer of a right word; the right word is not among its likeliest.

    Args:
        expert: on whole answers, see `scorers`.
    """

    differentiable = True

    def __init__(self, expert: Scorer) -> None:
        self.name, self.cost, self._expert = expert.name, expert.cost, expert
        # Of the newest opening: its rounds ask the same. The inquiry is held weakly, an idle expert must not keep images alive.
        self._asked: weakref.ref[Inquiry] | None = None
        self._judged: tuple[bytes, Tensor] = (b"", torch.zeros(0))

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(1,) float64."""
        sequence = batch.extras["sequence"][0]
        key = sequence.numpy().tobytes()
        if self._asked is None or self._asked() is not context or self._judged[0] != key:
            texts = [text_of(row) for row in sequence]
            answers = answers_batch(texts, [0.0] * len(texts), [1] * len(texts), [0] * len(texts))
            with torch.no_grad():
                self._asked, self._judged = weakref.ref(context), (key, self._expert.energy(answers, context).double())
        energies = self._judged[1]
        if float(energies.max() - energies.min()) < INDIFFERENT:
            return 0.0 * batch.parameters.sum(dim=1)
        plain, said = (
            torch.log_softmax(batch.extras[name].gather(1, batch.extras["tokens"]).double(), dim=1) for name in ("plain", "said")
        )
        wanted = torch.log_softmax(plain - energies, dim=1)
        return (wanted.exp() * (wanted - said)).sum(dim=1)


class Fluency:
    """The pull back to the unshifted model: Kullback-Leibler divergence of its probabilities of the next word from the shifted model's,
    nats, >= 0 (ZeroCap's equation 5). Wrong when: the likely is not the true."""

    name, cost, differentiable = "fluency", 1e-3, True

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(1,) float64."""
        said = batch.extras["said"].double()
        return (said.exp() * (said - batch.extras["plain"].double())).sum(dim=1)


@dataclass(frozen=True)
class Written:
    """An answer that was written: text ("" = none), log-likelihood under the model by itself, tokens, why it ended early ("", "deadline",
    "cancelled"), steps of the gradient, and expert -> why it was left out last."""

    text: str
    likelihood: float
    tokens: int
    reason: str
    steps: int
    dropped: Mapping[str, str]


class ContextWriter:
    """Writes answers. One thread at a time.

    Args:
        model: not packed. reader: the same model, which may be packed: reads and looks ahead.
        scorers: experts on answers. weights: name -> weight >= 0, default 1.
        rounds: gradient steps for each word, >= 1. words: looked at for each word, >= 2; None = as many as in `generator.BREADTH`.
        push: > 0, how far an expert may shift the context in a step at most, as a share of its length.
        fluency: weight of `Fluency`, > 0.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        model: LanguageModel,
        reader: LanguageModel,
        scorers: Sequence[Scorer],
        weights: Mapping[str, float] | None = None,
        rounds: int = ROUNDS,
        words: int | None = None,
        push: float = PUSH,
        fluency: float = FLUENCY,
        preamble: str = PREAMBLE,
    ) -> None:
        if rounds < 1 or (words is not None and words < 2) or not push > 0 or not fluency > 0:
            given = f"rounds is {rounds}, words {words}, push {push}, fluency {fluency}"
            raise ValueError(f"{given}; allowed: rounds >= 1, words >= 2, push > 0, fluency > 0")
        self._model, self._reader, self._rounds, self._words, self._push = model, reader, rounds, words, push
        experts: list[Scorer] = [WordExpert(scorer) for scorer in scorers]
        self.names = (*(expert.name for expert in experts), Fluency.name)
        weighed = {expert.name: (weights or {}).get(expert.name, 1.0) for expert in experts}
        self._ensemble = Ensemble([*experts, Fluency()], {**weighed, Fluency.name: fluency}, quorum=1)
        self._preamble = reader.read([reader.encode(preamble)])

    def iterate(
        self, inquiry: Inquiry, seed: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> Generator[tuple[str, int], None, Written]:
        """Text so far and number of steps after each word; returns the answer, of at least one word unless it was stopped before.

        Args:
            stop: asked after each step; true ends the answer, as the deadline of the inquiry does.
        """
        breadth, longest = BREADTH[inquiry.reading.asks]
        asked = self._reader.encode(prompt(inquiry.question))
        branches, _ = self._reader.feed(self._preamble, [0], [asked], scored=False)
        last, text, likelihood, written, steps = asked[-1], "", 0.0, 0, 0
        dropped: dict[str, str] = {}
        while written < longest:
            opening = self._opening(branches, last, text, self._words or breadth, longest - written)
            if opening is None:
                break
            token, done, reason = self._next(opening, inquiry, seed, stop, dropped)
            steps += done
            if reason:
                return Written(text, likelihood, written, reason, steps, dropped)
            likelihood += float(opening.plain[0, token])
            written += 1
            if self._ends(token):
                break
            text = opening.texts[opening.tokens.index(token)]
            yield text, steps
            branches, _ = self._reader.feed(branches, [0], [[token]], scored=False)
            last = token
        return Written(text.rstrip(MARKS), likelihood, written, "", steps, dropped)

    def _ends(self, token: int) -> bool:
        return token in self._reader.end or "\n" in self._reader.piece(token)

    def _next(
        self, opening: Opening, inquiry: Inquiry, seed: int, stop: Callable[[], bool], dropped: dict[str, str]
    ) -> tuple[int, int, str]:
        """The next token, the number of steps, and why it is none ("" = it is one)."""
        names = self.names
        strategy = Gradient(STEP, dict.fromkeys(names, self._push * opening.length), to_zero=names)
        consensus = Consensus(
            ContextGenerator(self._model, opening), self._ensemble, strategy, Stop(self._rounds, agreement=None), keep_leader=False
        )
        shift, done = torch.zeros(opening.size, dtype=torch.float64), 0
        try:
            for iteration in consensus.iterate(inquiry, seed):
                done += 1
                dropped.update(iteration.dropped)
                shift = iteration.state.parameters[0]
                if stop() or inquiry.late:
                    return 0, done, "cancelled" if stop() else "deadline"
        except QuorumError:
            if inquiry.late:
                return 0, done, "deadline"
            raise
        with torch.no_grad():
            logits = self._model.logits_after(opening.shifted(shift), opening.last, opening.prefix)
        return opening.tokens[int(logits[0, list(opening.tokens)].argmax())], done, ""

    def _opening(self, branches: Branches, last: int, text: str, most: int, longest: int) -> Opening | None:
        """What may come next; None: the model has no word to say."""
        plain = torch.log_softmax(branches.logits, dim=1).clone()
        found: dict[str, int] = {}
        for token in plain[0].topk(min(4 * most, plain.shape[1])).indices.tolist():
            piece = self._reader.piece(token)
            longer = " ".join(f"{text}{'' if self._ends(token) else piece}".split())
            if longer and longer not in found and longer.isprintable() and any(c.isalnum() for c in longer):
                found[longer] = token
            if len(found) == most:
                break
        if not found:
            return None
        tokens = list(found.values())
        fed, _ = self._reader.feed(branches, [0] * len(tokens), [[token] for token in tokens], scored=False)
        rest = self._reader.write(fed, list(range(len(tokens))), [0.0] * len(tokens), longest, torch.Generator())
        answers = []
        for longer, token, ahead in zip(found, tokens, rest.tokens, strict=True):
            whole = longer if self._ends(token) else f"{longer}{self._reader.decode(ahead)}".split("\n")[0]
            answers.append(shortened(" ".join(whole.split()).rstrip(MARKS) or longer))
        # Outside of inference mode: what gradients pass must be ordinary tensors.
        own = branches.select([0])
        layers = tuple((keys[:, :, :-1].clone(), values[:, :, :-1].clone()) for keys, values in own.layers)
        prefix = tuple((keys.clone(), values.clone()) for keys, values in own.prefix)
        return Opening(layers, prefix, last, tuple(tokens), tuple(found), tuple(answers), plain)

    def close(self) -> None:
        """End the experts' threads."""
        self._ensemble.close()
