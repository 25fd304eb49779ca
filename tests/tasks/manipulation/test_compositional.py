"""Colour and kind are asked for apart too: a pair that an expert does not know is known by its parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pcm_ros.tasks.manipulation.grounding import Compositional, Region

REGIONS = [Region(0, np.ones((2, 2), dtype=bool)), Region(1, np.ones((2, 2), dtype=bool))]
IMAGE = np.zeros((2, 2, 3), dtype=np.uint8)


class Table:
    """Says of each region what a table holds."""

    name = "table"

    def __init__(self, **columns: tuple[float, float]) -> None:
        self.columns = {name.replace("_", " "): column for name, column in columns.items()}
        self.asked: list[tuple[str, ...]] = []

    def logits(self, rgb: np.ndarray, regions: Sequence[Region], phrases: Sequence[str]) -> torch.Tensor:
        self.asked.append(tuple(phrases))
        return torch.tensor([self.columns[phrase] for phrase in phrases]).T


def test_a_pair_is_the_mean_of_itself_and_its_weaker_part() -> None:
    expert = Table(black_bowl=(-3.0, 1.0), black_object=(4.0, 2.0), bowl=(2.0, -6.0), mug=(0.0, 0.5))
    logits = Compositional(expert, ["black"]).logits(IMAGE, REGIONS, ["black bowl", "mug"])
    assert logits.tolist() == [[-0.5, 0.0], [-2.5, 0.5]]
    assert len(expert.asked) == 1, "the expert is asked once for all"


@pytest.mark.parametrize("phrase", ["bowl", "black", "soup bowl", "dark black bowl"])
def test_other_phrases_stay_as_they_are(phrase: str) -> None:
    expert = Table(**{phrase.replace(" ", "_"): (1.0, 2.0)})
    assert Compositional(expert, ["black"]).logits(IMAGE, REGIONS, [phrase]).tolist() == [[1.0], [2.0]]
    assert expert.asked == [(phrase,)]
