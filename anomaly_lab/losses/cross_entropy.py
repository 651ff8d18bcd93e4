"""The first GAN's losses on a discriminator's logits, one function for each side; float32 under any precision."""

import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator descends: - mean log D(real) - mean log(1 - D(fake)), of logits [B] (Goodfellow 2014)."""
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """What the generator descends: - mean log D(fake), which does not saturate; `fake`: logits [B]."""
    return F.softplus(-fake.float()).mean()
