"""4×4 convolutions of stride 2 that halve or double an image, computed as matrix products where the maps are small.

A CPU convolution reads the whole kernel once per image. From 256 to 512 channels on a 4×4 map that is 8 MB for 16
pixels. A matrix product over the windows of all images takes a quarter of the time in bfloat16, and less than half in
float32. On large maps and on a GPU, torch's own convolution is faster.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_SIDE = 4  # of the smaller map: up to here the matrix product is faster


class HalvingConv2d(nn.Conv2d):
    """`nn.Conv2d` of kernel 4, stride 2, padding 1, no bias: [B, in_channels, 2 S, 2 T] -> [B, out_channels, S, T].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.

    Examples:
        >>> conv = HalvingConv2d(2, 3)
        >>> x = torch.rand(1, 2, 8, 8)
        >>> torch.allclose(conv(x), F.conv2d(x, conv.weight, stride=2, padding=1), atol=1e-6)
        True
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 2 or width % 2 or not _pays(x, height // 2, width // 2):
            return super().forward(x)
        windows: Tensor = _Windows.apply(x)
        return F.linear(windows, self.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


class DoublingConv2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of kernel 4, stride 2, padding 1, no bias: [B, C, S, T] -> [B, out_channels, 2 S, 2 T].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.

    Examples:
        >>> conv = DoublingConv2d(2, 3)
        >>> x = torch.rand(1, 2, 4, 4)
        >>> torch.allclose(conv(x), F.conv_transpose2d(x, conv.weight, stride=2, padding=1), atol=1e-6)
        True
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _pays(x, *x.shape[2:]):
            return super().forward(x, output_size)
        windows = F.linear(x.permute(0, 2, 3, 1), self.weight.permute(2, 3, 1, 0).flatten(0, 2))
        y: Tensor = _Picture.apply(windows)
        return y


def _pays(x: Tensor, height: int, width: int) -> bool:
    return x.device.type == "cpu" and height * width <= MAX_SIDE**2


class _Windows(torch.autograd.Function):
    """[B, C, 2 S, 2 T] -> [B, S, T, 4 · 4 · C]: the input of the kernel at each position."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        return padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3).flatten(3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        towards: Tensor = _Picture.apply(gradient)
        return towards


class _Picture(torch.autograd.Function):
    """[B, S, T, 4 · 4 · C] -> [B, C, 2 S, 2 T]: each pixel is the sum of its copies; the transpose of `_Windows`."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor) -> Tensor:
        batch, height, width, size = windows.shape
        halves = windows.view(
            batch, height, width, 2, 2, 2, 2, size // 16
        )  # row and column of the kernel, as pair and position
        padded = windows.new_zeros(
            batch, height + 1, 2, width + 1, 2, size // 16, dtype=torch.promote_types(windows.dtype, torch.float32)
        )
        for i in range(2):
            for j in range(2):
                padded[:, i : i + height, :, j : j + width] += halves[:, :, :, i, :, j].permute(0, 1, 3, 2, 4, 5)
        picture = padded.view(batch, 2 * height + 2, 2 * width + 2, -1)[:, 1:-1, 1:-1].to(windows.dtype)
        return picture.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        towards: Tensor = _Windows.apply(gradient)
        return towards
