"""What things in small pictures are called, by several models together: each region has one colour and one kind, among those there are.

Image-text models say of each name by itself whether it fits; in a picture of few pixels that is yes for several names, or for none. Here
names compete, the models' log-odds are summed (a product of experts), and their habits, to call most things a can say, are taken off:
`training/picture_names.py` fits weights and biases to renders.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.sight.naming import STRANGE, Expert
from pcm_ros.sight.things import Sight
from pcm_ros.sight.words import colour_and_kind, colour_question, nearest_kinds, strangeness

NAMES = WEIGHTS / "picture-names.json"
SOFTENED = 0.5
"""Factor of all log-odds: painted things are less clear than the renders to which weights and biases were fitted. Of 0.5 and 1, by 79
of the prompts 0 to 89 of seed 5000."""


@dataclass(frozen=True)
class Vocabulary:
    """How log-odds become the probabilities of names: softmax over the names of sum_e weight_e odds_e + bias.

    Attributes:
        weights: expert -> weight >= 0. biases: name -> nats.
    """

    weights: Mapping[str, float]
    biases: Mapping[str, float]

    def __post_init__(self) -> None:
        numbers = (*self.weights.values(), *self.biases.values())
        if not (self.weights and self.biases and all(map(math.isfinite, numbers)) and min(self.weights.values()) >= 0):
            raise ValueError(f"{self}: allowed are finite numbers, weights >= 0, at least one of each")


@dataclass(frozen=True)
class Names:
    """The names of colours and of kinds. Raises ValueError where they are of different experts."""

    colours: Vocabulary
    kinds: Vocabulary

    def __post_init__(self) -> None:
        if self.colours.weights.keys() != self.kinds.weights.keys():
            raise ValueError(
                f"experts on colours are {sorted(self.colours.weights)}, on kinds {sorted(self.kinds.weights)}; allowed: the same"
            )

    @property
    def experts(self) -> tuple[str, ...]:
        """For which they were fitted."""
        return tuple(self.colours.weights)


@functools.cache
def fitted_names() -> Names:
    """As `training/picture_names.py` left them.

    Raises:
        ModelUnavailable: the file is missing or damaged.
    """
    try:
        content = json.loads(NAMES.read_text())
        return Names(Vocabulary(**content["colours"]), Vocabulary(**content["kinds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(f"'{NAMES}' is missing or damaged ({error!r}); remedy: reinstall pcm_ros") from error


class RegionNames:
    """The names of regions, by the product of several models.

    A word that is no name of the vocabulary competes as one more name, whose bias is the mean of those of the names that it is like.

    Args:
        experts: those of `names.experts`. names: default: as fitted.

    Raises:
        ValueError: other experts. ModelUnavailable: see `fitted_names`.
    """

    def __init__(self, experts: Sequence[Expert], names: Names | None = None) -> None:
        self.names, self._experts = names or fitted_names(), tuple(experts)
        if sorted(found := [expert.name for expert in experts]) != sorted(self.names.experts):
            raise ValueError(f"experts are {found}; allowed: exactly {', '.join(self.names.experts)}")

    def nats(self, sight: Sight, phrases: Sequence[str]) -> Tensor:
        """(M, K) float64, -log P(phrase k is the name of thing m), >= 0. NaN where no expert looked at it."""
        columns = []
        for phrase in phrases:
            colour, kind = colour_and_kind(phrase)
            nats = torch.full((len(sight.things),), STRANGE * strangeness(kind or phrase), dtype=torch.float64)
            if colour:
                nats = nats - self._log_chance(sight, colour, self.names.colours, kinds=False)
            if kind or not colour:
                nats = nats - self._log_chance(sight, kind or phrase, self.names.kinds, kinds=True)
            columns.append(nats)
        return torch.stack(columns, dim=1)

    def _log_chance(self, sight: Sight, word: str, vocabulary: Vocabulary, kinds: bool) -> Tensor:
        """(M,) log probability of one name."""
        words = list(dict.fromkeys((*vocabulary.biases, word)))
        texts = words if kinds else [colour_question(one) for one in words]
        total = torch.tensor([bias_of(one, vocabulary, kinds) for one in words], dtype=torch.float64)
        for expert in self._experts:
            total = total + vocabulary.weights[expert.name] * torch.nanmean(expert.logits(sight, texts, kinds), dim=0).double()
        return (SOFTENED * total).log_softmax(dim=1)[:, words.index(word)]


def bias_of(word: str, vocabulary: Vocabulary, kinds: bool) -> float:
    """Of a name, or the mean of those that a new word is like: of the kinds that it may mean, else of all."""
    if word in vocabulary.biases:
        return vocabulary.biases[word]
    alike = nearest_kinds(word) if kinds else {}
    shares = {name: share for name, share in alike.items() if name in vocabulary.biases} or dict.fromkeys(vocabulary.biases, 1.0)
    return sum(vocabulary.biases[name] * share for name, share in shares.items()) / sum(shares.values())
