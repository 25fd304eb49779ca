"""The embedded experts: what they say of real renders, and that their gradients lead where they should."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pcm_ros.consensus import Batch
from pcm_ros.sim.pictures import Placed, relation
from pcm_ros.sim.pictures import pictures as rendered_pictures
from pcm_ros.tasks.image_generation import read_prompt
from pcm_ros.tasks.image_generation.assembly import EXPERTS, GUIDES, READERS, experts_for
from pcm_ros.tasks.image_generation.scorers import classes_of, cut_outs


def rendered(kind: str, color: str) -> torch.Tensor:
    """(1, 3, 64, 64) of -1..1: one thing on a grey table, by the simulator's renderer."""
    import pybullet

    from pcm_ros.sim.appearance import PROTOTYPES, Shade
    from pcm_ros.sim.cameras import CameraSpec, render
    from pcm_ros.sim.objects import sample_object, spawn

    client = pybullet.connect(pybullet.DIRECT)
    spec = sample_object(np.random.default_rng(0), kind, Shade(color, color, PROTOTYPES[color]))
    spawn(client, spec, (0.0, 0.0), 0.0, 0.7)
    view, _ = render(client, CameraSpec("camera", (0.0, -0.3, 0.25), (0.0, 0.0, 0.04), 128, 128, 35.0))
    pybullet.disconnect(client)
    small = cv2.resize(view.rgb, (64, 64), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1


def batch_of(image: torch.Tensor) -> Batch:
    """Pictures as their own parameters, with cut-outs of the middle."""
    parameters = image.flatten(1).double().requires_grad_()
    windows = torch.tensor([[[0.2, 0.15, 0.6], [0.1, 0.1, 0.65], [0.25, 0.25, 0.5], [0.3, 0.2, 0.55]]]).expand(len(image), -1, -1)
    extras = {"image": parameters.float().reshape(image.shape), "windows": windows}
    return Batch(parameters, torch.zeros(len(image), dtype=torch.int64), extras)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.cat([rendered("mug", "red"), rendered("bowl", "blue")])


@pytest.mark.parametrize("name", [name for name in EXPERTS if name != "classifier"])
def test_experts_prefer_the_picture_of_what_is_asked_for(pictures: torch.Tensor, name: str) -> None:
    for prompt, right in (("a red mug", 0), ("a blue bowl", 1)):
        (expert,) = experts_for(read_prompt(prompt), [name])
        energies = expert.energy(batch_of(pictures), None)
        assert energies.argmin() == right
        assert (energies >= 0).all()


@pytest.mark.parametrize("name", GUIDES)
def test_a_step_along_the_gradient_lowers_the_energy(pictures: torch.Tensor, name: str) -> None:
    (expert,) = experts_for(read_prompt("a red mug"), [name])
    batch = batch_of(pictures[1:])
    energies = expert.energy(batch, None)
    (gradient,) = torch.autograd.grad(energies.sum(), batch.parameters)
    moved = (batch.parameters - 0.5 * gradient / gradient.norm()).detach().float().reshape(1, 3, 64, 64)
    assert (expert.energy(batch_of(moved), None) < energies).all()


def test_the_classifier_knows_some_kinds_only() -> None:
    assert [len(classes_of(read_prompt(text))) for text in ("a red mug", "two mugs", "a mug and a bowl", "a block")] == [1, 1, 2, 0]
    assert [expert.name for expert in experts_for(read_prompt("a block"), ["classifier", "segmenter"])] == ["segmenter"]


@pytest.fixture(scope="module")
def scenes() -> list[tuple[torch.Tensor, list[Placed]]]:
    """Renders of held-out sets of at least two different things, and what is where in them."""
    import pybullet

    client = pybullet.connect(pybullet.DIRECT)
    found = []
    try:
        for world in range(4):
            for rgb, things in rendered_pictures(client, 70_000, world, "test"):
                names = {(thing.color, thing.kind) for thing in things}
                if 2 <= len(names) == len(things) and len({color for color, _ in names} & set(DISTINCT)) == len(things):
                    found.append((torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1, things))
    finally:
        pybullet.disconnect(client)
    assert len(found) >= 12
    return found[:16]


DISTINCT = ("red", "green", "blue", "yellow", "purple", "white", "black", "orange")
SWAPPED = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
SAID = {"left": "to the left of", "right": "to the right of", "front": "in front of", "behind": "behind"}


@pytest.mark.parametrize("name", READERS)
def test_readers_hear_what_is_said_of_renders(scenes: list[tuple[torch.Tensor, list[Placed]]], name: str) -> None:
    """A true prompt costs less than one with a thing of another kind, colour, one thing too many, or the opposite relation."""
    better = []
    for image, things in scenes:
        names = [f"a {thing.color} {thing.kind}" for thing in things]
        strange = "duck" if things[0].kind != "duck" else "bowl"
        wrong = [
            [f"a {things[0].color} {strange}", *names[1:]],
            [f"a {next(c for c in DISTINCT if all(c != t.color for t in things))} {things[0].kind}", *names[1:]],
            [*names, f"a {next(c for c in DISTINCT if all(c != t.color for t in things))} {strange}"],
        ]
        pairs = [(" and ".join(names), " and ".join(other)) for other in wrong]
        if (how := relation(0, 1, things)) in SAID and len(things) == 2:
            pairs.append((f"{names[0]} {SAID[how]} {names[1]}", f"{names[0]} {SAID[SWAPPED[how]]} {names[1]}"))
        for right, false in pairs:
            energies = [float(experts_for(read_prompt(text), [name])[0].energy(batch_of(image), None).detach()) for text in (right, false)]
            assert min(energies) >= 0
            better.append(energies[0] < energies[1])
    assert np.mean(better) > (0.65 if name == "pcm-clip-colors" else 0.8), f"{np.mean(better):.2f} of {len(better)}"


def test_readers_count(pictures: torch.Tensor) -> None:
    both = torch.cat([pictures[:1], pictures[:1]], dim=3)  # two red mugs side by side
    for text, right in (("a red mug", 0), ("two red mugs", 1)):
        (expert,) = experts_for(read_prompt(text), ["pcm-clip-towers"])
        one = float(expert.energy(batch_of(pictures[:1]), None))
        two = float(expert.energy(batch_of(both), None))
        assert [one, two].index(min(one, two)) == right


@pytest.mark.parametrize("name", READERS)
def test_readers_of_an_empty_picture_miss_everything(name: str) -> None:
    (expert,) = experts_for(read_prompt("a red mug to the left of a blue bowl"), [name])
    assert float(expert.energy(batch_of(torch.zeros((1, 3, 64, 64))), None)) > 5


def test_cut_outs_show_their_windows() -> None:
    image = torch.zeros((1, 3, 40, 40)) - 1
    image[:, :, 10:20, 20:30] = 1
    (whole, thing, corner) = cut_outs(image, torch.tensor([[[0, 0, 1.0], [0.5, 0.25, 0.25], [0, 0, 0.25]]]), 20)
    assert whole.shape == (3, 20, 20)
    assert whole.mean() == pytest.approx(255 / 16, abs=2)
    assert thing[:, 2:-2, 2:-2].min() > 250
    assert corner.max() < 5
