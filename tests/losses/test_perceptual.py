"""Perceptual distance by hand."""

import torch
from torch import Tensor

from anomaly_lab.losses.perceptual import perceptual_distance, perceptual_map, perceptual_maps


def taps(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, side, side, generator=generator) for side in (8, 4)]


def test_it_is_two_minus_twice_the_cosine() -> None:
    one, two = taps(0), taps(1)
    for found, a, b in zip(perceptual_maps(one, two), one, two, strict=True):
        torch.testing.assert_close(found[:, 0], 2 - 2 * torch.cosine_similarity(a, b), atol=1e-5, rtol=0)
    expected = sum(2 - 2 * torch.cosine_similarity(a, b).mean((1, 2)) for a, b in zip(one, two, strict=True)) / 2
    torch.testing.assert_close(perceptual_distance(one, two), expected, atol=1e-5, rtol=0)


def test_the_same_features_are_at_no_distance_whatever_their_scale() -> None:
    one = taps(0)
    torch.testing.assert_close(perceptual_distance(one, [3 * tap for tap in one]), torch.zeros(2))
    zero = [torch.zeros_like(tap, requires_grad=True) for tap in one]
    perceptual_distance(one, zero).sum().backward()
    assert all(tap.grad is not None and tap.grad.isfinite().all() for tap in zero)


def test_a_map_has_the_mean_of_the_distance_and_shows_where() -> None:
    one = taps(0)
    changed = [tap.clone() for tap in one]
    for tap, side in zip(changed, (8, 4), strict=True):
        tap[:, :, : side // 4, : side // 4] *= -1
    found = perceptual_map(one, changed, (32, 32))
    assert found.shape == (2, 1, 32, 32)
    assert found[:, :, :6, :6].min() > 2
    assert not found[:, :, 16:, 16:].any()
