"""Strided 5×5 generator, critic and encoder for square pictures of any power-of-two side >= 8 (adGAN's at 32×32).

Shen, Chen, Wang, Zhang 2020, IEEE Access 8, figure 1. There are n = log2(side / 4) strided layers; counted from the
picture, layer i gives width · min(2^i, 8) channels. A 4×4 layer ends the critic, so that its last unit sees the whole
picture. At width 64, latent_dim 128 and 32×32 there are 1 555 073 and 3 124 225 weights for one channel, 1 558 275 and
3 127 425 for three. The paper leaves open the slope .2, the batch norm after the linear layer and the first weights.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

BOTTOM = 4  # side of the smallest feature map
SLOPE = 0.2


def layer_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Channels of the strided layers, from the picture inward, and of the 4×4 layer that follows them.

    32×32, width 64 -> [64, 128, 256, 512]; 64×64 -> [64, 128, 256, 512, 512].

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: the strided networks need a square, a power of two >= 8")
    layers = (side // BOTTOM).bit_length() - 1
    return [width * min(2**i, 8) for i in range(layers + 1)]


class AdGANGenerator(nn.Module):
    """z [B, latent_dim] -> fake [B, out_channels, S, S] in [-1, 1]; batch norm."""

    def __init__(self, latent_dim: int, out_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        widths = layer_widths(patch_size, width)[-2::-1]
        self.first = nn.Linear(latent_dim, widths[0] * BOTTOM**2)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.LeakyReLU(SLOPE)]
        for a, b in itertools.pairwise(widths):
            layers += [_up(a, b), nn.BatchNorm2d(b), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.last = _up(widths[-1], out_channels)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z).unflatten(1, (-1, BOTTOM, BOTTOM))
        return torch.tanh(self.last(self.layers(h)))


class AdGANCritic(nn.Module):
    """image [B, C, S, S] -> unbounded discriminator_output [B]; no norm, so that it mixes no samples."""

    def __init__(self, in_channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        *widths, self.num_features = layer_widths(patch_size, width)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([in_channels, *widths]):
            layers += [nn.Conv2d(a, b, 5, stride=2, padding=2), nn.LeakyReLU(SLOPE)]
        whole = nn.Conv2d(widths[-1], self.num_features, BOTTOM)
        self.layers = nn.Sequential(*layers, whole, nn.LeakyReLU(SLOPE))
        self.last = nn.Linear(self.num_features, 1)
        initialise(self)

    def features(self, image: Tensor) -> Tensor:
        """What the last layer sees, [B, F]."""
        h: Tensor = self.layers(image)
        return h.flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        score: Tensor = self.last(self.features(image))
        return score.squeeze(1)

    def slope(self, image: Tensor) -> Tensor:
        """Derivative of the scores towards their images, [B, C, S, S], with a graph for the weights.

        Between its kinks the critic is linear, so its slope is a pass back through its layers, and the gradient of a
        penalty on it is a first derivative: two thirds of the time of torch's second one.
        """
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        gains, h = [], image
        with torch.no_grad():
            for layer in convolutions:
                h = layer(h)
                gains.append(torch.where(h > 0, 1.0, SLOPE))
                h = h * gains[-1]
        slope = self.last.weight[0, :, None, None].expand(len(image), -1, 1, 1)
        for layer, gain in zip(reversed(convolutions), reversed(gains), strict=True):
            padding, stride = layer.padding, layer.stride
            assert isinstance(padding, tuple)
            more = [step - 1 for step in stride]
            slope = functional.conv_transpose2d(slope * gain, layer.weight, None, stride, padding, more)
        return slope


class AdGANEncoder(nn.Module):
    """image [B, C, S, S] -> z [B, latent_dim] in [-1, 1]: the critic's layers with as many last units; no norm."""

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        trunk = AdGANCritic(in_channels, patch_size, width)
        self.layers, self.last = trunk.layers, nn.Linear(trunk.num_features, latent_dim)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(image).flatten(1)))


def initialise(network: nn.Module) -> None:
    """Weights as in the authors' WGAN-GP code: uniform, by fan in and fan out; biases 0.

    Standard deviation √(4/(fan_in+fan_out)) before a rectifier, √(2/(fan_in+fan_out)) of layers called `last`; the fan
    on the coarse side of a strided layer is divided by stride². Linear layers are Glorot's.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            coarse, fine = module.weight.shape[:2]  # an upward convolution's weight has its axes the other way round
            fans = math.prod(module.kernel_size) * (coarse / math.prod(module.stride) + fine)
            bound = math.sqrt(3 * (2 if name == "last" else 4) / fans)
            nn.init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _up(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Twice the side; the padding TensorFlow calls "same"."""
    return nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1)
