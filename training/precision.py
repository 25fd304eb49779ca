"""What networks are computed in while they are trained: bfloat16 where the device is fast in it, else float32."""

from __future__ import annotations

import torch

from pcm_ros.models.loading import fast_precision


def training_precision(device: torch.device) -> torch.dtype:
    """Of a network's weights that are not trained themselves."""
    return fast_precision() if device.type == "cpu" else torch.bfloat16


def mixed_precision(device: torch.device) -> torch.autocast:
    """The context in which a network with float32 weights is computed."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training_precision(device) == torch.bfloat16)
