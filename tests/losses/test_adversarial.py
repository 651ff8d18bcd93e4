"""Hand tables."""

import torch

from anomaly_lab.losses.adversarial import wasserstein_critic_loss, wasserstein_generator_loss


def test_wasserstein_losses() -> None:
    real, fake = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, -3.0, 0.0])
    assert wasserstein_critic_loss(real, fake).item() == -1.0 - 3.0
    assert wasserstein_generator_loss(fake).item() == 1.0
