"""Adversarial and latent loss of GANomaly's generator in the three variants in use.

All functions return scalars, in float32 at any precision.
"""

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

Variant = Literal["paper", "official", "anomalib"]


class DiscriminatorOutput(NamedTuple):
    """Output of a discriminator: logit of "real" [B] and features [B, F]."""

    logit: Tensor
    features: Tensor


def adversarial_distance(real: DiscriminatorOutput, fake: DiscriminatorOutput, variant: Variant) -> Tensor:
    """Return the distance between the discriminator's outputs for images and for their reconstructions.

    Args:
        real: outputs for images.
        fake: outputs for their reconstructions.
        variant: `paper` ‖f - f̂‖₂ (Akcay et al. 2018, eq. 1); `official` mean (f - f̂)², as in the authors' code;
            `anomalib` mean (D - D̂)² of probabilities instead of features (anomalib 2.7, its issue 2137).

    Examples:
        >>> import torch
        >>> real = DiscriminatorOutput(torch.zeros(1), torch.zeros(1, 4))
        >>> fake = DiscriminatorOutput(torch.zeros(1), torch.full((1, 4), 3.0))
        >>> adversarial_distance(real, fake, "official").item()
        9.0
        >>> adversarial_distance(real, fake, "anomalib").item()  # equal probabilities, whatever the features
        0.0
    """
    if variant == "anomalib":
        return F.mse_loss(fake.logit.float().sigmoid(), real.logit.float().sigmoid())
    return _distance(real.features, fake.features, variant)


def latent_distance(z: Tensor, z_hat: Tensor, variant: Variant) -> Tensor:
    """Return the distance between the codes of images and the codes of their reconstructions.

    Args:
        z: codes of images, [B, latent_dim].
        z_hat: codes of reconstructions, [B, latent_dim].
        variant: `paper` ‖z - ẑ‖₂ (Akcay et al. 2018, eq. 3); `official` mean (z - ẑ)²; `anomalib` smooth L1: the mean
            of ½ (z - ẑ)² where |z - ẑ| < 1 and of |z - ẑ| - ½ elsewhere.

    Examples:
        >>> import torch
        >>> z, z_hat = torch.zeros(1, 2), torch.tensor([[3.0, 3.0]])
        >>> latent_distance(z, z_hat, "official").item(), latent_distance(z, z_hat, "anomalib").item()
        (9.0, 2.5)
    """
    if variant == "anomalib":
        return F.smooth_l1_loss(z_hat.float(), z.float())
    return _distance(z, z_hat, variant)


def _distance(a: Tensor, b: Tensor, variant: Variant) -> Tensor:
    square = (a.float() - b.float()).square().mean(1)
    if variant == "official":
        return square.mean()
    # ≠ paper: its norm divided by √n. The weights 1, 50, 1 were tuned for means (the authors' code), not for sums.
    return (square + 1e-12).sqrt().mean()  # 1e-12: the root has no derivative at 0
