"""Linear layers in eight-bit integers, against the layers that they stand for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from pcm_ros.models.eight_bit_linear import EightBitLinear, fast_in_eight_bits, noted_inputs, use_eight_bits
from pcm_ros.models.language import LanguageModel
from tests.models.tiny_language import make_model

pytestmark = pytest.mark.skipif(not fast_in_eight_bits(), reason="the processor has no VNNI: eight-bit integers are not used on it")

TEXT = "the cat sat on a mat with 12 eggs and 7 more"


def _states(rows: int, seed: int) -> torch.Tensor:
    """(rows, 96) with two columns that are a hundred times larger than the others, as a language model's states have them."""
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(seed))
    x[:, [3, 50]] *= 100
    return x


def _layer(bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(96, 40, bias=bias)
    with torch.inference_mode():
        layer.weight[:, [3, 50]] /= 100  # such columns count no more than others in the result
    return layer


@pytest.mark.parametrize("bias", [False, True])
def test_results_are_those_of_the_layer_within_a_hundredth(bias: bool) -> None:
    layer, x = _layer(bias), _states(200, 1)
    with torch.inference_mode():
        exact = layer(x)
        found = EightBitLinear([layer], _states(50, 2).abs().amax(dim=0))(x)
        unbalanced = EightBitLinear([layer], torch.full((96,), 1e-9))(x)  # nothing known of the columns

    def error(result: torch.Tensor) -> float:
        return float((result - exact).std() / exact.std())

    assert error(found) < 0.015
    assert error(found) < 0.3 * error(unbalanced)  # what balancing is for


def test_a_row_is_the_same_whatever_is_computed_with_it() -> None:
    layer, x = _layer(True), _states(33, 3)
    made = EightBitLinear([layer], x.abs().amax(dim=0))
    with torch.inference_mode():
        together = made(x)
        assert torch.equal(torch.cat([made(x[k : k + 1]) for k in range(33)]), together)
        assert torch.equal(made(x.view(3, 11, 96)).view(33, 40), together)


def test_rows_of_zeros_and_no_rows() -> None:
    made = EightBitLinear([_layer(False)], torch.ones(96))
    with torch.inference_mode():
        assert torch.equal(made(torch.zeros(2, 96)), torch.zeros(2, 40))
        assert made(torch.zeros(0, 96)).shape == (0, 40)


def test_inputs_are_noted_while_asked_for_and_not_after() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.tensor([[1.0, -5.0, 0.0, 2.0], [0.5, 1.0, -3.0, -2.5]])
    with torch.inference_mode():
        with noted_inputs(model) as inputs:
            model(x[:1])
            model(x[1:])
        model(10 * x)
    assert set(inputs.largest) == {"0", "2"} and inputs.largest["0"].tolist() == [1.0, 5.0, 3.0, 2.5]
    assert torch.equal(inputs.last["0"], x[1:])
    assert inputs.together() == [("0",), ("2",)]
    assert set(inputs.of(["2"]).largest) == set(inputs.of(["2"]).last) == {"2"}


class Branching(nn.Module):
    """Two layers, one of them with a bias, that get the same input, and one that gets another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.left, self.right, self.last = nn.Linear(96, 24), nn.Linear(96, 8, bias=False), nn.Linear(24, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.right(x) + self.last(torch.relu(self.left(x)))
        return result


def in_eight_bits(model: Branching, x: torch.Tensor) -> Branching:
    with torch.inference_mode(), noted_inputs(model) as inputs:
        model(x)
    use_eight_bits(model, inputs)
    return model


def test_layers_with_the_same_input_are_computed_together() -> None:
    x = torch.randn(30, 96, generator=torch.Generator().manual_seed(4))
    exact, made = Branching(), in_eight_bits(Branching(), x)
    calls: list[int] = []
    made.left.shared.layer.register_forward_hook(lambda layer, *_: calls.append(layer.out_features))
    with torch.inference_mode():
        assert (made(x) - exact(x)).std() < 0.02 * exact(x).std()
        assert calls == [32], "both at once"
        for name in ("left", "right"):
            single = EightBitLinear([getattr(exact, name)], x.abs().amax(dim=0))
            assert torch.allclose(getattr(made, name)(x), single(x), atol=0.05)


def test_nothing_is_kept_of_an_input_when_all_have_been_asked_for() -> None:
    x = torch.randn(30, 96, generator=torch.Generator().manual_seed(4))
    made = in_eight_bits(Branching(), x)
    with torch.inference_mode():
        made(x)
    assert made.left.shared._last is None


def test_threads_do_not_get_each_others_results() -> None:
    x = torch.randn(64, 400, 96, generator=torch.Generator().manual_seed(4))
    made = in_eight_bits(Branching(), x[0])

    def result(row: int) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = made(x[row])
            return found

    expected = [result(row) for row in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(pool.map(result, range(64)), expected, strict=True):
            assert torch.equal(one, other)


def test_a_typical_text_makes_it_float32_with_eight_bits(tmp_path: Path) -> None:
    model = LanguageModel(make_model("llama", tmp_path), typical=TEXT)
    assert model.dtype == torch.float32
    kinds = {type(module).__name__ for name, module in model.model.named_modules() if name.endswith(("q_proj", "down_proj"))}
    assert kinds == {"_Part", "EightBitLinear"}


def test_a_language_model_says_nearly_the_same(tmp_path: Path) -> None:
    folder = make_model("llama", tmp_path)
    exact, fast = LanguageModel(folder, dtype=torch.float32), LanguageModel(folder, dtype=torch.float32, typical=TEXT)
    assert any(isinstance(module, EightBitLinear) for module in fast.model.modules())
    tokens = exact.encode("a mat sat on 7 eggs")
    one, other = (torch.log_softmax(model.read([tokens]).logits[0], -1) for model in (exact, fast))
    assert not torch.equal(one, other)
    assert (one - other).std() < 0.25 * one.std()  # random weights multiply the hundredth of each layer; trained ones do not
    fed, likelihoods = fast.feed(fast.read([tokens[:1]]), [0], [tokens[1:]])
    assert torch.allclose(torch.log_softmax(fed.logits[0], -1), other, atol=1e-3) and len(likelihoods[0]) == len(tokens) - 1


def test_without_a_typical_text_numbers_stay_what_they_are(tmp_path: Path) -> None:
    model = LanguageModel(make_model("llama", tmp_path), dtype=torch.float32)
    assert not any(isinstance(module, EightBitLinear) for module in model.model.modules())
