"""One expert per camera view: does the relation hold in this picture, and would it hold in the predicted ones?

Every view grounds the phrases for itself (text-conditioned segmenter and CLIP on its own image) and measures relations for itself (middles
of the predicted, z-buffered masks, carried to the ground plane by this camera's calibration). What one camera cannot see, another can:
their energies are summed by the engine, as in the paper's manipulation experiment (arXiv 2210.11522, section 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import BoundedSemaphore

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pcm_ros.consensus import Batch
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.goal import NounPhrase, Quantifier, Relation, RelationKind
from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of
from pcm_ros.tasks.manipulation.predicted_masks import PredictedMasks
from pcm_ros.tasks.manipulation.relations import ground_offset, placement_preference, relation_margin
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.vision import SIDE_BY_SIDE
from pcm_ros.tasks.manipulation.workcell import View
from pcm_ros.tasks.manipulation.world_model import PredictedScene, WorldModel, world_model

# Log-odds of a phrase for an object that this view does not show: unlikely, not impossible.
UNSEEN_LOGIT = -3.0
# Share of the belief that is spread evenly over the objects: one mistaken view must not be able to veto.
OUTLIERS = 0.03
# A phrase fits an object whose log-odds for it are at least PRESENT, and less than CONTRAST below those of perception's own name for it;
# or at least CLEAR, whatever else it might be called. Where perception's own name is DOUBTFUL, log-odds no higher than that, the object is
# like nothing that the experts know, and LENIENCE nats less will do, of both.
PRESENT, CONTRAST, CLEAR = -2.0, 2.5, 0.5
DOUBTFUL, LENIENCE = 2.25, 1.5
# Objects whose probabilities of being meant differ by no more than this factor are alike: "a block" may be any of them.
ALIKE = 0.4
# From how clearly a phrase fits to a probability.
FIT_SLOPE = 1.5
# Relative error of perceived sizes, as the scale of a logistic: of two objects whose sizes differ by 6 %, 3 to 1 that the larger one is.
SIZE_ERROR = 0.055

# So many views of a process are scored at a time: more threads than that wait for the interpreter more than they compute. Who hangs keeps
# a turn for ever: nobody waits longer than this for one, seconds.
_turns = BoundedSemaphore(SIDE_BY_SIDE)
_PATIENCE = 2.0


@dataclass(frozen=True)
class Assessment:
    """What one view says of a relation as things are.

    Attributes:
        scorer: name of the scorer that says it.
        logits: (M, T) float64 log-odds that text t (in the order of Relation.texts) describes object m; NaN: object not seen.
        margins: (M, M) float64, or (M, M, M) for BETWEEN: how clearly the relation holds between objects (see relation_margin).
    """

    scorer: str
    logits: Tensor
    margins: Tensor


def _filled(logits: Tensor) -> Tensor:
    return torch.where(torch.isnan(logits), torch.full_like(logits, UNSEEN_LOGIT), logits)


def _with_outliers(probability: Tensor) -> Tensor:
    return torch.log((1 - OUTLIERS) * probability + OUTLIERS / len(probability))


def plain_phrase(phrase: str) -> str:
    """The phrase as models shall read it: "other mug" -> "mug", "all large mugs" -> "mug"; geometry sees to the rest."""
    return NounPhrase.read(phrase).text


def noun_probabilities(relation: Relation, logits: Tensor, scene: Scene) -> Tensor:
    """(M, K) that object m is the one that phrase k means; of a plural subject: that it is among those meant (columns need not sum to 1).

    A phrase without size words and exclusions means the object that it fits best: softmax over the objects. With them, every object is
    weighed by how likely it fits the text, is among the largest of those that do (`among_extremes`), and is not what is excluded.

    Args:
        logits: (M, T) log-odds of the relation's texts, NaN where unseen.
    """
    filled = _filled(logits)
    if all(noun.plain for noun in relation.nouns):
        return torch.softmax(filled, dim=0)
    columns, exclusions = [], iter(range(len(relation.nouns), len(relation.texts)))
    for number, noun in enumerate(relation.nouns):
        columns.append(_meant(noun, filled, number, exclusions, scene))
    if relation.plural:  # "all blocks on the red block": the others
        for reference in columns[1:]:
            columns[0] = columns[0] * (1 - reference)
    return torch.stack(columns, dim=1)


def fitting_numbers(relation: Relation, logits: Tensor, scene: Scene) -> tuple[int, int]:
    """How many objects fit the subject's text and are not excluded by it; and how many of those are no reference of the relation.

    Args:
        logits: (M, T) log-odds of the relation's texts, NaN where unseen.
    """
    filled, exclusions = _filled(logits), iter(range(len(relation.nouns), len(relation.texts)))
    subject, *references = relation.nouns
    fitting = _meant(replace(subject, measure=None, quantifier=Quantifier.ALL), filled, 0, exclusions, scene)
    others = fitting
    for number, noun in enumerate(references, start=1):
        others = others * (1 - _meant(noun, filled, number, exclusions, scene))
    return int((fitting > 0.5).sum()), int((others > 0.5).sum())


def _meant(noun: NounPhrase, logits: Tensor, column: int, exclusions: Iterator[int], scene: Scene) -> Tensor:
    """(M,) probabilities of one phrase, its text in the given column of logits (M, T), those of what it excludes in the following ones."""
    if noun.plain:
        return torch.softmax(logits[:, column], dim=0)
    fitting = torch.ones(len(logits), dtype=logits.dtype) if noun.generic else fit_probability(logits[:, column], scene)
    if noun.excluded is not None:
        fitting = fitting * (1 - _meant(noun.excluded, logits, next(exclusions), exclusions, scene))
    if noun.measure is not None:
        fitting = fitting * among_extremes(fitting, noun, scene)
    return fitting if noun.quantifier != Quantifier.ONE else fitting / fitting.sum().clamp(min=1e-12)


def fit_logit(logit: float, confidence: float, present: float = PRESENT, contrast: float = CONTRAST, clear: float = CLEAR) -> float:
    """How clearly a phrase fits an object, positive: it does. The greatest of three, each the least of its conditions: log-odds above
    `present`, and not further below those of perception's own name for the object than `contrast`; both less strictly by LENIENCE, where
    that name is DOUBTFUL itself; log-odds above `clear` and `present`.

    Args:
        logit: log-odds of the phrase for the object. confidence: 0..1, perception's for its own name of it; 0: it has none.
    """
    own = log_odds(confidence)
    fits = max(logit - max(clear, present), min(logit - present, contrast - (own - logit)))
    if confidence == 0:
        return fits
    return max(fits, min(DOUBTFUL - own, LENIENCE + logit - present, LENIENCE + contrast - (own - logit)))


def fit_probability(logits: Tensor, scene: Scene) -> Tensor:
    """(M,) that each object is what a phrase says, whatever other objects are, from log-odds (M,)."""
    clear = [fit_logit(logit, thing.label_confidence) for logit, thing in zip(logits.tolist(), scene.objects, strict=True)]
    return torch.sigmoid(FIT_SLOPE * torch.tensor(clear, dtype=logits.dtype))


def log_odds(probability: float) -> float:
    """Natural logarithm of the odds; infinite for 0 and 1."""
    return math.log(probability / (1 - probability)) if 0 < probability < 1 else math.copysign(math.inf, probability - 0.5)


def among_extremes(fitting: Tensor, noun: NounPhrase, scene: Scene) -> Tensor:
    """(M,) that fewer than `count` other objects that fit are larger (smaller) than each object, its own fit left out.

    A Poisson binomial over the others: j counts with probability fitting_j * sigmoid(log(size_j / size_i) / SIZE_ERROR).
    """
    assert noun.measure is not None
    size = torch.tensor([thing.measure(noun.measure) for thing in scene.objects], dtype=fitting.dtype).clamp(min=1e-4).log()
    ahead = torch.sigmoid((size[None, :] - size[:, None]) * (1.0 if noun.greatest else -1.0) / SIZE_ERROR) * fitting[None, :]
    ahead = ahead.masked_fill(torch.eye(len(size), dtype=torch.bool), 0.0)
    places = max(noun.count, 1)
    number = torch.zeros(len(size), places, dtype=fitting.dtype)  # that 0..places-1 others are ahead
    number[:, 0] = 1.0
    for j in range(len(size)):
        one_more = torch.cat([torch.zeros(len(size), 1, dtype=fitting.dtype), number[:, :-1]], dim=1)
        number = number * (1 - ahead[:, j : j + 1]) + one_more * ahead[:, j : j + 1]
    return number.sum(dim=1)


class RelationScorer:
    """Energy of a relation in one view: -log sum_j p(k | subject) p(j | reference) sigmoid(margin(k, j)), k = the object that is moved.

    Of several objects ("all red blocks", "two cans") it is the energy of the next step: p(k | subject) is then the probability that k is
    one of those meant for which the relation does not hold yet, and every other one i for which it holds must keep it:
    - sum_i log(1 - p_i h_i (1 - h_i')), h_i and h_i' = how true the relation is of i before and after.

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
        # Text -> (M,) log-odds in that world. Both in one, since a call that comes late still asks of an earlier world than the others.
        self._known: tuple[WorldModel | None, dict[str, Tensor]] = (None, {})

    def energy(self, batch: Batch, context: Context) -> Tensor:
        """(N,) float64 energies of N proposals; relations in `context.held` add theirs."""
        mine = _turns.acquire(timeout=_PATIENCE)
        try:
            return self._energy(batch, context)
        finally:
            if mine:
                _turns.release()

    def _energy(self, batch: Batch, context: Context) -> Tensor:
        world = world_model(context)
        category, motion = batch.category, batch.extras["motion"]
        masks = world.predict_masks(self.view, category, motion)
        scene = world.predict_scene(category, motion)
        ground = self._ground(world.view(self.view), masks, scene, context)
        total = self._moved_energy(context.relation, world, scene, ground, category, context)
        for relation in context.held:
            total = total + self._any_energy(relation, world, scene, ground, context)
        return total

    def assess(self, context: Context) -> Assessment:
        """The relation of the context as things are, nothing moved."""
        world = world_model(context)
        count = world.count
        logits = self._logits(world, context.relation)
        if count == 0:
            return Assessment(self.name, logits, torch.zeros((0,) * len(context.relation.phrases), dtype=torch.float64))
        return Assessment(self.name, logits, self._margins_now(world, context.relation, context))

    # How the view sees it

    def _logits(self, world: WorldModel, relation: Relation) -> Tensor:
        """(M, T) log-odds of the relation's texts, NaN where unseen; each text is grounded once a scene."""
        asked, known = self._known
        if asked is not world:
            known = {}
            self._known = (world, known)
        generic = {noun.text for noun in relation.nouns if noun.generic}
        missing = tuple(dict.fromkeys(text for text in relation.texts if text not in known))
        if missing:
            regions = regions_of(world.labels(self.view), world.scene.objects) if world.count else []
            logits = torch.full((world.count, len(missing)), torch.nan, dtype=torch.float64)
            if regions:
                found = self._grounder.logits(world.view(self.view).rgb, regions, missing).double()
                logits[torch.tensor([region.number for region in regions])] = found
            for text, column in zip(missing, logits.unbind(dim=1), strict=True):
                known[text] = torch.zeros_like(column) if text in generic else column
        return torch.stack([known[text] for text in relation.texts], dim=1)

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

    def _beliefs(self, world: WorldModel, relation: Relation) -> Tensor:
        """(M, K) log-probabilities that object m is the one that phrase k means, or one of those that a plural subject means."""
        return _with_outliers(noun_probabilities(relation, self._logits(world, relation), world.scene))

    def _step_beliefs(self, world: WorldModel, relation: Relation, context: Context) -> tuple[Tensor, Tensor]:
        """For a plural subject: `_beliefs`, its first column that the object is meant and does not stand in the relation yet; and (M,) that
        it is meant and does."""
        probability = noun_probabilities(relation, self._logits(world, relation), world.scene)
        now = degrees(relation, torch.sigmoid(self._margins_now(world, relation, context)), probability)
        missing = probability[:, 0] * (1 - now)
        share = torch.cat([(missing / missing.sum().clamp(min=1e-12))[:, None], probability[:, 1:]], dim=1)
        return _with_outliers(share), probability[:, 0] * now

    def _margins_now(self, world: WorldModel, relation: Relation, context: Context) -> Tensor:
        """(M, M) or (M, M, M) margins of the relation as things are, as this view sees it."""
        still = torch.zeros(1, 4, dtype=torch.float64)
        category = torch.zeros(1, dtype=torch.int64)
        scene = world.predict_scene(category, still)
        ground = self._ground(world.view(self.view), world.predict_masks(self.view, category, still), scene, context)
        return self._all_margins(relation, scene, ground)[0]

    def _moved_energy(
        self, relation: Relation, world: WorldModel, scene: PredictedScene, ground: Tensor, category: Tensor, context: Context
    ) -> Tensor:
        """(N,) the moved object must be the subject, or one of those that the subject means and that are not there yet."""
        beliefs, kept = self._beliefs(world, relation), None
        if relation.plural:
            beliefs, there = self._step_beliefs(world, relation, context)
            kept = self._kept(relation, world, scene, ground, there)
        energy = self._one_energy(relation, beliefs, world, scene, ground, category)
        return energy if kept is None else energy + kept

    def _kept(self, relation: Relation, world: WorldModel, scene: PredictedScene, ground: Tensor, there: Tensor) -> Tensor:
        """(N,) every object that stands in the relation now, with probability there (M,), shall do so after the motion."""
        probability = noun_probabilities(relation, self._logits(world, relation), world.scene)
        after = degrees(relation, torch.sigmoid(self._all_margins(relation, scene, ground)), probability)
        return -torch.log1p(-(there * (1 - after)).clamp(max=1 - 1e-12)).sum(dim=1)

    def _one_energy(
        self, relation: Relation, beliefs: Tensor, world: WorldModel, scene: PredictedScene, ground: Tensor, category: Tensor
    ) -> Tensor:
        rows = torch.arange(len(category))
        own = (ground[rows, category], scene.bottom[rows, category], scene.size[rows, category])
        if relation.kind == RelationKind.BETWEEN:
            margins = self._between(own[0][:, None], own[2][:, None], ground, scene.size)
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

    def _any_energy(self, relation: Relation, world: WorldModel, scene: PredictedScene, ground: Tensor, context: Context) -> Tensor:
        """(N,) energy of a relation between whichever objects; of a plural one, that all keep it which have it."""
        if relation.plural:
            return self._kept(relation, world, scene, ground, self._step_beliefs(world, relation, context)[1])
        beliefs = self._beliefs(world, relation)
        logs = logsigmoid(self._all_margins(relation, scene, ground)) + beliefs[:, 0].view(-1, *[1] * (len(relation.phrases) - 1))
        logs = logs + beliefs[:, 1].view(-1, *[1] * (len(relation.phrases) - 2))
        if relation.kind == RelationKind.BETWEEN:
            logs = logs + beliefs[:, 2]
        return -torch.logsumexp(logs.flatten(1), dim=1)

    @classmethod
    def _all_margins(cls, relation: Relation, scene: PredictedScene, ground: Tensor) -> Tensor:
        """(N, M, M) margins of subject i and reference j, or (N, M, M, M) for BETWEEN; -inf where two are the same object."""
        objects = ground.shape[1]
        same = torch.eye(objects, dtype=torch.bool)
        if relation.kind == RelationKind.BETWEEN:
            margins = cls._between(ground[:, :, None], scene.size[:, :, None], ground[:, None], scene.size[:, None])
            clash = same[:, :, None] | same[:, None, :] | same[None, :, :]
            return margins.masked_fill(clash, -torch.inf)
        offset = ground[:, :, None] - ground[:, None]
        height = scene.bottom[:, :, None] - scene.bottom[:, None]
        subject, reference = torch.broadcast_tensors(scene.size[:, :, None], scene.size[:, None])
        return relation_margin(relation.kind, offset, height, subject, reference).masked_fill(same, -torch.inf)

    @staticmethod
    def _between(subject: Tensor, extent: Tensor, ground: Tensor, size: Tensor) -> Tensor:
        """(..., M, M) margins of a subject at (..., 1, 2), extent (..., 1, 3), between all pairs of (..., M, 2), size (..., M, 3)."""
        offset = subject - ground
        extent, size = torch.broadcast_tensors(extent, size)
        first, second = (offset.unsqueeze(-2), extent.unsqueeze(-2), size.unsqueeze(-2)), (offset.unsqueeze(-3), size.unsqueeze(-3))
        return relation_margin(RelationKind.BETWEEN, first[0], torch.zeros(()), first[1], first[2], *second)


def fused_logits(assessments: list[Assessment]) -> Tensor:
    """(M, K) mean log-odds over the views that see the object; UNSEEN_LOGIT where none does."""
    stacked = torch.stack([assessment.logits for assessment in assessments])
    return torch.from_numpy(np.nan_to_num(_mean_of_seen(stacked.numpy()), nan=UNSEEN_LOGIT))


def _mean_of_seen(values: np.ndarray) -> np.ndarray:
    seen = ~np.isnan(values)
    total, count = np.where(seen, values, 0.0).sum(axis=0), seen.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def predicted_margins(relation: Relation, scene: PredictedScene) -> Tensor:
    """(N, M, M), or (N, M, M, M) for BETWEEN: margins of subject i and reference j in the fused scene; -inf: the same object."""
    return RelationScorer._all_margins(relation, scene, scene.ground)


def degrees(relation: Relation, truth: Tensor, probability: Tensor) -> Tensor:
    """(..., M) how true a relation is of each object as its subject: the truest of the objects that may be its references.

    Args:
        truth: (..., M, M) or (..., M, M, M) of the relation between objects, 0..1; NaN: nobody can tell, taken as 0.
        probability: (M, K) of `noun_probabilities`; a reference counts as its probability over that of the likeliest one.
    """
    references = probability[:, 1:] / probability[:, 1:].amax(dim=0).clamp(min=1e-12)
    weight = references[:, 0]
    if len(relation.references) == 2:
        weight = weight[:, None] * references[:, 1]
        return (truth.nan_to_num(0.0) * weight).flatten(-2).amax(dim=-1)
    return (truth.nan_to_num(0.0) * weight).amax(dim=-1)


def probability_of(assessments: list[Assessment], logits: Tensor, relation: Relation, scene: Scene) -> float:
    """Probability that the relation holds as things are.

    One subject: p = sum over objects of prod_k p(object | phrase k) * mean over views of sigmoid(margin); objects that are alike (see
    ALIKE) count as one, of which the truest is taken: "a block is in the bowl" if one of four is. Several, with p_i that object i is meant
    and h_i how true the relation is of it: ALL: min_i (1 - p_i (1 - h_i)), the weakest link, since the views err together; COUNT: the n-th
    greatest p_i h_i.

    Args:
        logits: (M, T) log-odds of the relation's texts, those of `fused_logits` or with memory added.
    """
    if len(logits) == 0:
        return 0.0
    beliefs = noun_probabilities(relation, logits, scene)
    truth = torch.stack([torch.sigmoid(assessment.margins) for assessment in assessments]).mean(dim=0)
    if relation.plural:
        meant, held = beliefs[:, 0], degrees(relation, truth, beliefs)
        if relation.nouns[0].quantifier == Quantifier.ALL:
            return float((1 - meant * (1 - held)).min())
        ranked = (meant * held).sort(descending=True).values
        wanted = relation.nouns[0].count
        return float(ranked[wanted - 1]) if wanted <= len(ranked) else 0.0
    likely = beliefs >= ALIKE * beliefs.amax(dim=0)
    weight, alike = beliefs[:, 0], torch.ones((), dtype=torch.bool)
    for k in range(1, beliefs.shape[1]):
        weight = weight[..., None] * beliefs[:, k]
        alike = alike[..., None] & likely[:, k]
    clash = truth.isnan()
    distinct = torch.stack([assessment.margins for assessment in assessments]).amax(dim=0) > -torch.inf
    weight = torch.where(distinct & ~clash, weight, torch.zeros_like(weight)).flatten(1)
    if not weight.sum() > 1e-12:
        return 0.0
    of_subjects = _with_alike(weight, alike.flatten(), truth.nan_to_num(0.0).flatten(1))
    return float(_with_alike(weight.sum(dim=1), likely[:, 0], of_subjects))


def _with_alike(weight: Tensor, alike: Tensor, truth: Tensor) -> Tensor:
    """(..., N) weights >= 0 and truths 0..1 -> (...,) mean truth, all that are alike, (N,), being as true as the truest of them."""
    alike = alike & (weight > 0)
    truest = torch.where(alike, truth, torch.zeros_like(truth)).amax(dim=-1, keepdim=True)
    return (weight * torch.where(alike, truest, truth)).sum(dim=-1) / weight.sum(dim=-1).clamp_min(1e-300)
