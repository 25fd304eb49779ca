"""A language model that says what a script has it say: which line it draws behind which text is then known exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from pcm_ros.models.key_value_cache import Branches, Grown

QUESTION = "How many?"


class ScriptedModel:
    """Tokens are characters. What was read of a text is its number in `texts`.

    Args:
        script: solution so far -> the lines drawn behind it, in turn, each with its line break unless it is the last of a solution.
        stopping: probability of an answer's line, as the model sees it, at temperature 1.
    """

    context = 100_000

    def __init__(self, script: Mapping[str, Sequence[str]], stopping: float = 0.25) -> None:
        self.script, self.stopping = script, stopping
        self.texts: list[str] = []
        self.drawn: list[tuple[str, str, str]] = []  # solution so far, what was written behind it, how it ended

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def _branches(self, texts: Sequence[str]) -> Branches:
        first = len(self.texts)
        self.texts += texts
        longest = max(map(len, texts))
        seen = torch.arange(longest) < torch.tensor([len(text) for text in texts])[:, None]
        logits = torch.full((len(texts), 128), ((1 - self.stopping) / 127), dtype=torch.float32)
        logits[:, ord("#")] = self.stopping
        return Branches((), seen, logits.log(), torch.arange(first, len(self.texts), dtype=torch.float64)[:, None])

    def read(self, texts: Sequence[Sequence[int]]) -> Branches:
        return self._branches([self.decode(text) for text in texts])

    def feed(
        self, branches: Branches, rows: Sequence[int], texts: Sequence[Sequence[int]], scored: bool = True
    ) -> tuple[Branches, tuple[tuple[float, ...], ...]]:
        whole = [self.texts[int(branches.hidden[row, 0])] + self.decode(text) for row, text in zip(rows, texts, strict=True)]
        return self._branches(whole), tuple((-0.1,) * len(text) * scored for text in texts)

    def write(
        self,
        branches: Branches,
        rows: Sequence[int],
        temperature: Sequence[float],
        most: int,
        rng: torch.Generator,
        deadline: float | None = None,
        filled_in: Callable[[str], str | None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Grown:
        whole, tokens, ended, turns = [], [], [], dict.fromkeys(rows, 0)
        for row in rows:
            text = self.texts[int(branches.hidden[row, 0])]
            solution = text.partition("Answer:\n")[2]
            line = self.script[solution][turns[row] % len(self.script[solution])]
            turns[row] += 1
            end = "limit" if len(line) > most else "line" if line.endswith("\n") else "end"
            self.drawn.append((solution, line[:most], end))
            whole.append(text + line[:most])
            tokens.append(tuple(self.encode(line[:most])))
            ended.append(end)
        return Grown(tuple(tokens), tuple((-0.1,) * len(part) for part in tokens), tuple(ended), self._branches(whole))
