"""The networks of ALAD: generator, encoder, and discriminators of (image, code), of two images and of two codes.

Zenati et al. 2018, ICDM; sizes of the authors' code for 32×32 pictures, here for squares of a power-of-two side >= 8.
Encoder, generator and the discriminator of pairs have n = log2(side / 4) strided 4×4 convolutions of
width · min(2^i, 8) channels, counted from the picture. At width 128, 32×32, three channels and latent_dim 100 there are
3 449 572 weights in the encoder and 3 449 475 in the generator, 11 859 329, 222 785 and 14 977 in the discriminators.
Layers that are not the last are spectrally normalised on demand.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from anomaly_lab.networks.bigan import draw_weights
from anomaly_lab.networks.stages import BOTTOM, stage_widths

SLOPE = 0.2
Pairing = Literal["channels", "height"]


def normalise(network: nn.Module, spectral: bool) -> None:
    """Draw the weights; bound the largest singular value of all layers but those called `last`, if `spectral`."""
    draw_weights(network, 0.01)
    for name, module in list(network.named_modules()):
        if spectral and name != "last" and isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)


def _dense(*sizes: int) -> nn.Sequential:
    """Linear layers of so many inputs and outputs, each followed by a rectifier and dropout."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.LeakyReLU(SLOPE), nn.Dropout(0.2)]
    return nn.Sequential(*layers)


def _down(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1)
    return [conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(SLOPE)]


class ALADEncoder(nn.Module):
    """image [B, C, S, S] -> code z [B, latent_dim]; batch norm."""

    def __init__(
        self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 128, spectral: bool = True
    ) -> None:
        super().__init__()
        widths = [in_channels, *stage_widths(patch_size, width)]
        self.layers = nn.Sequential(*(layer for a, b in itertools.pairwise(widths) for layer in _down(a, b)))
        self.last = nn.Conv2d(widths[-1], latent_dim, BOTTOM)
        normalise(self, spectral)

    def forward(self, image: Tensor) -> Tensor:
        z: Tensor = self.last(self.layers(image))
        return z.flatten(1)


class ALADGenerator(nn.Module):
    """z [B, latent_dim] -> fake [B, out_channels, S, S] in [-1, 1]; batch norm, never spectral norm."""

    def __init__(self, latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 128) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, widths[0], BOTTOM)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.last = nn.ConvTranspose2d(widths[-1], out_channels, 4, 2, 1)
        draw_weights(self, 0.01)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(z[:, :, None, None])))


class PairDiscriminator(nn.Module):
    """D_xz: image [B, C, S, S] and code z [B, latent_dim] -> logit [B] of "the image is real, z the encoder's"."""

    def __init__(
        self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 128, spectral: bool = True
    ) -> None:
        super().__init__()
        widths = stage_widths(patch_size, width)
        first: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        layers = (layer for a, b in itertools.pairwise(widths) for layer in _down(a, b))
        self.image_layers = nn.Sequential(*first, *layers, nn.Flatten())
        self.code_layers = _dense(latent_dim, 4 * width, 4 * width)
        self.joint_layers = _dense(widths[-1] * BOTTOM**2 + 4 * width, 8 * width)
        self.last = nn.Linear(8 * width, 1)
        normalise(self, spectral)

    def forward(self, image: Tensor, z: Tensor) -> Tensor:
        h = torch.cat([self.image_layers(image), self.code_layers(z)], 1)
        logit: Tensor = self.last(self.joint_layers(h))
        return logit.squeeze(1)


class ImageDiscriminator(nn.Module):
    """D_xx: two images [B, C, S, S] -> logit [B] of "the second is the first"; no norm but the spectral one.

    `pairing` says how the two are laid together: as channels, or one below the other as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        patch_size: Sequence[int],
        width: int = 128,
        spectral: bool = True,
        pairing: Pairing = "channels",
    ) -> None:
        super().__init__()
        stacked = pairing == "height"
        self.axis = 2 if stacked else 1
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([in_channels if stacked else 2 * in_channels, width // 2, width]):
            layers += [nn.Conv2d(a, b, 5, 2, 2), nn.LeakyReLU(SLOPE), nn.Dropout(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        size = width * (patch_size[0] // 4) * (patch_size[1] // 4)
        self.last = nn.Linear(2 * size if stacked else size, 1)
        normalise(self, spectral)

    def features(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """What the last layer sees of two images, [B, F]."""
        h: Tensor = self.layers(torch.cat([x, x_hat], self.axis))
        return h

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(x, x_hat))
        return logit.squeeze(1)


class CodeDiscriminator(nn.Module):
    """D_zz: two codes [B, latent_dim] -> logit [B] of "the second is the first"."""

    def __init__(self, latent_dim: int, width: int = 128, spectral: bool = True) -> None:
        super().__init__()
        self.layers = _dense(2 * latent_dim, width // 2, width // 4)
        self.last = nn.Linear(width // 4, 1)
        normalise(self, spectral)

    def forward(self, z: Tensor, z_hat: Tensor) -> Tensor:
        logit: Tensor = self.last(self.layers(torch.cat([z, z_hat], 1)))
        return logit.squeeze(1)


class ALADDiscriminators(nn.Module):
    """The three that are trained side by side: `pairs`, `images` and `codes`, no weight in common."""

    def __init__(self, pairs: PairDiscriminator, images: ImageDiscriminator, codes: CodeDiscriminator) -> None:
        super().__init__()
        self.pairs, self.images, self.codes = pairs, images, codes
