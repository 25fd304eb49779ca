"""Goals that are shown: the picture is of another scene, in which what is asked for holds."""

from __future__ import annotations

import numpy as np

from pcm_ros.sim.benchmark_tasks import get_task
from pcm_ros.sim.workcell import SimWorkcell


def test_the_picture_is_of_another_scene_and_the_same_for_the_same_seed() -> None:
    cell = SimWorkcell("image-goal")
    for seed in range(3):
        episode = cell.reset(seed)
        picture = cell.picture
        assert picture is not None
        assert not cell.judge_all(), "the goal is reached before anything moved"
        assert all(not np.array_equal(picture.rgb, view.rgb) for view in cell.observe().views)
        names = {placement.spec.phrase for placement in episode.shown}
        assert set(episode.pictured) <= names
        assert {phrase for relation in episode.relations for phrase in relation.phrases} <= {episode.pictured.get(n, n) for n in names}
        cell.reset(seed)
        assert cell.picture is not None
        assert np.array_equal(cell.picture.rgb, picture.rgb)
        assert np.array_equal(cell.picture.depth, picture.depth, equal_nan=True)
    cell.reset(0, "relations-1")
    assert cell.picture is None
    cell.close()


def test_kinds_of_pictures() -> None:
    """Towers and nests, other colours and the same, two to four objects, and things on the table that are not in the picture."""
    episodes = [get_task("image-goal").sample(np.random.default_rng([seed, 3])) for seed in range(40)]
    assert {episode.notes["stacked"] for episode in episodes} == {True, False}
    assert {episode.notes["recolored"] for episode in episodes} == {True, False}
    assert {episode.notes["pictured_objects"] for episode in episodes} == {2, 3, 4}
    assert any(len(episode.placements) > len(episode.shown) for episode in episodes)
    for episode in episodes:
        assert len(set(episode.pictured.values())) == len(episode.pictured)
