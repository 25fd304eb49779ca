"""The shipped weights do what their cards say, on freshly rendered scenes with shades and pairs that training never saw."""

from __future__ import annotations

import json

import numpy as np
import pybullet
import pytest

from pcm_ros.models import registry
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS
from pcm_ros.sim.relation_tasks import FreeTask
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import build_grounder, build_vision, clip_expert
from pcm_ros.tasks.manipulation.grounding import Grounder, Region
from pcm_ros.tasks.manipulation.perception import Perception
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


def test_shapes_are_recognised_as_often_as_the_card_says() -> None:
    """Kind among eight, of objects as perception finds them in scenes that neither training nor calibration saw."""
    promised = json.loads((registry.WEIGHTS / f"{registry.SHAPES}.card.json").read_text())["held_out"]["kind"]
    cell, grounder, right = SimWorkcell("free"), build_grounder([registry.SHAPES], build_vision()), []
    perception = Perception(build_vision(), cell.limits)
    for seed in range(990_000, 990_008):
        kinds = np.random.default_rng(seed).permutation(KINDS)[:5].tolist()
        cell.reset(seed, FreeTask(tuple((kind, None) for kind in kinds)))
        bodies = cell.world.bodies()
        middles = np.array([(body.low + body.high)[:2] / 2 for body in bodies])
        observation = cell.observe()
        for number, thing in enumerate(perception.perceive(observation).objects):
            away = np.hypot(*(middles - thing.center[:2]).T)
            if away.min() < 0.025:
                region = Region(number, np.ones((4, 4), dtype=bool), thing.points)
                best = int(grounder.logits(observation.views[0].rgb, [region], [KIND_WORDS[kind][0] for kind in KINDS]).argmax())
                right.append(KINDS[best] == bodies[int(away.argmin())].spec.kind)
    cell.close()
    assert len(right) > 30
    assert np.mean(right) > promised - 3 * np.sqrt(promised * (1 - promised) / len(right)) - 0.03, f"{np.mean(right):.2f} of {len(right)}"
