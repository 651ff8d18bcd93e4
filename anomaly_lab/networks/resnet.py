"""Residual generator, critic and encoder for square pictures of any power-of-two side >= 32 (f-AnoGAN's at 64×64).

Each has n = log2(side / 4) blocks; counted from the picture, block i works at width · min(2^i, 8) channels. At width
64, one channel, latent_dim 128 and 64×64 these are the authors' networks: 8 539 329, 7 490 689 and 8 531 200 weights.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.blocks import DownBlock, UpBlock, initialise
from anomaly_lab.networks.convolution import Conv2d

BOTTOM = 4  # side of the smallest feature map


def block_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Channels between the blocks, from the picture inward.

    64×64, width 64 -> [64, 128, 256, 512, 512]; 32×32 -> [64, 128, 256, 256].

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 32.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 32 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: the residual networks need a square, a power of two >= 32")
    blocks = (side // BOTTOM).bit_length() - 1
    inward = [width * min(2**i, 8) for i in range(blocks)]
    return [*inward, inward[-1]]


class ResNetGenerator(nn.Module):
    """z [B, latent_dim] -> fake [B, out_channels, S, S] in [-1, 1]; batch norm."""

    def __init__(self, latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = block_widths(patch_size, width)[::-1]
        self.first = nn.Linear(latent_dim, widths[0] * BOTTOM**2)
        self.blocks = nn.Sequential(*(UpBlock(a, b) for a, b in itertools.pairwise(widths)))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z).unflatten(1, (-1, BOTTOM, BOTTOM))
        return torch.tanh(self.last(F.relu(self.norm(self.blocks(h)))))


class ResNetTrunk(nn.Module):
    """image [B, C, S, S] -> features [B, F]: the raw output of the last block, flattened; layer norm."""

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = block_widths(patch_size, width)
        self.num_features = widths[-1] * BOTTOM**2
        self.first = Conv2d(in_channels, widths[0], 3)
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in itertools.pairwise(widths)))

    def features(self, image: Tensor) -> Tensor:
        """What the last layer sees, [B, F]."""
        # An image that asks for its gradient while the weights learn is a gradient penalty's: differentiated again.
        twice = image.requires_grad and self.first.weight.requires_grad
        h: Tensor = self.first(image, twice)
        for block in self.blocks:
            h = block(h, twice)
        return h.flatten(1)


class ResNetCritic(ResNetTrunk):
    """image [B, C, S, S] -> unbounded discriminator_output [B]. f-AnoGAN's paper calls it D."""

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__(in_channels, patch_size, width)
        self.last = nn.Linear(self.num_features, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        score: Tensor = self.last(self.features(image))
        return score.squeeze(1)


class ResNetEncoder(ResNetTrunk):
    """image [B, C, S, S] -> z [B, latent_dim] in (-1, 1): the authors found tanh slightly better than no bound."""

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__(in_channels, patch_size, width)
        self.last = nn.Linear(self.num_features, latent_dim)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.last(self.features(image)))
