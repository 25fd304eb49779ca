"""Keys and values of what a language model has read: kept, chosen, joined, and attended to without copies."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Slots:
    """Keys and values of one layer in memory that is allocated once; new tokens are written behind the old ones.

    It has the members of transformers' CacheLayerMixin, without importing transformers before it is needed.
    """

    is_sliding = is_compileable = is_croppable = False

    def __init__(self, keys: Tensor, values: Tensor, filled: int) -> None:
        self.keys, self.values, self.filled, self.is_initialized = keys, values, filled, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the memory is there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        until = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : until] = key_states
        self.values[:, :, self.filled : until] = value_states
        self.filled = until
        return self.keys[:, :, :until], self.values[:, :, :until]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return self.keys.shape[2]


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    prefix: Sequence[tuple[Tensor, Tensor]] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of H query heads over G <= H key heads without copying keys and values H / G times, nor a shared prefix B times.

    Args:
        query: (B, H, T, D). key, value: (B, G, S, D). attention_mask: (B, 1, T, P + S), added to the logits; the first P columns are 0.
        prefix: keys and values of each layer, (1, G, P, D) both, which come before those of every row; empty: P = 0.

    Returns:
        (B, T, H, D), None: what transformers expects of an attention function.
    """
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    grouped = query.reshape(batch, groups, heads // groups * tokens, size)
    logits = (grouped @ key.transpose(2, 3)) * scale
    if attention_mask is not None:
        own = attention_mask[..., attention_mask.shape[-1] - key.shape[2] :]
        logits = (logits.view(batch, groups, heads // groups, tokens, -1) + own.unsqueeze(2)).view(logits.shape)
    if not prefix:
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
        return (weights @ value).view(batch, heads, tokens, size).transpose(1, 2), None
    keys, values = prefix[module.layer_idx]
    length = keys.shape[2]
    if attention_mask is None or attention_mask.shape[-1] != length + key.shape[2]:
        raise RuntimeError(f"a prefix of {length} and {key.shape[2]} keys need a mask of as many columns")
    together = grouped.transpose(0, 1).reshape(groups, -1, size)  # all rows ask the prefix at once
    shared = (together @ keys[0].transpose(1, 2)).view(groups, batch, -1, length).transpose(0, 1) * scale
    weights = torch.softmax(torch.cat([shared, logits], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
    ahead = weights[..., :length].transpose(0, 1).reshape(groups, -1, length) @ values[0]
    result = ahead.view(groups, batch, -1, size).transpose(0, 1) + weights[..., length:] @ value
    return result.reshape(batch, heads, tokens, size).transpose(1, 2), None


@dataclass(frozen=True, eq=False)
class Branches:
    """R texts that the model has read, and what it needs to go on from each: nothing is ever read twice.

    Attributes:
        layers: keys and values of each layer, (R, G, S, D) both: what each row has for itself.
        seen: (R, S) bool, which of the S slots belong to the row's text.
        logits: (R, V) float32, of the token that comes next.
        hidden: (R, H) float32, the last layer's state at the last token.
        prefix: keys and values of each layer, (1, G, P, D) both, of the P tokens with which every row begins: held and read once for all.
            Empty: P = 0.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    seen: Tensor
    logits: Tensor
    hidden: Tensor
    prefix: tuple[tuple[Tensor, Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self.seen)

    @property
    def lengths(self) -> Tensor:
        """(R,) int64 tokens read."""
        return self.seen.sum(dim=1) + self.shared

    @property
    def shared(self) -> int:
        """P, tokens of the common prefix."""
        return self.prefix[0][0].shape[2] if self.prefix else 0

    def unshared(self) -> Branches:
        """The same, each row with a copy of the prefix."""
        if not self.prefix:
            return self
        rows = len(self)
        layers = tuple(
            (torch.cat([a.expand(rows, -1, -1, -1), b], dim=2), torch.cat([c.expand(rows, -1, -1, -1), d], dim=2))
            for (a, c), (b, d) in zip(self.prefix, self.layers, strict=True)
        )
        seen = torch.cat([torch.ones(rows, self.shared, dtype=torch.bool), self.seen], dim=1)
        return Branches(layers, seen, self.logits, self.hidden)

    def select(self, rows: Tensor | Sequence[int], room: int = 0) -> Branches:
        """These rows in this order, each as often as it is named, without unused slots; `room` empty slots are added."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        seen = self.seen[rows]
        longest = int(seen.sum(dim=1).max())
        slots = (~seen).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        layers = []
        for pair in self.layers:
            moved = []
            for tensor in pair:
                wide = tensor.new_empty(len(rows), tensor.shape[1], longest + room, tensor.shape[3])
                wide[:, :, :longest] = tensor[rows[:, None], :, slots].transpose(1, 2)
                wide[:, :, longest:] = 0  # masked slots must hold numbers: 0 * NaN is NaN
                moved.append(wide)
            layers.append((moved[0], moved[1]))
        shown = torch.zeros(len(rows), longest + room, dtype=torch.bool)
        shown[:, :longest] = seen.gather(1, slots)
        return Branches(tuple(layers), shown, self.logits[rows], self.hidden[rows], self.prefix)

    def joined(self, other: Branches) -> Branches:
        """These rows, then the other's."""
        if self.prefix is not other.prefix:
            return self.unshared().joined(other.unshared())
        width = max(self.seen.shape[1], other.seen.shape[1])

        def wide(tensor: Tensor, dim: int) -> Tensor:
            missing = width - tensor.shape[dim]
            return tensor if missing == 0 else nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, missing))

        layers = tuple(
            (torch.cat([wide(a, 2), wide(c, 2)]), torch.cat([wide(b, 2), wide(d, 2)]))
            for (a, b), (c, d) in zip(self.layers, other.layers, strict=True)
        )
        seen = torch.cat([wide(self.seen, 1), wide(other.seen, 1)])
        return Branches(layers, seen, torch.cat([self.logits, other.logits]), torch.cat([self.hidden, other.hidden]), self.prefix)


def gathered(places: Sequence[tuple[Branches, int]]) -> tuple[Branches, list[int]]:
    """Rows of different branches as one: all these branches joined, and each place's row in them."""
    distinct = list({id(branches): branches for branches, _ in places}.values())
    start, offset = {}, 0
    for branches in distinct:
        start[id(branches)] = offset
        offset += len(branches)
    return functools.reduce(Branches.joined, distinct), [start[id(branches)] + row for branches, row in places]


@dataclass(frozen=True, eq=False)
class Grown:
    """What was written behind R texts.

    Attributes:
        tokens: R tuples of ids, the token that ended it included.
        log_likelihoods: R tuples of floats, natural logarithms at temperature 1, one for each token.
        ended: R words: "line" (a line break), "end" (the model's end token), "limit" (tokens) or "deadline".
        branches: the R texts with what was written.
    """

    tokens: tuple[tuple[int, ...], ...]
    log_likelihoods: tuple[tuple[float, ...], ...]
    ended: tuple[str, ...]
    branches: Branches
