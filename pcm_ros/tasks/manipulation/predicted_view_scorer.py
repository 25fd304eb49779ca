"""Would the objects still be recognised? Vision-language experts look at predicted views of the few best proposals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.grounding import Grounder, Region, regions_of
from pcm_ros.tasks.manipulation.predicted_view import PredictedView, predict_view
from pcm_ros.tasks.manipulation.relation_scorer import UNSEEN_LOGIT, plain_phrase
from pcm_ros.tasks.manipulation.vision import SideBySide
from pcm_ros.tasks.manipulation.world_model import WorldModel, world_model

# Pixels that a region must have to be looked at; what is smaller counts as not seen.
LEAST_PIXELS = 12
# A region whose area changes by less than this share looks as before: it is not looked at again.
SAME = 0.05


@dataclass(frozen=True)
class _Look:
    """What the experts say of the picture of one view as it is: log-odds (M, K), UNSEEN_LOGIT where an object is not seen; areas (M,)."""

    logits: Tensor
    areas: Tensor


class PredictedViewScorer:
    """Energy: - sum over the relation's phrases of log mean_v sigmoid(l_v), with l_v the experts' log-odds that in the predicted picture of
    view v the phrase describes its object: for the subject, the one that is moved; for each other phrase, the one that fits it best now.

    An object that would not be seen in a view has log-odds of -3 there. So exp(-energy) is the probability that a view, drawn by chance,
    shows all of them as what they are called, taken as independent; range 0 .. about 10 nats. Proposals that hide what they are about, or
    that move an object that is not what the subject says, pay.

    The regions are cut out of pictures that `predict_view` draws, milliseconds each: for the last stage of a cascade. Regions that the
    proposal does not change are those of the observed picture, which are looked at once a scene.

    Wrong when: the experts do not know the object; a prediction has seams or shows a side that no camera has seen.

    Args:
        grounder: the experts. They are asked for one or two regions of a picture: models that work on whole pictures are dear here.
        views: names of the views; None: all of the observation. `name` says which if there is one only.
    """

    cost = 5e-2
    differentiable = False

    def __init__(self, grounder: Grounder, views: tuple[str, ...] | None = None) -> None:
        if views == ():
            raise ValueError("appearance.views is empty; at least one name of a view is needed, or None for all")
        self._grounder, self._views = grounder, views
        self.name = f"appearance:{views[0]}" if views is not None and len(views) == 1 else "appearance"
        self._side_by_side = SideBySide()
        self._world: WorldModel | None = None
        self._looks: dict[tuple[str, tuple[str, ...]], _Look] = {}
        self._known: dict[tuple[int, tuple[float, ...], tuple[str, ...]], float] = {}

    def energy(self, batch: Batch, context: Context) -> Tensor:
        """(N,) float64 nats. Raises KeyError if the observation lacks one of the views."""
        world = world_model(context)
        if self._world is not world:
            self._world = world
            self._looks.clear()
            self._known.clear()
        phrases = tuple(plain_phrase(phrase) for phrase in context.relation.phrases)
        energies = []
        for category, motion in zip(batch.category.tolist(), batch.extras["motion"].tolist(), strict=True):
            key = (category, tuple(motion), phrases)  # the leader comes again in each iteration
            if key not in self._known:
                self._known[key] = self._of_one(world, category, motion, phrases)
            energies.append(self._known[key])
        return torch.tensor(energies, dtype=torch.float64)

    def _of_one(self, world: WorldModel, category: int, motion: list[float], phrases: tuple[str, ...]) -> float:
        assert world.observation is not None
        names = self._views or tuple(view.name for view in world.observation.views)
        looks = [self._look(world, name, phrases) for name in names]
        meant = self._meant(looks, category)

        def look_at(view: tuple[str, _Look]) -> Tensor:
            return self._predicted(world, predict_view(world, view[0], category, motion), view[1], category, meant, phrases)

        seen = torch.stack(self._side_by_side.map(look_at, list(zip(names, looks, strict=True))))  # (V, K)
        return float(-torch.sigmoid(seen).mean(dim=0).clamp(min=1e-6).log().sum())

    def _look(self, world: WorldModel, name: str, phrases: tuple[str, ...]) -> _Look:
        """The view as it is; once a scene and set of phrases."""
        if (name, phrases) not in self._looks:
            labels = world.labels(name)
            regions = regions_of(labels, world.scene.objects, LEAST_PIXELS)
            logits = torch.full((world.count, len(phrases)), UNSEEN_LOGIT, dtype=torch.float64)
            areas = torch.zeros(world.count, dtype=torch.float64)
            if regions:
                numbers = torch.tensor([region.number for region in regions])
                logits[numbers] = self._grounder.logits(world.view(name).rgb, regions, phrases).double()
                areas[numbers] = torch.tensor([float(region.mask.sum()) for region in regions], dtype=torch.float64)
            self._looks[name, phrases] = _Look(logits, areas)
        return self._looks[name, phrases]

    @staticmethod
    def _meant(looks: list[_Look], category: int) -> list[int]:
        """The object of each phrase: the moved one for the subject, the best other one (by the mean over the views) for the rest."""
        fused = torch.stack([look.logits for look in looks]).mean(dim=0)
        fused[category] = -math.inf
        return [category, *fused[:, 1:].argmax(dim=0).tolist()]

    def _predicted(
        self, world: WorldModel, picture: PredictedView, look: _Look, category: int, meant: list[int], phrases: tuple[str, ...]
    ) -> Tensor:
        """(K,) log-odds of each phrase for its object in the predicted picture."""
        result = torch.full((len(meant),), UNSEEN_LOGIT, dtype=torch.float64)
        anew: list[int] = []
        for k, number in enumerate(meant):
            area = int(picture.region(number).sum())
            if number != category and abs(area - float(look.areas[number])) <= SAME * max(area, 1):
                result[k] = look.logits[number, k]
            elif area >= LEAST_PIXELS and number not in anew:
                anew.append(number)
        if anew:
            regions = [Region(number, picture.region(number), world.scene.objects[number].points) for number in anew]
            found = self._grounder.logits(picture.rgb, regions, phrases).double()
            for row, number in enumerate(anew):
                for k, other in enumerate(meant):
                    if other == number:
                        result[k] = found[row, k]
        return result
