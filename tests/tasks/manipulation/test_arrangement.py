"""What a goal says by itself: contradictions, the order of its parts, what later stages leave standing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.tasks.manipulation.arrangement import can_hold_together, contradiction, in_order, mirrored, still_wanted
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.instruction import parse


def together(text: str) -> tuple[Relation, ...]:
    (stage,) = parse(text).stages
    return stage


def said(relations: tuple[Relation, ...]) -> list[str]:
    return [str(relation) for relation in relations]


CONSISTENT = [
    "put the mug left of the bowl and the bowl left of the can",
    "put the mug left of the bowl and behind the can",
    "put the mug on the plate and the can on the plate",
    "put the mug on the plate and left of the bowl",
    "put the block in the bowl and the bowl on the plate",
    "put the block between the bowl and the can and the bowl left of the can",
    "put the block next to the bowl and left of the bowl",
    "put two blocks left of the bowl and two blocks right of the bowl",
    "put the red block on the plate and the block behind the plate",
    "stack the plate, the bowl, the can and the block and put the mug behind the plate",
    "put the mug left of the bowl and the can behind the mug",
    "put the mug, the can, the block, the bottle and the bowl on the tray",
    "put the mug, the can and the block on the tray and the mug left of the can and the can left of the block",
]
CONTRADICTORY = {
    "put the mug left of the bowl and the bowl left of the mug": 2,
    "put the mug left of the bowl and right of the bowl": 2,
    "put the mug left of the bowl and behind the bowl": 2,  # cones of 45 degrees
    "put the mug in front of the bowl and the can behind the plate and the bowl in front of the mug": 2,
    "put the block between the bowl and the can and on the bowl": 2,
    "put the mug left of the bowl and the bowl left of the can and the can left of the mug": 3,
    "put the mug on the bowl and the bowl on the mug": 2,
    "put the mug on the bowl, the bowl on the can, the can on the mug": 3,
    "put the can in the bowl and the bowl in the can": 2,
    "put the mug on the plate and left of the plate": 2,
    "put the mug on the tray, the can on the tray, the block on the tray and the mug left of the tray": 2,
    "put the mug left of the bowl and the bowl behind the mug": 2,
    "put the mug on the plate and on the block": 2,
    "put the can behind the mug and the mug on the plate and the can in front of the plate": 3,
    "put all blocks left of the bowl and all blocks right of the bowl": 2,
}


@pytest.mark.parametrize("text", CONSISTENT)
def test_what_can_hold_together(text: str) -> None:
    assert contradiction(together(text)) == ()


@pytest.mark.parametrize("text", CONTRADICTORY)
def test_what_cannot(text: str) -> None:
    relations = together(text)
    clash = contradiction(relations)
    assert len(clash) == CONTRADICTORY[text]
    assert set(clash) <= set(relations)
    assert not can_hold_together(clash)
    for left_out in clash:
        assert can_hold_together([relation for relation in clash if relation is not left_out])


names = [f"thing{number}" for number in range(5)]
kinds = {
    RelationKind.LEFT_OF: (0, 1),
    RelationKind.RIGHT_OF: (0, -1),
    RelationKind.BEHIND: (1, 1),
    RelationKind.IN_FRONT_OF: (1, -1),
}


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=5, unique=True))
@settings(max_examples=30, deadline=None)
def test_what_is_true_of_some_arrangement_is_never_refused(places: list[tuple[int, int]]) -> None:
    """Every relation that holds of objects on a grid of 20 cm."""
    holding = []
    for a, here in enumerate(places):
        for b, there in enumerate(places):
            for kind, (axis, sign) in kinds.items():
                along, across = sign * (here[axis] - there[axis]), abs(here[1 - axis] - there[1 - axis])
                if a != b and along > 0 and across < 0.98 * along:
                    holding.append(Relation(kind, names[a], (names[b],)))
    assert contradiction(holding) == ()


@given(st.lists(st.sampled_from(list(kinds)), min_size=1, max_size=1), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_circles_are_always_refused(kind: list[RelationKind], length: int) -> None:
    circle = [Relation(kind[0], a, (b,)) for a, b in pairwise([*names[:length], names[0]])]
    assert set(contradiction(circle)) == set(circle)


ORDERS = {
    "put the block on the plate and the plate left of the bowl": ["plate left of bowl", "block on plate"],
    "put the can on the block and the block on the plate and the plate behind the bowl": [
        "plate behind bowl",
        "block on plate",
        "can on block",
    ],
    "put the mug left of the bowl and the can behind the plate": ["mug left of bowl", "can behind plate"],
    "put the mug left of the bowl and the bowl behind the plate": ["bowl behind plate", "mug left of bowl"],
    "put the mug on the plate and left of the bowl": ["plate left of bowl", "mug on plate", "mug left of bowl"],
    "put the mug in the box and the box on the plate and the mug behind the can": [
        "plate behind can",
        "box behind can",
        "box on plate",
        "mug in box",
        "mug behind can",
    ],
    "put the mug next to the bowl and the bowl next to the mug": ["mug next to bowl", "bowl next to mug"],
}


@pytest.mark.parametrize("text", ORDERS)
def test_order(text: str) -> None:
    ordered = in_order(together(text))
    if text.startswith("put the mug in the box"):
        assert sorted(said(ordered)) == sorted(ORDERS[text])
        assert said(ordered).index("box on plate") < said(ordered).index("mug in box")
        assert said(ordered).index("plate behind can") < said(ordered).index("box on plate")
        return
    assert said(ordered) == ORDERS[text]


@given(st.permutations(["mug on plate", "plate on box", "box behind can", "can left of fork"]))
@settings(max_examples=24, deadline=None)
def test_the_order_said_does_not_matter(parts: list[str]) -> None:
    relations = [together(f"put {part}")[0] for part in parts]
    ordered = said(in_order(relations))
    assert (
        ordered.index("can left of fork") < ordered.index("box behind can") < ordered.index("plate on box") < ordered.index("mug on plate")
    )


LATER = {
    "put the mug left of the bowl, then put the can behind the bowl": ["mug left of bowl"],
    "put the mug left of the bowl, then put the mug right of the bowl": [],
    "put the mug in the bowl, then put the mug behind the can": [],
    "put the mug in the bowl, then put the bowl behind the can": ["mug in bowl"],
    "put the red mug in the bowl, then put all mugs on the plate": [],
    "put the red mug in the bowl, then put the mug on the plate": [],
    "put the small mug in the bowl, then put the mug on the plate": [],
    "put the small mug in the bowl, then put the smaller mug on the plate": [],
    "put the red mug in the bowl, then put the other mug on the plate": ["red mug in bowl"],
    "put the small mug in the bowl, then put the large mug on the plate": ["small mug in bowl"],
    "put the red mug in the bowl, then put the largest mug left of the can": ["red mug in bowl"],
    "put the mug left of the bowl and behind the can, then put the mug right of the bowl": ["mug behind can"],
}


@pytest.mark.parametrize("text", LATER)
def test_what_later_stages_leave_standing(text: str) -> None:
    first, second = parse(text).stages
    assert said(still_wanted(first, second)) == LATER[text]


def test_the_later_of_earlier_stages_wins() -> None:
    one, two, three = parse("put the mug left of the bowl, then put the mug right of the bowl, then put the can behind the bowl").stages
    assert still_wanted((*one, *two), three) == two


@pytest.mark.parametrize("kind", RelationKind)
def test_mirrored(kind: RelationKind) -> None:
    relation = Relation(kind, "mug", ("bowl", "can") if kind == RelationKind.BETWEEN else ("bowl",))
    other = mirrored(relation)
    if kind in (RelationKind.ON, RelationKind.IN, RelationKind.BETWEEN):
        assert other is None
    else:
        assert other is not None
        assert other.phrases == ("bowl", "mug")
        assert mirrored(other) == relation
        assert mirrored(Relation(kind, "all mugs", ("bowl",))) is None
