"""The embedded experts: what they say of real renders, and that their gradients lead where they should."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pcm_ros.consensus import Batch
from pcm_ros.tasks.image_generation import read_prompt
from pcm_ros.tasks.image_generation.assembly import EXPERTS, experts_for
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


@pytest.mark.parametrize("name", ["pcm-clip-resnet", "pcm-clip-towers"])
def test_clips_prefer_the_picture_of_what_is_asked_for(pictures: torch.Tensor, name: str) -> None:
    for prompt, right in (("a red mug", 0), ("a blue bowl", 1)):
        (expert,) = experts_for(read_prompt(prompt), [name])
        energies = expert.energy(batch_of(pictures), None)
        assert energies.argmin() == right
        assert (energies >= 0).all()


@pytest.mark.parametrize("name", EXPERTS)
def test_a_step_along_the_gradient_lowers_the_energy(pictures: torch.Tensor, name: str) -> None:
    (expert,) = experts_for(read_prompt("a red mug"), [name])
    batch = batch_of(pictures[1:])
    energies = expert.energy(batch, None)
    (gradient,) = torch.autograd.grad(energies.sum(), batch.parameters)
    moved = (batch.parameters - 0.5 * gradient / gradient.norm()).detach().float().reshape(1, 3, 64, 64)
    assert (expert.energy(batch_of(moved), None) < energies).all()


def test_the_classifier_knows_some_kinds_only() -> None:
    assert [len(classes_of(read_prompt(text))) for text in ("a red mug", "two mugs", "a mug and a bowl", "a block")] == [1, 1, 2, 0]
    assert [expert.name for expert in experts_for(read_prompt("a block"))] == ["pcm-clip-resnet", "pcm-clip-towers"]


def test_cut_outs_show_their_windows() -> None:
    image = torch.zeros((1, 3, 40, 40)) - 1
    image[:, :, 10:20, 20:30] = 1
    (whole, thing, corner) = cut_outs(image, torch.tensor([[[0, 0, 1.0], [0.5, 0.25, 0.25], [0, 0, 0.25]]]), 20)
    assert whole.shape == (3, 20, 20)
    assert whole.mean() == pytest.approx(255 / 16, abs=2)
    assert thing[:, 2:-2, 2:-2].min() > 250
    assert corner.max() < 5
