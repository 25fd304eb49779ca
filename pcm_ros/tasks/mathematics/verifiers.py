"""Two trained experts of different kind: one reads with the language model, one compares meanings and counts.

Both were trained on solutions that the generator itself drew for training problems, labelled by their answers (Cobbe et al., "Training
verifiers to solve math word problems", arXiv 2110.14168), at the end of every step, so that they judge partial solutions too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pcm_ros.consensus import Batch
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import ModelUnavailable, load_safetensors
from pcm_ros.models.low_rank import merge_adapter
from pcm_ros.models.sentence import DIMENSIONS, SentenceEncoder
from pcm_ros.tasks.mathematics.notation import ANSWER, display
from pcm_ros.tasks.mathematics.proposals import Problem, texts_of
from pcm_ros.tasks.mathematics.reading import FEATURES, structure
from pcm_ros.tasks.mathematics.scorers import ReadSolutions, with_the_worst

HEAD = ("head.weight", "head.bias")


class HiddenStateVerifier:
    """Is this on the way to the right answer? Read off the states of a language model that was tuned for the question.

    Energy: -log p(right up to here), and its mean over all lines, half each; p = sigmoid(w h + b), h = the last layer's state at the line's
    end. A mistake is seen best where it is made, and less behind it. Nats, 0..about 5; 0 for an empty text; a text that the model can't
    read for its length gets the highest of the others. Source: generator + low-rank
    adapter + linear head, trained on its own samples. Wrong when: the mistake needs knowledge that 135M parameters lack; it knows problems
    like those of GSM8K, of up to eight steps.

    Args:
        model: a model of its own that is not packed yet, into which the weights are merged.
        weights: adapter and head, made by training/maths_hidden_verifier.py.

    Raises:
        ModelUnavailable: the file is missing, damaged, or of another architecture.
    """

    differentiable = False

    def __init__(self, model: LanguageModel, weights: Path, name: str = "hidden") -> None:
        self.name, self.cost = name, 0.03
        self._weight, self._bias = load_head(weights, int(model.model.config.hidden_size))
        merge_adapter(model.model, weights)
        model.pack()
        self._read = ReadSolutions(model, scored=False)

    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64. Raises OutOfTime."""
        found = self._read(context, texts_of(batch))
        return with_the_worst([None if read is None else self._judged(read.states) for read in found])

    def forget(self) -> None:
        """See `ReadSolutions.forget`."""
        self._read.forget()

    def _judged(self, states: tuple[Tensor, ...]) -> float:
        if not states:
            return 0.0
        energies = nn.functional.softplus(-(torch.stack(states) @ self._weight + self._bias).double())
        return float((energies[-1] + energies.mean()) / 2)


def load_head(path: Path, size: int) -> tuple[Tensor, Tensor]:
    """(size,) weight and () bias of a verifier's file. Raises ModelUnavailable."""
    load_safetensors(path)  # the checks
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        if not names.issuperset(HEAD):
            raise ModelUnavailable(f"'{path}' holds no verifier's head; remedy: a file made by training/maths_hidden_verifier.py")
        weight, bias = (file.get_tensor(name).float() for name in HEAD)
    if weight.shape != (size,) or bias.numel() != 1:
        raise ModelUnavailable(f"'{path}' is for states of size {len(weight)}, the model's are of {size}; remedy: use it with its model")
    return weight, bias.reshape(())


class SentenceNetwork(nn.Module):
    """Sentence embeddings and structure features -> log-odds that the solution is right."""

    INPUTS = 7 * DIMENSIONS + FEATURES

    def __init__(self, width: int = 96, dropout: float = 0.3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(FEATURES, 64), nn.GELU())
        self.meaning = nn.Sequential(nn.Dropout(dropout), nn.Linear(7 * DIMENSIONS, width), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Sequential(nn.Linear(64 + width, 64), nn.GELU(), nn.Dropout(dropout / 2), nn.Linear(64, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 7 * 384 + 26) -> (N,)."""
        meaning, counts = inputs[:, : 7 * DIMENSIONS], inputs[:, 7 * DIMENSIONS :]
        return self.head(torch.cat([self.features(counts), self.meaning(meaning * 10)], dim=1)).squeeze(1)


class SentenceVerifier:
    """Do the steps fit the question, by meaning and by structure?

    Energy: the mean over the lines of -log p(right up to there), nats, 0..about 5; 0 for an empty text. Source: MiniLM embeddings of the
    question, of the sentence that asks, of the steps' mean and of the last step, their products, and the counts of `reading.structure`,
    through a small network. Wrong when: order matters more than topic ("Ann gives Ben" and "Ben gives Ann" mean nearly the same to it); it
    can't do sums.

    Raises:
        ModelUnavailable: the file is missing or damaged.
    """

    differentiable = False

    def __init__(self, encoder: SentenceEncoder, weights: Path, name: str = "sentence") -> None:
        self.name, self.cost, self._encoder = name, 0.01, encoder
        self._network = SentenceNetwork()
        tensors = load_safetensors(weights)
        try:
            self._network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelUnavailable(f"'{weights}' is no sentence verifier ({error}); remedy: reinstall pcm_ros") from error
        self._network.eval()

    @torch.inference_mode()
    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64. Raises OutOfTime."""
        context.check_time()
        lines = [text.splitlines(keepends=True) for text in texts_of(batch)]
        until = [["".join(part[: count + 1]) for count in range(len(part))] for part in lines]
        if not (distinct := list(dict.fromkeys(text for part in until for text in part))):
            return torch.zeros(len(batch), dtype=torch.float64)
        inputs = sentence_inputs(self._encoder, [context.question] * len(distinct), distinct)
        found = dict(zip(distinct, nn.functional.softplus(-self._network(inputs).double()).tolist(), strict=True))
        energies = [sum(found[text] for text in part) / max(len(part), 1) for part in until]
        return torch.tensor(energies, dtype=torch.float64)


def asking_sentence(question: str) -> str:
    """The last sentence with a question mark, else the last one."""
    sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s+", question) if sentence.strip()]
    return next((sentence for sentence in reversed(sentences) if "?" in sentence), sentences[-1] if sentences else question)


def sentence_inputs(encoder: SentenceEncoder, questions: Sequence[str], solutions: Sequence[str], together: bool = False) -> Tensor:
    """(N, 7 * 384 + 26) float32: what `SentenceNetwork` sees of N solutions, whole or in part.

    Args:
        together: encode all sentences in large batches (training): the same but for rounding.
    """
    steps = [[display(line) for line in text.splitlines() if line.strip() and not line.startswith(ANSWER.strip())] for text in solutions]
    asked = [asking_sentence(question) for question in questions]
    texts = list(dict.fromkeys([*questions, *asked, *(line for lines in steps for line in lines)]))
    encode = encoder.encode_together if together else encoder.encode
    known = dict(zip(texts, encode(texts), strict=True))
    rows = []
    nothing = torch.zeros(DIMENSIONS)
    for question, asks, lines, solution in zip(questions, asked, steps, solutions, strict=True):
        q, a = known[question], known[asks]
        last = known[lines[-1]] if lines else nothing
        mean = torch.stack([known[line] for line in lines]).mean(dim=0) if lines else nothing
        counts = torch.tensor(structure(question, solution), dtype=torch.float32)
        rows.append(torch.cat([q, a, last, mean, a * last, q * mean, (a - last).abs() * bool(lines), counts]))
    return torch.stack(rows)
