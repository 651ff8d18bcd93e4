"""Hand tables."""

import math

import pytest
import torch
from torch import Tensor

from anomaly_lab.losses.ganomaly import DiscriminatorOutput, Variant, adversarial_distance, latent_distance

A, B = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.5]])
SQUARES = (9 + 16 + 0.25) / 4
NORMS = (5 + 0.5) / math.sqrt(2) / 2  # of the rows, by √n, and their mean
SMOOTH = (2.5 + 3.5 + 0.125) / 4


def outputs() -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
    """Logits of .8 and .5, of .2 and .6; features A and B."""
    real, fake = torch.logit(torch.tensor([[0.8, 0.5], [0.2, 0.6]]))
    return DiscriminatorOutput(real, A), DiscriminatorOutput(fake, B)


@pytest.mark.parametrize(("variant", "expected"), [("paper", NORMS), ("official", SQUARES), ("anomalib", SMOOTH)])
def test_latent_distance(variant: Variant, expected: float) -> None:
    assert latent_distance(A, B, variant).item() == pytest.approx(expected)
    assert latent_distance(B, A, variant).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("paper", NORMS), ("official", SQUARES), ("anomalib", (0.6**2 + 0.1**2) / 2)],  # of features, or of outputs
)
def test_adversarial_distance(variant: Variant, expected: float) -> None:
    assert adversarial_distance(*outputs(), variant).item() == pytest.approx(expected)


@pytest.mark.parametrize("variant", ["paper", "official", "anomalib"])
def test_float32_and_with_a_slope_even_where_nothing_differs(variant: Variant) -> None:
    same = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    loss: Tensor = latent_distance(same.detach(), same, variant)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() < 1e-5
    assert same.grad is not None
    assert same.grad.isfinite().all()
