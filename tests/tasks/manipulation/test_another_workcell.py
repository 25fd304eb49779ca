"""The policy on a world that the project did not make: the boundary holds, and the adapter is short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from another_episodes import episodes, truth_of_another
from another_workcell import AnotherWorkcell
from another_world import CAMERAS, TABLE, AnotherWorld
from truth import truth_policy

from pcm_ros.models.loading import set_threads
from pcm_ros.tasks.manipulation.assembly import build_policy
from pcm_ros.tasks.manipulation.perception import table_height
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy
from pcm_ros.tasks.manipulation.policy_events import Outcome
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, PickPlace, Workcell

HERE = Path(__file__).parent
LEAST_SUCCESS = 15  # of 20, with the embedded models


@pytest.fixture(scope="module")
def world() -> Iterator[AnotherWorld]:
    set_threads()
    world = AnotherWorld()
    yield world
    world.close()


@pytest.fixture(scope="module")
def policy(world: AnotherWorld) -> ManipulationPolicy:
    return build_policy(AnotherWorkcell(world), list(CAMERAS))


def test_the_adapter_has_at_most_80_lines() -> None:
    assert len((HERE / "another_workcell.py").read_text().splitlines()) <= 80


def test_the_world_has_nothing_of_the_project() -> None:
    for name, allowed in (("another_world.py", ()), ("another_workcell.py", ("pcm_ros.tasks.manipulation.workcell",))):
        for node in ast.walk(ast.parse((HERE / name).read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(not module.startswith("pcm_ros") or module in allowed for module in modules), (name, modules)


def test_its_calibration_is_right(world: AnotherWorld) -> None:
    """The depth of all cameras agrees on the table, and projecting a thing's middle hits its pixels."""
    world.reset(3)
    cell = AnotherWorkcell(world)
    assert isinstance(cell, Workcell)
    observation = cell.observe()
    assert table_height(observation, cell.limits) == pytest.approx(TABLE[2], abs=0.003)
    hits = 0
    for view in observation.views:
        bodies = world.shots[view.name][1]
        for thing in world.things:
            (u, v), _ = view.project(np.mean(world.box(thing.name), axis=0))
            inside = 0 <= u < bodies.shape[1] and 0 <= v < bodies.shape[0]
            hits += inside and bodies[round(float(v)), round(float(u))] == thing.body
    assert hits >= 0.8 * len(world.things) * len(CAMERAS)


def test_the_same_seed_gives_the_same_world(world: AnotherWorld) -> None:
    pictures = []
    for seed in (4, 5, 4):
        world.reset(seed)
        pictures.append(np.concatenate([view.rgb.ravel() for view in AnotherWorkcell(world).observe().views]))
    assert (pictures[0] == pictures[2]).all()
    assert (pictures[0] != pictures[1]).any()


def test_a_grasp_of_nothing_fails_and_a_stop_is_obeyed(world: AnotherWorld) -> None:
    world.reset(3)
    cell = AnotherWorkcell(world)
    nowhere = np.add(TABLE, (0.36, 0.30, 0.05))
    action = PickPlace(nowhere, 0.0, 0.06, np.add(nowhere, (-0.05, 0, 0)), 0.0)
    assert cell.execute(action).code == ExecutionCode.GRASP_FAILED
    assert cell.execute(action, lambda: True).code == ExecutionCode.CANCELED


def test_with_the_truth(world: AnotherWorld) -> None:
    policy = truth_policy(AnotherWorkcell(world), truth_of_another(world), list(CAMERAS))
    for result in episodes(world, policy, [1, 6]):
        assert result.outcome == Outcome.SUCCESS, result
        assert result.done, result


def test_with_the_models(world: AnotherWorld, policy: ManipulationPolicy) -> None:
    results = list(episodes(world, policy, [3, 8]))
    assert all(result.done for result in results), results


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_episodes_with_the_models(world: AnotherWorld, policy: ManipulationPolicy) -> None:
    results = list(episodes(world, policy, range(20)))
    assert sum(result.done for result in results) >= LEAST_SUCCESS, [result for result in results if not result.done]
