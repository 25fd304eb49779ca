"""Several experts as one: colour and kind are asked for apart, weighed apart, and both must be true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.models import registry
from pcm_ros.models.registry import Calibration
from pcm_ros.sight.words import COLOURS, VOCABULARY, both, colour_and_thing, nearest_colours, nearest_kinds
from pcm_ros.sim.wording import COLOR_SYNONYMS, KIND_SYNONYMS
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig
from pcm_ros.tasks.manipulation.grounding import GrounderEnsemble, Region

REGIONS = [Region(0, np.ones((2, 2), dtype=bool)), Region(1, np.ones((2, 2), dtype=bool))]
IMAGE = np.zeros((2, 2, 3), dtype=np.uint8)
ALONE = Calibration({"table": 1.0}, {"table": 1.0})


class Table:
    """Says of each region what a table holds."""

    def __init__(self, name: str = "table", **columns: tuple[float, float]) -> None:
        self.name = name
        self.columns = {name.replace("_", " "): column for name, column in columns.items()}
        self.asked: list[str] = []

    def logits(self, rgb: np.ndarray, regions: Sequence[Region], phrases: Sequence[str]) -> torch.Tensor:
        self.asked += phrases
        return torch.tensor([self.columns[phrase] for phrase in phrases]).T


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_a_pair_is_as_likely_as_its_parts_together() -> None:
    expert = Table(black_object=(4.0, 2.0), bowl=(2.0, -6.0), mug=(0.0, 0.5))
    logits = GrounderEnsemble([expert], ALONE).logits(IMAGE, REGIONS, ["black bowl", "mug", "black bowl"])
    assert probability(logits[0, 0]) == pytest.approx(probability(4.0) * probability(2.0))
    assert probability(logits[1, 0]) == pytest.approx(probability(2.0) * probability(-6.0))
    assert logits[:, 1].tolist() == [0.0, 0.5]
    assert torch.equal(logits[:, 0], logits[:, 2])
    assert sorted(expert.asked) == ["black object", "bowl", "mug"], "each text is asked once"


def test_experts_weigh_differently_on_colours_and_on_kinds() -> None:
    seer = Table("seer", red_object=(3.0, -3.0), mug=(5.0, 5.0))
    blind = Table("blind", red_object=(-1.0, 1.0), mug=(-2.0, -2.0))
    shared = Calibration({"seer": 2.0, "blind": 1.0}, {"seer": 1.0, "blind": 0.5}, 0.5, -0.5, 0.25, scale=2.0, bias=1.0)
    logits = GrounderEnsemble([seer, blind], shared).logits(IMAGE, REGIONS, ["red mug", "mug"])
    expected = 2 * both(torch.tensor([5.5, -4.5]), torch.tensor([3.5, 3.5])) + 1
    assert torch.allclose(logits[:, 0], expected)
    assert torch.allclose(logits[:, 1], torch.full((2,), 2 * 4.25 + 1))
    order = GrounderEnsemble([blind, seer], shared).logits(IMAGE, REGIONS, ["red mug", "mug"])
    assert torch.allclose(order, logits)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_both_is_a_product_of_probabilities(first: float, second: float) -> None:
    one = torch.tensor([first, second], dtype=torch.float64)
    result = both(one, one.flip(0))
    assert torch.sigmoid(result).numpy() == pytest.approx((torch.sigmoid(one) * torch.sigmoid(one.flip(0))).numpy(), rel=1e-9)
    assert bool((result <= one.min() + 1e-9).all())


@pytest.mark.parametrize(
    ("phrase", "parts"),
    [
        ("red mug", ("red", "mug")),
        ("dark red coffee mug", ("dark red", "coffee mug")),
        ("ash grey beaker", ("ash grey", "beaker")),
        ("navy blue box", ("navy blue", "box")),
        ("mug", None),
        ("red", None),
        ("wine bottle", None),
        ("mug that is red", None),
        ("", None),
    ],
)
def test_colours_are_told_from_things(phrase: str, parts: tuple[str, str] | None) -> None:
    assert colour_and_thing(phrase) == parts


@pytest.mark.parametrize(("word", "kind"), [("teacup", "mug"), ("beaker", "mug"), ("square block", "block"), ("water bottle", "bottle")])
def test_new_words_are_read_as_what_they_are_like(word: str, kind: str) -> None:
    reading = nearest_kinds(word)
    assert max(reading, key=lambda name: reading[name]) == kind
    assert reading[kind] == 1


@pytest.mark.parametrize("word", ["stapler", "banana", "hammer", "phone", "xyzzy"])
def test_words_unlike_all_kinds_stay_as_they_are(word: str) -> None:
    assert nearest_kinds(word) == {}


def test_a_new_word_counts_half_by_its_relatives() -> None:
    kinds = {"mug": (6.0, -6.0), **dict.fromkeys(("bowl", "block", "can", "bottle", "plate", "duck", "toy"), (-6.0, 6.0))}
    logits = GrounderEnsemble([Table(teacup=(-3.0, -3.0), stapler=(1.0, 2.0), **kinds)], ALONE).logits(
        IMAGE, REGIONS, ["teacup", "stapler"]
    )
    assert logits[0, 0] == pytest.approx((-3 + 6) / 2, abs=0.05)
    assert -3 < logits[1, 0] < 0, "like other vessels too, but less"
    assert logits[:, 1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("crimson", "red", "green"),
        ("magenta", "pink", "green"),
        ("teal", "cyan", "red"),
        ("gold", "yellow", "blue"),
        ("very dark teal", "blue", "red"),
    ],
)
def test_new_colours_are_read_as_those_that_they_look_like(word: str, near: str, far: str) -> None:
    reading = nearest_colours(word)
    assert set(reading) == set(COLOURS) and max(reading.values()) == 1
    assert reading[near] > 0.5 and reading[far] < 0.05


def test_a_colour_that_nobody_named_stays_as_it_is() -> None:
    assert nearest_colours("wibble") == {}
    assert all(nearest_colours(colour)[colour] == 1 for colour in COLOURS)


def test_a_new_colour_counts_half_by_those_that_it_looks_like() -> None:
    told = {f"{colour} object": (-6.0, -6.0) for colour in COLOURS} | {"red object": (6.0, -6.0)}
    table = Table(**{**told, "crimson object": (-3.0, -3.0), "ebony object": (1.0, 2.0), "mug": (9.0, 9.0), "red mug": (0.0, 0.0)})
    logits = GrounderEnsemble([table], ALONE).logits(IMAGE, REGIONS, ["crimson mug", "ebony mug"])
    assert logits[0, 0] == pytest.approx((-3 + 6) / 2, abs=0.05)
    assert logits[1, 0] < -4
    assert logits[:, 1].tolist() == pytest.approx([1.0, 2.0], abs=0.01)


def test_no_kind_is_taken_for_a_colour() -> None:
    for word in KIND_SYNONYMS:
        assert colour_and_thing(f"{word.word} thing") is None, word
    named = [word.word for word in COLOR_SYNONYMS if colour_and_thing(f"{word.word} mug") == (word.word, "mug")]
    assert len(named) > 0.8 * len(COLOR_SYNONYMS)
    assert all(colour_and_thing(phrase) == tuple(phrase.split()) for phrase in VOCABULARY)


def test_nothing_to_ask() -> None:
    ensemble = GrounderEnsemble([Table(mug=(0.0, 0.0))], ALONE)
    assert ensemble.logits(IMAGE, [], ["mug"]).shape == (0, 1)
    assert ensemble.logits(IMAGE, REGIONS, []).shape == (2, 0)


def test_ensembles_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one"):
        GrounderEnsemble([], ALONE)
    with pytest.raises(ValueError, match="unique"):
        GrounderEnsemble([Table(), Table()], ALONE)
    with pytest.raises(ValueError, match="no weight for \\['other'\\]"):
        GrounderEnsemble([Table("other")], ALONE)
    for wrong in ({"scale": 0.0}, {"bias": math.nan}, {"color": {"table": -1.0}}, {"thing": {"table": math.inf}}):
        with pytest.raises(ValueError, match="allowed are finite numbers"):
            replace(ALONE, **wrong)


def test_every_default_expert_is_calibrated_alone_and_together() -> None:
    names = ManipulationConfig().grounders
    assert {*names, registry.calibration_name(names)} <= set(registry.calibrations())
    together = registry.calibration(names[::-1])
    assert set(together.color) == set(together.thing) == set(names)
    some = registry.calibration(names[:2])
    alone = [registry.calibration([name]) for name in names[:2]]
    assert some.color[names[0]] == pytest.approx(alone[0].color[names[0]] / 2)
    assert some.scale == pytest.approx((alone[0].scale + alone[1].scale) / 2)
    assert registry.calibration(["unheard of"]).color == {"unheard of": 1.0}
