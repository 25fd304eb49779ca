import pytest
import torch

from pcm_ros.consensus import Batch


def make(n: int = 4) -> Batch:
    return Batch(torch.arange(2.0 * n, dtype=torch.float64).reshape(n, 2), torch.arange(n), {"pick": torch.arange(n) * 10})


def test_select_takes_rows_of_everything_in_order() -> None:
    chosen = make().select([2, 0])
    assert len(chosen) == 2
    assert chosen.parameters.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert chosen.category.tolist() == [2, 0]
    assert chosen.extras["pick"].tolist() == [20, 0]


def test_joined_is_one_after_the_other() -> None:
    both = make(2).joined(make(1))
    assert both.category.tolist() == [0, 1, 0]
    assert both.extras["pick"].tolist() == [0, 10, 0]
    with pytest.raises(ValueError, match="different extras"):
        make().joined(Batch(make().parameters, make().category))


@pytest.mark.parametrize(
    ("parameters", "category", "extras", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), {}, "float64"),
        (torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), {}, "N >= 1"),
        (torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.int64), {}, r"\(N, D\)"),
        (torch.full((3, 2), torch.nan, dtype=torch.float64), torch.zeros(3, dtype=torch.int64), {}, "3 of 3 proposals"),
        (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), {}, r"int64 \(3,\)"),
        (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3), {}, "int64"),
        (torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0, -1, 0]), {}, "got -1"),
        (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64), {"a": torch.zeros(2)}, r"extras\['a'\]"),
    ],
)
def test_wrong_arrays_are_named(parameters: torch.Tensor, category: torch.Tensor, extras: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batch(parameters, category, extras)
