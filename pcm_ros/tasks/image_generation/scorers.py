"""The experts: what each holds of a predicted clean picture, differentiable with respect to it.

Those that look at pictures see cut-outs of it, drawn anew in each round: a gradient that pleases a network on one crop by some pattern
of pixels finds other crops in the next round.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from pcm_ros.consensus import Batch
from pcm_ros.models.clip import Clip
from pcm_ros.models.image_tower import SIZE as TOWER_SIZE
from pcm_ros.models.image_tower import ImageTower
from pcm_ros.models.segmentation import STRIDE, TextSegmenter
from pcm_ros.models.tower_clip import TowerClip
from pcm_ros.tasks.image_generation.prompt import Prompt

FINE = 128  # the segmenter sees twice the picture's pixels, its longer side at least this and at most twice this
CELLS = 8  # the least cells that a thing covers
UNASKED = 0.06
APART, NEAR, SOFT = 0.12, 0.05, 0.05  # shares of the picture's side


def cut_outs(image: Tensor, windows: Tensor, size: int) -> Tensor:
    """(N J, 3, size, size) of 0..255: the windows of each picture, bilinear, differentiable.

    Args:
        image: (N, 3, H, W) about -1..1; clipped to it.
        windows: (N, J, 3) left, top and side, shares of the picture's sides.
    """
    count, many = windows.shape[:2]
    left, top, side = windows.reshape(-1, 3).unbind(dim=1)
    zero = torch.zeros_like(side)
    affine = torch.stack(
        [torch.stack([side, zero, 2 * left + side - 1], dim=1), torch.stack([zero, side, 2 * top + side - 1], dim=1)], dim=1
    )
    pictures = image.clamp(-1, 1).repeat_interleave(many, dim=0)
    grid = functional.affine_grid(affine, [count * many, 3, size, size], align_corners=False)
    return (functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False) + 1) * 127.5


def somewhere(logits: Tensor) -> Tensor:
    """(N, K) log-odds that a phrase fits one of J cut-outs, of its log-odds (N, J, K) for each: a soft maximum, log mean exp."""
    return logits.logsumexp(dim=1) - math.log(logits.shape[1])


class PromptGuidance:
    """Classifier-free guidance as a score: how much better the clean sample x0 fits the prediction without the concept than that with it.

    E = (|x0 - x0(concept)|^2 - |x0 - x0()|^2) / 2: up to the noise level, the negative log-likelihood ratio of the classifier that a
    conditional diffusion model implies (Ho & Salimans, arXiv 2207.12598, section 3.2). Its gradient is x0() - x0(concept) everywhere, so
    a step of 1 with weight w on the conditional prediction is guidance of scale 1 + w. Unbounded; any sign. A concept that shall not be in
    the picture gets the opposite sign (Liu et al., arXiv 2206.01714, equation 12). Wrong when the model ignores or misreads words, which
    it does for sets of things that it has not seen.

    Args:
        name: of the expert. concept: its number among the generator's concepts. avoided: the opposite sign.
    """

    cost, differentiable = 1e-5, True

    def __init__(self, name: str, concept: int, avoided: bool = False) -> None:
        self.name, self.concept, self.sign = name, concept, -1.0 if avoided else 1.0

    def energy(self, batch: Batch, context: object) -> Tensor:
        """(N,) float64."""
        to_concept = (batch.parameters - batch.extras["concepts"][:, self.concept]).square().sum(dim=1)
        to_none = (batch.parameters - batch.extras["unconditional"]).square().sum(dim=1)
        return self.sign * (to_concept - to_none) / 2


class RegionClipExpert:
    """A CLIP in open_clip's format that was trained on pictures of single things.

    E = -sum over the prompt's things of log sigmoid(soft maximum over cut-outs of the log-odds), in nats, >= 0; 0 = it is sure to see each.
    Sigmoid head as in SigLIP (arXiv 2303.15343). Wrong about relations and counts, of which it sees nothing, and in crowded cut-outs: it
    learnt from things on plain grey.

    Args:
        windows: how many of the generator's cut-outs it looks at.
    """

    cost, differentiable = 0.05, True

    def __init__(self, name: str, model: Clip, prompt: Prompt, windows: int = 12) -> None:
        self.name, self._model, self._windows = name, model, windows
        self._texts = model.embed_texts(prompt.things).clone()  # what was made in inference mode cannot take part in gradients

    def energy(self, batch: Batch, context: object) -> Tensor:
        """(N,) float64."""
        windows = batch.extras["windows"][:, : self._windows]
        pictures = cut_outs(batch.extras["image"], windows, self._model.image_size)
        logits = self._model.compare(self._model.embed_pictures(pictures), self._texts)
        return -functional.logsigmoid(somewhere(logits.reshape(*windows.shape[:2], -1))).sum(dim=1).double()


class TowerClipExpert:
    """The CLIP of EfficientNet-Lite0 (ImageNet) and MiniLM with trained projections: things with their surroundings.

    Energy, range and limits as of `RegionClipExpert`; the whole cut-out counts as the thing, so it is softer about small ones.
    """

    cost, differentiable = 0.1, True

    def __init__(self, name: str, model: TowerClip, tower: ImageTower, prompt: Prompt, windows: int = 6) -> None:
        self.name, self._model, self._tower, self._things, self._windows = name, model, tower, prompt.things, windows

    def energy(self, batch: Batch, context: object) -> Tensor:
        """(N,) float64."""
        windows = batch.extras["windows"][:, : self._windows]
        pictures = (cut_outs(batch.extras["image"], windows, TOWER_SIZE) - 127) / 128
        features = self._tower.differentiable_features(pictures, _centre(TOWER_SIZE).expand(len(pictures), 1, -1, -1))
        logits = self._model.compare_features(features, self._things)
        return -functional.logsigmoid(somewhere(logits.reshape(*windows.shape[:2], -1))).sum(dim=1).double()


class SegmenterExpert:
    """The embedded text-conditioned segmenter: which things are where in the whole picture, and how they stand to each other.

    E in nats, >= 0, is the sum of
    - for each thing, -log sigmoid(mean log-odds of its CELLS best cells): it is there;
    - the share of cells on objects that no thing of the prompt accounts for, in units of UNASKED of the picture: nothing else is there;
    - for each relation, softplus of how far the centroids of the two masks, in shares of the picture's side, are from it: "left" and
      "right" by columns, "behind" and "front" by rows (the camera looks down from the front), "on" and "in" by little sideways and, "on",
      above.
    Wrong about counts (two masks of one phrase are one to it), about kinds that look alike in few pixels, and about relations seen from
    elsewhere.
    """

    cost, differentiable = 0.05, True

    def __init__(self, segmenter: TextSegmenter, prompt: Prompt) -> None:
        self.name, self._network, self._relations = "segmenter", segmenter.network, prompt.relations
        self._texts = segmenter.embed(prompt.things).clone()  # as above

    def energy(self, batch: Batch, context: object) -> Tensor:
        """(N,) float64."""
        image = batch.extras["image"].clamp(-1, 1)
        longest = max(image.shape[-2:])
        target = [max(32, round(side * min(max(2 * longest, FINE), 2 * FINE) / longest / 32) * 32) for side in image.shape[-2:]]
        fine = functional.interpolate(image, size=target, mode="bilinear", antialias=longest > 2 * FINE, align_corners=False)
        output = self._network(fine * (127.5 / 64))
        logits = self._network.logits(output.embedding, self._texts).flatten(2)
        cells = logits.shape[2]
        best = logits.topk(min(CELLS, cells), dim=2).values.mean(dim=2)
        energy = functional.softplus(-best).sum(dim=1)
        shares = logits.sigmoid()
        objects = output.objectness.sigmoid().flatten(1)
        energy = energy + (objects * (1 - shares.amax(dim=1))).mean(dim=1) / UNASKED
        if self._relations:
            owned = shares * logits.softmax(dim=1) * objects[:, None]
            energy = energy + self._misplaced(owned / (owned.sum(dim=2, keepdim=True) + 1e-6), target)
        return energy.double()

    def _misplaced(self, masks: Tensor, size: Sequence[int]) -> Tensor:
        """(N,) of masks (N, K, cells) that sum to one."""
        height, width = (side // STRIDE for side in size)
        rows = torch.linspace(0, 1, height).repeat_interleave(width)
        columns = torch.linspace(0, 1, width).repeat(height)
        x, y = masks @ columns, masks @ rows
        total = torch.zeros(len(masks))
        for relation in self._relations:
            right = x[:, relation.subject] - x[:, relation.object]
            below = y[:, relation.subject] - y[:, relation.object]
            missing = {
                "left": right + APART,
                "right": APART - right,
                "front": APART - below,
                "behind": below + APART,
                "on": torch.maximum(below + APART / 2, right.abs() - NEAR),
                "in": torch.maximum(below.abs() - APART, right.abs() - NEAR),
            }[relation.word]
            total = total + functional.softplus(missing / SOFT)
        return total


class ClassifierExpert:
    """EfficientNet-Lite0's own ImageNet head: classifier guidance (Dhariwal & Nichol, arXiv 2105.05233) for the kinds that it knows.

    E = -sum over the prompt's kinds of log(mean over cut-outs of the probability of the classes whose name has that word), nats, >= 0.
    Says nothing of colours, relations, or kinds that are no ImageNet class: `classes_of` tells which it knows. Wrong about small and
    rendered things: it learnt from photographs.

    Args:
        kinds: for each kind the numbers of its classes, at least one kind.

    Raises:
        ValueError: no kinds.
    """

    cost, differentiable = 0.1, True

    def __init__(self, tower: ImageTower, kinds: Sequence[Sequence[int]], windows: int = 6) -> None:
        if not kinds or not all(kinds):
            raise ValueError("a classifier expert needs kinds of at least one class each")
        self.name, self._tower, self._kinds, self._windows = "classifier", tower, kinds, windows

    def energy(self, batch: Batch, context: object) -> Tensor:
        """(N,) float64."""
        windows = batch.extras["windows"][:, : self._windows]
        pictures = (cut_outs(batch.extras["image"], windows, TOWER_SIZE) - 127) / 128
        chances = self._tower.classify(pictures).log_softmax(dim=1).reshape(*windows.shape[:2], -1)
        seen = torch.stack([somewhere(chances[..., list(classes)].logsumexp(dim=2)[..., None])[:, 0] for classes in self._kinds], dim=1)
        return -seen.sum(dim=1).double()


@cache
def _centre(size: int) -> Tensor:
    """(1, 1, S, S) weights that fall off towards the border: what a cut-out is of is in its middle."""
    ramp = 1 - torch.linspace(-1, 1, size).square()
    return (ramp[:, None] * ramp)[None, None]


@cache
def _class_words() -> tuple[tuple[frozenset[str], str], ...]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [str(info.index_to_description(number)).split(",") for number in range(1000)]
    last = [frozenset(re.findall(r"[a-z]+", name.lower())[-1] for name in several if re.search("[a-z]", name.lower())) for several in names]
    return tuple(zip(last, (several[0] for several in names), strict=True))


def classes_of(prompt: Prompt) -> list[list[int]]:
    """For each thing of the prompt whose last word ends the name of an ImageNet class, the numbers of these classes."""
    found = []
    for thing in prompt.things:
        words = re.findall(r"[a-z]+", thing.lower())
        heads = {words[-1], words[-1].removesuffix("s")} if words else set()
        if classes := [number for number, (last, _) in enumerate(_class_words()) if last & heads]:
            found.append(classes)
    return found
