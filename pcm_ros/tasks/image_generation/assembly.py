"""Painters by the name of their method, and the one function that most people need: `generate`."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from pcm_ros.consensus import Scorer
from pcm_ros.models.clip import Clip
from pcm_ros.models.diffusion import DiffusionModel
from pcm_ros.models.image_tower import ImageTower
from pcm_ros.models.registry import entry
from pcm_ros.models.tower_clip import TowerClip
from pcm_ros.tasks.image_generation.painter import Painter, Picture, Progress, Request
from pcm_ros.tasks.image_generation.prompt import Prompt
from pcm_ros.tasks.image_generation.scorers import ClassifierExpert, RegionClipExpert, TowerClipExpert, classes_of

Method = Literal["consensus", "guidance", "best-of-n"]
METHODS: tuple[str, ...] = get_args(Method)
EXPERTS = ("pcm-clip-resnet", "pcm-clip-towers", "classifier")
_loading, _painting = threading.Lock(), threading.Lock()


class Busy(TimeoutError):
    """The deadline passed while other pictures were painted."""


@functools.lru_cache(maxsize=2)  # whoever may name folders must not fill the memory
def _model(folder: Path | None, solver: str) -> DiffusionModel:
    return DiffusionModel(folder, solver)


@functools.cache
def _tower() -> ImageTower:
    return ImageTower(entry("efficientnet-lite0", "image").files[0])


@functools.cache
def _clip(name: str) -> Clip:
    weights, config = entry(name, "clip").files
    return Clip(config, weights)


@functools.cache
def _tower_clip() -> TowerClip:
    return TowerClip("pcm-clip-towers", entry("pcm-clip-towers", "clip").files[0], _tower())


def experts_for(prompt: Prompt, names: Sequence[str] = EXPERTS) -> list[Scorer]:
    """The embedded experts on pictures. The classifier takes part if the prompt names a kind that ImageNet has a class for.

    The expert on colours alone (`pcm-clip-colors`) reads statistics of masked pixels and has no part here: its features are not made for
    gradients.

    Raises:
        ValueError: an unknown name. ModelUnavailable: weights are missing or damaged.
    """
    if unknown := set(names) - set(EXPERTS):
        raise ValueError(f"experts {sorted(unknown)} are unknown; allowed: {', '.join(EXPERTS)}")
    found: list[Scorer] = []
    for name in names:
        if name == "classifier":
            if kinds := classes_of(prompt):
                found.append(ClassifierExpert(_tower(), kinds))
        elif name == "pcm-clip-towers":
            found.append(TowerClipExpert(_tower_clip(), _tower(), prompt))
        else:
            found.append(RegionClipExpert(_clip(name), prompt))
    return found


def painter(
    method: Method = "consensus", model: Path | None = None, scheduler: str = "ddim", experts: Sequence[str] = EXPERTS, push: float = 0.05
) -> Painter:
    """A painter, baselines included.

    Args:
        method: "consensus" = all experts guide each step; "guidance" = classifier-free guidance alone; "best-of-n" = classifier-free
            guidance, and the experts choose among `Request.count` pictures.
        model: a folder in diffusers' format; None = the embedded model. scheduler: "ddim" or "dpm-solver++". experts: names in EXPERTS.

    Raises:
        ModelUnavailable: a model is missing or damaged.
        ValueError: an argument out of its range.
    """
    if method not in METHODS:
        raise ValueError(f"method is '{method}'; allowed: {', '.join(METHODS)}")
    names = tuple(experts) if method != "guidance" else ()
    if unknown := set(names) - set(EXPERTS):
        raise ValueError(f"experts {sorted(unknown)} are unknown; allowed: {', '.join(EXPERTS)}")
    with _loading:
        loaded = _model(None if model is None else Path(model), scheduler)
    return Painter(loaded, functools.partial(_located, names=names), push=push, guided=method == "consensus")


def _located(prompt: Prompt, names: tuple[str, ...]) -> list[Scorer]:
    with _loading:
        return experts_for(prompt, names)


def generate(
    prompt: str,
    seed: int = 0,
    steps: int = 40,
    count: int = 1,
    recurrences: int = 1,
    guidance: float = 4.0,
    height: int | None = None,
    width: int | None = None,
    method: Method = "consensus",
    model: Path | None = None,
    scheduler: str = "ddim",
    experts: Sequence[str] = EXPERTS,
    deadline: float | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Picture:
    """Paint a prompt. Calls from several threads take turns; the deadline (seconds) counts from the call.

    Arguments and errors: `Request`, `painter`, `Painter.paint`.

    Raises:
        Busy: the deadline passed before its turn came.
    """
    start = time.monotonic()
    request = Request(prompt, seed, steps, count, recurrences, guidance, height, width)
    made = painter(method, model, scheduler, experts)
    left = -1 if deadline is None else max(0.0, deadline - (time.monotonic() - start))
    if not _painting.acquire(timeout=left):
        raise Busy(f"the deadline of {deadline:g} s passed while other pictures were painted; remedy: more time, or ask again later")
    try:
        return made.paint(request, None if deadline is None else max(0.0, deadline - (time.monotonic() - start)), cancelled, progress)
    finally:
        _painting.release()
