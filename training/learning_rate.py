"""The learning rate of all trainings here: a linear warm-up, then half a cosine (Loshchilov & Hutter, "SGDR", ICLR 2017, section 3)."""

from __future__ import annotations

import math

import torch


def set_learning_rate(
    optimiser: torch.optim.Optimizer, highest: float, step: int, share: float, warm_up: int = 100, lowest: float = 0.02
) -> float:
    """Set the rate of all parameters for a step, and return it.

    Args:
        highest: rate after the warm-up. step: from 0. share: of the training (its steps or its time) that is over, 0..1; more counts as 1.
        warm_up: steps. lowest: rate at the end, as a share of the highest.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    rate = highest * min(1.0, (step + 1) / warm_up) * (lowest + (1 - lowest) * cosine)
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate
