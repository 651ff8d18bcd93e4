"""The BiGAN of vectors: layers counted by hand, standardisation against the rows at once."""

from itertools import pairwise

import torch
from torch import nn

from anomaly_lab.networks.vector_bigan import Standardised, VectorDiscriminator, VectorEncoder, VectorGenerator


def dense(*sizes: int) -> int:
    return sum(a * b + b for a, b in pairwise(sizes))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_layers_are_those_specified() -> None:
    norms = 2 * 512 + 2 * 256
    assert count(VectorEncoder(1029, 64)) == dense(1029, 512, 256, 64) + norms
    assert count(VectorGenerator(1029, 64)) == dense(64, 256, 512, 1029) + norms
    assert count(VectorDiscriminator(1029, 64)) == dense(1029, 512) + dense(64, 512) + dense(1024, 512, 1)
    slopes = {m.negative_slope for m in VectorDiscriminator(9, 4).modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_the_discriminators_features_are_the_input_of_its_last_layer() -> None:
    network, x, z = VectorDiscriminator(9, 4).eval(), torch.randn(3, 9), torch.randn(3, 4)
    features = network.features(x, z)
    assert features.shape == (3, 512)
    torch.testing.assert_close(network(x, z), network.last(features).squeeze(1))


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    x, standard = torch.randn(50, 3) * torch.tensor([1.0, 20.0, 0.0]) + torch.tensor([0.0, 5.0, 7.0]), Standardised(3)
    for part in x.split([3, 17, 1, 29]):
        standard.follow(part)
    torch.testing.assert_close(standard.mean, x.mean(0))
    torch.testing.assert_close(standard.variance, x.var(0, correction=0), rtol=1e-4, atol=1e-8)
    standardised = standard(x)
    torch.testing.assert_close(standardised[:, :2].std(0, correction=0), torch.ones(2))
    assert standardised[:, 2].abs().max() < 1e-2  # a constant is not blown up
