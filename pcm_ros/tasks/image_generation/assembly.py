"""Painters by the name of their method, and the one function that most people need: `generate`."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from pcm_ros.consensus import Scorer
from pcm_ros.models.clip import Clip
from pcm_ros.models.diffusion import DiffusionModel
from pcm_ros.models.embedded import embedded_clip, embedded_image_tower, embedded_segmenter
from pcm_ros.models.tower_clip import TowerClip
from pcm_ros.sight.naming import ClipExpert, Expert, Namer
from pcm_ros.sight.naming import SegmenterExpert as RegionSegmenter
from pcm_ros.tasks.image_generation.names import RegionNames
from pcm_ros.tasks.image_generation.painter import PUSH, Painter, Picture, Progress, Request
from pcm_ros.tasks.image_generation.prompt import Prompt
from pcm_ros.tasks.image_generation.readers import KEPT, ReadingExpert, Regions
from pcm_ros.tasks.image_generation.scorers import ClassifierExpert, RegionClipExpert, SegmenterExpert, TowerClipExpert, classes_of
from pcm_ros.turns import acquired

Method = Literal["consensus", "gradient", "guidance"]
METHODS: tuple[str, ...] = get_args(Method)
CLIPS = ("pcm-clip-resnet", "pcm-clip-towers", "pcm-clip-colors")
TOGETHER = "names"
"""The product of what the segmenter and the CLIPs call each region: several models, where each other reader is one."""
READERS = ("segmenter", *CLIPS, TOGETHER)
GUIDES = ("segmenter", "pcm-clip-resnet-cutouts", "pcm-clip-towers-cutouts", "classifier")
EXPERTS = tuple(dict.fromkeys((*READERS, *GUIDES)))
EXPERTS_OF: Mapping[Method, tuple[str, ...]] = {"consensus": READERS, "gradient": GUIDES, "guidance": ()}
COUNT_OF: Mapping[str, int] = {"consensus": 8, "gradient": 1, "guidance": 1}
"""Pictures of a prompt by default."""
WEIGHTS: Mapping[str, float] = {"segmenter": 5.0}
"""Chosen on 126 of the prompts 0 to 142 of seed 5000; 1 for those that are not named. The segmenter alone sees the whole picture."""
_loading, _painting = threading.Lock(), threading.Lock()


def count_of(method: str) -> int:
    """Pictures of a prompt by default; 1 of a method that is unknown, which `painter` complains of."""
    return COUNT_OF.get(method, 1)


class Busy(TimeoutError):
    """The deadline passed, or it was cancelled, while other pictures were painted."""


@functools.lru_cache(maxsize=2)  # whoever may name folders must not fill the memory
def _model(folder: Path | None, solver: str) -> DiffusionModel:
    return DiffusionModel(folder, solver)


@functools.cache
def _regions() -> Regions:
    return Regions(embedded_segmenter())


@functools.cache
def _clip(name: str) -> ClipExpert:
    return ClipExpert(embedded_clip(name), KEPT)


def naming_experts() -> list[Expert]:
    """Those whose product names regions. Raises ModelUnavailable: weights are missing or damaged."""
    return [RegionSegmenter(embedded_segmenter()), *(_clip(name) for name in CLIPS)]


def experts_for(prompt: Prompt, names: Sequence[str] = READERS) -> list[Scorer]:
    """The embedded experts on pictures. The classifier takes part if the prompt names a kind that ImageNet has a class for.

    Raises:
        ValueError: an unknown name, or one that is there twice. ModelUnavailable: weights are missing or damaged.
    """
    _check(names)
    found: list[Scorer] = []
    for name in names:
        if name == "segmenter":
            found.append(SegmenterExpert(embedded_segmenter(), prompt))
        elif name == "classifier":
            if kinds := classes_of(prompt):
                found.append(ClassifierExpert(embedded_image_tower(), kinds))
        elif name == "pcm-clip-towers-cutouts":
            towers = embedded_clip("pcm-clip-towers")
            assert isinstance(towers, TowerClip)
            found.append(TowerClipExpert(name, towers, embedded_image_tower(), prompt))
        elif name == "pcm-clip-resnet-cutouts":
            clip = embedded_clip("pcm-clip-resnet")
            assert isinstance(clip, Clip)
            found.append(RegionClipExpert(name, clip, prompt))
        else:
            reader = RegionNames(naming_experts()) if name == TOGETHER else Namer([_clip(name)])
            found.append(ReadingExpert(name, reader, _regions(), prompt))
    return found


def _check(names: Sequence[str]) -> None:
    if unknown := set(names) - set(EXPERTS):
        raise ValueError(f"experts {sorted(unknown)} are unknown; allowed: {', '.join(EXPERTS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"experts are {list(names)}; allowed: each of them once")


def painter(
    method: Method = "consensus",
    model: Path | None = None,
    scheduler: str = "ddim",
    experts: Sequence[str] | None = None,
    push: float = PUSH,
) -> Painter:
    """A painter, baselines included.

    Args:
        method: "consensus" = classifier-free guidance proposes `Request.count` pictures, and the experts agree on one; "gradient" = the
            experts' gradients guide each denoising step (the paper's way for images), and they choose if there are several; "guidance" =
            classifier-free guidance alone.
        model: a folder in diffusers' format; None = the embedded model. scheduler: "ddim" or "dpm-solver++".
        experts: names in EXPERTS, each once; None = EXPERTS_OF the method. "consensus" needs at least one, "gradient" one of GUIDES,
            which alone can guide; "guidance" asks none of them.
        push: see `Painter`.

    Raises:
        ModelUnavailable: a model is missing or damaged.
        ValueError: an argument out of its range.
    """
    if method not in METHODS:
        raise ValueError(f"method is '{method}'; allowed: {', '.join(METHODS)}")
    names = tuple(EXPERTS_OF[method] if experts is None else experts)
    _check(names)
    if method == "guidance":
        names = ()
    elif not names:
        raise ValueError(f"experts are [], and the method '{method}' needs some; allowed: at least one of {', '.join(EXPERTS)}")
    if method == "gradient" and not set(names) & set(GUIDES):
        raise ValueError(f"experts are {list(names)}, of which none can guide; allowed: at least one of {', '.join(GUIDES)}")
    with _loading:
        loaded = _model(None if model is None else Path(model), scheduler)
    return Painter(loaded, functools.partial(_located, names=names), WEIGHTS, push, guided=method == "gradient")


def _located(prompt: Prompt, names: tuple[str, ...]) -> list[Scorer]:
    with _loading:
        return experts_for(prompt, names)


def generate(
    prompt: str,
    seed: int = 0,
    steps: int = 40,
    count: int | None = None,
    recurrences: int = 1,
    guidance: float = 4.0,
    height: int | None = None,
    width: int | None = None,
    method: Method = "consensus",
    model: Path | None = None,
    scheduler: str = "ddim",
    experts: Sequence[str] | None = None,
    deadline: float | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Picture:
    """Paint a prompt. Calls from several threads take turns; the deadline (seconds) counts from the call.

    Arguments and errors: `Request`, `painter`, `Painter.paint`; count: None = COUNT_OF the method.

    Raises:
        Busy: the deadline passed, or it was cancelled, before its turn came.
        ValueError: the deadline is NaN.
    """
    start = time.monotonic()
    if deadline is not None and math.isnan(deadline):
        raise ValueError("deadline is nan; allowed: seconds, or None")
    request = Request(prompt, seed, steps, count_of(method) if count is None else count, recurrences, guidance, height, width)
    made = painter(method, model, scheduler, experts)
    _take_turn(start, deadline, cancelled)
    try:
        return made.paint(request, None if deadline is None else max(0.0, deadline - (time.monotonic() - start)), cancelled, progress)
    finally:
        _painting.release()


def _take_turn(start: float, deadline: float | None, cancelled: Callable[[], bool]) -> None:
    """Acquire `_painting`.

    Raises:
        Busy: see `generate`.
    """

    def given_up() -> bool:
        if cancelled():
            raise Busy("cancelled while other pictures were painted")
        return deadline is not None and time.monotonic() - start >= deadline

    if not acquired(_painting, given_up):
        raise Busy(f"the deadline of {deadline:g} s passed while other pictures were painted; remedy: more time, or ask again later")
