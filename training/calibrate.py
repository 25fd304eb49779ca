"""Bring the log-odds of the vision-language experts to one scale, on scenes that no bench and no training uses.

    python -m training.calibrate --scenes 40 --seed 900000

For each expert alone and for all together, the numbers of `pcm_ros.models.registry.Calibration` are fitted: how much each expert's word on
colours and on kinds counts, biases and a scale. They make softmax(log-odds) over the objects of a scene, in one view, the probability that
the chosen object is the right one (as temperature scaling does for one model, Guo et al., arXiv 1706.04599), and sigmoid(log-odds) of the
best object, fused over the views, the probability that what the phrase says is there at all. After that, energies of different experts are
nats of one currency and can be summed. The file also holds the words that the experts know from their training.

An expert that is never wrong on these scenes may be wrong on others, and then the rest must be able to outvote it. So the weights of
several experts are fitted to scenes in which each of them now and then takes one object for another (`mistaken`); scale and biases after
that to the scenes as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pcm_ros.benchmarks.grounding import ABSENT, NOT_PERCEIVED, SceneEvidence, evidence
from pcm_ros.models.registry import CALIBRATION, Calibration, calibration_name
from pcm_ros.sight.words import both, colour_and_thing, colour_question
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_vision, experts
from pcm_ros.tasks.manipulation.grounding import Grounder, GrounderEnsemble, Region, kind_logits
from training.lexicon import known_words

UNSEEN = -20.0  # log-odds of what no view shows
DECAY = 1e-3  # of all numbers, squared: what an expert is worth on other scenes than these is not known, none shall be left out or rule
MISTAKES, COPIES = 0.2, 3  # how often an expert takes an object for another of the scene, in how many copies of each scene


@dataclass(frozen=True)
class Part:
    """An expert that is asked for one part of each phrase: what it says of the colour, or of the thing (phrases without colour: all)."""

    expert: Grounder
    color: bool

    @property
    def name(self) -> str:
        return f"{self.expert.name} {'color' if self.color else 'thing'}"

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        asked = [self._part(phrase) for phrase in phrases]
        answers = self.expert.logits(rgb, regions, asked)
        if self.color:
            return answers
        composed = torch.tensor([colour_and_thing(phrase) is not None for phrase in phrases])
        return torch.where(composed, kind_logits(self.expert, rgb, regions, asked), answers)

    def _part(self, phrase: str) -> str:
        pair = colour_and_thing(phrase)
        return phrase if pair is None else colour_question(pair[0]) if self.color else pair[1]


@dataclass(frozen=True)
class Answers:
    """What E experts say in one scene of V views, M objects, K phrases.

    Attributes:
        color, thing: (E, V, M, K) log-odds of `Part`, 0 where unseen. seen: (V, M, K) bool.
        composed: (K,) bool, which phrases have a colour's name. right: (K,) the object meant, ABSENT or NOT_PERCEIVED.
    """

    color: Tensor
    thing: Tensor
    seen: Tensor
    composed: Tensor
    right: Tensor


def answers(scene: SceneEvidence, names: Sequence[str]) -> Answers:
    """The answers of the experts of these names."""
    color, thing = (torch.from_numpy(np.stack([np.stack(scene.views[f"{name} {part}"]) for name in names])) for part in ("color", "thing"))
    composed = torch.tensor([colour_and_thing(phrase) is not None for phrase in scene.phrases])
    return Answers(color.nan_to_num(0.0), thing.nan_to_num(0.0), thing[0].isfinite(), composed, torch.from_numpy(scene.right))


def of_numbers(x: Tensor, experts: int) -> tuple[Tensor, ...]:
    """Free numbers (2 E + 5,) -> weights of colours (E,) and things (E,), their biases, the bias of whole phrases, scale and bias."""
    return softplus(x[:experts]), softplus(x[experts : 2 * experts]), *x[2 * experts : 2 * experts + 3], x[-2].exp(), x[-1]


def combined(x: Tensor, scene: Answers) -> Tensor:
    """(V, M, K) log-odds, as `GrounderEnsemble` gives them for words that it knows."""
    color, thing, color_bias, thing_bias, whole_bias, scale, bias = of_numbers(x, len(scene.color))
    colors, things = torch.tensordot(color, scene.color, 1) + color_bias, torch.tensordot(thing, scene.thing, 1)
    return scale * torch.where(scene.composed, both(colors, things + thing_bias), things + whole_bias) + bias


def losses(x: Tensor, scenes: Sequence[Answers]) -> tuple[Tensor, Tensor]:
    """Mean of -log softmax[right object] over views and phrases whose object the view sees; log loss of presence, both classes of the same
    weight. Nats."""
    choice, there, absent = [], [], []
    for scene in scenes:
        logits = combined(x, scene)
        asked = (scene.right >= 0).nonzero()[:, 0]
        column = torch.where(scene.seen, logits, -torch.inf)[..., asked]
        right = column[:, scene.right[asked], torch.arange(len(asked))]
        shown = torch.isfinite(right)
        choice.append((torch.logsumexp(column.nan_to_num(neginf=-1e6), dim=1) - right)[shown])
        count = scene.seen.sum(dim=0)
        fused = torch.where(count > 0, (logits * scene.seen).sum(dim=0) / count.clamp(min=1), UNSEEN).amax(dim=0)
        there.append(fused[asked])
        absent.append(fused[scene.right == ABSENT])
    presence = (softplus(-torch.cat(there)).mean() + softplus(torch.cat(absent)).mean()) / 2
    return torch.cat(choice).mean(), presence


def mistaken(scene: Answers, rng: np.random.Generator) -> Answers:
    """The scene, but now and then (MISTAKES) an expert says of an object, in all views, what it said of another one."""

    def confuse(told: Tensor) -> Tensor:
        confused = told.clone()
        for expert, number in np.argwhere(rng.random((told.shape[0], told.shape[2])) < MISTAKES):
            other = rng.integers(told.shape[2])
            confused[expert, :, number] = told[expert, :, other].where(scene.seen[:, number], torch.zeros(()))
        return confused

    return replace(scene, color=confuse(scene.color), thing=confuse(scene.thing))


def minimised(scenes: Sequence[Answers], start: Tensor, free: slice) -> Tensor:
    """The numbers (2 E + 5,) of least loss on these scenes, all but the free ones as in `start`."""
    x = start[free].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([x], max_iter=150, line_search_fn="strong_wolfe")

    def whole() -> Tensor:
        return torch.cat((start[: free.start], x))

    def closure() -> Tensor:
        optimiser.zero_grad()
        choice, presence = losses(whole(), scenes)
        total = choice + presence + DECAY * x.square().sum()
        total.backward()
        return total

    optimiser.step(closure)
    return whole().detach()


def fit(scenes: Sequence[SceneEvidence], names: Sequence[str]) -> dict[str, object]:
    """The calibration of these experts together, and what it is worth."""
    parts, rng = [answers(scene, names) for scene in scenes], np.random.default_rng(0)
    x = torch.zeros(2 * len(names) + 5, dtype=torch.float64)
    if len(names) > 1:
        x = minimised([mistaken(part, rng) for part in parts for _ in range(COPIES)], x, slice(0, None))
        x = minimised(parts, x, slice(2 * len(names), None))
    else:
        x = minimised(parts, x, slice(0, None))
    color, thing, *numbers = of_numbers(x, len(names))
    choice, presence = losses(x, parts)
    found = Calibration(_rounded(names, color), _rounded(names, thing), *(round(float(number), 4) for number in numbers))
    phrases = sum(int((scene.right != NOT_PERCEIVED).sum()) for scene in scenes)
    return {**asdict(found), "choice_nats": round(float(choice), 4), "presence_nats": round(float(presence), 4), "phrases": phrases}


def _rounded(names: Sequence[str], weights: Tensor) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip(names, weights, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", default=["relations-1", "clutter"])
    parser.add_argument("--scenes", type=int, default=40, help="of each suite")
    parser.add_argument("--seed", type=int, default=900_000)
    parser.add_argument("--experts", nargs="+", default=list(ManipulationConfig.grounders))
    parser.add_argument("--out", type=Path, default=CALIBRATION)
    parser.add_argument("--add", action="store_true", help="leave what the file says of others as it is: of experts alone, of other sets")
    options = parser.parse_args()
    vision = build_vision()
    asked = experts(options.experts, vision)
    names = [expert.name for expert in asked]
    even = dict.fromkeys(names, 1 / len(names))
    namer, scenes = GrounderEnsemble(asked, Calibration(even, even)), list[SceneEvidence]()
    parts = [Part(expert, color) for expert in asked for color in (True, False)]
    for suite in options.suites:
        cell = SimWorkcell(suite)
        for seed in range(options.seed, options.seed + options.scenes):
            cell.reset(seed)
            found = evidence(cell, vision, {part.name: part for part in parts}, namer, np.random.default_rng([seed, 2]))
            if found is not None:
                scenes.append(found)
            print(f"{suite} {seed}", flush=True)
        cell.close()
    before = json.loads(options.out.read_text())["experts"] if options.add else {}
    fitted = {name: before.get(name) or fit(scenes, [name]) for name in names}
    if len(names) > 1:
        fitted[calibration_name(names)] = fit(scenes, names)
    fitted = before | fitted
    for name, values in fitted.items():
        print(name, values)
    source = {"suites": options.suites, "scenes": options.scenes, "seed": options.seed}
    content = {"source": source, "experts": fitted, "words": known_words()}
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
