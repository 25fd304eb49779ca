"""/pcm/generate_image: prompts, painted by `pcm_ros.tasks.image_generation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image

from pcm_ros import srv
from pcm_ros.models.diffusion import SOLVERS
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.nodes import conversions
from pcm_ros.nodes.lifecycle import Parameter
from pcm_ros.nodes.services.task import Refused, ServedTask, Work, check_path
from pcm_ros.tasks.image_generation import assembly
from pcm_ros.tasks.image_generation.painter import Picture, Progress, Request


class ImageGeneration(ServedTask):
    """Pictures of prompts. One at a time."""

    name, service, kind = "image_generation", "pcm/generate_image", srv.GenerateImage
    PARAMETERS = (
        Parameter("image_generation.steps", 40, "denoising steps, where the request says 0", low=2, high=250),
        Parameter("image_generation.guidance", 4.0, "scale of classifier-free guidance, where the request says 0", low=0.01, high=100.0),
        Parameter("image_generation.model", "", "folder in diffusers' format; empty: the embedded model"),
        Parameter("image_generation.scheduler", "ddim", "solver of the denoising", choices=tuple(SOLVERS)),
    )

    def check(self) -> None:
        """Raises ConfigurationError: a model that is not there."""
        check_path("image_generation.model", self.value("image_generation.model"))

    def answer(self, request: Any, work: Work) -> Any:
        """Raises Refused."""
        if request.seed >= 2**63:
            raise Refused("INVALID_REQUEST", f"seed is {request.seed}; allowed: 0 to 2**63 - 1")
        method: Any = request.method or "consensus"

        def tell(progress: Progress) -> None:
            work.report(progress.round, progress.rounds, ", ".join(f"{name} {energy:.2f}" for name, energy in progress.energies.items()))

        try:
            wanted = Request(
                request.prompt,
                request.seed,
                request.steps or self.value("image_generation.steps"),
                request.count or assembly.count_of(method),
                request.recurrences or 1,
                request.guidance or self.value("image_generation.guidance"),
                request.height or None,
                request.width or None,
            )
            painter = assembly.painter(method, self._folder(request.model), request.scheduler or self.value("image_generation.scheduler"))
            painter.prepare()
            if work.stop():
                raise Refused("CANCELED", "cancelled")
            if work.left <= 0:
                raise Refused("DEADLINE", "the deadline came while the models were loading")
            return response_of(painter.paint(wanted, work.left, work.stop, tell), work)
        except ValueError as error:
            raise Refused("INVALID_REQUEST", str(error)) from error
        except ModelUnavailable as error:
            raise Refused("MODEL", str(error)) from error

    def warm_up(self) -> None:
        """Raises ModelUnavailable."""
        assembly.painter("consensus", self._folder(""), self.value("image_generation.scheduler")).prepare()

    def _folder(self, model: str) -> Path | None:
        named = model or self.value("image_generation.model")
        return Path(named) if named else None


def response_of(picture: Picture, work: Work) -> Any:
    """The response that says what was painted."""
    response = srv.GenerateImage.Response()
    if picture.reason == "cancelled":
        response.error_code, response.error_msg = response.CANCELED, "cancelled"
    response.partial, response.reason = not picture.complete, picture.reason
    response.image = image_message(picture.image)
    response.scores = conversions.score_messages(picture.history)
    response.experts = sorted(picture.energies)
    response.energies = [float(picture.energies[name]) for name in response.experts]
    response.dropped = sorted(picture.dropped)
    response.dropped_steps = [picture.dropped[name][0] for name in response.dropped]
    response.dropped_reasons = [picture.dropped[name][1] for name in response.dropped]
    response.seconds, response.waited = work.started - work.arrived + picture.seconds, work.started - work.arrived
    return response


def image_message(rgb: npt.NDArray[np.uint8]) -> Image:
    """rgb8 of (H, W, 3) uint8."""
    height, width = rgb.shape[:2]
    return Image(height=height, width=width, encoding="rgb8", step=3 * width, data=np.ascontiguousarray(rgb).reshape(-1))
