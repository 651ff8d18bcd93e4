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

BOTTOM = 4  # side of the smallest feature map


def stage_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Channels of the stages, from the picture inward: 64×64, width 64 -> [64, 128, 256, 512].

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: these networks need a square, a power of two >= 8")
    stages = (side // BOTTOM).bit_length() - 1
    return [width * min(2**i, 8) for i in range(stages)]


def initialise(network: nn.Module) -> None:
    """DCGAN's weights: N(0, 0.02), batch norm N(1, 0.02); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


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
