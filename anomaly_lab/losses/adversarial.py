"""Adversarial losses on the outputs of a critic, one function for each side."""

from torch import Tensor


def wasserstein_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a Wasserstein critic descends: mean D(fake) - mean D(real), minus its estimate of the distance.

    Arjovsky et al. 2017, algorithm 1; `real`, `fake`: critic outputs, [B].
    """
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """What the generator descends: - mean D(fake); `fake`: critic outputs, [B]."""
    return -fake.mean()
