"""Margins against the plain definitions of the relations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.manipulation.goal import RelationKind
from pcm_ros.tasks.manipulation.relations import SATURATION, ground_offset, placement_preference, relation_margin
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

MUG = torch.tensor([0.08, 0.08, 0.09], dtype=torch.float64)
BOWL = torch.tensor([0.16, 0.16, 0.06], dtype=torch.float64)
BLOCK = torch.tensor([0.05, 0.05, 0.05], dtype=torch.float64)
metres = st.floats(-0.5, 0.5)
AXES = {
    RelationKind.LEFT_OF: (0, 1.0),
    RelationKind.RIGHT_OF: (0, -1.0),
    RelationKind.BEHIND: (1, 1.0),
    RelationKind.IN_FRONT_OF: (1, -1.0),
}


def margin(
    kind: RelationKind,
    left: float,
    forward: float,
    height: float = 0.0,
    subject: torch.Tensor = MUG,
    reference: torch.Tensor = BOWL,
    second: tuple[float, float] | None = None,
    second_size: torch.Tensor = BOWL,
) -> float:
    offset = torch.tensor([left, forward], dtype=torch.float64)
    other = None if second is None else torch.tensor(second, dtype=torch.float64)
    return float(relation_margin(kind, offset, torch.tensor(height, dtype=torch.float64), subject, reference, other, second_size))


@pytest.mark.parametrize("kind", list(AXES))
@given(left=metres, forward=metres)
def test_positive_direction_margin_implies_the_definition(kind: RelationKind, left: float, forward: float) -> None:
    value = margin(kind, left, forward)
    axis, sign = AXES[kind]
    along, across = sign * (left, forward)[axis], abs((left, forward)[1 - axis])
    if value > 0:
        assert along >= 0.03 and across <= along
    assert value <= SATURATION


@pytest.mark.parametrize("kind", list(AXES))
def test_direction_holds_well_beside_and_fails_opposite_and_on_top(kind: RelationKind) -> None:
    axis, sign = AXES[kind]
    there = [0.0, 0.0]
    there[axis] = 0.18 * sign
    assert margin(kind, *there) > 3
    assert margin(kind, -there[0], -there[1]) < -3
    assert margin(kind, 0.01, 0.01, height=0.06) < -1


@given(angle=st.floats(0, 2 * math.pi), distance=st.floats(0.12, 0.4))
def test_at_most_one_direction_holds(angle: float, distance: float) -> None:
    left, forward = distance * math.cos(angle), distance * math.sin(angle)
    assert sum(margin(kind, left, forward) > 0 for kind in AXES) <= 1


def test_on_needs_contact_with_the_top_and_support_of_the_centre() -> None:
    assert margin(RelationKind.ON, 0, 0, height=0.05, subject=MUG, reference=BLOCK) > 2
    assert margin(RelationKind.ON, 0, 0, height=0.0, subject=MUG, reference=BLOCK) < -2
    assert margin(RelationKind.ON, 0.03, 0, height=0.05, subject=MUG, reference=BLOCK) < 0
    assert margin(RelationKind.ON, 0, 0, height=0.08, subject=MUG, reference=BLOCK) < -2


def test_in_needs_the_bottom_below_the_rim() -> None:
    assert margin(RelationKind.IN, 0, 0, height=0.01, subject=BLOCK) > 2
    assert margin(RelationKind.IN, 0, 0, height=0.06, subject=BLOCK) < -2
    assert margin(RelationKind.IN, 0.09, 0, height=0.01, subject=BLOCK) < -1


def test_what_caps_something_is_not_in_it() -> None:
    bottle, bowl = torch.tensor([0.05, 0.05, 0.17]).double(), torch.tensor([0.15, 0.15, 0.05]).double()
    assert margin(RelationKind.IN, 0, 0, height=0.10, subject=bowl, reference=bottle) < -2
    assert margin(RelationKind.IN, 0, 0, height=0.02, subject=bowl, reference=bowl) > 1, "bowls of one size go into each other"


def test_next_to_is_a_small_gap_on_the_same_level() -> None:
    assert margin(RelationKind.NEXT_TO, 0.14, 0) > 1
    assert margin(RelationKind.NEXT_TO, 0.20, 0) < -1
    assert margin(RelationKind.NEXT_TO, 0.0, 0, height=0.06) < -1


@given(along=st.floats(-0.1, 0.5), lateral=st.floats(-0.2, 0.2))
def test_between_implies_the_definition(along: float, lateral: float) -> None:
    length = 0.4
    value = margin(RelationKind.BETWEEN, along, lateral, subject=BLOCK, second=(along - length, lateral))
    if value > 0:
        assert 0.2 <= along / length <= 0.8 and abs(lateral) <= 0.05
    if abs(along - length / 2) < 0.02 and abs(lateral) < 0.01:
        assert value > 1


def test_what_stands_on_a_reference_is_not_between() -> None:
    plate = torch.tensor([0.2, 0.2, 0.02], dtype=torch.float64)
    near, far = 0.08, 0.22  # from the first reference, to a second one 30 cm away
    assert margin(RelationKind.BETWEEN, near, 0, height=0.02, subject=BLOCK, reference=plate, second=(near - 0.3, 0)) < -3
    assert margin(RelationKind.BETWEEN, far, 0, height=0.02, subject=BLOCK, second=(far - 0.3, 0), second_size=plate) < -3
    for along in (near, far):
        assert margin(RelationKind.BETWEEN, along, 0, subject=BLOCK, reference=BLOCK, second=(along - 0.3, 0), second_size=BLOCK) > 0


def test_between_without_second_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="second_offset"):
        margin(RelationKind.BETWEEN, 0, 0)


@given(left=metres, forward=metres, height=st.floats(-0.1, 0.2))
@pytest.mark.parametrize("kind", list(RelationKind))
def test_margins_are_finite_and_have_finite_gradients(kind: RelationKind, left: float, forward: float, height: float) -> None:
    offset = torch.tensor([[left, forward]], dtype=torch.float64, requires_grad=True)
    value = relation_margin(kind, offset, torch.tensor([height], dtype=torch.float64), MUG, BOWL, offset - 0.3, BLOCK)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(offset.grad).all()  # type: ignore[arg-type]


def test_ground_offset_uses_the_speakers_axes() -> None:
    limits = WorkcellLimits((0, 0, 0), (1, 1, 1), forward=(0.0, 1.0), left=(-1.0, 0.0))
    assert ground_offset(limits, torch.tensor([[0.1, 0.2]])).tolist() == [[pytest.approx(-0.1), pytest.approx(0.2)]]


def test_preference_is_for_near_but_not_touching() -> None:
    def penalty(distance: float) -> float:
        return float(placement_preference(RelationKind.LEFT_OF, torch.tensor([distance, 0.0], dtype=torch.float64), MUG, BOWL))

    assert penalty(0.16) == 0
    assert penalty(0.40) > 2 and penalty(0.10) > 1.9
