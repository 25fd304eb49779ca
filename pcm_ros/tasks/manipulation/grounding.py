"""Which region does a phrase mean? Several vision-language models answer; their answers are added as log-odds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pcm_ros.models import registry
from pcm_ros.models.clip import RegionTextModel
from pcm_ros.models.tower_clip import ShapeClip
from pcm_ros.sight.words import both, colour_and_thing, colour_question, nearest_colours, nearest_kinds, unfamiliar_words
from pcm_ros.tasks.manipulation.scene import Points, SceneObject
from pcm_ros.tasks.manipulation.vision import Newest, RegionEmbeddings, Vision, digest


@dataclass(frozen=True)
class Region:
    """The visible pixels of scene object `number` in one image.

    Attributes:
        mask: (H, W) bool, not empty. points: (P, 3) world points of the object as all views see it, metres; None: not known.
    """

    number: int
    mask: npt.NDArray[np.bool_]
    points: Points | None = None


def regions_of(labels: npt.NDArray[np.int64], objects: Sequence[SceneObject], least_pixels: int = 12) -> list[Region]:
    """The regions of a label image (H, W) (number in `objects`, -1: none); those of fewer than `least_pixels` pixels are left out."""
    counts = np.bincount(labels[labels >= 0].ravel()) if (labels >= 0).any() else np.zeros(0, dtype=int)
    return [Region(number, labels == number, objects[number].points) for number in np.flatnonzero(counts >= least_pixels).tolist()]


class Grounder(Protocol):
    """An expert that compares regions of an image with phrases."""

    name: str

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        """(R, K) log-odds that phrase k describes region r."""
        ...


class SegmenterGrounder:
    """Mean mask logit of the text-conditioned segmenter over the region's pixels, its stride-4 cells counted by the pixels they hold.

    Range: about -12..6. Wrong when the region covers only a few cells, or mixes two objects.
    """

    name = "segmenter"

    def __init__(self, vision: Vision) -> None:
        self._vision = vision

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        features = self._vision.features(rgb)
        maps = self._vision.logits(rgb, tuple(phrases)).flatten(1)
        if not regions:
            return maps.new_zeros((0, len(phrases)))
        return torch.stack([features.shares(region.mask) for region in regions]) @ maps.T


class ClipGrounder:
    """Sigmoid logit of a CLIP between the region, cut out along its mask, and the phrase.

    Range: about -15..8. Wrong for regions of a few pixels and for what is mostly hidden.
    """

    def __init__(self, clip: RegionTextModel) -> None:
        self._clip, self._embeddings = clip, RegionEmbeddings(clip)
        self.name = clip.name

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        if not regions:
            return torch.zeros((0, len(phrases)))
        return self._clip.logits(self._embeddings.of(rgb, [region.mask for region in regions]), phrases)


class ShapeGrounder:
    """Sigmoid logit of the expert on shapes between the object's points, as all views see it, and the phrase, softly bounded: a shape that
    is like none of those it learnt from is called something all the same, and the others must be able to outvote that. 0, no opinion, where
    there are no points.

    Range: -4..4. It knows kinds, and has no say on colours. Wrong for what is mostly hidden, or seen by one camera alone.
    """

    _BOUND = 4.0

    def __init__(self, model: ShapeClip, kept: int = 256) -> None:
        self._model, self.name = model, model.name
        self._embeddings: Newest[Tensor] = Newest(kept)

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        found = torch.zeros((len(regions), len(phrases)))
        clouds = [(row, region.points) for row, region in enumerate(regions) if region.points is not None]
        if clouds:
            vectors = torch.stack([self._embedded(points) for _, points in clouds])
            found[[row for row, _ in clouds]] = self._BOUND * torch.tanh(self._model.logits(vectors, phrases) / self._BOUND)
        return found

    def _embedded(self, points: Points) -> Tensor:
        return self._embeddings.get(digest(points), lambda: self._model.embed_objects([points])[0])


_Ask = Callable[[Grounder, npt.NDArray[np.uint8], Sequence[Region], Sequence[str]], Tensor]


class GrounderEnsemble:
    """What several experts say together: a product of experts, whose colours and whose kinds are weighed apart.

    "Red mug" is asked as "red object" and as "mug". Each answer is the weighted sum of the experts' log-odds and a bias; both must be true:
    P(red mug) = P(red) P(mug). Kinds are judged in other colours too (`kind_logits`). So a pair that was never seen together is known all
    the same, the expert on colours can have its say on them and on nothing else, and what is nearly red is nearly a red mug. Phrases
    without a colour's name are asked as they are.

    A kind that no expert met in training ("beaker") is also read as the known kinds nearest in meaning (`nearest_kinds`), the mean of both
    answers counts: what a language model knows of words, and what the others know of how things look. Likewise a colour ("teal") as the
    known ones that look like what people mean by it (`nearest_colours`).

    Args:
        experts: at least one, names unique.
        calibration: what makes the sums honest (`pcm_ros.models.registry.calibration`), weights for all of the experts.

    Raises:
        ValueError: no expert, two of one name, or one without a weight.
    """

    name = "ensemble"

    def __init__(self, experts: Sequence[Grounder], calibration: registry.Calibration) -> None:
        names = [expert.name for expert in experts]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"at least one grounding expert is needed, and unique names; got {names}")
        if missing := [name for name in names if name not in calibration.color or name not in calibration.thing]:
            raise ValueError(f"the calibration has no weight for {missing}; it has them for {sorted(calibration.color)}")
        self._experts, self._calibration = tuple(experts), calibration
        if len(names) == 1:
            self.name = names[0]

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        """See Grounder."""
        parts = {phrase: colour_and_thing(phrase) for phrase in phrases}
        colors = [colour_question(pair[0]) for pair in parts.values() if pair]
        kinds = [pair[1] for pair in parts.values() if pair]
        wholes = [phrase for phrase, pair in parts.items() if pair is None]
        if not regions or not phrases:
            return torch.zeros((len(regions), len(phrases)))
        ours = self._calibration
        readings = {
            colour_question(pair[0]): {colour_question(known): share for known, share in nearest_colours(pair[0]).items()}
            for pair in parts.values()
            if pair and unfamiliar_words(pair[0])
        }
        color = self._read(_as_it_is, rgb, regions, colors, readings, ours.color, ours.color_bias)
        thing, whole = (
            self._read(ask, rgb, regions, texts, {text: nearest_kinds(text) for text in texts if unfamiliar_words(text)}, ours.thing, 0.0)
            for ask, texts in ((kind_logits, kinds), (_as_it_is, wholes))
        )
        columns = []
        for phrase in phrases:
            pair = parts[phrase]
            if pair is None:
                columns.append(whole[phrase] + ours.whole_bias)
            else:
                columns.append(both(color[colour_question(pair[0])], thing[pair[1]] + ours.thing_bias))
        return ours.scale * torch.stack(columns, dim=1) + ours.bias

    def _read(
        self,
        ask: _Ask,
        rgb: npt.NDArray[np.uint8],
        regions: Sequence[Region],
        texts: Sequence[str],
        readings: Mapping[str, Mapping[str, float]],
        weights: Mapping[str, float],
        bias: float,
    ) -> dict[str, Tensor]:
        """(R,) of each text; those with readings (known text -> how likely it is meant) as those too."""
        asked = [*texts, *(known for reading in readings.values() for known in reading)]
        found = self._sum(ask, rgb, regions, asked, weights, bias)
        result = {text: found[text] for text in texts}
        for text, reading in readings.items():
            if reading:
                likely = torch.stack([share * torch.sigmoid(found[known].double()) for known, share in reading.items()]).amax(dim=0)
                result[text] = (found[text] + torch.logit(likely, eps=1e-4).float()) / 2
        return result

    def _sum(
        self,
        ask: _Ask,
        rgb: npt.NDArray[np.uint8],
        regions: Sequence[Region],
        texts: Sequence[str],
        weights: Mapping[str, float],
        bias: float,
    ) -> dict[str, Tensor]:
        """(R,) of each text, which may occur several times: the weighted sum of the experts' answers."""
        texts = list(dict.fromkeys(texts))
        if not texts:
            return {}
        total = torch.full((len(regions), len(texts)), bias)
        for expert in self._experts:
            total = total + weights[expert.name] * ask(expert, rgb, regions, texts)
        return dict(zip(texts, total.unbind(dim=1), strict=True))


def _as_it_is(expert: Grounder, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], texts: Sequence[str]) -> Tensor:
    return expert.logits(rgb, regions, texts)


def kind_logits(expert: Grounder, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], texts: Sequence[str]) -> Tensor:
    """(R, K) of texts that name kinds and no colours: the mean over the picture and two with red, green and blue exchanged in turn. What
    kinds came in which colours in training shall not count: no can was green there, and a green can is one when it is red or blue.

    Only CLIPs are shown the other two: a segmenter would have to go through each whole picture again.
    """
    pictures = [rgb]
    if isinstance(expert, ClipGrounder):
        pictures += [np.ascontiguousarray(rgb[..., order]) for order in ((1, 2, 0), (2, 0, 1))]
    return torch.stack([expert.logits(picture, regions, texts) for picture in pictures]).mean(dim=0)
