"""Messages and arrays: round trips are exact, also through the wire format, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message

from pcm_ros import msg, srv
from pcm_ros.action import Manipulate
from pcm_ros.consensus import Batch, CrossEntropyState
from pcm_ros.nodes import conversions
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.relation_scorer import noun_probabilities
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Gripper, InvalidObservation, PickPlace, View, WorkcellLimits

LIMITS = WorkcellLimits(
    (0.2, -0.4, -0.1), (0.8, 0.4, 0.5), (0.1, 0.2, 0.3), (0.25, 0.75), (0.0, 1.0), (-1.0, 0.0), Gripper("suction", 0.03)
)
finite = st.floats(-1e6, 1e6, allow_subnormal=True)


def through_the_wire(message):  # type: ignore[no-untyped-def]
    return deserialize_message(serialize_message(message), type(message))


def make_view(seed: int = 0, height: int = 6, width: int = 8) -> View:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 2, (height, width)).astype(np.float32)
    depth[0, 0], depth[0, 1] = np.nan, 0
    quaternion = rng.normal(size=4)
    return View(
        "front",
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        depth,
        np.array([[101.1, 0.1, 4.3], [0, 99.7, 2.9], [0, 0, 1]]),
        rng.normal(size=3),
        quaternion / np.linalg.norm(quaternion),
        1_700_000_000_123_456_789,
    )


def make_scene(seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    objects = tuple(
        SceneObject(rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 256, (n, 3), dtype=np.uint8), label, float(rng.uniform()))
        for n, label in ((1, "red mug"), (7, "tasse d'été"))
    )
    return Scene(objects, 0.123456789, LIMITS, 42_000_000_001)


def make_batch(count: int = 5) -> Batch:
    rng = np.random.default_rng(1)
    draw = lambda width: torch.from_numpy(rng.normal(size=(count, width)))  # noqa: E731
    extras = {name: draw(width) for name, width in conversions.EXTRAS.items()}
    return Batch(draw(3), torch.from_numpy(rng.integers(0, 2, count)), extras)


@pytest.mark.parametrize("seed", range(5))
def test_view_round_trip_is_exact(seed: int) -> None:
    view = make_view(seed)
    back = conversions.view_from_message(through_the_wire(conversions.view_message(view)))
    assert (back.name, back.stamp_ns) == (view.name, view.stamp_ns)
    for field in ("rgb", "depth", "intrinsics", "position", "orientation"):
        assert getattr(back, field).dtype == getattr(view, field).dtype
        np.testing.assert_array_equal(getattr(back, field), getattr(view, field))


def test_other_encodings_of_real_cameras() -> None:
    view = make_view()
    message = conversions.view_message(view)
    message.image.encoding, message.image.data = "bgr8", conversions.flat(view.rgb[..., ::-1])
    millimetres = np.nan_to_num(view.depth * 1000).astype(np.uint16)
    message.depth.encoding, message.depth.step, message.depth.data = (
        "16UC1",
        2 * 8 + 6,
        conversions.flat(np.pad(millimetres.view(np.uint8), ((0, 0), (0, 6)))),
    )
    back = conversions.view_from_message(message)
    np.testing.assert_array_equal(back.rgb, view.rgb)
    np.testing.assert_allclose(back.depth, millimetres / 1000, atol=1e-6)


def spoilt(change) -> msg.View:  # type: ignore[no-untyped-def]
    message = conversions.view_message(make_view())
    change(message)
    return message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: setattr(m.image, "encoding", "mono8"), "image encoding is 'mono8'; allowed: rgb8, bgr8"),
        (lambda m: setattr(m.depth, "encoding", "rgb8"), "depth encoding is 'rgb8'; allowed: 32FC1, 16UC1"),
        (lambda m: setattr(m.image, "data", m.image.data[:-1]), "143 bytes with step 24"),
        (lambda m: setattr(m.image, "step", 5), "needs step >= 24"),
        (lambda m: setattr(m.depth, "is_bigendian", 1), "big-endian"),
        (lambda m: setattr(m.depth, "height", 5), "step \\* height"),
        (lambda m: setattr(m.image, "width", 0), "must not be empty"),
        (lambda m: setattr(m, "name", ""), "empty name"),
        (lambda m: setattr(m.header, "frame_id", "camera_link"), "frame_id is 'camera_link'; allowed: 'world'"),
        (lambda m: setattr(m.camera_info, "width", 1280), "the calibration must be that of the image"),
        (lambda m: setattr(m.camera_info, "d", [0.1, 0.0, 0.0, 0.0, 0.0]), "rectify"),
        (lambda m: setattr(m.camera_info, "k", np.zeros(9)), "positive focal lengths"),
        (lambda m: setattr(m.pose.orientation, "w", 9.0), "length"),
        (lambda m: setattr(m.pose.position, "x", float("nan")), "3 finite metres"),
        (lambda m: setattr(m.depth, "data", conversions.flat(np.zeros((6, 32), np.uint8))), "no return at all"),
        (lambda m: setattr(m.depth, "data", conversions.flat(np.full((6, 8), np.nan, np.float32).view(np.uint8))), "no return at all"),
    ],
)
def test_unusable_views_are_named(change, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidObservation, match=text):
        conversions.view_from_message(spoilt(change))


def test_scene_and_limits_round_trip_is_exact() -> None:
    scene = make_scene()
    back = conversions.scene_from_message(through_the_wire(conversions.scene_message(scene)))
    assert (back.table_height, back.limits, back.stamp_ns) == (scene.table_height, scene.limits, scene.stamp_ns)
    for ours, theirs in zip(back.objects, scene.objects, strict=True):
        assert (ours.label, ours.label_confidence) == (theirs.label, theirs.label_confidence)
        np.testing.assert_array_equal(ours.points, theirs.points)
        np.testing.assert_array_equal(ours.colors, theirs.colors)


@pytest.mark.parametrize("length", [0, 2, 6])
def test_scene_objects_of_wrong_length_are_named(length: int) -> None:
    message = conversions.scene_message(make_scene())
    message.objects[0].colors = conversions.flat(np.zeros(length, np.uint8))
    with pytest.raises(conversions.InvalidMessage, match="scene object 0 \\('red mug'\\)"):
        conversions.scene_from_message(message)


def test_impossible_limits_are_named() -> None:
    message = conversions.limits_message(LIMITS)
    message.workspace_max.x = -1.0
    with pytest.raises(conversions.InvalidMessage, match="workspace_min"):
        conversions.limits_from_message(message)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"reach": (0.0, 0.0)}, "reach"),
        ({"reach": (2.0, 1.0)}, "reach"),
        ({"reach": (0.0, float("nan"))}, "reach"),
        ({"forward": (0.0, 0.0), "left": (0.0, 0.0)}, "unit vectors"),
        ({"forward": (float("nan"), 0.0)}, "unit vectors"),
        ({"workspace_max": (1.0, 1.0, float("inf"))}, "finite"),
        ({"base_position": (float("nan"), 0.0, 0.0)}, "finite"),
    ],
)
def test_a_cell_is_not_described_by_what_nobody_filled_in(change: dict[str, tuple[float, ...]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(LIMITS, **change)
    with pytest.raises(ValueError, match="opens"):
        Gripper(max_opening=0.0)


@pytest.mark.parametrize("kind", list(RelationKind))
def test_relation_round_trip(kind: RelationKind) -> None:
    relation = Relation(kind, "grün mug", ("blue bowl", "cup") if kind == RelationKind.BETWEEN else ("blue bowl",))
    assert conversions.relation_from_message(through_the_wire(conversions.relation_message(relation))) == relation


PHRASES = [
    "all red mugs",
    "two largest blocks",
    "both cans",
    "smaller café crème",
    "mug other than red mug",
    "blocks other than all red blocks",
]


@pytest.mark.parametrize("subject", PHRASES)
def test_all_that_a_phrase_says_arrives(subject: str) -> None:
    relation = Relation(RelationKind.BEHIND, subject, ("tallest can other than red can",))
    arrived = conversions.relation_from_message(through_the_wire(conversions.relation_message(relation)))
    assert arrived == relation
    assert arrived.nouns == relation.nouns
    assert arrived.texts == relation.texts
    assert arrived.plural == relation.plural


def test_what_is_said_of_sizes_and_names_arrives() -> None:
    """Scorers weigh phrases by perceived sizes and by how sure perception is of its names: both must be the same in every process."""
    scene = make_scene()
    arrived = conversions.scene_from_message(through_the_wire(conversions.scene_message(scene)))
    relation = Relation(RelationKind.BEHIND, "all largest mugs other than red mug", ("smaller cup",))
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(len(scene.objects), len(relation.texts))))
    assert torch.equal(noun_probabilities(relation, logits, arrived), noun_probabilities(relation, logits, scene))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (msg.Relation(kind="near", subject="a", references=["b"]), "relation kind is 'near'; allowed: left_of"),
        (msg.Relation(kind="on", subject="a", references=["all plates"]), "reference 'all plates' means several objects"),
        (msg.Relation(kind="on", subject="", references=["b"]), "subject is empty"),
        (msg.Relation(kind="between", subject="a", references=["b"]), "needs 2 reference"),
    ],
)
def test_wrong_relations_are_named(message: msg.Relation, text: str) -> None:
    with pytest.raises(conversions.InvalidMessage, match=text):
        conversions.relation_from_message(message)


@given(st.lists(finite, min_size=9, max_size=9))
def test_pick_place_round_trip_is_exact(n: list[float]) -> None:
    action = PickPlace(np.array(n[:3]), n[3], n[4], np.array(n[5:8]), n[8])
    back = conversions.pick_place_from_message(through_the_wire(conversions.pick_place_message(action)))
    assert repr(back) == repr(action)


def test_pick_place_must_be_finite() -> None:
    with pytest.raises(conversions.InvalidMessage, match="finite"):
        conversions.pick_place_from_message(msg.PickPlace(pick_yaw=float("inf")))


def test_proposals_round_trip_is_exact() -> None:
    batch, scene = make_batch(), conversions.scene_message(make_scene())
    back = conversions.batch_from_message(through_the_wire(conversions.proposals_message(batch, scene)))
    assert torch.equal(back.parameters, batch.parameters) and torch.equal(back.category, batch.category)
    assert back.extras.keys() == batch.extras.keys()
    assert all(torch.equal(back.extras[name], batch.extras[name]) for name in batch.extras)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("category", [], "at least one"),
        ("category", [0, 1, 2, 0, 0], "allowed: 0 to 1"),
        ("parameters", [0.0] * 14, "14 numbers; it must have 5 x 3"),
        ("pick", [0.0], "proposals.pick has 1 numbers; it must have 5 x 5"),
        ("motion", [float("nan")] * 20, "proposals.motion holds NaN"),
    ],
)
def test_wrong_proposals_are_named(field: str, value: list[float], text: str) -> None:
    message = conversions.proposals_message(make_batch(), conversions.scene_message(make_scene()))
    setattr(message, field, value)
    with pytest.raises(conversions.InvalidMessage, match=text):
        conversions.batch_from_message(message)


@settings(max_examples=30)
@given(hnp.arrays(np.float64, (4, 3), elements=finite), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_state_round_trip_is_exact(mean: np.ndarray, weights: list[float]) -> None:
    probability = torch.tensor(weights, dtype=torch.float64)
    state = CrossEntropyState(probability / probability.sum(), torch.from_numpy(mean), torch.from_numpy(np.abs(mean)))
    request = srv.Propose.Request()
    conversions.write_state(state, request)
    back = conversions.read_state(through_the_wire(request))
    assert back is not None
    assert torch.equal(back.category_probability, state.category_probability)
    assert torch.equal(back.mean, state.mean) and torch.equal(back.std, state.std)


def test_no_state_is_the_prior() -> None:
    request = srv.Propose.Request()
    conversions.write_state(None, request)
    assert conversions.read_state(through_the_wire(request)) is None


@pytest.mark.parametrize(
    ("probability", "mean", "std", "text"),
    [
        ([1.0], [0.0] * 2, [0.0] * 3, "mean has 2 numbers"),
        ([0.5], [0.0] * 3, [0.0] * 3, "sum to 1"),
        ([1.0], [0.0] * 3, [-1.0] * 3, "std >= 0"),
        ([], [0.0] * 3, [0.0] * 3, "mean has 3 numbers"),
    ],
)
def test_wrong_states_are_named(probability: list[float], mean: list[float], std: list[float], text: str) -> None:
    with pytest.raises(conversions.InvalidMessage, match=text):
        conversions.read_state(srv.Propose.Request(category_probability=probability, mean=mean, std=std))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(nanoseconds: int) -> None:
    assert conversions.nanoseconds_of(conversions.time_message(nanoseconds)) == nanoseconds


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).map(str.strip).filter(bool)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.dictionaries(names, st.sampled_from(["red mug", "largest block", "café"]), max_size=6))
@pytest.mark.parametrize("kind", [Manipulate.Goal, srv.ReadGoalPicture.Request, srv.ResetScene.Response])
def test_goal_picture_round_trip_is_exact(kind, seed: int, correspondence: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    message, picture = kind(), make_view(seed)
    conversions.write_goal_picture(message, picture, correspondence)
    read = conversions.read_goal_picture(through_the_wire(message))
    assert read is not None
    view, names_read = read
    assert list(names_read.items()) == list(correspondence.items())
    for field in ("rgb", "depth", "intrinsics", "position", "orientation"):
        np.testing.assert_array_equal(getattr(view, field), getattr(picture, field))


def test_no_picture_is_none() -> None:
    assert conversions.read_goal_picture(through_the_wire(Manipulate.Goal(instruction="go"))) is None


def test_a_picture_needs_no_name() -> None:
    goal = Manipulate.Goal()
    conversions.write_goal_picture(goal, make_view(), {})
    goal.goal_picture.name = ""
    read = conversions.read_goal_picture(goal)
    assert read is not None and read[0].name == "goal picture"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda g: setattr(g, "pictured", ["a", "b"]), "2 and 1 names; they must have the same number"),
        (lambda g: (setattr(g, "pictured", list("abcdefg")), setattr(g, "present", list("abcdefg"))), "7 and 7 names; .* at most 6"),
        (lambda g: (setattr(g, "pictured", ["a", "a"]), setattr(g, "present", ["b", "c"])), "pictured holds 'a' twice"),
        (lambda g: setattr(g, "pictured", ["  "]), "pictured\\[0\\] has 0 characters; allowed: 1 to 100"),
        (lambda g: setattr(g, "present", ["x" * 101]), "present\\[0\\] has 101 characters"),
        (lambda g: setattr(g, "present", ["all red mugs"]), "present: .*several objects"),
        (lambda g: setattr(g, "goal_picture", msg.View()), "pictured names 'red mug', but there is no goal_picture"),
        (
            lambda g: setattr(g.goal_picture.depth, "data", conversions.flat(np.full((6, 8), np.nan, np.float32).view(np.uint8))),
            "no return",
        ),
        (lambda g: setattr(g.goal_picture.image, "data", []), "goal_picture: view 'front': image has 0 bytes"),
        (lambda g: setattr(g.goal_picture.camera_info, "k", np.zeros(9)), "goal_picture: .*positive focal lengths"),
    ],
)
def test_wrong_goal_pictures_are_named(change, text: str) -> None:  # type: ignore[no-untyped-def]
    goal = Manipulate.Goal()
    conversions.write_goal_picture(goal, make_view(), {"red mug": "blue mug"})
    change(goal)
    with pytest.raises(conversions.InvalidMessage, match=text):
        conversions.read_goal_picture(goal)
