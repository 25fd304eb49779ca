"""One expert per camera view: does the relation hold in this picture, and would it hold in the predicted ones?

Every view grounds the phrases for itself (text-conditioned segmenter and CLIP on its own image) and measures relations for itself (middles
of the predicted, z-buffered masks, carried to the ground plane by this camera's calibration). What one camera cannot see, another can:
their energies are summed by the engine, as in the paper's manipulation experiment (arXiv 2210.11522, section 4.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pcm_ros.consensus import Batch
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of
from pcm_ros.tasks.manipulation.relations import ground_offset, placement_preference, relation_margin
from pcm_ros.tasks.manipulation.workcell import View
from pcm_ros.tasks.manipulation.world_model import PredictedMasks, PredictedScene, WorldModel, world_model

# Log-odds of a phrase for an object that this view does not show: unlikely, not impossible.
UNSEEN_LOGIT = -3.0
# Share of the belief that is spread evenly over the objects: one mistaken view must not be able to veto.
OUTLIERS = 0.03


@dataclass(frozen=True)
class Assessment:
    """What one view says of a relation as things are.

    Attributes:
        scorer: name of the scorer that says it.
        logits: (M, K) float64 log-odds that phrase k (in the order of Relation.phrases) describes object m; NaN: object not seen.
        margins: (M, M) float64, or (M, M, M) for BETWEEN: how clearly the relation holds between objects (see relation_margin).
    """

    scorer: str
    logits: Tensor
    margins: Tensor


def belief(logits: Tensor) -> Tensor:
    """(M, K) log-odds, NaN where unseen -> (M, K) log-probabilities that object m is the one that phrase k means."""
    filled = torch.where(torch.isnan(logits), torch.full_like(logits, UNSEEN_LOGIT), logits)
    probability = torch.softmax(filled, dim=0)
    return torch.log((1 - OUTLIERS) * probability + OUTLIERS / len(logits))


def plain_phrase(phrase: str) -> str:
    """The phrase as models shall read it: "other mug" -> "mug" (that it is another one is seen to by the pairs of objects)."""
    return phrase.removeprefix("the ").removeprefix("other ")


class RelationScorer:
    """Energy of a relation in one view: -log sum_j p(k | subject) p(j | reference) sigmoid(margin(k, j)), k = the object that is moved.

    Range: 0 (certain and clearly true) to about 50 (far from true); nats. Wrong when the view grounds a phrase wrongly, or when
    occlusion cuts a mask in half; the ensemble over views is what corrects it.

    Args:
        view: name of the camera view it looks at.
        grounder: the vision-language experts.
        preference: weight of `placement_preference` (near rather than far, not touching), in the energy's nats.
    """

    differentiable = False

    def __init__(self, view: str, grounder: Grounder, preference: float = 1.0) -> None:
        self.name, self.view, self.cost = f"relation:{view}", view, 1e-4
        self._grounder, self._preference = grounder, preference
        self._memory: tuple[WorldModel, tuple[str, ...], Tensor] | None = None

    def energy(self, batch: Batch, context: Context) -> Tensor:
        """(N,) float64 energies of N proposals; relations in `context.held` add theirs."""
        world = world_model(context)
        category, motion = batch.category, batch.extras["motion"]
        masks = world.predict_masks(self.view, category, motion)
        scene = world.predict_scene(category, motion)
        ground = self._ground(world.view(self.view), masks, scene, context)
        total = self._moved_energy(context.relation, world, scene, ground, category)
        for relation in context.held:
            total = total + self._any_energy(relation, world, scene, ground)
        return total

    def assess(self, context: Context) -> Assessment:
        """The relation of the context as things are, nothing moved."""
        world = world_model(context)
        count = world.count
        logits = self._logits(world, context.relation)
        if count == 0:
            return Assessment(self.name, logits, torch.zeros((0,) * len(context.relation.phrases), dtype=torch.float64))
        still = torch.zeros(1, 4, dtype=torch.float64)
        category = torch.zeros(1, dtype=torch.int64)
        scene = world.predict_scene(category, still)
        ground = self._ground(world.view(self.view), world.predict_masks(self.view, category, still), scene, context)
        return Assessment(self.name, logits, self._all_margins(context.relation, scene, ground)[0])

    # How the view sees it

    def _logits(self, world: WorldModel, relation: Relation) -> Tensor:
        """(M, K) log-odds, NaN where unseen; grounded once per scene and set of phrases."""
        phrases = tuple(plain_phrase(phrase) for phrase in relation.phrases)
        if self._memory is not None and self._memory[0] is world and self._memory[1] == phrases:
            return self._memory[2]
        regions = regions_of(world.labels(self.view)) if world.count else []
        logits = torch.full((world.count, len(phrases)), torch.nan, dtype=torch.float64)
        if regions:
            found = self._grounder.logits(world.view(self.view).rgb, regions, phrases).double()
            logits[torch.tensor([region.number for region in regions])] = found
        self._memory = (world, phrases, logits)
        return logits

    def _ground(self, view: View, masks: PredictedMasks, scene: PredictedScene, context: Context) -> Tensor:
        """(N, M, 2) where this view sees the objects on the ground (left, forward; metres): the ray through the middle of each mask, cut
        with the plane at the object's half height. What is mostly hidden is taken from the fused scene instead."""
        count, objects = scene.center.shape[:2]
        rows = torch.arange(count)
        pixel = masks.other_centroids()
        pixel[rows, masks.category] = masks.centroid
        shown = (1.0 - masks.other_hidden()) * masks.static.shown
        shown[rows, masks.category] = masks.visibility
        # The middle of what is left of a mask is not the object's: from half hidden on, it says nothing.
        shown = ((shown - 0.5) / 0.35).clamp(0, 1)
        direction = torch.stack(
            [
                (pixel[..., 0] - view.intrinsics[0, 2]) / view.intrinsics[0, 0],
                (pixel[..., 1] - view.intrinsics[1, 2]) / view.intrinsics[1, 1],
                torch.ones(count, objects, dtype=torch.float64),
            ],
            dim=-1,
        ) @ torch.from_numpy(view.rotation.T.copy())
        origin = torch.from_numpy(view.position)
        drop = direction[..., 2]
        length = (scene.center[..., 2] - origin[2]) / torch.where(drop.abs() < 1e-6, torch.full_like(drop, -1e-6), drop)
        seen = ground_offset(context.scene.limits, origin[:2] + length[..., None] * direction[..., :2])
        # A grazing ray says little about the distance: such views lean on the fused scene.
        steep = (drop.abs() / direction.square().sum(-1).sqrt() / 0.25).clamp(max=1.0)
        trust = torch.where(torch.isfinite(seen).all(-1), shown * steep, torch.zeros_like(shown))[..., None]
        return trust * torch.nan_to_num(seen, nan=0.0, posinf=0.0, neginf=0.0) + (1 - trust) * scene.ground

    # How the relation is measured

    def _moved_energy(self, relation: Relation, world: WorldModel, scene: PredictedScene, ground: Tensor, category: Tensor) -> Tensor:
        """(N,) the moved object must be the subject."""
        beliefs = belief(self._logits(world, relation))
        rows = torch.arange(len(category))
        own = (ground[rows, category], scene.bottom[rows, category], scene.size[rows, category])
        if relation.kind == RelationKind.BETWEEN:
            margins = self._between(own[0][:, None, None], scene, ground)
            logs = logsigmoid(margins) + beliefs[:, 1][None, :, None] + beliefs[:, 2][None, None, :]
            logs = logs.masked_fill(torch.eye(world.count, dtype=torch.bool), -torch.inf)
            logs[rows, category, :] = -torch.inf
            logs[rows, :, category] = -torch.inf
            return -beliefs[category, 0] - torch.logsumexp(logs.flatten(1), dim=1)
        offset = own[0][:, None] - ground
        height = own[1][:, None] - scene.bottom
        size = own[2][:, None].expand_as(scene.size)
        logs = logsigmoid(relation_margin(relation.kind, offset, height, size, scene.size)) + beliefs[:, 1]
        logs = logs - self._preference * placement_preference(relation.kind, offset, size, scene.size)
        logs[rows, category] = -torch.inf
        return -beliefs[category, 0] - torch.logsumexp(logs, dim=1)

    def _any_energy(self, relation: Relation, world: WorldModel, scene: PredictedScene, ground: Tensor) -> Tensor:
        """(N,) energy of a relation between whichever objects."""
        beliefs = belief(self._logits(world, relation))
        logs = logsigmoid(self._all_margins(relation, scene, ground)) + beliefs[:, 0].view(-1, *[1] * (len(relation.phrases) - 1))
        logs = logs + beliefs[:, 1].view(-1, *[1] * (len(relation.phrases) - 2))
        if relation.kind == RelationKind.BETWEEN:
            logs = logs + beliefs[:, 2]
        return -torch.logsumexp(logs.flatten(1), dim=1)

    def _all_margins(self, relation: Relation, scene: PredictedScene, ground: Tensor) -> Tensor:
        """(N, M, M) margins of subject i and reference j, or (N, M, M, M) for BETWEEN; -inf where two are the same object."""
        objects = ground.shape[1]
        same = torch.eye(objects, dtype=torch.bool)
        if relation.kind == RelationKind.BETWEEN:
            margins = self._between(ground[:, :, None, None], scene, ground[:, None])
            clash = same[:, :, None] | same[:, None, :] | same[None, :, :]
            return margins.masked_fill(clash, -torch.inf)
        offset = ground[:, :, None] - ground[:, None]
        height = scene.bottom[:, :, None] - scene.bottom[:, None]
        subject, reference = torch.broadcast_tensors(scene.size[:, :, None], scene.size[:, None])
        return relation_margin(relation.kind, offset, height, subject, reference).masked_fill(same, -torch.inf)

    @staticmethod
    def _between(subject: Tensor, scene: PredictedScene, ground: Tensor) -> Tensor:
        """Margins of a subject at (..., 1, 1, 2) between all pairs of objects at (..., M, 2): (..., M, M)."""
        first, second = subject - ground[..., :, None, :], subject - ground[..., None, :, :]
        first, second = torch.broadcast_tensors(first, second)
        blank = torch.zeros((*first.shape[:-1], 3), dtype=first.dtype)
        return relation_margin(RelationKind.BETWEEN, first, blank[..., 0], blank, blank, second)


def fused_logits(assessments: list[Assessment]) -> Tensor:
    """(M, K) mean log-odds over the views that see the object; UNSEEN_LOGIT where none does."""
    stacked = torch.stack([assessment.logits for assessment in assessments])
    return torch.from_numpy(np.nan_to_num(_mean_of_seen(stacked.numpy()), nan=UNSEEN_LOGIT))


def _mean_of_seen(values: np.ndarray) -> np.ndarray:
    seen = ~np.isnan(values)
    total, count = np.where(seen, values, 0.0).sum(axis=0), seen.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def probability_of(assessments: list[Assessment], logits: Tensor) -> float:
    """Probability that the relation holds as things are.

    p = sum over objects of prod_k p(object | phrase k) * mean over views of sigmoid(margin).

    Args:
        logits: (M, K) log-odds of the phrases, those of `fused_logits` or with memory added.
    """
    if len(logits) == 0:
        return 0.0
    beliefs = torch.softmax(logits, dim=0)
    truth = torch.stack([torch.sigmoid(assessment.margins) for assessment in assessments]).mean(dim=0)
    weight = beliefs[:, 0]
    for k in range(1, logits.shape[1]):
        weight = weight[..., None] * beliefs[:, k]
    clash = truth.isnan()
    distinct = torch.stack([assessment.margins for assessment in assessments]).amax(dim=0) > -torch.inf
    weight = torch.where(distinct & ~clash, weight, torch.zeros_like(weight))
    total = weight.sum()
    return float((weight * truth.nan_to_num(0.0)).sum() / total) if total > 1e-12 else 0.0
