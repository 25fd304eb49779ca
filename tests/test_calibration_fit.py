"""Weights of experts that may be wrong: what the fit is made of, and that nobody who is right on its scenes rules on others."""

from __future__ import annotations

import numpy as np
import torch

from pcm_ros.benchmarks.grounding import ABSENT
from training.calibrate import MISTAKES, Answers, minimised, mistaken, of_numbers

OBJECTS = 6


def scene(rng: np.random.Generator, experts: int) -> Answers:
    """A phrase for each object and one for none of them, one view; the first expert is surer than the others, all are right."""
    right = torch.tensor([*range(OBJECTS), ABSENT])
    sure = torch.tensor([6.0, *(2.0 for _ in range(experts - 1))], dtype=torch.float64)
    told = sure[:, None, None, None] * (2 * torch.eye(OBJECTS, OBJECTS + 1, dtype=torch.float64) - 1)[None, None]
    told = told + torch.from_numpy(rng.normal(0, 0.5, told.shape))
    seen = torch.ones((1, OBJECTS, OBJECTS + 1), dtype=torch.bool)
    return Answers(torch.zeros_like(told), told, seen, torch.zeros(OBJECTS + 1, dtype=torch.bool), right)


def test_now_and_then_an_expert_takes_an_object_for_another_in_all_views() -> None:
    rng = np.random.default_rng(0)
    changed = []
    for _ in range(60):
        whole = scene(rng, 3)
        confused = mistaken(whole, rng)
        rows = (confused.thing != whole.thing).any(dim=-1)[:, 0]  # (experts, objects)
        changed.append(float(rows.double().mean()))
        for expert, number in rows.nonzero().tolist():
            others = [bool((confused.thing[expert, :, number] == whole.thing[expert, :, other]).all()) for other in range(OBJECTS)]
            assert any(others), "it says what it said of another object"
    assert abs(np.mean(changed) - MISTAKES * (1 - 1 / OBJECTS)) < 0.04


def test_what_is_not_seen_stays_without_a_word() -> None:
    rng = np.random.default_rng(1)
    whole = scene(rng, 3)
    whole.seen[0, 2] = False
    whole.thing[:, 0, 2] = 0.0
    for _ in range(40):
        assert not mistaken(whole, rng).thing[:, 0, 2].any()


def test_the_surest_expert_counts_less_where_all_may_be_wrong() -> None:
    rng = np.random.default_rng(2)
    scenes = [scene(rng, 3) for _ in range(12)]
    start = torch.zeros(2 * 3 + 5, dtype=torch.float64)
    trusting, wary = (
        of_numbers(minimised(told, start, slice(0, None)), 3)[1] for told in (scenes, [mistaken(one, rng) for one in scenes * 3])
    )
    said = torch.tensor([6.0, 2.0, 2.0], dtype=torch.float64)  # log-odds that each gives for its object
    share = [float(weights[0] * said[0] / (weights * said).sum()) for weights in (trusting, wary)]
    assert share[1] < share[0] and share[1] < 0.5, "the two others outvote it"
