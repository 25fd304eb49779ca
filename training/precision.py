"""What networks are computed in while they are trained: bfloat16 where the device is fast in it, else float32, and then what is not trained
of the language model in eight-bit integers where the processor has them. The product uses these wherever they are (`language_precision`);
layers that are trained are faster in bfloat16."""

from __future__ import annotations

from typing import Any

import torch

from pcm_ros.models.eight_bit_linear import Inputs, fast_in_eight_bits, noted_inputs
from pcm_ros.models.loading import fast_precision
from pcm_ros.tasks.mathematics.notation import EXAMPLES


def training_precision(device: torch.device) -> torch.dtype:
    """Of a network's weights that are not trained themselves."""
    return fast_precision() if device.type == "cpu" else torch.bfloat16


def mixed_precision(device: torch.device) -> torch.autocast:
    """The context in which a network with float32 weights is computed."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training_precision(device) == torch.bfloat16)


def typical_inputs(model: Any, tokenizer: Any, device: torch.device) -> Inputs | None:
    """`noted_inputs` of a language model (float32, on the processor) on worked examples; None where training uses no eight-bit integers."""
    if device.type != "cpu" or training_precision(device) != torch.float32 or not fast_in_eight_bits():
        return None
    with torch.inference_mode(), noted_inputs(model) as inputs:
        model(torch.tensor([tokenizer(EXAMPLES, add_special_tokens=False)["input_ids"]]))
    return inputs
