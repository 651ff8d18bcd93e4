"""Deep SVDD's networks: encoder, mirrored decoder, input normalisation and hypersphere.

Ruff et al. 2018, "Deep one-class classification"; layers as in the authors' code. There are no biases and batch norm
has no learnt scale: with them, the encoder could map every image to the centre of the sphere.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BOTTOM = 4  # side of the decoder's first feature map
GREY, COLOUR = (8, 4), (32, 64, 128)  # channels of the authors' networks for MNIST and CIFAR-10, both at 32×32
LATENT_DIMS = {GREY: 32, COLOUR: 128}


def stage_widths(in_channels: int, patch_size: Sequence[int]) -> list[int]:
    """Return the channels of the stages; beyond 32×32 the last is repeated, so that the smallest map keeps its size.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 32.

    Examples:
        >>> stage_widths(1, (32, 32)), stage_widths(3, (64, 64))
        ([8, 4], [32, 64, 128, 128])
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 32 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: Deep SVDD needs a square whose side is a power of two >= 32")
    widths = GREY if in_channels == 1 else COLOUR
    return [*widths, *[widths[-1]] * ((side // 32).bit_length() - 1)]


def latent_dim(in_channels: int) -> int:
    """Return the length of the code in the authors' networks: 32 for grey images, 128 for colour.

    Examples:
        >>> latent_dim(in_channels=1), latent_dim(in_channels=3)
        (32, 128)
    """
    return LATENT_DIMS[GREY if in_channels == 1 else COLOUR]


class SVDDEncoder(nn.Module):
    """Encoder: image [B, C, S, S] -> code [B, 32] for grey images, [B, 128] for colour.

    A stage consists of 5×5 convolution, batch norm, leaky ReLU and 2×2 max-pooling. At 32×32 there are 9 192 parameters
    for grey images, 520 544 for colour.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.

    Examples:
        >>> encoder = SVDDEncoder(in_channels=1, patch_size=(32, 32))
        >>> encoder(torch.zeros(2, 1, 32, 32)).shape, sum(weight.numel() for weight in encoder.parameters())
        (torch.Size([2, 32]), 9192)
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
    """Decoder: code [B, F] -> image [B, C, S, S] in (0, 1); it mirrors the encoder, starting from F/16 maps of 4×4.

    Args:
        out_channels: 1 or 3.
        patch_size: height and width of the image.

    Examples:
        >>> SVDDDecoder(out_channels=1, patch_size=(32, 32))(torch.zeros(2, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, out_channels: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        inward = stage_widths(out_channels, patch_size)
        widths = [latent_dim(out_channels) // BOTTOM**2, *inward[::-1], out_channels]
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 5, padding=2, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-4, affine=False) for b in widths[1:-1])
        self.doublings = (patch_size[0] // BOTTOM).bit_length() - 1  # upsampling steps, before the last convolutions

    def forward(self, code: Tensor) -> Tensor:
        h = code.view(len(code), -1, BOTTOM, BOTTOM)
        for i, conv in enumerate(self.convs):
            h = F.leaky_relu(h if i == 0 else self.norms[i - 1](h))
            if len(self.convs) - i <= self.doublings:
                h = F.interpolate(h, scale_factor=2.0)
            h = conv(h)
        return torch.sigmoid(h)


class SVDDAutoencoder(nn.Module):
    """Autoencoder: image in [0, 1] -> reconstruction, both [B, C, S, S]; Deep SVDD starts from its encoder.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.

    Examples:
        >>> SVDDAutoencoder(in_channels=1, patch_size=(32, 32))(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, in_channels: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.encoder = SVDDEncoder(in_channels, patch_size)
        self.decoder = SVDDDecoder(in_channels, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(image))
        return reconstruction


class ContrastNorm(nn.Module):
    """Global contrast normalisation (L1), then scaling to [0, 1] by the range over the training normals.

    image [B, C, *S] -> (image - mean) / mean absolute deviation of each image, mapped from [low, high] to [0, 1]; the
    range is that of all images given to `measure`.

    Examples:
        >>> norm = ContrastNorm()
        >>> norm.measure(torch.tensor([[[[0.0, 2.0]]]]))  # contrast -1 and 1
        >>> norm(torch.tensor([[[[10.0, 30.0]]]])).flatten().tolist()
        [0.0, 1.0]
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def measure(self, image: Tensor) -> None:
        """Extend the range to images [B, C, *S]."""
        contrast = self._contrast(image)
        self.low.copy_(torch.minimum(self.low, contrast.min()))
        self.high.copy_(torch.maximum(self.high, contrast.max()))

    def forward(self, image: Tensor) -> Tensor:
        return (self._contrast(image) - self.low) / (self.high - self.low).clamp_min(1e-6)

    def _contrast(self, image: Tensor) -> Tensor:
        centred = image.float() - image.float().mean((1, 2, 3), keepdim=True)
        return centred / centred.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-6)


class Hypersphere(nn.Module):
    """Squared distance of a code [B, F] from the centre of the sphere, [B].

    Args:
        num_features: F.

    Attributes:
        centre: [F].
        count: number of codes in the mean.
        radius: R; 0 until it is set.

    Examples:
        >>> sphere = Hypersphere(num_features=2)
        >>> sphere.include(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        >>> sphere(torch.tensor([[1.0, 3.0]])).item()  # centre (1, 0)
        9.0
    """

    centre: Tensor
    count: Tensor
    radius: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("radius", torch.zeros(()))

    def include(self, code: Tensor) -> None:
        """Update the centre, the mean of all codes given so far, with codes [B, F]."""
        self.count += len(code)
        self.centre += (code - self.centre).sum(0) / self.count

    def push(self, least: float = 0.1) -> None:
        """Move centre coordinates within `least` of 0 to ±`least`, because weights of 0 could reach a value near 0."""
        sign = torch.where(self.centre < 0, -1.0, 1.0)
        self.centre.copy_(torch.where(self.centre.abs() < least, sign * least, self.centre))

    def forward(self, code: Tensor) -> Tensor:
        return (code.float() - self.centre).square().sum(1)
