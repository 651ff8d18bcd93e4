"""Cross-entropy losses of discriminator and generator, computed from logits in float32 at any precision."""

import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss, -mean log D(real) - mean log(1 - D(fake)).

    Goodfellow et al. 2014.

    Args:
        real: logits of real images, [B].
        fake: logits of generated images, [B].

    Examples:
        >>> import torch
        >>> round(discriminator_loss(torch.zeros(2), torch.zeros(2)).item(), 4)  # D = 1/2 everywhere: 2 log 2
        1.3863
    """
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Return the non-saturating loss of the generator, -mean log D(fake).

    Goodfellow et al. 2014.

    Args:
        fake: logits of generated images, [B].

    Examples:
        >>> import torch
        >>> round(generator_loss(torch.zeros(2)).item(), 4)  # D = 1/2: log 2
        0.6931
    """
    return F.softplus(-fake.float()).mean()
