"""The networks of EGBAD, a BiGAN: generator, encoder, and a discriminator of pairs (image, code).

Zenati et al. 2018, arXiv 1802.06222. Below 64×64: sizes of the authors' code for MNIST, for square images whose side is
a multiple of 4; with one channel, latent_dim 200 and width 64, generator, encoder and discriminator have 6 781 505,
1 347 656 and 3 907 329 parameters at 28×28. The authors give no network for larger images; from 64×64 on, DCGAN's
n = log2(side / 4) strided 4×4 convolutions precede the same head.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.dcgan import DCGANGenerator
from anomaly_lab.networks.stages import BOTTOM, stage_widths

DCGAN_MIN_SIDE = 64  # smallest side for which DCGAN's stages are used
SLOPE = 0.1


def draw_weights(network: nn.Module, deviation: float) -> None:
    """Initialise the weights of convolutions and linear layers from N(0, deviation²), biases with 0.

    Batch norm keeps torch's default, the identity.

    Examples:
        >>> layer = nn.Sequential(nn.Linear(2, 1))
        >>> draw_weights(layer, 0.0)
        >>> layer(torch.ones(1, 2)).item()
        0.0
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def quarter(patch_size: Sequence[int]) -> int:
    """Return a quarter of the side of the image: the side of the small networks' coarsest map.

    Raises:
        ValueError: `patch_size` is not a square whose side is a multiple of 4 and at least 8.

    Examples:
        >>> quarter((28, 28))
        7
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side % 4:
        raise ValueError(
            f"patch_size {tuple(patch_size)}: BiGAN's networks need a square whose side is a multiple of 4"
        )
    return side // 4


class BiGANEncoder(nn.Module):
    """Encoder: image [B, C, S, S] -> code z [B, latent_dim]; with batch norm.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> BiGANEncoder(1, latent_dim=8, patch_size=(28, 28), width=4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        side, kernel, layers = quarter(patch_size), 3, list[nn.Module]()
        if patch_size[0] < DCGAN_MIN_SIDE:
            widths = [width // 2, width, 2 * width]
            layers.append(nn.Conv2d(in_channels, width // 2, 3, padding=1))  # no norm or activation, as in the code
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
    """Generator below 64×64: z [B, latent_dim] -> image [B, out_channels, S, S] in [-1, 1].

    It has two dense layers and batch norm.

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> SmallGenerator(latent_dim=8, out_channels=1, patch_size=(28, 28), width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 28, 28])
    """

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
    """Return the generator for this image size: z [B, latent_dim] -> image [B, out_channels, S, S] in [-1, 1].

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> [type(bigan_generator(8, 1, (side, side), width=4)).__name__ for side in (32, 64)]
        ['SmallGenerator', 'DCGANGenerator']
    """
    network_class = SmallGenerator if patch_size[0] < DCGAN_MIN_SIDE else DCGANGenerator
    return network_class(latent_dim, out_channels, patch_size, width)


class BiGANDiscriminator(nn.Module):
    """Discriminator: image [B, C, S, S] and code z [B, latent_dim] -> logit [B] of "the image is real".

    It has batch norm and dropout.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> discriminator = BiGANDiscriminator(1, latent_dim=8, patch_size=(28, 28), width=4)
        >>> discriminator(torch.zeros(2, 1, 28, 28), torch.zeros(2, 8)).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        small = patch_size[0] < DCGAN_MIN_SIDE
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
        """Return the input of the last layer for pairs of image and code, [B, F]."""
        h: Tensor = self.joint_layers(torch.cat([self.image_layers(image), self.code_layers(z)], 1))
        return h

    def forward(self, image: Tensor, z: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(image, z))
        return logit.squeeze(1)
