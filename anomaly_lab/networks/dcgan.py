"""DCGAN's generator and discriminator of 4×4 convolutions, for square pictures of a power-of-two side >= 8.

Radford, Metz, Chintala 2016, ICLR. Each has n = log2(side / 4) stages; counted from the picture, stage i works at
width · min(2^i, 8) channels. At width 64, latent_dim 100 and one channel: 1 066 880 and 661 248 weights at 32×32,
3 574 656 and 2 763 520 at 64×64. No biases: batch norm has its own.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, initialise, stage_widths


class DCGANGenerator(nn.Module):
    """z [B, latent_dim] -> fake [B, out_channels, S, S] in [-1, 1]; batch norm."""

    def __init__(self, latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)[::-1]
        self.first = nn.Linear(latent_dim, widths[0] * BOTTOM**2, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            )
        )
        self.last = nn.ConvTranspose2d(widths[-1], out_channels, 4, 2, 1, bias=False)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm(self.first(z).unflatten(1, (-1, BOTTOM, BOTTOM))))
        return torch.tanh(self.last(self.stages(h)))


class DCGANDiscriminator(nn.Module):
    """image [B, C, S, S] -> logit of "real" [B]; batch norm but in the first stage."""

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)
        self.stages = nn.Sequential(nn.Conv2d(in_channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2))
        for a, b in itertools.pairwise(widths):
            self.stages.extend((nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)))
        self.last = nn.Linear(widths[-1] * BOTTOM**2, 1, bias=False)
        initialise(self)

    def features(self, image: Tensor) -> Tensor:
        """What the last layer sees, [B, F]: AnoGAN's f."""
        h: Tensor = self.stages(image)
        return h.flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(image))
        return logit.squeeze(1)
