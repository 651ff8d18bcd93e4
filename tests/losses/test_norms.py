"""Hand tables."""

import pytest
import torch

from anomaly_lab.losses.norms import difference_norm

A = torch.tensor([[[3.0, 0.0]], [[1.0, 1.0]]])
B = torch.tensor([[[0.0, -4.0]], [[1.0, 1.0]]])


@pytest.mark.parametrize(("degree", "expected"), [(1, [7, 0]), (2, [5, 0])])
def test_by_hand(degree: float, expected: list[float]) -> None:
    assert difference_norm(A, B, degree).tolist() == expected


def test_in_float32_under_any_precision() -> None:
    """The sum of a thousand ones, which bfloat16 cannot hold."""
    ones = torch.ones(1, 1001, dtype=torch.bfloat16)
    assert difference_norm(ones, 0 * ones).tolist() == [1001]
