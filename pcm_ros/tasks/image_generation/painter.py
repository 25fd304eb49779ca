"""Pictures by guided denoising on the consensus engine: requests, progress, results."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pcm_ros.consensus import Batch, Consensus, Ensemble, Gradient, GradientState, Iteration, QuorumError, Scorer, Stop
from pcm_ros.models.diffusion import DiffusionModel
from pcm_ros.tasks.image_generation.generator import DenoisingGenerator
from pcm_ros.tasks.image_generation.prompt import Prompt, UnusablePrompt, read_prompt
from pcm_ros.tasks.image_generation.scorers import PromptGuidance

Experts = Callable[[Prompt], Sequence[Scorer]]
PUSH = 0.02
MOST_STEPS, MOST_PICTURES, MOST_RECURRENCES = 250, 16, 8


@dataclass(frozen=True)
class Request:
    """What is to be painted.

    Attributes:
        prompt: see `read_prompt`. seed: any int; the same request gives the same picture. steps: 2..250 denoising steps.
        count: 1..16 pictures at once, of which the experts choose. recurrences: 1..8, each step so often.
        guidance: >= 0, scale of classifier-free guidance for what is wanted (1 = none), and for what shall not be there.
        height, width: pixels; None = the model's own size.

    Raises:
        ValueError: an attribute out of its range. UnusablePrompt (a ValueError): see `read_prompt`.
    """

    prompt: str
    seed: int = 0
    steps: int = 40
    count: int = 1
    recurrences: int = 1
    guidance: float = 4.0
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        read_prompt(self.prompt)
        for name, least, most in (("steps", 2, MOST_STEPS), ("count", 1, MOST_PICTURES), ("recurrences", 1, MOST_RECURRENCES)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {least}..{most}")
        if not 0 <= self.guidance <= 100:
            raise ValueError(f"guidance is {self.guidance}; allowed: 0..100")


@dataclass(frozen=True, eq=False)
class Progress:
    """After each round.

    Attributes:
        round: 1, 2, ... rounds: how many there will be.
        energies: expert -> raw energy of the first picture. moved: expert -> how far it moved that picture's clean sample.
        dropped: expert -> why it was left out. seconds: since the start.
        decode: makes the preview. Decoding takes about as long as a step: it is done for those who look, not in each round.
    """

    round: int
    rounds: int
    energies: Mapping[str, float]
    moved: Mapping[str, float]
    dropped: Mapping[str, str]
    seconds: float
    decode: Callable[[], npt.NDArray[np.uint8]] = field(repr=False)

    @functools.cached_property
    def preview(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8, the first picture as it was predicted in this round."""
        return self.decode()


@dataclass(frozen=True, eq=False)
class Picture:
    """The result.

    Attributes:
        image: (H, W, 3) uint8, the picture of least energy. request: what was asked for.
        others: the other pictures of the request, best first. energies: of `image`, expert -> energy of the finished picture.
        energies_of_others: the same of each of `others`, in their order.
        history: for each round the raw energies of the first picture. dropped: expert -> rounds in which it was left out, and why last.
        complete: whether all rounds were done. reason: else "deadline" or "cancelled"; `image` is then what was predicted so far.
        seconds: wall clock. expert_seconds: expert -> seconds per round, its gradient included.
        order: of `image` and each of `others`, which noise it was made of: 0 = the first, which a request for one picture gets too.
    """

    image: npt.NDArray[np.uint8]
    request: Request
    others: tuple[npt.NDArray[np.uint8], ...]
    energies: Mapping[str, float]
    energies_of_others: tuple[Mapping[str, float], ...]
    history: tuple[Mapping[str, float], ...]
    dropped: Mapping[str, tuple[int, str]]
    complete: bool
    reason: str
    seconds: float
    expert_seconds: Mapping[str, float] = field(default_factory=dict)
    order: tuple[int, ...] = ()


def as_picture(image: Tensor) -> npt.NDArray[np.uint8]:
    """(N, H, W, 3) uint8 of (N, 3, H, W) about -1..1."""
    return np.asarray(((image.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


class Painter:
    """A diffusion model and the experts that guide it.

    Args:
        model: the generator's.
        experts: prompt -> experts on pictures; they read the generator's extra "image". Their energies are >= 0, 0 = content. All choose
            among the finished pictures.
        weights: expert -> weight >= 0 in the sum by which is chosen, default 1.
        push: > 0, how far an expert of weight 1 may move the clean sample in one round at most (it moves it less if that is enough to
            content it), as a share of the root of its number of values, which is about its length. Classifier-free guidance is not limited.
        guided: whether those that are differentiable guide each step too.
        timeout: seconds for an expert's answer in a round.

    Raises:
        ValueError: push out of its range.
    """

    def __init__(
        self,
        model: DiffusionModel,
        experts: Experts,
        weights: Mapping[str, float] | None = None,
        push: float = PUSH,
        guided: bool = True,
        timeout: float = 60.0,
    ) -> None:
        check_push(push)
        self.model, self.experts, self.weights, self.push, self.guided, self.timeout = model, experts, weights or {}, push, guided, timeout

    def prepare(self) -> None:
        """Load what the experts need, so that it is no part of a request's time. Raises ModelUnavailable."""
        self.experts(read_prompt("a red mug"))

    def paint(
        self,
        request: Request,
        deadline: float | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Picture:
        """Paint to the end, or until the deadline (seconds from now) or the cancellation, which are looked at after each round.

        Experts that have not chosen among the finished pictures by the deadline are left out; if none has, the first picture is given.

        Raises:
            ValueError: the size does not fit the model.
            UnusablePrompt (a ValueError): a concept is longer than what the model's text encoder reads.
        """
        start = time.monotonic()
        steps = self.iterate(request, deadline, cancelled, start)
        while True:
            try:
                progress(next(steps))
            except StopIteration as end:
                picture: Picture = end.value
                return picture

    def iterate(
        self,
        request: Request,
        deadline: float | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        start: float | None = None,
    ) -> Generator[Progress, None, Picture]:
        """A generator of `Progress`, one for each round, that returns the `Picture`. Arguments and errors as `paint`."""
        start = time.monotonic() if start is None else start
        prompt = read_prompt(request.prompt)
        for concept in (*prompt.wanted, *prompt.avoided):
            if excess := self.model.excess(concept):
                tokens = "1 token" if excess == 1 else f"{excess} tokens"
                raise UnusablePrompt(
                    f"'{concept}' is {tokens} longer than what the model reads of a concept; remedy: say less, or split it by AND"
                )
        side = self.model.size
        experts = list(self.experts(prompt))
        guiding = [expert for expert in experts if expert.differentiable] if self.guided else []
        generator = DenoisingGenerator(
            self.model,
            prompt,
            request.count,
            request.steps,
            request.recurrences,
            side if request.height is None else request.height,
            side if request.width is None else request.width,
            guidance=request.guidance,
            judged=bool(guiding),
        )
        guidance, weights = self._guidance(prompt, request.guidance)
        weights |= {expert.name: 1.0 for expert in guiding}
        length = self.push * float(np.sqrt(np.prod(generator.shape)))
        strategy = Gradient(1.0, {expert.name: length for expert in guiding}, to_zero=[expert.name for expert in guiding])
        history, dropped, seconds, reason = [], dict[str, tuple[int, str]](), dict[str, float](), ""
        state: GradientState | None = None
        with Ensemble([*guidance, *guiding], weights, quorum=1, timeout=self.timeout) as ensemble:
            consensus = Consensus(generator, ensemble, strategy, Stop(generator.rounds, agreement=None), keep_leader=False)
            for iteration in consensus.iterate(prompt, request.seed):
                state = iteration.state
                history.append(iteration.table.energies_of(0))
                for name, why in iteration.dropped.items():
                    dropped[name] = (dropped.get(name, (0, ""))[0] + 1, why)
                for name, value in iteration.table.seconds.items():
                    seconds[name] = seconds.get(name, 0.0) + value
                yield self._progress(generator, iteration, time.monotonic() - start)
                if iteration.index + 1 == generator.rounds:
                    break
                reason = "cancelled" if cancelled() else "deadline" if _late(start, deadline) else ""
                if reason:
                    break
        assert state is not None
        due = None if deadline is None else start + deadline
        return self._finished(request, generator, prompt, experts, state, tuple(history), dropped, seconds, reason, start, due)

    @staticmethod
    def _guidance(prompt: Prompt, scale: float) -> tuple[list[PromptGuidance], dict[str, float]]:
        """Experts of classifier-free guidance: proposals start at the mean of the wanted predictions, the rest is theirs."""
        wanted, experts, weights = len(prompt.wanted), [], {}
        for number in range(wanted + len(prompt.avoided)):
            avoided = number >= wanted
            name = f"{'avoid' if avoided else 'guidance'}{'' if number == 0 else f'-{number}'}"
            weight = scale if avoided else scale - 1 / wanted
            experts.append(PromptGuidance(name, number, avoided != (weight < 0)))
            weights[name] = max(abs(weight), 1e-9)  # an ensemble needs a weight above 0
        return experts, weights

    def _progress(self, generator: DenoisingGenerator, iteration: Iteration, seconds: float) -> Progress:
        moved = {name: float(length[0]) for name, length in iteration.state.moved.items()}
        sample = generator.as_sample(iteration.state.parameters[:1].detach().clone())  # of this round, whenever it is looked at

        def decode() -> npt.NDArray[np.uint8]:
            with torch.no_grad():
                return as_picture(self.model.decode(sample))[0]

        return Progress(
            iteration.index + 1, generator.rounds, iteration.table.energies_of(0), moved, dict(iteration.dropped), seconds, decode
        )

    @torch.no_grad()
    def _finished(
        self,
        request: Request,
        generator: DenoisingGenerator,
        prompt: Prompt,
        experts: Sequence[Scorer],
        state: GradientState,
        history: tuple[Mapping[str, float], ...],
        dropped: dict[str, tuple[int, str]],
        seconds: Mapping[str, float],
        reason: str,
        start: float,
        due: float | None,
    ) -> Picture:
        image = self.model.decode(generator.as_sample(state.parameters)).clamp(-1, 1)
        order, energies = list(range(len(image))), [dict[str, float]() for _ in image]
        if experts and not reason:
            batch = Batch(state.parameters, torch.zeros(len(image), dtype=torch.int64), {**state.batch.extras, "image": image})
            weights = {expert.name: self.weights.get(expert.name, 1.0) for expert in experts}
            timeout = self.timeout if due is None else min(self.timeout, max(due - time.monotonic(), 1e-3))
            try:
                with Ensemble(experts, weights, quorum=1, timeout=timeout) as ensemble:
                    table = ensemble.score(batch, prompt)
                order = table.total.argsort(stable=True).tolist()
                energies = [table.energies_of(row) for row in range(len(image))]
                dropped |= {name: (dropped.get(name, (0, ""))[0] + 1, why) for name, why in table.dropped.items()}
            except QuorumError as error:  # the pictures are there all the same, in the order in which they were begun
                dropped |= {name: (dropped.get(name, (0, ""))[0] + 1, why) for name, why in error.dropped.items()}
                reason = "deadline" if due is not None and time.monotonic() >= due else ""
        pictures = as_picture(image)
        return Picture(
            pictures[order[0]],
            request,
            tuple(pictures[row] for row in order[1:]),
            energies[order[0]],
            tuple(energies[row] for row in order[1:]),
            history,
            dropped,
            not reason,
            reason,
            time.monotonic() - start,
            {name: value / len(history) for name, value in seconds.items()},
            tuple(order),
        )


def check_push(push: float) -> None:
    """Raises ValueError: see `Painter`."""
    if not 0 < push < 100:
        raise ValueError(f"push is {push}; allowed: 0 < push < 100")


def _late(start: float, deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() - start >= deadline
