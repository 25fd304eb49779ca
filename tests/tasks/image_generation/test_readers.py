"""What readers make of regions: what a relation costs by where the middles are, and two things that are one region."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pybullet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.consensus import Batch
from pcm_ros.sight.frames import clip_of
from pcm_ros.sight.things import Region, Sight, Thing, halves
from pcm_ros.sim.pictures import Placed, pictures, relation
from pcm_ros.tasks.image_generation.assembly import READERS, experts_for
from pcm_ros.tasks.image_generation.prompt import Relation, read_prompt
from pcm_ros.tasks.image_generation.readers import FORESHORTENED, MISSING, UNASKED, ReadingExpert, misplaced

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


class Seen:
    """Regions of given names at given places, and a reader that knows their names; "mug+can" has a mug above and a can below."""

    def __init__(self, *seen: tuple[str, float, float]) -> None:
        self.names = [name for name, _, _ in seen]
        self.sight = self._sight(np.array([[x, y] for _, x, y in seen]))
        self.halves = self._sight(np.array([[x, y + aside] for aside in (-0.05, 0.05) for _, x, y in seen]))

    @staticmethod
    def _sight(middles: np.ndarray) -> Sight:
        count, clip = len(middles), clip_of([np.zeros((16, 16, 3), dtype=np.uint8)], count=1)
        things = tuple(Thing({0: Region(np.ones((8, 8), dtype=bool), middle, np.zeros(4), np.zeros(3))}) for middle in middles)
        return Sight(clip, (), things, middles[None], np.zeros(count), np.zeros(count, dtype=np.int64))

    def of(self, picture: np.ndarray) -> Sight:
        return self.sight

    def halves_of(self, sight: Sight) -> Sight:
        return self.halves

    def nats(self, sight: Sight, phrases: Sequence[str]) -> torch.Tensor:
        upper, lower = ([name.split("+")[part] for name in self.names] for part in (0, -1))
        names = self.names if sight is self.sight else [*upper, *lower]
        return torch.tensor([[0.0 if name == phrase else 9.0 for phrase in phrases] for name in names])

    def energy(self, prompt: str) -> float:
        expert = ReadingExpert("reader", self, self, read_prompt(prompt))  # type: ignore[arg-type]
        batch = Batch(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), {"image": torch.zeros(1, 3, 8, 8)})
        return float(expert.energy(batch, None))


def test_a_relation_is_one_of_all_alike_things() -> None:
    bowl, left, further, right = ("blue bowl", 0.5, 0.5), ("red mug", 0.2, 0.5), ("red mug", 0.1, 0.55), ("red mug", 0.8, 0.5)
    prompt = "two red mugs left of a blue bowl"
    assert Seen(left, further, bowl).energy(prompt) < 0.5
    for seen in ([left, right, bowl], [right, left, bowl], [bowl, left, right]):
        assert Seen(*seen).energy(prompt) > 3
    for seen in ([left, right, bowl], [right, left, bowl]):
        assert Seen(*seen).energy("a blue bowl left of two red mugs") > 3
    assert Seen(left, bowl).energy(prompt) == pytest.approx(2 * MISSING, abs=0.5), "what is not there is not left of it either"


def test_of_several_alike_things_one_carries_it() -> None:
    """'on' is on one of them; all of those above have to be."""
    cans, mugs, aside = [("can", 0.2, 0.5), ("can", 0.8, 0.5)], [("mug", 0.2, 0.38), ("mug", 0.8, 0.38)], ("mug", 0.5, 0.5)
    assert Seen(*mugs, *cans).energy("two mugs on two cans") < 0.5
    for seen in ([mugs[0], aside], [aside, mugs[0]]):
        assert Seen(*seen, *cans).energy("two mugs on two cans") > 3
    assert Seen(("mug+can", 0.2, 0.5), ("mug+can", 0.8, 0.5)).energy("two mugs on two cans") > UNASKED, "only one pair is read apart"


def test_alike_things_beside_two_that_are_one_region() -> None:
    one, near, far = ("mug+can", 0.3, 0.5), ("mug", 0.3, 0.4), ("mug", 0.8, 0.5)
    assert Seen(one).energy("a mug on a can") < 1.5
    assert Seen(one, near).energy("two mugs on a can") < 1.5
    assert Seen(one, far).energy("two mugs on a can") > 4


def test_halves_of_a_region() -> None:
    cells = np.zeros((8, 8), dtype=bool)
    cells[1:7, 3:5] = True
    flat = np.zeros((8, 8), dtype=bool)
    flat[4, 1:6] = True
    empty = np.zeros(3)
    things = tuple(Thing({0: Region(mask, empty[:2], np.zeros(4), empty)}) for mask in (cells, flat))
    clip = clip_of([np.zeros((16, 16, 3), dtype=np.uint8)], count=1)
    sight = Sight(clip, (), things, np.zeros((1, 2, 2)), np.zeros(2), np.zeros(2, dtype=np.int64))
    upper, upper_flat, lower, lower_flat = (thing.regions[0].cells for thing in halves(sight).things)
    assert np.array_equal(upper | lower, cells) and not (upper & lower).any()
    assert np.nonzero(upper)[0].max() < np.nonzero(lower)[0].min()
    assert np.array_equal(upper_flat, flat) and np.array_equal(lower_flat, flat), "a single row is both"
    assert halves(sight).middles[0, 0, 1] < halves(sight).middles[0, 2, 1] and halves(sight).key != sight.key


@pytest.fixture(scope="module")
def stacked() -> list[tuple[np.ndarray, list[Placed]]]:
    """16 renders of one thing on or in another."""
    found: list[tuple[np.ndarray, list[Placed]]] = []
    client = pybullet.connect(pybullet.DIRECT)
    try:
        for world in range(24):
            found += [row for row in pictures(client, 661_000, world, "train") if len(row[1]) == 2 and any(t.host >= 0 for t in row[1])]
            if len(found) >= 16:
                return found[:16]
    finally:
        pybullet.disconnect(client)
    raise AssertionError(f"{len(found)} such renders")


@pytest.mark.parametrize("name", [name for name in READERS if name != "segmenter"])
def test_what_stands_on_something_is_read_though_both_are_one_region(name: str, stacked: list[tuple[np.ndarray, list[Placed]]]) -> None:
    """The true prompt costs less than one that puts the things side by side."""
    right = 0
    for rgb, things in stacked:
        subject = 0 if things[0].host == 1 else 1
        how = relation(subject, 1 - subject, things)
        one, other = (f"a {thing.color} {thing.kind}" for thing in (things[subject], things[1 - subject]))
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        batch = Batch(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), {"image": image})
        prompts = (f"{one} {how} {other}", f"{one} to the left of {other}")
        energies = [float(experts_for(read_prompt(prompt), [name])[0].energy(batch, None)) for prompt in prompts]
        right += energies[0] < energies[1]
    assert right >= 11, f"{right} of 16"
