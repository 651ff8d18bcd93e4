"""The networks of ALAD: generator, encoder, and discriminators of (image, code), of image pairs and of code pairs.

Zenati et al. 2018, ICDM; sizes of the authors' code for 32×32 images, here for squares of a power-of-two side >= 8.
Encoder, generator and the discriminator of (image, code) have n = log2(side / 4) strided 4×4 convolutions of
width · min(2^i, 8) channels, counted from the image. At width 128, 32×32, three channels and latent_dim 100 the encoder
has 3 449 572 parameters, the generator 3 449 475, the discriminators 11 859 329, 222 785 and 14 977. Spectral norm is
optional and applies to all layers but the last.
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
    """Initialise the weights, and apply spectral norm to all layers but those called `last` if `spectral` is set.

    Examples:
        >>> network = nn.Sequential(nn.Linear(4, 4))
        >>> normalise(network, spectral=True)
        >>> round(torch.linalg.matrix_norm(network.eval()[0].weight, 2).item(), 2)  # the largest singular value
        1.0
    """
    draw_weights(network, 0.01)
    for name, module in list(network.named_modules()):
        if spectral and name != "last" and isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)


def _dense(*sizes: int) -> nn.Sequential:
    """Return linear layers of the given sizes, each followed by a leaky ReLU and dropout."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.LeakyReLU(SLOPE), nn.Dropout(0.2)]
    return nn.Sequential(*layers)


def _down(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1)
    return [conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(SLOPE)]


class ALADEncoder(nn.Module):
    """Encoder: image [B, C, S, S] -> code z [B, latent_dim]; with batch norm.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at half the resolution.
        spectral: whether to apply spectral norm.

    Examples:
        >>> ALADEncoder(1, latent_dim=8, patch_size=(32, 32), width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 8])
    """

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
    """Generator: z [B, latent_dim] -> image [B, out_channels, S, S] in [-1, 1]; with batch norm, without spectral norm.

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> ALADGenerator(latent_dim=8, out_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

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
    """D_xz: image [B, C, S, S] and code z [B, latent_dim] -> logit [B] of "a real image and its encoding".

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at half the resolution.
        spectral: whether to apply spectral norm.

    Examples:
        >>> discriminator = PairDiscriminator(1, latent_dim=8, patch_size=(32, 32), width=4)
        >>> discriminator(torch.zeros(2, 1, 32, 32), torch.zeros(2, 8)).shape
        torch.Size([2])
    """

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
    """D_xx: two images [B, C, S, S] -> logit [B] of "the second equals the first"; no normalisation but spectral norm.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the images.
        width: channels of the second layer; the first has half as many.
        spectral: whether to apply spectral norm.
        pairing: how the images are concatenated: along `channels`, or along `height` as in the authors' code.

    Examples:
        >>> discriminator = ImageDiscriminator(1, patch_size=(32, 32), width=4)
        >>> x = torch.zeros(2, 1, 32, 32)
        >>> discriminator(x, x).shape
        torch.Size([2])
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
        """Return the input of the last layer for two images, [B, F]."""
        h: Tensor = self.layers(torch.cat([x, x_hat], self.axis))
        return h

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(x, x_hat))
        return logit.squeeze(1)


class CodeDiscriminator(nn.Module):
    """D_zz: two codes [B, latent_dim] -> logit [B] of "the second equals the first".

    Args:
        latent_dim: length of a code.
        width: twice the size of the first layer.
        spectral: whether to apply spectral norm.

    Examples:
        >>> CodeDiscriminator(latent_dim=8, width=8)(torch.zeros(2, 8), torch.zeros(2, 8)).shape
        torch.Size([2])
    """

    def __init__(self, latent_dim: int, width: int = 128, spectral: bool = True) -> None:
        super().__init__()
        self.layers = _dense(2 * latent_dim, width // 2, width // 4)
        self.last = nn.Linear(width // 4, 1)
        normalise(self, spectral)

    def forward(self, z: Tensor, z_hat: Tensor) -> Tensor:
        logit: Tensor = self.last(self.layers(torch.cat([z, z_hat], 1)))
        return logit.squeeze(1)


class ALADDiscriminators(nn.Module):
    """The three discriminators, trained together with one optimiser; they share no weights.

    Args:
        pairs: D_xz, of an image and a code.
        images: D_xx, of two images.
        codes: D_zz, of two codes.
    """

    def __init__(self, pairs: PairDiscriminator, images: ImageDiscriminator, codes: CodeDiscriminator) -> None:
        super().__init__()
        self.pairs, self.images, self.codes = pairs, images, codes
