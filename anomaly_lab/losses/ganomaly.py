"""What GANomaly's generator descends besides the pixels' distance, in the three versions that are in use.

Each takes D's answers to images and reconstructions and the codes of both; scalars, float32 under any precision.
"""

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

Variant = Literal["paper", "official", "anomalib"]


class DiscriminatorOutput(NamedTuple):
    """What a discriminator says of images: logit of "real" [B] and features [B, F]."""

    logit: Tensor
    features: Tensor


def adversarial_distance(real: DiscriminatorOutput, fake: DiscriminatorOutput, variant: Variant) -> Tensor:
    """How differently D sees images and their reconstructions.

    `paper`: ‖f - f̂‖₂ (Akcay et al. 2018, eq. 1); `official`: mean (f - f̂)², the authors' code; `anomalib`: mean
    (D - D̂)² of its probabilities, not its features (anomalib 2.7, its issue 2137).
    """
    if variant == "anomalib":
        return F.mse_loss(fake.logit.float().sigmoid(), real.logit.float().sigmoid())
    return _distance(real.features, fake.features, variant)


def latent_distance(z: Tensor, z_hat: Tensor, variant: Variant) -> Tensor:
    """How far the code of a reconstruction is from that of its image, [B, latent_dim] both.

    `paper`: ‖z - ẑ‖₂ (eq. 3); `official`: mean (z - ẑ)²; `anomalib`: the same within 1, beyond it 2 |z - ẑ| - 1, and
    half of it all (smooth L1).
    """
    if variant == "anomalib":
        return F.smooth_l1_loss(z_hat.float(), z.float())
    return _distance(z, z_hat, variant)


def _distance(a: Tensor, b: Tensor, variant: Variant) -> Tensor:
    square = (a.float() - b.float()).square().mean(1)
    if variant == "official":
        return square.mean()
    # ≠ paper: its norm over √n. Its weights 1, 50, 1 were found with means (the authors' code) and go with no sum.
    return (square + 1e-12).sqrt().mean()  # the root has no derivative at 0
