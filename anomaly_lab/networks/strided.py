"""4×4 convolutions of stride 2 that halve or double a picture, as matrix products where the maps are small.

A processor's convolution visits the whole kernel once an image. From 256 channels to 512 on a 4×4 map that is 8 MB for
16 pixels: a product that first lays the windows of all images side by side takes a quarter of the time in bfloat16,
under half in float32. Of large maps, and on a GPU, torch's own convolution is the faster one.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 4  # side of the smaller map up to which the product is the faster one


class HalvingConv2d(nn.Conv2d):
    """[B, in_channels, 2 S, 2 T] -> [B, out_channels, S, T]: `nn.Conv2d` of kernel 4, stride 2, padding 1, no bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 2 or width % 2 or not _pays(x, height // 2, width // 2):
            return super().forward(x)
        windows: Tensor = _Windows.apply(x)
        return F.linear(windows, self.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


class DoublingConv2d(nn.ConvTranspose2d):
    """[B, in_channels, S, T] -> [B, out_channels, 2 S, 2 T]: the same of `nn.ConvTranspose2d`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _pays(x, *x.shape[2:]):
            return super().forward(x, output_size)
        windows = F.linear(x.permute(0, 2, 3, 1), self.weight.permute(2, 3, 1, 0).flatten(0, 2))
        y: Tensor = _Picture.apply(windows)
        return y


def _pays(x: Tensor, height: int, width: int) -> bool:
    return x.device.type == "cpu" and height * width <= SMALL**2


class _Windows(torch.autograd.Function):
    """[B, C, 2 S, 2 T] -> [B, S, T, 4 · 4 · C]: what a kernel sees at each of its places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        return padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3).flatten(3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        towards: Tensor = _Picture.apply(gradient)
        return towards


class _Picture(torch.autograd.Function):
    """[B, S, T, 4 · 4 · C] -> [B, C, 2 S, 2 T]: each pixel the sum of its copies; the transpose of `_Windows`."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor) -> Tensor:
        batch, height, width, size = windows.shape
        halves = windows.view(batch, height, width, 2, 2, 2, 2, size // 16)  # row and column: which pair, which of it
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
