"""Hand tables."""

import math

import pytest
import torch

from anomaly_lab.losses.cross_entropy import discriminator_loss, generator_loss


def test_of_probabilities_by_hand() -> None:
    real, fake = torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.1])
    said_of_real, said_of_fake = torch.logit(real), torch.logit(fake)
    expected = -(math.log(0.8) + math.log(0.5)) / 2 - (math.log(0.8) + math.log(0.9)) / 2
    assert discriminator_loss(said_of_real, said_of_fake).item() == pytest.approx(expected, rel=1e-5)
    assert generator_loss(said_of_fake).item() == pytest.approx(-(math.log(0.2) + math.log(0.1)) / 2, rel=1e-5)


def test_finite_in_float32_whatever_comes_in() -> None:
    sure = torch.tensor([200.0, -200.0], dtype=torch.bfloat16)
    assert discriminator_loss(sure, -sure).item() == 200
    assert generator_loss(sure).dtype == torch.float32


def test_the_generator_still_learns_from_a_sure_discriminator() -> None:
    fake = torch.tensor([-50.0], requires_grad=True)
    generator_loss(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(-1)
