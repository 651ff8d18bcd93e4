"""A hand table, and what a root and half precision need."""

import pytest
import torch

from anomaly_lab.losses.concentration import concentration


@pytest.mark.parametrize(
    ("outputs", "spread"),
    [
        ([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 2.0),  # of a sample it would be 2.14
        ([-1.0, 1.0], 1.0),  # of a sample √2
        ([1000.0, 1003.0], 1.5),
        ([0.0, 0.0, 3.0], 2**0.5),
    ],
)
def test_it_is_the_populations_standard_deviation(outputs: list[float], spread: float) -> None:
    assert concentration(torch.tensor(outputs)).item() == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize("outputs", [[3.0, 3.0, 3.0], [5.0]])
def test_equal_outputs_have_none_and_a_gradient(outputs: list[float]) -> None:
    real = torch.tensor(outputs, requires_grad=True)
    spread = concentration(real)
    spread.backward()
    assert spread.item() == pytest.approx(0, abs=2e-4)
    assert real.grad is not None
    assert not real.grad.any()


def test_it_is_computed_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        spread = concentration(torch.tensor([100.0, 101.0], dtype=torch.bfloat16))
    assert spread.dtype == torch.float32
    assert spread.item() == pytest.approx(0.5, rel=0.01)
