"""The answerer put together from the embedded models, and the function that most people need: `answer`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pcm_ros.consensus import Scorer
from pcm_ros.models.embedded import embedded_clip, embedded_segmenter
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import set_threads
from pcm_ros.sight.frames import Clip, clip_of, read_clip
from pcm_ros.sight.naming import ClipExpert, Expert, Namer, SegmenterExpert
from pcm_ros.sight.words import VOCABULARY
from pcm_ros.tasks.video_qa.answerer import Answer, Answerer
from pcm_ros.tasks.video_qa.context_gradient import ContextWriter
from pcm_ros.tasks.video_qa.generator import AnswerGenerator
from pcm_ros.tasks.video_qa.scorers import CountScorer, FrameScorer, LanguageScorer, MotionScorer, RelationScorer

FRAMES = 12
CLIPS = ("pcm-clip-resnet", "pcm-clip-towers", "pcm-clip-colors")
SCORERS = ("segmenter", *CLIPS, "motion", "relations", "counts", "language")
WEIGHTS: Mapping[str, float] = {"motion": 2.0, "relations": 2.0, "counts": 1.0, "language": 0.15}
"""Chosen on clips of numbers below TEST_FROM; 1 for those that are not named."""
Strategy = Literal["words", "gradient"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
_loading = threading.Lock()


def check(scorers: Sequence[str], strategy: str) -> None:
    """Raises ValueError: a scorer or a strategy that `build` does not know, a scorer twice, or none for gradients."""
    if not scorers or set(scorers) - set(SCORERS) or len(set(scorers)) < len(scorers):
        raise ValueError(f"scorers are {list(scorers)}; allowed: one or more of {', '.join(SCORERS)}, each once")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is '{strategy}'; allowed: {', '.join(STRATEGIES)}")
    if strategy == "gradient" and set(scorers) == {"language"}:
        raise ValueError(f"scorers are {list(scorers)}; allowed with strategy 'gradient': at least one that looks at the clip")


def build(
    scorers: Sequence[str] = SCORERS,
    model: Path | None = None,
    weights: Mapping[str, float] | None = None,
    told: bool = True,
    strategy: Strategy = "words",
) -> Answerer:
    """An answerer.

    Args:
        scorers: names out of SCORERS, at least one, each once. model: a local folder or GGUF file; None = the embedded language model.
        weights: scorer -> weight, over WEIGHTS. told: whether phrases for what is seen are proposed beside the language model's words.
        strategy: "words" = whole answers are proposed, and the ensemble re-weighs them; "gradient" = one is written word by word, the
            experts' gradients moving the language model's context (`ContextWriter`, the paper's way). "language" is then the pull back to
            what the model says by itself, always there.

    Raises:
        ModelUnavailable: a model's files are missing or damaged.
        ValueError: see `check`.
    """
    check(scorers, strategy)
    experts_on_clips = [name for name in scorers if name != "language"]
    set_threads()
    segmenter = embedded_segmenter()
    experts: dict[str, Expert] = {"segmenter": SegmenterExpert(segmenter), **{name: ClipExpert(embedded_clip(name)) for name in CLIPS}}
    together = Namer(list(experts.values()))
    made: dict[str, Scorer] = {name: FrameScorer(Namer([expert])) for name, expert in experts.items()}
    made |= {"motion": MotionScorer(together), "relations": RelationScorer(together), "counts": CountScorer(together)}
    made["language"] = LanguageScorer()
    chosen = {name: weight for name, weight in {**WEIGHTS, **(weights or {})}.items() if name in scorers}
    reader, writer = LanguageModel(model), None
    if strategy == "gradient":
        weighed = {name: chosen.get(name, 1.0) for name in experts_on_clips}
        writer = ContextWriter(LanguageModel(model, pack=False), reader, [made[name] for name in experts_on_clips], weighed)
    judges = [made[name] for name in scorers]
    return Answerer(AnswerGenerator(reader), judges, segmenter, together, VOCABULARY, chosen, told, writer)


@functools.lru_cache(maxsize=4)  # whoever may name folders must not fill the memory
def _built(scorers: tuple[str, ...], model: Path | None, strategy: Strategy) -> Answerer:
    return build(scorers, model, strategy=strategy)


def answerer(scorers: Sequence[str] = SCORERS, model: Path | None = None, strategy: Strategy = "words") -> Answerer:
    """An answerer of these scorers, built once a process. Raises as `build`."""
    with _loading:
        return _built(tuple(scorers), model, strategy)


def answer(
    clip: Clip | Path | str | Sequence[npt.NDArray[np.uint8]],
    question: str,
    seed: int = 0,
    deadline: float | None = None,
    scorers: Sequence[str] = SCORERS,
    model: Path | None = None,
    strategy: Strategy = "words",
) -> Answer:
    """Answer a question about a clip: a video file, a list of (H, W, 3) uint8 images, or frames that were read before.

    Args:
        question: one, in English, up to 500 characters. seed, deadline: see `Answerer.iterate`. scorers, model, strategy: see `build`.

    Raises:
        UnusableClip: see `read_clip` and `clip_of`. UnusableQuestion: see `checked_question`. ModelUnavailable, ValueError: see `build`.
    """
    if not isinstance(clip, Clip):
        clip = read_clip(clip, FRAMES) if isinstance(clip, (str, Path)) else clip_of(clip, count=FRAMES)
    return answerer(scorers, model, strategy).answer(clip, question, seed, deadline)
