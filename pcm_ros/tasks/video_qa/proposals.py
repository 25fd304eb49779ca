"""Answers as a batch of arrays, and what generator and scorers are told about a question."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.sight.things import Sight
from pcm_ros.tasks.video_qa.reading import Reading

LONGEST_ANSWER = 96
"""Bytes of an answer in UTF-8."""


class OutOfTime(RuntimeError):
    """The deadline came before there was anything to answer with."""


@dataclass(frozen=True, eq=False)
class Inquiry:
    """A question about a clip.

    Attributes:
        question: checked. reading: what it asks. sight: what was made of the clip. told: what the things may be called, phrases
            that the generator proposes beside its own words.
        deadline: time.monotonic() at which work ends; None = none.
    """

    question: str
    reading: Reading
    sight: Sight
    told: tuple[str, ...] = ()
    deadline: float | None = None

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check_time(self) -> None:
        """Raises OutOfTime when the deadline is over."""
        if self.late:
            raise OutOfTime("the deadline is over")


def answers_batch(texts: Sequence[str], likelihood: Sequence[float], tokens: Sequence[int], category: Sequence[int]) -> Batch:
    """N whole answers.

    Args:
        texts: none empty, no line breaks. likelihood: natural logarithm under the generator, of `tokens` tokens, the end included.
        category: who proposed it, see `generator`.

    Returns:
        parameters (N, 2): likelihood, tokens. category as given. Extras: "sequence" (N, 96) uint8, the text in UTF-8, padded by 0;
        "complete" (N,) bool, all true.

    Raises:
        ValueError: a text is empty or too long.
    """
    sequence = torch.stack([sequence_of(text) for text in texts])
    parameters = torch.tensor([list(likelihood), [float(count) for count in tokens]], dtype=torch.float64).T.contiguous()
    extras = {"sequence": sequence, "complete": torch.ones(len(texts), dtype=torch.bool)}
    return Batch(parameters, torch.tensor(list(category), dtype=torch.int64), extras)


def texts_of(batch: Batch) -> list[str]:
    """The texts of all proposals."""
    return [text_of(row) for row in batch.extras["sequence"]]


def sequence_of(text: str) -> Tensor:
    """(96,) uint8, the text in UTF-8, padded by 0. Raises ValueError: it is empty or too long."""
    data = text.encode(errors="replace")
    if not 0 < len(data) <= LONGEST_ANSWER:
        raise ValueError(f"answer '{text}' has {len(data)} bytes; allowed: 1..{LONGEST_ANSWER}")
    sequence = torch.zeros(LONGEST_ANSWER, dtype=torch.uint8)
    sequence[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return sequence


def shortened(text: str) -> str:
    """The text if it has at most LONGEST_ANSWER bytes in UTF-8, else as many whole words of it; of one long word, the beginning."""
    data = text.encode(errors="replace")
    if len(data) <= LONGEST_ANSWER:
        return text
    whole_words, _, _ = data[: LONGEST_ANSWER + 1].rpartition(b" ")  # one byte more: a word may end just there
    return (whole_words or data[:LONGEST_ANSWER]).decode(errors="ignore").rstrip()


def text_of(row: Tensor) -> str:
    """The inverse of `sequence_of`."""
    return bytes(row[row > 0].tolist()).decode(errors="replace")
