"""A plain convolutional auto-encoder with a short code, for square pictures of a power-of-two side >= 8.

Sizes as in MedIAnomaly's matched pair of AE and VAE (Cai et al. 2024): n = log2(side / 4) strided 4×4 convolutions
without biases; counted from the picture, stage i has width · min(2^i, 4) channels, and one dense layer as wide as
the 4×4 map stands on either side of the code. At width 16, 64×64, one channel and a code of 16 there are 1 175 152
weights in the encoder and 1 176 032 in the decoder.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, stage_widths


def widths_of(patch_size: Sequence[int], width: int) -> list[int]:
    """Channels of the stages, from the picture inward: 64×64, width 16 -> [16, 32, 64, 64].

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.
    """
    return [min(channels, 4 * width) for channels in stage_widths(patch_size, width)]


class ConvolutionalEncoder(nn.Module):
    """image [B, C, S, S] -> numbers [B, outputs]; batch norm."""

    def __init__(self, in_channels: int, outputs: int, patch_size: Sequence[int], width: int = 16) -> None:
        super().__init__()
        widths = widths_of(patch_size, width)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([in_channels, *widths]):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        size = widths[-1] * BOTTOM**2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(size, size), nn.BatchNorm1d(size), nn.ReLU())
        self.last = nn.Linear(size, outputs)

    def forward(self, image: Tensor) -> Tensor:
        code: Tensor = self.last(self.layers(image))
        return code


class ConvolutionalDecoder(nn.Module):
    """Code z [B, latent_dim] -> reconstruction [B, C, S, S], unbounded; batch norm."""

    def __init__(self, latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 16) -> None:
        super().__init__()
        widths = widths_of(patch_size, width)[::-1]
        size = widths[0] * BOTTOM**2
        layers: list[nn.Module] = [nn.Linear(latent_dim, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, size)]
        layers.append(nn.Unflatten(1, (-1, BOTTOM, BOTTOM)))
        for a, b in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.ConvTranspose2d(widths[-1], out_channels, 4, 2, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.last(self.layers(z))
        return image


class Autoencoder(nn.Module):
    """Encoder and decoder that are trained as one; a variational one's encoder says mean and log variance of z."""

    def __init__(
        self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 16, variational: bool = False
    ) -> None:
        super().__init__()
        self.variational = variational
        self.encoder = ConvolutionalEncoder(in_channels, latent_dim * (2 if variational else 1), patch_size, width)
        self.decoder = ConvolutionalDecoder(latent_dim, in_channels, patch_size, width)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction [B, C, S, S] of images like it, and mean and log variance [B, latent_dim] of z.

        Of a variational one z is drawn when training, and is its mean when judging: a score is no matter of chance.
        Of a plain one z is the mean and the variance 1.
        """
        code = self.encoder(image)
        if not self.variational:
            return self.decoder(code), code, torch.zeros_like(code)
        mean, log_variance = code.chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return self.decoder(z), mean, log_variance
