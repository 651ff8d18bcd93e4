"""Wasserstein losses of critic and generator, computed from the critic's outputs."""

from torch import Tensor


def wasserstein_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the loss of a Wasserstein critic, mean D(fake) - mean D(real): minus its estimate of the distance.

    Arjovsky et al. 2017, algorithm 1.

    Args:
        real: critic outputs for real images, [B].
        fake: critic outputs for generated images, [B].

    Examples:
        >>> import torch
        >>> wasserstein_critic_loss(real=torch.tensor([3.0, 5.0]), fake=torch.tensor([-1.0, 0.0])).item()
        -4.5
    """
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """Return the generator's loss, -mean D(fake).

    Arjovsky et al. 2017, algorithm 1.

    Args:
        fake: critic outputs for generated images, [B].

    Examples:
        >>> import torch
        >>> wasserstein_generator_loss(torch.tensor([-1.0, 0.0])).item()
        0.5
    """
    return -fake.mean()
