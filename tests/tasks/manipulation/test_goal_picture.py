"""Goals from pictures: relations are read as they stand, whatever the objects are called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import PANDA_LIMITS
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_goal_picture_reader
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError, goal_of_scene
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject

OPPOSITE = {
    RelationKind.LEFT_OF: RelationKind.RIGHT_OF,
    RelationKind.RIGHT_OF: RelationKind.LEFT_OF,
    RelationKind.BEHIND: RelationKind.IN_FRONT_OF,
    RelationKind.IN_FRONT_OF: RelationKind.BEHIND,
}


def box(label: str, x: float, y: float, bottom: float = 0.0, edge: float = 0.04) -> SceneObject:
    """The surface of a cube as points."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-edge / 2, edge / 2, (600, 3))
    side = rng.integers(3, size=600)
    points[np.arange(600), side] = np.sign(points[np.arange(600), side]) * edge / 2
    points += (x, y, bottom + edge / 2)
    return SceneObject(points.astype(np.float32), np.full((600, 3), 128, dtype=np.uint8), label, 0.9)


def scene(*things: SceneObject) -> Scene:
    return Scene(tuple(things), 0.0, PANDA_LIMITS, 0)


def as_said(relation: Relation) -> frozenset[Relation]:
    """A direction and its opposite say the same."""
    if relation.kind not in OPPOSITE:
        return frozenset({relation})
    return frozenset({relation, Relation(OPPOSITE[relation.kind], relation.references[0], (relation.subject,))})


@settings(max_examples=40)
@given(st.floats(0.06, 0.25), st.floats(-30, 30), st.sampled_from(list(OPPOSITE)))
def test_a_clear_direction_is_read(distance: float, askew: float, kind: RelationKind) -> None:
    """Up to 30 degrees beside the axis; at 45 it says nothing."""
    axes = {
        RelationKind.LEFT_OF: np.asarray(PANDA_LIMITS.left),
        RelationKind.RIGHT_OF: -np.asarray(PANDA_LIMITS.left),
        RelationKind.BEHIND: np.asarray(PANDA_LIMITS.forward),
        RelationKind.IN_FRONT_OF: -np.asarray(PANDA_LIMITS.forward),
    }
    angle = np.radians(askew)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y = (turn @ axes[kind]) * distance / np.cos(angle)
    goal = goal_of_scene(scene(box("red block", 0.5 + x, y), box("blue block", 0.5, 0.0)))
    ((relation,),) = goal.stages
    assert Relation(kind, "red block", ("blue block",)) in as_said(relation)


def test_what_stands_askew_says_nothing() -> None:
    with pytest.raises(GoalPictureError, match="no two objects stand clearly"):
        goal_of_scene(scene(box("red block", 0.6, 0.1), box("blue block", 0.5, 0.0)))


def test_a_tower_is_read_from_above_and_named_as_the_correspondence_says() -> None:
    goal = goal_of_scene(scene(box("red block", 0.5, 0.0, 0.04), box("blue block", 0.5, 0.0)), {"red block": "green can"})
    assert goal.stages == ((Relation(RelationKind.ON, "green can", ("blue block",)),),)


def test_where_things_touch_may_be_hidden() -> None:
    """What hangs in the air rests on what is below its middle; what stands beside it does not carry it."""
    aloft = box("red block", 0.5, 0.0, 0.065)
    goal = goal_of_scene(scene(aloft, box("blue block", 0.505, 0.005)))
    assert goal.stages == ((Relation(RelationKind.ON, "red block", ("blue block",)),),)
    beside = goal_of_scene(scene(aloft, box("blue block", 0.5, 0.1)))
    assert all(relation.kind != RelationKind.ON for relation in beside.relations)


@pytest.mark.parametrize(
    ("things", "correspondence", "text"),
    [
        ([box("red block", 0.5, 0.0)], {}, "must show 2 to 6 objects; seen: red block"),
        ([], {}, "seen: nothing"),
        ([box("red block", 0.5, 0.0), box("red block", 0.5, 0.2)], {}, "two objects are both 'red block'"),
        ([box("red block", 0.5, 0.0), box("blue can", 0.5, 0.2)], {"red block": "blue can"}, "two objects are both 'blue can'"),
    ],
)
def test_pictures_that_are_no_goal(things: list[SceneObject], correspondence: dict[str, str], text: str) -> None:
    with pytest.raises(GoalPictureError, match=text):
        goal_of_scene(scene(*things), correspondence)


def test_what_the_simulator_shows_is_read_from_pixels() -> None:
    """Of the relations that hold in the pictures of 8 scenes most are read, in the words of the present scene; few pictures mislead."""
    cell = SimWorkcell("image-goal")
    reader = build_goal_picture_reader(cell.limits, ManipulationConfig())
    read = wanted = 0
    for seed in range(600, 608):
        episode = cell.reset(seed)
        assert cell.picture is not None
        try:
            goal = reader.read(cell.picture, episode.pictured, cell.observe())
        except GoalPictureError:
            goal = None
        found = {said for relation in (goal.relations if goal else ()) for said in as_said(relation)}
        wanted += len(episode.relations)
        read += sum(relation in found for relation in episode.relations)
    cell.close()
    assert read >= 0.7 * wanted, f"{read} of {wanted}"


def test_a_correspondence_for_what_is_not_in_the_picture() -> None:
    cell = SimWorkcell("image-goal", seed=600)
    assert cell.picture is not None
    reader = build_goal_picture_reader(cell.limits, ManipulationConfig())
    names = {f"{color} duck": f"{color} toy" for color in ("red", "green", "blue", "pink", "black", "white", "gray")}
    with pytest.raises(GoalPictureError, match="which is not in the picture"):
        reader.read(cell.picture, names)
    cell.close()
