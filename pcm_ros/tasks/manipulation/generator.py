"""Proposals of pick-and-place actions with what each is predicted to lead to: the generator of the manipulation task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus import Batch, CrossEntropyState
from pcm_ros.tasks.manipulation.grasps import RELEASE_ROOM, gripper_penetration, nearest_turn, plan_grasps
from pcm_ros.tasks.manipulation.world_model import PlanningContext, WorldModel, world_model

# Between the release and the rest: what is not pressed into its support cannot push it away.
RELEASE_HEIGHT = 0.004
MOST_PROPOSALS = 100_000
"""Of one iteration: memory."""


class NothingToGrasp(RuntimeError):
    """The scene has no object that the gripper can take. The message says how many objects there are and why none can be taken."""


@dataclass(frozen=True)
class GeneratorConfig:
    """How proposals are drawn.

    Attributes:
        count: proposals per iteration, 1 to MOST_PROPOSALS.
        explore: share of the proposals drawn from the prior although the strategy has learnt something, 0..1; half of their objects are
            drawn by what it has learnt: with few proposals in a round, the right object seldom meets the right place otherwise.
        modes: weights of the prior's kinds of target: anywhere, beside another object, on top of or in it, between two.
        temperature: of the choice among an object's grasps by log quality; 0.25 takes one of half the quality 1 time in 16.
    """

    count: int = 256
    explore: float = 0.5
    modes: tuple[float, float, float, float] = (0.15, 0.5, 0.2, 0.15)
    temperature: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_PROPOSALS:
            raise ValueError(f"generator.count is {self.count}; allowed: 1 to {MOST_PROPOSALS}")
        if not 0 <= self.explore <= 1:
            raise ValueError(f"generator.explore is {self.explore}; allowed: 0..1")
        if len(self.modes) != 4 or min(self.modes) < 0 or sum(self.modes) <= 0:
            raise ValueError(f"generator.modes is {self.modes}; four weights >= 0 are needed, not all 0")
        if not self.temperature > 0:
            raise ValueError(f"generator.temperature is {self.temperature}; allowed: > 0")


class PickPlaceGenerator:
    """Samples which object to move, where to and how to take it; the world model completes each to an action with its outcome.

    The prior (state None): every object that has a grasp is as likely as any other; targets anywhere, beside, on, in and between the
    other objects, all of them: the generator does not know which one is meant. What is moved, in which way, and by what, is drawn
    systematically, so that a batch holds every combination that it has room for. With a state: objects by its probabilities, targets
    by its Gaussian, one proposal at its mean; a share `explore` stays with the prior. The same rng gives the same batch, bit for bit.

    Batch: category (N,) = object; parameters (N, 3) = x, y (world metres), yaw (radians, [-pi, pi)) of the target; extras "pick" (N, 5),
    "place" (N, 4), "motion" (N, 4), all float64.
    """

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        self.config = config or GeneratorConfig()

    def propose(self, context: PlanningContext, state: CrossEntropyState | None, rng: torch.Generator) -> Batch:
        """`config.count` proposals. Raises NothingToGrasp if no object of the scene can be taken."""
        world = world_model(context)
        graspable = plan_grasps(world).graspable(world.count) if world.count else torch.zeros(0, dtype=torch.bool)
        if not graspable.any():
            raise NothingToGrasp(
                f"none of the {world.count} objects in the scene can be grasped: wider than the gripper opens, lower than "
                "about 2 cm, too close together, cut by the workspace's border, or out of reach. Remedy: move them apart or into reach, or "
                "check limits.gripper, limits.reach and the workspace."
            )
        count, prior = self.config.count, graspable.double() / graspable.sum()
        learnt = None if state is None else _object_probability(state, graspable)
        if state is None or learnt is None:
            category, parameters = self._from_prior(world, prior, count, rng)
        else:
            explored = min(round(self.config.explore * count), count - 1)
            drawn = (_from_state(state, learnt, count - explored, rng), self._from_prior(world, (prior + learnt) / 2, explored, rng))
            category, parameters = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        parameters = self._into_workspace(world, category, parameters)
        return self.complete(world, category, parameters, rng)

    def complete(self, world: WorldModel, category: Tensor, parameters: Tensor, rng: torch.Generator) -> Batch:
        """The batch for given objects (N,) and targets (N, 3): predicted motions, and a grasp for each."""
        motion = world.motions(category, parameters)
        pick, place = self._choose_grasps(world, category, motion, rng)
        return Batch(parameters, category, {"pick": pick, "place": place, "motion": motion})

    def _from_prior(self, world: WorldModel, probability: Tensor, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Objects (count,) by their (objects,) probability, and targets (count, 3)."""
        objects, others = world.count, max(world.count - 1, 1)
        weights = torch.tensor(self.config.modes, dtype=torch.float64)
        if objects < 3:
            weights[3] = 0
        if objects < 2:
            weights = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
        weights = weights if weights.sum() > 0 else torch.ones(4, dtype=torch.float64)
        # a cell is an object, a kind of target, and another object
        cells = probability[:, None, None] * weights[:, None] / others * torch.ones(others, dtype=torch.float64)
        cell = systematic(cells.flatten(), count, rng)
        category, mode, other = cell // (4 * others), cell // others % 4, cell % others
        low, high = (torch.tensor(corner[:2], dtype=torch.float64) for corner in _corners(world))
        target = low + torch.rand(count, 2, generator=rng, dtype=torch.float64) * (high - low)
        unit = torch.rand(count, 6, generator=rng, dtype=torch.float64)
        normal = torch.randn(count, 2, generator=rng, dtype=torch.float64)
        if objects >= 2:
            other = other + (other >= category)
            center = world.centers[:, :2]
            radius = world.radii
            distance = radius[category] + radius[other] + 0.005 + 0.14 * unit[:, 1]
            # Half of the directions are near the speaker's axes.
            forward = math.atan2(world.scene.limits.forward[1], world.scene.limits.forward[0])
            axis = forward + (unit[:, 2] * 4).floor() * (math.pi / 2) + 0.25 * normal[:, 0]
            angle = torch.where(unit[:, 3] < 0.5, axis, 2 * math.pi * unit[:, 2])
            beside = center[other] + distance[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
            target = torch.where((mode == 1)[:, None], beside, target)
            target = torch.where((mode == 2)[:, None], center[other] + 0.012 * normal, target)
            if objects >= 3:
                # A third one: neither the moved object nor the other, in the order of their numbers.
                first, second = torch.minimum(category, other), torch.maximum(category, other)
                third = (unit[:, 4] * (objects - 2)).long()
                third = third + (third >= first)
                third = third + (third >= second)
                share = 0.35 + 0.3 * unit[:, 1:2]
                between = center[other] + share * (center[third] - center[other]) + 0.015 * normal
                target = torch.where((mode == 3)[:, None], between, target)
        quarter = ((torch.rand(count, generator=rng, dtype=torch.float64) * 4).floor() - 2) * (math.pi / 2)
        chance = torch.rand(count, generator=rng, dtype=torch.float64)
        uniform = 2 * math.pi * unit[:, 5] - math.pi
        yaw = torch.where(chance < 0.6, 0.0, torch.where(chance < 0.8, quarter, uniform))
        return category, torch.cat([target, yaw[:, None]], dim=1)

    def _into_workspace(self, world: WorldModel, category: Tensor, parameters: Tensor) -> Tensor:
        low, high = (torch.tensor(corner[:2], dtype=torch.float64) for corner in _corners(world))
        # A little over the border is left to the workspace scorer to weigh.
        room = torch.minimum((world.radii[category][:, None] - 0.025).clamp(min=0.0), (high - low) / 2 - 1e-6)
        xy = torch.minimum(torch.maximum(parameters[:, :2], low + room), high - room)
        yaw = torch.remainder(parameters[:, 2:3] + math.pi, 2 * math.pi) - math.pi
        return torch.cat([xy, yaw], dim=1)

    def _choose_grasps(self, world: WorldModel, category: Tensor, motion: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A grasp of the object for each proposal: by quality, and so that the hand has room where it lets go.

        Returns:
            pick (N, 5) and place (N, 4).
        """
        limits, (picks, quality) = world.scene.limits, plan_grasps(world).padded(world.count)
        count, choices = len(category), picks.shape[1]
        pick, worth = picks[category], quality[category]
        place = placed_tool(world.centers[category][:, None], pick, motion[:, None])
        flat = place.reshape(-1, 4)
        fingers, palm = gripper_penetration(
            world.heights, limits.gripper, category.repeat_interleave(choices), flat, pick.reshape(-1, 5)[:, 4], RELEASE_ROOM, coarse=True
        )
        deep = torch.maximum(fingers, palm).double().reshape(count, choices)
        away = (place[..., :2] - torch.tensor(limits.base_position[:2], dtype=torch.float64)).norm(dim=-1)
        near, far = limits.reach
        awkward = (deep / 0.004).clamp(0, 4) + 4.0 * ((away < near) | (away > far))
        logits = torch.where(worth > 0, worth.clamp(min=1e-6).log() / self.config.temperature - awkward, -torch.inf)
        uniform = torch.rand(count, choices, generator=rng, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        chosen = (logits - torch.log(-torch.log(uniform))).argmax(dim=1)
        rows = torch.arange(count)
        pick, place = pick[rows, chosen].clone(), place[rows, chosen]
        start, end = nearest_turn(pick[:, 3], motion[:, 3])
        pick[:, 3] = start
        return pick, torch.cat([place[:, :3], end[:, None]], dim=1)


def systematic(probability: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """(count,) int64 indices, in order: each i comes count * p_i times, rounded down or up. One random number for all.

    Systematic resampling (Douc, Cappe, Moulines, "Comparison of resampling schemes for particle filtering", 2005, arXiv cs/0507025): the
    same shares as of independent draws, with far less scatter.

    Args:
        probability: (K,) float64, >= 0; need not sum to 1.
    """
    edges = probability.cumsum(0)
    points = (torch.arange(count, dtype=torch.float64) + torch.rand(1, generator=rng, dtype=torch.float64)) / count
    last = int(probability.nonzero()[-1])  # rounding may leave the last point beyond the last edge
    return torch.searchsorted(edges, points * edges[-1], right=True).clamp_max(last)


def _object_probability(state: CrossEntropyState, graspable: Tensor) -> Tensor | None:
    """(objects,) what the strategy has learnt about which one to move; None where it knows none that can be grasped."""
    objects, known = len(graspable), len(state.category_probability)
    probability = torch.zeros(objects, dtype=torch.float64)
    probability[: min(known, objects)] = state.category_probability[:objects]
    probability = probability * graspable
    return probability / probability.sum() if probability.sum() > 0 else None


def _from_state(state: CrossEntropyState, probability: Tensor, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Objects (count,) by their (objects,) probability and targets (count, D) by the state's Gaussians; the first is the likeliest."""
    category = systematic(probability, count, rng)
    noise = torch.randn(count, state.mean.shape[1], generator=rng, dtype=torch.float64)
    category[0], noise[0] = probability.argmax(), 0.0
    return category, state.mean[category] + state.std[category] * noise


def placed_tool(center: Tensor, pick: Tensor, motion: Tensor) -> Tensor:
    """Tool pose (..., 4) x, y, z, yaw at the release.

    Args:
        center: (..., 3) the objects' centres before. pick: (..., 5) how they are taken. motion: (..., 4) how they move.
    """
    cos, sin = torch.cos(motion[..., 3]), torch.sin(motion[..., 3])
    dx, dy = pick[..., 0] - center[..., 0], pick[..., 1] - center[..., 1]
    x = center[..., 0] + motion[..., 0] + cos * dx - sin * dy
    y = center[..., 1] + motion[..., 1] + sin * dx + cos * dy
    return torch.stack([x, y, pick[..., 2] + motion[..., 2] + RELEASE_HEIGHT, pick[..., 3] + motion[..., 3]], dim=-1)


def _corners(world: WorldModel) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    return world.scene.limits.workspace_min, world.scene.limits.workspace_max
