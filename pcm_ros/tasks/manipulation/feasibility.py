"""Scorers that ask whether an action can be carried out and whether what it leaves behind stays.

Energies are like negative log-likelihoods (nats): 0 = no objection, 1 = a little doubtful, 4 and more = expect it to fail; +inf is a veto
and is used only for what the limits themselves forbid. All geometry comes from perceived points: unseen material is unknown to it.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.tasks.manipulation.grasps import RELEASE_ROOM, gripper_penetration, plan_grasps
from pcm_ros.tasks.manipulation.physics_twin import PhysicsTwin
from pcm_ros.tasks.manipulation.world_model import PlanningContext, WorldModel, turned, world_model

# An underside less than this above the table (metres) rests on the table: perception's error is a few millimetres.
ON_TABLE = 0.007


def _placed_footprint(world: WorldModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The moved objects' undersides after their motions: world x, y (N, S, 2), height (N, S), surface below (N, S); float32 metres."""
    motion = batch.extras["motion"]
    footprint = world.footprints[batch.category]
    center = (world.centers[batch.category, :2] + motion[:, :2]).float()
    xy = turned(footprint[..., :2], motion[:, 3]) + center[:, None]
    underside = footprint[..., 2] + (world.bottoms[batch.category] + motion[:, 2]).float()[:, None]
    return xy, underside, world.heights.rest_at(batch.category, xy)


def _rising(value: Tensor, start: float, scale: float, most: float) -> Tensor:
    """0 up to `start`, then one nat per `scale`, at most `most`; float64."""
    return ((value.double() - start) / scale).clamp(0.0, most)


class ReachScorer:
    """Both tool positions within the arm's reach.

    Energy: for pick and for place, with s = distance to the nearer of the two limits of `limits.reach` (horizontal, from base_position):
    softplus((margin / 2 - s) / (margin / 4)); about 0 further inside than `margin`, 2.1 at the limit, +inf beyond it. Range 0..4.3, +inf.
    Wrong when: the arm's reach depends on height and orientation (inverse kinematics is the robot's own business).

    Args:
        margin: metres inside the limits in which doubt grows.
    """

    name = "reach"
    cost = 1e-7
    differentiable = False

    def __init__(self, margin: float = 0.04) -> None:
        if not margin > 0:
            raise ValueError(f"reach.margin is {margin}; allowed: metres > 0")
        self.margin = margin

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        limits = context.scene.limits
        base = torch.tensor(limits.base_position[:2], dtype=torch.float64)
        total = torch.zeros(len(batch), dtype=torch.float64)
        for name in ("pick", "place"):
            distance = (batch.extras[name][:, :2] - base).norm(dim=1)
            inside = torch.minimum(distance - limits.reach[0], limits.reach[1] - distance)
            doubt = torch.nn.functional.softplus((self.margin / 2 - inside) / (self.margin / 4))
            total += torch.where(inside >= 0, doubt, torch.inf)
        return total


class WorkspaceScorer:
    """The moved object stays within the workspace, with its whole silhouette and its height.

    Energy: 0 with `margin` to spare on all sides, rising to 1 where the outermost point meets the border, to 4 where it reaches over by
    `slack`, +inf beyond. Range 0..4, +inf. Wrong when: the object's seen side is smaller than the object.

    Args:
        margin: metres. slack: metres that the rim of an object may reach over the border if nothing else will do, e.g. a bowl on top of a
            can that stands near it.
    """

    name = "workspace"
    cost = 2e-6
    differentiable = False

    def __init__(self, margin: float = 0.015, slack: float = 0.03) -> None:
        if not (margin > 0 and slack > 0):
            raise ValueError(f"workspace.margin is {margin} and slack {slack}; allowed: metres > 0")
        self.margin, self.slack = margin, slack

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        world, limits = world_model(context), context.scene.limits
        xy, _, _ = _placed_footprint(world, batch)
        low, high = torch.tensor(limits.workspace_min[:2]), torch.tensor(limits.workspace_max[:2])
        room = torch.minimum((xy - low).amin(dim=(1, 2)), (high - xy).amin(dim=(1, 2))).double()
        top = world.tops[batch.category] + batch.extras["motion"][:, 2]
        room = torch.minimum(room, limits.workspace_max[2] - top)
        doubt = (1 - room / self.margin).clamp(0, 1) + 3 * (-room / self.slack).clamp(0, 1)
        return torch.where(room < -self.slack, torch.inf, doubt)


class GraspScorer:
    """How good the chosen grasp is among what the gripper could do: -log of its quality (see `Grasps.quality`).

    Energy: 0 (firm, square on, near the middle) .. 4. A pick that is none of the planned grasps gets 3; near one that has failed, up to 6
    more for each failure: 6 exp(-(metres / 0.015)^2 - (turn / 0.4)^2). Wrong when: the object is slippery, heavy, or hollow where it was
    not seen.
    """

    name = "grasp"
    cost = 1e-6
    differentiable = False

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        world = world_model(context)
        picks, quality = plan_grasps(world).padded(world.count)
        same = (picks[batch.category][..., :3] - batch.extras["pick"][:, None, :3]).abs().amax(dim=-1) < 1e-5
        found = torch.where(same, quality[batch.category], 0.0).amax(dim=1)
        energy = torch.where(found > 0, -found.clamp(min=0.0183, max=1.0).log(), 3.0)
        for failed in context.failed:
            near = (batch.extras["pick"][:, :3] - torch.tensor(failed[:3], dtype=torch.float64)).norm(dim=1) / 0.015
            turn = torch.remainder(batch.extras["pick"][:, 3] - failed[3] + torch.pi / 2, torch.pi) - torch.pi / 2  # the fingers are alike
            energy = energy + 6.0 * torch.exp(-near.square() - (turn / 0.4).square())
        return energy


class CollisionScorer:
    """Nothing is touched by fingers, palm or the carried object, neither at the pick nor at the place; nothing stands on what is taken.

    Energy, a sum of: for fingers and palm at pick and place, the depth in the scene's height field, one nat per 4 mm beyond 2 mm, at most 6
    each; the carried object's own depth in others beyond 8 mm, one nat per 6 mm, at most 4; up to 1.5 for neighbours within 1 cm of it; up
    to 4 if something lies on or in the object that is taken. Range 0..33.5, no veto: a height field takes what is under a surface for
    solid, so it is too careful under handles and overhangs, and blind to what no camera saw.

    Args:
        weight_of_load: nats for taking away what carries something.
    """

    name = "collision"
    cost = 2e-5
    differentiable = False

    def __init__(self, weight_of_load: float = 4.0) -> None:
        if not weight_of_load >= 0:
            raise ValueError(f"collision.weight_of_load is {weight_of_load}; allowed: nats >= 0")
        self.weight_of_load = weight_of_load

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        world = world_model(context)
        gripper, heights = context.scene.limits.gripper, world.heights
        pick, place, category = batch.extras["pick"], batch.extras["place"], batch.category
        everything = torch.full_like(category, -1)
        total = torch.zeros(len(batch), dtype=torch.float64)
        for tool, without, grow in ((pick[:, :4], everything, 0.0), (place, category, RELEASE_ROOM)):
            for depth in gripper_penetration(heights, gripper, without, tool, pick[:, 4], grow):
                total += _rising(depth, 0.002, 0.004, 6.0)
        xy, underside, surface = _placed_footprint(world, batch)
        depth = (surface - underside).topk(3, dim=1).values[:, -1]
        total += _rising(depth, 0.008, 0.006, 4.0)
        # One centimetre around it: what rises beside it is a neighbour (or the wall of a container that it is in).
        center = (world.centers[category, :2] + batch.extras["motion"][:, :2]).float()[:, None]
        outward = xy - center
        around = center + outward * (1 + 0.010 / outward.norm(dim=-1, keepdim=True).clamp(min=0.01))
        blocked = (heights.rest_at(category, around) > underside + 0.015).double().mean(dim=1)
        total += 1.5 * (blocked / 0.15).clamp(max=1.0)
        return total + self.weight_of_load * self._load(world)[category]

    @staticmethod
    def _load(world: WorldModel) -> Tensor:
        """(M,) 0..1, how much of each object has something else above it."""
        index = torch.arange(world.count)
        xy = world.footprints[..., :2] + world.centers[:, None, :2].float()
        above = world.heights.rest_at(index, xy) > world.heights.own_at(index, xy).clamp(min=world.scene.table_height) + 0.012
        return ((above.double().mean(dim=1) - 0.02) / 0.06).clamp(0, 1)


class StabilityScorer:
    """The object, let go, stays: its middle is over what it rests on.

    Quasi-static: the contacts are the cells of its underside within `contact` of the surface below; the middle of its silhouette must lie
    inside their convex hull, and stay there if it is put down up to `error` beside the place. With d = distance from the middle to the
    hull's nearest edge, and the wanted d0 = min(error, 80 % of the foot's radius): energy = 8 * clamp(1 - d / d0, 0, 1)
    + 2 * (1 - share of the foot in contact / 0.25), the latter at least 0, + `stacked` if it stands on or in another object instead of
    the table (where that is what is asked for, all candidates pay it alike). Range 0..12; 0 on the table.

    Wrong when: the middle of the silhouette is far from the centre of mass; what it is put on is loose itself; contact is a point on a
    curved surface that in truth gives way. `TwinStabilityScorer` knows more and costs more.

    Args:
        contact: metres, noise of the height field included.
        error: metres, how far from its place an object may come to stand: of the pick, of the perceived shapes, and of the letting go.
        stacked: nats for a place that is not the table: less certain, and in the way of what is to be done next.
    """

    name = "stability"
    cost = 1e-5
    differentiable = False

    def __init__(self, contact: float = 0.004, error: float = 0.013, stacked: float = 2.0) -> None:
        if not (contact > 0 and error > 0 and stacked >= 0):
            raise ValueError(f"stability.contact is {contact}, error {error}, stacked {stacked}; allowed: > 0, > 0 metres, >= 0 nats")
        self.contact, self.error, self.stacked = contact, error, stacked
        angle = torch.arange(12) * (2 * torch.pi / 12)
        self._directions = torch.stack([torch.cos(angle), torch.sin(angle)])  # (2, K)

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        world = world_model(context)
        xy, underside, surface = _placed_footprint(world, batch)
        touching = (underside - surface) < self.contact
        middle = xy.mean(dim=1, keepdim=True)
        spread = (xy - middle) @ self._directions  # (N, S, K)
        hull = spread.masked_fill(~touching[..., None], -torch.inf).amax(dim=1).amin(dim=1).double()
        foot, radius = self._feet(world)
        foot, wanted = foot[batch.category], (0.8 * radius[batch.category]).clamp(max=self.error)
        share = (touching & foot).double().sum(dim=1) / foot.double().sum(dim=1).clamp(min=1)
        tilt = 8 * (1 - hull.clamp(min=-1.0) / wanted).clamp(0, 1)
        # 4 % of the footprint over something else is noise, 12 % is not.
        elsewhere = (((surface > world.scene.table_height + 0.006) & (surface > underside - 0.02)).double().mean(dim=1) - 0.04) / 0.08
        return tilt + 2 * (1 - share / 0.25).clamp(min=0) + self.stacked * elsewhere.clamp(0, 1)

    def _feet(self, world: WorldModel) -> tuple[Tensor, Tensor]:
        """Per object: which samples (M, S) of its underside are its foot; (M,) metres from its middle to the nearest edge of the foot."""
        foot = world.footprints[..., 2] < 0.012
        spread = (world.footprints[..., :2] - world.footprints[..., :2].mean(dim=1, keepdim=True)) @ self._directions
        radius = spread.masked_fill(~foot[..., None], -torch.inf).amax(dim=1).amin(dim=1)
        return foot, radius.double().clamp(min=0.01)


class TwinStabilityScorer:
    """The object is let go in a physics simulation of the perceived shapes, and must stay where it was put.

    Energy: min(8, (slip / 2 cm)^2 + (tilt / 0.2 rad)^2) after `steps` steps of 1/120 s of PyBullet, slip and tilt against the predicted
    pose; 0 = stays. The objects are columns of their height fields, hollow ones hollow; the others do not move. Deterministic. What is
    put on the table itself is not simulated and gets 0: `StabilityScorer` has judged it.

    Milliseconds per proposal: for the last stage of a cascade. Wrong when: mass or friction is unusual, the support is loose, or the unseen
    side of an object is not as its height field says.

    Args:
        steps: simulation steps, >= 1.
    """

    name = "twin"
    cost = 2e-2
    differentiable = False

    def __init__(self, steps: int = 45) -> None:
        if steps < 1:
            raise ValueError(f"twin.steps is {steps}; allowed: >= 1")
        self.steps = steps
        self._twin: PhysicsTwin | None = None
        self._world: WorldModel | None = None
        self._end: weakref.finalize | None = None
        self._known: dict[tuple[int, tuple[float, ...]], float] = {}

    def close(self) -> None:
        """End the simulation of the newest scene."""
        if self._end is not None:
            self._end()  # which forgets the twin, and so the images that it was made of
        self._twin = self._world = self._end = None
        self._known.clear()

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        world = world_model(context)
        result = torch.zeros(len(batch), dtype=torch.float64)
        raised = world.bottoms[batch.category] + batch.extras["motion"][:, 2] > context.scene.table_height + ON_TABLE
        if not raised.any():
            return result
        if self._twin is None or self._world is not world:
            self.close()
            self._twin, self._world = PhysicsTwin(world), world
            self._end = weakref.finalize(self, self._twin.close)
        motions = [tuple(motion) for motion in batch.extras["motion"].tolist()]
        for number in batch.category[raised].unique().tolist():
            rows = ((batch.category == number) & raised).nonzero()[:, 0].tolist()
            new = [row for row in rows if (number, motions[row]) not in self._known]  # the leader comes again in each iteration
            if new:
                slip, tilt = self._twin.drop(number, batch.extras["motion"][new].numpy(), self.steps)
                energies = np.minimum((slip / 0.02) ** 2 + (tilt / 0.2) ** 2, 8.0)
                self._known.update({(number, motions[row]): float(energy) for row, energy in zip(new, energies, strict=True)})
            result[rows] = torch.tensor([self._known[number, motions[row]] for row in rows], dtype=torch.float64)
        return result


class TargetScorer:
    """How near a motion brings the right object to where an arrangement wants it (`Context.target`); without a target it says nothing.

    Energy: half the squared distance over SPREAD squared, at most MOST; MOST for a motion of another object. Range 0..1000 nats: what the
    views say of the relation, which comes later, must not hold the object back.
    Wrong when: the arrangement was planned on a scene that perception got wrong.
    """

    name = "target"
    cost = 1e-8
    differentiable = False
    SPREAD, MOST = 0.005, 1000.0

    def energy(self, batch: Batch, context: PlanningContext) -> Tensor:
        """(N,) float64 nats."""
        target = getattr(context, "target", None)
        if target is None:
            return torch.zeros(len(batch), dtype=torch.float64)
        world = world_model(context)
        where = world.centers[batch.category, :2] + batch.extras["motion"][:, :2]
        away = (where - torch.tensor([target.x, target.y], dtype=torch.float64)).norm(dim=1)
        energy = (0.5 * (away / self.SPREAD).square()).clamp(max=self.MOST)
        return torch.where(batch.category == target.category, energy, torch.full_like(energy, self.MOST))
