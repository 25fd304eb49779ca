"""Partial solutions as a batch of arrays, and what generator and scorers are told about the problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus import Batch

LONGEST_TEXT = 4096
"""Bytes of a solution in UTF-8."""
FEWEST_TOKENS = 4000
TOKENS_A_DRAW = 200


def usual_tokens(draws: int) -> int:
    """Tokens that a problem may cost where nobody says: 200 for each draw of a round (beam * proposals), and never fewer than 4000."""
    return max(FEWEST_TOKENS, TOKENS_A_DRAW * draws)


class OutOfTime(RuntimeError):
    """The deadline, or a cancellation, came before this part could answer."""


def never() -> bool:
    """Nobody cancels."""
    return False


@dataclass(frozen=True)
class Problem:
    """What is to be solved.

    Attributes:
        question: the word problem.
        deadline: time.monotonic() at which work ends; None = none.
        max_tokens: that all proposals together may cost.
        stop: asked between tokens and readings whether to end at once.
    """

    question: str
    deadline: float | None = None
    max_tokens: int = FEWEST_TOKENS
    stop: Callable[[], bool] = never

    @property
    def late(self) -> bool:
        """Whether work must end: the deadline is over, or it was cancelled."""
        return (self.deadline is not None and time.monotonic() >= self.deadline) or self.stop()

    def check_time(self) -> None:
        """Raises OutOfTime when work must end."""
        if self.late:
            raise OutOfTime("cancelled" if self.stop() else "the deadline is over")


def solutions_batch(
    texts: Sequence[str],
    complete: Sequence[bool],
    votes: Sequence[float],
    likelihood: Sequence[float],
    tokens: Sequence[int],
) -> Batch:
    """N partial solutions.

    Args:
        texts: lines, each ended by a line break unless it is the last of a complete solution.
        complete: whether the answer is given. votes: how often it was drawn.
        likelihood: natural logarithm under the generator, of `tokens` tokens; 0 and 0 where no generator made it.

    Returns:
        parameters (N, 2): likelihood, tokens. category: 1 = complete. Extras: "sequence" (N, 4096) uint8, the text in UTF-8, padded by 0;
        "complete" (N,) bool; "votes" (N,) float64.

    Raises:
        ValueError: a text is too long.
    """
    sequence = torch.zeros(len(texts), LONGEST_TEXT, dtype=torch.uint8)
    for row, text in enumerate(texts):
        data = text.encode(errors="replace")
        if len(data) > LONGEST_TEXT:
            raise ValueError(f"solution {row} has {len(data)} bytes; allowed: {LONGEST_TEXT}")
        if data:
            sequence[row, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    done = torch.tensor(list(complete), dtype=torch.bool)
    parameters = torch.tensor([list(likelihood), [float(count) for count in tokens]], dtype=torch.float64).T.contiguous()
    extras = {"sequence": sequence, "complete": done, "votes": torch.tensor(list(votes), dtype=torch.float64)}
    return Batch(parameters, done.to(torch.int64), extras)


def text_of(row: Tensor) -> str:
    """The text of one row of extras["sequence"]."""
    return bytes(row[row > 0].tolist()).decode(errors="replace")


def texts_of(batch: Batch) -> list[str]:
    """The texts of all proposals."""
    return [text_of(row) for row in batch.extras["sequence"]]
