"""/pcm/generate_image without ROS around it: requests are checked, painted, answered."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcm_ros.nodes.services.image_generation import ImageGeneration
from pcm_ros.nodes.services.task import Refused, Work

_pipelines = Path(__file__).parents[1] / "tasks" / "image_generation" / "tiny_pipelines.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("tiny_pipelines_of_the_service", _pipelines)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Path = module.make_pipeline(tmp_path_factory.mktemp("served"), "AutoencoderTiny", "v_prediction", "SentenceTokens")
    return made


@pytest.fixture
def task(folder: Path) -> ImageGeneration:
    values = {parameter.name: parameter.default for parameter in ImageGeneration.PARAMETERS} | {"image_generation.model": str(folder)}
    return ImageGeneration(values.__getitem__)


def work(seconds: float = 60.0, stop: Callable[[], bool] = lambda: False) -> tuple[Work, list[int]]:
    told: list[int] = []
    now = time.monotonic()
    return Work(now + seconds, now, now, stop, lambda step, steps, words: told.append(step)), told


def request(**fields: Any) -> Any:
    return ImageGeneration.kind.Request(**{"prompt": "a red mug", "method": "guidance", "steps": 3, **fields})


def test_a_picture_with_what_the_experts_said(task: ImageGeneration) -> None:
    asked, told = work()
    response = task.answer(request(seed=4), asked)
    assert (response.error_code, response.partial, told) == (0, False, [1, 2, 3])
    assert (response.image.height, response.image.width, response.image.encoding, response.image.step) == (32, 32, "rgb8", 96)
    assert [score.scorer for score in response.scores] == ["guidance"]
    assert len(response.scores[0].energies) == 3
    again = task.answer(request(seed=4), work()[0])
    assert np.array_equal(np.asarray(response.image.data), np.asarray(again.image.data))


def test_cancelled_and_late_requests_give_what_there_is(task: ImageGeneration) -> None:
    rounds: list[int] = []
    now = time.monotonic()
    response = task.answer(
        request(steps=6), Work(now + 60, now, now, lambda: len(rounds) >= 2, lambda step, steps, words: rounds.append(step))
    )
    assert (response.error_code, response.partial, response.reason) == (response.CANCELED, True, "cancelled")
    assert response.image.height == 32
    with pytest.raises(Refused, match="deadline") as refused:
        task.answer(request(), work(-1.0)[0])
    assert refused.value.code == "DEADLINE"


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"prompt": ""}, "INVALID_REQUEST", "the prompt is empty"),
        ({"prompt": "x" * 10_000}, "INVALID_REQUEST", "10000 characters"),
        ({"steps": 1000}, "INVALID_REQUEST", "steps is 1000"),
        ({"height": 20}, "INVALID_REQUEST", "multiples of 8"),
        ({"scheduler": "euler"}, "INVALID_REQUEST", "scheduler is 'euler'"),
        ({"method": "magic"}, "INVALID_REQUEST", "method is 'magic'"),
        ({"guidance": float("nan")}, "INVALID_REQUEST", "guidance is nan"),
        ({"seed": 2**63}, "INVALID_REQUEST", "seed is"),
        ({"model": "/nowhere"}, "MODEL", "does not exist"),
    ],
)
def test_what_is_refused(task: ImageGeneration, fields: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        task.answer(request(**fields), work()[0])
    assert refused.value.code == code
