"""pSp's encoder: an image becomes one style per layer of StyleGAN2, from three resolutions of a feature pyramid.

Richardson, Alaluf, Patashnik, Nitzan, Azar, Shapiro, Cohen-Or 2021, CVPR ("Encoding in Style"). Its backbone IR-SE-50
is a residual network with squeeze and excitation (Deng et al. 2019, CVPR; Hu et al. 2018, CVPR); `resnet18` is a
lighter one with the same resolutions (He et al. 2016, CVPR). ≠ code: images smaller than 256 pixels are not enlarged,
grey ones are not repeated to three channels, and no weights of a face recogniser are loaded.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.stylegan2 import EqualisedLinear

BackboneName = Literal["irse50", "resnet18"]
MAX_SIDE = 256  # of the encoder's input; larger images are reduced
SHRINKAGE = (4, 8, 16)  # of the three tapped maps, relative to the input
COARSE, MIDDLE = 3, 7  # styles 0-2 are from the smallest map, 3-6 from the middle one, the others from the largest


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor in (0, 1) that depends on all channels' means: [B, C, H, W] -> the same shape.

    Args:
        channels: C.

    Examples:
        >>> SqueezeExcitation(32)(torch.zeros(1, 32, 4, 4)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(1, channels // 16)
        self.squeeze = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.excite = nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))


class SqueezedBlock(nn.Module):
    """Block of IR-SE-50: [B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the second convolution.

    Examples:
        >>> SqueezedBlock(16, 32, stride=2)(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            SqueezeExcitation(out_channels),
        )
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != out_channels:
            self.shortcut = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class BasicBlock(nn.Module):
    """Block of ResNet-18: [B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution.

    Examples:
        >>> BasicBlock(4, 8, stride=2)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Pointwise(nn.Conv2d):
    """1×1 convolution of every `stride`-th pixel, without bias: [B, in_channels, H, W] -> [B, out_channels, H', W'].

    With fewer than eight channels it takes those pixels first: torch's own strided 1×1 convolution of so few, channels
    last, writes its weight gradient past the end of a buffer on a processor with AVX2 alone. The gradients are wrong,
    or the process aborts (oneDNN, issue 6035).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: distance of the pixels that are taken.

    Examples:
        >>> Pointwise(4, 8, stride=2)(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= 8:
            return super().forward(x)
        down, across = self.stride
        return F.conv2d(x[..., ::down, ::across], self.weight)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Pointwise(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


BACKBONES: dict[BackboneName, tuple[type[SqueezedBlock | BasicBlock], tuple[int, ...]]] = {
    "irse50": (SqueezedBlock, (3, 4, 14, 3)),  # blocks of the four stages
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
}


class Backbone(nn.Module):
    """Residual network: image [B, C, S, S] -> maps of 2, 4 and 8 times `width` channels and sides S/4, S/8, S/16.

    Each of four stages halves the size in its first block.

    Args:
        name: which blocks, and how many.
        in_channels: 1 or 3.
        width: channels of the first stage.

    Attributes:
        channels: of the three maps.

    Examples:
        >>> [tuple(tap.shape) for tap in Backbone("resnet18", 1, width=4)(torch.zeros(2, 1, 32, 32))]
        [(2, 8, 8, 8), (2, 16, 4, 4), (2, 32, 2, 2)]
    """

    def __init__(self, name: BackboneName, in_channels: int, width: int = 64) -> None:
        super().__init__()
        block, counts = BACKBONES[name]
        first = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(width), nn.PReLU(width))
        self.channels = 2 * width, 4 * width, 8 * width
        self.stages, channels = nn.ModuleList(), width
        for stage, count in enumerate(counts):
            wider = width * 2**stage
            blocks = [block(channels if i == 0 else wider, wider, 2 if i == 0 else 1) for i in range(count)]
            self.stages.append(nn.Sequential(*blocks))
            channels = wider

    def forward(self, image: Tensor) -> list[Tensor]:
        h, taps = self.first(image), []
        for stage in self.stages:
            h = stage(h)
            taps.append(h)
        return taps[1:]


class MapToStyle(nn.Module):
    """pSp's head map2style: map [B, in_channels, side, side] -> style [B, w_dim], by halving it down to one pixel.

    Args:
        in_channels: channels of the map.
        w_dim: length of a style.
        side: of the map, a power of two.

    Examples:
        >>> MapToStyle(4, w_dim=8, side=4)(torch.zeros(2, 4, 4, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(max(1, side.bit_length() - 1)):
            conv = nn.Conv2d(w_dim if i else in_channels, w_dim, 3, 2, padding=1)
            # ≠ code: with torch's own weights, each layer would shrink the differences of images, not the biases.
            nn.init.kaiming_normal_(conv.weight, 0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            layers += [conv, nn.LeakyReLU(0.01)]
        self.convs, self.last = nn.Sequential(*layers), EqualisedLinear(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        style: Tensor = self.last(self.convs(x).flatten(1))
        return style


class StyleEncoder(nn.Module):
    """pSp's encoder: image [B, in_channels, S, S] in [-1, 1] -> styles [B, num_styles, w_dim], w̄ + what it has found.

    Args:
        backbone: its maps; the pyramid has as many channels as the smallest of them (512 in pSp).
        side: height and width of the image, a power of two >= 16.
        num_styles: styles of the generator, at least 8.
        w_dim: length of a style.

    Attributes:
        mean: w̄, the mean style of the generator, [w_dim], from which the styles deviate; 0 until it is set.

    Examples:
        >>> encoder = StyleEncoder(Backbone("resnet18", 1, width=2), side=32, num_styles=8, w_dim=16)
        >>> encoder(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 8, 16])
    """

    mean: Tensor

    def __init__(self, backbone: Backbone, side: int, num_styles: int, w_dim: int) -> None:
        super().__init__()
        self.side, self.backbone = min(side, MAX_SIDE), backbone
        first, second, pyramid = backbone.channels
        self.lateral1, self.lateral2 = nn.Conv2d(first, pyramid, 1), nn.Conv2d(second, pyramid, 1)
        large, middle, small = (self.side // shrinkage for shrinkage in SHRINKAGE)
        sides = [small] * COARSE + [middle] * (MIDDLE - COARSE) + [large] * (num_styles - MIDDLE)
        self.heads = nn.ModuleList(MapToStyle(pyramid, w_dim, side) for side in sides)
        self.register_buffer("mean", torch.zeros(w_dim))

    def forward(self, image: Tensor) -> Tensor:
        return self.mean + self.deviations(image)

    def deviations(self, image: Tensor) -> Tensor:
        """Return the distances of the styles from w̄, [B, num_styles, w_dim]."""
        if image.shape[-1] > self.side:
            image = F.interpolate(image, size=(self.side, self.side), mode="area")
        c1, c2, c3 = self.backbone(image)
        p2 = _enlarged(c3, c2) + self.lateral2(c2)
        p1 = _enlarged(p2, c1) + self.lateral1(c1)
        maps = [c3] * COARSE + [p2] * (MIDDLE - COARSE) + [p1] * (len(self.heads) - MIDDLE)
        return torch.stack([head(x) for head, x in zip(self.heads, maps, strict=True)], 1)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
