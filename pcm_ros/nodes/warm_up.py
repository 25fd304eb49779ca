"""First calls are slow: models load, kernels are chosen. They are made while a node configures, not while somebody waits for an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pcm_ros.sight.words import VOCABULARY
from pcm_ros.tasks.manipulation.assembly import build_grounder, build_vision
from pcm_ros.tasks.manipulation.grounding import Region


def warm_up(grounders: Sequence[str]) -> None:
    """Let these vision-language experts look at a grey image once. Raises ModelUnavailable, ValueError."""
    image = np.full((240, 320, 3), 128, dtype=np.uint8)
    mask = np.zeros((240, 320), dtype=bool)
    mask[100:140, 140:180] = True
    with torch.no_grad():
        build_grounder(grounders, build_vision()).logits(image, [Region(0, mask)], VOCABULARY)
