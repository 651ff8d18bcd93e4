"""ALOCC's denoising autoencoder and discriminator of 5×5 convolutions, for squares of a power-of-two side >= 8.

Sabokrou, Khalooei, Fathy, Adeli 2018, CVPR, figure 2. Each has n = log2(side / 4) strided stages of width · 2^i
channels (at most 8 · width), counted from the image, and no dense bottleneck. At width 64, one channel and 32×32 they
have 2 052 481 and 1 030 529 parameters. The eps of batch norm is that of the authors' code.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, initialise, stage_widths

EPS = 1e-6


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 5, 2, 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels, EPS), nn.LeakyReLU(0.2))


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(in_channels, out_channels, 5, 2, 2, output_padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels, EPS), nn.ReLU())


class Reconstructor(nn.Module):
    """Autoencoder, R in the paper: image [B, C, S, S] -> reconstruction [B, C, S, S] in (-1, 1).

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Attributes:
        initial_error: mean squared error before training. The detector that trains R maintains this and the other two.
        error: running mean of the training error.
        stopped_at: number of iterations after which training stopped; -1 before.

    Examples:
        >>> Reconstructor(in_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    initial_error: Tensor
    error: Tensor
    stopped_at: Tensor

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)
        self.encoder = nn.Sequential(*(_down(a, b) for a, b in itertools.pairwise([in_channels, *widths])))
        self.decoder = nn.Sequential(*(_up(a, b) for a, b in itertools.pairwise(widths[::-1])))
        self.last = nn.ConvTranspose2d(width, in_channels, 5, 2, 2, output_padding=1)
        self.register_buffer("initial_error", torch.zeros(()))
        self.register_buffer("error", torch.zeros(()))
        self.register_buffer("stopped_at", torch.tensor(-1))
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.last(self.decoder(self.encoder(image))))


class ALOCCDiscriminator(nn.Module):
    """Discriminator: image [B, C, S, S] -> logit of "real" [B]; batch norm in all stages but the first, as in the code.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> ALOCCDiscriminator(in_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)
        first = nn.Sequential(nn.Conv2d(in_channels, width, 5, 2, 2), nn.LeakyReLU(0.2))
        self.stages = nn.Sequential(first, *(_down(a, b) for a, b in itertools.pairwise(widths)))
        self.last = nn.Linear(widths[-1] * BOTTOM**2, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.last(self.stages(image).flatten(1))
        return logit.squeeze(1)
