"""The experts' gradients lead what is written: with a language model of random weights, whatever they want is what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pcm_ros.consensus import Batch, Scorer
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.registry import Calibration
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.sight.frames import clip_of
from pcm_ros.sight.naming import Namer, SegmenterExpert
from pcm_ros.sight.things import nothing
from pcm_ros.tasks.video_qa.answerer import Answer, Answerer, Progress
from pcm_ros.tasks.video_qa.assembly import build
from pcm_ros.tasks.video_qa.context_gradient import ContextWriter, WordExpert, Written
from pcm_ros.tasks.video_qa.generator import AnswerGenerator
from pcm_ros.tasks.video_qa.proposals import Inquiry, sequence_of, texts_of
from pcm_ros.tasks.video_qa.reading import read_question
from pcm_ros.tasks.video_qa.scorers import FrameScorer, LanguageScorer
from tests.models.tiny_language import make_model

QUESTION = "Which object moves first?"
CLIP = clip_of([np.full((64, 96, 3), 40 * number, dtype=np.uint8) for number in range(4)])
PREAMBLE = "Question: How many dogs are there?\nAnswer: three\n\n"


class Wants:
    """An expert to whom an answer costs what `price` says."""

    cost, differentiable = 0.01, False

    def __init__(self, price: Callable[[str], float], name: str = "wants") -> None:
        self.name, self._price = name, price

    def energy(self, batch: Batch, context: Inquiry) -> torch.Tensor:
        """(N,) float64."""
        return torch.tensor([self._price(text) for text in texts_of(batch)], dtype=torch.float64)


class Failing(Wants):
    def energy(self, batch: Batch, context: Inquiry) -> torch.Tensor:
        """Raises."""
        raise RuntimeError("out of order")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = make_model("llama", tmp_path_factory.mktemp("tiny"), context=800)
    return LanguageModel(folder, dtype=torch.float32, pack=False)


def inquiry(seconds: float | None = None) -> Inquiry:
    until = None if seconds is None else time.monotonic() + seconds
    return Inquiry(QUESTION, read_question(QUESTION), nothing(CLIP), (), until)


def written(model: LanguageModel, *scorers: Scorer, seconds: float | None = None, stop: bool = False, rounds: int = 12) -> Written:
    writer = ContextWriter(model, model, scorers, rounds=rounds, words=8, push=1.0, preamble=PREAMBLE)
    steps = writer.iterate(inquiry(seconds), stop=lambda: stop)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: Written = end.value
        return result
    finally:
        writer.close()


def test_what_an_expert_wants_is_written(model: LanguageModel) -> None:
    alone = written(model, Wants(lambda text: 0.0))
    seen: set[str] = set()

    def look(text: str) -> float:
        seen.add(text)
        return 0.0

    written(model, Wants(look))
    others = sorted(text for text in seen if text[0] != alone.text[0])
    assert others, "nothing but the likeliest answer was judged"
    wanted = others[0][0]
    led = written(model, Wants(lambda text: 0.0 if text.startswith(wanted) else 8.0))
    assert led.text.startswith(wanted), f"{led.text!r} instead of {wanted!r}; alone {alone.text!r}"
    assert led.likelihood < alone.likelihood + 1e-6 and led.steps >= 12


def test_experts_judge_answers_of_more_words_than_a_few(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer that is looked at goes on for 40 bytes of whole words: experts hear all of it."""
    seen: set[str] = set()

    def look(text: str) -> float:
        seen.add(text)
        return 0.0

    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda tokens: f"{decode(tokens)[:1]} standing beside the yellow bowl" if tokens else "")
    written(model, Wants(look), rounds=1)
    assert seen and any(text.endswith(" standing beside the yellow bowl") for text in seen)


def test_an_expert_without_a_say_changes_nothing(model: LanguageModel) -> None:
    alone = written(model, Wants(lambda text: 3.0))
    many = written(model, Wants(lambda text: 3.0), Wants(lambda text: 0.0, "other"), rounds=3)
    assert many.text == alone.text and not many.dropped


def test_a_broken_expert_is_left_out_and_named(model: LanguageModel) -> None:
    found = written(model, Wants(lambda text: float(len(text))), Failing(lambda text: 0.0, "failing"), rounds=2)
    assert found.text and "out of order" in found.dropped["failing"]


def test_deadline_and_cancelling(model: LanguageModel) -> None:
    late = written(model, Wants(lambda text: 0.0), seconds=1e-9)
    assert late.reason == "deadline" and not late.text and late.steps <= 1
    assert written(model, Wants(lambda text: 0.0), stop=True).reason == "cancelled"


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"words": 1}, {"push": 0.0}, {"fluency": float("nan")}])
def test_arguments_out_of_range(model: LanguageModel, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed: rounds >= 1"):
        ContextWriter(model, model, [Wants(lambda text: 0.0)], **wrong)  # type: ignore[arg-type]


def test_gradients_need_an_expert_that_looks() -> None:
    with pytest.raises(ValueError, match="at least one that looks"):
        build(["language"], strategy="gradient")
    with pytest.raises(ValueError, match="allowed: words, gradient"):
        build(strategy="luck")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def answerer(model: LanguageModel, segmenter: TextSegmenter) -> Iterator[Answerer]:
    namer = Namer([SegmenterExpert(segmenter)], Calibration({"segmenter": 1.0}, {"segmenter": 1.0}))
    writer = ContextWriter(model, model, [FrameScorer(namer)], rounds=2, words=4)
    judges: list[Scorer] = [FrameScorer(namer), LanguageScorer()]
    ready = Answerer(AnswerGenerator(model), judges, segmenter, namer, ("red mug", "blue bowl"), writer=writer)
    yield ready
    ready.close()


def test_an_answer_by_gradients_is_judged_like_any_other(answerer: Answerer) -> None:
    *steps, answer = answerer.iterate(CLIP, QUESTION)
    assert isinstance(answer, Answer) and answer.text and answer.complete
    assert answer.energies.keys() == {"segmenter", "language"} and answer.rounds >= 2
    assert any(isinstance(step, Progress) and step.stage == "step" for step in steps)
    assert answerer.answer(CLIP, QUESTION).text == answer.text, "the same question gets the same answer"
    late = answerer.answer(CLIP, QUESTION, deadline=1e-9)
    assert late.reason == "deadline" and not late.complete


class SeesBrightness(Wants):
    """Judges by the clip: each answer's price is turned round where the picture is dark."""

    def energy(self, batch: Batch, context: Inquiry) -> torch.Tensor:
        """(N,) float64."""
        price = super().energy(batch, context)
        return price if context.sight.clip.frames.mean() > 100 else price.max() - price


def test_the_same_question_about_another_clip_is_judged_anew(model: LanguageModel) -> None:
    expert = WordExpert(SeesBrightness(lambda text: float(len(text) % 7)))
    texts = ["a", "ab", "abcdef"]
    extras = {
        "said": torch.log_softmax(torch.tensor([[0.1, 0.2, 0.3]]), dim=1),
        "plain": torch.log_softmax(torch.zeros(1, 3), dim=1),
        "tokens": torch.tensor([[0, 1, 2]]),
        "sequence": torch.stack([sequence_of(text) for text in texts])[None],
    }
    batch = Batch(torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), extras)
    clips = [clip_of([np.full((16, 16, 3), value, dtype=np.uint8)] * 2) for value in (20, 200)]
    asked = [Inquiry(QUESTION, read_question(QUESTION), nothing(clip), (), None) for clip in clips]
    first, second = (float(expert.energy(batch, one)) for one in asked)
    assert abs(first - second) > 0.1
    assert float(expert.energy(batch, asked[0])) == first
