"""The generator: each proposal is what a diffusion model predicts the clean picture to be; each round is one denoising step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcm_ros.consensus import Batch, GradientState
from pcm_ros.models.diffusion import DiffusionModel
from pcm_ros.tasks.image_generation.prompt import Prompt

LEAST_WINDOW, GREATEST_WINDOW = 0.3, 0.65  # side of a cut-out / side of the picture
LARGEST = 6.0  # of a predicted clean value; the latents of the models have a deviation of about one


class DenoisingGenerator:
    """Denoising steps of N pictures of one prompt, from the same steps' guided predictions.

    The parameters of a proposal are its predicted clean sample x0, (C h w) numbers. They require a gradient. The extra "image" is the
    picture decoded from where classifier-free guidance alone will move them, which is what the experts judge; their gradients flow through
    the decoder to the parameters. What the ensemble makes of x0 goes through the library's solver in place of the prediction ("backward
    guidance" of Bansal et al., arXiv 2302.07121). With recurrences > 1 each step is taken so often: its result is made noisy again and
    denoised once more (their section 3.3), which mends what guidance tore.

    One object serves one run: multistep solvers remember earlier steps.

    Extras: sample (N, C, h, w), round (N,) int64, image (N, 3, H, W) about -1..1, unconditional (N, C h w), concepts (N, K, C h w) float64
    the predictions under each concept, wanted ones first, windows (N, J, 3) left, top and side of cut-outs as shares of the picture.

    Args:
        count: N. steps, recurrences: see above. windows: J cut-outs for each picture, drawn anew in each round.
        guidance: scale of classifier-free guidance. judged: whether experts look at the pictures; if not, the extra "image" is left out.

    Raises:
        ValueError: the size does not fit the model.
    """

    def __init__(
        self,
        model: DiffusionModel,
        prompt: Prompt,
        count: int,
        steps: int,
        recurrences: int,
        height: int,
        width: int,
        windows: int = 12,
        guidance: float = 1.0,
        judged: bool = True,
    ) -> None:
        self.model, self.prompt, self.count, self.recurrences, self.windows = model, prompt, count, recurrences, windows
        self.guidance, self.judged = guidance, judged
        self.shape = model.latent_shape(height, width)
        self.solver = model.new_solver()
        self.solver.set_timesteps(steps)
        self.rounds = len(self.solver.timesteps) * recurrences

    def propose(self, context: Any, state: GradientState | None, rng: torch.Generator) -> Batch:
        """The predictions of the next round; `state` is where the experts moved those of the last."""
        if state is None:
            sample = torch.randn((self.count, *self.shape), generator=rng) * float(self.solver.init_noise_sigma)
            number = 0
        else:
            number = int(state.batch.extras["round"][0]) + 1
            sample = self._next(state, number, rng)
        timestep = self.solver.timesteps[number // self.recurrences]
        texts = ["", *self.prompt.wanted, *self.prompt.avoided]
        with torch.no_grad():
            unconditional, *concepts = (clean.flatten(1).double() for clean in self.model.clean(sample, timestep, texts))
            wanted = torch.stack(concepts[: len(self.prompt.wanted)]).mean(dim=0)
        parameters = wanted.clamp(-LARGEST, LARGEST).requires_grad_()
        side = LEAST_WINDOW + (GREATEST_WINDOW - LEAST_WINDOW) * torch.rand((self.count, self.windows, 1), generator=rng)
        corner = torch.rand((self.count, self.windows, 2), generator=rng) * (1 - side)
        extras = {
            "sample": sample,
            "round": torch.full((self.count,), number),
            "unconditional": unconditional,
            "concepts": torch.stack(concepts, dim=1),
            "windows": torch.cat([corner, side], dim=2),
        }
        if self.judged:
            with torch.enable_grad():
                led = parameters + self._guided(unconditional, concepts)
                extras["image"] = self.model.decode(self.as_sample(led.clamp(-LARGEST, LARGEST)))
        return Batch(parameters, torch.zeros(self.count, dtype=torch.int64), extras)

    def _guided(self, unconditional: Tensor, concepts: Sequence[Tensor]) -> Tensor:
        """(N, C h w): how far guidance alone will move the parameters, see `PromptGuidance`."""
        many = len(self.prompt.wanted)
        wanted = torch.stack([concept - unconditional for concept in concepts[:many]]).sum(dim=0) * (self.guidance - 1 / many)
        return wanted - self.guidance * sum((concept - unconditional for concept in concepts[many:]), torch.zeros_like(unconditional))

    def as_sample(self, parameters: Tensor) -> Tensor:
        """(N, C, h, w) float32 of parameters (N, C h w)."""
        return parameters.float().reshape(-1, *self.shape)

    def _next(self, state: GradientState, number: int, rng: torch.Generator) -> Tensor:
        """The sample of round `number`: the solver's step to the guided prediction, made noisy again if it is repeated."""
        step = (number - 1) // self.recurrences
        timestep = self.solver.timesteps[step]
        clean = self.as_sample(state.parameters.clamp(-LARGEST, LARGEST))
        repeated = number // self.recurrences == step
        before = copy.deepcopy(self.solver) if repeated else None
        sample: Tensor = self.solver.step(clean, timestep, state.batch.extras["sample"], return_dict=False)[0]
        if before is None:
            return sample
        self.solver = before
        last = step + 1 == len(self.solver.timesteps)
        ratio = self.model.alphas[timestep] / (1.0 if last else self.model.alphas[self.solver.timesteps[step + 1]])
        return ratio.sqrt() * sample + (1 - ratio).clamp_min(0).sqrt() * torch.randn(sample.shape, generator=rng)
