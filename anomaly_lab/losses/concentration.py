"""Concentration loss of adGAN: the spread of a critic's outputs over real images."""

import torch
from torch import Tensor


def concentration(real: Tensor) -> Tensor:
    """Return the population standard deviation √(mean (D - mean D)²) of a critic's outputs.

    Shen et al. 2020 (adGAN), eq. 3. Computed in float32 at any precision. 1e-8 is added under the root, which has no
    derivative at 0.

    Args:
        real: critic outputs for real images, [B].

    Returns:
        A scalar.

    Examples:
        >>> concentration(torch.tensor([1.0, 3.0])).item()
        1.0
    """
    with torch.autocast(real.device.type, enabled=False):
        real = real.float()
        return ((real - real.mean()).square().mean() + 1e-8).sqrt()
