"""A BiGAN of vectors: encoder, generator, and a discriminator of pairs (x, z), the second part of GBAD.

The layers are those of EGBAD's networks for tables (Zenati et al. 2018), with more units; the paper of GBAD gives none.
"""

import torch
from torch import Tensor, nn

from anomaly_lab.networks.bigan import draw_weights

SLOPE, DROPOUT = 0.2, 0.2
WIDE, NARROW = 512, 256  # units of the two hidden layers


class VectorEncoder(nn.Module):
    """Encoder: x [B, num_features] -> code z [B, latent_dim]; with batch norm.

    Args:
        num_features: length of x.
        latent_dim: length of z.

    Examples:
        >>> VectorEncoder(10, latent_dim=4)(torch.zeros(2, 10)).shape
        torch.Size([2, 4])
    """

    def __init__(self, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.layers = _hidden(num_features, WIDE, NARROW)
        self.last = nn.Linear(NARROW, latent_dim)
        draw_weights(self, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.last(self.layers(x))
        return z


class VectorGenerator(nn.Module):
    """Generator: z [B, latent_dim] -> x [B, num_features], unbounded; the encoder's layers in reverse.

    Args:
        num_features: length of x.
        latent_dim: length of z.

    Examples:
        >>> VectorGenerator(10, latent_dim=4)(torch.zeros(2, 4)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.layers = _hidden(latent_dim, NARROW, WIDE)
        self.last = nn.Linear(WIDE, num_features)
        draw_weights(self, 0.02)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.last(self.layers(z))
        return x


class VectorDiscriminator(nn.Module):
    """Discriminator: x [B, num_features] and code z [B, latent_dim] -> logit [B] of "x is real"; with dropout.

    Args:
        num_features: length of x.
        latent_dim: length of z.

    Examples:
        >>> VectorDiscriminator(10, latent_dim=4)(torch.zeros(2, 10), torch.zeros(2, 4)).shape
        torch.Size([2])
    """

    def __init__(self, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.of_x, self.of_z = _leaky(num_features, WIDE), _leaky(latent_dim, WIDE)
        self.joint = _leaky(2 * WIDE, WIDE)
        self.last = nn.Linear(WIDE, 1)
        draw_weights(self, 0.02)

    def features(self, x: Tensor, z: Tensor) -> Tensor:
        """Return f_D, the input of the last layer for pairs of x and z, [B, 512]."""
        h: Tensor = self.joint(torch.cat([self.of_x(x), self.of_z(z)], 1))
        return h

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        logit: Tensor = self.last(self.features(x, z))
        return logit.squeeze(1)


class Standardised(nn.Module):
    """Standardisation by mean and deviation of all rows seen so far: x [B, num_features] -> the same shape.

    Rows are counted by `follow`, and by nothing else. Values that hardly vary are not blown up: the deviation is at
    least 0.0001.

    Args:
        num_features: length of x.

    Examples:
        >>> standard = Standardised(1)
        >>> standard.follow(torch.tensor([[1.0], [3.0]]))
        >>> standard.follow(torch.tensor([[5.0], [7.0]]))
        >>> standard(torch.tensor([[4.0]])).item()  # the mean of all four
        0.0
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))

    def follow(self, x: Tensor) -> None:
        """Take rows x [n, num_features] into account (Chan, Golub, LeVeque 1979)."""
        n, before = len(x), self.count.clone()
        mean, variance = x.mean(0), x.var(0, correction=0)
        share = n / (before + n)
        difference = mean - self.mean
        spread = torch.where(before > 0, self.variance, 0.0) * (1 - share) + variance * share
        self.variance.copy_(spread + difference.square() * share * (1 - share))
        self.mean += difference * share
        self.count += n

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.variance.sqrt().clamp_min(1e-4)


def _hidden(inputs: int, first: int, second: int) -> nn.Sequential:
    """Return two dense layers with batch norm and leaky ReLU."""
    layers: list[nn.Module] = []
    for a, b in ((inputs, first), (first, second)):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _leaky(inputs: int, units: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, units), nn.LeakyReLU(SLOPE), nn.Dropout(DROPOUT))
