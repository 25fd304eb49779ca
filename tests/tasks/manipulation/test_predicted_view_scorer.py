"""The scorer that looks at predicted views, with an expert that knows colours and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_scenes import BLUE, GREEN, RED, box, observation, scene

from pcm_ros.consensus import Batch, Scorer
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.generator import PickPlaceGenerator
from pcm_ros.tasks.manipulation.grounding import Region
from pcm_ros.tasks.manipulation.instruction import parse
from pcm_ros.tasks.manipulation.predicted_view_scorer import PredictedViewScorer
from pcm_ros.tasks.manipulation.world_model import world_model

COLORS = {"red": RED, "green": GREEN, "blue": BLUE}


class ColorExpert:
    """Log-odds 4 - distance of the region's mean colour from that of the phrase's first word / 20; counts how many regions it sees."""

    name = "colors"

    def __init__(self) -> None:
        self.looked_at = 0

    def logits(self, rgb: np.ndarray, regions: Sequence[Region], phrases: Sequence[str]) -> torch.Tensor:
        self.looked_at += len(regions)
        wanted = np.array([COLORS[phrase.split()[0]] for phrase in phrases], dtype=np.float64)
        means = np.array([rgb[region.mask].mean(axis=0) for region in regions])
        return torch.from_numpy(4.0 - np.linalg.norm(means[:, None] - wanted[None], axis=2) / 20)


BLOCK, OTHER = box(0.45, -0.25, (0.05, 0.05, 0.05), RED), box(0.45, 0.25, (0.05, 0.05, 0.05), BLUE)
WALL = box(0.62, 0.0, (0.04, 0.30, 0.16), GREEN)
INSTRUCTION = "put the red block to the left of the blue block"


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(parse(INSTRUCTION).relations[0], (), scene(BLOCK, OTHER, WALL), observation(BLOCK, OTHER, WALL))


def proposals(context: Context, *targets: tuple[int, float, float]) -> Batch:
    """Each target: object, x, y."""
    category = torch.tensor([number for number, _, _ in targets])
    parameters = torch.tensor([[x, y, 0.0] for _, x, y in targets], dtype=torch.float64)
    return PickPlaceGenerator().complete(world_model(context), category, parameters, torch.Generator().manual_seed(0))


def test_contract(context: Context) -> None:
    scorer = PredictedViewScorer(ColorExpert())
    assert isinstance(scorer, Scorer) and scorer.name == "appearance"
    energy = scorer.energy(proposals(context, (0, 0.4, 0.0), (0, 0.45, 0.1)), context)
    assert energy.shape == (2,) and energy.dtype == torch.float64
    assert (energy >= 0).all() and torch.isfinite(energy).all()
    assert PredictedViewScorer(ColorExpert(), ("top",)).name == "appearance:top"
    with pytest.raises(ValueError, match="at least one name"):
        PredictedViewScorer(ColorExpert(), ())


def test_in_the_open_is_better_than_behind_a_wall(context: Context) -> None:
    """The camera in front of the wall does not see what is put right behind it."""
    batch = proposals(context, (0, 0.75, -0.02), (0, 0.56, 0.0))
    front = PredictedViewScorer(ColorExpert(), ("front",)).energy(batch, context)
    assert front[0] < 0.1 and front[1] > front[0] + 1.5
    everywhere = PredictedViewScorer(ColorExpert()).energy(batch, context)
    assert everywhere[0] < everywhere[1] < front[1]  # other cameras see it


def test_hiding_the_reference_costs_too(context: Context) -> None:
    """The wall, put between the camera on the left and the blue block."""
    about_the_wall = replace(context, relation=parse("put the green wall behind the blue block").relations[0])
    scorer = PredictedViewScorer(ColorExpert(), ("left",))
    beside, before = scorer.energy(proposals(context, (2, 0.70, -0.1), (2, 0.46, 0.43)), about_the_wall).tolist()
    assert before > beside + 1.0


def test_moving_another_object_than_the_one_meant_costs_much(context: Context) -> None:
    right, wrong = PredictedViewScorer(ColorExpert()).energy(proposals(context, (0, 0.4, 0.0), (1, 0.4, 0.0)), context).tolist()
    assert right < 0.2 and wrong > 3.0


def test_energies_do_not_depend_on_what_else_is_asked(context: Context) -> None:
    batch = proposals(context, (0, 0.4, 0.0), (1, 0.4, 0.1), (0, 0.56, 0.0))
    scorer = PredictedViewScorer(ColorExpert())
    whole = scorer.energy(batch, context)
    assert torch.equal(scorer.energy(batch, context), whole)
    alone = [float(PredictedViewScorer(ColorExpert()).energy(batch.select([row]), context)[0]) for row in (2, 1, 0)]
    assert alone[::-1] == whole.tolist()


def test_what_does_not_change_is_looked_at_once(context: Context) -> None:
    expert = ColorExpert()
    scorer = PredictedViewScorer(expert)
    scorer.energy(proposals(context, (0, 0.40, 0.0)), context)
    first = expert.looked_at
    scorer.energy(proposals(context, (0, 0.40, 0.0)), context)
    assert expert.looked_at == first  # the leader of an iteration comes again in the next one
    scorer.energy(proposals(context, (0, 0.41, 0.0)), context)
    assert 0 < expert.looked_at - first <= 2 * len(context.observation.views)


def test_a_view_that_is_not_there_is_named(context: Context) -> None:
    with pytest.raises(KeyError, match="cellar"):
        PredictedViewScorer(ColorExpert(), ("cellar",)).energy(proposals(context, (0, 0.4, 0.0)), context)
