"""DCGAN's generator and discriminator of 4×4 convolutions, for square images of a power-of-two side >= 8.

Radford, Metz, Chintala 2016, ICLR. Each has n = log2(side / 4) stages; stage i, counted from the image, has width ·
min(2^i, 8) channels. At width 64, latent_dim 100 and one channel they have 1 066 880 and 661 248 parameters at 32×32, 3
574 656 and 2 763 520 at 64×64. There are no biases, because batch norm has its own.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, initialise, stage_widths


class DCGANGenerator(nn.Module):
    """Generator: z [B, latent_dim] -> image [B, out_channels, S, S] in [-1, 1]; with batch norm.

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> DCGANGenerator(latent_dim=8, out_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

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
    """Discriminator: image [B, C, S, S] -> logit of "real" [B]; batch norm in all stages but the first.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> discriminator = DCGANDiscriminator(in_channels=1, patch_size=(32, 32), width=4)
        >>> image = torch.zeros(2, 1, 32, 32)
        >>> discriminator(image).shape, discriminator.features(image).shape
        (torch.Size([2]), torch.Size([2, 256]))
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)
        self.stages = nn.Sequential(nn.Conv2d(in_channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2))
        for a, b in itertools.pairwise(widths):
            self.stages.extend((nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)))
        self.last = nn.Linear(widths[-1] * BOTTOM**2, 1, bias=False)
        initialise(self)

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, [B, F]: f in AnoGAN."""
        h: Tensor = self.stages(image)
        return h.flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(image))
        return logit.squeeze(1)
