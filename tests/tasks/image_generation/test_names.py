"""Names of regions by several models: probabilities, new words, and what the fitted file promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pybullet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcm_ros.models.embedded import embedded_segmenter
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.sight.frames import clip_of
from pcm_ros.sight.things import Region, Sight, Thing
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.pictures import KINDS, Placed, pictures
from pcm_ros.tasks.image_generation import names as names_module
from pcm_ros.tasks.image_generation.assembly import naming_experts
from pcm_ros.tasks.image_generation.names import Names, RegionNames, Vocabulary, bias_of, fitted_names
from pcm_ros.tasks.image_generation.readers import Regions
from training.picture_names import fit, matched, seen_at

ONE = {"weights": {"one": 1.0}, "biases": {"red": 0.0}}
MIXED = json.dumps({"colours": ONE, "kinds": {"weights": {"other": 1.0}, "biases": {"mug": 0.0}}})
ENDLESS = json.dumps({"colours": ONE, "kinds": {"weights": {"one": float("inf")}, "biases": {"mug": 0.0}}})
CLIP = clip_of([np.zeros((16, 16, 3), dtype=np.uint8)], count=1)


class Says:
    """An expert whose log-odds are given: text -> one number for each thing."""

    def __init__(self, name: str, odds: dict[str, list[float]], things: int) -> None:
        self.name, self._odds, self._things = name, odds, things

    def logits(self, sight: Sight, texts: Sequence[str], kinds: bool) -> Tensor:
        return torch.tensor([self._odds.get(text, [0.0] * self._things) for text in texts]).T[None]


def sight_of(things: int) -> Sight:
    region = Region(np.ones((2, 2), dtype=bool), np.zeros(2), np.zeros(4), np.zeros(3))
    found = tuple(Thing({0: region}) for _ in range(things))
    return Sight(CLIP, (), found, np.zeros((1, things, 2)), np.zeros(things), np.zeros(things, dtype=np.int64))


def even(*experts: str) -> Names:
    def vocabulary(words: Sequence[str]) -> Vocabulary:
        return Vocabulary(dict.fromkeys(experts, 1.0), dict.fromkeys(words, 0.0))

    return Names(vocabulary(COLORS), vocabulary(KINDS))


@settings(max_examples=30)
@given(st.lists(st.floats(-30, 30), min_size=len(COLORS) + len(KINDS), max_size=len(COLORS) + len(KINDS)))
def test_the_names_of_a_thing_are_probabilities(odds: list[float]) -> None:
    said = {text: [value] for text, value in zip([*(f"{color} object" for color in COLORS), *KINDS], odds, strict=True)}
    phrases = [f"{color} {kind}" for color in COLORS for kind in KINDS]
    nats = RegionNames([Says("one", said, 1)], even("one")).nats(sight_of(1), phrases)
    assert nats.shape == (1, len(phrases)) and (nats >= 0).all()
    assert float(torch.exp(-nats).sum()) == pytest.approx(1.0)


def test_experts_that_agree_are_surer_and_such_as_disagree_are_not() -> None:
    red, blue = {"red object": [6.0]}, {"blue object": [6.0]}
    chance = {
        label: float(torch.exp(-RegionNames([Says("a", red, 1), Says("b", other, 1)], even("a", "b")).nats(sight_of(1), ["red object"])))
        for label, other in (("agree", red), ("silent", {}), ("disagree", blue))
    }
    assert chance["agree"] > chance["silent"] > chance["disagree"] == pytest.approx(0.5, abs=0.1)


def test_a_new_word_competes_as_one_more_name() -> None:
    said = {"mug": [0.0, 8.0], "beaker": [8.0, 0.0]}
    reader = RegionNames([Says("one", said, 2)], even("one"))
    beaker, mug = reader.nats(sight_of(2), ["beaker", "mug"]).T
    assert beaker[0] < beaker[1] and mug[1] < mug[0]
    assert torch.isfinite(reader.nats(sight_of(2), ["giraffe", "crimson thing", "xyzzy"])).all()


def test_the_bias_of_a_new_word_is_that_of_names_that_it_is_like() -> None:
    biases = dict.fromkeys(KINDS, 0.0) | {"mug": 3.0}
    vocabulary = Vocabulary({"one": 1.0}, biases)
    assert bias_of("mug", vocabulary, kinds=True) == 3.0
    assert bias_of("cup", vocabulary, kinds=True) > bias_of("cube", vocabulary, kinds=True)
    assert bias_of("crimson", vocabulary, kinds=False) == pytest.approx(3.0 / len(KINDS))


def test_only_the_experts_of_the_fit_will_do() -> None:
    with pytest.raises(ValueError, match=r"experts are \['one'\]; allowed: exactly segmenter, pcm-clip"):
        RegionNames([Says("one", {}, 1)])


@pytest.mark.parametrize("content", ["", "{}", '{"colours": {"weights": {}}}', '{"colours": 3, "kinds": 4}', MIXED, ENDLESS])
def test_a_damaged_file_is_told(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "names.json"
    path.write_text(content)
    monkeypatch.setattr(names_module, "NAMES", path)
    fitted_names.cache_clear()
    with pytest.raises(ModelUnavailable, match=r"damaged .*remedy: reinstall"):
        fitted_names()
    fitted_names.cache_clear()


def test_fitting_finds_who_knows_and_who_has_habits() -> None:
    """An expert that knows, one that guesses, and a name that all like too much."""
    rng = torch.Generator().manual_seed(3)
    right = torch.randint(0, 4, (400,), generator=rng)
    knows = 3.0 * torch.nn.functional.one_hot(right, 4) + torch.randn(400, 4, generator=rng)
    guesses = 3.0 * torch.randn(400, 4, generator=rng)
    logits = torch.stack([knows, guesses]).double()
    logits[..., 2] += 4.0
    weights, biases = fit(logits, right)
    assert weights[0] > 5 * weights[1] and biases.argmin() == 2


def test_the_shipped_names_are_right_as_often_as_their_file_says() -> None:
    """On renders of other worlds: colours, kinds."""
    experts, regions = naming_experts(), Regions(embedded_segmenter())
    reader, promised = RegionNames(experts), json.loads(names_module.NAMES.read_text())["held_out"]
    right: list[tuple[bool, bool]] = []
    client = pybullet.connect(pybullet.DIRECT)
    try:
        for world in range(4):
            for rgb, things in pictures(client, 662_000, world, "train"):
                sight = regions.of(rgb)
                order = matched(things, sight.middles[0])
                if order is None:
                    continue
                colours = reader.nats(sight, [f"{color} object" for color in COLORS])[order].argmin(dim=1).tolist()
                kinds = reader.nats(sight, KINDS)[order].argmin(dim=1).tolist()
                found = zip(things, colours, kinds, strict=True)
                right += [(COLORS[colour] == thing.color, KINDS[kind] == thing.kind) for thing, colour, kind in found]
    finally:
        pybullet.disconnect(client)
    shares, error = np.mean(right, axis=0), 3 * np.sqrt(0.03 / len(right)) + 0.02
    assert len(right) > 50
    for share, figure in zip(shares, ("colour", "kind"), strict=True):
        assert share > promised[figure]["together"] - error, f"{figure}: {share:.3f} of {len(right)}"


def test_things_are_matched_with_the_regions_where_a_camera_sees_them() -> None:
    things = [Placed("red", "mug", -0.1, 0.0), Placed("blue", "can", 0.1, 0.05)]
    middles = np.stack([seen_at(things[1]), seen_at(things[0])])
    assert middles[0, 0] > 0.5 > middles[1, 0] and middles[0, 1] < middles[1, 1], "x to the right, y away from the camera"
    assert matched(things, middles) == [1, 0]
    assert matched(things, middles + 0.2) is None and matched(things, middles[:1]) is None
    assert matched([things[0], replace(things[1], host=0)], middles) is None
