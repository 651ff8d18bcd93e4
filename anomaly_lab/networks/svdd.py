"""Deep SVDD's networks: an encoder that cannot output a constant, its mirrored decoder, and what surrounds them.

Ruff et al. 2018, "Deep one-class classification"; layers as in the authors' code. Neither biases nor learnt scales:
with them the encoder could map every image to the sphere's centre.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BOTTOM = 4  # side of the decoder's first feature map
GREY, COLOUR = (8, 4), (32, 64, 128)  # channels of the authors' networks for MNIST and CIFAR-10, both at 32×32
LATENT = {GREY: 32, COLOUR: 128}


def stage_widths(in_channels: int, patch_size: Sequence[int]) -> list[int]:
    """Channels after each halving; beyond 32×32 the last number is repeated, so that the smallest map stays as it is.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 32.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 32 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: Deep SVDD needs a square, a power of two >= 32")
    widths = GREY if in_channels == 1 else COLOUR
    return [*widths, *[widths[-1]] * ((side // 32).bit_length() - 1)]


def latent_dim(in_channels: int) -> int:
    """Length of the authors' code: 32 for grey images, 128 for colour."""
    return LATENT[GREY if in_channels == 1 else COLOUR]


class SVDDEncoder(nn.Module):
    """image [B, C, S, S] -> code [B, 32], of three channels [B, 128].

    A stage: 5×5 convolution, batch norm, leaky ReLU, 2×2 maximum. 9 192 weights for 32×32 grey, 520 544 for colour.
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        widths = stage_widths(in_channels, patch_size)
        stages = itertools.pairwise([in_channels, *widths])
        self.num_features = latent_dim(in_channels)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, padding=2, bias=False) for a, b in stages)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-4, affine=False) for b in widths)
        bottom = patch_size[0] >> len(widths)
        self.last = nn.Linear(widths[-1] * bottom**2, self.num_features, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        h = image
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.max_pool2d(F.leaky_relu(norm(conv(h))), 2)
        code: Tensor = self.last(h.flatten(1))
        return code


class SVDDDecoder(nn.Module):
    """code [B, F] -> image [B, C, S, S] in (0, 1): the encoder's widths mirrored, from F/16 maps of 4×4."""

    def __init__(self, out_channels: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        inward = stage_widths(out_channels, patch_size)
        widths = [latent_dim(out_channels) // BOTTOM**2, *inward[::-1], out_channels]
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 5, padding=2, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-4, affine=False) for b in widths[1:-1])
        self.doublings = (patch_size[0] // BOTTOM).bit_length() - 1  # before each of the last convolutions

    def forward(self, code: Tensor) -> Tensor:
        h = code.view(len(code), -1, BOTTOM, BOTTOM)
        for i, conv in enumerate(self.convs):
            h = F.leaky_relu(h if i == 0 else self.norms[i - 1](h))
            if len(self.convs) - i <= self.doublings:
                h = F.interpolate(h, scale_factor=2.0)
            h = conv(h)
        return torch.sigmoid(h)


class SVDDAutoencoder(nn.Module):
    """image in [0, 1] -> reconstruction, both [B, C, S, S]; its encoder is where Deep SVDD starts."""

    def __init__(self, in_channels: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.encoder = SVDDEncoder(in_channels, patch_size)
        self.decoder = SVDDDecoder(in_channels, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(image))
        return reconstruction


class ContrastNorm(nn.Module):
    """image [B, C, *S] -> each minus its mean, over its mean absolute value, then brought to the normals' range [0, 1].

    The range is that of all images ever given to `measure`.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def measure(self, image: Tensor) -> None:
        """Widen the range by images [B, C, *S]."""
        contrast = self._contrast(image)
        self.low.copy_(torch.minimum(self.low, contrast.min()))
        self.high.copy_(torch.maximum(self.high, contrast.max()))

    def forward(self, image: Tensor) -> Tensor:
        return (self._contrast(image) - self.low) / (self.high - self.low).clamp_min(1e-6)

    def _contrast(self, image: Tensor) -> Tensor:
        centred = image.float() - image.float().mean((1, 2, 3), keepdim=True)
        return centred / centred.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-6)


class Hypersphere(nn.Module):
    """code [B, F] -> squared distance from the centre, [B]; radius 0 until it is set."""

    centre: Tensor
    count: Tensor
    radius: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("radius", torch.zeros(()))

    def include(self, code: Tensor) -> None:
        """Move the centre to the mean of all codes included so far, these [B, F] as well."""
        self.count += len(code)
        self.centre += (code - self.centre).sum(0) / self.count

    def push(self, least: float = 0.1) -> None:
        """Move coordinates nearer to 0 than `least` out to ±`least`: a weight of 0 would reach them too easily."""
        sign = torch.where(self.centre < 0, -1.0, 1.0)
        self.centre.copy_(torch.where(self.centre.abs() < least, sign * least, self.centre))

    def forward(self, code: Tensor) -> Tensor:
        return (code.float() - self.centre).square().sum(1)
