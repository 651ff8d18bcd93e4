"""The U-Net of the denoising autoencoder by Kascenas et al. 2022: standardised weights, SiLU, group norm.

Four levels joined by 2×2 averages on the way down and by transposed convolutions on the way up; layers as in the
authors' code. At width 64 it has 7.7 million parameters.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StandardisedConv2d(nn.Conv2d):
    """3×3 convolution whose filters have mean 0 and variance 1 over their inputs (Qiao et al. 2019); mirrored border.

    Examples:
        >>> StandardisedConv2d(1, 2)(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = centred / (centred.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, self.bias)


class DenoisingUNet(nn.Module):
    """U-Net: image [B, C, H, W] -> image [B, C, H, W], unbounded, with a skip connection at every level.

    Args:
        channels: of the image.
        width: channels at full resolution, a power of two; each level down has twice as many.
        levels: number of resolutions; the image's sides must be multiples of 2^(levels - 1).

    Examples:
        >>> DenoisingUNet(channels=1, width=8)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, channels: int, width: int = 64, levels: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.downs = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise([channels, *widths]))
        pairs = list(itertools.pairwise(reversed(widths)))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.joins = nn.ModuleList(_block(a, b) for a, b in pairs)
        self.last = nn.Conv2d(width, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        h, skips = image, list[Tensor]()
        for i, down in enumerate(self.downs):
            h = down(F.avg_pool2d(h, 2) if i else h)
            skips.append(h)
        skips.pop()
        for up, join in zip(self.ups, self.joins, strict=True):
            h = join(torch.cat([up(h), skips.pop()], 1))
        restored: Tensor = self.last(h)
        return restored


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        norm = nn.GroupNorm(_groups(out_channels), out_channels)
        layers += [StandardisedConv2d(channels, out_channels), nn.SiLU(), norm]
    return nn.Sequential(*layers)


def _groups(channels: int) -> int:
    """Return the divisor of `channels` nearest to its square root from above: 64 -> 8, 128 -> 16."""
    return next(n for n in range(math.isqrt(channels - 1) + 1, channels + 1) if channels % n == 0)
