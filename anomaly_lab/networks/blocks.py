"""Pre-activation residual blocks that double or halve the resolution (Gulrajani et al. 2017; f-AnoGAN's networks).

norm → ReLU → 3×3 convolution (no bias) → norm → ReLU → 3×3 convolution, added to a 1×1 convolution of the input.
"""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.convolution import Conv2d

Norm = Callable[[int], nn.Module]


def layer_norm(channels: int) -> nn.Module:
    """Normalises each sample over C, H, W, with a scale and a shift per channel: mixes no samples."""
    return nn.GroupNorm(1, channels)


class UpBlock(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, 2H, 2W]; nearest-neighbour upsampling before the convolutions."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2.0))
        h = self.conv2(F.relu(self.norm2(h)))
        # A 1×1 convolution and nearest-neighbour upsampling commute; in this order it costs a quarter.
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2.0)
        return out


class DownBlock(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H/2, W/2]; 2×2 mean pooling after the convolutions."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = layer_norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(in_channels)
        self.conv1 = Conv2d(in_channels, in_channels, 3, bias=False)
        self.conv2 = Conv2d(in_channels, out_channels, 3)
        self.shortcut = Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        """`twice`: as `Conv2d`'s."""
        h = self.conv1(F.relu(self.norm1(x)), twice)
        h = self.conv2(F.relu(self.norm2(h)), twice)
        out: Tensor = F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2), twice)
        return out


def initialise(network: nn.Module) -> None:
    """Weights as in the authors' WGAN-GP code: uniform, by fan in and fan out; biases 0.

    Convolutions followed by a ReLU (the 3×3 ones of the blocks) have standard deviation √(4/(fan_in+fan_out)), the
    first and last convolution and the 1×1 shortcuts √(2/(fan_in+fan_out)), linear layers Glorot's.
    """
    residual = {
        id(conv)
        for block in network.modules()
        if isinstance(block, UpBlock | DownBlock)
        for conv in (block.conv1, block.conv2)
    }
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2) if id(module) in residual else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
