"""What is refused before anything is planned, from log-odds alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_scenes import BLUE, GREEN, RED, box, observation, scene

from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.doubts import Doubts
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.policy_config import PolicyConfig

SHAPES = (
    box(0.45, -0.2, (0.05, 0.05, 0.05), RED),
    box(0.55, 0.15, (0.05, 0.05, 0.05), BLUE),
    box(0.65, -0.1, (0.05, 0.05, 0.05), GREEN),
)
NAMES = ("red block", "blue block", "green block")


def refusal(subject: str, reference: str) -> str | None:
    relation = Relation(RelationKind.LEFT_OF, subject, (reference,))
    found = scene(*SHAPES)
    objects = tuple(replace(thing, label=name, label_confidence=0.95) for thing, name in zip(found.objects, NAMES, strict=True))
    given = Context(relation, (), replace(found, objects=objects), observation(*SHAPES))
    logits = torch.tensor([[4.0 if set(text.split()) <= {*name.split(), "object"} else -6.0 for text in relation.texts] for name in NAMES])
    return Doubts(PolicyConfig(), ()).absent(given, logits.double())


@pytest.mark.parametrize(
    ("subject", "reference"),
    [
        ("both blocks", "red block"),  # the two that are not it
        ("both other blocks", "red block"),
        ("both objects", "red block"),
        ("all three blocks", "red block"),
        ("two blocks", "red block"),
        ("both blocks other than blue block", "red block"),
        ("all blocks", "red block"),
    ],
)
def test_numbers_that_fit(subject: str, reference: str) -> None:
    assert refusal(subject, reference) is None


@pytest.mark.parametrize(
    ("subject", "there"),
    [("all four blocks", 2), ("three blocks", 2), ("both blue blocks", 1), ("three objects", 2), ("both red blocks", 0)],
)
def test_numbers_that_do_not(subject: str, there: int) -> None:
    assert f"but {there} look like" in str(refusal(subject, "red block"))
