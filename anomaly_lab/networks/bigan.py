"""The networks of EGBAD, a BiGAN: generator, encoder and a discriminator of pairs (image, code).

Zenati et al. 2018, arXiv 1802.06222; sizes of the authors' code for MNIST, for square pictures whose side is a multiple
of 4. With one channel, latent_dim 200 and width 64 there are 6 781 505, 1 347 656 and 3 907 329 weights at 28×28. From
64×64 on they say nothing; there DCGAN's stages stand before the same head: n = log2(side / 4) strided 4×4 convolutions.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.dcgan import DCGANGenerator
from anomaly_lab.networks.stages import BOTTOM, stage_widths

LARGE = 64  # side from which DCGAN's stages take over
SLOPE = 0.1


def draw_weights(network: nn.Module, deviation: float) -> None:
    """Weights of convolutions and linear layers from N(0, deviation²), biases 0; batch norm begins as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def quarter(patch_size: Sequence[int]) -> int:
    """A quarter of the picture's side: that of the small networks' coarsest map.

    Raises:
        ValueError: `patch_size` is not a square whose side is a multiple of 4.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side % 4:
        raise ValueError(f"patch_size {tuple(patch_size)}: BiGAN's networks need a square, its side a multiple of 4")
    return side // 4


class BiGANEncoder(nn.Module):
    """image [B, C, S, S] -> code z [B, latent_dim]; batch norm."""

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        side, kernel, layers = quarter(patch_size), 3, list[nn.Module]()
        if patch_size[0] < LARGE:
            widths = [width // 2, width, 2 * width]
            layers.append(nn.Conv2d(in_channels, width // 2, 3, padding=1))  # nothing follows it in the code either
        else:
            widths = [in_channels, *stage_widths(patch_size, width)]
            side, kernel = BOTTOM, 4
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, kernel, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.last = nn.Linear(widths[-1] * side**2, latent_dim)
        draw_weights(self, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        z: Tensor = self.last(self.layers(image))
        return z


class SmallGenerator(nn.Module):
    """z [B, latent_dim] -> fake [B, out_channels, S, S] in [-1, 1]; batch norm, two dense layers before the map."""

    def __init__(self, latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        side = quarter(patch_size)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([latent_dim, 16 * width, 2 * width * side**2]):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
        layers.append(nn.Unflatten(1, (-1, side, side)))
        layers += [nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.ConvTranspose2d(width, out_channels, 4, 2, 1)
        draw_weights(self, 0.02)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(z)))


def bigan_generator(latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 64) -> nn.Module:
    """The generator for that size: z [B, latent_dim] -> fake [B, out_channels, S, S] in [-1, 1]."""
    made = SmallGenerator if patch_size[0] < LARGE else DCGANGenerator
    return made(latent_dim, out_channels, patch_size, width)


class BiGANDiscriminator(nn.Module):
    """Image [B, C, S, S] and code z [B, latent_dim] -> logit [B] of "the image is real"; batch norm, dropout."""

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        small = patch_size[0] < LARGE
        widths = [width, width] if small else stage_widths(patch_size, width)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE), nn.Dropout(0.5)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(SLOPE), nn.Dropout(0.5)]
        self.image_layers = nn.Sequential(*layers, nn.Flatten())
        self.code_layers = nn.Sequential(nn.Linear(latent_dim, 8 * width), nn.LeakyReLU(SLOPE), nn.Dropout(0.5))
        size = widths[-1] * (quarter(patch_size) if small else BOTTOM) ** 2 + 8 * width
        self.joint_layers = nn.Sequential(nn.Linear(size, 16 * width), nn.LeakyReLU(SLOPE), nn.Dropout(0.5))
        self.last = nn.Linear(16 * width, 1)
        draw_weights(self, 0.02)

    def features(self, image: Tensor, z: Tensor) -> Tensor:
        """What the last layer sees of a pair, [B, F]."""
        h: Tensor = self.joint_layers(torch.cat([self.image_layers(image), self.code_layers(z)], 1))
        return h

    def forward(self, image: Tensor, z: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(image, z))
        return logit.squeeze(1)
