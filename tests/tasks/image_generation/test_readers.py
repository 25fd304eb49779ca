"""What a relation costs, by where the middles of two regions are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.image_generation.prompt import Relation
from pcm_ros.tasks.image_generation.readers import FORESHORTENED, MISSING, misplaced

DIRECTIONS = {"right": 0.0, "front": 90.0, "left": 180.0, "behind": 270.0}  # degrees from x to y, y downwards in the picture


def cost(word: str, degrees: float, distance: float) -> float:
    """Of a subject that stands so far (share of the picture, on the table) in this direction from the object."""
    offset = distance * np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)) / FORESHORTENED])
    return misplaced(Relation(0, word, 1), {0: np.array([0.5, 0.5]) + offset, 1: np.array([0.5, 0.5])})


@given(st.sampled_from(sorted(DIRECTIONS)), st.floats(-25, 25), st.floats(0.25, 0.45))
def test_a_direction_costs_least_where_the_thing_mainly_is(word: str, aside: float, distance: float) -> None:
    costs = {other: cost(other, DIRECTIONS[word] + aside, distance) for other in DIRECTIONS}
    assert costs[word] < 0.3
    assert all(costs[other] > 1.5 for other in DIRECTIONS if other != word)


@given(st.floats(0, 360), st.floats(0, 0.5), st.sampled_from(["right", "behind", "left", "front"]))
def test_exchanging_the_things_exchanges_the_directions(degrees: float, distance: float, word: str) -> None:
    opposite = {"right": "left", "left": "right", "front": "behind", "behind": "front"}[word]
    assert cost(word, degrees, distance) == pytest.approx(cost(opposite, degrees + 180, distance), abs=1e-6)


@pytest.mark.parametrize("word", ["left", "right", "front", "behind", "on", "in"])
def test_a_thing_that_is_not_there_stands_nowhere(word: str) -> None:
    assert misplaced(Relation(0, word, 1), {1: np.array([0.5, 0.5])}) == MISSING


def test_on_is_above_and_in_is_within() -> None:
    over, inside, beside = (np.array(place) for place in ([0.5, 0.38], [0.5, 0.49], [0.8, 0.5]))
    on, within = Relation(0, "on", 1), Relation(0, "in", 1)
    below = {1: np.array([0.5, 0.5])}
    assert misplaced(on, {0: over, **below}) < 0.3 < 2 < misplaced(on, {0: beside, **below})
    assert misplaced(within, {0: inside, **below}) < 0.3 < 2 < misplaced(within, {0: beside, **below})
