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
    """Return a layer that normalises each sample over C, H, W, with scale and shift per channel; it mixes no samples.

    Examples:
        >>> import torch
        >>> layer_norm(2)(torch.tensor([[[[1.0]], [[3.0]]]])).flatten().round().tolist()
        [-1.0, 1.0]
    """
    return nn.GroupNorm(1, channels)


class UpBlock(nn.Module):
    """Block [B, in_channels, H, W] -> [B, out_channels, 2H, 2W]; nearest-neighbour upsampling before the convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        norm: makes a normalisation layer for a number of channels.

    Examples:
        >>> import torch
        >>> UpBlock(4, 2)(torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2.0))
        h = self.conv2(F.relu(self.norm2(h)))
        # A 1×1 convolution and nearest-neighbour upsampling commute; convolving first costs a quarter.
        out: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2.0)
        return out


class DownBlock(nn.Module):
    """Block [B, in_channels, H, W] -> [B, out_channels, H/2, W/2]; 2×2 mean pooling after the convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        norm: makes a normalisation layer for a number of channels.

    Examples:
        >>> import torch
        >>> DownBlock(2, 4)(torch.zeros(1, 2, 8, 8)).shape
        torch.Size([1, 4, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = layer_norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(in_channels)
        self.conv1 = Conv2d(in_channels, in_channels, 3, bias=False)
        self.conv2 = Conv2d(in_channels, out_channels, 3)
        self.shortcut = Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        """Apply the block; `twice` as in `Conv2d.forward`."""
        h = self.conv1(F.relu(self.norm1(x)), twice)
        h = self.conv2(F.relu(self.norm2(h)), twice)
        out: Tensor = F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2), twice)
        return out


def initialise(network: nn.Module) -> None:
    """Initialise the weights as the authors' WGAN-GP code does: uniform, scaled by fan in and fan out; biases 0.

    The standard deviation is √(4/(fan_in+fan_out)) for convolutions followed by a ReLU (the 3×3 ones of the blocks) and
    √(2/(fan_in+fan_out)) for the first and last convolution and the 1×1 shortcuts. Linear layers are Glorot-uniform.

    Examples:
        >>> block = DownBlock(1, 1)
        >>> initialise(block)
        >>> bool(block.conv1.weight.abs().max() <= (3 * 4 / (9 + 9)) ** 0.5), block.conv2.bias.item()
        (True, 0.0)
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
