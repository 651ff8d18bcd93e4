"""How widely a critic's outputs are spread over real images."""

import torch
from torch import Tensor


def concentration(real: Tensor) -> Tensor:
    """Standard deviation of critic outputs [B], of the population: √(mean (D - mean D)²); a scalar.

    Shen et al. 2020 (adGAN), eq. 3. Computed in float32 under any precision; 1e-8 below the root, which has no
    derivative at 0.
    """
    with torch.autocast(real.device.type, enabled=False):
        real = real.float()
        return ((real - real.mean()).square().mean() + 1e-8).sqrt()
