"""Low-rank adapters of language models: W x + (alpha / rank) B A x, with W frozen (Hu et al., LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pcm_ros.models.loading import ModelUnavailable, load_safetensors

LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PREFIX = "base_model.model."  # the names that the library peft gives its tensors


class LowRank(nn.Module):
    """A frozen linear layer with a trainable low-rank addition, zero at first."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x; the parameters of the adapter are float32."""
        return self.base(x) + nn.functional.linear(nn.functional.linear(x, self.down.to(x.dtype)), (self.scale * self.up).to(x.dtype))


def add_low_rank(model: nn.Module, rank: int, alpha: float, projections: Sequence[str] = LLAMA_PROJECTIONS, within: str = "") -> None:
    """Freeze the model and give its projections with these names an addition that can be trained.

    Args:
        within: regular expression that the name of the module around the projection must match; "" = all.

    Raises:
        ValueError: the model has no such projection, or rank < 1.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; allowed: >= 1")
    model.requires_grad_(False)
    found = 0
    for path, module in list(model.named_modules()):
        if within and not re.search(within, path):
            continue
        for name, child in list(module.named_children()):
            if name in projections and isinstance(child, nn.Linear):
                setattr(module, name, LowRank(child, rank, alpha))
                found += 1
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear layer named {', '.join(projections)}: it can't take the adapter")


def low_rank_layers(model: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """(name in the model, layer) of each layer with an addition."""
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            yield name, module


def additions(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained of a model with additions, under peft's tensor names."""
    parts = {"A": "down", "B": "up"}
    return {
        f"{PREFIX}{name}.lora_{letter}.weight": getattr(layer, part)
        for name, layer in low_rank_layers(model)
        for letter, part in parts.items()
    }


def save_adapter(model: nn.Module, path: Path, dtype: torch.dtype = torch.float16, more: Mapping[str, Tensor] | None = None) -> None:
    """Write the additions as safetensors, with peft's tensor names, and `more` beside them; rank and alpha in the header."""
    _, first = next(low_rank_layers(model))
    tensors = dict(more or {}) | {name: parameter.detach().to(dtype) for name, parameter in additions(model).items()}
    rank = len(first.down)
    save_file(tensors, path, metadata={"format": "pt", "low_rank": json.dumps({"rank": rank, "alpha": first.scale * rank})})


def merge_adapter(model: nn.Module, path: Path) -> None:
    """Add the adapter of a file to the weights of a model without adapters: as fast as before, and no longer separable.

    Raises:
        ModelUnavailable: missing, corrupt, no adapter, or one of another architecture.
    """
    tensors = load_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["low_rank"])
        scale = float(settings["alpha"]) / int(settings["rank"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelUnavailable(
            f"'{path}' says neither rank nor alpha in its header ({error!r}); remedy: an adapter of training/"
        ) from error
    modules = dict(model.named_modules())
    names = {name.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for name in tensors if name.startswith(PREFIX)}
    if not names or not math.isfinite(scale):
        raise ModelUnavailable(f"'{path}' adds nothing to any layer (scale {scale:g}); remedy: an adapter of training/")
    with torch.no_grad():
        for name in sorted(names):
            layer, down, up = modules.get(name), tensors.get(f"{PREFIX}{name}.lora_A.weight"), tensors.get(f"{PREFIX}{name}.lora_B.weight")
            if (
                not isinstance(layer, nn.Linear)
                or down is None
                or up is None
                or not down.ndim == up.ndim == 2
                or (len(up), down.shape[1]) != layer.weight.shape
                or len(down) != up.shape[1]
            ):
                raise ModelUnavailable(
                    f"'{path}' is an adapter of another architecture: '{name}' does not fit this model; remedy: use it with the model of "
                    "its card, or this model without an adapter"
                )
            layer.weight += (scale * up @ down).to(layer.weight.dtype)
