"""Linear layers in eight-bit integers: a third of the time and a quarter of the memory, at the price of a little noise.

Weights have one scale for each output, inputs one for each row, so that a row's result does not depend on which rows it is computed with.
A few columns of a language model's states are a hundred times larger than the others, and would leave these no digits; so before, columns
are divided by what balances inputs and weights (Xiao et al., "SmoothQuant", arXiv 2211.10438, equation 4 with alpha = 0.5), and the
weights are multiplied by it. How large the columns are is measured on a text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

LARGEST, ZERO = 127, 128  # of weights and of inputs; what stands for 0 in the inputs, which have no sign


class EightBitLinear(nn.Module):
    """A linear layer for inference: weights rounded to 8 bits once, inputs at each call, sums exact, result float32.

    Args:
        layers: whose weights are taken: one, or several with the same input, whose results stand one behind the other.
        largest: (in,) largest absolute value of each input column on typical inputs.
    """

    def __init__(self, layers: Sequence[nn.Linear], largest: Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = layers[0].in_features, sum(layer.out_features for layer in layers)
        biases = [torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().float() for layer in layers]
        self.bias = None if all(layer.bias is None for layer in layers) else torch.cat(biases)
        weight = torch.cat([layer.weight.detach().float() for layer in layers])
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


class _Part(nn.Module):
    """One of several layers with the same input: whichever is asked first computes all, and keeps the others' results for them."""

    def __init__(self, shared: _Shared, number: int) -> None:
        super().__init__()
        self.shared, self.number = shared, number

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.shared.part(x, self.number)


class _Shared:
    """The layers of some `_Part`s, and their results for the last input. Another thread's input costs time, no wrong result."""

    def __init__(self, layer: EightBitLinear, sizes: list[int]) -> None:
        self.layer, self.sizes = layer, sizes
        self._last: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def part(self, x: Tensor, number: int) -> Tensor:
        last = self._last
        if last is None or last[0] is not x:
            last = self._last = (x, self.layer(x).split(self.sizes, dim=-1))
        if number + 1 == len(self.sizes):
            self._last = None
        return last[1][number]


@dataclass
class Inputs:
    """What a model's linear layers were given, by their names.

    Attributes:
        largest: (in,) largest absolute value of each input column, over all calls. last: the input of the last call itself.
    """

    largest: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)

    def of(self, names: Sequence[str]) -> Inputs:
        """Those of some layers alone."""
        return Inputs({name: self.largest[name] for name in names}, {name: self.last[name] for name in names})

    def together(self) -> list[tuple[str, ...]]:
        """The layers' names, those with the same input (the very tensor) in one tuple."""
        groups: dict[int, list[str]] = {}
        for name, x in self.last.items():
            groups.setdefault(id(x), []).append(name)
        return [tuple(names) for names in groups.values()]


@contextlib.contextmanager
def noted_inputs(model: nn.Module) -> Iterator[Inputs]:
    """What the model's linear layers are given in all that it computes meanwhile."""
    found = Inputs()

    def look(name: str, x: Tensor) -> None:
        here = x.detach().abs().flatten(0, -2).amax(dim=0)
        found.largest[name] = torch.maximum(found.largest[name], here) if name in found.largest else here
        found.last[name] = x

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


def use_eight_bits(model: nn.Module, inputs: Inputs) -> None:
    """Replace the linear layers whose inputs were noted. The model can then be neither trained nor passed by gradients.

    Those with the same input are computed together: for a few rows, a call's fixed cost is much of its time.
    """
    for names in inputs.together():
        layers = [layer for name in names if isinstance(layer := model.get_submodule(name), nn.Linear)]
        joined = EightBitLinear(layers, inputs.largest[names[0]])
        shared = _Shared(joined, [layer.out_features for layer in layers])
        for number, name in enumerate(names):
            model.set_submodule(name, joined if len(names) == 1 else _Part(shared, number))
