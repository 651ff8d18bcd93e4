"""adGAN's strided 5×5 generator, critic and encoder, for square images of any power-of-two side >= 8.

Shen, Chen, Wang, Zhang 2020, IEEE Access 8, figure 1 (at 32×32). There are n = log2(side / 4) strided layers; layer i,
counted from the image, has width · min(2^i, 8) channels. The critic ends in a 4×4 layer, so that its last unit sees the
whole image. At width 64, latent_dim 128 and 32×32, generator and critic have 1 555 073 and 3 124 225 parameters for one
channel, 1 558 275 and 3 127 425 for three. The paper does not state the slope .2, the batch norm after the linear layer
and the initialisation; they are our choice.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_lab.networks.stages import unrounded

BOTTOM = 4  # side of the smallest feature map
SLOPE = 0.2


def layer_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Return the channels of the strided layers, from the image inward, and of the 4×4 layer that follows them.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.

    Examples:
        >>> layer_widths((32, 32), 64), layer_widths((64, 64), 64)
        ([64, 128, 256, 512], [64, 128, 256, 512, 512])
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"patch_size {tuple(patch_size)}: the strided networks need a square whose side is a power of two >= 8"
        )
    layers = (side // BOTTOM).bit_length() - 1
    return [width * min(2**i, 8) for i in range(layers + 1)]


class AdGANGenerator(nn.Module):
    """Generator: z [B, latent_dim] -> image [B, out_channels, S, S] in [-1, 1]; with batch norm.

    Args:
        latent_dim: length of z.
        out_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> AdGANGenerator(latent_dim=8, out_channels=1, patch_size=(32, 32), width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

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
    """Critic: image [B, C, S, S] -> output [B], unbounded; without normalisation, so that it does not mix samples.

    Args:
        in_channels: 1 or 3.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> critic = AdGANCritic(in_channels=1, patch_size=(32, 32), width=4)
        >>> image = torch.zeros(2, 1, 32, 32)
        >>> critic(image).shape, critic.features(image).shape
        (torch.Size([2]), torch.Size([2, 32]))
    """

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
        """Return the input of the last layer, [B, F]."""
        h: Tensor = self.layers(image)
        return h.flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        return unrounded(self.last, self.features(image))

    def slope(self, image: Tensor) -> Tensor:
        """Return the gradient of the outputs with respect to their images, [B, C, S, S], with a graph for the weights.

        Away from the kinks of its leaky ReLUs the critic is linear, so the gradient is a backward pass through its
        layers. The gradient of a penalty on it is then a first derivative, which takes two thirds of the time of
        autograd's second derivative.
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
            output_padding = [step - 1 for step in stride]
            slope = functional.conv_transpose2d(slope * gain, layer.weight, None, stride, padding, output_padding)
        return slope


class AdGANEncoder(nn.Module):
    """Encoder: image [B, C, S, S] -> z [B, latent_dim] in [-1, 1]; the critic's layers with latent_dim tanh outputs.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of z.
        patch_size: height and width of the image.
        width: channels at half the resolution.

    Examples:
        >>> encoder = AdGANEncoder(in_channels=1, latent_dim=8, patch_size=(32, 32), width=4)
        >>> encoder(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, latent_dim: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        trunk = AdGANCritic(in_channels, patch_size, width)
        self.layers, self.last = trunk.layers, nn.Linear(trunk.num_features, latent_dim)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(image).flatten(1)))


def initialise(network: nn.Module) -> None:
    """Initialise the weights as the authors' WGAN-GP code does: uniform, scaled by fan in and fan out; biases 0.

    The standard deviation is √(4/(fan_in+fan_out)) for layers followed by a rectifier and √(2/(fan_in+fan_out)) for
    layers called `last`. The fan on the coarse side of a strided layer is divided by stride². Linear layers are
    Glorot-uniform.

    Examples:
        >>> layer = nn.Sequential(nn.Conv2d(1, 4, 5, stride=2))
        >>> initialise(layer)
        >>> layer[0].bias.tolist(), bool(layer[0].weight.abs().max() <= (3 * 4 / (25 * (4 / 4 + 1))) ** 0.5)
        ([0.0, 0.0, 0.0, 0.0], True)
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            coarse, fine = module.weight.shape[:2]  # transposed convolutions swap the axes of the weight
            fans = math.prod(module.kernel_size) * (coarse / math.prod(module.stride) + fine)
            bound = math.sqrt(3 * (2 if name == "last" else 4) / fans)
            nn.init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _up(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Return a layer that doubles the side, with the padding that TensorFlow calls "same"."""
    return nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1)
