"""A U-Net down to a single pixel, for squares of a power-of-two side >= 8: Skip-GANomaly's generator, from pix2pix.

Isola, Zhu, Zhou, Efros 2017, CVPR; Akcay, Atapour-Abarghouei, Breckon 2019, IJCNN; layers as in the latter's code. It
has log2(side) down stages, of width · min(2^i, 8) channels counted from the image, and as many up stages. At width 64
it has 16 659 075 parameters at 32×32 in colour, 29 237 889 at 64×64 in grey, 41 828 995 at 128×128 in colour.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.stages import initialise


class UNet(nn.Module):
    """U-Net: image [B, C, S, S] -> reconstruction [B, C, S, S] in (-1, 1), with skip connections at every stage.

    Args:
        channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.

    Examples:
        >>> UNet(channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = _stage_widths(patch_size, width)
        self.downs = nn.ModuleList([nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False)])
        self.downs.extend(_down(a, b) for a, b in itertools.pairwise(widths[:-1]))
        innermost = nn.Conv2d(widths[-2], widths[-1], 4, 2, 1, bias=False)  # no batch norm on a single pixel
        self.downs.append(nn.Sequential(nn.LeakyReLU(0.2), innermost))
        self.ups = nn.ModuleList([_up(widths[-1], widths[-2])])
        self.ups.extend(_up(2 * a, b) for a, b in itertools.pairwise(widths[-2::-1]))
        self.last = nn.ConvTranspose2d(2 * widths[0], channels, 4, 2, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        levels = [image]
        for down in self.downs:
            levels.append(down(levels[-1]))
        h = levels.pop()
        for up in self.ups:
            h = torch.cat([levels.pop(), up(h)], 1)
        return torch.tanh(self.last(torch.relu(h)))


def _stage_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Return the channels of the stages, from the image inward: 32×32, width 64 -> [64, 128, 256, 512, 512]."""
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"patch_size {tuple(patch_size)}: a U-Net to one pixel needs a square whose side is a power of two >= 8"
        )
    return [width * min(2**i, 8) for i in range(side.bit_length() - 1)]


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False)
    return nn.Sequential(nn.LeakyReLU(0.2), conv, nn.BatchNorm2d(out_channels))


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(out_channels))
