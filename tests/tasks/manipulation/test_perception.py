"""From views to objects, on analytic scenes and on the simulator, with the truth in the place of the segmenter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_scenes import BLUE, GREEN, LIMITS, RED, TABLE, Shape, box, cup, observation

from pcm_ros.models.segmentation import ImageFeatures
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import build_vision
from pcm_ros.tasks.manipulation.perception import Perception, PerceptionConfig, table_height
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.vision import Vision
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, Observation


class ColorSegmenter:
    """Embeddings by colour, no votes: what a model would say that sees colours and nothing else. Grey is background."""

    def __init__(self, objectness: float = 1.0) -> None:
        self._objectness = objectness

    def features(self, rgb: np.ndarray) -> ImageFeatures:
        coarse = torch.from_numpy(rgb[2::4, 2::4].astype(np.float32))
        hue = coarse - coarse.mean(dim=2, keepdim=True)
        colored = hue.norm(dim=2) > 20
        embedding = torch.where(colored[..., None], torch.nn.functional.normalize(hue, dim=2), 0.0)
        vote = torch.zeros(3, *colored.shape)
        return ImageFeatures(embedding.permute(2, 0, 1), self._objectness * colored.float(), vote, rgb.shape[:2])

    def logits(self, features: ImageFeatures, phrases: tuple[str, ...]) -> torch.Tensor:
        raise NotImplementedError


def perceive(*shapes: Shape, objectness: float = 1.0, config: PerceptionConfig | None = None) -> Scene:
    return Perception(Vision(ColorSegmenter(objectness)), LIMITS, config or PerceptionConfig()).perceive(observation(*shapes))


BLOCK, CAN, BOWL = box(0.45, -0.2, (0.05, 0.05, 0.05)), cup(0.6, -0.05, 0.03, 0.09, BLUE), cup(0.55, 0.18, 0.07, 0.05, GREEN, flare=0.6)


def test_every_object_once_in_a_stable_order() -> None:
    scene = perceive(BLOCK, CAN, BOWL)
    assert scene.table_height == pytest.approx(TABLE, abs=0.002)
    assert len(scene.objects) == 3
    for thing, (x, y), size in zip(
        scene.objects, ((0.45, -0.2), (0.55, 0.18), (0.6, -0.05)), ((0.05, 0.05), (0.14, 0.05), (0.06, 0.09)), strict=True
    ):
        assert thing.center[:2] == pytest.approx([x, y], abs=0.008)
        assert thing.size[:2] == pytest.approx([size[0]] * 2, abs=0.015)
        assert thing.high[2] == pytest.approx(TABLE + size[1], abs=0.01)


@pytest.mark.parametrize("pair", [(RED, BLUE), (GREEN, RED)])
def test_things_that_touch_are_told_apart(pair: tuple[tuple[int, int, int], ...]) -> None:
    scene = perceive(box(0.45, -0.02, (0.05, 0.05, 0.05), pair[0]), box(0.45, 0.031, (0.05, 0.05, 0.05), pair[1]))
    assert len(scene.objects) == 2
    for thing, color in zip(sorted(scene.objects, key=lambda thing: thing.center[1]), pair, strict=True):
        assert np.abs(thing.colors.mean(axis=0) - color).max() < 40


def test_a_stack_keeps_its_heights() -> None:
    """The lower block does not get points of the upper one, nor the other way round, at the silhouettes."""
    scene = perceive(box(0.5, 0.0, (0.08, 0.08, 0.04), RED), box(0.5, 0.0, (0.04, 0.04, 0.04), BLUE, bottom=TABLE + 0.04))
    assert len(scene.objects) == 2
    lower, upper = sorted(scene.objects, key=lambda thing: float(thing.center[2]))
    assert lower.high[2] == pytest.approx(TABLE + 0.04, abs=0.016)
    assert upper.low[2] == pytest.approx(TABLE + 0.04, abs=0.016)
    assert upper.size[:2] == pytest.approx([0.04, 0.04], abs=0.012)


def test_one_large_object_is_not_cut_up() -> None:
    """Without votes, all that speaks for one object is that there is no gap and no other look."""
    assert len(perceive(cup(0.55, 0.0, 0.11, 0.06, GREEN)).objects) == 1
    assert len(perceive(box(0.55, 0.0, (0.2, 0.05, 0.04), RED)).objects) == 1


@pytest.mark.parametrize(("width", "count"), [(320, 5), (160, 1), (96, 5)])
def test_coarse_cameras_see_the_same_things(width: int, count: int) -> None:
    """160 pixels in one picture: neighbouring pixels lie farther apart than voxels that touch."""
    seen = Observation(observation(BLOCK, CAN, width=width).views[:count])
    scene = Perception(Vision(ColorSegmenter()), LIMITS).perceive(seen)
    assert [thing.center[:2] for thing in scene.objects] == [
        pytest.approx([0.45, -0.2], abs=0.03),  # one camera sees one side
        pytest.approx([0.6, -0.05], abs=0.03),
    ]


def test_small_parts_of_different_colours_are_one_thing() -> None:
    """Each part is too small to be a thing by itself: the whole is not."""
    size = (0.012, 0.012, 0.015)
    striped = [box(0.5, 0.012 * number, size, color) for number, color in enumerate((RED, BLUE, GREEN))]
    (thing,) = perceive(*striped, config=PerceptionConfig(least_voxels=60)).objects
    assert len(thing.points) > 60


def test_what_stands_across_the_border_is_seen_whole() -> None:
    (thing,) = perceive(box(0.79, 0.1, (0.05, 0.05, 0.05))).objects
    assert thing.size[:2] == pytest.approx([0.05, 0.05], abs=0.01)


def test_an_empty_table() -> None:
    scene = perceive()
    assert scene.objects == ()
    assert scene.table_height == pytest.approx(TABLE, abs=0.002)


def test_what_the_segmenter_calls_background_is_left_out() -> None:
    assert perceive(BLOCK, objectness=0.1).objects == ()


def test_what_is_outside_of_the_workspace_is_left_out() -> None:
    assert len(perceive(BLOCK, box(0.95, 0.0, (0.05, 0.05, 0.05))).objects) == 1


def test_the_number_of_objects_is_bounded_and_the_largest_are_kept() -> None:
    scene = perceive(BLOCK, CAN, BOWL, config=PerceptionConfig(most_objects=2))
    assert len(scene.objects) == 2
    assert 0.45 not in [round(float(thing.center[0]), 2) for thing in scene.objects]


def test_the_same_bits_every_time() -> None:
    first, again = perceive(BLOCK, CAN, BOWL), perceive(BLOCK, CAN, BOWL)
    for a, b in zip(first.objects, again.objects, strict=True):
        assert (a.points == b.points).all()
        assert (a.colors == b.colors).all()


def test_depth_with_holes_and_noise() -> None:
    """The embedded segmenter's votes keep objects whole that noise frays."""
    cell = SimWorkcell("relations-2")
    perception = Perception(build_vision(), cell.limits)
    for seed in range(3):
        cell.reset(9000 + seed)
        clean, rng = cell.observe(), np.random.default_rng(seed)
        views = []
        for view in clean.views:
            depth = view.depth + rng.normal(0, 0.0015, view.depth.shape).astype(np.float32)
            depth[rng.random(depth.shape) < 0.3] = rng.choice([0.0, np.nan, np.inf])
            views.append(replace(view, depth=depth.astype(np.float32)))
        expected = perception.perceive(clean).objects
        found = perception.perceive(replace(clean, views=tuple(views))).objects
        assert len(found) == len(expected)
        for thing, true in zip(found, expected, strict=True):
            assert thing.center == pytest.approx(true.center, abs=0.006)


@pytest.mark.parametrize("factor", [0.0, np.nan, 1000.0])
def test_depth_that_says_nothing(factor: float) -> None:
    """None at all, or millimetres for metres."""
    seen = observation(BLOCK)
    broken = Observation(tuple(replace(view, depth=(view.depth * np.float32(factor)).astype(np.float32)) for view in seen.views))
    with pytest.raises(InvalidObservation, match=r"depth points lie inside the workspace .* check depth \(metres, not millimetres\)"):
        table_height(broken, LIMITS)
