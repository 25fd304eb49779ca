"""The shipped weights do what their cards say, on freshly rendered scenes with shades and pairs that training never saw."""

from __future__ import annotations

import json

import numpy as np
import pybullet
import pytest

from pcm_ros.models import registry
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS
from pcm_ros.tasks.manipulation.assembly import build_grounder, build_vision, clip_expert
from pcm_ros.tasks.manipulation.grounding import Grounder, Region
from training.lexicon import KIND_WORDS
from training.render_scenes import render_scene

SCENES = 12


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, np.ndarray]]:
    client = pybullet.connect(pybullet.DIRECT)
    try:
        return [picture for scene in range(SCENES) for picture in render_scene(client, np.random.default_rng([77, scene]), "test")]
    finally:
        pybullet.disconnect(client)


@pytest.mark.parametrize("name", ["segmenter", "pcm-clip-resnet", "pcm-clip-towers"])
def test_kind_is_recognised_as_often_as_the_card_says(name: str, pictures: list[dict[str, np.ndarray]]) -> None:
    """Kind among eight."""
    check(name, "kind", build_grounder([name], build_vision()), [KIND_WORDS[kind][0] for kind in KINDS], pictures, 0)


@pytest.mark.parametrize("name", ["pcm-clip-resnet", "pcm-clip-towers", "pcm-clip-colors"])
def test_colour_is_recognised_as_often_as_the_card_says(name: str, pictures: list[dict[str, np.ndarray]]) -> None:
    """Colour among twelve, of shades that training never showed."""
    check(name, "colour", clip_expert(name), [f"{color} object" for color in COLORS], pictures, 1)


def check(name: str, figure: str, grounder: Grounder, phrases: list[str], pictures: list[dict[str, np.ndarray]], column: int) -> None:
    """By single regions of at least 60 pixels; the slack is the sampling error of some hundred regions. column: of the truth."""
    promised = json.loads((registry.WEIGHTS / f"{name}.card.json").read_text())["held_out"][figure]
    right = []
    for picture in pictures:
        regions, asked = [], []
        for number, truth in enumerate(picture["truth"]):
            mask = picture["instance"] == number + 1
            if truth[0] >= 0 and mask.sum() >= 60:
                regions.append(Region(number, mask))
                asked.append(int(truth[column]))
        if regions:
            best = grounder.logits(picture["rgb"], regions, phrases).argmax(dim=1)
            right += (best.numpy() == np.array(asked)).tolist()
    assert len(right) > 60
    error = 3 * np.sqrt(0.25 / len(right)) + 0.03
    assert np.mean(right) > promised - error, f"{np.mean(right):.2f} of {len(right)}, the card says {promised:.2f}"
