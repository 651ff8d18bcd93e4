"""f-AnoGAN's residual generator, critic and encoder, for square images of any power-of-two side >= 32.

Each has n = log2(side / 4) blocks; block i, counted from the image, has width · min(2^i, 8) channels. At width 64, one
channel, latent_dim 128 and 64×64 these are the authors' networks, with 8 539 329, 7 490 689 and 8 531 200 parameters.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.blocks import DownBlock, UpBlock, initialise
from anomaly_lab.networks.convolution import Conv2d
from anomaly_lab.networks.stages import unrounded

BOTTOM = 4  # side of the smallest feature map


def block_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Return the channels between the blocks, from the image inward.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 32.

    Examples:
        >>> block_widths((32, 32), 64), block_widths((64, 64), 64)
        ([64, 128, 256, 256], [64, 128, 256, 512, 512])
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 32 or side & (side - 1):
        raise ValueError(
            f"patch_size {tuple(patch_size)}: the residual networks need a square whose side is a power of two >= 32"
        )
    blocks = (side // BOTTOM).bit_length() - 1
    inward = [width * min(2**i, 8) for i in range(blocks)]
    return [*inward, inward[-1]]


class ResNetGenerator(nn.Module):
    """Generator: z [B, latent_dim] -> image [B, out_channels, S, S] in [-1, 1]; with batch norm.

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at full resolution.

    Examples:
        >>> ResNetGenerator(latent_dim=8, out_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

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
    """Trunk of critic and encoder: image [B, C, S, S] -> features [B, F], the flattened output of the last block.

    It has layer norm, and neither norm nor activation after the last block.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at full resolution.

    Examples:
        >>> ResNetTrunk(in_channels=1, patch_size=(32, 32), width=4).features(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 256])
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = block_widths(patch_size, width)
        self.num_features = widths[-1] * BOTTOM**2
        self.first = Conv2d(in_channels, widths[0], 3)
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in itertools.pairwise(widths)))

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, [B, F]."""
        # If both image and weights require gradients, this is a gradient penalty, which is differentiated twice.
        twice = image.requires_grad and self.first.weight.requires_grad
        h: Tensor = self.first(image, twice)
        for block in self.blocks:
            h = block(h, twice)
        return h.flatten(1)


class ResNetCritic(ResNetTrunk):
    """Critic: image [B, C, S, S] -> output [B], unbounded. The paper of f-AnoGAN calls it D.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at full resolution.

    Examples:
        >>> ResNetCritic(in_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__(in_channels, patch_size, width)
        self.last = nn.Linear(self.num_features, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return unrounded(self.last, self.features(image))


class ResNetEncoder(ResNetTrunk):
    """Encoder: image [B, C, S, S] -> z [B, latent_dim] in (-1, 1).

    The authors found tanh slightly better than an unbounded output.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at full resolution.

    Examples:
        >>> encoder = ResNetEncoder(in_channels=1, latent_dim=8, patch_size=(32, 32), width=4)
        >>> encoder(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__(in_channels, patch_size, width)
        self.last = nn.Linear(self.num_features, latent_dim)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.last(self.features(image)))
