"""A plain convolutional autoencoder with a short code, for square images of a power-of-two side >= 8.

Sizes of MedIAnomaly's matched pair of AE and VAE (Cai et al. 2024): n = log2(side / 4) strided 4×4 convolutions
without biases; stage i, counted from the image, has width · min(2^i, 4) channels. On either side of the code there is a
dense layer as wide as the 4×4 map. At width 16, 64×64, one channel and a code of 16 the encoder has 1 175 152
parameters, the decoder 1 176 032.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, stage_widths


def widths_of(patch_size: Sequence[int], width: int) -> list[int]:
    """Return the channels of the stages, from the image inward.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.

    Examples:
        >>> widths_of((64, 64), 16)
        [16, 32, 64, 64]
    """
    return [min(channels, 4 * width) for channels in stage_widths(patch_size, width)]


class ConvolutionalEncoder(nn.Module):
    """Encoder: image [B, C, S, S] -> [B, outputs]; with batch norm.

    Args:
        in_channels: 1 or 3.
        outputs: length of the output.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> ConvolutionalEncoder(1, outputs=8, patch_size=(32, 32), width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 8])
    """

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
    """Decoder: code z [B, latent_dim] -> reconstruction [B, out_channels, S, S], unbounded; with batch norm.

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> ConvolutionalDecoder(latent_dim=8, out_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

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
    """Encoder and decoder trained as one network; a variational encoder outputs mean and log variance of z.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at half the resolution.
        variational: whether it is a VAE.

    Examples:
        >>> network = Autoencoder(1, latent_dim=8, patch_size=(32, 32), width=4).eval()
        >>> reconstruction, code, log_variance = network(torch.zeros(2, 1, 32, 32))
        >>> reconstruction.shape, code.shape, bool(log_variance.any())
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 8]), False)
    """

    def __init__(
        self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 16, variational: bool = False
    ) -> None:
        super().__init__()
        self.variational = variational
        self.encoder = ConvolutionalEncoder(in_channels, latent_dim * (2 if variational else 1), patch_size, width)
        self.decoder = ConvolutionalDecoder(latent_dim, in_channels, patch_size, width)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction [B, C, S, S], and mean and log variance [B, latent_dim] of z.

        A VAE samples z in training mode and uses its mean in eval mode, so that scores are deterministic. A plain
        autoencoder returns its code as the mean and a log variance of 0.
        """
        code = self.encoder(image)
        if not self.variational:
            return self.decoder(code), code, torch.zeros_like(code)
        mean, log_variance = code.chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return self.decoder(z), mean, log_variance
