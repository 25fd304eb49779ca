"""Descent along the summed energies of experts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pcm_ros.consensus import Batch, Consensus, Ensemble, Gradient, GradientState, QuorumError, Stop

NUMBERS = st.floats(-5, 5)
POINTS = st.lists(NUMBERS, min_size=2, max_size=2)


class Walker:
    """Starts at random places and goes on from where the strategy led."""

    def __init__(self, count: int = 4, dimensions: int = 2) -> None:
        self.count, self.dimensions = count, dimensions

    def propose(self, context: Any, state: GradientState | None, rng: torch.Generator) -> Batch:
        start = torch.randn((self.count, self.dimensions), generator=rng, dtype=torch.float64) * 3
        parameters = (start if state is None else state.parameters).clone().requires_grad_()
        return Batch(parameters, torch.zeros(self.count, dtype=torch.int64), {"twice": 2 * parameters})


class Quadratic:
    """|2 x - 2 target|^2 / 8, read from an extra that depends on the parameters."""

    cost, differentiable = 1.0, True

    def __init__(self, name: str, target: list[float]) -> None:
        self.name, self.target = name, torch.tensor(target, dtype=torch.float64)

    def energy(self, batch: Batch, context: Any) -> Tensor:
        return (batch.extras["twice"] - 2 * self.target).square().sum(dim=1) / 8


class Steep(Quadratic):
    """A thousand times as steep as the others."""

    def energy(self, batch: Batch, context: Any) -> Tensor:
        return 1000 * super().energy(batch, context)


class Broken(Quadratic):
    """Finite energies whose gradient is NaN from some round on."""

    def __init__(self, name: str, first: int) -> None:
        super().__init__(name, [9.0, 9.0])
        self.first, self.round = first, -1

    def energy(self, batch: Batch, context: Any) -> Tensor:
        self.round += 1
        energies = super().energy(batch, context)
        if self.round < self.first:
            return energies
        zero = (batch.parameters - batch.parameters.detach()).sum(dim=1)
        return energies + (zero * 0).sqrt()  # d sqrt(0) is infinite, times 0 is NaN


def descended(
    scorers: list[Any], strategy: Gradient, weights: dict[str, float] | None = None, rounds: int = 120, seed: int = 0
) -> list[Any]:
    with Ensemble(scorers, weights, quorum=1) as ensemble:
        loop = Consensus(Walker(), ensemble, strategy, Stop(rounds, agreement=None), keep_leader=False)
        return list(loop.iterate(None, seed))


@given(POINTS, POINTS, st.floats(0.1, 3), st.floats(0.1, 3))
def test_all_come_to_the_weighted_mean(a: list[float], b: list[float], u: float, v: float) -> None:
    rounds = descended([Quadratic("a", a), Quadratic("b", b)], Gradient(0.9 / (u + v)), {"a": u, "b": v}, 60)
    expected = (u * torch.tensor(a, dtype=torch.float64) + v * torch.tensor(b, dtype=torch.float64)) / (u + v)
    assert torch.allclose(rounds[-1].state.parameters, expected.expand(4, 2), atol=1e-6)
    totals = torch.stack([iteration.table.total for iteration in rounds])
    assert (totals.diff(dim=0) <= 1e-9).all()


@given(st.integers(0, 2**63 - 1))
def test_the_same_seed_walks_the_same_way(seed: int) -> None:
    first, second = (descended([Quadratic("a", [1, 2]), Quadratic("b", [3, 0])], Gradient(0.3), None, 5, seed) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.state.parameters, other.state.parameters)


@given(st.integers(0, 5))
def test_an_expert_whose_gradient_is_nan_is_left_out_and_named(first: int) -> None:
    rounds = descended([Quadratic("a", [1.0, -1.0]), Broken("broken", first)], Gradient(0.4), None, 60)
    assert [bool(iteration.dropped) for iteration in rounds] == [n >= first for n in range(60)]
    assert "4 of 4 gradients are NaN" in rounds[-1].dropped["broken"]
    assert set(rounds[-1].state.moved) == {"a"}
    assert torch.allclose(rounds[-1].state.parameters, torch.tensor([1.0, -1.0], dtype=torch.float64).expand(4, 2), atol=1e-6)


def test_below_the_quorum_the_loop_says_so() -> None:
    with pytest.raises(QuorumError, match="gradients are NaN"):
        descended([Broken("broken", 0)], Gradient(0.4))


@given(st.floats(0.01, 2))
def test_no_expert_moves_a_proposal_further_than_its_clip(clip: float) -> None:
    rounds = descended([Steep("steep", [5.0, 5.0]), Quadratic("calm", [-5.0, 5.0])], Gradient(0.5, {"steep": clip}), None, 3)
    for iteration in rounds:
        assert (iteration.state.moved["steep"] <= 0.5 * clip + 1e-9).all()
    assert rounds[0].state.moved["calm"].max() > 0.5


@given(st.floats(1e-6, 1e6))
def test_experts_that_want_zero_are_worth_the_same_whatever_their_scale(scale: float) -> None:
    class Scaled(Quadratic):
        def energy(self, batch: Batch, context: Any) -> Tensor:
            return scale * super().energy(batch, context)

    first = descended([Scaled("scaled", [1.0, 1.0])], Gradient(1.0, 0.3, to_zero=["scaled"]), None, 40)
    assert (first[0].state.moved["scaled"] <= 0.3 + 1e-9).all()
    plain = descended([Quadratic("scaled", [1.0, 1.0])], Gradient(1.0, 0.3, to_zero=["scaled"]), None, 40)
    assert torch.allclose(first[-1].state.parameters, plain[-1].state.parameters, atol=1e-9)


def test_a_content_expert_does_not_push() -> None:
    rounds = descended([Quadratic("a", [1.0, 1.0])], Gradient(1.0, 100.0, to_zero=["a"]), None, 200)
    assert rounds[-1].state.moved["a"].max() < 1e-9


def test_adapting_steps_tame_a_step_that_is_too_long() -> None:
    scorers = [Quadratic("a", [1.0, 1.0])]
    wild = descended(scorers, Gradient(2.5), None, 60)
    assert (wild[-1].table.total > wild[0].table.total).all()  # beyond 2 it diverges
    tamed = descended(scorers, Gradient(2.5, adapt=True), None, 60)
    assert (tamed[-1].table.total < 0.01 * tamed[0].table.total).all()


def test_scorers_without_gradient_count_in_the_energy_and_move_nothing() -> None:
    class Blind(Quadratic):
        differentiable = False

    rounds = descended([Quadratic("a", [1.0, 1.0]), Blind("blind", [4.0, 4.0])], Gradient(0.5), None, 40)
    last = rounds[-1]
    assert set(last.table.gradients) == {"a"}
    assert torch.allclose(last.state.parameters, torch.ones((4, 2), dtype=torch.float64), atol=1e-6)
    assert torch.allclose(last.table.total, last.table.energies.sum(dim=1))


def test_a_scorer_that_wrongly_calls_itself_differentiable() -> None:
    class Detached(Quadratic):
        def energy(self, batch: Batch, context: Any) -> Tensor:
            return super().energy(batch, context).detach()

    rounds = descended([Quadratic("a", [1.0, 1.0]), Detached("detached", [4.0, 4.0])], Gradient(0.5), None, 2)
    assert "set differentiable = False" in rounds[0].dropped["detached"]


def test_kept_iterations_hold_no_graph() -> None:
    for iteration in descended([Quadratic("a", [1.0, 1.0])], Gradient(0.5), None, 3):
        for tensor in itertools.chain([iteration.batch.parameters, iteration.state.parameters], iteration.batch.extras.values()):
            assert not tensor.requires_grad


def test_a_leader_of_earlier_rounds_has_no_gradient() -> None:
    with Ensemble([Quadratic("a", [1.0, 1.0])]) as ensemble, pytest.raises(ValueError, match="set keep_leader=False"):
        Consensus(Walker(), ensemble, Gradient(), Stop(3, agreement=None)).run(None, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "step is 0"),
        ({"clip": {"a": -1.0}}, "clip is -1"),
        ({"step": float("nan")}, "step is nan"),
        ({"to_zero": ["a"]}, "no clip"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gradient(**arguments)
